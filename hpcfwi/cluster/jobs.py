"""Workers as jobs of a batch system, by dask-jobqueue: SLURMCluster and PBSCluster."""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask
from distributed.security import Security

from hpcfwi.batch.base import JobState, SubmissionError, batch_system
from hpcfwi.cluster.job_monitor import JobMonitor
from hpcfwi.cluster.job_script import JOB_CLASSES, JobPlace, job_options
from hpcfwi.cluster.jobqueue_internals import JobQueueCluster, PBSCluster, SLURMCluster, own_settings
from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.network import driver_address, private_security, scheduler_options
from hpcfwi.cluster.pool import REMOTE, Listener, WorkerPool, Workload
from hpcfwi.config.site import Site
from hpcfwi.errors import InputError, RunError
from hpcfwi.events.log import read_state
from hpcfwi.events.types import JobsLeftOver, JobStateChanged
from hpcfwi.io import make_private

__all__ = ["WorkerJobs"]

CLUSTERS: dict[str, type[JobQueueCluster]] = {"slurm": SLURMCluster, "pbs": PBSCluster}
JOB = re.compile(r"[0-9][\w.\[\]]*")
# Seconds of idleness after which an adaptive cluster lets a job go, and between two looks at how much work there is.
IDLE, ADAPT = 60, 2
# Seconds between two lines about a queue in which nothing changes.
SILENCE = 300.0


