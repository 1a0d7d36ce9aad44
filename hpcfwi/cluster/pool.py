"""The base class of all worker pools (local workers, worker jobs, allocations), and the choice among them."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed.deploy import SpecCluster
from distributed.security import Security

from hpcfwi.batch.registry import current_batch_system, site_batch_system
from hpcfwi.cluster.layout import Layout, ResourceRequest, jobs_layout
from hpcfwi.cluster.network import private_security
from hpcfwi.config.site import LaunchOptions, Site
from hpcfwi.errors import HpcfwiError, InputError, RunError
from hpcfwi.events.types import Event
from hpcfwi.io import make_private

# The driver assigns tasks, so work stealing is off. The nanny restarts a worker without heartbeats for worker-ttl; Dask checks
# at that interval, so a restart may take twice as long. Devito's kernels do not block heartbeats.
SCHEDULER_SETTINGS = {"distributed.scheduler.work-stealing": False, "distributed.scheduler.worker-ttl": "60s"}
# Dask forgets a worker that is lost for this time (15 s by default) and ends its nanny, which may be restarting it.
KEEP_LOST_WORKERS = {"distributed.deploy.lost-worker-timeout": "365 days"}
# For debugging, Dask keeps the last 1,000 messages to each worker, with their tasks: gigabytes for hundreds of workers.
POOL_SETTINGS = {"distributed.admin.low-level-log-length": 10}
NOT_IN_A_JOB = "this process does not run in a job; use sbatch, salloc, qsub or qsub -I, or another --launch"
LOG_TAIL_LINES, LOG_TAIL_BYTES = 8, 20_000
START_AGAIN = "What is finished is kept: start the same command again"


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
    """Receives the reports of a pool."""

    show: Callable[[str], None] = lambda _: None  # shows a line to the user
    log_event: Callable[[Event], None] = lambda _: None


@dataclass(frozen=True)
class Workload:
    """A pool's view of its workers' tasks; the functions are called in the scheduler's event loop."""

    preload: tuple[str, ...] = ()  # modules that each worker process imports when it starts (Dask's --preload)
    longest_task_s: Callable[[], float] = lambda: 0.0  # returns the duration of the longest recent task
    excluded_hosts: Callable[[], Collection[str]] = lambda: ()  # returns hosts, as in Dask's addresses, to avoid
    drain: Callable[[Collection[str]], None] = lambda _: None  # assigns no more tasks to workers at these addresses


class WorkerPool(ABC):
    """A context manager that starts workers in the background, and ends all of them on exit."""

    mode: str  # "local", "jobs" or "allocation"
    no_worker_timeout_s: float | None = 60.0  # check() raises after this time without workers; None: never

    def __init__(
        self, layout: Layout, listener: Listener = Listener(), workload: Workload = Workload(), nodes: int = 1
    ) -> None:
        self.layout, self.listener, self.workload = layout, listener, workload
        self.threads = layout.threads  # the largest number of OpenMP threads of a worker
        # the largest numbers of nodes, or worker jobs, and of worker processes
        self.planned_nodes, self.planned_workers = nodes, nodes * layout.processes
        self._stack = ExitStack()  # what to undo after the workers have ended
        self._starting: Future[SpecCluster] | None = None

    @abstractmethod
    def __str__(self) -> str:
        """Describe the workers: where they run, and how many."""

    @property
    def expected(self) -> tuple[int, int]:
        """How many nodes (or worker jobs) and worker processes should be connected now."""
        return self.planned_nodes, self.planned_workers

    def threads_on(self, host: str) -> int:  # noqa: ARG002 - nodes may differ in an allocation only
        """Return the OpenMP threads of each worker on a host."""
        return self.layout.threads

    def log_tail(self, worker: str) -> str:  # noqa: ARG002 - local workers have no log
        """Return the last lines of the log of a worker, each after a line feed; empty without a log."""
        return ""

    def _prepare(self, stack: ExitStack) -> None:  # noqa: B027 - optional
        """Create what the workers need, and register its removal after their end with ``stack``."""

    @abstractmethod
    def _start(self) -> SpecCluster:
        """Start scheduler and workers, without waiting for the workers; called in a separate thread."""

    def _close(self, cluster: Any) -> None:
        cluster.close()

    def __enter__(self) -> WorkerPool:
        # Dask's client has a separate log level, at which it repeats what hpcfwi reports
        logging.getLogger("distributed.client").setLevel(logging.getLogger("distributed").level)
        with ExitStack() as stack:
            stack.enter_context(dask.config.set(POOL_SETTINGS))
            self._prepare(stack)
            self._starting = stack.enter_context(ThreadPoolExecutor(1)).submit(self._start)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._starting is not None and self._starting.exception() is None:  # cluster() reports one
                self._close(self._starting.result())
        except Exception as error:
            self.listener.show(f"the workers could not be ended ({type(error).__name__}: {error})")
        finally:
            self._stack.close()

    def cluster(self) -> SpecCluster:
        """Return the Dask cluster once its scheduler runs; raise RunError if it cannot be started."""
        assert self._starting is not None
        try:
            return self._starting.result()
        except HpcfwiError:
            raise
        except Exception as error:
            failure = f"the workers cannot be started ({type(error).__name__}: {error})"
            raise RunError(f"{failure}; hpcfwi --verbose run shows Dask's messages") from error

    def check(self, idle_s: float) -> None:
        """Raise RunError if there has been no worker for ``idle_s`` seconds and no more can be expected."""
        if self.no_worker_timeout_s is not None and idle_s > self.no_worker_timeout_s:
            raise RunError(f"no worker has been connected for {self.no_worker_timeout_s:g} s\n  {START_AGAIN}.")


