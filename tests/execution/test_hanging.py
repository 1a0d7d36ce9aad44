"""A shot that hangs is computed elsewhere, and its worker is not relied on any more."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, get_worker
from executor_events import note_events

from hpcfwi.cluster import local
from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.local import LocalWorkers
from hpcfwi.cluster.pool import Workload
from hpcfwi.errors import Interrupted
from hpcfwi.events.types import TaskOverdue, WorkerRestarted
from hpcfwi.execution import dispatch, window
from hpcfwi.execution import shots as shots_module
from hpcfwi.execution.affinity import PRELOAD_MODULES
from hpcfwi.execution.executor import DaskExecutor
from hpcfwi.inversion.functional_gradient import BLOCK, FunctionalGradient
from hpcfwi.inversion.objective import task_key

SHOTS = 12


def shot(number, folder, how):
    """One of them hangs, the first time that it is tried."""
    hung = Path(folder) / "hung"
    if number == 5 and not hung.exists():
        hung.write_text(get_worker().address)
        time.sleep(0.2)  # until the results before it have arrived
        if how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        while (Path(folder) / "no-answer").exists():
            time.sleep(0.1)  # as a file system that does not answer; heartbeats go on
    time.sleep(0.05)
    return FunctionalGradient(0.1 * number, np.array([0.3 / (number + 1)]))


def noting_executor(client):
    """An executor that notes its retries and events."""
    retries, reported = [], []
    tasks = DaskExecutor(client, log_event=note_events(retries, others=reported))
    tasks.retries, tasks.reported = retries, reported
    return tasks


@contextmanager
def executor(workers):
    """Such an executor on workers of its own."""
    pool = LocalWorkers(Layout(workers, 1, 2 * 10**9), workload=Workload(PRELOAD_MODULES))
    with pool, Client(pool.cluster(), set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=300)
        yield noting_executor(client)


@pytest.fixture
def two_seconds(tmp_path, monkeypatch):
    """Shots are overdue after two seconds."""
    monkeypatch.setattr(window, "MIN_OVERDUE_S", 2.0)
    (tmp_path / "no-answer").touch()


@pytest.fixture
def tasks_with_short_ttl(two_seconds, monkeypatch):  # noqa: ARG001
    """Two workers, which are restarted if they send no heartbeats for some seconds."""
    settings = {**local.SCHEDULER_SETTINGS, "distributed.scheduler.worker-ttl": "4s"}
    monkeypatch.setattr(local, "SCHEDULER_SETTINGS", settings)
    with executor(2) as tasks:
        yield tasks


@pytest.fixture
def tasks(two_seconds, client):  # noqa: ARG001
    """Two workers, which the tests share: those that a test has restarted, or ended, are there again after it."""
    tasks = noting_executor(client)
    yield tasks
    client.cluster.scale(2)
    wait_until(lambda: len(tasks.workers()) == 2 and not {*tasks.workers()} & {*restarted(tasks)})


def wait_until(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)


def restarted(tasks):
    return [event.worker for event in tasks.reported if isinstance(event, WorkerRestarted)]


def stop_when_done(number, folder, wanted):
    """The worker of one of them is stopped when this is done, before its result is fetched."""
    if number == wanted and not (Path(folder) / "hung").exists():
        (Path(folder) / "hung").write_text(get_worker().address)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGSTOP)).start()
    if number != wanted:
        time.sleep(1.5)
    return FunctionalGradient(0.1 * number, np.array([0.3 / (number + 1)]))


@pytest.mark.parametrize("small", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_results_of_a_suspended_worker_are_computed_elsewhere_while_the_driver_goes_on_polling(
    tasks_with_short_ttl, tmp_path, small
):
    tasks, looked = tasks_with_short_ttl, []
    tasks.check_stop = lambda _: looked.append(time.monotonic())
    names = ["0", "1"]
    arguments = [(i, str(tmp_path), 0) for i in range(2)]
    found = tasks.sum(stop_when_done, names, arguments, [task_key(tmp_path, name) for name in names], small=small)
    assert found.f == 0.0 + 0.1
    assert found.g.tobytes() == np.array([0.3 / 1 + 0.3 / 2]).tobytes()
    assert max(np.diff(looked), default=0) < 4, "less than Dask takes to restart the worker"
    assert not tasks.retries


@pytest.mark.parametrize("how", ["stopped", pytest.param("without an answer", marks=pytest.mark.slow)])
def test_a_shot_that_hangs_is_computed_elsewhere_and_its_worker_is_restarted(tasks, tmp_path, how):
    names = [str(i) for i in range(SHOTS)]
    arguments = [(i, str(tmp_path), how) for i in range(SHOTS)]
    before = set(tasks.workers())
    found = tasks.sum(shot, names, arguments, [task_key(tmp_path, name) for name in names])
    expected = tasks.sum(shot, names, arguments, [task_key(tmp_path, "again", name) for name in names])
    assert (found.f, found.g.tobytes()) == (expected.f, expected.g.tobytes())
    culprit = (tmp_path / "hung").read_text()
    ((_, worker, _),) = [retry for retry in tasks.retries if "longer" in retry[2]][:1]
    assert worker == culprit
    # and perhaps those before it, if the worker was stopped before it could say that they were done
    assert "5" in [retry[0] for retry in tasks.retries]
    wait_until(lambda: culprit not in tasks.workers() and len(tasks.workers()) == 2)
    assert culprit in before - set(tasks.workers())
    assert len(tasks.workers()) == 2


@pytest.mark.slow
def test_a_batch_that_hangs_is_computed_elsewhere_as_a_batch(tasks, tmp_path):
    names = [str(i) for i in range(SHOTS)]
    arguments = [(i, str(tmp_path), "stopped") for i in range(SHOTS)]
    found = tasks.sum(shot, names, arguments, [task_key(tmp_path, name) for name in names], batched=True)
    retries = [retry[:2] for retry in tasks.retries if "longer" in retry[2]]
    expected = tasks.sum(shot, names, arguments, [task_key(tmp_path, "again", name) for name in names])
    assert (found.f, found.g.tobytes()) == (expected.f, expected.g.tobytes())
    culprit = (tmp_path / "hung").read_text()
    assert retries == [("0", culprit)]
    assert culprit in restarted(tasks)


def stand_still(number, folder):
    """All do that at the same time, as where a shared file system does not answer for a while."""
    time.sleep(0.1)
    while number >= 2 * BLOCK and (Path(folder) / "no-answer").exists():
        time.sleep(0.05)
    return FunctionalGradient(0.1 * number, np.array([0.3 / (number + 1)]))


@pytest.mark.parametrize("batched", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_worker_is_restarted_if_all_hang(tasks, tmp_path, batched, monkeypatch):
    monkeypatch.setattr(window, "MIN_OVERDUE_S", 1.0)
    monkeypatch.setattr(window, "OVERDUE_RATIO", 2.0)
    names = [str(i) for i in range(4 * BLOCK)]
    arguments = [(i, str(tmp_path)) for i in range(len(names))]
    before = set(tasks.workers())

    def answer():
        """Let the file system answer two seconds after that has been noticed."""
        wait_until(lambda: tasks.reported)
        time.sleep(2)
        (tmp_path / "no-answer").unlink()

    threading.Thread(target=answer).start()
    found = tasks.sum(stand_still, names, arguments, [task_key(tmp_path, name) for name in names], batched=batched)
    assert found.f == pytest.approx(0.1 * sum(range(4 * BLOCK)))
    assert any(isinstance(event, TaskOverdue) for event in tasks.reported)
    time.sleep(1)
    assert not restarted(tasks)
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


def test_results_that_are_lost_before_they_are_fetched_are_computed_again_and_are_no_failures(tasks):
    """The driver was fetching, or drawing, while their workers died."""
    names, lost = [str(i) for i in range(6)], []

    def progress(done, _):
        if done and not lost:
            time.sleep(1.5)
            lost.append(kill_workers(tasks))

    arguments = [(i,) for i in range(6)]
    found = tasks.map(quick, names, arguments, [task_key("lost", name) for name in names], progress)
    assert [result.f for result in found] == list(range(6))
    assert lost
    # but of those that were being computed anew when the second worker died
    assert all(reason.endswith("died") for _, _, reason in tasks.retries)


def test_a_driver_that_has_to_end_while_it_fetches_lost_results_is_interrupted(tasks, monkeypatch):
    fetch = dispatch.Dispatch._fetch

    def fetch_what_was_lost(this, *arguments):
        kill_workers(tasks)
        tasks.client.cluster.scale(0)  # no worker makes it again
        tasks.check_stop = lambda _: ("there is no time left", 0.0)
        fetch(this, *arguments)

    monkeypatch.setattr(dispatch.Dispatch, "_fetch", fetch_what_was_lost)
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
def alone(monkeypatch):
    """One worker, whose shots are overdue after two seconds."""
    monkeypatch.setattr(window, "MIN_OVERDUE_S", 2.0)
    with executor(1) as tasks:
        yield tasks


@pytest.mark.parametrize("another", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_shot_that_hangs_on_the_only_worker_waits_a_limited_time_for_another_worker(
    alone, tmp_path, monkeypatch, another
):
    monkeypatch.setattr(shots_module, "LONE_WORKER_TIMEOUT_S", 600.0 if another else 3.0)
    if another:
        threading.Timer(3, alone.client.cluster.scale, (2,)).start()
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


def test_a_worker_that_hangs_in_a_sum_is_restarted(tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "SUM_TIMEOUT_S", 2.0)
    arguments = [(1, str(tmp_path)), (2, str(tmp_path))]
    found = tasks.sum(stuck, ["a", "b"], arguments, [task_key(tmp_path, i) for i in "ab"])
    assert found.f == 3
    assert (tmp_path / "hung").exists()
    assert len(restarted(tasks)) == 1


def long_once(number):
    """A shot that takes long, on the worker on which a sum is made meanwhile."""
    time.sleep(3 if number == 8 else 0.1)
    return FunctionalGradient(float(number), np.array([float(number)]))


def test_a_sum_that_waits_behind_a_long_shot_does_not_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "SUM_TIMEOUT_S", 1.0)
    with executor(1) as tasks:
        names = [str(i) for i in range(9)]
        keys = [task_key(tmp_path, name) for name in names]
        assert tasks.sum(long_once, names, [(i,) for i in range(9)], keys).f == 36
        assert not tasks.reported


@pytest.mark.parametrize(
    ("shots_per_task", "block", "workers", "shots"),
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
def test_the_time_to_stop_covers_running_tasks_and_the_rest_of_a_block(shots_per_task, block, workers, shots):
    tasks = DaskExecutor(None)
    tasks.seconds.extend([30.0, 60.0])
    assert tasks.needed_s(shots_per_task, block, workers) == shots * 60.0