class WorkerJobs(WorkerPool):
    """Worker jobs, one node each.

    Parameters
    ----------
    site
        The machine.
    layout
        How a node is divided.
    run_dir
        The run folder, which all nodes see.
    listener
        Who hears about the workers.
    workload
        What they compute.
    jobs
        How many; by default what the site says.
    wait
        Seconds that may pass without any worker; None: any number.
    """

    mode = "jobs"
    no_worker_timeout_s = None

    def __init__(
        self,
        site: Site,
        layout: Layout,
        run_dir: Path,
        listener: Listener = Listener(),  # noqa: B008 - immutable
        workload: Workload = Workload(),  # noqa: B008 - immutable
        jobs: int | None = None,
        wait: float | None = None,
    ) -> None:
        super().__init__(layout, listener, workload)
        self.site, self.run_dir, self.wait = site, run_dir, wait
        self.batch = batch_system(site.config.scheduler.kind)
        self.jobs = jobs if jobs is not None else site.config.scheduler.jobs
        self.batch.require()
        self._keeper: JobMonitor | None = None
        self._told = ""
        self._told_at = 0.0

    def __str__(self) -> str:
        count = f"{self.jobs[0]} to {self.jobs[1]}" if isinstance(self.jobs, tuple) else str(self.jobs)
        plural = "s" if self.jobs != 1 else ""
        return f"workers in {count} job{plural} of {self.batch.name} ({self.site.name}), each {self.layout}"

    @property
    def planned_nodes(self) -> int:
        return self.jobs if isinstance(self.jobs, int) else self.jobs[1]

    @property
    def place(self) -> JobPlace:
        return JobPlace(self.run_dir.name, self.run_dir / "logs", self._security, self.workload.preload)

    def _prepare(self, stack: ExitStack) -> None:
        make_private(self.run_dir / "logs")
        self._security: Security | None = None
        if self.site.config.network.tls:
            self._security = stack.enter_context(private_security(self.run_dir / "tls"))

    def _start(self) -> JobQueueCluster:
        network = self.site.config.network
        options = job_options(self.site, self.layout, self.place)
        avoid: set[str] = set()
        options |= {"on_submission": self._on_submission, "avoid": avoid}
        self._tell_leftovers()
        scheduler = scheduler_options(network, driver_address(network.interface))
        with own_settings(), dask.config.set(REMOTE):
            cluster = CLUSTERS[self.site.config.scheduler.kind](
                name="hpcfwi",
                job_cls=JOB_CLASSES[self.site.config.scheduler.kind],
                security=self._security,
                scheduler_options=scheduler,
                silence_logs=False,
                **options,
            )
        fixed = self.jobs if isinstance(self.jobs, int) else None
        self._keeper = JobMonitor(
            cluster,
            self.batch,
            fixed,
            self.site.config.scheduler.replacements,
            self.run_dir / "logs",
            self.listener,
            self.workload,
            avoid,
        )
        if isinstance(self.jobs, tuple):
            low, high = self.jobs
            cluster.adapt(minimum_jobs=low, maximum_jobs=high, interval=f"{ADAPT}s", wait_count=IDLE // ADAPT)
        else:
            cluster.scale(jobs=self.jobs)
        cluster.loop.add_callback(self._keeper.start)
        return cluster

    def _on_submission(self, worker: str, job: str) -> None:
        self.listener.log_event(JobStateChanged(job=job, worker=worker, state="submitted"))

    def _tell_leftovers(self) -> None:
        """A driver that was killed could not cancel its jobs; those that wait end by themselves, but only once they start."""
        try:
            # what stands in a file is no option of a scheduler's command
            asked = [job for job in read_state(self.run_dir / "events.jsonl").left_over_jobs if JOB.fullmatch(job)]
            states = asyncio.run(self.batch.states(asked))
        except (OSError, RunError):
            return
        left = [job for job, state in states.items() if state.state != "ended"]
        if left:
            self.listener.log_event(JobsLeftOver(jobs=left))
            told = ", ".join(f"{job}: {states[job]}" for job in left)
            self.listener.show(
                f"jobs of an earlier driver of this run are still there ({told}); they end by themselves within a minute of "
                f"their start, or now: {shlex.join([self.batch.commands[-1], *left])}"
            )

    def _close(self, cluster: Any) -> None:
        if self._keeper is not None:
            cluster.sync(self._keeper.stop)
        cluster.close()

    def log_tail(self, worker: str) -> str:
        return self._keeper.tail_of(worker) if self._keeper is not None else ""

    def check(self, idle: float) -> None:
        keeper = self._keeper
        if keeper is None:
            return
        if keeper.refusal is not None and not keeper.alive:
            raise self._refused(keeper.refusal)
        if keeper.never is not None:
            raise self._never(*keeper.never)
        hopeless = keeper.hopeless()
        if hopeless is not None:
            doctor = shlex.join(["hpcfwi", "site", "check", self.site.name, "--job"])
            raise RunError(
                f"{hopeless}\n  To see why: {doctor}\n  What was finished is kept: start the same command again."
            )
        waiting = keeper.waiting()
        if idle > 3 and (waiting != self._told or time.monotonic() - self._told_at > SILENCE):
            self._told, self._told_at = waiting, time.monotonic()
            self.listener.show(f"no worker yet; jobs: {waiting}")
        if self.wait is not None and idle > self.wait:
            raise RunError(
                f"no worker has come for {self.wait / 60:g} minutes (--wait); jobs: {waiting}\n  What was finished is kept: "
                "start the same command again, with a longer --wait."
            )

    def _refused(self, refusal: SubmissionError) -> InputError:
        return InputError(
            f"{self.batch.name} has refused a worker job:\n  {refusal.command}\n  exit code {refusal.code}: "
            f"{refusal.message.strip()}{self._about(refusal.message)}"
        )

    def _never(self, job: str, state: JobState) -> InputError:
        return InputError(
            f"{self.batch.name} will never start worker job {job} as it is: {state.reason}{self._about(state.reason)}"
        )

    def _about(self, message: str) -> str:
        """The line of the site file that it is about, and how to see the job script."""
        key = self.batch.key_of(message)
        about = f"\n  {self.site.where(key)}" if key else ""
        return f"{about}\n  The job script: {shlex.join(['hpcfwi', 'site', 'script', self.site.name])}"
