"""Kill -9 of the driver at any moment: the same command continues the run, to the bytes of an undisturbed one."""

from __future__ import annotations

import random
import signal
import time

import pytest
from watching import history, logged_events, options, shots_for, wait_until

from hpcfwi.inversion.functional_gradient import BLOCK

WORKERS = 2
# Seconds that the work of a run lasts which is killed again and again.
WORK_S = 12.0


def shots_computed_and_needed(run_dir, shots):
    """Shot gradients computed, and those of an undisturbed run."""
    answers = {event["evaluation"] for event in logged_events(run_dir, "evaluation")}
    return len(logged_events(run_dir, "shot")), shots * len(answers)


def partial_sums(run_dir):
    return list((run_dir / "journal").glob("partial-*/*.bin"))


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_a_driver_that_is_killed_twenty_times_ends_with_the_same_bytes(hpcfwi, undisturbed, run_undisturbed):
    """Every other time while it starts, else amid its work."""
    iterations, generator, run_dir = 45, random.Random(5), hpcfwi.folder / "run"
    whole = run_undisturbed(shots_for(undisturbed.run_dir, WORK_S, iterations), iterations)
    (start,), shots = logged_events(whole.run_dir, "start"), logged_events(whole.run_dir, "shot")
    start_up_s, work_s = shots[0]["time"] - start["command_start"], shots[-1]["time"] - shots[0]["time"]
    killed = 0
    while killed < 20:
        before, process = len(logged_events(run_dir, "shot")), hpcfwi.start(*whole.command)
        if killed % 2:
            wait_until(lambda: len(logged_events(run_dir, "shot")) > before or process.poll() is not None)  # noqa: B023
            time.sleep(generator.uniform(0, work_s / 15))
        else:
            time.sleep(generator.uniform(0.1, start_up_s))
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()
            break
        kill(process)
        killed += 1
    assert killed >= 10
    done = hpcfwi(*whole.command)
    assert done.returncode == 0, done.stderr
    whole.assert_same(run_dir)
    computed, needed = shots_computed_and_needed(run_dir, whole.shots)
    assert computed <= needed + killed * WORKERS, f"{computed} shots computed, {needed} needed, {killed} times killed"
    assert not list((run_dir / "journal").glob("partial-*"))


def test_a_driver_that_is_killed_in_an_evaluation_loses_only_the_running_shots(hpcfwi, undisturbed):
    shots, run_dir = undisturbed.shots, hpcfwi.folder / "run"
    process = hpcfwi.start(*undisturbed.command)
    wait_until(lambda: len(partial_sums(run_dir)) >= shots // 2, process, every=0.005)
    kill(process)
    done = hpcfwi(*undisturbed.command)
    assert done.returncode == 0, done.stderr
    (found,) = logged_events(run_dir, "sums found")
    assert shots // 2 <= found["shots"] <= shots
    assert f"sums of {found['shots']} of {shots} shots of this evaluation are already in the journal" in done.stdout
    computed, needed = shots_computed_and_needed(run_dir, shots)
    assert computed <= needed + WORKERS
    undisturbed.assert_same(run_dir)


@pytest.mark.parametrize("number", [signal.SIGUSR1, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_driver_that_gets_a_signal_finishes_the_running_shots_and_repeats_none(hpcfwi, undisturbed, number):
    run_dir = hpcfwi.folder / "run"
    process = hpcfwi.start(*undisturbed.command)
    wait_until(lambda: len(partial_sums(run_dir)) >= 4, process, every=0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 75
    assert errors == f"hpcfwi: stopped: {number.name} was received; the same command continues the run ({run_dir})\n"
    done = hpcfwi(*undisturbed.command)
    assert done.returncode == 0, done.stderr
    computed, needed = shots_computed_and_needed(run_dir, undisturbed.shots)
    assert computed == needed
    undisturbed.assert_same(run_dir)


@pytest.mark.slow
def test_a_killed_driver_loses_only_the_running_batches_of_very_short_shots(hpcfwi):
    """Shots far shorter than what the scheduler does for each of them."""
    shots, run_dir, undisturbed = 300, hpcfwi.folder / "run", hpcfwi.folder / "undisturbed"
    settings = (f"acquisition.sources.count={shots}", "inversion.iterations=8", "inversion.ftol=0")
    settings += ("site.worker.threads=1", f"site.worker.processes={WORKERS}")
    command = ("run", "fwi.toml", "--stand-in", "0.0003", *options(*settings), "--run-dir")
    done = hpcfwi(*command, "undisturbed")
    assert done.returncode == 0, done.stderr
    for kept in (3, 20):
        process = hpcfwi.start(*command, "run")
        wait_until(lambda: len(partial_sums(run_dir)) >= kept and in_batches(run_dir), process, every=0.001)  # noqa: B023
        kill(process)
    done = hpcfwi(*command, "run")
    assert done.returncode == 0, done.stderr
    assert (run_dir / "model.npy").read_bytes() == (undisturbed / "model.npy").read_bytes()
    assert history(run_dir) == history(undisturbed)
    computed, needed = shots_computed_and_needed(run_dir, shots)
    in_hand = 2 * BLOCK
    assert computed <= needed + 2 * WORKERS * in_hand


def in_batches(run_dir):
    return any(event.get("shots_per_task") == BLOCK for event in logged_events(run_dir)[-400:])
