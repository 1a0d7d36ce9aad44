"""Several shots in one task, where shots are so short, or workers so many, that driver and scheduler could not keep up.

A bundle is a block of the sum: one worker computes its shots one after the other and adds them up, to the same bytes as if
each had been a task. What is lost with it is computed again shot by shot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpcfwi.inversion.misfit import BLOCK

__all__ = ["BATCH_KEY", "NO_OVERHEAD", "TYPICAL_OVERHEAD", "TaskOverhead", "should_batch"]

# What the keys of these tasks begin with, up to a hyphen.
BATCH_KEY = "bundle"
# Seconds that all shots of a bundle may take: there are as many for what is in hand after a signal.
MAX_BATCH_S = 10.0
# By how much shorter an evaluation has to be with bundles, since less of it is balanced between workers.
REQUIRED_SPEEDUP = 0.8


@dataclass(frozen=True)
class TaskOverhead:
    """What driver and scheduler are at work for a shot, whatever it is, in seconds of their one process.

    Parameters
    ----------
    alone
        For one that is a task.
    bundled
        For one of a bundle.
    """

    alone: float = 0.0
    bundled: float = 0.0


NO_OVERHEAD = TaskOverhead()
# As measured (tests/benchmarks/driver_at_scale.py); what a run goes by, which has no time to measure it.
TYPICAL_OVERHEAD = TaskOverhead(0.0012, 0.0002)


def should_batch(shots: int, workers: int, seconds: float) -> bool:
    """Whether so many shots are done sooner in bundles.

    Parameters
    ----------
    shots, workers
        How many there are.
    seconds
        Of a typical shot; NaN where nobody knows.
    """
    if not workers or not BLOCK * seconds <= MAX_BATCH_S:
        return False
    alone = max(shots * TYPICAL_OVERHEAD.alone, seconds * math.ceil(shots / workers))
    bundled = max(shots * TYPICAL_OVERHEAD.bundled, BLOCK * seconds * math.ceil(shots / (BLOCK * workers)))
    return bundled < REQUIRED_SPEEDUP * alone
