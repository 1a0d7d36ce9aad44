"""Several shots in one task, where shots are so short, or workers so many, that driver and scheduler could not keep up.

A batch is a block of the sum: one worker computes its shots one after the other and adds them up, to the same bytes as if each
were a task. A batch that fails is computed again shot by shot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpcfwi.inversion.misfit import BLOCK

# Keys of these tasks begin with this word and a hyphen.
BATCH_KEY = "batch"
# All shots of a batch together take at most this long, so that a batch in hand ends in time after a signal.
MAX_BATCH_S = 10.0
# Batches balance the work less evenly: an evaluation must become shorter by this factor.
REQUIRED_SPEEDUP = 0.8


@dataclass(frozen=True)
class TaskOverhead:
    """CPU seconds of driver and scheduler, in one process, for a shot.

    Parameters
    ----------
    alone
        For a shot that is a task.
    batched
        For a shot of a batch.
    """

    alone: float
    batched: float


NO_OVERHEAD = TaskOverhead(0.0, 0.0)
# Measured by tests/benchmarks/driver_at_scale.py (many, batched); a run has no time to measure its own.
TYPICAL_OVERHEAD = TaskOverhead(0.0016, 0.00025)


def should_batch(shots: int, workers: int, seconds: float) -> bool:
    """Return whether an evaluation is done sooner in batches.

    Parameters
    ----------
    shots, workers
        Their numbers.
    seconds
        Duration of a typical shot; NaN if it is unknown.
    """
    if not workers or not BLOCK * seconds <= MAX_BATCH_S:
        return False
    alone = max(shots * TYPICAL_OVERHEAD.alone, seconds * math.ceil(shots / workers))
    batched = max(shots * TYPICAL_OVERHEAD.batched, BLOCK * seconds * math.ceil(shots / (BLOCK * workers)))
    return batched < REQUIRED_SPEEDUP * alone
