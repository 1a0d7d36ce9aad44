"""The loop of one sum or map: assigns shots to workers, waits for events, and acts on them.

The next step depends on the states of the shots (:mod:`~hpcfwi.execution.shots`) and on the tasks assigned to each worker
(:mod:`~hpcfwi.execution.window`). A single thread owns this state. Results, lost workers and finished fetches arrive as
events; ``Future.add_done_callback`` takes 20-28 % less CPU for that than Dask's ``as_completed``.
"""

from __future__ import annotations

import asyncio
import math
import queue
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future as Fetch
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import dask
from distributed import Future
from distributed.scheduler import KilledWorker

from hpcfwi.cluster.dask_internals import run_stranded_tasks
from hpcfwi.errors import DataError, HpcfwiError, Interrupted
from hpcfwi.events.types import ShotRetried, TaskOverdue
from hpcfwi.execution.reduction import Node, SumTree
from hpcfwi.execution.shots import Failure, Shots, State, Unit
from hpcfwi.execution.tasks import TaskFailure, add_parts, add_shots, load_part
from hpcfwi.execution.window import host_of, queue_depth
from hpcfwi.inversion.functional_gradient import BLOCK
from hpcfwi.process import graceful_stop, stop_requested

if TYPE_CHECKING:
    from hpcfwi.execution.executor import DaskExecutor

POLL_INTERVAL_S = 1.0  # between two checks of workers, overdue tasks, the clock and stop conditions
SUM_TIMEOUT_S = 600.0  # a sum normally takes seconds; after this time its worker is restarted
SUM_PRIORITY = 10  # sums go before shots, since they free memory
# Tasks in one message to the scheduler. Dask warns above 10 MB; a shot with 10,000 receivers of its own takes 0.24 MB.
MAX_SUBMITTED = 32
BATCH_KEY = "batch"  # keys of batches begin with this word and a hyphen
FAILED = ("error", "cancelled")


