"""The schedule of an evaluation without Devito and without Dask: discrete events, one for each shot that begins or ends.

What is imitated: the scheduler gives out shots in their order, and never more than so many to a worker; it handles one message
after the other, each of which takes it some time; between the end of a shot and the beginning of the next one that the worker
does not hold yet lies the way to the scheduler and back.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from hpcfwi.inversion.misfit import BLOCK

__all__ = ["Schedule", "simulate", "tree_depth"]


@dataclass(frozen=True)
class Schedule:
    """What became of the shots.

    Parameters
    ----------
    seconds
        Until the driver knew of the last one.
    busy
        Seconds for which all workers together were at shots.
    idle_at_end
        Mean over the workers of the seconds from a worker's last shot to the end of all.
    """

    seconds: float
    busy: float
    idle_at_end: float


def simulate(
    lengths: Sequence[float],
    arrivals: Sequence[float],
    gap: float = 0.0,
    per_shot: float = 0.0,
    held: int = 2,
) -> Schedule:
    """Give shots to workers until all are done.

    Parameters
    ----------
    lengths
        Seconds of each shot, in the order in which they are given out.
    arrivals
        When each worker is there, s after the beginning.
    gap
        Seconds that a worker waits between two shots where the scheduler has nothing else to do.
    per_shot
        Seconds of the scheduler for a shot; while it is at one, others wait.
    held
        Shots that a worker may have in hand, the one that it is at included.

    Returns
    -------
    Schedule
        Of these shots.
    """
    # of what the scheduler hears: when, how many that worker has in hand, and which one it is; workers get one shot each
    # before any of them gets a second
    heard = [(float(arrival), in_hand, number) for number, arrival in enumerate(arrivals) for in_hand in range(held)]
    heapq.heapify(heard)
    ends = [float(arrival) for arrival in arrivals]
    left, answered = deque(lengths), 0.0
    while left:
        when, _, worker = heapq.heappop(heard)
        answered = max(answered, when) + per_shot
        ends[worker] = max(ends[worker] + gap, answered) + left.popleft()
        heapq.heappush(heard, (ends[worker], held - 1, worker))
    total = max(*ends, answered) + gap
    idle = [total - end for end in ends]
    return Schedule(total, float(sum(lengths)), sum(idle) / len(idle))


def tree_depth(shots: int) -> int:
    """Levels of sums above the shots."""
    depth = 0
    while shots > 1:
        shots = -(-shots // BLOCK)
        depth += 1
    return depth
