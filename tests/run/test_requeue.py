"""A batch job whose time is up starts again as long as its starts make progress; scripts stand in for the batch systems."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from sample_events import sample

from hpcfwi.artifacts import shard_folder, stage
from hpcfwi.batch.slurm import Slurm
from hpcfwi.errors import Interrupted
from hpcfwi.events.log import EventLog
from hpcfwi.inversion.functional_gradient import FunctionalGradient
from hpcfwi.inversion.journal import write_partial
from hpcfwi.process import keep_handlers
from hpcfwi.run.driver import run_inversion
from hpcfwi.run.folder import RunFolder, fresh_folder
from hpcfwi.run.session import Session
from hpcfwi.run.stopping import Requeue

TIME_IS_UP = Interrupted("stopped: it is late", "the batch job ends in 9 s", time_is_up=True)
QSTAT = """Job Id: 7.server
    Job_Name = big survey
    queue = small
    project = waves
    Account_Name = _pbs_project_default
    Output_Path = node1:{folder}/out put.log
    Resource_List.filesystems = home:eagle
    Resource_List.mem = 2gb
    Resource_List.ncpus = 4
    Resource_List.nodect = 2
    Resource_List.place = scatter
    Resource_List.select = 2:ncpus=2:mem=1gb:ngpus=1
    Resource_List.ngpus = 2
    Resource_List.walltime = 00:01:00
    Variable_List = PBS_O_HOME=/root,HPCFWI_CONFIG=fwi.toml
