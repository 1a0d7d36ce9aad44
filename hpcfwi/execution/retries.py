"""The shots of one evaluation as Dask tasks: where each is being computed, where it has failed, and where it goes next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from hpcfwi.cluster.dask_internals import cancel_unstarted
from hpcfwi.errors import DataError, HpcfwiError, ShotFailed
from hpcfwi.execution.batching import BATCH_KEY
from hpcfwi.execution.plugins.host_exclusion import host_of
from hpcfwi.execution.tasks import TaskFailure, add_shots
from hpcfwi.inversion.misfit import BLOCK

__all__ = ["Attempts", "Suspects", "failure_of", "raise_data_error", "reason_of"]

# Errors of a shot, and deaths of workers amid it (which may have had other causes), after which the run stops.
MAX_ATTEMPTS, MAX_WORKER_DEATHS = 3, 4
# Tasks that are at the same shot at most, where one after the other takes too long.
MAX_COPIES = 3


@dataclass(frozen=True)
class Failure:
    """Where a shot failed (a Dask address, if it is known), why, whether its worker died, and which of several it was."""

    worker: str
    reason: str
    died: bool
    place: int | None = None


@dataclass
class _Copies:
    """Tasks that are at the same shot, and the workers of those that take too long, by their keys."""

    tasks: list[Future]
    hanging: dict[str, list[str]] = field(default_factory=dict)


class Attempts:
    """Shots as tasks, and what became of them.

    Parameters
    ----------
    client
        Dask client.
    function, names, arguments, keys
        What is run, and for each shot its name, the arguments, and a digest of all that the result depends on.
    why
        Tells why a worker died, if that is known.
    block
        Consecutive shots whose sum is kept on disk: it is of no use to end in the middle of one.

    Attributes
    ----------
    index
        The shot of each task, by the task's key; the first one of several.
    bundles
        The shots of each task that computes several, by the task's key.
    done
        Shots whose result has been taken.
    ending
        Why no more is begun; empty while all goes on.
    """

    def __init__(
        self,
        client: Client,
        function: Callable[..., Any],
        names: Sequence[str],
        arguments: Sequence[tuple[Any, ...]],
        keys: Sequence[str],
        why: Callable[[str], str] = lambda _: "",
        block: int = 1,
    ) -> None:
        self.client, self.why, self.block = client, why, block
        self.function, self.names, self.arguments, self.keys = function, names, arguments, keys
        self.index: dict[str, int] = {}
        self.bundles: dict[str, range] = {}
        self._keep: Callable[[int], Path | None] = lambda _: None
        self.done: set[int] = set()
        self.ending = ""
        self._failures: dict[int, list[Failure]] = {}
        # of shots that several tasks are at
        self._copies: dict[int, _Copies] = {}
        self._suspects = Suspects()
        self._repeated = 0

    def submit(self, shots: Sequence[int]) -> list[Future]:
        """Start shots, in their order."""
        if not shots:
            return []
        keys = [self._new_key(i, self.function.__name__) for i in shots]
        self.index.update(zip(keys, shots, strict=True))
        return self.client.map(
            self.function, *zip(*(self.arguments[i] for i in shots), strict=True), key=keys, pure=False
        )

    def submit_bundles(self, bundles: Mapping[str, range], keep: Callable[[int], Path | None]) -> list[Future]:
        """Start tasks that compute several shots each, by their keys; ``keep`` says where the n-th block's sum is kept."""
        if not bundles:
            return []
        self._keep = keep
        self.bundles.update(bundles)
        self.index.update((key, shots[0]) for key, shots in bundles.items())
        arguments = zip(*map(self._bundled, bundles.values()), strict=True)
        return self.client.map(add_shots, *arguments, key=list(bundles), pure=False)

    def _bundled(self, shots: range) -> tuple[Callable[..., Any], list[tuple[Any, ...]], Path | None]:
        """What a task needs that computes several shots."""
        return self.function, [self.arguments[i] for i in shots], self._keep(shots[0] // BLOCK)

    def shots(self, key: str) -> range:
        """Those that a task computes; none for one that adds or reads."""
        first = self.index.get(key)
        return self.bundles.get(key, range(0) if first is None else range(first, first + 1))

    def place(self, key: str) -> tuple[int, int] | None:
        """Level and position in the tree of sums of what a task computes; None for one that adds or reads."""
        first = self.index.get(key)
        if first is None:
            return None
        return (1, first // BLOCK) if key in self.bundles else (0, first)

    @property
    def in_one_task(self) -> int:
        """Shots that a task computes at most."""
        return max(map(len, self.bundles.values()), default=1)

    def note(self, index: int, failed: Future) -> Failure:
        """Note a failure.

        Raises
        ------
        ShotFailed
            If it has failed too often, with every reason.
        """
        failure = failure_of(failed)
        failures = self._failures.setdefault(index, [])
        failures.append(failure)
        deaths = sum(known.died for known in failures)
        if deaths >= MAX_WORKER_DEATHS or len(failures) - deaths >= MAX_ATTEMPTS:
            tried = "\n".join(f"  {self._told(known)}" for known in failures)
            raise ShotFailed(self.names[index], f"failed {len(failures)} times:\n{tried}")
        return failure

    def _told(self, failure: Failure) -> str:
        """A failure, with what is known of the worker's death by now."""
        cause = self.why(failure.worker) if failure.died else ""
        return f"{failure.reason}{'' if cause[:1] in ('', chr(10)) else ': '}{cause}"

    def again(self, index: int, workers: Callable[[], Sequence[str]]) -> list[Future]:
        """Start a shot that failed: on a host where it has not failed yet, if there is one, else on another worker."""
        failure = self._failures[index][-1]
        if not failure.died:
            return [self._elsewhere_than_before(index, workers())]
        self._suspects.add(index, failure.worker)
        return self.suspects(workers)

    def suspects(self, workers: Callable[[], Sequence[str]]) -> list[Future]:
        """Start those shots whose worker died that have waited for another one to be done."""
        return [self._elsewhere_than_before(index, workers()) for index in self._suspects.next(self.done)]

    def _elsewhere_than_before(self, index: int, workers: Sequence[str]) -> Future:
        return self._start(index, _apart_from([known.worker for known in self._failures[index]], workers))

    def waited_for(self, key: str) -> bool:
        """Whether a task that takes too long is one of these, and nothing has been done about it yet."""
        index = self.index.get(key)
        if index is None or index in self.done:
            return False
        copies = self._copies.get(index, _Copies([]))
        return key not in copies.hanging and len(copies.tasks) < MAX_COPIES

    def elsewhere(self, key: str, in_hand: Mapping[str, list[str]], workers: Sequence[str]) -> Future | None:
        """Start a shot once more while a worker is still at it, as another is not; None where there is no such worker."""
        index, hanging = self.index[key], in_hand[key]
        copies = self._copies.get(index) or _Copies([Future(key, client=self.client)])
        taken = [*hanging, *(worker for task in copies.tasks for worker in in_hand.get(task.key, ()))]
        others = [worker for worker in _apart_from(taken, workers) if worker not in taken]
        if not others:
            return None
        copy = self._start(index, others, self.bundles.get(key))
        copies.tasks.append(copy)
        copies.hanging[key] = hanging
        self._copies[index] = copies
        return copy

    def withdraw(self, futures: Iterable[Future]) -> None:
        """Take back those of these that are shots of blocks which no worker has begun."""
        begun = {i // self.block for i in self.done}
        waiting: dict[int, list[Future]] = {}
        for future in futures:
            first = self.index.get(future.key)
            if first is not None and first // self.block not in begun:
                waiting.setdefault(first // self.block, []).append(future)
        cancel_unstarted(self.client, waiting.values())

    def left_running(self, index: int, failed: Future) -> bool:
        """Whether another task is still at a shot of which one has failed."""
        copies = self._copies.pop(index, None)
        if copies is None:
            return False
        copies.tasks = [other for other in copies.tasks if other.key != failed.key]
        copies.hanging.pop(failed.key, None)
        if len(copies.tasks) > 1:
            self._copies[index] = copies
        return any(other.status == "pending" for other in copies.tasks)

    def too_late(self, index: int, done: Future) -> tuple[list[Future], list[str]]:
        """Other tasks for a shot that is done, and the workers on which they hang."""
        copies = self._copies.pop(index, _Copies([]))
        late = [other for other in copies.tasks if other.key != done.key]
        hanging = [worker for key, workers in copies.hanging.items() if key != done.key for worker in workers]
        return late, hanging

    def in_hand(self) -> dict[str, list[str]]:
        """The workers that have each task in hand, by its key."""
        found: dict[str, list[str]] = {}
        for worker, keys in self.client.processing().items():
            for key in keys:
                found.setdefault(key, []).append(worker)
        return found

    def _start(self, index: int, workers: list[str], bundle: range | None = None) -> Future:
        function, arguments = self.function, self.arguments[index]
        key = self._new_key(index, function.__name__ if bundle is None else BATCH_KEY)
        self.index[key] = index
        if bundle is not None:
            self.bundles[key] = bundle
            function, arguments = add_shots, self._bundled(bundle)
        return self.client.submit(
            function,
            *arguments,
            key=key,
            pure=False,
            workers=workers or None,
            allow_other_workers=bool(workers),
        )

    def _new_key(self, index: int, kind: str) -> str:
        """A task's name: all that its result depends on, and what is needed to be another task than an earlier one."""
        key = f"{kind}-{self.names[index]}-{self.keys[index]}"
        if key not in self.index:
            return key
        self._repeated += 1
        return f"{key}-again{self._repeated}"


def _apart_from(tried: Sequence[str], workers: Sequence[str]) -> list[str]:
    """Workers on hosts that were not tried, or else those that were not tried, or else all but the last."""
    hosts = {host_of(worker) for worker in tried if worker}
    return (
        [worker for worker in workers if host_of(worker) not in hosts]
        or [worker for worker in workers if worker not in tried]
        or [worker for worker in workers if worker != tried[-1]]
    )


def raise_data_error(failed: Future) -> None:
    """Raise the error of a shot that cannot be used anywhere."""
    if failed.status == "error" and isinstance(error := failed.exception(), DataError):
        # not the error itself, which Dask keeps, and with it all that its traceback refers to
        raise DataError(error.shot, error.problem)


def failure_of(failed: Future) -> Failure:
    """Where a task failed, and why."""
    error = None if failed.status == "cancelled" else failed.exception()
    died = isinstance(error, KilledWorker)
    worker = error.last_worker.address if isinstance(error, KilledWorker) else getattr(error, "worker", "")
    place = error.place if isinstance(error, TaskFailure) else None
    return Failure(worker if died or isinstance(error, TaskFailure) else "", reason_of(failed), died, place)


def reason_of(failed: Future) -> str:
    """A failure in one line."""
    if failed.status == "cancelled":
        return "the task was lost"
    error = failed.exception()
    if isinstance(error, KilledWorker):
        return f"its worker {error.last_worker.address} died"
    text = str(error).partition("\n")[0]
    return text if isinstance(error, HpcfwiError) else f"{type(error).__name__}: {text}"


@dataclass
class _Group:
    """Shots of which one may have ended their workers, and the one that is being tried again."""

    workers: set[str] = field(default_factory=set)
    waiting: deque[int] = field(default_factory=deque)
    tried: int | None = None


class Suspects:
    """Tries shots that were on a dead worker together one at a time.

    A worker has two shots or more in hand. Where one of them ends it, all of them have failed; started again together, they
    would fail together until the run stops with the name of the wrong one.
    """

    def __init__(self) -> None:
        self._groups: list[_Group] = []

    def add(self, shot: int, worker: str) -> None:
        """Note that a shot was on a worker that has died."""
        all_of_them = _Group({worker})
        for group in [group for group in self._groups if worker in group.workers or group.tried == shot]:
            self._groups.remove(group)
            all_of_them.workers |= group.workers
            all_of_them.waiting += group.waiting
            if group.tried != shot:
                all_of_them.tried = group.tried
        all_of_them.waiting.append(shot)
        self._groups.append(all_of_them)

    def next(self, done: Collection[int]) -> list[int]:
        """Shots to be started now, given those that are done."""
        started = []
        for group in self._groups:
            if group.tried in done:
                group.tried = None
            if group.tried is None and group.waiting:
                group.tried = group.waiting.popleft()
                started.append(group.tried)
        self._groups = [group for group in self._groups if group.tried is not None]
        return started
