"""Worker pools: what local workers, worker jobs and allocations have in common, and the choice among them."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed.deploy import SpecCluster
from distributed.security import Security

from hpcfwi.batch.registry import current_batch_system, site_batch_system
from hpcfwi.cluster.layout import Layout, ResourceRequest, node_layout
from hpcfwi.cluster.network import private_security
from hpcfwi.config.site import LaunchOptions, Site
from hpcfwi.errors import HpcfwiError, InputError, RunError
from hpcfwi.events.types import Event
from hpcfwi.io import make_private

# The driver decides which worker computes what. The nanny of a worker that sends no heartbeats for worker-ttl restarts it; Dask
# looks that often, so it takes up to twice as long. Devito's kernels do not hold heartbeats up.
SCHEDULER_SETTINGS = {"distributed.scheduler.work-stealing": False, "distributed.scheduler.worker-ttl": "60s"}
# Dask drops a worker on another host after this time without an answer; it refuses less than 11 s.
REMOTE_SETTINGS = {**SCHEDULER_SETTINGS, "distributed.comm.timeouts.tcp": "30s"}
# Dask forgets a worker that is away for this time (its default is 15 s) and ends its nanny, which may be starting it again.
KEEP_LOST_WORKERS = {"distributed.deploy.lost-worker-timeout": "365 days"}
# For its developers Dask keeps the last 1,000 messages to each worker, tasks included: gigabytes with hundreds of workers.
POOL_SETTINGS = {"distributed.admin.low-level-log-length": 10}
NOT_IN_A_JOB = "this is not inside a job; run it under sbatch, salloc, qsub or qsub -I, or take another --launch"
LOG_TAIL_LINES, LOG_TAIL_BYTES = 8, 20_000


def log_tail(path: Path) -> str:
    """Return the name and the last lines of a log, each after a line feed; empty if the log cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    except OSError:
        return ""
    return "".join(f"\n    {line}" for line in [f"{path}:", *lines]) if lines else ""


@dataclass(frozen=True)
class Listener:
    """Takes what a pool reports."""

    show: Callable[[str], None] = lambda _: None  # takes a line for the user
    log_event: Callable[[Event], None] = lambda _: None


@dataclass(frozen=True)
class Workload:
    """What a pool needs to know about the tasks of its workers; its functions are called in the scheduler's event loop."""

    preload: tuple[str, ...] = ()  # modules that each worker process imports when it starts (Dask's --preload)
    longest_task_s: Callable[[], float] = lambda: 0.0  # returns the duration of the longest recent task
    excluded_hosts: Callable[[], Collection[str]] = lambda: ()  # returns hosts, as in Dask's addresses, to avoid
    drain: Callable[[Collection[str]], None] = lambda _: None  # takes addresses of workers, which get no more tasks


class WorkerPool(ABC):
    """A context manager that starts workers in the background, and ends all of them when it is left."""

    mode: str  # "local", "jobs" or "allocation"
    no_worker_timeout_s: float | None = 60.0  # without any worker, after which check() raises; None: never

    def __init__(self, layout: Layout, listener: Listener = Listener(), workload: Workload = Workload()) -> None:
        self.layout, self.listener, self.workload = layout, listener, workload
        self._stack = ExitStack()  # what is undone after the end of the workers
        self._starting: Future[SpecCluster] | None = None

    @abstractmethod
    def __str__(self) -> str:
        """Describe where the workers are, and how many."""

    @property
    def threads(self) -> int:
        """The most OpenMP threads that a worker has."""
        return self.layout.threads

    @property
    def planned_nodes(self) -> int:
        """The most nodes, or worker jobs, that the pool will have."""
        return 1

    @property
    def planned_workers(self) -> int:
        """The most worker processes that the pool will have."""
        return self.planned_nodes * self.layout.processes

    def threads_on(self, host: str) -> int:  # noqa: ARG002 - nodes may differ in an allocation only
        """Return the OpenMP threads of each worker on a host."""
        return self.layout.threads

    def log_tail(self, worker: str) -> str:  # noqa: ARG002 - local workers have no log
        """Return the last lines of the log of a worker, each after a line feed; empty if there is none."""
        return ""

    def _prepare(self, stack: ExitStack) -> None:  # noqa: B027 - optional
        """Make what the workers need, and register with ``stack`` what to undo after their end."""

    @abstractmethod
    def _start(self) -> SpecCluster:
        """Start scheduler and workers, in a thread of its own, without waiting for the workers."""

    def _close(self, cluster: Any) -> None:
        cluster.close()

    def __enter__(self) -> WorkerPool:
        # Dask's client has a log level of its own, at which it warns of what hpcfwi reports itself
        logging.getLogger("distributed.client").setLevel(logging.getLogger("distributed").level)
        with ExitStack() as stack:
            stack.enter_context(dask.config.set(POOL_SETTINGS))
            self._prepare(stack)
            self._starting = stack.enter_context(ThreadPoolExecutor(1)).submit(self._start)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._starting is not None:
                with suppress(Exception):  # cluster() reports why the workers could not be started
                    self._close(self._starting.result())
        finally:
            self._stack.close()

    def cluster(self) -> SpecCluster:
        """Return the Dask cluster, as soon as its scheduler runs; raise RunError if it cannot be started."""
        assert self._starting is not None
        try:
            return self._starting.result()
        except HpcfwiError:
            raise
        except Exception as error:
            failure = f"the workers cannot be started ({type(error).__name__}: {error})"
            raise RunError(f"{failure}; hpcfwi --verbose run shows Dask's messages") from error

    def check(self, idle_s: float) -> None:
        """Raise RunError if there has been no worker for ``idle_s`` seconds, and none can be expected."""
        if self.no_worker_timeout_s is not None and idle_s > self.no_worker_timeout_s:
            none = f"no worker is left, and none has come for {self.no_worker_timeout_s:g} s"
            raise RunError(f"{none}; finished shots are kept: start the same command again")


