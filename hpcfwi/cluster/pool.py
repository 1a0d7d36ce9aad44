"""Workers, however they are started: what local processes, worker jobs and allocations have in common."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import dask
from distributed.deploy import SpecCluster

from hpcfwi.cluster.dask_internals import use_monotonic_clock
from hpcfwi.cluster.layout import Layout, ResourceRequest, node_layout
from hpcfwi.config.site import LaunchOptions, Site
from hpcfwi.errors import HpcfwiError, InputError, RunError
from hpcfwi.events.types import Event

__all__ = [
    "REMOTE",
    "SCHEDULING",
    "SHORT_TASK_LOG",
    "Listener",
    "WorkerPool",
    "Workload",
    "choose_launch_mode",
    "launch",
    "tail_of",
]

# Dask's scheduler keeps shots until workers are free (see dealing.py), so there is nothing to steal but a shot that was just
# started elsewhere, for a worker that is idle since all fail there.
SCHEDULING = {"distributed.scheduler.work-stealing": False}
# After this long without an answer a worker on another host counts as lost; Dask starts with no less than 11 s.
REMOTE = {**SCHEDULING, "distributed.comm.timeouts.tcp": "30s"}
# Dask keeps the last messages to each worker, tasks with all their arguments among them, for its developers. By default it is
# 1,000, some kB each: with hundreds of workers gigabytes, in a run that is long enough.
SHORT_TASK_LOG = {"distributed.admin.low-level-log-length": 10}
# Lines of a worker's output that are shown, and bytes in which they are looked for.
TAIL, LAST = 8, 20_000


def tail_of(path: Path) -> str:
    """The end of a log below its name, each line after a line feed; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LAST))
            lines = file.read().decode(errors="replace").splitlines()[-TAIL:]
    except OSError:
        lines = []
    return "".join(f"\n    {line}" for line in [f"{path}:", *lines]) if lines else ""


def _ignore(*_: object, **__: object) -> None:
    pass


@dataclass(frozen=True)
class Listener:
    """Who hears about the workers.

    Parameters
    ----------
    show
        Takes a line for the user.
    log_event
        Takes an event.
    """

    show: Callable[[str], None] = _ignore
    log_event: Callable[[Event], None] = _ignore


@dataclass(frozen=True)
class Workload:
    """What the workers compute, as far as their pool needs to know it.

    Parameters
    ----------
    preload
        Modules that each worker process imports when it starts (Dask's ``--preload``).
    longest_task
        Takes Dask's scheduler and returns the seconds of the longest recent task; called in the scheduler's event loop.
    excluded_hosts
        Takes Dask's scheduler and returns the hosts, as in Dask's addresses, that get no more tasks; called likewise.
    """

    preload: tuple[str, ...] = ()
    longest_task: Callable[[Any], float] = lambda _: 0.0
    excluded_hosts: Callable[[Any], Collection[str]] = lambda _: ()


class WorkerPool(ABC):
    """Starts workers in the background when it is entered, and ends all of them when it is left, whatever happened.

    Parameters
    ----------
    layout
        How a node is divided.
    listener
        Who hears about the workers.
    workload
        What they compute.

    Attributes
    ----------
    mode
        ``"local"``, ``"jobs"`` or ``"allocation"``.
    no_worker_timeout_s
        Seconds without any worker after which there is no hope for one; None: the workforce knows better.
    """

    mode: str
    no_worker_timeout_s: float | None = 60.0

    def __init__(self, layout: Layout, listener: Listener = Listener(), workload: Workload = Workload()) -> None:
        self.layout, self.listener, self.workload = layout, listener, workload
        self._stack = ExitStack()
        self._coming: Future[SpecCluster] | None = None

    @property
    def threads(self) -> int:
        """The most OpenMP threads that a worker has."""
        return self.layout.threads

    @property
    def planned_workers(self) -> int:
        """Worker processes that are wanted, at most."""
        return self.planned_nodes * self.layout.processes

    @property
    def planned_nodes(self) -> int:
        """Nodes, or worker jobs, that are wanted, at most."""
        return 1

    def threads_on(self, host: str) -> int:  # noqa: ARG002 - where nodes are equal
        """OpenMP threads of each worker on a host."""
        return self.layout.threads

    @abstractmethod
    def __str__(self) -> str:
        """What it is, for the user: where the workers are, and how many."""

    @abstractmethod
    def _start(self) -> SpecCluster:
        """Start scheduler and workers (in a thread of its own); workers need not have arrived."""

    def _prepare(self, stack: ExitStack) -> None:  # noqa: B027 - not every workforce needs something
        """Make what the start needs, and leave with ``stack`` what has to be undone when all workers are gone."""

    def __enter__(self) -> WorkerPool:
        use_monotonic_clock()
        # Dask's client has a level of its own, and warns of what we tell of ourselves
        logging.getLogger("distributed.client").setLevel(logging.getLogger("distributed").level)
        try:
            # not only while they are started: it is read when a worker comes
            self._stack.enter_context(dask.config.set(SHORT_TASK_LOG))
            self._prepare(self._stack)
            pool = self._stack.enter_context(ThreadPoolExecutor(1))
            self._coming = pool.submit(self._start)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._coming is not None:
                with suppress(Exception):  # why they could not be started is told by whoever asked for them
                    self._close(self._coming.result())
        finally:
            self._stack.close()

    def _close(self, cluster: Any) -> None:
        cluster.close()

    def cluster(self) -> SpecCluster:
        """The Dask cluster, once its scheduler is there.

        Raises
        ------
        RunError
            If it cannot be started.
        """
        assert self._coming is not None
        try:
            return self._coming.result()
        except HpcfwiError:
            raise
        except Exception as error:
            raise RunError(
                f"the workers cannot be started ({type(error).__name__}: {error}); hpcfwi --verbose run lets Dask say why"
            ) from error

    def log_tail(self, worker: str) -> str:  # noqa: ARG002 - where they have no log of their own
        """The end of the log of the worker of this name, in lines that begin with a line feed; empty where there is none."""
        return ""

    def check(self, idle: float) -> None:
        """Raise if no worker is there and none can be hoped for.

        Parameters
        ----------
        idle
            Seconds since there was a worker, or since the start.

        Raises
        ------
        RunError
            With what to do.
        """
        if self.no_worker_timeout_s is not None and idle > self.no_worker_timeout_s:
            raise RunError(
                f"no worker is left, and none has come for {self.no_worker_timeout_s:g} s; what was finished is kept: start "
                "the same command again"
            )


