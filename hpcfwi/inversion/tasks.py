"""Tasks on a Dask cluster: every shot gets done, elsewhere if need be, or the run stops and names it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker

from hpcfwi.errors import DataError, HpcfwiError, RunError
from hpcfwi.inversion.functional import BLOCK, FunctionalGradient, blocks, total
from hpcfwi.inversion.shot import TaskFailure, add_parts

__all__ = ["ShotTasks", "key_of"]

ATTEMPTS = 3
# Seconds between two looks at whether anybody is left to work.
LOOK = 1.0

Progress = Callable[[int, int], None]
OnRetry = Callable[[str, str, str], None]


def key_of(*parts: object) -> str:
    """A task's name: a digest of all that its result depends on."""
    return hashlib.blake2b("\0".join(map(repr, parts)).encode(), digest_size=12).hexdigest()


class ShotTasks:
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
    """

    def __init__(
        self, client: Client, on_retry: OnRetry = lambda *_: None, check: Callable[[float], None] = lambda _: None
    ) -> None:
        self.client = client
        self.on_retry = on_retry
        self.check = check

    def wait_for_worker(self) -> None:
        """Return when there is a worker."""
        began = time.monotonic()
        while not self.workers():
            self.check(time.monotonic() - began)
            time.sleep(0.05)

    def gather(
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
        RunError
            If a shot failed on every attempt.
        """
        results: list[Any] = [None] * len(names)

        def take(index: int | None, future: Future) -> None:
            assert index is not None
            results[index] = future.result()

        self._run(function, names, arguments, keys, progress, take)
        return results

    def sum(
        self,
        function: Callable[..., FunctionalGradient],
        names: Sequence[str],
        arguments: Sequence[tuple[Any, ...]],
        keys: Sequence[str],
        progress: Progress = lambda *_: None,
        small: bool = False,
    ) -> FunctionalGradient:
        """Add up ``function(*arguments[i])`` over the shots, in a tree whose shape depends on their order alone.

        The parts stay on the workers and are let go as soon as they are in a sum; only the root comes here. Of ``small``
        ones the last sum, of a handful, is made here, of parts that came while others were still computed.
        """
        tree = _SumTree(self.client, keys, small)
        self._run(function, names, arguments, keys, progress, tree.take)
        return tree.root

    def _run(
        self,
        function: Callable[..., Any],
        names: Sequence[str],
        arguments: Sequence[tuple[Any, ...]],
        keys: Sequence[str],
        progress: Progress,
        take: Callable[[int | None, Future], Future | None],
    ) -> None:
        futures = self.client.map(
            function,
            *zip(*arguments, strict=True),
            key=[f"{function.__name__}-{name}-{key}" for name, key in zip(names, keys, strict=True)],
            pure=False,
        )
        index = {future.key: i for i, future in enumerate(futures)}
        failures: dict[int, list[_Failure]] = {}
        done = 0
        waiting = as_completed(futures, loop=self.client.loop, raise_errors=False)
        del futures  # as_completed holds them as long as they are needed
        progress(0, len(names))
        try:
            for future in self._finished(waiting):
                i = index.get(future.key)
                further, taken = self._taken(take, i, future)
                if not taken:
                    if i is None:
                        _stop_for_own_reasons(future)
                        raise RunError(f"a sum of gradients failed: {_reason(future)}")
                    again = self._again(function, names[i], arguments[i], keys[i], future, failures.setdefault(i, []))
                    index[again.key] = i
                    waiting.add(again)
                    continue
                if i is not None:
                    done += 1
                    progress(done, len(names))
                if further is not None:
                    waiting.add(further)
        finally:
            self.client.cancel(list(waiting.futures), force=True)

    @staticmethod
    def _taken(
        take: Callable[[int | None, Future], Future | None], index: int | None, future: Future
    ) -> tuple[Future | None, bool]:
        """Take a result; tell what it leads to, and whether there was one: it may be lost, and not be had a second time."""
        if future.status != "finished":
            return None, False
        try:
            return take(index, future), True
        except Exception:
            if future.status == "finished":
                raise
            return None, False

    def _finished(self, waiting: as_completed) -> Iterator[Future]:
        """Futures in the order in which they end; an error when there is nobody to work on them, and no hope for anybody."""
        seen = looked = time.monotonic()
        while not waiting.is_empty():
            while not waiting.has_ready():
                with waiting.thread_condition:
                    if not waiting.has_ready():  # asked where no notification can be missed
                        waiting.thread_condition.wait(LOOK)
                now = time.monotonic()
                if now - looked < LOOK:
                    continue
                looked = now
                if self.workers():
                    seen = now
                else:
                    self.check(now - seen)
            yield next(waiting)

    def workers(self) -> list[str]:
        """Addresses of the workers that there are."""
        try:
            # not scheduler_info(), which a refresh in the background may just have emptied
            return list(self.client.sync(self.client.scheduler.identity, n_workers=-1)["workers"])
        except (OSError, ValueError, RuntimeError) as error:
            raise RunError(f"the Dask scheduler does not answer any more ({type(error).__name__}: {error})") from None

    def _again(
        self,
        function: Callable[..., Any],
        name: str,
        args: tuple,
        key: str,
        failed: Future,
        failures: list[_Failure],
    ) -> Future:
        """Start a failed shot again on another worker, or stop the run with its name."""
        _stop_for_own_reasons(failed)
        error = None if failed.status == "cancelled" else failed.exception()
        culprit = error.worker if isinstance(error, TaskFailure) else ""
        failures.append(_Failure(culprit, _reason(failed)))
        if isinstance(error, KilledWorker) or len(failures) >= ATTEMPTS:
            tried = "\n".join(f"  {failure.reason}" for failure in failures)
            count = "once" if len(failures) == 1 else f"{len(failures)} times"
            raise RunError(
                f"shot {name} failed {count} and the run cannot go on without it:\n{tried}\n"
                "  Mend the cause and start the same command again; what was finished is kept."
            )
        self.on_retry(name, culprit, failures[-1].reason)
        workers = self.workers()
        tried_on = {failure.worker for failure in failures}
        others = [w for w in workers if w not in tried_on] or [w for w in workers if w != culprit]
        return self.client.submit(
            function,
            *args,
            key=f"{function.__name__}-{name}-{key}-attempt{len(failures) + 1}",
            pure=False,
            workers=others or None,
            allow_other_workers=bool(others),
        )


