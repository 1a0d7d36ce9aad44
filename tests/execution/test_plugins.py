"""Workers that join, and why worker processes died."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest
from distributed import Client, LocalCluster
from private_names import relying_on

from hpcfwi.cluster.dask_internals import MEMORY_TOPIC
from hpcfwi.events.types import parse_event
from hpcfwi.execution.plugins import EXIT_TOPIC, WorkerExitPlugin, WorkerInfoPlugin, exit_reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (-9, "killed by signal 9 (SIGKILL, perhaps by the system, which ran out of memory)"),
        (-11, "killed by signal 11 (SIGSEGV)"),
        (-4, "killed by signal 4 (SIGILL: an instruction that this host does not have (devito.target))"),
        (-7, "killed by signal 7 (SIGBUS, perhaps because a disk is full)"),
        (-200, "killed by signal 200"),
        (3, "exited with status 3"),
    ],
)
def test_an_exit_code_is_described(code, reason):
    assert exit_reason(code) == reason


SCHEDULER = {"allowed_failures": 0, "dashboard_address": "127.0.0.1:0"}


def die(how):
    os.kill(os.getpid(), how)
    time.sleep(60)


def eat():
    hoard = []
    while True:
        hoard.append(b"x" * 10_000_000)
        time.sleep(0.01)


def test_each_of_several_workers_is_reported():
    options = {"host": "127.0.0.1", "threads_per_worker": 1, "scheduler_kwargs": SCHEDULER}
    with LocalCluster(n_workers=3, **options) as cluster, Client(cluster, set_as_default=False) as client:
        events = []
        client.subscribe_topic(EXIT_TOPIC, lambda event: events.append(event[1]))
        client.register_plugin(WorkerExitPlugin())
        workers = client.run(os.getpid)
        for pid in workers.values():
            os.kill(pid, signal.SIGKILL)
        for _ in range(200):
            if len(events) == 3:
                break
            time.sleep(0.05)
    assert {event["worker"] for event in events} == set(workers)


@pytest.fixture(scope="module")
def exits():
    """A client of one worker of 400 MB, and the events of its exits; the settings are those of a run."""
    settings = {"memory_limit": "400MB", "host": "127.0.0.1"}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, scheduler_kwargs=SCHEDULER, **settings) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        events = []
        client.subscribe_topic(EXIT_TOPIC, lambda event: events.append(event[1]))
        client.register_plugin(WorkerExitPlugin())
        yield client, events


@pytest.mark.parametrize(
    ("function", "arguments", "reason"),
    [(die, (signal.SIGKILL,), "SIGKILL"), (die, (signal.SIGSEGV,), "SIGSEGV")],
    ids=["kill", "segfault"],
)
def test_the_cause_of_a_death_is_reported(exits, function, arguments, reason):
    client, events = exits
    events.clear()
    client.wait_for_workers(1, timeout=300)
    future = client.submit(function, *arguments, pure=False)
    error = future.exception(timeout=60)
    address = error.last_worker.address
    for _ in range(100):
        if events:
            break
        time.sleep(0.05)
    (event,) = events
    assert event["worker"] == address
    assert reason in event["reason"]


@relying_on("distributed", "a nanny logs worker-restart-memory before it ends a worker, and the exit code after that")
def test_a_worker_out_of_memory_is_reported_by_its_nanny_before_its_exit(exits):
    client, events = exits
    events.clear()
    client.wait_for_workers(1, timeout=300)
    client.subscribe_topic(MEMORY_TOPIC, lambda event: events.append(event[1]))
    error = client.submit(eat, pure=False).exception(timeout=60)
    until = time.monotonic() + 10
    while len(events) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    memory, death = events
    assert memory["worker"] == death["worker"] == error.last_worker.address
    assert "SIGTERM" in death["reason"]


def test_a_worker_that_joins_is_described():
    options = {"host": "127.0.0.1", "threads_per_worker": 1, "scheduler_kwargs": SCHEDULER}
    with LocalCluster(n_workers=1, **options) as cluster, Client(cluster, set_as_default=False) as client:
        client.register_plugin(WorkerInfoPlugin("joined"))
        cluster.scale(2)
        client.wait_for_workers(2, timeout=300)
        pids = client.run(os.getpid)
        until = time.monotonic() + 60
        while len(client.get_events("joined")) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        events = [parse_event(line) for _, line in client.get_events("joined")]
    assert {event.worker: event.pid for event in events} == pids
    assert {event.name for event in events} == {"0", "1"}
    assert {event.host for event in events} == {socket.gethostname().partition(".")[0]}
    assert all(event.process_start < event.time for event in events)
