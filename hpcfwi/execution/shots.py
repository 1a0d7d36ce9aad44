"""The life of a shot, from the queue to its result. Plain Python: what runs on Dask is in :mod:`hpcfwi.execution.executor`.

::

               given to a worker          result
      QUEUED -------------------> RUNNING -------> DONE
       ^  ^                       |     |           ^ |
       |  |             failed    |     | too long  | |
       |  |   FAILED <------------+     v           | | result lost with
       |  |   |   ^                  OVERDUE -------+ | its worker
       |  |   |   +------ failed ------+  (a copy runs elsewhere,
       |  +---+ attempts left              the first result counts)
       |      |                                       |
       |      | no attempts left: the run stops and   |
       |      v names the shot                        |
       |   EXCLUDED                                   |
       +----------------------------------------------+

A stopped run may begin anew without its excluded shots (``data.quorum``, :mod:`hpcfwi.run.shot_exclusion`). A unit of work is
one shot, or a batch of consecutive shots with the same state. A batch that fails is computed again shot by shot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from hpcfwi.errors import ShotFailed
from hpcfwi.execution.window import Window

# Errors of a shot, and deaths of its workers (which may have other causes), after which the run stops.
MAX_ATTEMPTS, MAX_WORKER_DEATHS = 3, 4
# Workers that compute the same shot at most.
MAX_COPIES = 3
# A worker that hangs with a shot is restarted after this time if there is no other worker for the shot.
LONE_WORKER_TIMEOUT_S = 600.0


class State(Enum):
    """Where a unit is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    OVERDUE = "overdue"
    FAILED = "failed"
    DONE = "done"
    EXCLUDED = "excluded"


_NEXT = {
    State.QUEUED: {State.RUNNING},
    State.RUNNING: {State.OVERDUE, State.FAILED, State.DONE},
    State.OVERDUE: {
        State.FAILED,
        State.DONE,
        State.RUNNING,
    },  # running: the task that was late has failed, its copy runs
    State.FAILED: {State.QUEUED, State.EXCLUDED},
    State.DONE: {State.QUEUED, State.FAILED},
    State.EXCLUDED: set(),
}


@dataclass(frozen=True)
class Failure:
    """Where a shot failed (a Dask address, if it is known), why, whether its worker died, and its position in a batch."""

    worker: str
    reason: str
    died: bool = False
    position: int | None = None


@dataclass(eq=False)
class Unit:
    """One shot, or a batch of consecutive shots.

    Attributes
    ----------
    workers
        The worker of each of its running tasks, by the task's key; empty if the worker is unknown.
    late
        When each of its tasks that takes too long was noticed, by key.
    failures
        What went wrong so far.
    alone
        Whether a worker died with it: it shares the next worker with no other shot, so that another death names it.
    """

    shots: range
    batch: bool = False
    state: State = State.QUEUED
    workers: dict[str, str] = field(default_factory=dict)
    late: dict[str, float] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    alone: bool = False

    @property
    def first(self) -> int:
        """Index of its first shot."""
        return self.shots[0]

    def move(self, state: State) -> None:
        """Change the state, along an arrow of the diagram."""
        assert state in _NEXT[self.state], f"{self.state} -> {state}"
        self.state = state


