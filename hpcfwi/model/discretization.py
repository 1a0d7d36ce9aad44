"""Time axes: how long a step may be, how many there are, how often the wavefield is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.grid import Domain

__all__ = [
    "PropagatorSpec",
    "TimeAxis",
    "courant_limit",
    "critical_step",
    "safe_step",
    "second_derivative_weights",
    "snapshot_interval",
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


def snapshot_interval(step: float, highest_frequency: float, margin: float) -> int:
    """How many steps may lie between kept wavefields.

    Parameters
    ----------
    step
        Time step, ms.
    highest_frequency
        Of the wavelet, kHz.
    margin
        Samples per period of twice the highest frequency, which is the highest one in the product of two wavefields. A
        sum over samples of the product is its integral as long as this is above 1.
    """
    return max(1, math.floor(1.0 / (margin * 2.0 * highest_frequency * step)))


@dataclass(frozen=True)
class PropagatorSpec:
    """All that the generated code depends on.

    Parameters
    ----------
    domain
        The grid and its sponge.
    space_order
        Order of the Laplacian's finite differences, even, 2 to 16.
    dtype
        ``"float32"`` or ``"float64"``.
    time_samples
        The most samples that a time axis of this problem has.
    snapshot_every
        The forward wavefield is kept at every k-th step (1: every step).
    receivers
        The most receivers that a shot of this survey has.
    """

    domain: Domain
    space_order: int
    dtype: str
    time_samples: int
    snapshot_every: int
    receivers: int

    @property
    def snapshots(self) -> int:
        """Kept steps of a time axis of full length."""
        return (self.time_samples - 1) // self.snapshot_every + 1

    @property
    def nbytes(self) -> int:
        """Memory of a worker's wavefields and traces, bytes."""
        halo = tuple(n + 2 * self.space_order for n in self.domain.padded_shape)
        # m and damp, three levels each of u and v; the gradient, the model's extension, the kept levels; the traces.
        fields = 8 * math.prod(halo) + (2 + self.snapshots) * self.domain.padded_points
        return (fields + self.time_samples * (self.receivers + 1)) * np.dtype(self.dtype).itemsize
