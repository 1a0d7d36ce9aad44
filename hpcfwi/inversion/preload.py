"""Imports what shots need while the solver is still being built, and a steady clock; a preload script of Dask workers."""

from __future__ import annotations

import gc
from typing import Any

from hpcfwi.cluster.arrival import announce
from hpcfwi.cluster.clock import measure_steadily
from hpcfwi.collector import resting

with resting():
    import hpcfwi.inversion.shot  # noqa: F401

__all__ = ["dask_setup", "dask_teardown"]


def dask_setup(worker: Any) -> None:
    """Called by Dask in the worker process, before it registers."""
    measure_steadily()
    announce(worker)


def dask_teardown(_: Any) -> None:
    """Called by Dask when the worker ends: nothing is left that the collector should look at."""
    gc.freeze()
