"""Soft bounds: a smooth map of all numbers into the interval between two bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

# A value nearer to a bound than this share of the bound's width is moved there: on the bound itself nothing could move it.
NEAREST = 0.1


@dataclass(frozen=True, eq=False)
class SoftBounds:
    """The map ``u = B(w)`` of w into ``low <= u <= high``, element by element; far from the bounds u is about w.

    Parameters
    ----------
    low, high
        The bounds.
    width_low, width_high
        Distance from each bound at which the slope du/dw is 1/2.

    Notes
    -----
    ``P(s) = (s + sqrt(s^2 + 4 e^2)) / 2`` maps all numbers to positive ones (the squareplus function; Barron 2021,
    arXiv:2112.11687), with ``s = P - e^2 / P`` and ``dP/ds = P^2 / (P^2 + e^2)``. The map is ``high - P(high - a - P(w - a))``,
    with an ``a`` slightly above ``low`` for which its range ends at ``low``. Unlike exponentials, square roots are the same to
    the last bit on all processors.
    """

    low: Vector
    high: Vector
    width_low: Vector
    width_high: Vector

    @property
    def _floor(self) -> Vector:
        return self.low + self.width_high**2 / (self.high - self.low)

    def apply(self, w: Vector) -> Vector:
        """``B(w)``."""
        floor = self._floor
        below = self.high - floor - _positive(w - floor, self.width_low)
        return np.clip(self.high - _positive(below, self.width_high), self.low, self.high)

    def derivative(self, w: Vector) -> Vector:
        """``dB/dw``."""
        floor = self._floor
        above = _positive(w - floor, self.width_low)
        below = _positive(self.high - floor - above, self.width_high)
        return above**2 / (above**2 + self.width_low**2) * below**2 / (below**2 + self.width_high**2)

    def inverse(self, u: Vector) -> Vector:
        """The w of u; values outside, on or next to a bound are first moved to :data:`NEAREST` of its width."""
        inside = np.clip(u, self.low + NEAREST * self.width_low, self.high - NEAREST * self.width_high)
        below = self.high - inside
        floor = self._floor
        above = self.high - floor - (below - self.width_high**2 / below)
        return floor + above - self.width_low**2 / above


def _positive(s: Vector, width: Vector) -> Vector:
    root = np.sqrt(s**2 + 4 * width**2)
    return np.where(s > 0, (s + root) / 2, 2 * width**2 / (root - np.minimum(s, 0)))
