"""Tasks on a Dask cluster: every shot gets done, elsewhere if need be, or the run stops and names it."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from distributed import Client, Future, as_completed

from hpcfwi.cluster.dask_internals import cancel_tasks
from hpcfwi.errors import HpcfwiError, Interrupted, RunError
from hpcfwi.execution.batching import should_batch
from hpcfwi.execution.plugins.stragglers import restart_workers
from hpcfwi.execution.reduction import SumTree
from hpcfwi.execution.retries import Attempts, failure_of, raise_data_error, reason_of
from hpcfwi.inversion.journal import Partials
from hpcfwi.inversion.misfit import FunctionalGradient
from hpcfwi.process import graceful_stop, stop_requested

__all__ = ["DaskExecutor"]

# Seconds between two looks at whether anybody is left to work.
POLL_INTERVAL_S = 1.0
# Seconds that a worker on which a shot hangs is borne with where there is no other.
LONE_WORKER_TIMEOUT_S = 600.0
# Durations of shots that the next ones' is estimated from, and tasks that a worker may have in hand.
REMEMBERED, IN_HAND = 200, 2

Progress = Callable[[int, int], None]
OnRetry = Callable[[str, str, str], None]
# Puts a finished part where it belongs, level and position in the tree of sums; returns what can now be made of it.
Place = tuple[int, int] | None
Take = Callable[[Place, Future], Future | None]


@dataclass
class _Watch:
    """When was looked, when a worker was seen, and until when those that are at work may go on."""

    looked: float = -math.inf
    seen: float = -math.inf
    until: float = math.inf


class DaskExecutor:
    """Runs one task for each shot, and trees of sums.

    Parameters
    ----------
    client
        Dask client; any number of workers, which may come and go.
    on_retry
        Called with (shot, worker, reason) when a task is started again.
    check
        Called about every second while there is no worker, with the seconds since there was one; raises when there is no
        hope for another.
    on_found
        Called with the shots of an evaluation whose sums are on disk, and with all, where an earlier start has left some.
    why
        Tells why the worker at an address died, if that is known.
    pressing
        Called about every second with the seconds that the tasks in hand may need; tells why no more should be begun, and
        the seconds that there are to finish those, or None.
    """

    def __init__(
        self,
        client: Client,
        on_retry: OnRetry = lambda *_: None,
        check: Callable[[float], None] = lambda _: None,
        on_found: Callable[[int, int], None] = lambda *_: None,
        why: Callable[[str], str] = lambda _: "",
        pressing: Callable[[float], tuple[str, float] | None] = lambda _: None,
    ) -> None:
        self.client = client
        self.on_retry = on_retry
        self.check = check
        self.on_found = on_found
        self.why = why
        self.pressing = pressing
        self._watch = _Watch()
        self._glance: Callable[[], None] = lambda: None
        self.seconds: deque[float] = deque(maxlen=REMEMBERED)
        # shots that a task of the last sum computed
        self.in_one_task = 1
        # when it was told that a task takes too long, by its key
        self._overdue: dict[str, float] = {}

    def wait_for_worker(self) -> None:
        """Return when there is a worker.

        Raises
        ------
        Interrupted
            If it has to end before.
        """
        began = time.monotonic()
        while not self.workers():
            self._stop_if_pressing()
            self.check(time.monotonic() - began)
            time.sleep(0.05)

    def overdue(self, key: str) -> None:
        """Note, in any thread, that a task takes far too long: a shot is started elsewhere, too, and the first result counts.

        The worker is ended where there is no other one for ten minutes; and that of a sum, or of one that is read, at once.
        """
        self._overdue.setdefault(key, time.monotonic())

    def map(
        self,
        function: Callable[..., Any],
        names: Sequence[str],
        arguments: Sequence[tuple[Any, ...]],
        keys: Sequence[str],
        progress: Progress = lambda *_: None,
    ) -> list[Any]:
        """Run ``function(*arguments[i])`` for each shot and return all results, in the order of the shots.

        Raises
        ------
        DataError
            If a shot cannot be used for reasons of its own.
        ShotFailed
            If a shot failed on every attempt.
        Interrupted
            If it has to end before all is done.
        """
        self._stop_if_pressing()
        results: list[Any] = [None] * len(names)

        def take(place: Place, future: Future) -> None:
            assert place is not None
            results[place[1]] = self._fetch(future)

        attempts = Attempts(self.client, function, names, arguments, keys, self.why)
        self._run(attempts, attempts.submit(range(len(names))), progress, take)
        return results

    def sum(
        self,
        function: Callable[..., FunctionalGradient],
        names: Sequence[str],
        arguments: Sequence[tuple[Any, ...]],
        keys: Sequence[str],
        progress: Progress = lambda *_: None,
        small: bool = False,
        partials: Partials | None = None,
        evaluation: str = "",
        bundled: bool | None = None,
    ) -> FunctionalGradient:
        """Add up ``function(*arguments[i])`` over the shots, in a tree whose shape depends on their order alone.

        The parts stay on the workers and are let go as soon as they are in a sum; only the root comes here. Of ``small``
        ones the last sum, of a handful, is made here, of parts that came while others were still computed.

        With ``partials`` the sums of one level are kept in files, and those that are there are not made again; where that
        level is the lowest, ``function`` gets its file's path as a last argument, and else None.

        Several shots make one task if they are ``bundled``, for None where that pays; ``function`` has to be a task.
        """
        self._stop_if_pressing()
        tree = SumTree(self.client, keys, small, partials, evaluation, self._fetch)
        if partials is not None:
            arguments = [(*rest, tree.kept_at(0, i)) for i, rest in enumerate(arguments)]
        futures, covered = tree.load()
        if covered:
            self.on_found(len(covered), len(names))
        attempts = Attempts(self.client, function, names, arguments, keys, self.why, tree.kept_shots)
        missing = [i for i in range(len(names)) if i not in covered]
        if bundled is None:
            seconds = tuple(self.seconds)  # to which Dask's thread adds
            bundled = should_batch(len(missing), len(self.workers()), median(seconds) if seconds else math.nan)
        bundles = tree.bundles(missing) if bundled else {}
        # in one list, which is emptied: a future that has a name here keeps its gradient on the workers until the end
        futures += attempts.submit_bundles(bundles, partial(tree.kept_at, 1))
        futures += attempts.submit(sorted(set(missing).difference(*bundles.values())))
        self.in_one_task = attempts.in_one_task
        self._run(attempts, futures, progress, tree.take, tree)
        return tree.root

    def _run(
        self, attempts: Attempts, futures: list[Future], progress: Progress, take: Take, tree: SumTree | None = None
    ) -> None:
        """Take results as they come, until there is nothing more to wait for.

        Raises
        ------
        Interrupted
            If it has to end before all is done.
        """
        waiting = as_completed(futures, loop=self.client.loop, raise_errors=False)
        total = len(attempts.names)
        # those that are read from files count from the start
        attempts.done = set(range(total)).difference(*map(attempts.shots, attempts.index))
        futures.clear()  # as_completed holds them as long as they are needed
        self._glance = partial(self._look, waiting, attempts)
        progress(len(attempts.done), total)
        try:
            with graceful_stop():
                for future in self._finished(waiting, attempts):
                    i = attempts.index.get(future.key)
                    if i is not None and i in attempts.done:
                        continue  # somebody else was faster
                    further, taken = self._taken(take, attempts.place(future.key), future)
                    if not taken and future.status not in ("error", "cancelled"):
                        # it was lost with its worker before it could be had: Dask makes it once more
                        waiting.add(future)
                    elif taken and i is not None:
                        self._let_go(attempts, i, future)
                        progress(len(attempts.done), total)
                        for again in attempts.suspects(self.workers) if not attempts.ending else ():
                            waiting.add(again)
                    elif not taken and not attempts.ending:
                        for again in self._again(attempts, tree, i, future):
                            waiting.add(again)
                    if further is not None:
                        waiting.add(further)
        finally:
            left = list(waiting.futures)
            if left:
                cancel_tasks(self.client, left)
        if attempts.ending and (len(attempts.done) < total or (tree is not None and tree.root is None)):
            raise Interrupted(attempts.ending)

    def _again(self, attempts: Attempts, tree: SumTree | None, index: int | None, failed: Future) -> list[Future]:
        """What is started anew in place of a task that failed."""
        if failed.key in attempts.bundles:
            return self._shots_again(attempts, failed)
        if index is not None:
            return self._shot_again(attempts, index, failed)
        assert tree is not None
        raise_data_error(failed)
        again, broken, shots = tree.failed(failed)
        started = [again] if again is not None else []
        for i, part in broken.items():
            attempts.done.discard(i)
            started += self._shot_again(attempts, i, part)
        if shots:
            self.on_retry(attempts.names[shots[0]], "", reason_of(failed))
            attempts.done -= set(shots)
            started += attempts.submit(shots)
        return started

    def _shot_again(self, attempts: Attempts, index: int, failed: Future) -> list[Future]:
        """Start a failed shot again on another worker, or stop the run with its name."""
        raise_data_error(failed)
        failure = attempts.note(index, failed)
        if attempts.left_running(index, failed):
            return []
        self.on_retry(attempts.names[index], failure.worker, failure.reason)
        return attempts.again(index, self.workers)

    def _shots_again(self, attempts: Attempts, failed: Future) -> list[Future]:
        """Start each shot of a bundle that failed by itself, unless another task is still at them."""
        raise_data_error(failed)
        shots, failure = attempts.shots(failed.key), failure_of(failed)
        if attempts.left_running(shots[0], failed):
            return []
        self.on_retry(attempts.names[shots[failure.place or 0]], failure.worker, failure.reason)
        return attempts.submit(shots)

    def _let_go(self, attempts: Attempts, index: int, first: Future) -> None:
        """Shots are done: those who are still at them need not go on, and whoever was overdue is not relied on any more."""
        attempts.done.update(attempts.shots(first.key))
        late, hanging = attempts.too_late(index, first)
        if late:
            cancel_tasks(self.client, late)
        if hanging:
            restart_workers(self.client, hanging)

    def _fetch(self, future: Future) -> Any:
        """Bring a result here; whoever has it may not answer, so it is seen meanwhile to what has to be seen to."""
        fetched = asyncio.run_coroutine_threadsafe(
            self.client.gather(future, asynchronous=True), self.client.loop.asyncio_loop
        )
        try:
            while not wait([fetched], POLL_INTERVAL_S).done:
                self._glance()
            return fetched.result()
        finally:
            fetched.cancel()

    @staticmethod
    def _taken(take: Take, place: Place, future: Future) -> tuple[Future | None, bool]:
        """Take a result; tell what it leads to, and whether there was one: it may be lost while it is fetched."""
        if future.status != "finished":
            return None, False
        try:
            return take(place, future), True
        except Exception as error:
            # what ends the run is no error of the fetching
            if future.status == "finished" or (isinstance(error, HpcfwiError) and future.status != "error"):
                raise
            return None, False

    def _finished(self, waiting: as_completed, attempts: Attempts) -> Iterator[Future]:
        """Futures in the order in which they end; an error when there is nobody to work on them, and no hope for anybody."""
        self._watch.seen = time.monotonic()
        while not waiting.is_empty():
            self._look(waiting, attempts)
            while not waiting.has_ready():
                with waiting.thread_condition:
                    if not waiting.has_ready():  # asked where no notification can be missed
                        waiting.thread_condition.wait(POLL_INTERVAL_S)
                self._look(waiting, attempts)
            yield next(waiting)

    def _look(self, waiting: as_completed, attempts: Attempts) -> None:
        """About once a second: is there anybody at work, is a shot overdue, is it time to end?"""
        now, watch = time.monotonic(), self._watch
        if now - watch.looked < POLL_INTERVAL_S and (attempts.ending or not stop_requested()):
            return
        watch.looked = now
        workers = self.workers()
        if workers:
            watch.seen = now
        elif attempts.ending:
            raise Interrupted(attempts.ending)
        else:
            self.check(now - watch.seen)
        if attempts.ending:
            if now > watch.until:
                raise Interrupted(attempts.ending)
            return
        for copy in self._elsewhere(attempts, workers):
            waiting.add(copy)
        pressing = self.pressing(self._needed(attempts.in_one_task, attempts.block, len(workers)))
        if pressing is not None:
            attempts.ending, grace = pressing
            watch.until = now + grace
            attempts.withdraw(list(waiting.futures))  # from which Dask's thread takes those that end

    def _needed(self, in_one_task: int = 1, block: int = 1, workers: int = 1) -> float:
        """Seconds that the tasks in hand may need, and the rest of a block that is begun."""
        rounds = IN_HAND + math.ceil(max(0.0, block / in_one_task - 1) / max(1, workers))
        return rounds * in_one_task * max(tuple(self.seconds), default=0.0)

    def _stop_if_pressing(self) -> None:
        """Raise where nothing should be begun any more."""
        pressing = self.pressing(self._needed())
        if pressing is not None:
            raise Interrupted(pressing[0])

    def _elsewhere(self, attempts: Attempts, workers: list[str]) -> Iterator[Future]:
        """Start what is overdue on other workers, too; or end its worker where that cannot be."""
        # asked for once: where all workers hang, as many tasks are overdue
        in_hand = attempts.in_hand() if self._overdue else {}
        for key, told in list(self._overdue.items()):
            hanging = in_hand.get(key, [])
            copy = None
            if hanging and attempts.waited_for(key):
                copy = attempts.elsewhere(key, in_hand, workers)
                if copy is None and time.monotonic() - told < LONE_WORKER_TIMEOUT_S:
                    continue  # perhaps another one comes
            if copy is not None:
                reason = "it takes far longer than others; perhaps its worker hangs"
                self.on_retry(attempts.names[attempts.index[key]], hanging[0], reason)
                yield copy
            elif hanging and (attempts.waited_for(key) or key not in attempts.index):
                restart_workers(self.client, hanging)
            del self._overdue[key]

    def workers(self) -> list[str]:
        """Addresses of the workers that there are."""
        try:
            # not scheduler_info(), which a refresh in the background may just have emptied, nor all that is known of each
            return list(self.client.nthreads())
        except (OSError, ValueError, RuntimeError) as error:
            raise RunError(f"the Dask scheduler does not answer any more ({type(error).__name__}: {error})") from None
