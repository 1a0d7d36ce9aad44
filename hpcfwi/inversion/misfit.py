"""The pair of misfit and gradient, and its sum over shots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "FunctionalGradient", "blocks", "total"]

# Parts that one node of the summation tree adds. The tree's shape, and with it every last bit of the sum, depends on this
# number and on the order of the shots, and on nothing else.
BLOCK = 8

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class FunctionalGradient:
    """Misfit and gradient of a shot, or of several.

    Parameters
    ----------
    f
        Misfit.
    g
        Gradient with respect to the squared slowness, on the physical grid, float64.
    """

    f: float
    g: NDArray[np.float64]

    def __add__(self, other: FunctionalGradient) -> FunctionalGradient:
        if not isinstance(other, FunctionalGradient):
            return NotImplemented
        return FunctionalGradient(self.f + other.f, self.g + other.g)

    def __radd__(self, other: object) -> FunctionalGradient:
        """Let ``sum`` begin with its 0."""
        if isinstance(other, int) and other == 0:
            return self
        return NotImplemented


def total(parts: Iterable[FunctionalGradient]) -> FunctionalGradient:
    """Add from left to right, to the same bytes as ``sum``, with one new array only; at least one."""
    coming = iter(parts)
    first = next(coming)
    f, g = first.f, first.g.copy()
    for part in coming:
        f += part.f
        g += part.g
    return FunctionalGradient(f, g)


def blocks(parts: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut one level of the tree into the parts that belong together."""
    for start in range(0, len(parts), BLOCK):
        yield parts[start : start + BLOCK]
