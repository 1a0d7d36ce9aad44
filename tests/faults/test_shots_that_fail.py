"""One shot of a run cannot be used, or ends every worker that tries it: the run stops, and says how to go on without it."""

from __future__ import annotations

import re
import shlex
import signal

import numpy as np
import pytest
from watching import logged_events

from hpcfwi.artifacts import read_container, unpickle

COMMAND = ("run", "fwi.toml", "--run-dir", "run", "--set", "site.worker.threads=1")


@pytest.fixture(scope="module")
def without_1(first_run, tmp_path_factory):
    """The model of a run that never had the shot 1."""
    shell = type(first_run[0])(tmp_path_factory.mktemp("without"))
    shell.run("run", 'data.exclude=["1"]')
    return (shell.folder / "run" / "model.npy").read_bytes()


def begin_anew_as_told(shell, message, *more):
    """Type what the message says."""
    (words,) = re.findall(r"over without it: (--fresh .*)$", message, re.MULTILINE)
    done = shell(*COMMAND, *more, *shlex.split(words))
    assert done.returncode == 0, done.stderr
    assert "without 1 of its 3 shots (data.exclude: 1)" in done.stdout
    return (shell.folder / "run-2" / "model.npy").read_bytes()


@pytest.mark.slow
def test_infinite_values_in_most_traces_stop_the_run_until_the_shot_is_excluded_or_repaired(
    hpcfwi, first_run, without_1
):
    (hpcfwi.folder / "gathers").mkdir()
    for path in (first_run[2] / "staged" / "shots").iterdir():
        record = unpickle(path, read_container(path, "shot")[1])["record"]
        np.save(hpcfwi.folder / "gathers" / f"{path.stem}.npy", record)
    path = hpcfwi.folder / "gathers" / "1.npy"
    sound = np.load(path)
    broken = sound.copy()
    broken[7, 3:] = -np.inf
    np.save(path, broken)
    more = ("--set", "data.file=gathers")
    done = hpcfwi(*COMMAND, *more)
    assert done.returncode == 2, done.stdout
    assert done.stderr.count("hpcfwi: ") == 1
    assert "Traceback" not in done.stderr
    assert "shot 1: only 3 of its 20 traces can be used (not finite: 4-20)" in done.stderr
    assert begin_anew_as_told(hpcfwi, done.stderr, *more) == without_1
    np.save(path, sound)
    hpcfwi.run("run", more[1])
    assert (hpcfwi.folder / "run" / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGSEGV, "killed by signal 11 (SIGSEGV)"), (None, "exited with status 7")],
    ids=["segfault", "exit"],
)
def test_a_shot_that_kills_its_workers_stops_the_run_after_four_of_them(
    hpcfwi, meddle, first_run, without_1, number, reason
):
    run_dir = hpcfwi.folder / "run"
    meddle("crash", shot="1", number=number)
    done = hpcfwi(*COMMAND)
    assert done.returncode == 3, done.stdout
    assert done.stderr.count("hpcfwi: ") == 1
    assert "Traceback" not in done.stderr
    assert "hpcfwi: shot 1 failed 4 times:\n" in done.stderr
    assert len(re.findall(rf"^  its worker tcp://\S+ died: {re.escape(reason)}$", done.stderr, re.MULTILINE)) == 4
    assert len(logged_events(run_dir, "worker died")) == 4
    assert begin_anew_as_told(hpcfwi, done.stderr) == without_1
    meddle()
    hpcfwi.run("run")
    assert (run_dir / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()


@pytest.mark.slow
def test_a_worker_that_takes_too_much_memory_is_killed_and_reported(hpcfwi, meddle, first_run):
    run_dir, gigabytes = hpcfwi.folder / "run", 0.8
    meddle("devour", shot="1", limit=gigabytes * 1e9, once=hpcfwi.folder / "once")
    done = hpcfwi.run("run", f"site.worker.memory={gigabytes}")
    reason = f"out of memory: it came too close to its limit of {gigabytes} GB (site.worker.memory)"
    (died,) = logged_events(run_dir, "worker died")
    assert died["reason"] == reason
    assert died["pid"] == int((hpcfwi.folder / "once").read_text())
    assert f"died: {reason}" in done.stdout
    assert not done.stderr
    assert (run_dir / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()
