"""A discrete-event simulation of scheduler and workers, message by message: the oracle for the list scheduling of forecasts."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence


class Simulation:
    """Driver and scheduler give out tasks in their order; every change of state is an event.

    Parameters
    ----------
    durations
        Seconds of each task.
    workers
        Number of workers.
    gap
        Seconds that a worker needs between two tasks, and to report the last one.
    handling
        Seconds that the scheduler needs to answer a request for a task; requests wait in a line.
    depth
        Tasks that a worker may have in hand.
    """

    def __init__(
        self, durations: Sequence[float], workers: int, gap: float = 0.0, handling: float = 0.0, depth: int = 1
    ) -> None:
        self.left, self.gap, self.handling, self.depth = deque(durations), gap, handling, depth
        self.events: list[tuple[float, int, str, float]] = []
        self.requests = deque(worker for _ in range(depth) for worker in range(workers))
        self.answering = False
        self.in_hand: list[deque[float]] = [deque() for _ in range(workers)]
        self.computing = [False] * workers
        self.free_since = [0.0] * workers
        self.most_in_hand = 0
        self.seconds = 0.0
        self._answer(0.0)
        while self.events:
            now, worker, kind, duration = heapq.heappop(self.events)
            if kind == "answered":
                self._deliver(now, worker, duration)
            else:
                self._end(now, worker)
        self.seconds += gap

    def _answer(self, now: float) -> None:
        """Begin to answer the next request, unless another one is being answered."""
        if not self.answering and self.requests and self.left:
            self.answering = True
            event = (now + self.handling, self.requests.popleft(), "answered", self.left.popleft())
            heapq.heappush(self.events, event)

    def _deliver(self, now: float, worker: int, duration: float) -> None:
        self.in_hand[worker].append(duration)
        self.most_in_hand = max(self.most_in_hand, len(self.in_hand[worker]))
        if not self.computing[worker]:
            self._begin(now, worker)
        self.answering = False
        self._answer(now)

    def _begin(self, now: float, worker: int) -> None:
        """Compute the next task in hand; it stays there until it ends."""
        self.computing[worker] = True
        start = max(now, self.free_since[worker] + self.gap)
        heapq.heappush(self.events, (start + self.in_hand[worker][0], worker, "ended", 0.0))

    def _end(self, now: float, worker: int) -> None:
        self.in_hand[worker].popleft()
        self.computing[worker], self.free_since[worker], self.seconds = False, now, now
        if self.in_hand[worker]:
            self._begin(now, worker)
        self.requests.append(worker)
        self._answer(now)


def simulate(
    durations: Sequence[float], workers: int, gap: float = 0.0, handling: float = 0.0, depth: int = 1
) -> float:
    """Seconds until the driver knows that all tasks are done."""
    return Simulation(durations, workers, gap, handling, depth).seconds
