"""Which worker gets the next shot, how many it has in hand, when shots go in batches, and which hosts get none."""

from __future__ import annotations

import math

import pytest

from hpcfwi.events.types import HostExcluded, HostReadmitted
from hpcfwi.execution import window as window_module
from hpcfwi.execution.window import MAX_BATCH_S, MAX_DEPTH, Window, host_of, prefer_untried, queue_depth, should_batch
from hpcfwi.inversion.functional_gradient import BLOCK

A1, A2, B1 = "tls://10.0.0.1:1", "tls://10.0.0.1:2", "tls://10.0.0.2:1"


@pytest.fixture
def window():
    """Three workers on two hosts, and what happens to the hosts."""
    window = Window()
    window.events = []
    window.log_event = lambda event: window.events.append((type(event), event.host, event.failed_shots))
    window.update([A1, A2, B1])
    return window


def fill(window, now=0.0):
    """Give out as many tasks as there is room for; return the workers in their order."""
    given = []
    while (worker := window.pick()) is not None:
        window.add_task(worker, f"task-{len(given)}", now)
        given.append(worker)
    return given


def test_the_host_of_an_address():
    assert host_of("tls://10.0.0.1:4242") == "10.0.0.1"
    assert host_of("tcp://[fe80::1]:4242") == "[fe80::1]"


def test_every_worker_gets_one_task_before_any_worker_gets_two(window):
    window.depth = 2
    given = fill(window)
    assert sorted(given[:3]) == sorted(given[3:]) == sorted([A1, A2, B1])
    assert not window.has_room


def test_the_worker_that_has_finished_gets_the_next_task(window):
    given = fill(window)
    assert window.pick() is None
    window.end_task("task-1", 5.0)
    assert window.pick() == given[1]


def test_a_worker_that_joins_late_gets_tasks_at_once(window):
    fill(window)
    window.update([A1, A2, B1, "tls://10.0.0.3:1"])
    assert window.pick() == "tls://10.0.0.3:1"


def test_the_tasks_of_a_worker_that_left_are_returned(window):
    given = fill(window)
    assert window.update([worker for worker in (A1, A2, B1) if worker != given[0]]) == ["task-0"]
    assert window.worker_of("task-0") == ""
    window.end_task("task-0", 1.0)  # what comes of it later changes nothing
    assert window.remove(given[0]) == []


def test_a_draining_worker_gets_no_more_tasks_and_keeps_what_it_has(window):
    window.add_task(A1, "task", 0.0)
    window.drain([A1])
    window.depth = 2
    assert A1 not in fill(window)
    assert window.worker_of("task") == A1
    window.end_task("task", 1.0)
    assert window.free_since(A1) == 1.0
    assert A1 not in fill(window)
    assert not window.has_others([A2, B1])


def test_a_task_that_must_be_alone_waits_for_an_idle_worker_and_shares_it_with_no_other(window):
    window.depth = 2
    for worker in (A1, A2):
        window.add_task(worker, f"on {worker}", 0.0)
    assert window.pick(empty=True) == B1
    window.add_task(B1, "alone", 0.0, alone=True)
    assert window.pick(empty=True) is None
    assert B1 not in fill(window)
    window.end_task("alone", 1.0)
    assert window.pick() == B1


def test_a_shot_that_failed_waits_for_another_host_while_that_is_busy(window):
    window.add_task(B1, "task", 0.0)
    assert window.pick(tried=[A1]) is None
    window.end_task("task", 1.0)
    assert window.pick(tried=[A1]) == B1


def test_other_hosts_come_before_other_workers_and_those_before_the_same():
    assert prefer_untried([A1], [A1, A2, B1]) == [B1]
    assert prefer_untried([A1], [A1, A2]) == [A2]
    assert prefer_untried([A1, A2], [A1, A2]) == [A1]
    assert prefer_untried([A1], [A1]) == [A1]
    assert prefer_untried([""], [A1]) == [A1]


