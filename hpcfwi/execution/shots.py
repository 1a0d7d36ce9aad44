"""The states of a shot, from the queue to its result. Plain Python; :mod:`hpcfwi.execution.dispatch` has the Dask part.

::

    QUEUED  -> RUNNING  a worker gets the shot
    RUNNING -> DONE     the result is there
    RUNNING -> OVERDUE  it takes too long: a copy runs elsewhere, and the first result counts
    RUNNING -> FAILED   the task fails
    OVERDUE -> DONE     the first result is there
    OVERDUE -> FAILED   all its tasks have failed
    OVERDUE -> RUNNING  the overdue task has failed, its copy still runs
    FAILED  -> QUEUED   attempts are left
    FAILED  -> EXCLUDED no attempts are left, or its data are wrong: the run stops and names the shot
    DONE    -> QUEUED   the result is lost with its worker
    DONE    -> FAILED   the result is lost, and the shot fails when Dask computes it again

A stopped run may start over without its excluded shots (``data.quorum``, :mod:`hpcfwi.run.shot_exclusion`). A unit of work is
one shot, or a batch of consecutive shots that one task computes. A failed batch is computed again shot by shot.
"""

import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from hpcfwi.errors import DataError, ShotFailed
from hpcfwi.execution.window import Window, host_of
from hpcfwi.inversion.functional_gradient import BLOCK

# The run stops after this many errors of one shot, or deaths of its workers (which may have other causes).
MAX_ATTEMPTS, MAX_WORKER_DEATHS = 3, 4
MAX_COPIES = 3  # at most this many workers compute the same shot
# A worker that hangs on a shot is restarted after this time if no other worker can take the shot.
LONE_WORKER_TIMEOUT_S = 600.0
# While planned workers are missing, a shot that has failed on all hosts waits this long for another host.
NEW_HOST_TIMEOUT_S = 60.0


class State(Enum):
    """The state of a unit."""

    QUEUED = "queued"
    RUNNING = "running"
    OVERDUE = "overdue"
    FAILED = "failed"
    DONE = "done"
    EXCLUDED = "excluded"


_NEXT = {
    State.QUEUED: {State.RUNNING},
    State.RUNNING: {State.OVERDUE, State.FAILED, State.DONE},
    State.OVERDUE: {State.FAILED, State.DONE, State.RUNNING},
    State.FAILED: {State.QUEUED, State.EXCLUDED},
    State.DONE: {State.QUEUED, State.FAILED},
    State.EXCLUDED: set(),
}


@dataclass(frozen=True)
class Failure:
    """Where and why a task failed."""

    worker: str  # Dask address; "" if unknown
    reason: str
    died: bool = False  # whether the worker died
    blame: bool = True  # whether it counts; if many workers vanish at once, neither shot nor host is to blame
    position: int = 0  # of the shot in a batch
    data_error: DataError | None = None  # if the shot's data cannot be used, on any worker
    when: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class Unit:
    """One shot, or a batch of consecutive shots."""

    shots: range
    batch: bool = False
    state: State = State.QUEUED
    workers: dict[str, str] = field(default_factory=dict)  # of the running tasks, by key; "" if unknown
    late: dict[str, float] = field(default_factory=dict)  # when each overdue task was noticed, by key
    failures: list[Failure] = field(default_factory=list)
    # whether a worker died with it; it then gets a worker of its own, so that another death is clearly its fault
    alone: bool = False

    @property
    def first(self) -> int:
        """Index of its first shot."""
        return self.shots[0]

    @property
    def exhausted(self) -> bool:
        """Whether it has failed too often for another attempt."""
        deaths = sum(failure.died for failure in self.failures)
        return deaths >= MAX_WORKER_DEATHS or len(self.failures) - deaths >= MAX_ATTEMPTS

    def move(self, state: State) -> None:
        """Change the state along an arrow of the diagram."""
        assert state in _NEXT[self.state], f"{self.state} -> {state}"
        self.state = state


