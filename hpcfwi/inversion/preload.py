"""Imports what shots need while the solver is still being built, and a steady clock; a preload script of Dask workers."""

from __future__ import annotations

import gc
from typing import Any

from hpcfwi.cluster.clock import measure_steadily
from hpcfwi.collector import resting

with resting():
    import hpcfwi.inversion.shot  # noqa: F401

__all__ = ["dask_setup", "dask_teardown"]


def dask_setup(_: Any) -> None:
    """Called by Dask in the worker process, before its first task."""
    measure_steadily()


def dask_teardown(_: Any) -> None:
    """Called by Dask when the worker ends: nothing is left that the collector should look at."""
    gc.freeze()