@dataclass(eq=False)
class Dispatch:
    """One sum or map: its Dask tasks, and the loop that waits for them."""

    executor: DaskExecutor
    function: Callable[..., Any]
    arguments: Sequence[tuple[Any, ...]]
    keys: Sequence[str]
    shots: Shots
    tree: SumTree | None  # None for a map
    progress: Callable[[int, int], None]

    def __post_init__(self) -> None:
        self.client, self.window = self.executor.client, self.executor.window
        self.results: dict[int, Any] = {}  # by shot; used by a map only
        self.stop_reason: str | None = None
        self.stop_at = math.inf
        # a finished Future, a function that uses a fetched result, or None when a worker has joined or left
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.executor.events = self._events
        self._futures: dict[str, Future] = {}  # of all unfinished tasks
        # sums and files being read, by task key: the node, and when it was submitted
        self._nodes: dict[str, tuple[Node, float]] = {}
        self._fetches: set[Fetch[Any]] = set()
        self._used_keys: set[str] = set()
        self._polled_at = self._worker_seen_at = time.monotonic()

    @property
    def complete(self) -> bool:
        """Whether the driver has all results."""
        return len(self.results) == len(self.shots.names) if self.tree is None else self.tree.root is not None

    def run(self, on_disk: Iterable[Node] = ()) -> None:
        """Assign shots and collect results until the sum or map is complete.

        Raises DataError if a shot's data cannot be used, ShotFailed if a shot has failed too often, and Interrupted if the
        run has to stop early.
        """
        self.progress(len(self.shots.done), len(self.shots.names))
        try:
            with graceful_stop():
                for node in on_disk:
                    self._submit_node(node, load=True)
                self._update_workers()
                self._refill()
                while not self.complete:
                    self._handle(self._next_events())
                    stop_now = self.stop_reason is None and stop_requested()
                    if stop_now or time.monotonic() - self._polled_at >= POLL_INTERVAL_S:
                        self._poll()
                    idle = self.shots.idle and not (self._nodes or self._fetches)
                    if self.stop_reason is not None and idle and not self.complete:
                        raise Interrupted(self.stop_reason)
        finally:
            # Fetches go on, though nobody uses their results: Dask's client joins fetches, and after a cancelled one that had
            # not begun (Client._gather_future), all later ones would be cancelled, too.
            now = time.monotonic()
            for key in self._futures:
                self.window.end_task(key, now)
            if self._futures:
                self.client.cancel(list(self._futures.values()))

    def _next_events(self) -> list[Any]:
        """Return all queued events; wait for the first one until the next poll is due."""
        events = []
        with suppress(queue.Empty):
            events.append(self._events.get(timeout=max(0.0, self._polled_at + POLL_INTERVAL_S - time.monotonic())))
            while True:
                events.append(self._events.get_nowait())
        return events

    def _handle(self, events: list[Any]) -> None:
        """Update the states and assign the next shots before using the results, so that no worker has to wait."""
        now = time.monotonic()
        finished: list[tuple[Unit, Future]] = []
        failed: list[tuple[str, Future]] = []
        rest: list[Any] = []
        if None in events:
            self._update_workers()
        for event in filter(None, events):
            if callable(event):
                rest.append(event)
            elif self._futures.pop(event.key, None) is not None:  # else a copy of the task was faster
                unit = self.shots.running.get(event.key)
                if unit is None:
                    self.window.end_task(event.key, now)
                    rest.append(event)
                elif event.status in FAILED:
                    failed.append((self.window.worker_of(event.key), event))
                    self.window.end_task(event.key, now)
                else:
                    self.window.end_task(event.key, now, self._kind(unit))
                    self._finish(event.key)
                    finished.append((unit, event))
        for worker, future in failed:
            self._fail(future, worker)
        self._refill()
        # Dask keeps a result for as long as its future is referenced
        events.clear()
        needed: dict[Node, Future] = {}
        if finished:
            self.progress(len(self.shots.done), len(self.shots.names))
        while finished:
            unit, future = finished.pop(0)
            self._collect((1, unit.first // BLOCK) if unit.batch else (0, unit.first), future, needed)
        while rest:
            event = rest.pop(0)
            if callable(event):
                event()
            elif event.key in self._nodes:
                node, _ = self._nodes.pop(event.key)
                if event.status in FAILED:
                    self._repair(node, event)
                else:
                    self._collect(node, event, needed)
            event = None
        if needed:
            self._fetch(needed)
        if failed or self.shots.has_retries:
            self._refill()

    def _kind(self, unit: Unit) -> str:
        return BATCH_KEY if unit.batch else self.function.__name__

    def _refill(self) -> None:
        """Assign tasks to each worker up to the queue depth that suits their duration."""
        shots_per_task = self.executor.shots_per_task if self.tree is not None else 1
        kind = BATCH_KEY if shots_per_task > 1 else self.function.__name__
        reported = tuple(self.executor.seconds)
        estimates = [self.window.median_s(kind), shots_per_task * median(reported) if reported else math.nan]
        seconds = min((value for value in estimates if not math.isnan(value)), default=math.nan)
        self.window.depth = queue_depth(seconds, len(self.window.workers))
        tasks: defaultdict[Callable[..., Any], dict[str, tuple[Any, ...]]] = defaultdict(dict)
        for unit, worker in self.shots.assignments(self.window):
            key, function, arguments = self._assign(unit, worker)
            tasks[function][key] = arguments
        for function, by_key in tasks.items():
            # One message for all, so that Dask pickles shared arguments once. Dask calls `workers` with each key. Other workers
            # are allowed, else a task would wait for ever if its worker died. The timeout of 0 keeps later messages from
            # overtaking.
            workers = {key: self.window.worker_of(key) for key in by_key}.__getitem__
            columns = list(zip(*by_key.values(), strict=True))
            with dask.annotate(workers=workers, allow_other_workers=True):
                options = {"key": list(by_key), "batch_size": MAX_SUBMITTED, "fifo_timeout": 0, "pure": False}
                self._watch(self.client.map(function, *columns, **options))

    def _assign(self, unit: Unit, worker: str) -> tuple[str, Callable[..., Any], tuple[Any, ...]]:
        """Record that a worker gets a unit; return the task's key, function and arguments."""
        first = unit.first
        if unit.batch:
            assert self.tree is not None
            node = (1, first // BLOCK)
            name, function = f"{BATCH_KEY}-{self.tree.key(node)}", add_shots
            arguments = (self.function, [self.arguments[i] for i in unit.shots], self.tree.file_of(node))
        else:
            function, arguments = self.function, self.arguments[first]
            name = f"{self._kind(unit)}-{self.shots.names[first]}-{self.keys[first]}"
        key, repeated = name, 0
        while key in self._used_keys:
            repeated += 1
            key = f"{name}-again{repeated}"
        if unit.state is State.OVERDUE:
            hanging = next((unit.workers[late] for late in unit.late), "")
            self._log_retry(first, hanging, "it takes far longer than others; its worker may hang")
        self._used_keys.add(key)
        self.shots.start(unit, key, worker)
        self.window.add_task(worker, key, time.monotonic(), alone=unit.alone)
        return key, function, arguments

    def _submit_node(self, node: Node, load: bool = False) -> None:
        """Submit the sum of a node, or the reading of its file."""
        assert self.tree is not None
        key = f"{'load' if load else 'sum'}-{node[1]}-{self.tree.key(node)}"
        self._nodes[key] = (node, time.monotonic())
        file = self.tree.file_of(node)
        function, arguments = (load_part, (file,)) if load else (add_parts, (self.tree.parts_of(node), file))
        self._watch([self.client.submit(function, *arguments, key=key, priority=SUM_PRIORITY, pure=False)])

    def _watch(self, futures: Iterable[Future]) -> None:
        for future in futures:
            self._futures[future.key] = future
            future.add_done_callback(self._events.put)

    def _finish(self, key: str) -> None:
        """Record that a shot is done, cancel its other tasks, and restart the workers that hang on them."""
        others, hanging = self.shots.finish(key)
        slower = [future for other in others if (future := self._futures.pop(other, None)) is not None]
        for other in others:
            self.window.end_task(other, time.monotonic())
        if slower:
            self.client.cancel(slower)
        for worker in hanging:
            self.executor.restart(worker)

    def _collect(self, node: Node, future: Future, needed: dict[Node, Future]) -> None:
        """Add a finished part to ``needed`` if the driver fetches it, else to the tree; submit the sum that it completes."""
        if self.tree is None or self.tree.is_fetched(node):
            needed[node] = future
            return
        ready = self.tree.add(node, future)
        if ready is not None:
            self._submit_node(ready)

    def _fetch(self, parts: Mapping[Node, Future]) -> None:
        """Start to fetch results, without waiting: a worker that holds one may not answer."""
        results, loop = self.client.gather(list(parts.values()), asynchronous=True), self.client.loop.asyncio_loop
        fetch = asyncio.run_coroutine_threadsafe(results, loop)
        self._fetches.add(fetch)
        fetch.add_done_callback(lambda done: self._events.put(partial(self._use_fetched, parts, done)))

    def _use_fetched(self, parts: Mapping[Node, Future], fetch: Fetch[Any]) -> None:
        self._fetches.discard(fetch)
        if fetch.cancelled():
            return
        error = fetch.exception()
        if error is None:
            for node, value in zip(parts, fetch.result(), strict=True):
                if self.tree is None:
                    self.results[node[1]] = value
                else:
                    self.tree.add_fetched(node, value)
            return
        if len(parts) > 1:  # find out which one failed
            for node, future in parts.items():
                self._fetch({node: future})
            return
        [(node, future)] = parts.items()
        if future.status in FAILED:
            # the result was lost with its worker, and the task failed when Dask ran it again
            if node[0] == 0:
                self._lose_result(node[1], future)
            else:
                self._repair(node, future)
            self._refill()
        elif future.status == "finished":
            raise error
        else:
            self._fetch(parts)

    def _fail(self, future: Future, worker: str) -> None:
        """Queue a failed shot for another worker, or raise ShotFailed if it has failed too often."""
        failure, unit = self._failure(future, worker), self.shots.running.get(future.key)
        if failure.died:
            self.shots.lose_workers(self.window.remove(failure.worker))
        if unit is None:  # another task of the shot has just finished
            return
        shot = unit.shots[failure.position]
        if self.shots.fail(future.key, failure):
            self._log_retry(shot, failure.worker, failure.reason)
        if self.stop_reason is None and failure.blame and failure.worker:
            self.window.record_failure(failure.worker, self.shots.names[shot])

    def _lose_result(self, index: int, future: Future) -> None:
        """Queue a finished shot again: its result was lost, and it failed when Dask computed it again."""
        failure = self._failure(future)
        if self.shots.lose_result(index, failure):
            self._log_retry(index, failure.worker, failure.reason)

    def _log_retry(self, shot: int, worker: str, reason: str) -> None:
        self.executor.log_event(ShotRetried(shot=self.shots.names[shot], worker=worker, reason=reason))

    def _failure(self, failed: Future, given_to: str = "") -> Failure:
        """Return where and why a task failed."""
        if failed.status == "cancelled":
            return Failure("", "the task was lost")
        error = failed.exception()
        if isinstance(error, DataError):
            # a new error: Dask keeps the original one, with everything that its traceback refers to
            return Failure(given_to, error.problem, data_error=DataError(error.shot, error.problem))
        if isinstance(error, KilledWorker):
            worker = error.last_worker.address
            blame = worker not in self.executor.blameless
            return Failure(worker, f"its worker {worker} died", died=True, blame=blame)
        text = str(error).partition("\n")[0]
        reason = text if isinstance(error, HpcfwiError) else f"{type(error).__name__}: {text}"
        if isinstance(error, TaskFailure):
            return Failure(error.worker, reason, position=error.position)
        return Failure(given_to, reason)

    def _repair(self, node: Node, future: Future) -> None:
        """Repeat a failed sum, and first the shots that it needs if their results are lost."""
        assert self.tree is not None
        failure = self._failure(future)
        if failure.data_error is not None:
            raise failure.data_error
        reason = failure.reason
        if self.stop_reason is not None:
            return
        failed, lost = self.tree.repair(node, reason)
        if not (failed or lost):
            self._submit_node(node)
        for index, part in failed.items():
            self._lose_result(index, part)
        if lost:
            self._log_retry(lost[0], "", reason)
            self.shots.compute_again(lost)

    def _update_workers(self) -> None:
        workers = self.executor.workers()
        if not self.window.workers.keys() >= set(workers):
            run_stranded_tasks(self.client)
        self.shots.lose_workers(self.window.update(workers))
        nodes, count = self.executor.expected()
        self.window.incomplete = len(workers) < count and len(set(map(host_of, workers))) < nodes
        if workers:
            self._worker_seen_at = time.monotonic()

    def _poll(self) -> None:
        """Check the workers, overdue tasks, the clock and the stop conditions."""
        self._polled_at = now = time.monotonic()
        self._update_workers()
        self.executor.check_clock()
        if not self.window.workers:
            if self.stop_reason is not None:
                raise Interrupted(self.stop_reason)
            self.executor.check_workers(now - self._worker_seen_at)
        if self.stop_reason is None:
            self._check_overdue(now)
            shots_per_task, workers = self.executor.shots_per_task, len(self.window.workers)
            # with one sum for several shots, all blocks that have begun are finished
            block = self.shots.block + self.shots.near(workers) if self.shots.block > 1 else 1
            stop = self.executor.check_stop(self.executor.needed_s(shots_per_task, block, workers))
            if stop is not None:
                self.stop_reason, self.stop_at = stop[0], now + stop[1]
                self.shots.stop()
        elif now > self.stop_at:
            raise Interrupted(self.stop_reason)
        self._refill()

    def _check_overdue(self, now: float) -> None:
        """Copy overdue shots to other workers; restart workers that hang on a sum, or on a shot no other can take."""
        for key, worker, since in list(self.window.running_tasks()):
            unit = self.shots.running.get(key)
            limit = self.window.overdue_limit_s(self._kind(unit)) if unit is not None else math.inf
            if now - since > limit and self.shots.mark_overdue(key, now):
                rounded = {"seconds": round(now - since, 1), "limit_seconds": round(limit, 1)}
                self.executor.log_event(TaskOverdue(key=key, worker=worker, **rounded))
        for worker in self.shots.lone_workers(self.window, now):
            self.executor.restart(worker)
        oldest = min((since for _, since in self._nodes.values()), default=now)
        if now - oldest > SUM_TIMEOUT_S:
            # a sum may also wait behind a shot that its worker computes
            for worker, keys in self.client.processing().items():
                free_since = self.window.free_since(worker)
                if keys and free_since is not None and now - max(free_since, oldest) > SUM_TIMEOUT_S:
                    self.executor.restart(worker)
