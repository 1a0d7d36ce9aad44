"""The life of a shot: each arrow of the diagram, and which shot is named when workers die."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from hpcfwi.errors import DataError, ShotFailed
from hpcfwi.execution import shots as shots_module
from hpcfwi.execution.shots import MAX_ATTEMPTS, Failure, Shots, State
from hpcfwi.execution.window import Window

DOCS = Path(__file__).parents[2] / "docs" / "pages"
A, B, C = "tcp://a:1", "tcp://b:1", "tcp://c:1"
ERROR, DEATH = Failure(A, "an error"), Failure(A, "its worker died", died=True)


class Work:
    """Shots, and workers that compute them one after the other."""

    def __init__(self, count=3, workers=(A, B), depth=1, **options):
        self.window = Window()
        self.window.update(workers)
        self.window.depth = depth
        self.shots = Shots([str(i) for i in range(count)], **options)
        self.keys = 0

    def give(self):
        """Submit as many tasks as there is room for; return the key, first shot and worker of each task."""
        given = []
        for unit, worker in self.shots.assignments(self.window):
            self.keys += 1
            key = f"task-{self.keys}"
            self.shots.start(unit, key, worker)
            self.window.add_task(worker, key, 0.0, alone=unit.alone)
            given.append((key, unit.first, worker))
        return given

    def finish(self, key):
        """Finish a task; return its unit, the unit's other tasks, and the workers to restart."""
        unit = self.shots.running[key]
        self.window.end_task(key, 0.0)
        return unit, *self.shots.finish(key)

    def fail(self, key, failure):
        self.window.end_task(key, 0.0)
        return self.shots.fail(key, failure)

    def die(self, worker):
        """End a worker with all that it has in hand; return the shots."""
        lost = self.window.remove(worker)
        self.shots.lose_workers(lost)
        units = [self.shots.running[key] for key in lost]
        for key in lost:
            self.shots.fail(key, Failure(worker, "died", died=True))
        return [unit.first for unit in units]

    def state(self, shot):
        return self.shots.units[shot].state


def test_a_shot_is_queued_then_running_then_done():
    work = Work(count=1)
    assert work.state(0) is State.QUEUED
    ((key, _, _),) = work.give()
    assert work.state(0) is State.RUNNING
    unit, others, hanging = work.finish(key)
    assert (unit.state, others, hanging) == (State.DONE, [], [])
    assert work.shots.done == {0}
    assert work.shots.idle


def transitions(pairs):
    found = {}
    for before, after in pairs:
        found.setdefault(State(before.lower()), set()).add(State(after.lower()))
    return found


def test_the_documented_transitions_are_those_of_the_code():
    coded = {before: after for before, after in shots_module._NEXT.items() if after}
    lines = re.findall(r"^    ([A-Z]+) +-> ([A-Z]+)", shots_module.__doc__, re.MULTILINE)
    assert transitions(lines) == coded
    arrows = re.findall(r'data-transition="(\w+) (\w+)"', (DOCS / "assets" / "shot-states.svg").read_text())
    assert transitions(arrows) == coded
    rows = re.findall(r"^\| \*(\w+)\* \|.*\|([^|]*)\|$", (DOCS / "architecture" / "shot.md").read_text(), re.MULTILINE)
    assert transitions((before, after) for before, cell in rows for after in re.findall(r"\*(\w+)\*", cell)) == coded


def test_a_shot_with_wrong_data_is_excluded_at_once():
    work = Work(count=1)
    work.give()
    with pytest.raises(DataError, match="shot 0: is broken"):
        work.fail("task-1", Failure(A, "is broken", data_error=DataError("0", "is broken")))
    assert work.state(0) is State.EXCLUDED


def test_a_shot_whose_copies_fail_too_often_still_waits_for_the_slow_task():
    work = Work(count=1, workers=(A, B, C))
    work.give()
    work.shots.mark_overdue("task-1", 100.0)
    for number in range(2, 2 + MAX_ATTEMPTS):
        assert [shot for _, shot, _ in work.give()] == [0]
        assert not work.fail(f"task-{number}", Failure(B, "too little memory"))
    assert work.give() == []  # no more copies
    assert work.state(0) is State.OVERDUE
    work.finish("task-1")
    assert work.state(0) is State.DONE


def test_shots_are_given_in_the_order_of_the_survey():
    work = Work(count=4)
    assert [shot for _, shot, _ in work.give()] == [0, 1]
    work.finish("task-2")
    assert [(shot, worker) for _, shot, worker in work.give()] == [(2, B)]


def test_a_shot_that_fails_is_queued_again_and_goes_to_another_host_before_new_ones():
    work = Work(count=4)
    work.give()
    assert work.fail("task-1", ERROR)
    assert work.state(0) is State.QUEUED
    work.finish("task-2")
    assert [(shot, worker) for _, shot, worker in work.give()] == [(0, B), (2, A)]


