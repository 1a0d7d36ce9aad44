"""The assignment of shots to workers, without Dask: queue depth, batches, and hosts that are excluded.

The driver assigns at most :attr:`Window.depth` tasks to a worker at a time. The other shots wait in the driver, which can still
send them to any worker: no task has to be withdrawn when a worker dies, is slow, ends soon or is on a bad host. Dask's own
queue (``worker-saturation``) is no substitute: whether a task waits there depends on its name and on the number of tasks. Eight
shots on two workers, one of them four times slower, took 8.0 s with Dask's queue and 4 s with this window.
"""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from hpcfwi.events.types import Event, HostExcluded, HostReadmitted
from hpcfwi.inversion.functional_gradient import BLOCK

# A host is excluded after this many different shots have failed on it within this time.
MAX_HOST_FAILURES, HOST_FAILURE_WINDOW_S = 3, 3600.0
# At depth 1, a worker waits for its next shot for ROUND_TRIP_S (measured: 0.004 with small gradients, 0.008 with a sum of some
# MB in between), and HANDLING_S for each worker that has finished before it.
ROUND_TRIP_S, HANDLING_S = 0.01, 0.0015
# If workers would be idle for more than this share, the depth grows until it covers this latency of a loaded machine.
MAX_IDLE_SHARE, LATENCY_S, MAX_DEPTH = 0.01, 0.03, 8
DURATIONS_KEPT = 200  # medians are taken over the last durations
# A task is overdue after this many times the median of its kind, but not before MIN_OVERDUE_S.
MIN_OVERDUE_S, OVERDUE_RATIO = 60.0, 10.0
MAX_BATCH_S = 10.0  # so that a batch can end in time after a signal
# Batches, which balance the work less evenly, are used if they take less than this share of the time of single shots.
MAX_BATCHED_SHARE = 0.8


def host_of(address: str) -> str:
    """The host in a Dask address, ``tls://10.0.0.1:4242``."""
    return address.rpartition(":")[0].rpartition("/")[2]


def queue_depth(seconds: float, workers: int) -> int:
    """Return how many tasks of this duration are assigned to each worker at a time.

    It is 1 unless workers would be idle for more than 1 % of the time between tasks. 3,000 shots of 5 ms on two processes took
    18-22 s at depth 2, 13-16 s at 4 and 9-14 s at 8. NaN, an unknown duration, gives 1.
    """
    # if all tasks end at the same time, a worker waits for half of the others on average
    idle = ROUND_TRIP_S + HANDLING_S * workers / 2
    if not idle > MAX_IDLE_SHARE * seconds:
        return 1
    return min(MAX_DEPTH, 1 + math.ceil(LATENCY_S / seconds)) if seconds > 0 else MAX_DEPTH


@dataclass(frozen=True)
class TaskOverhead:
    """CPU seconds that driver and scheduler, one process, need for a shot."""

    alone: float  # if the shot is a task by itself
    batched: float  # if it is part of a batch


NO_OVERHEAD = TaskOverhead(0.0, 0.0)
# Measured with `tests/benchmarks/driver_at_scale.py many batched`; a run has no time to measure it.
TYPICAL_OVERHEAD = TaskOverhead(0.0016, 0.00025)


def should_batch(shots: int, workers: int, seconds: float) -> bool:
    """Return whether an evaluation is faster if one task computes a block of shots and adds them.

    Batches are faster if shots, of typically ``seconds`` (NaN: unknown), are so short or workers so many that driver and
    scheduler could not keep up with single shots.
    """
    if not workers or not BLOCK * seconds <= MAX_BATCH_S:
        return False
    alone = max(shots * TYPICAL_OVERHEAD.alone, seconds * math.ceil(shots / workers))
    batched = max(shots * TYPICAL_OVERHEAD.batched, BLOCK * seconds * math.ceil(shots / (BLOCK * workers)))
    return batched < MAX_BATCHED_SHARE * alone


