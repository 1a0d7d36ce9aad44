"""The pair of misfit and gradient, and the tree in which the pairs of all shots are added."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.windows import cut, embed

# Parts that one node of the summation tree adds. The shape of the tree, and so the last bits of the sum, depend only on this
# number and on the order of the shots.
BLOCK = 8

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class FunctionalGradient:
    """Misfit and gradient of a shot, or of several; pairs add up with ``+`` and :func:`sum`.

    Parameters
    ----------
    f
        Misfit.
    g
        Gradient, float64: of a shot with respect to the squared slowness, on the grid or a block of it; of an evaluation with
        respect to the optimiser's vector, shape (n,).
    start
        Index of the block's first cell in the whole grid; empty if g is not a block.
    """

    f: float
    g: NDArray[np.float64]
    start: tuple[int, ...] = ()

    def __add__(self, other: FunctionalGradient) -> FunctionalGradient:
        if not isinstance(other, FunctionalGradient):
            return NotImplemented
        return total([self, other])

    def __radd__(self, other: object) -> FunctionalGradient:
        """Let ``sum`` begin with its 0."""
        if isinstance(other, int) and other == 0:
            return self
        return NotImplemented


def total(parts: Iterable[FunctionalGradient]) -> FunctionalGradient:
    """Add at least one part from left to right, to the same bytes as ``sum``, in place.

    The sum of blocks is the smallest block that holds them.
    """
    coming = iter(parts)
    first = next(coming)
    f, g, start = first.f, first.g.copy(), first.start
    for part in coming:
        f += part.f
        if part.start != start or part.g.shape != g.shape:
            g, start = _enlarge(g, start, part)
        cut(g, tuple(a - b for a, b in zip(part.start, start, strict=True)), part.g.shape)[...] += part.g
    return FunctionalGradient(f, g, start)


def _enlarge(
    g: NDArray[np.float64], start: tuple[int, ...], part: FunctionalGradient
) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """A block with the values of another one, large enough to hold a part; zero elsewhere."""
    if not start or not part.start:
        raise ValueError(f"gradients of shape {g.shape} and {part.g.shape} cannot be added: one of them is not a block")
    first = np.minimum(start, part.start)
    last = np.maximum(np.add(start, g.shape), np.add(part.start, part.g.shape))
    within = tuple(int(i) for i in np.subtract(start, first))
    return embed(g, within, tuple(int(n) for n in last - first)), tuple(int(i) for i in first)


def blocks(parts: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut one level of the summation tree into the parts of each node."""
    for start in range(0, len(parts), BLOCK):
        yield parts[start : start + BLOCK]
