"""A clock that nobody sets, for Dask and Tornado, which take the time of day to measure with.

Where that is set back by an hour while a run is on, what a worker has to say in two milliseconds would wait for an hour, and
where it is set forward all workers would seem to have been silent for as long.
"""

from __future__ import annotations

import sys
import time

import distributed.batched
import distributed.metrics
from tornado.ioloop import IOLoop

__all__ = ["measure_steadily", "steady_time"]

_set_at_the_start = time.time() - time.monotonic()
_time_of_day = distributed.metrics.time


def steady_time() -> float:
    """Seconds since 1970 as they were when this process began, and since then: goes on as the time of day should have."""
    return _set_at_the_start + time.monotonic()


def measure_steadily() -> None:
    """Give that clock to everything of Dask and Tornado in this process; at any time, since it begins where theirs is."""
    IOLoop.time = lambda _: steady_time()  # type: ignore[method-assign, assignment]
    for name, module in list(sys.modules.items()):
        if name.startswith("distributed.") and vars(module).get("time") is _time_of_day:
            module.time = steady_time  # type: ignore[attr-defined]