@dataclass(frozen=True)
class _Failure:
    """Where a task failed (an address, if it is known) and why."""

    worker: str
    reason: str


class _SumTree:
    """Adds finished parts block by block; a block is submitted when the last of its parts is there."""

    def __init__(self, client: Client, keys: Sequence[str], small: bool) -> None:
        self.client = client
        self.small = small
        self.root: Any = None
        self.fetched: dict[int, FunctionalGradient] = {}
        self.keys = [list(keys)]
        while len(self.keys[-1]) > 1:
            # the place in the tree is part of the name: blocks of equal shots are not the same task
            level = len(self.keys)
            self.keys.append([key_of("sum", level, i, *block) for i, block in enumerate(blocks(self.keys[-1]))])
        self.parts: list[dict[int, Future]] = [{} for _ in self.keys]
        self.places: dict[str, tuple[int, int]] = {}

    def take(self, index: int | None, future: Future) -> Future | None:
        """Put a finished part in its place; returns the sum that can now be made, if any."""
        level, position = (0, index) if index is not None else self.places.pop(future.key)
        if len(self.keys[level]) == 1:
            self.root = future.result()
            return None
        if self.small and len(self.keys[level + 1]) == 1:
            self.fetched[position] = future.result()
            if len(self.fetched) == len(self.keys[level]):
                self.root = total([self.fetched[i] for i in range(len(self.fetched))])
            return None
        parts, above = self.parts[level], position // BLOCK
        parts[position] = future
        members = range(above * BLOCK, min((above + 1) * BLOCK, len(self.keys[level])))
        if not all(member in parts for member in members):
            return None
        key = f"sum-{self.keys[level + 1][above]}"
        self.places[key] = (level + 1, above)
        # sums go before shots, since they free memory
        return self.client.submit(add_parts, [parts.pop(m) for m in members], key=key, pure=False, priority=10)


def _stop_for_own_reasons(failed: Future) -> None:
    """Raise the error of a shot that cannot be used anywhere."""
    if failed.status == "error" and isinstance(error := failed.exception(), DataError):
        raise error


def _reason(future: Future) -> str:
    """The failure in one line."""
    if future.status == "cancelled":
        return "the task was lost"
    error = future.exception()
    if isinstance(error, KilledWorker):
        return (
            f"{error.last_worker.address}, and others before it, died while they worked on it, perhaps for want of memory, or "
            "of the instructions that devito.target names"
        )
    text = str(error).partition("\n")[0]
    return text if isinstance(error, HpcfwiError) else f"{type(error).__name__}: {text}"
