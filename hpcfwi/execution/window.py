"""Which worker gets the next shot: how many each has in hand, and which hosts fail. Plain Python, without Dask.

The driver gives a worker at most :attr:`Window.depth` tasks at a time. The rest waits here, where it can still go to any
worker: nothing has to be taken back when a worker dies, is slow, ends soon or is on a host that fails. Dask's own queue
(``worker-saturation``) is no substitute: whether a task waits there depends on its name and on how many there are. Eight shots
on two workers, one of them four times slower, took 8.0 s with Dask's queue and take 4 s with this window.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

# A host is excluded after this many different shots have failed on it within this time.
MAX_HOST_FAILURES, HOST_FAILURE_WINDOW_S = 3, 3600.0
# Seconds that a worker is idle between two shots at depth 1 (measured: 0.004 with small gradients, 0.008 with a sum of some MB
# in between), and those that driver and scheduler need for each worker that has finished before it.
ROUND_TRIP_S, HANDLING_S = 0.01, 0.0015
# Shots for which that is more than this part get a greater depth, which covers this many seconds on a loaded machine.
MAX_IDLE_SHARE, LATENCY_S, MAX_DEPTH = 0.01, 0.03, 8
# Durations that a median is taken of.
DURATIONS_KEPT = 200
# A task is overdue after MIN_OVERDUE_S, or after this many times the median of its kind.
MIN_OVERDUE_S, OVERDUE_RATIO = 60.0, 10.0


def host_of(address: str) -> str:
    """The host in a Dask address, ``tls://10.0.0.1:4242``."""
    return address.rpartition(":")[0].rpartition("/")[2]


def shortest_unqueued_shot(workers: int) -> float:
    """Seconds of a shot from which on so many workers get one shot at a time."""
    # where all end at the same time, one is behind half of the others
    return (ROUND_TRIP_S + HANDLING_S * workers / 2) / MAX_IDLE_SHARE


def queue_depth(seconds: float, workers: int) -> int:
    """Tasks of this length that each of so many workers has in hand.

    One, unless workers would be idle for more than 1 % of the time between them. 3,000 shots of 5 ms on two processes took
    18-22 s at depth 2, 13-16 s at 4 and 9-14 s at 8. NaN, where the length is unknown, gives 1.
    """
    if not seconds < shortest_unqueued_shot(workers):
        return 1
    return min(MAX_DEPTH, 1 + math.ceil(LATENCY_S / seconds)) if seconds > 0 else MAX_DEPTH


@dataclass(eq=False)
class _Worker:
    """A worker, the tasks in its hand in their order, and when each was given."""

    address: str
    host: str
    tasks: dict[str, float] = field(default_factory=dict)
    free_since: float = -math.inf
    alone: bool = False
    load: int | None = None


