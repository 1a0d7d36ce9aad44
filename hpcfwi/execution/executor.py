"""The Dask executor: computes every shot, and retries a failed one on another worker until it has failed too often."""

import math
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from threading import Thread
from typing import Any

from distributed import Client

from hpcfwi.errors import Interrupted, RunError
from hpcfwi.events.types import Event, RunWarning, SumsFound, WorkerRestarted
from hpcfwi.execution.dispatch import Dispatch
from hpcfwi.execution.reduction import SumTree
from hpcfwi.execution.shots import Shots
from hpcfwi.execution.window import DURATIONS_KEPT, Window, host_of, should_batch
from hpcfwi.inversion.functional_gradient import FunctionalGradient
from hpcfwi.inversion.journal import Partials

RESTART_TIMEOUT_S = 20.0  # for the restart of a worker that hangs
CLOCK_TOLERANCE_S = 5.0  # warn if the clock is set back by more than this

Progress = Callable[[int, int], None]


@dataclass(eq=False)
class DaskExecutor:
    """Runs a function once for each shot, and adds up the results; see :class:`hpcfwi.inversion.objective.ShotExecutor`."""

    client: Client  # workers may join and leave at any time
    window: Window = field(default_factory=Window)  # decides which worker gets the next shot
    # called repeatedly without a worker, with the seconds since the last one left; raises if none is expected
    check_workers: Callable[[float], None] = lambda _: None
    exit_reason: Callable[[str], str] = lambda _: ""  # returns why the worker at an address died; empty if unknown
    # called repeatedly with the seconds that the assigned tasks may need; returns None, or the reason to start no
    # more tasks and the seconds left to finish the assigned ones
    check_stop: Callable[[float], tuple[str, float] | None] = lambda _: None
    # called with events: retried shots, overdue tasks, restarted workers, excluded hosts, sums on disk, warnings
    log_event: Callable[[Event], None] = lambda _: None
    expected: Callable[[], tuple[int, int]] = lambda: (0, 0)  # returns how many nodes and workers should join

    def __post_init__(self) -> None:
        self.window.log_event = self.log_event
        # durations of the last shots, measured by their workers and added in Dask's thread
        self.seconds: deque[float] = deque(maxlen=DURATIONS_KEPT)
        self.shots_per_task = 1  # in the last sum
        self._last_worker: dict[str, str] = {}  # of each shot, by its name
        self.blameless: set[str] = set()  # workers whose death is not blamed on a shot or host
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()  # of the current sum or map
        self._clock_offset: float | None = time.time() - time.monotonic()

    def wake(self) -> None:
        """Check the workers at once, since one has joined or left. Thread-safe."""
        self.events.put(None)

    def record_unresponsive(self, workers: Sequence[str]) -> None:
        """Record that Dask restarts workers that have stopped sending heartbeats. Thread-safe.

        If there are several at once, the driver itself was most likely suspended, so no shot or host is blamed.
        """
        if len(workers) > 1:
            self.blameless.update(workers)

    def workers(self) -> list[str]:
        """Addresses of the workers."""
        try:
            # scheduler_info() lists only a few of many workers
            return list(self.client.nthreads())
        except (OSError, ValueError, RuntimeError) as error:
            raise RunError(f"the Dask scheduler no longer answers ({type(error).__name__}: {error})") from None

    def wait_for_worker(self) -> None:
        """Wait for the first worker; raise Interrupted if the run has to stop first, or what ``check_workers`` raises."""
        began = time.monotonic()
        while not self.workers():
            self._check_stop()
            self.check_workers(time.monotonic() - began)
            time.sleep(0.05)

    def map(
        self,
        function: Callable[..., Any],
        names: Sequence[str],
        arguments: Sequence[tuple[Any, ...]],
        keys: Sequence[str],
        progress: Progress = lambda *_: None,
    ) -> list[Any]:
        """Run ``function(*arguments[i])`` for each shot and return all results, in the order of the shots."""
        self._check_stop()
        shots = Shots(names, exit_reason=self.exit_reason, last_worker=self._last_worker)
        dispatch = Dispatch(self, function, arguments, keys, shots, None, progress)
        dispatch.run()
        return [dispatch.results[i] for i in range(len(names))]

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
        batched: bool | None = None,
    ) -> FunctionalGradient:
        """Add up ``function(*arguments[i])`` over the shots, in a tree whose shape depends on their order alone.

        Parts stay on the workers until they are added. The driver fetches only the root, or the root's parts if gradients
        are ``small``. If ``batched``, one task computes a whole block of shots; None chooses the faster way.
        """
        self._check_stop()
        tree = SumTree(keys, small, partials, evaluation)
        if partials is not None:
            arguments = [(*rest, tree.file_of((0, i))) for i, rest in enumerate(arguments)]
        on_disk = tree.nodes_on_disk()
        covered = {i for found in on_disk.values() for i in found}
        if covered:
            self.log_event(SumsFound(shots=len(covered), shots_total=len(names)))
        missing = [i for i in range(len(names)) if i not in covered]
        if batched is None:
            seconds = tuple(self.seconds)
            batched = should_batch(len(missing), len(self.workers()), median(seconds) if seconds else math.nan)
        batches = tree.batches(missing) if batched else []
        self.shots_per_task = max(map(len, batches), default=1)
        shots = Shots(names, batches, covered, tree.kept_shots, self.exit_reason, self._last_worker)
        Dispatch(self, function, arguments, keys, shots, tree, progress).run(on_disk)
        return tree.root

    def needed_s(self, shots_per_task: int = 1, block: int = 1, workers: int = 1) -> float:
        """Upper estimate, s, of the time to finish the assigned tasks and the rest of ``block`` shots."""
        rounds = self.window.depth + 1 + math.ceil(max(0.0, block / shots_per_task - 1) / max(1, workers))
        return rounds * shots_per_task * max(tuple(self.seconds), default=self.window.longest_task_s)

    def _check_stop(self) -> None:
        stop = self.check_stop(self.needed_s())
        if stop is not None:
            raise Interrupted(stop[0])

    def restart(self, worker: str) -> None:
        """Ask the nanny to restart a worker that hangs, without waiting; no shot is blamed for its death."""
        if worker in self.blameless:
            return
        self.blameless.add(worker)
        self.window.drain([worker])
        self.log_event(WorkerRestarted(worker=worker, host=host_of(worker)))

        def restart() -> None:
            with suppress(Exception):  # the worker is gone, has no nanny, or the client is closed
                self.client.restart_workers([worker], timeout=RESTART_TIMEOUT_S, raise_for_error=False)

        Thread(target=restart, daemon=True).start()

    def check_clock(self) -> None:
        """Warn once if this machine's clock was set back: Dask schedules its messages by the time of day.

        With the clock set back by an hour, 2 of 3 runs with shots of 20 ms paused for an hour; runs with shots of 1 s, and
        all 6 with the clock set forward, were unaffected. To give Dask another clock would take private names of many modules.
        """
        if self._clock_offset is None:
            return
        offset = time.time() - time.monotonic()
        seconds, self._clock_offset = self._clock_offset - offset, offset
        if seconds > CLOCK_TOLERANCE_S:
            self._clock_offset = None
            message = (
                f"the clock of this machine was set back by {seconds:.0f} s: the run may pause for as long. Nothing is lost: "
                "stop it (Ctrl-C) and type the same command again"
            )
            self.log_event(RunWarning(message=message))