"""


@pytest.fixture(autouse=True)
def kept_handlers():
    """Restore the handlers of the test process, since a requeue ignores signals."""
    with keep_handlers():
        yield


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Makes commands that note their arguments; they are found first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def make(name, body="exit 0"):
        path = folder / name
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >"$0.arguments"\n{body}\n')
        path.chmod(0o755)
        return lambda: (folder / f"{name}.arguments").read_text().splitlines()

    return make


@pytest.fixture
def folder(tmp_path):
    with RunFolder(tmp_path / "run") as opened:
        yield opened


def start(folder, monkeypatch, number, finished, limit=10):
    """One start of a Slurm job that stops at its time limit; returns its message."""
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(number))
    requeueing = Requeue(folder, limit)
    for i in range(finished):
        (folder.journal / f"{number}-{i}.bin").touch()
    return str(requeueing.after(TIME_IS_UP))


def test_a_job_goes_back_into_the_queue_and_says_so(folder, command, monkeypatch):
    arguments = command("scontrol")
    shown = start(folder, monkeypatch, 0, 1)
    assert arguments() == ["requeue", "41"]
    assert shown == (
        f"stopped: the batch job ends in 9 s; job 41 is back in the queue and continues the run ({folder.path})"
    )
    _, event = [json.loads(line) for line in folder.events.read_text().splitlines()]
    assert event["event"] == "requeue"
    assert event["starts"] == 1


@pytest.mark.parametrize("kind", ["a sum of some shots", "staged data"])
def test_every_kept_result_is_progress(folder, command, monkeypatch, kind):
    command("scontrol")
    for number in range(6):
        monkeypatch.setenv("SLURM_JOB_ID", "41")
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(number))
        requeueing = Requeue(folder, 1)
        if kind == "a sum of some shots":
            (folder.journal / "partial-x").mkdir(exist_ok=True)
            write_partial(folder.journal / "partial-x" / f"{number}.bin", FunctionalGradient(0.5, np.zeros(3)))
        else:
            stage(shard_folder(folder.shots, str(number), 5000), "shot", {}, name=f"{number}.pkl")
        assert "is back in the queue" in str(requeueing.after(TIME_IS_UP))


def test_starts_with_progress_do_not_count_and_three_without_are_the_limit(folder, command, monkeypatch):
    command("scontrol")
    for number in range(30):
        assert "is back in the queue" in start(folder, monkeypatch, number, finished=number % 3 == 0, limit=100)
    for number in (30, 31):
        assert "is back in the queue" in start(folder, monkeypatch, number, finished=number == 30, limit=100)
    assert "is back in the queue" in start(folder, monkeypatch, 32, 0, limit=100)
    shown = start(folder, monkeypatch, 33, 0, limit=100)
    assert "not put back into the queue: 3 starts in a row without a kept result" in shown
    assert f"the same command continues the run ({folder.path})" in shown


def test_starts_without_progress_are_limited(folder, command, monkeypatch):
    command("scontrol")
    shown = [start(folder, monkeypatch, number, finished=number % 2, limit=4) for number in range(7)]
    assert ["is back in the queue" in line for line in shown] == [True] * 6 + [False]


def test_a_newly_submitted_job_counts_its_starts_from_zero(folder, command, monkeypatch):
    command("scontrol")
    for number in range(2):
        start(folder, monkeypatch, number, 0)
    assert "is back in the queue" in start(folder, monkeypatch, 0, 0)
    assert json.loads((folder.path / "requeue.json").read_text()) == {
        "starts": 1,
        "fruitless": 1,
        "fruitless_in_a_row": 1,
    }


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"starts": "x"}', '{"starts": 1e999, "fruitless": 0, "fruitless_in_a_row": 0}']
)
def test_a_damaged_count_does_not_stop_the_run(folder, command, monkeypatch, content):
    command("scontrol")
    (folder.path / "requeue.json").write_text(content)
    assert "is back in the queue" in start(folder, monkeypatch, 3, 0)


def test_a_refused_requeue_quotes_the_batch_system(folder, command, monkeypatch):
    command("scontrol", "echo 'Requested operation is presently disabled' >&2; exit 1")
    shown = start(folder, monkeypatch, 0, 1)
    assert "scontrol requeue 41: exit code 1: Requested operation is presently disabled" in shown
    assert f"the same command continues the run ({folder.path})" in shown


def test_a_job_is_requeued_only_with_the_option_and_when_its_time_is_up(folder, command, monkeypatch):
    command("scontrol", "exit 1")
    early = Interrupted("stopped: SIGTERM was received", "SIGTERM was received")
    assert Requeue(folder, 10).after(TIME_IS_UP) is TIME_IS_UP
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    assert Requeue(folder, 0).after(TIME_IS_UP) is TIME_IS_UP
    assert Requeue(folder, 10).after(early) is early
    assert not (folder.path / "requeue.json").exists()


def test_ctrl_c_of_a_python_caller_does_not_requeue_its_job(command, monkeypatch, make_problem, tmp_path):
    """Its process has no handlers of hpcfwi, so no signal is on record, as when the time is up."""
    command("scontrol")
    monkeypatch.setenv("SLURM_JOB_ID", "41")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "bring_up", interrupted)
    with pytest.raises(Interrupted, match="the same command continues the run") as stopped:
        run_inversion(make_problem().config, run_dir=tmp_path / "interrupted", requeue=5)
    assert not stopped.value.time_is_up
    assert not (tmp_path / "bin" / "scontrol.arguments").exists()


def test_signals_are_ignored_when_slurm_ends_the_job(folder, command, monkeypatch):
    command("scontrol")
    monkeypatch.setattr(Slurm, "requeue", lambda *_: str(signal.getsignal(signal.SIGTERM)))
    assert str(signal.SIG_IGN) in start(folder, monkeypatch, 0, 1)


def in_a_job_of_pbs(monkeypatch, folder, **environment):
    monkeypatch.delenv("PBS_EXEC", raising=False)
    for name, value in {
        "PBS_JOBID": "7.server",
        "PBS_O_WORKDIR": str(folder.path),
        "HPCFWI_PBS_SCRIPT": "./jobs/fwi.pbs",
        "HPCFWI_CONFIG": "fwi.toml",
        # or a PBS that is installed here would be found
        "PBS_CONF_FILE": str(folder.path / "no.conf"),
        **environment,
    }.items():
        monkeypatch.setenv(name, value)


def test_a_pbs_job_submits_a_successor_with_the_same_resources(folder, command, monkeypatch):
    qsub = command("qsub", "echo 8.server")
    command("qstat", f"cat <<'END'\n{QSTAT.format(folder=folder.path)}END")
    in_a_job_of_pbs(monkeypatch, folder, HPCFWI_ARGS="--site here --fresh --nodes 2")
    shown = str(Requeue(folder, 10).after(TIME_IS_UP))
    assert "; job 8.server follows and continues the run" in shown
    words = qsub()
    options = dict(zip(words[0:-1:2], words[1:-1:2], strict=True))
    assert words[-1] == "./jobs/fwi.pbs"
    requests = [word for option, word in zip(words[:-1:2], words[1:-1:2], strict=True) if option == "-l"]
    assert sorted(requests) == [
        "filesystems=home:eagle",
        "place=scatter",
        "select=2:ncpus=2:mem=1gb:ngpus=1",
        "walltime=00:01:00",
    ]
    assert options["-W"] == "depend=afterany:7.server"
    assert (options["-N"], options["-q"], options["-P"]) == ("big survey", "small", "waves")
    assert "-A" not in options
    assert options["-o"] == f"{folder.path}/out put.log.1"
    handed_on = dict(item.split("=", 1) for item in options["-v"].split(","))
    assert handed_on["HPCFWI_CONFIG"] == "fwi.toml"
    assert handed_on["HPCFWI_SUCCESSOR"] == "1"
    assert handed_on["HPCFWI_ARGS"] == "--site here --fresh --nodes 2"
    # but the successor does not begin anew
    EventLog(folder.events).write(sample("start", job="7.server"))
    folder.path.with_name(f"{folder.path.name}-2").mkdir()  # of another job
    for name in ("HPCFWI_SUCCESSOR", "HPCFWI_PREDECESSOR"):
        monkeypatch.setenv(name, handed_on[name])
    monkeypatch.setenv("PBS_JOBID", "8.server")
    assert fresh_folder(folder.path) == folder.path


def test_a_pbs_job_that_cannot_be_requeued_says_why(folder, command, monkeypatch):
    command("qsub", "echo 8.server")
    command("qstat", "echo 'qstat: cannot connect to server' >&2; exit 111")
    in_a_job_of_pbs(monkeypatch, folder)
    shown = str(Requeue(folder, 10).after(TIME_IS_UP))
    assert "cannot be put back into the queue: qstat -f 7.server: exit code 111: qstat: cannot connect" in shown
    monkeypatch.delenv("HPCFWI_PBS_SCRIPT")
    assert "only jobs that run jobs/fwi.pbs can be submitted again" in str(Requeue(folder, 10).after(TIME_IS_UP))