class Window:
    """Workers and what they have in hand.

    One thread owns it; :meth:`drain`, :attr:`excluded` and :attr:`longest_task_s` are for any thread.

    Parameters
    ----------
    on_excluded, on_readmitted
        Called with a host and the names of the shots that failed on it.

    Attributes
    ----------
    depth
        Tasks that a worker may have in hand.
    excluded
        Hosts that get no more shots.
    """

    def __init__(
        self,
        on_excluded: Callable[[str, list[str]], None] = lambda *_: None,
        on_readmitted: Callable[[str, list[str]], None] = lambda *_: None,
    ) -> None:
        self.on_excluded, self.on_readmitted = on_excluded, on_readmitted
        self.depth = 1
        self.excluded: frozenset[str] = frozenset()
        self.workers: dict[str, _Worker] = {}
        self._draining: set[str] = set()
        # usable workers by the number of tasks in their hands
        self._by_load: list[dict[str, None]] = [{} for _ in range(MAX_DEPTH + 1)]
        self._where: dict[str, tuple[str, str]] = {}
        self._durations: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=DURATIONS_KEPT))
        self._failures: defaultdict[str, dict[str, float]] = defaultdict(dict)

    # workers come and go

    def update(self, addresses: Collection[str]) -> list[str]:
        """Take the addresses of all workers; return the keys of tasks that were in the hands of those that are gone."""
        for address in addresses:
            if address not in self.workers:
                self.workers[address] = worker = _Worker(address, host_of(address))
                self._place(worker)
        left = (
            [address for address in self.workers if address not in addresses]
            if len(addresses) < len(self.workers)
            else []
        )
        return [key for address in left for key in self.remove(address)]

    def remove(self, address: str) -> list[str]:
        """Forget a worker that is gone; return the keys of the tasks that were in its hand."""
        worker = self.workers.pop(address, None)
        if worker is None:
            return []
        self._unplace(worker)
        self._draining.discard(address)
        for key in worker.tasks:
            del self._where[key]
        if self.excluded and all(other.host in self.excluded for other in self.workers.values()) and self.workers:
            self._readmit()
        return list(worker.tasks)

    def drain(self, addresses: Iterable[str]) -> None:
        """Give no more tasks to workers that end soon."""
        self._draining.update(addresses)

    # what they have in hand

    @property
    def has_room(self) -> bool:
        """Whether any usable worker may get another task."""
        return any(self._by_load[: self.depth])

    def pick(self, tried: Sequence[str] = (), never: Collection[str] = (), empty: bool = False) -> str | None:
        """Return the usable worker with the least in hand; None if there is no room.

        Parameters
        ----------
        tried
            Workers on which the shot has failed or hangs: other hosts are better, then other workers, then all but the last.
        never
            Workers that cannot be picked.
        empty
            Whether the worker must have nothing else in hand.
        """
        depth = 1 if empty else self.depth
        if not tried and not never:
            for workers in self._by_load[:depth]:
                for address in list(workers):
                    if address not in self._draining:
                        return address
                    self._unplace(self.workers[address])
            return None
        candidates = [address for address in apart_from(tried, self._usable()) if address not in never]
        free = [address for address in candidates if not self.workers[address].alone]
        best = min(free, key=lambda address: len(self.workers[address].tasks), default=None)
        return best if best is not None and len(self.workers[best].tasks) < depth else None

    def others(self, workers: Iterable[str]) -> list[str]:
        """Usable workers other than these."""
        return [address for address in self._usable() if address not in set(workers)]

    def give(self, address: str, key: str, now: float, alone: bool = False) -> None:
        """Put a task in the hand of a worker, which gets no other one meanwhile if it is to be ``alone`` there."""
        worker = self.workers.get(address)
        if worker is not None:
            worker.tasks[key] = now
            worker.alone = alone
            self._where[key] = (address, worker.host)
            self._place(worker)

    def take(self, key: str, now: float, kind: str = "") -> None:
        """Take a task that has ended from the hand of its worker; one of a known ``kind`` adds to the durations of that."""
        address, _ = self._where.pop(key, ("", ""))
        worker = self.workers.get(address)
        if worker is None:
            return
        since = max(worker.tasks.pop(key), worker.free_since)
        if kind:
            self._durations[kind].append(now - since)
        worker.free_since = now
        worker.alone = False
        self._place(worker)

    def worker_of(self, key: str) -> str:
        """The worker that has a task in hand; empty if none has."""
        return self._where.get(key, ("", ""))[0]

    def heads(self) -> Iterator[tuple[str, str, float]]:
        """The task that each worker computes: key, worker, and since when. What is behind it has not begun."""
        for worker in self.workers.values():
            for key, given in worker.tasks.items():
                yield key, worker.address, max(given, worker.free_since)
                break

    def free_since(self, address: str) -> float | None:
        """Since when a worker has nothing in hand; None if it has."""
        worker = self.workers.get(address)
        return None if worker is None or worker.tasks else worker.free_since

    def _usable(self) -> list[str]:
        draining, excluded = self._draining, self.excluded
        return [
            worker.address
            for worker in self.workers.values()
            if worker.host not in excluded and worker.address not in draining
        ]

    def _place(self, worker: _Worker) -> None:
        self._unplace(worker)
        if not worker.alone and worker.host not in self.excluded and worker.address not in self._draining:
            worker.load = min(len(worker.tasks), MAX_DEPTH)
            self._by_load[worker.load][worker.address] = None

    def _unplace(self, worker: _Worker) -> None:
        if worker.load is not None:
            self._by_load[worker.load].pop(worker.address, None)
            worker.load = None

    # how long tasks take

    def median_s(self, kind: str) -> float:
        """Median of the last durations of a kind, NaN if there are none."""
        durations = self._durations.get(kind)
        return median(durations) if durations else math.nan

    def overdue_limit_s(self, kind: str) -> float:
        """Seconds after which a task of a kind is overdue; infinite before the first is done."""
        typical = self.median_s(kind)
        return math.inf if math.isnan(typical) else max(MIN_OVERDUE_S, OVERDUE_RATIO * typical)

    @property
    def longest_task_s(self) -> float:
        """Seconds of the longest recent task; 0 before one is done."""
        return max((max(tuple(kept), default=0.0) for kept in tuple(self._durations.values())), default=0.0)

    # hosts that fail

    def record_failure(self, worker: str, shot: str) -> None:
        """Exclude the host of a worker if too many different shots fail there, and there are others."""
        host, now = host_of(worker), time.monotonic()
        recent = {name: when for name, when in self._failures[host].items() if now - when < HOST_FAILURE_WINDOW_S}
        self._failures[host] = recent | {shot: now}
        others = {other.host for other in self.workers.values()} - self.excluded - {host}
        if len(self._failures[host]) >= MAX_HOST_FAILURES and others and host not in self.excluded:
            self.excluded |= {host}
            for other in self.workers.values():
                if other.host == host:
                    self._unplace(other)
            self.on_excluded(host, sorted(self._failures[host]))

    def _readmit(self) -> None:
        """Use excluded hosts again: no other host is left."""
        for host in sorted(self.excluded):
            self.on_readmitted(host, sorted(self._failures[host]))
        self.excluded = frozenset()
        self._failures.clear()
        for worker in self.workers.values():
            self._place(worker)


def apart_from(tried: Sequence[str], workers: Sequence[str]) -> list[str]:
    """Workers on hosts that were not tried, or else those that were not tried, or else all but the last, or else all."""
    hosts = {host_of(worker) for worker in tried if worker}
    return (
        [worker for worker in workers if host_of(worker) not in hosts]
        or [worker for worker in workers if worker not in tried]
        or [worker for worker in workers if worker != tried[-1]]
        or list(workers)
    )
