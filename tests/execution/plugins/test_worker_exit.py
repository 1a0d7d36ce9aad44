"""Why a worker died is told in one line."""

from __future__ import annotations

import logging
import os
import signal
import time

import pytest
from distributed import Client, LocalCluster

from hpcfwi.execution.plugins.worker_exit import WorkerExitPlugin, exit_reason


@pytest.mark.parametrize(
    ("message", "over", "told"),
    [
        (
            "Worker process 7 was killed by signal 9",
            False,
            "killed by signal 9 (SIGKILL, perhaps by the system for want of",
        ),
        ("Worker process 7 was killed by signal 11", False, "killed by signal 11 (SIGSEGV)"),
        ("Worker process 7 was killed by signal 4", False, "devito.target"),
        ("Worker process 7 was killed by signal 15", True, "out of memory: it came too close to its limit of 2 GB"),
        ("Worker process 7 was killed by unknown signal", False, "killed by unknown signal"),
        ("Worker process 7 exited with status 3", False, "exited with status 3"),
    ],
)
def test_a_nannys_words_become_the_users(message, over, told):
    assert told in exit_reason(message, over, 2 * 10**9)


SCHEDULER = {"allowed_failures": 0, "dashboard_address": "127.0.0.1:0"}


def die(how):
    os.kill(os.getpid(), how)
    time.sleep(60)


def eat():
    hoard = []
    while True:
        hoard.append(b"x" * 10_000_000)
        time.sleep(0.01)


def test_each_of_several_workers_of_a_process_is_told_of():
    options = {"host": "127.0.0.1", "threads_per_worker": 1, "scheduler_kwargs": SCHEDULER}
    with LocalCluster(n_workers=3, **options) as cluster, Client(cluster, set_as_default=False) as client:
        events = []
        client.subscribe_topic("deaths", lambda event: events.append(event[1]))
        client.register_plugin(WorkerExitPlugin("deaths"))
        workers = client.run(os.getpid)
        for pid in workers.values():
            os.kill(pid, signal.SIGKILL)
        for _ in range(200):
            if len(events) == 3:
                break
            time.sleep(0.05)
    assert {event["worker"]: event["pid"] for event in events} == workers


def test_dasks_log_has_its_level_back_when_the_nannies_are_gone():
    logger = logging.getLogger("distributed.nanny")
    before, filters = logger.level, list(logger.filters)
    settings = {"host": "127.0.0.1", "threads_per_worker": 1, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    with LocalCluster(n_workers=2, **settings) as cluster, Client(cluster, set_as_default=False) as client:
        client.register_plugin(WorkerExitPlugin("deaths"))
        assert logger.level == logging.INFO
    assert logger.level == before
    assert logger.filters == filters


@pytest.fixture(scope="module")
def told():
    """A client of one worker of 400 MB, and what is told of its deaths; the settings are those of a run."""
    settings = {"memory_limit": "400MB", "host": "127.0.0.1"}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, scheduler_kwargs=SCHEDULER, **settings) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        events = []
        client.subscribe_topic("deaths", lambda event: events.append(event[1]))
        client.register_plugin(WorkerExitPlugin("deaths"))
        yield client, events


@pytest.mark.parametrize(
    ("function", "arguments", "reason"),
    [(die, (signal.SIGKILL,), "SIGKILL"), (die, (signal.SIGSEGV,), "SIGSEGV"), (eat, (), "out of memory")],
    ids=["kill", "segfault", "memory"],
)
def test_the_cause_of_a_death_comes_as_an_event(told, function, arguments, reason, capfd):
    client, events = told
    events.clear()
    client.wait_for_workers(1, timeout=30)
    future = client.submit(function, *arguments, pure=False)
    assert "KilledWorker" in repr(future.exception(timeout=60))
    address = future.exception().last_worker.address
    for _ in range(100):
        if events:
            break
        time.sleep(0.05)
    (event,) = events
    assert event["event"] == "worker died"
    assert event["worker"] == address
    assert reason in event["reason"]
    # Dask's own log is as quiet as it was
    assert "was killed by" not in capfd.readouterr().err