class Shots:
    """The shots of one sum or map.

    Parameters
    ----------
    names
        Of all shots.
    batches
        Blocks of shots that are computed together.
    done
        Shots whose sums are on disk.
    block
        Consecutive shots whose sum is kept on disk: a run that stops finishes the blocks that it has begun.
    exit_reason
        Returns why the worker at an address died, if that is known.
    """

    def __init__(
        self,
        names: Sequence[str],
        batches: Sequence[range] = (),
        done: Collection[int] = (),
        block: int = 1,
        exit_reason: Callable[[str], str] = lambda _: "",
    ) -> None:
        self.names, self.block, self.exit_reason = names, block, exit_reason
        self.done = set(done)
        self.units: dict[int, Unit] = {}
        self.running: dict[str, Unit] = {}
        self.stopping = False
        self._late: dict[Unit, None] = {}
        self._again: dict[Unit, None] = {}
        together = set().union(*batches)
        alone = [Unit(range(i, i + 1)) for i in range(len(names)) if i not in together and i not in self.done]
        fresh = [*(Unit(shots, batch=True) for shots in batches), *alone]
        self.units.update((unit.first, unit) for unit in fresh)
        self._fresh = deque(fresh)

    # what to give

    def give(self, window: Window) -> Iterator[tuple[Unit, str]]:
        """Yield units and the workers to give them to; call :meth:`start` for each.

        Copies of shots that take too long come first, then shots that have failed, then the others in survey order.
        """
        if self._late or self._again:
            yield from self._give_again(window)
        while self._fresh:
            worker = window.pick()
            if worker is None:
                return
            yield self._fresh.popleft(), worker

    def _give_again(self, window: Window) -> Iterator[tuple[Unit, str]]:
        for unit in list(self._late):
            if not window.has_room:
                return
            busy = [worker for worker in unit.workers.values() if worker]
            hanging = {other.workers.get(late, "") for other in self.running.values() for late in other.late}
            worker = window.pick(tried=busy, never={*busy, *hanging})
            if worker is not None:
                del self._late[unit]
                yield unit, worker
        for unit in list(self._again):
            if not window.has_room:
                return
            worker = window.pick(tried=[failure.worker for failure in unit.failures], empty=unit.alone)
            if worker is not None:
                del self._again[unit]
                yield unit, worker

    def start(self, unit: Unit, key: str, worker: str) -> None:
        """Note that a task of a unit is given to a worker."""
        if unit.state is State.QUEUED:
            unit.move(State.RUNNING)
        unit.workers[key] = worker
        self.running[key] = unit

    # what became of it

    def finish(self, key: str) -> tuple[Unit, list[str], list[str]] | None:
        """Note the result of a task; None if another task of the unit was first.

        Returns
        -------
        unit, keys, workers
            The unit, its other tasks, and the workers on which those that are late hang.
        """
        unit = self.running.pop(key)
        unit.workers.pop(key)
        unit.late.pop(key, None)
        self._late.pop(unit, None)
        if unit.state is State.DONE:
            return None
        unit.move(State.DONE)
        unit.alone = False
        others, hanging = list(unit.workers), [unit.workers[other] for other in unit.late if other in unit.workers]
        for other in others:
            del self.running[other]
        unit.workers.clear()
        unit.late.clear()
        self.done.update(unit.shots)
        return unit, others, [worker for worker in hanging if worker]

    def fail(self, key: str, failure: Failure, blame: bool = True) -> Unit | None:
        """Note that a task failed; its unit, if that is queued again.

        Parameters
        ----------
        key, failure
            The task, and what is known.
        blame
            Whether it counts: where many workers vanish at once no shot is to blame.

        Raises
        ------
        ShotFailed
            If the shot has failed too often, with every reason.
        """
        unit = self.running.pop(key)
        unit.workers.pop(key)
        unit.late.pop(key, None)
        if unit.state is State.DONE:
            return None
        self._record(unit, failure, blame)
        if not unit.workers:
            return self._queue_again(unit, failure)
        if not unit.late:  # the late task has failed, its copy still runs
            self._late.pop(unit, None)
            if unit.state is State.OVERDUE:
                unit.move(State.RUNNING)
        elif not self.stopping:
            self._late[unit] = None
        return None

    def fail_done(self, index: int, failure: Failure, blame: bool = True) -> Unit | None:
        """Note that a shot was done, was lost with its worker, and failed when Dask computed it again."""
        self.done.discard(index)
        unit = self.units.setdefault(index, Unit(range(index, index + 1), state=State.DONE))
        self._record(unit, failure, blame)
        return self._queue_again(unit, failure)

    def _record(self, unit: Unit, failure: Failure, blame: bool) -> None:
        if not blame or unit.batch:
            return
        unit.failures.append(failure)
        unit.alone = unit.alone or failure.died
        deaths = sum(known.died for known in unit.failures)
        if deaths >= MAX_WORKER_DEATHS or len(unit.failures) - deaths >= MAX_ATTEMPTS:
            unit.move(State.FAILED)
            unit.move(State.EXCLUDED)
            raise self._error(unit)

    def _queue_again(self, unit: Unit, failure: Failure) -> Unit | None:
        unit.move(State.FAILED)
        self._late.pop(unit, None)
        if self.stopping:
            return None
        if unit.batch:
            del self.units[unit.first]
            self._add(unit.shots, alone=failure.died)
        else:
            unit.move(State.QUEUED)
            self._again[unit] = None
        return unit

    def _error(self, unit: Unit) -> ShotFailed:
        lines = []
        for failure in unit.failures:
            cause = self.exit_reason(failure.worker) if failure.died else ""
            lines.append(f"  {failure.reason}{': ' if cause and not cause.startswith(chr(10)) else ''}{cause}")
        return ShotFailed(self.names[unit.first], "\n".join([f"failed {len(lines)} times:", *lines]))

    def compute_again(self, shots: Iterable[int]) -> None:
        """Queue shots whose results, or the sums that they were in, are lost."""
        shots = list(shots)
        self.done.difference_update(shots)
        self._add(shots)

    def _add(self, shots: Iterable[int], alone: bool = False) -> None:
        if self.stopping:
            return
        for i in shots:
            known = self.units.get(i)
            failures = known.failures if known is not None and not known.batch else []
            self.units[i] = unit = Unit(range(i, i + 1), failures=failures, alone=alone)
            self._again[unit] = None

    def leave(self, keys: Iterable[str]) -> None:
        """Note that the workers of tasks are gone; Dask runs the tasks elsewhere, or they fail."""
        for key in keys:
            if key in self.running:
                self.running[key].workers[key] = ""

    # what takes too long

    def overdue(self, key: str, now: float) -> bool:
        """Note that a task takes too long, so that a copy of it goes to another worker; False if that is known."""
        unit = self.running.get(key)
        if unit is None or key in unit.late or unit.state is State.DONE:
            return False
        unit.late[key] = now
        if unit.state is State.RUNNING:
            unit.move(State.OVERDUE)
        if len(unit.workers) < MAX_COPIES and not self.stopping:
            self._late[unit] = None
        return True

    def hopeless(self, window: Window, now: float) -> list[str]:
        """Workers that hang with a shot for which there has been no other worker for :data:`LONE_WORKER_TIMEOUT_S`."""
        return [
            unit.workers[key]
            for unit in self._late
            if not window.others(unit.workers.values())
            for key, noticed in unit.late.items()
            if now - noticed > LONE_WORKER_TIMEOUT_S and unit.workers.get(key)
        ]

    def stop(self) -> None:
        """Begin no more blocks; units of blocks that are begun are still given."""
        self.stopping = True
        under_way = [i for unit in self.running.values() for i in unit.shots]
        begun = {i // self.block for i in (*self.done, *under_way)}
        self._late.clear()
        self._again = {unit: None for unit in self._again if unit.first // self.block in begun}
        self._fresh = deque(unit for unit in self._fresh if unit.first // self.block in begun)

    @property
    def has_again(self) -> bool:
        """Whether a shot that has failed, or that takes too long, waits for a worker."""
        return bool(self._again or self._late)

    @property
    def idle(self) -> bool:
        """Whether nothing is running or left to give."""
        return not (self.running or self._fresh or self._again)