def test_a_shot_that_has_failed_on_all_hosts_waits_for_the_missing_workers_for_a_limited_time(monkeypatch):
    work = Work(count=1, workers=(A,))
    work.window.incomplete = True
    work.give()
    work.fail("task-1", Failure(A, "an error"))
    assert work.give() == []
    assert not work.shots.idle
    work.window.update((A, B))
    assert [(shot, worker) for _, shot, worker in work.give()] == [(0, B)]
    work.fail("task-2", Failure(B, "an error"))
    assert work.give() == []
    monkeypatch.setattr(shots_module, "NEW_HOST_TIMEOUT_S", -1.0)
    assert len(work.give()) == 1


def test_a_shot_does_not_wait_for_missing_workers_when_the_run_stops():
    work = Work(count=2, workers=(A,), depth=2, block=2)
    work.window.incomplete = True
    work.give()
    work.fail("task-1", Failure(A, "an error"))
    work.finish("task-2")
    assert work.give() == []
    work.shots.stop()
    assert [shot for _, shot, _ in work.give()] == [0]


def test_a_worker_gets_the_shots_that_it_computed_last_time_if_they_are_among_the_next(monkeypatch):
    monkeypatch.setattr(shots_module, "BLOCK", 4)
    last_worker = dict(zip("0123456789", (B, A, B, A, A, A, A, A, A, B), strict=True))
    work, computed = Work(count=10, last_worker=last_worker), {A: [], B: []}
    given = work.give()
    while given:
        for key, shot, worker in given:
            computed[worker].append(shot)
            work.finish(key)
        given = work.give()
    # B takes 5 while its own shot 9 is not among the next four
    assert computed == {A: [1, 3, 4, 6, 7], B: [0, 2, 5, 9, 8]}
    assert last_worker == {str(shot): worker for worker, shots in computed.items() for shot in shots}