@dataclass(eq=False)
class Shots:
    """The shots of one sum or map, and the units in which they are computed."""

    names: Sequence[str]
    batches: Sequence[range] = ()  # blocks of shots that are computed together
    done: set[int] = field(default_factory=set)  # shots whose results exist, or whose sums are on disk
    block: int = 1  # consecutive shots with one sum on disk; a run that stops finishes the blocks it has begun
    exit_reason: Callable[[str], str] = lambda _: ""  # returns why the worker at an address died; "" if unknown
    # by name of a shot, the worker that computed it last and may still have its data in memory; updated here
    last_worker: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.running: dict[str, Unit] = {}  # by task key
        self.stopping = False
        batched = set().union(*self.batches)
        single = [Unit(range(i, i + 1)) for i in range(len(self.names)) if i not in batched and i not in self.done]
        # units wait in three queues: new ones, failed or lost ones, and overdue ones that need a copy
        self._new = OrderedDict.fromkeys([*(Unit(shots, batch=True) for shots in self.batches), *single])
        self._retries: dict[Unit, None] = {}
        self._copies: dict[Unit, None] = {}
        self.units = {unit.first: unit for unit in self._new}
        self._by_last_worker: defaultdict[str, deque[Unit]] = defaultdict(deque)
        for unit in self._new:
            self._by_last_worker[self.last_worker.get(self.names[unit.first], "")].append(unit)

    def assignments(self, window: Window) -> Iterator[tuple[Unit, str]]:
        """Yield units with the workers that should compute them; call :meth:`start` for each.

        Copies of overdue shots come first, then failed shots, then the others in survey order, except that a worker first gets
        those that it computed last time. Since unfinished blocks take memory, it does so only among the next few shots.
        """
        if self.has_retries:
            yield from self._retry_assignments(window)
        near = self.near(len(window.workers))
        while self._new and (worker := window.pick()) is not None:
            known, unit = self._by_last_worker[worker], next(iter(self._new))
            while known and known[0] not in self._new:
                known.popleft()
            if known and known[0].first < unit.first + near:
                unit = known[0]
            del self._new[unit]
            yield unit, worker

    def near(self, workers: int) -> int:
        """Number of places by which a worker may jump the survey order for a shot that it computed last time."""
        return max(BLOCK, workers) * max(map(len, self.batches), default=1)

    def _retry_assignments(self, window: Window) -> Iterator[tuple[Unit, str]]:
        for unit in list(self._copies):
            if not window.has_room:
                return
            busy = [worker for worker in unit.workers.values() if worker]
            hanging = {other.workers[late] for other in self.running.values() for late in other.late}
            worker = window.pick(tried=busy, never={*busy, *hanging})
            if worker is not None:
                del self._copies[unit]
                yield unit, worker
        for unit in list(self._retries):
            if not window.has_room:
                return
            tried = [failure.worker for failure in unit.failures]
            worker = window.pick(tried=tried, empty=unit.alone)
            if worker is None:
                continue
            waits = window.incomplete and not self.stopping and host_of(worker) in map(host_of, tried)
            if not waits or time.monotonic() - unit.failures[-1].when > NEW_HOST_TIMEOUT_S:
                del self._retries[unit]
                yield unit, worker

    def start(self, unit: Unit, key: str, worker: str) -> None:
        """Record that a task of a unit is assigned to a worker."""
        if unit.state is State.QUEUED:
            unit.move(State.RUNNING)
        unit.workers[key] = worker
        self.running[key] = unit

    def finish(self, key: str) -> tuple[list[str], list[str]]:
        """Record the result of a task.

        Return the unit's other tasks, which are no longer needed, and the workers that hang on its overdue tasks.
        """
        worker, unit = self.running[key].workers[key], self._end(key)
        self.last_worker.update((self.names[shot], worker) for shot in unit.shots)
        self._copies.pop(unit, None)
        unit.move(State.DONE)
        unit.alone = False
        others, hanging = list(unit.workers), [unit.workers[late] for late in unit.late]
        for other in others:
            self._end(other)
        self.done.update(unit.shots)
        return others, [worker for worker in hanging if worker]

    def _end(self, key: str) -> Unit:
        unit = self.running.pop(key)
        del unit.workers[key]
        unit.late.pop(key, None)
        return unit

    def fail(self, key: str, failure: Failure) -> bool:
        """Record that a task failed; return whether its unit is queued again.

        Raises ShotFailed with all reasons if the shot has failed too often, and DataError if its data are wrong.
        """
        unit = self._end(key)
        self._record(unit, failure)
        if not unit.workers:
            return self._queue_again(unit, failure)
        self._copies.pop(unit, None)
        if unit.late:
            self._request_copy(unit)
        elif unit.state is State.OVERDUE:  # the overdue task has failed, its copy still runs
            unit.move(State.RUNNING)
        return False

    def lose_result(self, index: int, failure: Failure) -> bool:
        """Record that a result was lost with its worker, and that the shot failed when Dask computed it again."""
        self.done.discard(index)
        unit = self.units.setdefault(index, Unit(range(index, index + 1), state=State.DONE))
        self._record(unit, failure)
        return self._queue_again(unit, failure)

    def _record(self, unit: Unit, failure: Failure) -> None:
        if failure.data_error is not None:
            unit.move(State.FAILED)
            unit.move(State.EXCLUDED)
            raise failure.data_error
        if not failure.blame or unit.batch:
            return
        unit.failures.append(failure)
        unit.alone = unit.alone or failure.died
        if unit.workers or not unit.exhausted:
            return
        unit.move(State.FAILED)
        unit.move(State.EXCLUDED)
        lines = [f"failed {len(unit.failures)} times:"]
        for known in unit.failures:
            cause = self.exit_reason(known.worker) if known.died else ""
            lines.append(f"  {known.reason}{': ' if cause and not cause.startswith(chr(10)) else ''}{cause}")
        raise ShotFailed(self.names[unit.first], "\n".join(lines))

    def _queue_again(self, unit: Unit, failure: Failure) -> bool:
        unit.move(State.FAILED)
        self._copies.pop(unit, None)
        if self.stopping:
            return False
        if unit.batch:
            del self.units[unit.first]
            self._add(unit.shots, alone=failure.died)
        else:
            unit.move(State.QUEUED)
            self._retries[unit] = None
        return True

    def compute_again(self, shots: Collection[int]) -> None:
        """Queue shots whose results, or sums that contain them, are lost."""
        self.done.difference_update(shots)
        if not self.stopping:
            self._add(shots)

    def _add(self, shots: Iterable[int], alone: bool = False) -> None:
        for i in shots:
            known = self.units.get(i)
            if known is None or known.batch:
                self.units[i] = known = Unit(range(i, i + 1), alone=alone)
            else:
                known.move(State.QUEUED)
            self._retries[known] = None

    def lose_workers(self, keys: Iterable[str]) -> None:
        """Record that the workers of tasks have left; Dask runs the tasks elsewhere, or they fail."""
        for key in keys:
            if key in self.running:
                self.running[key].workers[key] = ""

    def mark_overdue(self, key: str, now: float) -> bool:
        """Mark a task that takes too long, so that another worker gets a copy; return False if it was marked before."""
        unit = self.running.get(key)
        if unit is None or key in unit.late:
            return False
        unit.late[key] = now
        if unit.state is State.RUNNING:
            unit.move(State.OVERDUE)
        self._request_copy(unit)
        return True

    def _request_copy(self, unit: Unit) -> None:
        if len(unit.workers) < MAX_COPIES and not self.stopping and not unit.exhausted:
            self._copies[unit] = None

    def lone_workers(self, window: Window, now: float) -> list[str]:
        """Workers that hang on a shot that no other worker could take for :data:`LONE_WORKER_TIMEOUT_S`."""
        return [
            unit.workers[key]
            for unit in self._copies
            if not window.has_others(unit.workers.values())
            for key, noticed in unit.late.items()
            if now - noticed > LONE_WORKER_TIMEOUT_S and unit.workers[key]
        ]

    def stop(self) -> None:
        """Assign no more units, except those of blocks that have begun."""
        self.stopping = True
        running = [i for unit in self.running.values() for i in unit.shots]
        begun = {i // self.block for i in (*self.done, *running)}
        self._copies.clear()
        self._retries = {unit: None for unit in self._retries if unit.first // self.block in begun}
        self._new = OrderedDict.fromkeys(unit for unit in self._new if unit.first // self.block in begun)

    @property
    def has_retries(self) -> bool:
        """Whether a failed or overdue shot waits for a worker."""
        return bool(self._retries or self._copies)

    @property
    def idle(self) -> bool:
        """Whether no unit is running or waiting."""
        return not (self.running or self._new or self._retries)
