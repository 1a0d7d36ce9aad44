"""Imports what shots need while the solver is still being built; a preload script of Dask workers."""

from __future__ import annotations

import gc
from typing import Any

from hpcfwi.collector import resting

with resting():
    import hpcfwi.inversion.shot  # noqa: F401

__all__ = ["dask_teardown"]


def dask_teardown(_: Any) -> None:
    """Called by Dask when the worker ends: nothing is left that the collector should look at."""
    gc.freeze()
