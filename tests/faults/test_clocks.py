"""Clocks that are set during a run: forward changes nothing; back may halt the run, and the same command continues it."""

from __future__ import annotations

import csv
import os
import re
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from watching import logged_events, options, shots_for, wait_until

# Seconds of work, enough for two changes of the clock, which every process notices within a second.
WORK_S, ITERATIONS = 12.0, 40


@pytest.fixture(scope="module")
def whole(undisturbed, run_undisturbed):
    shots = shots_for(undisturbed.run_dir, WORK_S, ITERATIONS)
    return run_undisturbed(shots, ITERATIONS, "inversion.gtol=0")


def clock_of(run_dir):
    """Time of the last evaluation by the clock of the run; 0 before the first."""
    evaluations = logged_events(run_dir, "evaluation")
    return evaluations[-1]["time"] if evaluations else 0.0


def jump(process, run_dir, set_clock, hours):
    """Set the clock, and wait until an evaluation was done by it; False if the run stands still for a while."""
    set_clock(f"{hours:+}h")
    until = time.monotonic() + 30
    while abs(clock_of(run_dir) - time.time() - hours * 3600) > 60:
        if process.poll() is not None or time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.slow
def test_a_clock_that_is_set_forward_by_hours_changes_nothing(hpcfwi, whole, set_clock):
    run_dir, began = hpcfwi.folder / "run", time.monotonic()
    process = hpcfwi.start(*whole.command)
    wait_until(lambda: clock_of(run_dir), process)
    for hours in (5, 12):
        assert jump(process, run_dir, set_clock, hours), process.poll()
    out, errors = process.communicate(timeout=300)
    seconds = time.monotonic() - began
    assert process.returncode == 0, out + errors
    assert not errors
    whole.assert_same(run_dir)
    assert not logged_events(run_dir, "task overdue")
    with (run_dir / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(0 <= float(row["step_seconds"]) < seconds for row in rows)
    elapsed = [float(row["elapsed_seconds"]) for row in rows]
    assert elapsed == sorted(elapsed)
    assert elapsed[-1] < seconds


@pytest.mark.slow
def test_a_clock_that_is_set_back_loses_nothing(hpcfwi, whole, set_clock):
    """The run goes on, or stands still until it is stopped; the same command then comes to the same bytes."""
    run_dir = hpcfwi.folder / "run"
    process = hpcfwi.start(*whole.command)
    wait_until(lambda: clock_of(run_dir), process)
    goes_on = jump(process, run_dir, set_clock, -7)
    # it may stand still later, too
    with suppress(subprocess.TimeoutExpired):
        process.wait(100 if goes_on else 0)
    if process.poll() is None:
        goes_on = False
        process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=100)
    assert process.returncode in (0, 75), out + errors
    # evaluations of less than a second do not look at the clock, unless one of them stands still
    assert goes_on or "the clock of this machine was set back by 25" in out
    if process.returncode == 75:
        done = hpcfwi(*whole.command)
        assert done.returncode == 0, done.stdout + done.stderr
    whole.assert_same(run_dir)


@pytest.fixture
def another_start(hpcfwi):
    """Words before a command that show it another boot time of this machine, as after a change of the clock."""
    stat = hpcfwi.folder / "stat"
    content = Path("/proc/stat").read_text()
    stat.write_text(
        re.sub(r"^btime (\d+)$", lambda found: f"btime {int(found[1]) + 3600}", content, flags=re.MULTILINE)
    )
    words = ["unshare", "--mount", "sh", "-c", f'mount --bind {shlex.quote(str(stat))} /proc/stat && exec "$@"', "sh"]
    if os.geteuid() != 0 or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root can let a process see another /proc/stat")
    return words


ENDLESS = ("acquisition.sources.count=60", "inversion.iterations=5000", "inversion.ftol=0", "inversion.gtol=0")
COMMAND = ("run", "fwi.toml", "--run-dir", "run", *options("site.worker.threads=1", *ENDLESS))


@pytest.mark.slow
def test_a_driver_counts_as_alive_although_the_clock_was_set_since_it_started(hpcfwi, another_start):
    process = hpcfwi.start(*COMMAND)
    wait_until((hpcfwi.folder / "run" / "driver.json").exists, process)
    try:
        hpcfwi.prefix = another_start
        done = hpcfwi(*COMMAND)
        assert done.returncode == 2, done.stdout + done.stderr
        assert f"another hpcfwi is at work on this run folder (process {process.pid} on " in done.stderr
    finally:
        process.kill()
        process.communicate()
