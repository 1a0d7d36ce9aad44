"""Workers that die, hang or are all gone amid a run: it ends by itself, with the bytes of a run that nobody disturbed."""

from __future__ import annotations

import json
import os
import signal
import time

import psutil
import pytest

SHOTS = 40
SETTINGS = (
    "site.worker.threads=1",
    "site.worker.processes=2",
    f"acquisition.sources.count={SHOTS}",
    "inversion.iterations=3",
    "inversion.ftol=0",
)
WORDS = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module")
def undisturbed(first_run, tmp_path_factory):
    shell = type(first_run[0])(tmp_path_factory.mktemp("undisturbed"))
    shell.run("run", *SETTINGS)
    return (shell.folder / "run" / "model.npy").read_bytes()


def events(run_dir):
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def amid_the_second_evaluation(process, run_dir):
    """Wait until then; returns the numbers of the worker processes, as their own events tell them."""
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        if (run_dir / "events.jsonl").exists():
            shots = [event for event in events(run_dir) if event["event"] == "shot"]
            if sum(event["evaluation"] == 2 for event in shots) >= 5:
                return sorted({event["pid"] for event in shots})
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "count", "told"),
    [
        (signal.SIGKILL, 1, "killed by signal 9 (SIGKILL"),
        (signal.SIGSEGV, 1, "killed by signal 11 (SIGSEGV)"),
        (signal.SIGKILL, 2, "killed by signal 9 (SIGKILL"),
    ],
    ids=["kill", "segfault", "all of them"],
)
def test_workers_that_die_cost_their_shots_and_are_told_of(hpcfwi, undisturbed, number, count, told):
    run_dir = hpcfwi.folder / "run"
    process = hpcfwi.start("run", "fwi.toml", "--run-dir", "run", *WORDS)
    for pid in amid_the_second_evaluation(process, run_dir)[:count]:
        os.kill(pid, number)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, out + errors
    assert not errors
    assert (run_dir / "model.npy").read_bytes() == undisturbed
    died = [event for event in events(run_dir) if event["event"] == "worker died"]
    assert len(died) == count
    assert all(event["reason"].startswith(told) for event in died)
    assert f"died: {told}" in out


@pytest.mark.slow
def test_a_worker_that_is_stopped_for_ever_is_replaced(hpcfwi, undisturbed):
    run_dir = hpcfwi.folder / "run"
    process = hpcfwi.start("run", "fwi.toml", "--run-dir", "run", *WORDS)
    pid = amid_the_second_evaluation(process, run_dir)[0]
    os.kill(pid, signal.SIGSTOP)
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, out + errors
    assert not errors
    assert (run_dir / "model.npy").read_bytes() == undisturbed
    assert any(event["event"] == "task overdue" for event in events(run_dir))
    assert "perhaps its worker hangs" in out
    assert not psutil.pid_exists(pid)