# What tells that we are in a job, and of which batch system.
IN_A_JOB = {"slurm": "SLURM_JOB_ID", "pbs": "PBS_JOBID"}


def choose_launch_mode(
    site: Site, asked: str | None = None, environment: Mapping[str, str] = os.environ
) -> tuple[str, str]:
    """How workers are started, and why so.

    Raises
    ------
    InputError
        If what was asked for cannot be.
    """
    kind = site.config.scheduler.kind
    inside = next((name for name, variable in IN_A_JOB.items() if environment.get(variable)), None)
    if asked == "jobs" and kind == "none":
        raise InputError(
            f"--launch jobs: the site {site.name} has no batch system (scheduler.kind); choose one with --site, for instance "
            "generic-slurm"
        )
    if asked == "allocation" and inside is None:
        raise InputError("--launch allocation: this is not inside a job; use it under sbatch, salloc, qsub or qsub -I")
    if asked == "jobs" and inside is not None and not site.config.scheduler.submit_from_compute:
        raise InputError(
            f"--launch jobs: {site.name} lets no jobs be submitted from within a job (scheduler.submit_from_compute): start "
            "the driver on a login node, or use --launch allocation"
        )
    if asked is not None:
        return asked, "--launch"
    if kind == "none":
        return "local", f"the site {site.name} has no batch system"
    if inside is not None:
        return "allocation", f"this is job {environment[IN_A_JOB[inside]]}"
    return "jobs", f"the site {site.name} has {'Slurm' if kind == 'slurm' else 'PBS'}"


def launch(
    site: Site,
    need: ResourceRequest,
    run_dir: Path,
    options: LaunchOptions = LaunchOptions(),  # noqa: B008 - immutable
    listener: Listener = Listener(),
    workload: Workload = Workload(),
) -> WorkerPool:
    """Choose how workers are started and prepare it; entering what is returned starts them.

    Raises
    ------
    InputError
        If the site, the problem and the options do not fit together.
    """
    way, why = choose_launch_mode(site, options.mode)
    if way == "local":
        from hpcfwi.cluster.local import LocalWorkers, local_layout

        if options.nodes not in (None, 1):
            raise InputError(
                f"--nodes {options.nodes}: workers are processes of this machine ({why}), which is one node"
            )
        workforce: WorkerPool = LocalWorkers(local_layout(site.config.worker, need), listener, workload, site.config)
    elif way == "jobs":
        from hpcfwi.cluster.jobs import WorkerJobs

        jobs = options.nodes if options.nodes is not None else site.config.scheduler.jobs
        most = site.config.scheduler.max_jobs
        if options.nodes is not None and most is not None and options.nodes > most:
            raise InputError(f"--nodes {options.nodes}: {site.name} allows {most} jobs at a time (scheduler.max_jobs)")
        layout = node_layout(site, need, jobs if isinstance(jobs, int) else jobs[1])
        wait = None if options.wait_minutes is None else 60 * options.wait_minutes
        workforce = WorkerJobs(site, layout, run_dir, listener, workload, options.nodes, wait)
    else:
        from hpcfwi.cluster.allocation import AllocatedWorkers

        workforce = AllocatedWorkers.from_environment(site, need, run_dir, listener, workload, options.nodes)
        if options.wait_minutes is not None:
            workforce.no_worker_timeout_s = 60 * options.wait_minutes
    listener.show(f"{workforce} ({why})")
    nodes = os.environ.get("SLURM_JOB_NUM_NODES", "1")
    if way == "local" and nodes != "1":
        listener.show(f"this job has {nodes} nodes, of which one is used: --site NAME uses all of them")
    return workforce