def prepare_run_dir(site: Site, run_dir: Path, stack: ExitStack) -> Security | None:
    """Make the folder of the workers' logs and, unless the site goes without, the keys of a run."""
    make_private(run_dir / "logs")
    return stack.enter_context(private_security(run_dir / "tls")) if site.config.network.tls else None


def choose_launch_mode(
    site: Site, requested: str | None = None, environment: Mapping[str, str] = os.environ
) -> tuple[str, str]:
    """Choose how workers are started, unless the user requests a mode (``--launch``).

    Returns ``"local"``, ``"jobs"`` or ``"allocation"``, and why. Raises InputError if the requested mode is impossible.
    """
    batch, current = site_batch_system(site), current_batch_system(environment)
    if requested == "jobs" and batch is None:
        none = f"the site {site.name} has no batch system (scheduler.kind)"
        raise InputError(f"--launch jobs: {none}; choose one with --site, for instance generic-slurm")
    if requested == "allocation" and current is None:
        raise InputError(f"--launch allocation: {NOT_IN_A_JOB}")
    if requested == "jobs" and current is not None and not site.config.scheduler.submit_from_compute:
        refusal = f"{site.name} lets no jobs be submitted from within a job (scheduler.submit_from_compute)"
        advice = "start the driver on a login node, or use --launch allocation"
        raise InputError(f"--launch jobs: {refusal}: {advice}")
    if requested is not None:
        return requested, "--launch"
    if batch is None:
        return "local", f"the site {site.name} has no batch system"
    if current is not None:
        return "allocation", f"this is job {current.job_id}"
    return "jobs", f"the site {site.name} has {batch.name}"


def launch(
    site: Site,
    request: ResourceRequest,
    run_dir: Path,
    options: LaunchOptions = LaunchOptions(),
    listener: Listener = Listener(),
    workload: Workload = Workload(),
) -> WorkerPool:
    """Return the pool that site, options and environment ask for; an InputError says what does not fit together."""
    mode, reason = choose_launch_mode(site, options.mode)
    section, nodes = site.config.scheduler, options.nodes
    timeout_s = None if options.wait_minutes is None else 60 * options.wait_minutes
    pool: WorkerPool
    if mode == "local":
        from hpcfwi.cluster.local import LocalWorkers, local_layout

        if nodes not in (None, 1):
            where = f"the workers are processes of this machine ({reason}), which is one node"
            raise InputError(f"--nodes {nodes}: {where}")
        pool = LocalWorkers(local_layout(site.config.worker, request), listener, workload, site.config)
    elif mode == "jobs":
        from hpcfwi.cluster.jobs import WorkerJobs

        if nodes is not None and section.max_jobs is not None and nodes > section.max_jobs:
            limit = f"{section.max_jobs} jobs at a time (scheduler.max_jobs)"
            raise InputError(f"--nodes {nodes}: {site.name} allows {limit}")
        layout = node_layout(site, request, nodes or section.job_limit)
        pool = WorkerJobs(site, layout, run_dir, listener, workload, nodes)
        pool.no_worker_timeout_s = timeout_s
    else:
        from hpcfwi.cluster.allocation import AllocatedWorkers

        pool = AllocatedWorkers(site, request, run_dir, listener, workload, nodes)
        if timeout_s is not None:
            pool.no_worker_timeout_s = timeout_s
    listener.show(f"{pool} ({reason})")
    current = current_batch_system()
    node_count = current.variable("node_count") if current is not None else ""
    if mode == "local" and node_count not in ("", "1"):
        listener.show(f"this job has {node_count} nodes, of which one is used: --site NAME uses all of them")
    return pool
