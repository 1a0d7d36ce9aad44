"""The job monitor: what it makes of the states of jobs. A stand-in for Dask's cluster; tests/scheduler has a real Slurm."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from hpcfwi.batch.base import JobState
from hpcfwi.batch.pbs import PBS
from hpcfwi.batch.slurm import Slurm
from hpcfwi.cluster.job_monitor import JobMonitor
from hpcfwi.cluster.pool import Listener, Workload
from hpcfwi.config.site import load_site

RUNNING, ENDED = JobState("running", "RUNNING", nodes="n1"), JobState("ended", "FAILED", nodes="n1")
STUCK = JobState("pending", "PENDING", "BadConstraints")


class Cluster:
    """Dask's view of the jobs; ``scale()`` submits those that are missing."""

    def __init__(self, batch):
        self.batch, self.submitted = batch, 0
        self.workers, self.worker_spec = {}, {}
        self.scheduler = SimpleNamespace(workers={}, retire_workers=self.retire)

    def scale(self, jobs):
        while len(self.worker_spec) < jobs:
            name, self.submitted = f"hpcfwi-{self.submitted}", self.submitted + 1
            excludes = bool(self.batch.exclude_directives(self.excluded))
            self.workers[name] = Job(name, str(self.submitted), excludes)
            self.worker_spec[name] = {}

    def connect(self, monitor, name, host="n1"):
        address = f"tcp://{host}:{len(self.scheduler.workers)}"
        worker = SimpleNamespace(name=name, host=host, address=address, processing={})
        self.scheduler.workers[address] = worker
        monitor._connections.add_worker(self.scheduler, address)

    async def retire(self, addresses):
        return dict.fromkeys(addresses)


class Job:
    def __init__(self, name, number, excludes_nodes):
        self.name, self.job_id, self.excludes_nodes = name, number, excludes_nodes
        self.rejection, self.closed = None, False

    async def close(self):
        self.closed = True


@pytest.fixture(params=[Slurm])
def work(request, tmp_path):
    """A monitor of jobs, the cluster, and a function that polls with the states of some jobs; the others run."""
    batch = request.param()
    cluster, excluded_hosts = Cluster(batch), set()
    pool = SimpleNamespace(
        batch=batch,
        listener=Listener(),
        excluded_nodes=set(),
        site=load_site("generic-slurm"),
        planned_nodes=4,
        run_dir=tmp_path,
        workload=Workload(excluded_hosts=lambda: excluded_hosts),
    )
    cluster.excluded = pool.excluded_nodes
    monitor = JobMonitor(pool, cluster)
    cluster.scale(4)

    def poll(states=None, others=RUNNING):
        names = {job.job_id: name for name, job in cluster.workers.items()}
        batch.states = lambda numbers: {number: (states or {}).get(names[number], others) for number in numbers}
        asyncio.run(monitor.poll())

    return SimpleNamespace(monitor=monitor, cluster=cluster, poll=poll, pool=pool, excluded_hosts=excluded_hosts)


@pytest.mark.parametrize("healthy", ["hpcfwi-0", "hpcfwi-3"])
def test_failed_starts_do_not_end_a_run_in_which_another_job_has_had_a_worker(work, healthy):
    work.cluster.connect(work.monitor, healthy)
    work.poll()
    work.poll({name: ENDED for name in work.cluster.workers if name != healthy})
    assert work.monitor.failure() is None
    assert len(work.cluster.workers) == 4


def test_no_more_jobs_are_submitted_after_three_failed_starts_until_a_worker_connects(work):
    work.poll()
    work.poll({f"hpcfwi-{i}": ENDED for i in range(3)})
    assert "the last 3 worker jobs have ended without a worker" in work.monitor.failure()
    assert list(work.cluster.workers) == ["hpcfwi-3"]
    work.cluster.connect(work.monitor, "hpcfwi-3")
    work.poll()
    assert work.monitor.failure() is None


def test_two_jobs_that_avoid_nodes_and_will_never_start_are_both_replaced(work):
    work.pool.excluded_nodes.add("n7")
    for name in ("hpcfwi-0", "hpcfwi-1"):
        work.cluster.workers.pop(name), work.cluster.worker_spec.pop(name)
    work.cluster.scale(4)
    stuck = {"hpcfwi-4": STUCK, "hpcfwi-5": STUCK}
    for _ in range(2):
        work.poll(stuck)
    assert work.monitor.stuck is None
    assert list(work.cluster.workers) == ["hpcfwi-2", "hpcfwi-3", "hpcfwi-6", "hpcfwi-7"]
    for _ in range(2):  # the replacements avoid no nodes, so nothing helps
        work.poll({"hpcfwi-6": STUCK}, others=JobState("pending", "PENDING"))
    assert work.monitor.stuck[1] == STUCK


@pytest.mark.parametrize(("work", "held"), [(Slurm, False), (PBS, True)], indirect=["work"])
def test_a_job_on_a_bad_host_holds_its_node_if_jobs_cannot_avoid_it(work, held, monkeypatch):
    work.cluster.connect(work.monitor, "hpcfwi-0", host="bad")
    work.excluded_hosts.add("bad")
    job = work.cluster.workers["hpcfwi-0"]
    monkeypatch.setattr("hpcfwi.cluster.job_monitor.POLL_INTERVAL_S", 0.0)
    for _ in range(2):
        work.poll()
    assert "hpcfwi-0" not in work.cluster.workers
    assert len(work.cluster.workers) == 4
    assert job.closed is not held
    asyncio.run(work.monitor.stop())
    assert job.closed
