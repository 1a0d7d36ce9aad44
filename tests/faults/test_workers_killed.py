"""Workers that die, hang or are all gone amid a run: it ends by itself, to the bytes of an undisturbed one."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from watching import logged_events, wait_until


def wait_for_second_evaluation(process, run_dir):
    """Wait until shots of it are done; return the process ids of the workers."""

    def begun():
        return sum(event["evaluation"] == 2 for event in logged_events(run_dir, "shot")) >= 5

    wait_until(begun, process, every=0.01)
    return sorted({event["pid"] for event in logged_events(run_dir, "shot")})


@pytest.mark.parametrize(
    ("number", "count", "reason"),
    [
        pytest.param(signal.SIGKILL, 1, "killed by signal 9 (SIGKILL", marks=pytest.mark.slow),
        pytest.param(signal.SIGSEGV, 1, "killed by signal 11 (SIGSEGV)", marks=pytest.mark.slow),
        (signal.SIGKILL, 2, "killed by signal 9 (SIGKILL"),
    ],
    ids=["kill", "segfault", "all of them"],
)
def test_workers_that_die_lose_only_their_running_shots_and_are_reported(hpcfwi, undisturbed, number, count, reason):
    run_dir = hpcfwi.folder / "run"
    process = hpcfwi.start(*undisturbed.command)
    for pid in wait_for_second_evaluation(process, run_dir)[:count]:
        os.kill(pid, number)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, out + errors
    assert not errors
    undisturbed.assert_same(run_dir)
    died = logged_events(run_dir, "worker died")
    assert len(died) == count
    assert all(event["reason"].startswith(reason) for event in died)
    assert f"died: {reason}" in out


@pytest.mark.parametrize("wavefield", ["disk", pytest.param("checkpointed", marks=pytest.mark.slow)])
def test_workers_that_die_with_another_storage_of_the_wavefield_give_the_same_bytes(
    hpcfwi, undisturbed, tmp_path, wavefield
):
    run_dir, scratch = hpcfwi.folder / "run", tmp_path / "scratch"
    words = ("--set", f"solver.wavefield={wavefield}", "--set", f"site.filesystem.scratch={scratch}")
    process = hpcfwi.start(*undisturbed.command, *words)
    for pid in wait_for_second_evaluation(process, run_dir):
        os.kill(pid, signal.SIGKILL)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, out + errors
    assert f"forward wavefield {wavefield}" in out
    undisturbed.assert_same(run_dir)
    left = [path for path in scratch.rglob("*") if path.is_file() and path.stat().st_size > 100_000]
    assert all("devito" in str(path) for path in left), left  # no wavefields


@pytest.mark.slow
def test_a_worker_that_is_stopped_forever_is_replaced(hpcfwi, undisturbed):
    run_dir = hpcfwi.folder / "run"
    process = hpcfwi.start(*undisturbed.command)
    pid = wait_for_second_evaluation(process, run_dir)[0]
    os.kill(pid, signal.SIGSTOP)
    out, errors = process.communicate(timeout=500)
    assert process.returncode == 0, out + errors
    assert not errors
    undisturbed.assert_same(run_dir)
    assert logged_events(run_dir, "task overdue")
    assert "its worker may hang" in out
    assert not psutil.pid_exists(pid)
