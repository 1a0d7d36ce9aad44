"""What hpcfwi needs of dask-jobqueue beyond its documentation: it still is as it was."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import dask
import pytest
from distributed.core import Status
from private_names import relying_on

from hpcfwi.batch.base import CommandResult, JobState, SubmissionError
from hpcfwi.batch.slurm import Slurm
from hpcfwi.cluster import jobs
from hpcfwi.cluster.jobqueue_internals import forget_job, jobqueue_defaults, worker_cluster_class, worker_job_class
from hpcfwi.cluster.jobs import JobContext, job_script
from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.pool import Listener, Workload
from hpcfwi.config.site import load_site


class Recorder(Slurm):
    """A Slurm that writes down what it is asked for, and can reject jobs."""

    def __init__(self, environment=os.environ):
        super().__init__(environment)
        self.submitted: list[Path] = []
        self.cancelled: list[str] = []
        self.rejects = False

    def submit(self, script):
        if self.rejects:
            raise SubmissionError(CommandResult("sbatch", 1, err="no"))
        self.submitted.append(script)
        return str(len(self.submitted))

    def cancel(self, jobs):
        self.cancelled += jobs


def options(batch, folder, **more):
    return {"batch": batch, "scripts": folder, "cores": 1, "processes": 1, "memory": "1 GB", **more}


@relying_on("dask-jobqueue", "its import may replace signal handlers, which can be undone")
def test_importing_dask_jobqueue_leaves_the_signal_handlers_alone():
    program = """
import signal
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
import hpcfwi.cluster.jobs
assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@relying_on("dask-jobqueue", "dask.config.defaults has its defaults")
def test_the_users_own_jobqueue_configuration_is_ignored(tmp_path):
    own = {"jobqueue.slurm.queue": "mine", "jobqueue.slurm.job-extra-directives": ["--mine"]}
    with dask.config.set(own):
        script = job_script(load_site("generic-slurm"), Layout(1, 1, 10**9), JobContext("run", tmp_path))
    assert "mine" not in script.replace(str(tmp_path), "")
    with jobqueue_defaults():
        assert dask.config.get("jobqueue.slurm.cores") is None


def test_the_users_own_jobqueue_configuration_is_ignored_by_submitted_jobs(tmp_path, monkeypatch):
    batch = Recorder()
    monkeypatch.setattr(jobs, "site_batch_system", lambda _: batch)
    monkeypatch.setattr(batch, "missing_commands", list)
    monkeypatch.setattr(batch, "states", lambda numbers: {number: JobState("pending", "PENDING") for number in numbers})
    own = {"jobqueue.slurm.queue": "mine", "jobqueue.slurm.log-directory": str(tmp_path / "mine")}
    pool = jobs.WorkerJobs(load_site("generic-slurm"), Layout(1, 1, 10**9), tmp_path / "run", Listener(), Workload(), 2)
    with dask.config.set(own), pool:
        until = time.monotonic() + 20
        while len(batch.submitted) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        scripts = [path.read_text() for path in batch.submitted]
    assert len(scripts) == 2
    assert not [script for script in scripts if "mine" in script.replace(str(tmp_path), "") or "mine/" in script]


@relying_on("dask-jobqueue", "a Job makes its script in job_script() alone, and start() and close() may be replaced")
def test_a_job_is_submitted_and_cancelled_through_the_batch_system(tmp_path):
    async def check():
        batch, names = Recorder(), []
        with jobqueue_defaults():
            job = worker_job_class(batch)(
                "tcp://driver:1",
                name="hpcfwi-7",
                on_submit=lambda *pair: names.append(pair),
                exclude={"node2"},
                **options(batch, tmp_path, job_extra_directives=["--exclusive"]),
            )
        await job
        assert (job.status, job.job_id, names) == (Status.running, "1", [("hpcfwi-7", "1")])
        assert batch.submitted == [tmp_path / "hpcfwi-7.sh"]
        script = batch.submitted[0].read_text()
        assert "#SBATCH --exclusive\n#SBATCH --exclude=node2\n" in script
        assert "distributed.cli.dask_worker tcp://driver:1 --name hpcfwi-7 --nthreads 1" in script
        for _ in range(2):
            await job.close()
        assert (job.status, batch.cancelled) == (Status.closed, ["1"])

    asyncio.run(check())


@relying_on("dask-jobqueue", "a Job that has started without a job in the queue is no error")
@pytest.mark.parametrize("folder", ["scripts", "missing"])
def test_a_rejected_job_does_not_make_the_cluster_fail(tmp_path, folder):
    async def check():
        batch = Recorder()
        batch.rejects = True
        (tmp_path / "scripts").mkdir()
        with jobqueue_defaults():
            job = worker_job_class(batch)("tcp://driver:1", name="a", **options(batch, tmp_path / folder))
        await job
        assert job.status == Status.running
        assert job.rejection.message == "no" if folder == "scripts" else "No such file" in job.rejection.message
        await job.close()
        assert batch.cancelled == []

    asyncio.run(check())


@relying_on(
    "dask-jobqueue", "_new_worker_name names new jobs, and jobs in worker_spec and workers belong to the cluster"
)
def test_no_job_gets_the_name_of_an_earlier_one(tmp_path):
    batch = Recorder()
    with jobqueue_defaults():
        quiet = {"scheduler_options": {"dashboard_address": ":0", "dashboard": False}, "silence_logs": False}
        cluster = worker_cluster_class(batch)(name="hpcfwi", **quiet, **options(batch, tmp_path))
    try:
        for jobs in (2, 1, 3):
            cluster.scale(jobs=jobs)
            cluster.sync(cluster._correct_state)
        names = [path.stem for path in batch.submitted]
        assert len(names) == len(set(names)) == 4
        assert len(cluster.workers) == 3
        job = forget_job(cluster, names[-1])
        assert job.name == names[-1]
        assert forget_job(cluster, names[-1]) is None
        cluster.scale(jobs=3)
        cluster.sync(cluster._correct_state)
        assert [path.stem for path in batch.submitted] == [*names, "hpcfwi-4"]
        assert job.job_id not in batch.cancelled
        cluster.sync(job.close)
    finally:
        cluster.close()
    assert sorted(batch.cancelled) == ["1", "2", "3", "4", "5"]