def prepare_run_dir(site: Site, run_dir: Path, stack: ExitStack) -> Security | None:
    """Create the folder of the workers' logs and, unless the site turns off encryption, the keys of a run."""
    make_private(run_dir / "logs")
    return stack.enter_context(private_security(run_dir / "tls")) if site.config.network.tls else None


def choose_launch_mode(
    site: Site, requested: str | None = None, environment: Mapping[str, str] = os.environ
) -> tuple[str, str]:
    """Choose how workers are started, unless the user requests a mode (``--launch``).

    Returns ``"local"``, ``"jobs"`` or ``"allocation"``, and the reason. Raises InputError if the requested mode is impossible.
    """
    batch, current = site_batch_system(site), current_batch_system(environment)
    if requested == "jobs" and batch is None:
        problem = f"the site {site.name} has no batch system (scheduler.kind)"
        raise InputError(f"--launch jobs: {problem}; choose one with --site, for instance generic-slurm")
    if requested == "allocation" and current is None:
        raise InputError(f"--launch allocation: {NOT_IN_A_JOB}")
    if requested == "jobs" and current is not None and not site.config.scheduler.submit_from_compute:
        refusal = f"{site.name} does not allow jobs to be submitted from within a job (scheduler.submit_from_compute)"
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
    """Return the worker pool for a site, options and environment; raise InputError if they do not fit together."""
    mode, reason = choose_launch_mode(site, options.mode)
    nodes = options.nodes
    pool: WorkerPool
    if mode == "local":
        from hpcfwi.cluster.local import LocalWorkers, local_layout

        layout = local_layout(site.config.worker, request, nodes, reason)
        pool = LocalWorkers(layout, listener, workload, site.config)
    elif mode == "jobs":
        from hpcfwi.cluster.jobs import WorkerJobs

        layout, count = jobs_layout(site, request, nodes)
        pool = WorkerJobs(site, layout, run_dir, listener, workload, count)
    else:
        from hpcfwi.cluster.allocation import AllocatedWorkers

        pool = AllocatedWorkers(site, request, run_dir, listener, workload, nodes)
    if options.wait_minutes is not None:
        pool.no_worker_timeout_s = 60 * options.wait_minutes
    listener.show(f"{pool} ({reason})")
    current = current_batch_system()
    node_count = current.variable("node_count") if current is not None else ""
    if mode == "local" and node_count not in ("", "1"):
        listener.show(f"this job has {node_count} nodes, but only one is used; use --site NAME to use all of them")
    return pool
