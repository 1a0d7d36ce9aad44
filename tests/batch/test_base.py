"""What schedulers answer, as they answer it."""

from __future__ import annotations

import asyncio
import os

import pytest

from hpcfwi.batch.base import PBS, JobState, Slurm, batch_system, clean_environment
from hpcfwi.errors import RunError

# OpenPBS 23.06: a long value goes on after a tab; a job that has ended is not among the answers, and makes qstat fail.
OPENPBS = """Job Id: 12.login
    Job_Name = hpcfwi-circle
    job_state = R
    exec_host = node1/0*2+node2/0*2
    comment = Job run at Tue Nov 24 at 06:33 on (node1:ncpus=2:mem=1952768kb)
\t+(node2:ncpus=2:mem=1952768kb)

Job Id: 13.login
    Job_Name = hpcfwi-circle
    job_state = Q
    comment = Can Never Run: Insufficient amount of resource: mem (R: 66757mb A:
\t24gb T: 24gb)
"""
# The front end for users of Torque that comes with Slurm indents by tabs.
TORQUE = "Job Id:\t14\n\tJob_Name = test\n\tjob_state = C\n\texec_host = node1/1\n\nJob Id:\t15\n\tjob_state = H\n"


@pytest.fixture
def answering(tmp_path, monkeypatch):
    """Puts a command with a given answer before all others."""

    def make(name, out="", err="", code=0):
        (tmp_path / "out").write_text(out)
        (tmp_path / "err").write_text(err)
        (tmp_path / name).write_text(f"#!/bin/sh\ncat {tmp_path}/out; cat {tmp_path}/err >&2; exit {code}\n")
        (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return make


def test_openpbs(answering):
    answering("qstat", OPENPBS, "qstat: 11.login Job has finished", 35)
    found = asyncio.run(PBS().states(["11.login", "12.login", "13.login"]))
    assert found["11.login"] == JobState("ended", "gone")
    assert (found["12.login"].state, found["12.login"].nodes) == ("running", "node1+node2")
    assert found["13.login"].state == "pending"
    assert found["13.login"].reason.endswith("(R: 66757mb A:24gb T: 24gb)")
    assert PBS().hopeless(found["13.login"])
    assert PBS().key_of(found["13.login"].reason) == "worker.memory"
    assert not PBS().hopeless(found["12.login"])


def test_torque(answering):
    answering("qstat", TORQUE)
    found = asyncio.run(PBS().states(["14", "15"]))
    assert [found[job].state for job in ("14", "15")] == ["ended", "pending"]


@pytest.mark.parametrize(
    ("line", "state", "hopeless"),
    [
        ("7|RUNNING|None|node1", "running", False),
        ("7|PENDING|Priority|", "pending", False),
        ("7|PENDING|PartitionConfig|", "pending", True),
        ("7|PENDING|AssocMaxCpuPerJobLimit|", "pending", True),
        ("7|PENDING|QOSMaxJobsPerUserLimit|", "pending", False),
        ("7|PENDING|Job's account not known, so it can't use this partition (debug allows geo)|", "pending", True),
        ("7|PENDING|Job's QOS not permitted to use this partition (boost allows boost not normal)|", "pending", True),
        ("7|CONFIGURING|None|node1", "pending", False),
        ("7|NODE_FAIL|NodeDown|node1", "ended", False),
        ("7|TIMEOUT|TimeLimit|node1", "ended", False),
        ("7|COMPLETING|None|node1", "ended", False),
    ],
)
def test_slurm(answering, line, state, hopeless):
    answering("squeue", f"{line}\n")
    found = asyncio.run(Slurm().states(["7", "8"]))
    assert found["7"].state == state
    assert Slurm().hopeless(found["7"]) == hopeless
    assert found["8"] == JobState("ended", "gone")


@pytest.mark.parametrize(("system", "command"), [(Slurm(), "squeue"), (PBS(), "qstat")])
def test_a_scheduler_that_does_not_answer_is_no_lost_job(answering, system, command):
    answering(command, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)", 1)
    with pytest.raises(RunError, match=r"does not answer: exit code 1: .*Unable to contact"):
        asyncio.run(system.states(["1"]))


@pytest.mark.parametrize(
    ("kind", "message", "key"),
    [
        ("slurm", "sbatch: error: invalid partition specified: nope", "scheduler.queue"),
        (
            "slurm",
            "Batch job submission failed: Invalid account or account/partition combination specified",
            "scheduler.account",
        ),
        ("slurm", "Batch job submission failed: Invalid qos specification", "scheduler.qos"),
        ("slurm", "Batch job submission failed: Requested time limit is invalid", "scheduler.walltime"),
        ("slurm", "Memory specification can not be satisfied", "worker.memory"),
        ("slurm", "CPU count per node can not be satisfied", "worker.processes"),
        ("slurm", "sbatch: unrecognized option '--tpyo'", "scheduler.directives"),
        ("pbs", "qsub: Unknown queue", "scheduler.queue"),
        ("pbs", "qsub: Unknown resource: nope", "scheduler.resources"),
        ("pbs", "qsub: Job violates queue and/or server resource limits: walltime", "scheduler.walltime"),
        ("pbs", "qsub: Invalid Account", "scheduler.account"),
        ("slurm", "Job's QOS not permitted to use this partition (boost allows boost not normal)", "scheduler.qos"),
        ("slurm", "Socket timed out on send/recv operation", None),
    ],
)
def test_a_refusal_leads_to_a_key(kind, message, key):
    assert batch_system(kind).key_of(message) == key


def test_what_belongs_to_the_job_that_we_are_in_is_not_passed_on():
    ours = {"SLURM_CPU_BIND": "x", "SLURM_JOB_ID": "1", "PBS_JOBID": "2", "OMP_NUM_THREADS": "8", "NCPUS": "8"}
    # without a PBS, which would add its commands
    kept = {"SLURM_CONF": "/etc/slurm.conf", "PBS_CONF_FILE": "/none", "PATH": "/bin", "SBATCH_ACCOUNT": "me"}
    assert clean_environment(ours | kept) == kept
