"""Names of Dask that are private or undocumented: each still exists, and means what hpcfwi relies on."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

import distributed.batched
import distributed.core
import distributed.scheduler
import pytest
from distributed import Client
from distributed.core import Status
from private_names import relying_on
from tornado.ioloop import IOLoop

from hpcfwi.cluster.dashboard import open_dashboard
from hpcfwi.cluster.dask_internals import (
    cancel_tasks,
    cancel_unstarted,
    missing_dashboard_requirements,
    monotonic_time,
    stop_assigning_tasks,
    use_monotonic_clock,
)
from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.local import LocalWorkers

SHOTS, BLOCK = 600, 4


def note(i, folder):
    (Path(folder) / str(i)).touch()
    return i


def hang(i, folder):
    note(i, folder)
    while Path(folder).exists():
        time.sleep(0.01)


def has(folder, count):
    """Return when there are so many files."""
    deadline = time.monotonic() + 20
    while len(list(folder.iterdir())) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def ended(client):
    """Return when no task is known to the scheduler any more."""
    deadline = time.monotonic() + 20
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@relying_on(
    "distributed",
    "client_releases_keys forgets tasks at once, and TaskState.state says whether a worker has them",
)
def test_cancelled_groups_are_those_that_no_worker_has_received(client, tmp_path):
    for turn in range(5):
        folder = tmp_path / str(turn)
        folder.mkdir()
        futures = client.map(note, range(SHOTS), folder=str(folder), key=[f"note-{turn}-{i}" for i in range(SHOTS)])
        has(folder, 20 * (turn + 1))
        cancel_unstarted(client, [futures[i : i + BLOCK] for i in range(0, SHOTS, BLOCK)])
        kept = [i for i, future in enumerate(futures) if future.status != "cancelled"]
        assert 0 < len(kept) < SHOTS, "too early or too late"
        assert all((i // BLOCK * BLOCK in kept) == (i in kept) for i in range(SHOTS))
        assert client.gather([futures[i] for i in kept]) == kept
        assert sorted(int(path.name) for path in folder.iterdir()) == kept
        futures.clear()
        ended(client)


@relying_on("distributed", "client_releases_keys drops the results of running tasks")
def test_a_cancelled_task_that_runs_or_is_done_is_dropped(client, tmp_path):
    done = client.submit(int, 1, key="done", pure=False)
    assert done.result() == 1
    folder = tmp_path / "running"
    folder.mkdir()
    running = client.map(hang, range(2), folder=str(folder), key=["running-1", "running-2"], pure=False)
    has(folder, 2)
    behind = client.map(note, range(5), folder=str(tmp_path), key=[f"behind-{i}" for i in range(5)], pure=False)
    on_top = client.submit(sum, behind, key="on-top", pure=False)
    cancel_tasks(client, [done, *running, *behind, on_top])
    assert {future.status for future in (done, *running, *behind, on_top)} == {"cancelled"}
    ended(client)
    folder.rename(tmp_path / "over")


@relying_on("distributed", "each module's `time` is its clock, and IOLoop.time that of Tornado's timers")
def test_all_modules_of_dask_and_tornado_measure_time_by_the_monotonic_clock():
    use_monotonic_clock()
    for module in (distributed.batched, distributed.core, distributed.metrics, distributed.scheduler):
        assert module.time is monotonic_time
    assert IOLoop(make_current=False).time() == pytest.approx(monotonic_time(), abs=5)


def where(_):
    from distributed import get_worker

    return get_worker().address


def run_tasks(client, turn):
    return set(client.gather(client.map(where, range(20), key=[f"where-{turn}-{i}" for i in range(20)], pure=False)))


@relying_on("distributed", "handle_worker_status_change and the message worker-status-change stop and resume a worker")
def test_a_worker_gets_no_more_tasks_until_that_is_undone(client):
    first, second = client.scheduler_info(n_workers=-1)["workers"]

    def set_status(status):
        def change(dask_scheduler):
            stop_assigning_tasks(dask_scheduler, dask_scheduler.workers[first], status)

        client.run_on_scheduler(change)
        deadline = time.monotonic() + 10
        while client.run(lambda dask_worker: dask_worker.status.name, workers=[first])[first] != status.name:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    set_status(Status.closing_gracefully)
    assert run_tasks(client, 1) == {second}
    set_status(Status.running)
    assert run_tasks(client, 2) == {first, second}


@relying_on(
    "distributed", "http_application, http_server and distributed.dashboard.scheduler.connect make the dashboard"
)
def test_the_dashboard_is_made_at_the_first_request():
    assert missing_dashboard_requirements() == ""
    pool = LocalWorkers(Layout(1, 1, 10**9))
    with pool, Client(pool.cluster(), set_as_default=False):
        dashboard = open_dashboard(pool.cluster().scheduler)
        for _ in range(2):
            with urllib.request.urlopen(dashboard.address, timeout=60) as answer:
                assert b"<title>Dask" in answer.read()