def test_only_the_first_task_of_a_worker_is_running(window):
    window.depth = 2
    window.add_task(A1, "first", 10.0)
    window.add_task(A1, "second", 10.0)
    assert list(window.running_tasks()) == [("first", A1, 10.0)]
    window.end_task("first", 25.0, "shot")
    assert list(window.running_tasks()) == [("second", A1, 25.0)]
    window.end_task("second", 31.0, "shot")
    assert window.median_s("shot") == (15.0 + 6.0) / 2
    assert window.longest_task_s == 15.0
    assert window.overdue_limit_s("shot") == 105.0
    assert window.overdue_limit_s("another kind") == math.inf


def test_a_host_is_excluded_after_three_different_shots_and_not_for_one(window):
    for _ in range(5):
        window.record_failure(A1, "a")
    window.record_failure(A2, "b")
    assert not window.excluded
    window.record_failure(A1, "c")
    assert window.excluded == {"10.0.0.1"}
    assert window.events == [(HostExcluded, "10.0.0.1", ["a", "b", "c"])]
    assert fill(window) == [B1]


def test_a_worker_that_joins_from_an_excluded_host_gets_no_task(window):
    for shot in "abc":
        window.record_failure(A1, shot)
    window.update([A1, A2, B1, "tls://10.0.0.1:3"])
    assert fill(window) == [B1]


def test_rare_failures_do_not_exclude_a_host(window, monkeypatch):
    for number in range(5):
        monkeypatch.setattr(window_module.time, "monotonic", lambda now=2000.0 * number: now)
        window.record_failure(A1, str(number))
    assert not window.excluded


def test_the_last_host_is_never_excluded(window):
    for worker in (A1, B1):
        for shot in "abcd":
            window.record_failure(worker, shot)
    assert window.excluded == {"10.0.0.1"}


def test_an_excluded_host_is_used_again_when_no_other_is_left(window):
    for shot in "abc":
        window.record_failure(A1, shot)
    window.update([A1, A2])
    assert not window.excluded
    assert window.events[-1] == (HostReadmitted, "10.0.0.1", ["a", "b", "c"])
    assert sorted(fill(window)) == [A1, A2]


@pytest.mark.parametrize(
    ("seconds", "workers", "depth"),
    [
        (math.nan, 2, 1),
        (60.0, 2, 1),
        (2.0, 2, 1),
        (2.0, 50, 2),
        (0.5, 2, 2),
        (0.02, 2, 3),
        (0.001, 2, MAX_DEPTH),
        (0.0, 2, MAX_DEPTH),
    ],
)
def test_workers_have_several_short_shots_in_hand(seconds, workers, depth):
    assert queue_depth(seconds, workers) == depth


def test_of_many_workers_each_has_more_than_one_long_shot_in_hand():
    assert queue_depth(1.2, 2) == 1
    assert queue_depth(30, 500) == 2


@pytest.mark.parametrize(
    ("shots", "workers", "seconds", "wanted"),
    [
        (100_000, 4096, 1.0, True),  # 120 s of the scheduler for 25 s of work
        (100_000, 4096, MAX_BATCH_S / BLOCK + 0.01, False),  # too long for the time after a signal
        (100_000, 100, 1.0, False),  # 83 shots a second are no trouble
        (100_000, 500, 0.1, True),
        (5_000, 500, 0.5, False),  # two batches a worker at most: some would have one, others two
        (5_000, 4096, 0.5, True),  # one batch for some, but 6 s to hand out all
        (100, 4096, 0.001, True),
        (1, 1, 0.0, True),
        (100, 2, 0.02, False),
        (100, 0, 0.02, False),
        (100, 2, math.nan, False),
    ],
)
def test_batches_are_chosen_only_if_they_shorten_an_evaluation(shots, workers, seconds, wanted):
    assert should_batch(shots, workers, seconds) is wanted


def test_a_worker_that_joins_when_only_its_host_is_excluded_is_used_after_all(window):
    for shot in ("1", "2", "3"):
        window.record_failure(A1, shot)
    assert window.update([]) == []
    window.update([A2])
    assert window.pick() == A2


def test_a_shot_that_hangs_goes_to_a_free_worker_of_its_host_if_no_other_host_may_have_it(window):
    assert window.pick(tried=[A1], never={A1, B1}) == A2
