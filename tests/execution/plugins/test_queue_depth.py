"""Long shots wait for a worker with the scheduler, short ones on the workers."""

from __future__ import annotations

import math
import time
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster, get_worker

from hpcfwi.cluster.pool import SCHEDULER_SETTINGS
from hpcfwi.execution.executor import DaskExecutor
from hpcfwi.execution.plugins import queue_depth as dealing
from hpcfwi.execution.plugins import queue_depth as pace
from hpcfwi.execution.plugins.queue_depth import QueueDepth
from hpcfwi.execution.reduction import task_key

# Dask would make a group of each of them, and give out all at once.
NAMES = ["north", "south", "east", "west"]


def shot(name, folder):
    """The first one goes on until the others are done, wherever they are."""
    if name == NAMES[0]:
        until = time.monotonic() + 20
        while len(list(Path(folder).glob("*.done"))) < len(NAMES) - 1 and time.monotonic() < until:
            time.sleep(0.02)
    (Path(folder) / f"{name}.done").touch()
    return get_worker().address


@pytest.fixture
def client():
    with (
        dask.config.set(SCHEDULER_SETTINGS),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def gather(client, folder):
    arguments = [(name, str(folder)) for name in NAMES]
    return DaskExecutor(client).map(shot, NAMES, arguments, [task_key(str(folder), name) for name in NAMES])


def test_no_long_shot_waits_behind_another_while_a_worker_is_idle(client, tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "ROUND_TRIP", 0.0)
    monkeypatch.setattr(pace, "QUEUED", 0.0)
    client.register_plugin(QueueDepth(["shot"]))
    first, *others = gather(client, tmp_path)
    assert first not in others
    assert client.cluster.scheduler.WORKER_SATURATION == dealing.ONE


def test_short_shots_are_dealt_ahead_once_it_is_known_that_they_are_short(client, tmp_path, monkeypatch):
    scheduler = client.cluster.scheduler
    usual = scheduler.WORKER_SATURATION
    for name in NAMES[1:]:
        (tmp_path / f"{name}.done").touch()
    client.register_plugin(QueueDepth(["shot"]))
    assert len(gather(client, tmp_path)) == len(NAMES)
    assert scheduler.WORKER_SATURATION == usual > dealing.ONE
    monkeypatch.setattr(pace, "IDLE", 1e9)
    gather(client, tmp_path)
    assert scheduler.WORKER_SATURATION == dealing.ONE


def test_shots_are_given_out_at_once_where_dask_was_told_so(tmp_path):
    for name in NAMES[1:]:
        (tmp_path / f"{name}.done").touch()
    with (
        dask.config.set({**SCHEDULER_SETTINGS, "distributed.scheduler.worker-saturation": "inf"}),
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(QueueDepth(["shot"]))
        assert len(gather(client, tmp_path)) == len(NAMES)
        assert math.isinf(cluster.scheduler.WORKER_SATURATION)
