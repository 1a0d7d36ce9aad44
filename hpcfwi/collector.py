"""Python's garbage collector, and when it may rest."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["resting"]


@contextmanager
def resting() -> Iterator[None]:
    """Make what stays: the collector rests inside, and does not look at what was made, until ``gc.unfreeze()``.

    Devito and sympy are some hundred thousand objects, in which there is little garbage. Each look at them takes a tenth
    of a second, at moments of Python's choice: many while they come, some in the middle of a shot, the last at the end.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
