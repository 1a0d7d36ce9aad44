"""Workers as jobs of a batch system, submitted through dask-jobqueue."""

import math
import re
import shlex
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed.security import Security

from hpcfwi.batch.base import BatchSystem
from hpcfwi.batch.registry import site_batch_system
from hpcfwi.cluster.environment import DEATH_TIMEOUT_S, script_lines, worker_arguments
from hpcfwi.cluster.job_monitor import JobMonitor
from hpcfwi.cluster.jobqueue_internals import jobqueue_defaults, worker_cluster_class, worker_job_class
from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.network import network_options
from hpcfwi.cluster.pool import SCHEDULER_SETTINGS, START_AGAIN, Listener, WorkerPool, Workload, prepare_run_dir
from hpcfwi.config.site import Site
from hpcfwi.errors import InputError, RunError
from hpcfwi.events.log import read_state
from hpcfwi.events.types import JobsLeftOver, JobStateChanged

# dask-jobqueue rounds the memory of a worker to the nearest hundredth of 2^30 bytes; we round it down first.
MEMORY_GRAIN_BYTES = -(-(2**30) // 100)
MAX_JOB_NAME = 15  # characters; some versions of PBS allow no more
JOB_NUMBER = re.compile(r"[0-9][\w.\[\]]*")
QUEUE_LINE_INTERVAL_S = 300.0  # after which an unchanged state of the queue is shown again
QUEUE_LINE_DELAY_S = 3.0  # without a worker, after which the state of the queue is shown


@dataclass(frozen=True)
class JobContext:
    """The settings that the worker jobs of a run share, besides the site and the layout."""

    run_name: str  # part of the jobs' name
    logs: Path  # folder for their scripts and output, visible to all nodes
    security: Security | None = None  # key files, visible to all nodes; None without encryption
    preload: tuple[str, ...] = ()  # modules that each worker process imports when it starts


def job_script(site: Site, layout: Layout, context: JobContext, scheduler: str = "") -> str:
    """Return the script of a worker job as it is submitted, except for the scheduler's address and the job's name."""
    batch = required_batch_system(site)
    options = job_options(site, batch, layout, context)
    with jobqueue_defaults():
        address = scheduler or f"{options['protocol']}DRIVER:PORT"
        return str(worker_job_class(batch)(address, name="hpcfwi-0", **options).job_script())


def required_batch_system(site: Site) -> BatchSystem:
    """Return the batch system of a site; raise InputError if it has none."""
    batch = site_batch_system(site)
    if batch is None:
        problem = f"the site {site.name} has no batch system (scheduler.kind), so there is no job script"
        raise InputError(f"{problem}; choose another site, for example generic-slurm (hpcfwi site list)")
    return batch


def job_options(site: Site, batch: BatchSystem, layout: Layout, context: JobContext) -> dict[str, Any]:
    """Return the keyword arguments of a cluster of worker jobs."""
    config = site.config
    cpus = layout.cores * config.node.hardware_threads
    megabytes = math.floor(layout.processes * layout.memory / 2**20)  # as all batch systems count them
    options = {
        "batch": batch,
        "scripts": context.logs,
        "queue": config.scheduler.queue,
        "walltime": config.scheduler.walltime,
        "job_name": re.sub(r"[^A-Za-z0-9_.-]", "_", f"hpcfwi-{context.run_name}")[:MAX_JOB_NAME],
        # a worker gets cores / processes Dask threads, and needs one: the others are OpenMP's
        "cores": layout.processes,
        "processes": layout.processes,
        "memory": f"{layout.processes * (layout.memory // MEMORY_GRAIN_BYTES) * MEMORY_GRAIN_BYTES} B",
        # `module` is a function of login shells
        "shebang": "#!/bin/bash -l" if config.environment.modules else "#!/bin/bash",
        "job_script_prologue": batch.script_prologue(context.logs) + script_lines(config, layout, context.security),
        "python": config.environment.python or shlex.quote(sys.executable),
        "death_timeout": DEATH_TIMEOUT_S,
        "local_directory": '"$TMPDIR"',
        "log_directory": None,
        "worker_extra_args": worker_arguments(config, context.preload),
        "interface": config.network.worker_interface or config.network.interface,
        "protocol": "tls://" if context.security else "tcp://",
    }
    return options | batch.job_options(config, cpus, megabytes, context.logs)


class WorkerJobs(WorkerPool):
    """Worker jobs, one node each."""

    mode = "jobs"
    no_worker_timeout_s: float | None = None

    def __init__(
        self, site: Site, layout: Layout, run_dir: Path, listener: Listener, workload: Workload, count: int
    ) -> None:
        super().__init__(layout, listener, workload, count)
        self.site, self.run_dir, self.batch = site, run_dir, required_batch_system(site)
        if missing := self.batch.missing_commands():
            problem = f"{missing[0]}: no such command here, so no {self.batch.name} job can be submitted"
            raise InputError(f"{problem}; log in to a host that has it, or choose another --site (hpcfwi site list)")
        self.excluded_nodes: set[str] = set()  # new jobs avoid them
        self._monitor: JobMonitor | None = None
        self._queue_line, self._queue_line_at = "", 0.0

    def __str__(self) -> str:
        jobs = f"{self.planned_nodes} job{'s' if self.planned_nodes != 1 else ''}"
        return f"workers in {jobs} of {self.batch.name} ({self.site.name}), each {self.layout}"

    @property
    def expected(self) -> tuple[int, int]:
        count = self.planned_nodes if self._monitor is None else self._monitor.target
        return count, count * self.layout.processes

    def _prepare(self, stack: ExitStack) -> None:
        stack.enter_context(jobqueue_defaults())  # jobs are made when they are submitted, also as replacements
        self._security = prepare_run_dir(self.site, self.run_dir, stack)

    def _start(self) -> Any:
        context = JobContext(self.run_dir.name, self.run_dir / "logs", self._security, self.workload.preload)
        self._report_leftover_jobs()
        with dask.config.set(SCHEDULER_SETTINGS):
            cluster = worker_cluster_class(self.batch)(
                name="hpcfwi",
                security=self._security,
                scheduler_options=network_options(self.site.config.network, self._security),
                silence_logs=False,
                on_submit=self._on_submit,
                exclude=self.excluded_nodes,
                **job_options(self.site, self.batch, self.layout, context),
            )
        self._monitor = JobMonitor(self, cluster)
        cluster.scale(jobs=self.planned_nodes)
        cluster.loop.add_callback(self._monitor.start)
        return cluster

    def _on_submit(self, worker: str, job: str) -> None:
        self.listener.log_event(JobStateChanged(job=job, worker=worker, state="submitted"))

    def _report_leftover_jobs(self) -> None:
        """List the jobs of an earlier driver that was killed; they end by themselves, but only after they start."""
        try:
            # a job number from the file must not become a command-line option
            known = read_state(self.run_dir / "events.jsonl").left_over_jobs
            states = self.batch.states([job for job in known if JOB_NUMBER.fullmatch(job)])
        except (OSError, RunError):
            return
        left = sorted(job for job, state in states.items() if state.state != "ended")
        if left:
            self.listener.log_event(JobsLeftOver(jobs=left))
            listed = ", ".join(f"{job}: {states[job]}" for job in left)
            self.listener.show(
                f"jobs of an earlier driver of this run are still there ({listed}); they end by themselves within a minute of "
                f"their start; to cancel them now: {shlex.join([self.batch.commands[-1], *left])}"
            )

    def _close(self, cluster: Any) -> None:
        if self._monitor is not None:
            cluster.sync(self._monitor.stop)
        cluster.close()

    def log_tail(self, worker: str) -> str:
        return self._monitor.log_tail(worker) if self._monitor is not None else ""

    def check(self, idle_s: float) -> None:
        monitor = self._monitor
        if monitor is None:
            return
        if monitor.rejection is not None and not monitor.alive:
            answer = monitor.rejection
            raise InputError(
                f"{self.batch.name} rejected a worker job:\n  {answer.command}\n  exit code {answer.code}: {answer.message}"
                f"{self._where_to_look(answer.message)}"
            )
        if monitor.stuck is not None:
            job, state = monitor.stuck
            never = f"{self.batch.name} will never start worker job {job} as it is"
            raise InputError(f"{never}: {state.reason}{self._where_to_look(state.reason)}")
        if (failure := monitor.failure()) is not None:
            check = shlex.join(["hpcfwi", "site", "check", self.site.name, "--job"])
            raise RunError(f"{failure}\n  To see why: {check}\n  {START_AGAIN}.")
        queue, now = monitor.queue_summary(), time.monotonic()
        overdue = now - self._queue_line_at > QUEUE_LINE_INTERVAL_S
        if idle_s > QUEUE_LINE_DELAY_S and (queue != self._queue_line or overdue):
            self._queue_line, self._queue_line_at = queue, now
            self.listener.show(f"no worker yet; jobs: {queue}")
        if self.no_worker_timeout_s is not None and idle_s > self.no_worker_timeout_s:
            problem = f"no worker has connected for {self.no_worker_timeout_s / 60:g} minutes (--wait); jobs: {queue}"
            raise RunError(f"{problem}\n  {START_AGAIN}, with a longer --wait.")

    def _where_to_look(self, message: str) -> str:
        """Return the line of the site file that a message is about, and where the job scripts are."""
        key = self.batch.site_key(message)
        line = f"\n  {self.site.where(key)}" if key else ""
        return f"{line}\n  The scripts of the jobs are in {self.run_dir / 'logs'}"