@dataclass(eq=False)
class _Worker:
    """A worker and its assigned tasks."""

    address: str
    host: str
    tasks: dict[str, float] = field(default_factory=dict)  # when each was assigned, in order
    free_since: float = -math.inf  # when the last task ended
    alone: bool = False  # whether its task must not share the worker
    load: int | None = None  # its index in Window._by_load; None if it gets no more tasks


class Window:
    """The workers and their assigned tasks.

    One thread owns it; only :meth:`drain`, :attr:`excluded` and :attr:`longest_task_s` are thread-safe.
    """

    def __init__(self) -> None:
        self.log_event: Callable[[Event], None] = lambda _: None  # called when a host is excluded or readmitted
        self.depth = 1  # tasks that a worker may have at a time
        self.incomplete = False  # whether workers are missing that may still join
        self.excluded: frozenset[str] = frozenset()  # hosts that get no more shots
        self.workers: dict[str, _Worker] = {}
        self._draining: set[str] = set()
        # usable workers by the number of their tasks
        self._by_load: list[dict[str, None]] = [{} for _ in range(MAX_DEPTH + 1)]
        self._where: dict[str, str] = {}  # address of the worker of each task, by key
        self._durations: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=DURATIONS_KEPT))
        self._failures: defaultdict[str, dict[str, float]] = defaultdict(dict)

    def update(self, addresses: Collection[str]) -> list[str]:
        """Update the workers to these addresses; return the tasks of workers that have left."""
        for address in addresses:
            if address not in self.workers:
                self.workers[address] = worker = _Worker(address, host_of(address))
                self._place(worker)
        lost = [key for address in self.workers.keys() - set(addresses) for key in self.remove(address)]
        if self.workers and all(worker.host in self.excluded for worker in self.workers.values()):
            self._readmit(self.excluded)
        return lost

    def remove(self, address: str) -> list[str]:
        """Remove a worker that has left; return its tasks."""
        worker = self.workers.pop(address, None)
        if worker is None:
            return []
        self._unplace(worker)
        self._draining.discard(address)
        for key in worker.tasks:
            del self._where[key]
        return list(worker.tasks)

    def drain(self, addresses: Iterable[str]) -> None:
        """Assign no more tasks to workers that end soon."""
        self._draining.update(addresses)

    @property
    def has_room(self) -> bool:
        """Whether any usable worker may get another task."""
        return any(self._by_load[: self.depth])

    def pick(self, tried: Sequence[str] = (), never: Collection[str] = (), empty: bool = False) -> str | None:
        """Return the usable worker with the fewest tasks; None if all have enough.

        The shot has failed or hangs on the workers ``tried``: other hosts are preferred, then other workers, then all but the
        last. Workers in ``never`` are not picked. With ``empty``, only workers without tasks are.
        """
        depth = 1 if empty else self.depth
        if not tried and not never:
            for workers in self._by_load[:depth]:
                for address in list(workers):
                    if address not in self._draining:
                        return address
                    self._unplace(self.workers[address])
            return None
        candidates = prefer_untried(tried, [address for address in self._usable() if address not in never])
        free = [worker for worker in map(self.workers.__getitem__, candidates) if not worker.alone]
        best = min(free, key=lambda worker: len(worker.tasks), default=None)
        return best.address if best is not None and len(best.tasks) < depth else None

    def has_others(self, workers: Iterable[str]) -> bool:
        """Whether there are usable workers other than these."""
        return not set(self._usable()) <= set(workers)

    def add_task(self, address: str, key: str, now: float, alone: bool = False) -> None:
        """Assign a task to a worker; with ``alone``, the worker gets no other one meanwhile."""
        worker = self.workers.get(address)
        if worker is not None:
            worker.tasks[key] = now
            worker.alone = alone
            self._where[key] = address
            self._place(worker)

    def end_task(self, key: str, now: float, kind: str = "") -> None:
        """Record that a task has ended, and its duration if its ``kind`` is given."""
        worker = self.workers.get(self._where.pop(key, ""))
        if worker is None:
            return
        since = max(worker.tasks.pop(key), worker.free_since)
        if kind:
            self._durations[kind].append(now - since)
        worker.free_since = now
        worker.alone = False
        self._place(worker)

    def worker_of(self, key: str) -> str:
        """The worker that has a task; empty if no worker has it."""
        return self._where.get(key, "")

    def running_tasks(self) -> Iterator[tuple[str, str, float]]:
        """The task that each worker computes now: key, worker, and when it began. Its other tasks still wait."""
        for worker in self.workers.values():
            if worker.tasks:
                key, given = next(iter(worker.tasks.items()))
                yield key, worker.address, max(given, worker.free_since)

    def free_since(self, address: str) -> float | None:
        """Since when a worker has had no task; None if it has one."""
        worker = self.workers.get(address)
        return None if worker is None or worker.tasks else worker.free_since

    def _is_usable(self, worker: _Worker) -> bool:
        return worker.host not in self.excluded and worker.address not in self._draining

    def _usable(self) -> list[str]:
        return [worker.address for worker in self.workers.values() if self._is_usable(worker)]

    def _place(self, worker: _Worker) -> None:
        self._unplace(worker)
        if not worker.alone and self._is_usable(worker):
            worker.load = min(len(worker.tasks), MAX_DEPTH)
            self._by_load[worker.load][worker.address] = None

    def _unplace(self, worker: _Worker) -> None:
        if worker.load is not None:
            self._by_load[worker.load].pop(worker.address, None)
            worker.load = None

    def median_s(self, kind: str) -> float:
        """Median of the last durations of a kind of task; NaN if none has ended."""
        durations = self._durations.get(kind)
        return median(durations) if durations else math.nan

    def overdue_limit_s(self, kind: str) -> float:
        """Seconds after which a task of a kind is overdue; infinite before the first one is done."""
        typical = self.median_s(kind)
        return math.inf if math.isnan(typical) else max(MIN_OVERDUE_S, OVERDUE_RATIO * typical)

    @property
    def longest_task_s(self) -> float:
        """Seconds of the longest recent task; 0 before the first one is done."""
        # copied, since the owning thread may add to them meanwhile
        return max((max(tuple(kept), default=0.0) for kept in tuple(self._durations.values())), default=0.0)

    def record_failure(self, worker: str, shot: str) -> None:
        """Exclude a worker's host if too many different shots failed there and other hosts are left."""
        host, now = host_of(worker), time.monotonic()
        recent = {name: when for name, when in self._failures[host].items() if now - when < HOST_FAILURE_WINDOW_S}
        self._failures[host] = recent | {shot: now}
        others = {other.host for other in self.workers.values()} - self.excluded - {host}
        if len(self._failures[host]) >= MAX_HOST_FAILURES and others and host not in self.excluded:
            self.excluded |= {host}
            for other in self.workers.values():
                self._place(other)
            self.log_event(HostExcluded(host=host, failed_shots=sorted(self._failures[host])))

    def forget_shot(self, shot: str) -> None:
        """Forget the failures of a shot that the run excludes: it fails on every host."""
        for failures in self._failures.values():
            failures.pop(shot, None)
        self._readmit({host for host in self.excluded if len(self._failures[host]) < MAX_HOST_FAILURES})

    def _readmit(self, hosts: Collection[str]) -> None:
        for host in sorted(hosts):
            self.log_event(HostReadmitted(host=host, failed_shots=sorted(self._failures.pop(host, ()))))
        self.excluded = self.excluded.difference(hosts)
        for worker in self.workers.values():
            self._place(worker)


def prefer_untried(tried: Sequence[str], workers: Sequence[str]) -> list[str]:
    """Return the workers on untried hosts; if none, the untried workers; then all but the last tried; then all."""
    hosts = {host_of(worker) for worker in tried if worker}
    return (
        [worker for worker in workers if host_of(worker) not in hosts]
        or [worker for worker in workers if worker not in tried]
        or [worker for worker in workers if worker != tried[-1]]
        or list(workers)
    )
