"""A worker whose disk is slow, and processes killed amid a file: nothing waits for them, nothing is lost."""

from __future__ import annotations

import signal
from collections import Counter

import pytest
from watching import logged_events

SHOTS = 24


@pytest.fixture(scope="module")
def undisturbed(run_undisturbed):
    return run_undisturbed(SHOTS, 2, "journal.block=1")


def assert_same(run_dir, undisturbed):
    undisturbed.assert_same(run_dir)
    assert not list(run_dir.rglob("*.part"))
    assert not list(run_dir.glob("journal/partial-*"))


@pytest.mark.slow
def test_a_worker_with_a_slow_disk_gets_fewer_shots(hpcfwi, meddle, undisturbed):
    run_dir, once = hpcfwi.folder / "run", hpcfwi.folder / "once"
    usual = max(event["seconds"] for event in logged_events(undisturbed.run_dir, "shot"))
    # of shots that take a few milliseconds, a worker has eight in hand; of these it has two
    meddle("slow_disk", seconds=max(10 * usual, 1.0), others=0.05, once=once)
    done = hpcfwi(*undisturbed.command)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert_same(run_dir, undisturbed)
    shots = [event for event in logged_events(run_dir, "shot") if event["evaluation"] == 1]
    assert len(shots) == SHOTS
    # the other worker may join much later; from its first shot on it does nearly all
    slow = int(once.read_text())
    other = next(number for number, event in enumerate(shots) if event["pid"] != slow)
    count = Counter(event["pid"] for event in shots[other:])
    assert count[slow] <= 1 + (SHOTS - other) / 4
    assert not logged_events(run_dir, "retry")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["amid", "before its name"])
def test_a_driver_that_is_killed_while_it_writes_to_the_journal_loses_nothing(hpcfwi, meddle, undisturbed, where):
    run_dir = hpcfwi.folder / "run"
    meddle("tear", folder="run/journal", at=2, where=where, once=hpcfwi.folder / "once")
    done = hpcfwi(*undisturbed.command)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = (run_dir / "journal").glob(".*.part")
    (whole,) = (run_dir / "journal").glob("*.bin")
    sizes = left.stat().st_size, whole.stat().st_size
    assert (sizes[0] == sizes[1]) == (where != "amid")
    assert len(list((run_dir / "journal").glob("partial-*/*.bin"))) == SHOTS
    done = hpcfwi(*undisturbed.command)
    assert done.returncode == 0, done.stderr
    (found,) = logged_events(run_dir, "sums found")
    assert found["shots"] == SHOTS
    assert_same(run_dir, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["amid", "before its name"])
def test_a_worker_that_is_killed_while_it_writes_a_partial_sum_loses_nothing_else(hpcfwi, meddle, undisturbed, where):
    run_dir = hpcfwi.folder / "run"
    meddle("tear", folder="run/journal/partial-*", at=3, where=where, once=hpcfwi.folder / "once")
    done = hpcfwi(*undisturbed.command)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert [event["pid"] for event in logged_events(run_dir, "worker died")] == [
        int((hpcfwi.folder / "once").read_text())
    ]
    assert_same(run_dir, undisturbed)
