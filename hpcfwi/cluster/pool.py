"""Workers, however they are started: what local processes, worker jobs and allocations have in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import dask
from distributed.deploy import SpecCluster

from hpcfwi.cluster.dask_internals import use_monotonic_clock
from hpcfwi.cluster.layout import Layout
from hpcfwi.errors import HpcfwiError, RunError

__all__ = ["REMOTE", "SCHEDULING", "SHORT_TASK_LOG", "Listener", "WorkerPool", "tail_of"]

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
    """Who is told what happens.

    Parameters
    ----------
    say
        Takes a line for the user.
    event
        Takes the name of an event and its facts.
    """

    say: Callable[[str], None] = _ignore
    event: Callable[..., None] = _ignore


class WorkerPool(ABC):
    """Starts workers in the background when it is entered, and ends all of them when it is left, whatever happened.

    Parameters
    ----------
    layout
        How a node is divided.
    listener
        Who is told.

    Attributes
    ----------
    how
        ``"local"``, ``"jobs"`` or ``"allocation"``.
    patience
        Seconds without any worker after which there is no hope for one; None: the workforce knows better.
    """

    how: str
    patience: float | None = 60.0

    def __init__(self, layout: Layout, listener: Listener = Listener()) -> None:
        self.layout = layout
        self.listener = listener
        self._stack = ExitStack()
        self._coming: Future[SpecCluster] | None = None

    @property
    def threads(self) -> int:
        """The most OpenMP threads that a worker has."""
        return self.layout.threads

    @property
    def planned(self) -> int:
        """Worker processes that are wanted, at most."""
        return self.nodes_planned * self.layout.processes

    @property
    def nodes_planned(self) -> int:
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

    def tail(self, worker: str) -> str:  # noqa: ARG002 - where they have no log of their own
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
        if self.patience is not None and idle > self.patience:
            raise RunError(
                f"no worker is left, and none has come for {self.patience:g} s; what was finished is kept: start "
                "the same command again"
            )
