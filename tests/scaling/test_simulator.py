"""The simulator of schedules against cases that can be worked out by hand, and bounds that hold for every schedule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcfwi.inversion.misfit import blocks
from hpcfwi.scaling.simulator import simulate, tree_depth

lengths = st.lists(st.floats(0.01, 10.0), min_size=1, max_size=60)


def test_equal_shots_fill_equal_workers():
    schedule = simulate([2.0] * 12, [0.0] * 4)
    assert schedule.seconds == pytest.approx(6.0)
    assert schedule.idle_at_end == pytest.approx(0.0)
    assert schedule.busy == pytest.approx(24.0)


def test_a_shot_that_waits_on_a_busy_worker_is_late_and_one_that_waits_with_the_scheduler_is_not():
    shots = [4.0, 1.0, 1.0, 1.0]
    assert simulate(shots, [0.0, 0.0], held=1).seconds == pytest.approx(4.0)
    assert simulate(shots, [0.0, 0.0], held=2).seconds == pytest.approx(5.0)


def test_gaps_between_shots_add_up():
    assert simulate([1.0] * 10, [0.0], gap=0.1).seconds == pytest.approx(10 * 1.1 + 0.1)


def test_a_scheduler_that_is_slower_than_the_workers_sets_the_pace():
    schedule = simulate([0.1] * 1000, [0.0] * 100, per_shot=0.01)
    assert schedule.seconds == pytest.approx(1000 * 0.01 + 0.1, rel=1e-6)


def test_workers_that_come_late_do_what_is_left():
    assert simulate([1.0] * 6, [0.0, 3.0], held=1).seconds == pytest.approx(5.0)


@given(lengths, st.integers(1, 12), st.integers(1, 2))
def test_no_schedule_is_shorter_than_the_work_nor_longer_than_one_worker(shots, workers, held):
    schedule = simulate(shots, [0.0] * workers, held=held)
    assert schedule.seconds >= max(sum(shots) / workers, max(shots)) - 1e-9
    assert schedule.seconds <= sum(shots) + 1e-9
    # each second of each worker is one of work or of waiting for the end
    assert schedule.busy + workers * schedule.idle_at_end == pytest.approx(workers * schedule.seconds, abs=1e-6)


@given(lengths, st.integers(1, 12))
def test_shots_that_are_given_out_one_by_one_obey_grahams_bound(shots, workers):
    """R. L. Graham, Bounds on multiprocessing timing anomalies, SIAM J. Appl. Math. 17 (1969)."""
    best = max(sum(shots) / workers, max(shots))
    assert simulate(shots, [0.0] * workers, held=1).seconds <= (2 - 1 / workers) * best + 1e-9


@pytest.mark.parametrize("shots", [1, 2, 8, 9, 64, 65, 5000, 100_000])
def test_the_depth_is_that_of_the_tree_of_sums(shots):
    level, depth = list(range(shots)), 0
    while len(level) > 1:
        level, depth = list(blocks(level)), depth + 1
    assert tree_depth(shots) == depth
