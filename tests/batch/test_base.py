"""What all batch systems have in common: running a command, the environment of a nested job, and durations."""

from __future__ import annotations

import math
import time

import pytest

import hpcfwi.batch.base as base
from hpcfwi.batch.base import JobState, SubmissionError, clean_environment, duration_seconds, run_command
from hpcfwi.batch.pbs import PBS
from hpcfwi.batch.slurm import Slurm
from hpcfwi.errors import RunError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("59:30\n", 3570),
        ("0:07", 7),
        ("1:02:03", 3723),
        ("2-00:00:01\n", 172_801),
        ("UNLIMITED\n", math.inf),
        ("INVALID", None),
        ("NOT_SET", None),
        ("", None),
    ],
)
def test_durations(text, seconds):
    assert duration_seconds(text) == seconds


def test_a_command_returns_its_output_and_its_exit_code(command):
    command("ask", 'echo "$1"; echo no >&2; exit 3')
    result = run_command("ask", "two words")
    assert (result.code, result.out, result.err) == (3, "two words\n", "no\n")
    assert str(result) == "ask 'two words': exit code 3: no"
    with pytest.raises(RunError, match="exit code 3: no"):
        result.output()


def test_a_command_that_is_not_installed_is_a_result_too():
    result = run_command("no-such-command")
    assert (result.code, result.message) == (127, "no such command here")


def test_a_command_that_hangs_is_ended(command, monkeypatch):
    monkeypatch.setattr(base, "COMMAND_TIMEOUT_S", 0.3)
    command("hang", "exec sleep 60")
    started = time.monotonic()
    result = run_command("hang")
    assert (result.code, result.message) == (124, "no answer within 0.3 s")
    assert time.monotonic() - started < 10


def test_a_nested_job_does_not_inherit_the_variables_of_the_outer_job():
    job = {"SLURM_CPU_BIND": "x", "SLURM_JOB_ID": "1", "PBS_JOBID": "2", "OMP_NUM_THREADS": "8", "NCPUS": "8"}
    # without a PBS, which would add its commands
    kept = {"SLURM_CONF": "/etc/slurm.conf", "PBS_CONF_FILE": "/none", "PATH": "/bin", "SBATCH_ACCOUNT": "me"}
    assert clean_environment(job | kept) == kept


def test_in_a_pbs_job_the_pbs_commands_come_first(tmp_path):
    (tmp_path / "bin").mkdir()
    conf = tmp_path / "pbs.conf"
    conf.write_text(f"PBS_SERVER=login\nPBS_EXEC={tmp_path}\n")
    inside = {"PBS_JOBID": "1.login", "PBS_CONF_FILE": str(conf), "PATH": "/usr/bin"}
    assert clean_environment(inside)["PATH"] == f"{tmp_path}/bin:/usr/bin"
    assert clean_environment(inside | {"PBS_JOBID": ""})["PATH"] == "/usr/bin"
    conf.write_text("PBS_EXEC=/nowhere\n")
    assert clean_environment(inside)["PATH"] == "/usr/bin"


def test_two_states_that_differ_in_the_remaining_time_alone_are_equal():
    """Otherwise the event log would get a line for every job every two seconds."""
    assert JobState("running", "R", nodes="node1", left_s=9.0) == JobState("running", "R", nodes="node1", left_s=7.0)


def test_submitting_returns_the_number_of_the_job(answer, tmp_path):
    answer("sbatch", "Submitted batch job 41\n")
    assert Slurm().submit(tmp_path / "job.sh") == "41"
    answer("qsub", "41.login.cluster.org\n")
    assert PBS().submit(tmp_path / "job.sh") == "41"


@pytest.mark.parametrize(("out", "err", "code"), [("", "sbatch: error: no", 1), ("Submitted\n", "", 0)])
def test_a_rejected_job_raises_with_the_command_and_its_answer(answer, tmp_path, out, err, code):
    answer("sbatch", out, err, code)
    with pytest.raises(SubmissionError) as caught:
        Slurm().submit(tmp_path / "job.sh")
    assert caught.value.result.command == f"sbatch {tmp_path}/job.sh"
    assert caught.value.result.message == (out + err).strip()


@pytest.mark.parametrize(("system", "program"), [(Slurm(), "squeue"), (PBS(), "qstat")])
def test_a_batch_system_that_does_not_answer_is_an_error_and_not_a_lost_job(answer, system, program):
    answer(program, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)", 1)
    with pytest.raises(RunError, match=r"does not answer: exit code 1: .*Unable to contact"):
        system.states(["1"])


@pytest.mark.parametrize(
    ("system", "message", "key"),
    [
        (Slurm, "sbatch: error: invalid partition specified: nope", "scheduler.queue"),
        (
            Slurm,
            "Batch job submission failed: Invalid account or account/partition combination specified",
            "scheduler.account",
        ),
        (Slurm, "Batch job submission failed: Invalid qos specification", "scheduler.qos"),
        (Slurm, "Batch job submission failed: Requested time limit is invalid", "scheduler.walltime"),
        (Slurm, "Memory specification can not be satisfied", "worker.memory"),
        (Slurm, "CPU count per node can not be satisfied", "worker.processes"),
        (Slurm, "sbatch: unrecognized option '--tpyo'", "scheduler.directives"),
        (PBS, "qsub: Unknown queue", "scheduler.queue"),
        (PBS, "qsub: Unknown resource: nope", "scheduler.resources"),
        (PBS, "qsub: Job violates queue and/or server resource limits: walltime", "scheduler.walltime"),
        (PBS, "qsub: Invalid Account", "scheduler.account"),
        (Slurm, "Job's QOS not permitted to use this partition (boost allows boost not normal)", "scheduler.qos"),
        (Slurm, "Socket timed out on send/recv operation", None),
    ],
)
def test_an_error_message_is_traced_to_a_key_of_the_site_file(system, message, key):
    assert system().site_key(message) == key