def test_a_worker_gets_the_batches_that_it_computed_last_time():
    batches = [range(i, i + 8) for i in range(0, 64, 8)]
    last_worker = {str(i): (B, A, A, B)[i // 8 % 4] for i in range(64)}
    work, expected = Work(count=64, batches=batches, last_worker=last_worker), dict(last_worker)
    given = work.give()
    while given:
        for key, _, _ in given:
            work.finish(key)
        given = work.give()
    assert last_worker == expected


def test_a_shot_that_fails_three_times_is_excluded_and_named_with_every_reason():
    work = Work(count=1)
    for _ in range(2):
        ((key, _, _),) = work.give()
        work.fail(key, ERROR)
    ((key, _, _),) = work.give()
    with pytest.raises(ShotFailed, match="shot 0 failed 3 times") as caught:
        work.fail(key, ERROR)
    assert str(caught.value).count("\n  an error") == 3
    assert work.state(0) is State.EXCLUDED


def test_a_shot_whose_workers_die_four_times_is_named_with_the_reasons_of_their_exits():
    work = Work(count=1, exit_reason=lambda worker: f"out of memory on {worker}")
    for _ in range(3):
        ((key, _, _),) = work.give()
        work.fail(key, DEATH)
    ((key, _, _),) = work.give()
    with pytest.raises(ShotFailed, match="failed 4 times") as caught:
        work.fail(key, DEATH)
    assert str(caught.value).count(f"its worker died: out of memory on {A}") == 4


def test_a_worker_exit_that_no_task_caused_does_not_count():
    work = Work(count=1)
    for _ in range(10):
        ((key, _, _),) = work.give()
        assert work.fail(key, replace(DEATH, blame=False))
    assert work.state(0) is State.QUEUED
    assert not work.shots.units[0].alone


def test_a_copy_of_an_overdue_shot_runs_elsewhere_and_the_first_result_counts():
    work = Work(count=1)
    ((first, _, hanging),) = work.give()
    assert work.shots.mark_overdue(first, 100.0)
    assert not work.shots.mark_overdue(first, 101.0)
    assert work.state(0) is State.OVERDUE
    ((copy, _, elsewhere),) = work.give()
    assert elsewhere != hanging
    unit, others, to_restart = work.finish(copy)
    assert (unit.state, others, to_restart) == (State.DONE, [first], [hanging])
    assert first not in work.shots.running


def test_an_overdue_shot_that_finishes_before_its_copy_restarts_no_worker():
    work = Work(count=1)
    ((first, _, _),) = work.give()
    work.shots.mark_overdue(first, 100.0)
    ((copy, _, _),) = work.give()
    assert work.finish(first)[1:] == ([copy], [])


def test_if_all_workers_hang_no_shot_is_copied_and_no_worker_is_restarted(monkeypatch):
    monkeypatch.setattr(shots_module, "LONE_WORKER_TIMEOUT_S", 0.0)
    work = Work(count=2)
    for key, _, _ in work.give():
        work.shots.mark_overdue(key, 100.0)
    assert work.give() == []
    assert work.shots.lone_workers(work.window, 1e9) == []


def test_the_only_worker_is_restarted_after_ten_minutes():
    work = Work(count=1, workers=(A,))
    ((key, _, _),) = work.give()
    work.shots.mark_overdue(key, 100.0)
    assert work.shots.lone_workers(work.window, 699.0) == []
    assert work.shots.lone_workers(work.window, 701.0) == [A]


def test_a_copy_that_fails_leaves_the_shot_to_the_first_task_and_counts():
    work = Work(count=1, workers=(A, B, C))
    ((first, _, _),) = work.give()
    work.shots.mark_overdue(first, 100.0)
    ((copy, _, _),) = work.give()
    assert not work.fail(copy, ERROR)
    assert work.state(0) is State.OVERDUE
    assert len(work.shots.units[0].failures) == 1
    assert work.finish(first)[0].state is State.DONE


def test_an_overdue_task_that_fails_leaves_the_shot_to_its_copy():
    work = Work(count=1)
    ((first, _, _),) = work.give()
    work.shots.mark_overdue(first, 100.0)
    ((copy, _, _),) = work.give()
    assert not work.fail(first, ERROR)
    assert work.state(0) is State.RUNNING
    assert work.finish(copy)[2] == []


def test_a_done_shot_whose_result_is_lost_is_computed_again():
    work = Work(count=1)
    ((key, _, _),) = work.give()
    work.finish(key)
    assert work.shots.lose_result(0, ERROR)
    assert work.shots.done == set()
    ((key, _, _),) = work.give()
    work.finish(key)
    work.shots.compute_again([0])
    assert work.shots.done == set()
    assert [shot for _, shot, _ in work.give()] == [0]


def test_a_batch_that_fails_is_computed_again_shot_by_shot():
    work = Work(count=6, batches=[range(3), range(3, 6)])
    (key, _, _), _ = work.give()
    work.fail(key, ERROR)
    assert [(shot, worker) for _, shot, worker in work.give()] == [(0, A)]
    assert [len(work.shots.units[i].shots) for i in range(4)] == [1, 1, 1, 3]


def test_a_task_whose_worker_left_may_still_finish():
    """Dask runs it elsewhere, where allowed to."""
    work = Work(count=1)
    ((key, _, worker),) = work.give()
    work.shots.lose_workers(work.window.remove(worker))
    assert work.state(0) is State.RUNNING
    assert work.finish(key)[0].state is State.DONE


def test_a_run_that_stops_finishes_the_blocks_that_it_has_begun():
    work = Work(count=12, block=4)
    assert [shot for _, shot, _ in work.give()] == [0, 1]
    work.shots.stop()
    finished = []
    while work.shots.running:
        for key in list(work.shots.running):
            finished.append(work.finish(key)[0].first)
        work.give()
    assert finished == [0, 1, 2, 3]
    assert work.shots.idle


def test_a_shot_that_fails_while_the_run_stops_is_not_tried_again():
    work = Work(count=2, block=1)
    (key, _, _), _ = work.give()
    work.shots.stop()
    assert not work.fail(key, ERROR)
    assert work.give() == []


def test_shots_of_a_dead_worker_are_submitted_one_to_a_worker():
    work = Work(count=6, workers=(A, B), depth=3)
    work.give()
    lost = work.die(A)
    assert len(lost) == 3
    assert work.give() == [], "the other worker has its hand full"
    for key in list(work.shots.running):
        work.finish(key)
    assert [shot for _, shot, _ in work.give()] == [lost[0]]


def compute_all(work, culprit, generator):
    number = 100
    while len(work.shots.done) < len(work.shots.names):
        work.give()
        head, worker, _ = generator.choice(list(work.window.running_tasks()))
        if work.shots.running[head].first == culprit:
            number += 1
            work.die(worker)
            work.window.update([*work.window.workers, f"tcp://h:{number}"])
        else:
            work.finish(head)


def test_only_the_shot_that_kills_workers_is_named_whatever_the_order():
    """Workers of up to four shots each, of which every one that computes a certain shot dies."""
    for seed in range(200):
        generator = random.Random(seed)
        work = Work(count=12, workers=[f"tcp://h:{i}" for i in range(3)], depth=4)
        culprit = generator.randrange(12)
        with pytest.raises(ShotFailed) as caught:
            compute_all(work, culprit, generator)
        assert caught.value.shot == str(culprit)
        assert all(len(unit.failures) <= 1 for unit in work.shots.units.values() if unit.first != culprit)
