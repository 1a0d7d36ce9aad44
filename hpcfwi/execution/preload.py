"""Imports what shots need while the solver is still being built, and a steady clock; a preload script of Dask workers."""

from __future__ import annotations

import gc
from typing import Any

from hpcfwi.cluster.dask_internals import use_monotonic_clock
from hpcfwi.execution.plugins.worker_info import add_worker_info
from hpcfwi.process import gc_paused

__all__ = ["dask_setup", "dask_teardown"]

with gc_paused():
    import hpcfwi.execution.tasks  # noqa: F401


def dask_setup(worker: Any) -> None:
    """Called by Dask in the worker process, before it registers."""
    use_monotonic_clock()
    add_worker_info(worker)


def dask_teardown(_: Any) -> None:
    """Called by Dask when the worker ends: nothing is left that the collector should look at."""
    gc.freeze()
