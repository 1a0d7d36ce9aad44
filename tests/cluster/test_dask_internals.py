"""Names of Dask that are private or undocumented: each still exists, and means what hpcfwi relies on."""

from __future__ import annotations

import os
import signal
import time
import urllib.request

import dask
from distributed import Client, LocalCluster, NannyPlugin, get_worker
from private_names import relying_on

from hpcfwi.cluster.dask_internals import (
    ALL_TOPIC,
    SCHEDULER_TOPIC,
    add_lazy_dashboard,
    missing_dashboard_requirements,
    run_stranded_tasks,
    unsubscribe,
    watch_worker_exit,
    worker_infos,
)
from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.local import LocalWorkers


@relying_on("distributed", "Nanny._on_worker_exit_sync, WorkerProcess.on_exit: called with each exit code of a worker")
def test_exits_of_current_and_later_workers_are_reported():
    class Exits(NannyPlugin):
        name = "exits"

        def setup(self, nanny):
            watch_worker_exit(nanny, lambda code: nanny.log_event("exits", code))

    options = {"n_workers": 1, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as client:
        codes = []
        client.subscribe_topic("exits", lambda event: codes.append(event[1]))
        client.register_plugin(Exits())
        for number, how in enumerate((signal.SIGKILL, signal.SIGSEGV), 1):
            client.wait_for_workers(1, timeout=300)
            (pid,) = client.run(os.getpid).values()
            os.kill(pid, how)
            until = time.monotonic() + 20
            while len(codes) < number or client.nthreads():
                assert time.monotonic() < until
                time.sleep(0.01)
        assert codes == [-9, -11]


@relying_on("distributed", "topics 'all' and 'scheduler': remove-worker, worker-ttl-timed-out")
def test_dask_reports_workers_without_heartbeats_and_workers_that_leave():
    options = {"n_workers": 1, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": "2s"}),
        LocalCluster(**options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        (worker,) = client.nthreads()
        found = []
        for topic in (ALL_TOPIC, SCHEDULER_TOPIC):
            client.subscribe_topic(topic, lambda event: found.append(event[1]))
        (pid,) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGSTOP)
        until = time.monotonic() + 60
        while not any(event["action"] == "remove-worker" for event in found):
            assert time.monotonic() < until
            time.sleep(0.05)
        (silent,) = [event for event in found if event["action"] == "worker-ttl-timed-out"]
        assert (list(silent["workers"]), silent["ttl"] >= 2) == ([worker], True)
        assert [event["worker"] for event in found if event["action"] == "remove-worker"] == [worker]


def where(_):
    return get_worker().address


@relying_on(
    "distributed", "Scheduler.identity(n_workers=-1) lists all workers; unsubscribe_topic() ends a subscription"
)
def test_workers_are_listed_and_subscriptions_end():
    options = {"n_workers": 6, "processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as client:
        assert set(worker_infos(client)) == set(client.nthreads())
        assert {facts["host"] for facts in worker_infos(client).values()} == {"127.0.0.1"}
        found = []
        client.subscribe_topic("ours", lambda event: found.append(event[1]))
        until = time.monotonic() + 20
        while not found and time.monotonic() < until:
            client.log_event("ours", 1)
            time.sleep(0.01)
        unsubscribe(client, "ours")
        time.sleep(0.1)  # for the last events
        assert set(found) == {1}
        client.log_event("ours", 2)
        time.sleep(0.2)
        assert set(found) == {1}


@relying_on("distributed", "Scheduler.unrunnable, running, set_restrictions, transitions")
def test_tasks_that_were_stranded_without_a_worker_run_on_one_that_joins():
    options = {"n_workers": 1, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as client:
        (gone,) = client.nthreads()
        cluster.scale(0)
        until = time.monotonic() + 20
        while client.nthreads():
            assert time.monotonic() < until
            time.sleep(0.01)
        task = client.submit(where, 0, pure=False, workers=[gone], allow_other_workers=True)
        cluster.scale(1)
        client.wait_for_workers(1, timeout=300)
        run_stranded_tasks(client)
        assert task.result(timeout=20) == next(iter(client.nthreads())) != gone


@relying_on(
    "distributed", "http_application, http_server and distributed.dashboard.scheduler.connect make the dashboard"
)
def test_the_dashboard_is_made_at_the_first_request():
    assert missing_dashboard_requirements() == ""
    pool = LocalWorkers(Layout(1, 1, 10**9))
    with pool, Client(pool.cluster(), set_as_default=False):
        _, port = add_lazy_dashboard(pool.cluster().scheduler)
        for _ in range(2):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=60) as answer:
                assert b"<title>Dask" in answer.read()
