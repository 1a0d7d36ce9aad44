"""Shots as Dask tasks: every shot is computed, elsewhere if need be, or the run stops and names it."""

from __future__ import annotations

import math
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import median
from threading import Thread
from typing import Any

from distributed import Client

from hpcfwi.errors import Interrupted, RunError
from hpcfwi.events.types import Event, HostExcluded, HostReadmitted, RunWarning, WorkerRestarted
from hpcfwi.execution.batching import should_batch
from hpcfwi.execution.dispatch import Dispatch
from hpcfwi.execution.reduction import SumTree
from hpcfwi.execution.shots import Shots
from hpcfwi.execution.window import DURATIONS_KEPT, Window, host_of
from hpcfwi.inversion.journal import Partials
from hpcfwi.inversion.misfit import FunctionalGradient

# A worker that hangs may take this long to restart.
RESTART_TIMEOUT_S = 20.0
# A clock that is set back by more than this is worth a warning.
CLOCK_TOLERANCE_S = 5.0

Progress = Callable[[int, int], None]


class DaskExecutor:
    """Runs a function once for each shot, and adds up the results; see :class:`hpcfwi.inversion.objective.ShotExecutor`.

    Parameters
    ----------
    client
        Dask client; any number of workers, which may come and go.
    window
        Decides which worker gets the next shot.
    on_retry
        Called with (shot, worker, reason) when a shot is started again.
    check_workers
        Called about every second while there is no worker, with the seconds since there was one; raises when there is no
        hope for another.
    on_sums_found
        Called with the shots of an evaluation whose sums are on disk, and with all, where an earlier start has left some.
    exit_reason
        Returns why the worker at an address died, if that is known.
    check_stop
        Called about every second with the seconds that the tasks in hand may need; returns why no more should begin, and
        the seconds that there are to finish those, or None.
    log_event
        Called with events: overdue tasks, restarted workers, excluded hosts, warnings.

    Attributes
    ----------
    in_one_task
        Shots that one task of the last sum computed.
    seconds
        Durations of the last shots, as their workers measured them; empty if they are not reported here.
    """

    def __init__(
        self,
        client: Client,
        window: Window | None = None,
        on_retry: Callable[[str, str, str], None] = lambda *_: None,
        check_workers: Callable[[float], None] = lambda _: None,
        on_sums_found: Callable[[int, int], None] = lambda *_: None,
        exit_reason: Callable[[str], str] = lambda _: "",
        check_stop: Callable[[float], tuple[str, float] | None] = lambda _: None,
        log_event: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.client, self.window = client, window or Window()
        self.on_retry, self.check_workers, self.on_sums_found = on_retry, check_workers, on_sums_found
        self.exit_reason, self.check_stop, self.log_event = exit_reason, check_stop, log_event
        self.window.on_excluded = lambda host, shots: log_event(HostExcluded(host=host, failed_shots=shots))
        self.window.on_readmitted = lambda host, shots: log_event(HostReadmitted(host=host, failed_shots=shots))
        self.seconds: deque[float] = deque(maxlen=DURATIONS_KEPT)
        self.in_one_task = 1
        self.blameless: set[str] = set()
        self._clock = _Clock()
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()

    # for any thread

    def wake(self) -> None:
        """Look at once which workers there are: one has come or gone."""
        self.events.put(None)

    def unresponsive(self, workers: Sequence[str]) -> None:
        """Note that Dask restarts workers that have sent no heartbeats.

        Where that happens to several at once (the driver itself was suspended) their deaths count against no shot and no host.
        """
        if len(workers) > 1:
            self.blameless.update(workers)

    # for the driver

    def workers(self) -> list[str]:
        """Addresses of the workers."""
        try:
            # not scheduler_info(), which knows few of many
            return list(self.client.nthreads())
        except (OSError, ValueError, RuntimeError) as error:
            raise RunError(f"the Dask scheduler does not answer any more ({type(error).__name__}: {error})") from None

    def wait_for_worker(self) -> None:
        """Return when there is a worker; raise Interrupted if the run has to stop before."""
        began = time.monotonic()
        while not self.workers():
            self._stop_early()
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
        self._stop_early()
        shots = Shots(names, exit_reason=self.exit_reason)
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

        The parts stay on the workers until they are in a sum; only the root comes here, or, of ``small`` gradients, its last
        parts. Blocks of shots are computed in one task each if they are ``batched``; None: where that is faster.
        """
        self._stop_early()
        tree = SumTree(keys, small, partials, evaluation)
        if partials is not None:
            arguments = [(*rest, tree.kept_at((0, i))) for i, rest in enumerate(arguments)]
        on_disk = tree.on_disk()
        covered = {i for found in on_disk.values() for i in found}
        if covered:
            self.on_sums_found(len(covered), len(names))
        missing = [i for i in range(len(names)) if i not in covered]
        if batched is None:
            seconds = tuple(self.seconds)  # to which Dask's thread adds
            batched = should_batch(len(missing), len(self.workers()), median(seconds) if seconds else math.nan)
        batches = tree.batches(missing) if batched else []
        self.in_one_task = max(map(len, batches), default=1)
        shots = Shots(names, batches, covered, tree.kept_shots, self.exit_reason)
        dispatch = Dispatch(self, function, arguments, keys, shots, tree, progress)
        dispatch.run(on_disk)
        return tree.root

    def needed_s(self, in_one_task: int = 1, block: int = 1, workers: int = 1) -> float:
        """Seconds that the tasks in hand may need, and the rest of a block that is begun."""
        rounds = self.window.depth + 1 + math.ceil(max(0.0, block / in_one_task - 1) / max(1, workers))
        return rounds * in_one_task * max(tuple(self.seconds), default=0.0)

    def _stop_early(self) -> None:
        stop = self.check_stop(self.needed_s())
        if stop is not None:
            raise Interrupted(stop[0])

    def restart(self, worker: str) -> None:
        """Have a worker that hangs restarted by its nanny, without waiting for it; its death counts against no shot."""
        if worker in self.blameless:
            return
        self.blameless.add(worker)
        self.window.drain([worker])
        self.log_event(WorkerRestarted(worker=worker, host=host_of(worker)))

        def restart() -> None:
            with suppress(Exception):  # the worker is gone, has no nanny, or the client is closed
                self.client.restart_workers([worker], timeout=RESTART_TIMEOUT_S, raise_for_error=False)

        Thread(target=restart, daemon=True).start()

    def look_at_clock(self) -> None:
        """Warn once if this machine's clock was set back."""
        seconds = self._clock.set_back_by()
        if seconds:
            message = (
                f"the clock of this machine was set back by {seconds:.0f} s: the run may stand still for as long. Nothing is "
                "lost: stop it (Ctrl-C) and give the same command again"
            )
            self.log_event(RunWarning(message=message))


class _Clock:
    """Compares the time of day, by which Dask sends its messages, with a clock that only goes forward.

    Set back by an hour, 2 of 3 runs with shots of 20 ms stood still for an hour, and those with shots of 1 s were undisturbed.
    Set forward, 6 of 6 runs were undisturbed. Replacing the clock inside Dask took private names of every module.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()
        self._warned = False

    def set_back_by(self) -> float:
        """Seconds by which the clock was set back since the last call, 0 for few; only the first time."""
        offset = time.time() - time.monotonic()
        seconds, self._offset = self._offset - offset, offset
        if seconds <= CLOCK_TOLERANCE_S or self._warned:
            return 0.0
        self._warned = True
        return seconds
