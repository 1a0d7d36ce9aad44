"""kill -9 of the driver at any moment: the same command goes on, and ends with the bytes of a run that nobody disturbed."""

from __future__ import annotations

import csv
import json
import random
import signal
import time

import pytest

from hpcfwi.inversion.misfit import BLOCK

WORKERS = 2


def command(shots, iterations):
    settings = (f"acquisition.sources.count={shots}", f"inversion.iterations={iterations}", "inversion.ftol=0")
    return [word for setting in ("site.worker.threads=1", *settings) for word in ("--set", setting)]


def go(shell, shots, iterations, run_dir="run"):
    return shell("run", "fwi.toml", "--run-dir", run_dir, *command(shots, iterations))


def misfits(run_dir):
    with (run_dir / "history.csv").open() as file:
        return [(row["iteration"], row["evaluations"], row["misfit"]) for row in csv.DictReader(file)]


def events(run_dir):
    found = []
    for line in (run_dir / "events.jsonl").read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # a driver was killed while it wrote it
    return found


def counted(run_dir, shots):
    """Shot gradients computed, and those of one undisturbed run."""
    told = events(run_dir)
    answers = {event["evaluation"] for event in told if event["event"] == "evaluation"}
    return sum(event["event"] == "shot" for event in told), shots * len(answers)


def same(run_dir, undisturbed):
    assert (run_dir / "model.npy").read_bytes() == (undisturbed / "model.npy").read_bytes()
    assert misfits(run_dir) == misfits(undisturbed)
    return True


@pytest.mark.slow
def test_a_driver_that_is_killed_twenty_times_ends_with_the_same_bytes(hpcfwi):
    shots, iterations, generator = 100, 45, random.Random(5)
    run_dir = hpcfwi.folder / "run"
    done = go(hpcfwi, shots, iterations, "undisturbed")
    assert done.returncode == 0, done.stderr
    killed = 0
    while killed < 20:
        process = hpcfwi.start("run", "fwi.toml", "--run-dir", "run", *command(shots, iterations))
        time.sleep(generator.uniform(0.8, 3.0))
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += 1
    assert killed >= 10
    done = go(hpcfwi, shots, iterations)
    assert done.returncode == 0, done.stderr
    assert same(run_dir, hpcfwi.folder / "undisturbed")
    computed, needed = counted(run_dir, shots)
    assert computed <= needed + killed * WORKERS, f"{computed} shots computed, {needed} needed, {killed} times killed"
    assert not list((run_dir / "journal").glob("partial-*"))


def test_a_driver_that_is_killed_in_an_evaluation_loses_what_was_being_computed_and_no_more(hpcfwi):
    shots, iterations, run_dir = 40, 3, hpcfwi.folder / "run"
    done = go(hpcfwi, shots, iterations, "undisturbed")
    assert done.returncode == 0, done.stderr
    process = hpcfwi.start("run", "fwi.toml", "--run-dir", "run", *command(shots, iterations))
    deadline = time.monotonic() + 60
    while len(list((run_dir / "journal").glob("partial-*/*.bin"))) < shots // 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = go(hpcfwi, shots, iterations)
    assert done.returncode == 0, done.stderr
    (found,) = [event for event in events(run_dir) if event["event"] == "sums found"]
    assert shots // 2 <= found["shots"] < shots
    assert f"sums of {found['shots']} of {shots} shots of this evaluation are in the journal already" in done.stdout
    computed, needed = counted(run_dir, shots)
    assert computed <= needed + WORKERS
    assert same(run_dir, hpcfwi.folder / "undisturbed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_driver_that_is_asked_to_end_finishes_the_shots_in_hand_and_computes_none_twice(hpcfwi, number):
    shots, iterations, run_dir = 40, 3, hpcfwi.folder / "run"
    done = go(hpcfwi, shots, iterations, "undisturbed")
    assert done.returncode == 0, done.stderr
    process = hpcfwi.start("run", "fwi.toml", "--run-dir", "run", *command(shots, iterations))
    deadline = time.monotonic() + 60
    while len(list((run_dir / "journal").glob("partial-*/*.bin"))) < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert errors == f"hpcfwi: stopped: {number.name} was received; the same command continues the run ({run_dir})\n"
    done = go(hpcfwi, shots, iterations)
    assert done.returncode == 0, done.stderr
    computed, needed = counted(run_dir, shots)
    assert computed == needed
    assert same(run_dir, hpcfwi.folder / "undisturbed")


def test_of_shots_that_go_to_workers_eight_at_a_time_no_more_is_lost(hpcfwi):
    """Far shorter than what the scheduler does for each of them."""
    shots, iterations, run_dir = 300, 8, hpcfwi.folder / "run"
    words = ["run", "fwi.toml", "--stand-in", "0.0003", *command(shots, iterations), "--run-dir"]
    done = hpcfwi(*words, "undisturbed")
    assert done.returncode == 0, done.stderr
    for kept in (3, 20):
        process = hpcfwi.start(*words, "run")
        deadline = time.monotonic() + 60
        while len(list((run_dir / "journal").glob("partial-*/*.bin"))) < kept or not bundled(run_dir):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = hpcfwi(*words, "run")
    assert done.returncode == 0, done.stderr
    assert same(run_dir, hpcfwi.folder / "undisturbed")
    computed, needed = counted(run_dir, shots)
    in_hand = 2 * BLOCK
    assert computed <= needed + 2 * WORKERS * in_hand


def bundled(run_dir):
    return any(event.get("shots_per_task") == BLOCK for event in events(run_dir)[-400:]) if run_dir.exists() else False
