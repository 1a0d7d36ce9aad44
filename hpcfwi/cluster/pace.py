"""How long shots have to be to be dealt one by one, and how many a worker has in hand otherwise."""

from __future__ import annotations

__all__ = ["AGAIN", "in_hand", "longest_ahead"]

# Seconds that a worker is idle between two shots that it is given one by one (measured: 0.004 with small gradients, 0.008 where
# a sum of some MB comes between), and those that driver and scheduler need for each worker that has finished before it.
ROUND_TRIP, QUEUED = 0.01, 0.0015
# The part of a shot that this may be, and by how much shorter shots must be than that until they are dealt ahead again.
IDLE, AGAIN = 0.01, 0.5


def longest_ahead(workers: int) -> float:
    """Seconds of a shot from which on shots are dealt one by one to so many workers."""
    # where all end at the same time, one is behind half of the others
    return (ROUND_TRIP + QUEUED * workers / 2) / IDLE


def in_hand(seconds: float, workers: int) -> int:
    """Shots of this length that one of so many workers has in hand at a time."""
    return 1 if seconds >= AGAIN * longest_ahead(workers) else 2
