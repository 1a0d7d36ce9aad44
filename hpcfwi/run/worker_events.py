"""The events of workers, Dask and the executor: each is logged, printed if it is a failure, and acted upon."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcfwi.errors import RunError
from hpcfwi.events import types as events
from hpcfwi.events.log import EventLog
from hpcfwi.events.state import failure_line
from hpcfwi.events.types import Event, parse_event
from hpcfwi.execution.window import host_of

if TYPE_CHECKING:  # importing Dask is too slow for the command line
    from hpcfwi.execution.affinity import AffinityCheck
    from hpcfwi.execution.executor import DaskExecutor

# The nanny reports why a worker died only shortly after the scheduler has lost it.
EXIT_REASON_TIMEOUT_S = 1.0
MAX_KINDS_SHOWN = 10
# Exit reason of a restarted worker.
RESTARTED = "it hung and was restarted"


@dataclass(eq=False)
class WorkerEvents:
    """Handles events of workers and Dask, in Dask's thread, and events of the executor, in the driver's."""

    log: EventLog
    print_line: Callable[[str], None]
    affinity: AffinityCheck
    tasks: DaskExecutor  # receives the durations of shots, and is woken when workers join or leave
    on_machine: Callable[[dict[str, str]], None]  # receives the description of a worker's machine
    memory_limit: int = 0  # memory of a worker, bytes

    def __post_init__(self) -> None:
        self._error: RunError | None = None
        # by address; workers that have left are kept
        self._workers: dict[str, events.WorkerJoined] = {}
        self._exit_reasons: dict[str, str] = {}
        self._warned: set[str | None] = set()  # hosts

    def __call__(self, line: bytes) -> None:
        """Parse and record an event that a worker sent."""
        self.record(parse_event(line) or events.RunWarning(message=f"a worker sent a malformed event: {line!r}"))

    def record(self, event: Event) -> None:
        """Log an event and act on it; :meth:`raise_error` raises an error later, in the driver's thread."""
        try:
            self._act(event)
        except RunError as error:
            self._error = error

    def worker_left(self, worker: str) -> None:
        """Record that Dask has removed a worker."""
        self.record(events.WorkerLeft(worker=worker, host=self.host(worker), name=self.name(worker)))

    def worker_died(self, worker: str, host: str, reason: str) -> None:
        """Record why a worker process has died."""
        if self._exit_reasons.get(worker) != RESTARTED:  # else that restart ended it
            reason = self._exit_reasons.get(worker, reason)
            pid = self._workers[worker].pid if worker in self._workers else None
            self.record(events.WorkerDied(worker=worker, host=host, pid=pid or 0, reason=reason))

    def out_of_memory(self, worker: str) -> None:
        """Record that a nanny ends a worker that uses too much memory; :meth:`worker_died` follows."""
        limit = f" of {self.memory_limit / 1e9:.3g} GB" if self.memory_limit else ""
        self._exit_reasons[worker] = f"out of memory: it came too close to its limit{limit} (site.worker.memory)"

    def record_unresponsive(self, workers: list[str], timeout_s: float) -> None:
        """Record that Dask restarts workers without heartbeats."""
        self.tasks.record_unresponsive(workers)
        for worker in workers:
            self.record(events.WorkerUnresponsive(worker=worker, host=self.host(worker), seconds=timeout_s))
            self.record(events.WorkerRestarted(worker=worker, host=self.host(worker)))

    def raise_error(self) -> None:
        """Raise the last error from handling an event, if any."""
        if self._error is not None:
            raise self._error

    def name(self, worker: str) -> str:
        """The name of the worker at an address; empty if unknown."""
        return self._workers[worker].name if worker in self._workers else ""

    def host(self, worker: str) -> str:
        """The short host name of the worker at an address; the host in the address if unknown."""
        return self._workers[worker].host if worker in self._workers else host_of(worker)

    def exit_reason(self, worker: str) -> str:
        """Why the worker at an address died; empty if unknown."""
        until = time.monotonic() + EXIT_REASON_TIMEOUT_S
        while worker not in self._exit_reasons and time.monotonic() < until:
            time.sleep(0.02)
        return self._exit_reasons.get(worker, "")

    def _act(self, event: Event) -> None:
        match event:
            case events.HostExcluded() | events.HostReadmitted():
                names = (known.host for known in self._workers.values() if host_of(known.worker) == event.host)
                event.host = next(names, event.host)
            case events.WorkerRestarted():
                event.host = self.host(event.worker)
        self.log.write(event)
        match event:  # the most frequent one first
            case events.ShotDone():
                self.tasks.seconds.append(event.seconds)
            case events.OperationOnShot(kernel_seconds=kernels) if kernels > 0:
                self.tasks.seconds.append(event.seconds)
            case events.WorkerJoined():
                # with fixed ports, a restarted worker has the address of the one before
                self._exit_reasons.pop(event.worker, None)
                self.tasks.blameless.discard(event.worker)
                self._workers[event.worker] = event
                self.tasks.wake()
            case events.WorkerLeft():
                self.affinity.forget(event.worker)
                self.tasks.wake()
            case events.Solver(machine=machine) if machine is not None:
                self.on_machine(machine)
            case events.ThreadPlacement():
                self._check_threads(event)
            case events.WorkerRestarted():
                self._exit_reasons[event.worker] = RESTARTED
            case events.WorkerDied():
                self._exit_reasons[event.worker] = event.reason
            case events.SumsFound(shots=shots, shots_total=total):
                self.print_line(f"sums of {shots} of {total} shots of this evaluation are already in the journal")
            case events.HostReadmitted():
                self.print_line(f"host {event.host} gets shots again")
            case events.RunWarning(worker=None):
                self.print_line(f"warning: {event.message}")
            case events.RunWarning(host=host) if host not in self._warned:
                self._warned.add(host)  # one is enough; status and events have all
                self.print_line(f"warning: on {host}: {event.message}")
        line = failure_line(event)
        if line is not None:
            self.print_line(line)

    def _check_threads(self, event: events.ThreadPlacement) -> None:
        for breach in self.affinity.mismatches(event.host, event.worker, event.threads, event.cpus):
            self.record(events.RunWarning(message=breach))
            if self.affinity.site.config.openmp.strict:
                raise RunError(f"{breach}\n  The site file has openmp.strict = true, so the run stops here.")


def failure_summary(failures: Counter[str]) -> Iterator[str]:
    """Lines that summarise the failures, the most frequent first."""
    if failures:
        yield f"failures during the run ({failures.total()}; events.jsonl lists all):"
    for line, count in failures.most_common(MAX_KINDS_SHOWN):
        yield f"  {line}{f' ({count} times)' if count > 1 else ''}"
    if len(failures) > MAX_KINDS_SHOWN:
        yield f"  and {len(failures) - MAX_KINDS_SHOWN} more"
