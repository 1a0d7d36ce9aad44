"""A shot that hangs is computed elsewhere, and its worker is not relied on any more."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, get_worker

from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.local import LocalWorkers
from hpcfwi.cluster.pool import Workload
from hpcfwi.errors import Interrupted
from hpcfwi.execution import executor as tasks_module
from hpcfwi.execution.affinity import PRELOAD_MODULES
from hpcfwi.execution.batching import BATCH_KEY
from hpcfwi.execution.executor import DaskExecutor
from hpcfwi.execution.plugins.heartbeats import HeartbeatMonitor
from hpcfwi.execution.plugins.stragglers import StragglerMonitor
from hpcfwi.execution.reduction import KINDS, task_key
from hpcfwi.inversion.misfit import BLOCK, FunctionalGradient

TOPIC = "hanging"
SHOTS = 12


def shot(number, folder, how):
    """One of them hangs, the first time that it is tried."""
    hung = Path(folder) / "hung"
    if number == 5 and not hung.exists():
        hung.write_text(get_worker().address)
        time.sleep(0.2)  # until what was done before has been told
        if how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        while (Path(folder) / "no-answer").exists():
            time.sleep(0.1)  # as a file system that does not answer; heartbeats go on
    time.sleep(0.05)
    return FunctionalGradient(0.1 * number, np.array([0.3 / (number + 1)]))


@pytest.fixture
def tasks(tmp_path):
    """Two workers, and tasks that are told what is overdue after two seconds."""
    retries = []
    workers = LocalWorkers(Layout(2, 1, 2 * 10**9), workload=Workload(PRELOAD_MODULES))
    (tmp_path / "no-answer").touch()
    with workers, Client(workers.cluster(), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        tasks = DaskExecutor(client, on_retry=lambda *facts: retries.append(facts))
        tasks.retries = retries
        client.subscribe_topic(TOPIC, lambda event: "key" in event[1] and tasks.overdue(event[1]["key"]))
        client.register_plugin(StragglerMonitor(TOPIC, ["shot", BATCH_KEY], KINDS, shortest=2))
        yield tasks


def stop_when_done(number, folder, wanted):
    """The worker of one of them is stopped when this is done, before anybody has had its result."""
    if number == wanted and not (Path(folder) / "hung").exists():
        (Path(folder) / "hung").write_text(get_worker().address)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGSTOP)).start()
    if number != wanted:
        time.sleep(1.5)
    return FunctionalGradient(0.1 * number, np.array([0.3 / (number + 1)]))


@pytest.mark.parametrize("small", [True, False])
def test_a_worker_that_hangs_with_what_it_has_finished_is_started_anew(tasks, tmp_path, small):
    """What was fetched from it, by the driver or by who adds, is computed elsewhere; meanwhile the driver goes on looking."""
    tasks.client.register_plugin(HeartbeatMonitor(TOPIC, limit=4))
    looked, fetch = [], tasks._fetch

    def fetch_late(future):
        time.sleep(1)
        return fetch(future)

    tasks._fetch = fetch_late
    tasks.pressing = lambda _: looked.append(time.monotonic())
    names = ["0", "1"]
    arguments = [(i, str(tmp_path), 0) for i in range(2)]
    found = tasks.sum(stop_when_done, names, arguments, [task_key(tmp_path, name) for name in names], small=small)
    assert found.f == 0.0 + 0.1
    assert found.g.tobytes() == np.array([0.3 / 1 + 0.3 / 2]).tobytes()
    assert max(np.diff(looked)) < 3
    culprit = (tmp_path / "hung").read_text()
    assert culprit not in tasks.workers()
    told = [(event["event"], event["worker"]) for _, event in tasks.client.get_events(TOPIC)]
    assert told == [("worker unresponsive", culprit), ("worker restarted", culprit)]


@pytest.mark.parametrize("how", ["stopped", "without an answer"])
def test_a_shot_that_hangs_is_computed_elsewhere_and_its_worker_started_anew(tasks, tmp_path, how):
    names = [str(i) for i in range(SHOTS)]
    arguments = [(i, str(tmp_path), how) for i in range(SHOTS)]
    before = set(tasks.workers())
    found = tasks.sum(shot, names, arguments, [task_key(tmp_path, name) for name in names])
    expected = tasks.sum(shot, names, arguments, [task_key(tmp_path, "again", name) for name in names])
    assert (found.f, found.g.tobytes()) == (expected.f, expected.g.tobytes())
    culprit = (tmp_path / "hung").read_text()
    ((_, worker, _),) = [told for told in tasks.retries if "longer" in told[2]][:1]
    assert worker == culprit
    # and perhaps those before it, if the worker was stopped before it could say that they were done
    assert "5" in [told[0] for told in tasks.retries]
    for _ in range(600):
        if culprit not in tasks.workers() and len(tasks.workers()) == 2:
            break
        time.sleep(0.05)
    assert culprit in before - set(tasks.workers())
    assert len(tasks.workers()) == 2


def test_shots_that_go_together_and_hang_are_computed_elsewhere_together(tasks, tmp_path):
    names = [str(i) for i in range(SHOTS)]
    arguments = [(i, str(tmp_path), "stopped") for i in range(SHOTS)]
    found = tasks.sum(shot, names, arguments, [task_key(tmp_path, name) for name in names], bundled=True)
    retries = [told[:2] for told in tasks.retries if "longer" in told[2]]
    expected = tasks.sum(shot, names, arguments, [task_key(tmp_path, "again", name) for name in names])
    assert (found.f, found.g.tobytes()) == (expected.f, expected.g.tobytes())
    culprit = (tmp_path / "hung").read_text()
    assert retries == [("0", culprit)]
    assert ("worker restarted", culprit) in [
        (told["event"], told["worker"]) for _, told in tasks.client.get_events(TOPIC)
    ]


def stand_still(number, folder):
    """All do that at the same time, as where a shared file system does not answer for a while."""
    time.sleep(0.1)
    while number >= 2 * BLOCK and (Path(folder) / "no-answer").exists():
        time.sleep(0.05)
    return FunctionalGradient(0.1 * number, np.array([0.3 / (number + 1)]))


@pytest.mark.parametrize("bundled", [False, True])
def test_no_worker_is_ended_where_all_stand_still(tasks, tmp_path, bundled):
    names = [str(i) for i in range(4 * BLOCK)]
    arguments = [(i, str(tmp_path)) for i in range(len(names))]
    before = set(tasks.workers())
    tasks.client.unregister_scheduler_plugin(StragglerMonitor.name)
    tasks.client.register_plugin(StragglerMonitor(TOPIC, ["stand_still", BATCH_KEY], KINDS, shortest=1, factor=2))
    threading.Timer(5, (tmp_path / "no-answer").unlink).start()
    found = tasks.sum(stand_still, names, arguments, [task_key(tmp_path, name) for name in names], bundled=bundled)
    assert found.f == pytest.approx(0.1 * sum(range(4 * BLOCK)))
    assert any("longer" in told[2] for told in tasks.retries)
    time.sleep(1)
    assert set(tasks.workers()) == before


def quick(number, *_):
    time.sleep(0.1)
    return FunctionalGradient(float(number), np.array([float(number)]))


def kill_workers(tasks):
    """All of them, with what they hold; their nannies start others."""
    before = tasks.workers()
    for pid in tasks.client.run(os.getpid).values():
        os.kill(pid, signal.SIGKILL)
    while set(before) & set(tasks.workers()):
        time.sleep(0.01)


def test_results_that_are_lost_before_they_are_fetched_are_computed_anew_and_count_for_no_failure(tasks):
    """The driver was fetching, or drawing, while their workers died."""
    names, lost = [str(i) for i in range(6)], []

    def progress(done, _):
        if done == 1 and not lost:
            time.sleep(1.5)
            lost.append(kill_workers(tasks))

    arguments = [(i,) for i in range(6)]
    found = tasks.map(quick, names, arguments, [task_key("lost", name) for name in names], progress)
    assert [result.f for result in found] == list(range(6))
    assert lost
    # but of those that were being computed anew when the second worker died
    assert all(reason.endswith("died") for _, _, reason in tasks.retries)


def test_a_driver_that_has_to_end_while_it_fetches_what_was_lost_is_interrupted(tasks):
    fetch = tasks._fetch

    def fetch_what_was_lost(future):
        kill_workers(tasks)
        tasks.client.cluster.scale(0)  # nobody makes it again
        tasks.pressing = lambda _: ("there is no time left", 0.0)
        return fetch(future)

    tasks._fetch = fetch_what_was_lost
    with pytest.raises(Interrupted, match="there is no time left"):
        tasks.sum(quick, ["a", "b"], [(1,), (2,)], [task_key("root", 1), task_key("root", 2)])


def hang_once(number, folder):
    hung = Path(folder) / "hung"
    if number == 1 and not hung.exists():
        hung.touch()
        time.sleep(1000)
    time.sleep(0.1)
    return FunctionalGradient(float(number), np.array([float(number)]))


@pytest.fixture
def alone():
    """One worker, and tasks that are told what is overdue after two seconds."""
    workers = LocalWorkers(Layout(1, 1, 2 * 10**9), workload=Workload(PRELOAD_MODULES))
    with workers, Client(workers.cluster(), set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
        retries = []
        tasks = DaskExecutor(client, on_retry=lambda *facts: retries.append(facts))
        tasks.retries = retries
        client.subscribe_topic(TOPIC, lambda event: "key" in event[1] and tasks.overdue(event[1]["key"]))
        client.register_plugin(StragglerMonitor(TOPIC, ["hang_once"], shortest=2))
        yield tasks


@pytest.mark.parametrize("another", [True, False])
def test_a_shot_that_hangs_on_the_only_worker_waits_for_another_one_and_not_for_ever(
    alone, tmp_path, monkeypatch, another
):
    monkeypatch.setattr(tasks_module, "LONE_WORKER_TIMEOUT_S", 600.0 if another else 3.0)
    if another:
        threading.Timer(6, alone.client.cluster.scale, (2,)).start()
    names = ["0", "1", "2"]
    arguments = [(i, str(tmp_path)) for i in range(3)]
    found = alone.map(hang_once, names, arguments, [task_key(tmp_path, name) for name in names])
    assert [result.f for result in found] == [0, 1, 2]
    reasons = [reason for name, _, reason in alone.retries if name == "1"]
    assert ("longer" in reasons[0]) == another


class Stuck(float):
    """Hangs, once, when something is added to it."""

    def __add__(self, other):
        hung = Path(os.environ["HPCFWI_TEST_FOLDER"]) / "hung"
        if not hung.exists():
            hung.touch()
            time.sleep(1000)
        return float(self) + other


def stuck(number, folder):
    os.environ["HPCFWI_TEST_FOLDER"] = folder
    return FunctionalGradient(Stuck(number), np.array([float(number)]))


def test_a_worker_that_hangs_in_a_sum_is_ended(tasks, tmp_path):
    for number in range(3):  # by which it is known how long sums take
        tasks.sum(quick, ["a", "b"], [(1,), (2,)], [task_key("quick", number), task_key("quick", -number)])
    found = tasks.sum(
        stuck, ["a", "b"], [(1, str(tmp_path)), (2, str(tmp_path))], [task_key(tmp_path, i) for i in "ab"]
    )
    assert found.f == 3
    assert (tmp_path / "hung").exists()


def long_once(number):
    """A shot that takes long, on the worker on which a sum is made meanwhile."""
    time.sleep(5 if number == 8 else 0.1)
    return FunctionalGradient(float(number), np.array([float(number)]))


def test_a_sum_that_waits_behind_a_long_shot_does_not_hang(tmp_path):
    workers = LocalWorkers(Layout(1, 1, 2 * 10**9), workload=Workload(PRELOAD_MODULES))
    with workers, Client(workers.cluster(), set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
        tasks = DaskExecutor(client)
        client.subscribe_topic(TOPIC, lambda event: "key" in event[1] and tasks.overdue(event[1]["key"]))
        client.register_plugin(StragglerMonitor(TOPIC, [], KINDS, shortest=1))
        for number in range(3):  # by which it is known how long sums take
            tasks.sum(quick, ["a", "b"], [(1,), (2,)], [task_key("before", number), task_key("before", -1 - number)])
        names = [str(i) for i in range(9)]
        keys = [task_key(tmp_path, name) for name in names]
        assert tasks.sum(long_once, names, [(i,) for i in range(9)], keys).f == 36
        assert not client.get_events(TOPIC)


@pytest.mark.parametrize(
    ("in_one_task", "block", "workers", "shots"),
    [
        (1, 1, 1, 2),
        (1, 1, 50, 2),
        (1, 8, 4, 4),
        (1, 64, 4, 18),
        (1, 64, 64, 3),
        (8, 1, 4, 16),
        (8, 8, 4, 16),
        (8, 64, 64, 24),
        (8, 64, 4, 32),
    ],
)
def test_the_time_that_is_needed_to_end_is_that_of_the_tasks_in_hand_and_of_the_rest_of_a_block(
    in_one_task, block, workers, shots
):
    tasks = DaskExecutor(None)
    tasks.seconds.extend([30.0, 60.0])
    assert tasks._needed(in_one_task, block, workers) == shots * 60.0
