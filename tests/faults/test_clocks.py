"""Clocks that are set amid a run: forward harms nothing; back, the run may stand still, and the same command continues it."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

SETTINGS = (
    "site.worker.threads=1",
    "site.worker.processes=2",
    "acquisition.sources.count=150",
    "inversion.iterations=40",
    "inversion.ftol=0",
    "inversion.gtol=0",
)
COMMAND = ("run", "fwi.toml", "--run-dir", "run", *(word for setting in SETTINGS for word in ("--set", setting)))


@pytest.fixture(scope="module")
def undisturbed(first_run, tmp_path_factory):
    shell = type(first_run[0])(tmp_path_factory.mktemp("undisturbed"))
    shell.run("run", *SETTINGS)
    return (shell.folder / "run" / "model.npy").read_bytes()


def events(run_dir, *kinds):
    told = (json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines() if line.endswith("}"))
    return [event for event in told if event["event"] in kinds]


def clock_of(run_dir):
    """What it was when the last evaluation was done."""
    told = events(run_dir, "evaluation") if (run_dir / "events.jsonl").exists() else []
    return told[-1]["time"] if told else 0.0


def jump(process, run_dir, set_clock, hours):
    """Set the clock, and wait until an evaluation was done by it; False if the run stands still for a while."""
    set_clock(f"{hours:+}h")
    until = time.monotonic() + 30
    while abs(clock_of(run_dir) - time.time() - hours * 3600) > 60:
        if process.poll() is not None or time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def begun(process, run_dir):
    """Wait until an evaluation is done."""
    until = time.monotonic() + 100
    while not clock_of(run_dir):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.slow
def test_a_clock_that_is_set_forward_by_hours_changes_nothing(hpcfwi, undisturbed, set_clock):
    run_dir, began = hpcfwi.folder / "run", time.monotonic()
    process = hpcfwi.start(*COMMAND)
    begun(process, run_dir)
    for hours in (5, 12):
        assert jump(process, run_dir, set_clock, hours), process.poll()
    out, errors = process.communicate(timeout=100)
    seconds = time.monotonic() - began
    assert process.returncode == 0, out + errors
    assert not errors
    assert (run_dir / "model.npy").read_bytes() == undisturbed
    assert not events(run_dir, "task overdue")
    with (run_dir / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(0 <= float(row["step_seconds"]) < seconds for row in rows)
    elapsed = [float(row["elapsed_seconds"]) for row in rows]
    assert elapsed == sorted(elapsed)
    assert elapsed[-1] < seconds


@pytest.mark.slow
def test_a_clock_that_is_set_back_loses_nothing(hpcfwi, undisturbed, set_clock):
    """The run goes on, or stands still until it is stopped; the same command then comes to the same bytes."""
    run_dir = hpcfwi.folder / "run"
    process = hpcfwi.start(*COMMAND)
    begun(process, run_dir)
    goes_on = jump(process, run_dir, set_clock, -7)
    if not goes_on and process.poll() is None:
        process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=100)
    assert process.returncode in (0, 75), out + errors
    assert "the clock of this machine was set back by 25" in out
    if process.returncode == 75:
        done = hpcfwi(*COMMAND)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (run_dir / "model.npy").read_bytes() == undisturbed


@pytest.fixture
def another_start(hpcfwi):
    """Words before a command that let it see this machine's start at another time of day, as after its clock was set."""
    stat = hpcfwi.folder / "stat"
    told = Path("/proc/stat").read_text()
    stat.write_text(re.sub(r"^btime (\d+)$", lambda found: f"btime {int(found[1]) + 3600}", told, flags=re.MULTILINE))
    words = ["unshare", "--mount", "sh", "-c", f'mount --bind {shlex.quote(str(stat))} /proc/stat && exec "$@"', "sh"]
    if os.geteuid() != 0 or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root can let a process see another /proc/stat")
    return words


def test_a_driver_is_known_to_be_alive_when_the_clock_was_set_since_it_began(hpcfwi, another_start):
    process = hpcfwi.start(*COMMAND)
    until = time.monotonic() + 60
    while not (hpcfwi.folder / "run" / "driver.json").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    try:
        hpcfwi.prefix = another_start
        done = hpcfwi(*COMMAND)
        assert done.returncode == 2, done.stdout + done.stderr
        assert f"another hpcfwi is at work on this run folder (process {process.pid} on " in done.stderr
    finally:
        process.kill()
        process.communicate()
