"""What workers tell, and Dask of them: an event in the log, a line for the user, and what the driver has to know."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hpcfwi.errors import RunError
from hpcfwi.events.log import EventLog
from hpcfwi.events.types import (
    Event,
    HostExcluded,
    HostReadmitted,
    RunWarning,
    ShotDone,
    Solver,
    TaskOverdue,
    ThreadPlacement,
    WorkerDied,
    WorkerJoined,
    WorkerLeft,
    WorkerRestarted,
    WorkerUnresponsive,
    parse_event,
)

if TYPE_CHECKING:  # imports Dask, for which the command line has no time
    from hpcfwi.execution.affinity import AffinityCheck
    from hpcfwi.execution.executor import DaskExecutor

from collections import Counter

__all__ = ["Failures", "WorkerEvents"]

# Seconds that are waited for the reason of a death that stops the run.
LAST_NEWS = 1.0


class WorkerEvents:
    """Takes what is told, in Dask's thread.

    Parameters
    ----------
    log
        Where every piece of it is kept.
    say
        Takes a line for the user.
    failures
        Keeps account of what goes wrong.
    promise
        What threads and cores are held against.
    tasks
        The shots, which have to know how long others took, and what is overdue.
    on_machine
        Called with the kind of machine that a worker is.

    Attributes
    ----------
    broken
        An error, met here where nobody hears of it, that has to end the run; or None.
    """

    def __init__(
        self,
        log: EventLog,
        say: Callable[[str], None],
        failures: Failures,
        promise: AffinityCheck,
        tasks: DaskExecutor,
        on_machine: Callable[[dict[str, str]], None],
    ) -> None:
        self.log, self.say, self.failures, self.promise = log, say, failures, promise
        self.tasks, self.on_machine = tasks, on_machine
        self.broken: RunError | None = None
        # names of workers, and why they died, by their addresses
        self._names: dict[str, str] = {}
        self._deaths: dict[str, str] = {}
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            WorkerJoined: self._worker_joined,
            WorkerLeft: lambda event: promise.forget(event.worker),
            WorkerRestarted: self._worker_restarted,
            WorkerDied: self._worker_died,
            WorkerUnresponsive: lambda event: say(
                f"a worker on {event.host} has sent no heartbeat for {event.seconds:.0f} s"
            ),
            HostExcluded: lambda event: failures.add(
                f"host {event.host} gets no more shots: {', '.join(event.failed_shots)} failed there"
            ),
            HostReadmitted: lambda event: say(f"host {event.host} gets shots again, since no other host is left"),
            ShotDone: lambda event: tasks.seconds.append(event.seconds),
            TaskOverdue: lambda event: tasks.overdue(event.key),
            Solver: lambda event: on_machine(event.machine),
            ThreadPlacement: self._check_threads,
        }

    def __call__(self, line: bytes) -> None:
        """Log an event that a worker or the scheduler has sent, and act on it."""
        event = parse_event(line) or RunWarning(message=f"a worker sent a malformed event: {line!r}")
        try:
            self.log.write(event)
            handle = self._handlers.get(type(event))
            if handle is not None:
                handle(event)
        except RunError as error:
            self.broken = error

    def raise_broken(self) -> None:
        """Raise the error that was met in Dask's thread, if there was one."""
        if self.broken is not None:
            raise self.broken

    def name(self, worker: str) -> str:
        """The name of the worker at an address; empty where it is not known."""
        return self._names.get(worker, "")

    def why(self, worker: str) -> str:
        """Why a worker died, as far as that is known."""
        # that it is gone may be known before its nanny has told why
        until = time.monotonic() + LAST_NEWS
        while worker not in self._deaths and time.monotonic() < until:
            time.sleep(0.02)
        return self._deaths.get(worker, "")

    def _worker_joined(self, event: WorkerJoined) -> None:
        self._names[event.worker] = event.name

    def _worker_restarted(self, event: WorkerRestarted) -> None:
        self._deaths[event.worker] = "it hung, and was restarted"
        self.failures.add(f"a worker on {event.host} hangs and is restarted")

    def _worker_died(self, event: WorkerDied) -> None:
        if event.worker not in self._deaths:
            self._deaths[event.worker] = event.reason
            self.failures.add(f"a worker on {event.host} died: {event.reason}")

    def _check_threads(self, event: ThreadPlacement) -> None:
        for breach in self.promise.breaches(event.host, event.worker, event.threads, event.cpus):
            self.log.write(RunWarning(message=breach))
            self.say(f"warning: {breach}")
            if self.promise.site.config.openmp.strict:
                raise RunError(f"{breach}\n  The site says openmp.strict = true, so the run stops here.")


# Kinds that are told at the end.
MOST = 10


class Failures:
    """Counts failures, which are lines of text.

    Parameters
    ----------
    say
        Takes a line for the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._times: Counter[str] = Counter()

    def add(self, what: str) -> None:
        """Tell of one."""
        self._times[what] += 1
        self.say(what)

    def sum_up(self) -> None:
        """Tell of all, the most frequent first; nothing where there were none."""
        if not self._times:
            return
        self.say(f"failures on the way ({self._times.total()}; events.jsonl has all):")
        for what, times in self._times.most_common(MOST):
            self.say(f"  {what}{f' ({times} times)' if times > 1 else ''}")
        if len(self._times) > MOST:
            self.say(f"  and {len(self._times) - MOST} more")
