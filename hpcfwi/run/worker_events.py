"""What workers and Dask report: each event is logged, printed if it is a failure, and passed to who acts on it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hpcfwi.errors import RunError
from hpcfwi.events import types as events
from hpcfwi.events.log import EventLog
from hpcfwi.events.state import failure_line
from hpcfwi.events.types import Event, parse_event

if TYPE_CHECKING:  # imports Dask, for which the command line has no time
    from hpcfwi.execution.affinity import AffinityCheck
    from hpcfwi.execution.executor import DaskExecutor

__all__ = ["WorkerEvents", "failure_summary"]

# The nanny reports why a worker died a moment after the scheduler has lost it.
EXIT_REASON_TIMEOUT_S = 1.0
MAX_KINDS_SHOWN = 10


class WorkerEvents:
    """Takes the events of workers and scheduler, in a thread of Dask's.

    Parameters
    ----------
    log
        Where each event is written.
    print_line
        Prints a line for the user.
    affinity
        What threads and cores are checked against.
    tasks
        The executor, which needs the durations of shots and the tasks that are overdue.
    on_machine
        Called with the description of a worker's machine.
    """

    def __init__(
        self,
        log: EventLog,
        print_line: Callable[[str], None],
        affinity: AffinityCheck,
        tasks: DaskExecutor,
        on_machine: Callable[[dict[str, str]], None],
    ) -> None:
        self.log, self.print_line, self.affinity = log, print_line, affinity
        self.tasks, self.on_machine = tasks, on_machine
        self._error: RunError | None = None
        # by address
        self._names: dict[str, str] = {}
        self._exit_reasons: dict[str, str] = {}

    def __call__(self, line: bytes) -> None:
        """Take an event as it was sent; an error of it is raised in the driver by :meth:`raise_error`."""
        event = parse_event(line) or events.RunWarning(message=f"a worker sent a malformed event: {line!r}")
        try:
            self.log.write(event)
            self._act(event)
        except RunError as error:
            self._error = error

    def raise_error(self) -> None:
        """Raise the error that ended the work of this object in Dask's thread, if there was one."""
        if self._error is not None:
            raise self._error

    def name(self, worker: str) -> str:
        """The name of the worker at an address; empty if it is unknown."""
        return self._names.get(worker, "")

    def exit_reason(self, worker: str) -> str:
        """Why the worker at an address died; empty if it is unknown."""
        until = time.monotonic() + EXIT_REASON_TIMEOUT_S
        while worker not in self._exit_reasons and time.monotonic() < until:
            time.sleep(0.02)
        return self._exit_reasons.get(worker, "")

    def _act(self, event: Event) -> None:
        match event:  # the most frequent one first
            case events.ShotDone():
                self.tasks.seconds.append(event.seconds)
            case events.WorkerJoined():
                self._names[event.worker] = event.name
            case events.WorkerLeft():
                self.affinity.forget(event.worker)
            case events.Solver(machine=machine) if machine is not None:
                self.on_machine(machine)
            case events.ThreadPlacement():
                self._check_threads(event)
            case events.TaskOverdue():
                self.tasks.overdue(event.key)
            case events.WorkerRestarted():
                self._exit_reasons[event.worker] = "it hung and was restarted"
            case events.WorkerDied() if event.worker in self._exit_reasons:
                return  # the end of a restart
            case events.WorkerDied():
                self._exit_reasons[event.worker] = event.reason
            case events.HostReadmitted():
                self.print_line(f"host {event.host} gets shots again, since no other host is left")
        line = failure_line(event)
        if line is not None:
            self.print_line(line)

    def _check_threads(self, event: events.ThreadPlacement) -> None:
        for breach in self.affinity.breaches(event.host, event.worker, event.threads, event.cpus):
            self.log.write(events.RunWarning(message=breach))
            self.print_line(f"warning: {breach}")
            if self.affinity.site.config.openmp.strict:
                raise RunError(f"{breach}\n  The site file has openmp.strict = true, so the run stops here.")


def failure_summary(failures: Counter[str]) -> Iterator[str]:
    """Lines that sum up failures, the most frequent first."""
    if failures:
        yield f"failures on the way ({failures.total()}; events.jsonl has all):"
    for line, count in failures.most_common(MAX_KINDS_SHOWN):
        yield f"  {line}{f' ({count} times)' if count > 1 else ''}"
    if len(failures) > MAX_KINDS_SHOWN:
        yield f"  and {len(failures) - MAX_KINDS_SHOWN} more"
