"""Time axes: how long a step may be, and how many there are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.grid import Domain

__all__ = [
    "TimeAxis",
    "courant_limit",
    "critical_step",
    "safe_step",
    "second_derivative_weights",
]


@dataclass(frozen=True)
class TimeAxis:
    """Samples at 0, step, 2 step, ...

    Parameters
    ----------
    step
        Time step, ms.
    samples
        Number of samples.
    """

    step: float
    samples: int

    @classmethod
    def covering(cls, duration: float, step: float) -> TimeAxis:
        """The shortest axis with this step that reaches ``duration`` (ms)."""
        return cls(step=step, samples=math.ceil(duration / step - 1e-9) + 1)

    @property
    def times(self) -> NDArray[np.float64]:
        """Time of each sample, ms."""
        return self.step * np.arange(self.samples, dtype=np.float64)


@cache
def second_derivative_weights(order: int) -> tuple[float, ...]:
    """Weights of the centred second derivative of even ``order`` on a grid of spacing 1, from offset 0 outwards.

    Notes
    -----
    For offset j > 0 and N = order / 2: ``2 (-1)^(j+1) (N!)^2 / (j^2 (N-j)! (N+j)!)``; the weight at 0 makes the sum over
    all offsets zero (Fornberg 1988, doi:10.1090/S0025-5718-1988-0935077-0).
    """
    half = order // 2
    outer = [
        2 * (-1) ** (j + 1) * math.factorial(half) ** 2 / (j**2 * math.factorial(half - j) * math.factorial(half + j))
        for j in range(1, half + 1)
    ]
    return (-2 * math.fsum(outer), *outer)


def _absolute_sum(order: int) -> float:
    weights = second_derivative_weights(order)
    return abs(weights[0]) + 2 * math.fsum(map(abs, weights[1:]))


def courant_limit(domain: Domain, space_order: int, velocity: float) -> float:
    """Longest stable time step, ms, for the highest ``velocity``, km/s.

    Notes
    -----
    Von Neumann stability of the leap-frog scheme: ``dt <= 2 / (v sqrt(sum_d sum_i |a_i| / h_d^2))``.
    """
    return 2.0 / (velocity * math.sqrt(sum(_absolute_sum(space_order) / h**2 for h in domain.spacing)))


def critical_step(domain: Domain, space_order: int, velocity: float) -> float:
    """The Courant limit for the highest ``velocity``, km/s, rounded to four digits; ms.

    It is the step that Devito's tutorials take: ``sqrt(4 / (ndim sum_i |a_i|)) min(h) / v`` on a grid of one spacing. As
    there the rounding may put it up to 0.05 % above the limit; :func:`safe_step` keeps away from it.
    """
    return float(f"{courant_limit(domain, space_order, velocity):.3e}")


def safe_step(domain: Domain, space_order: int, velocity: float) -> float:
    """The Courant limit of a stencil of twice the space order, rounded to four digits; ms.

    Devito's ``examples.seismic.model`` steps like this for a model of that space order. It stays below the limit by some
    per cent, with which the shortest waves, at the limit only just bounded, keep their distance from growing.
    """
    return float(f"{courant_limit(domain, 2 * space_order, velocity):.3e}")
