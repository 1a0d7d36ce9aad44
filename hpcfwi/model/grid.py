"""Discretisation: the grid, time axes, and stability and numerical dispersion of the finite differences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

AXIS_NAMES = {2: ("x", "z"), 3: ("x", "y", "z")}

# Cells by which a position may miss an edge, or an interface, through rounding.
EDGE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Domain:
    """A regular grid; arrays are indexed ``[x, z]`` or ``[x, y, z]``, z pointing down."""

    shape: tuple[int, ...]  # grid points along each axis
    spacing: tuple[float, ...]  # distance between them, m
    origin: tuple[float, ...]  # position of the first one, m

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes: ``("x", "z")`` or ``("x", "y", "z")``."""
        return AXIS_NAMES[self.ndim]

    @property
    def description(self) -> str:
        """``401 x 101 points of 30 x 30 m``."""
        return f"{' x '.join(map(str, self.shape))} points of {' x '.join(f'{h:g}' for h in self.spacing)} m"

    @property
    def last(self) -> tuple[float, ...]:
        """Position of the last grid point, m."""
        return tuple(o + (n - 1) * h for o, n, h in zip(self.origin, self.shape, self.spacing, strict=True))

    def contains(self, positions: ArrayLike) -> NDArray[np.bool_]:
        """Find which positions, shape (n, ndim), m, lie inside the grid, with :data:`EDGE_TOLERANCE`."""
        points = np.asarray(positions, dtype=float)
        slack = EDGE_TOLERANCE * np.asarray(self.spacing)
        inside = (points >= np.asarray(self.origin) - slack) & (points <= np.asarray(self.last) + slack)
        return np.asarray(inside.all(axis=-1))


@dataclass(frozen=True)
class TimeAxis:
    """Samples at 0, step, 2 step, ..."""

    step: float  # ms
    samples: int

    @classmethod
    def covering(cls, duration: float, step: float) -> TimeAxis:
        """The shortest axis with this step that reaches ``duration``, ms."""
        return cls(step=step, samples=math.ceil(duration / step - 1e-9) + 1)

    @classmethod
    def within(cls, duration: float, step: float) -> TimeAxis:
        """The longest axis with this step that ends at ``duration``, ms, or before."""
        return cls(step=step, samples=math.floor(duration / step + 1e-9) + 1)

    @property
    def times(self) -> NDArray[np.float64]:
        """Time of each sample, ms."""
        return self.step * np.arange(self.samples, dtype=np.float64)


def true_frequency(dispersed: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Frequency, kHz, of what the leap-frog scheme moves to the frequency ``dispersed``, kHz, at a time step, ms.

    Notes
    -----
    Its second time derivative multiplies ``exp(i w' t)`` by ``-(2 sin(w' dt / 2) / dt)^2`` in place of ``-w^2`` (Koene et al.
    2018, doi:10.1093/gji/ggx563).
    """
    return np.sin(np.pi * dispersed * step) / (np.pi * step)


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


@cache
def first_derivative_weights(order: int) -> tuple[float, float, float]:
    """Weights of a first derivative D halfway between points of spacing 1: the root of a second derivative of even ``order``.

    They belong to the differences between the points at 1/2, 3/2 and 5/2 on both sides. ``-D^T D`` comes as close to the
    second derivative as three weights allow, and has no larger eigenvalue for any wave: an absorbing layer with ``-D^T D`` in
    place of the second derivative, or of a part of it, is stable.

    Notes
    -----
    With ``s = sin(k / 2)`` the symbol of the second derivative is ``4 s^2 (1 + s^2/3 + 8 s^4/45 + ...)`` with order / 2 terms;
    that of D is ``2 s (1 + c1 s^2 + c2 s^4)``. c1 and c2 are those of the root's series, but for order 6, where c2 is the
    largest that keeps D below the root. From order 8 on the weights are the usual ones of order 6.
    """
    c1, c2 = {2: (0.0, 0.0), 4: (1 / 6, -1 / 72), 6: (1 / 6, math.sqrt(68 / 45) - 7 / 6)}.get(order, (1 / 6, 3 / 40))
    return 1 + 3 * c1 / 4 + 5 * c2 / 8, -c1 / 4 - 5 * c2 / 16, c2 / 16


def courant_limit(domain: Domain, space_order: int, velocity: float) -> float:
    """Longest stable time step of the acoustic equation, ms, for the highest ``velocity``, km/s.

    Planning (:mod:`hpcfwi.model.checks`) and the solver (:meth:`hpcfwi.solver.equations.AcousticEquation.stable_step`) both
    use it. A new equation needs a function like this one here.

    Notes
    -----
    Von Neumann stability of the leap-frog scheme with weights a_i: ``dt <= 2 / (v sqrt(sum_d sum_i |a_i| / h_d^2))``
    (Lines, Slawinski and Bording 1999, doi:10.1190/1.1444605).
    """
    weights = second_derivative_weights(space_order)
    absolute_sum = abs(weights[0]) + 2 * math.fsum(map(abs, weights[1:]))
    return 2.0 / (velocity * math.sqrt(sum(absolute_sum / h**2 for h in domain.spacing)))


def critical_step(domain: Domain, space_order: int, velocity: float, nearest: bool = False) -> float:
    """The Courant limit for the highest ``velocity``, km/s, rounded down to four digits; ms.

    Devito's tutorials take the ``nearest`` number of four digits, which may be up to 0.05 % above the limit.
    """
    limit = courant_limit(domain, space_order, velocity)
    return float(f"{limit:.3e}") if nearest else round_down(limit)


def round_down(value: float) -> float:
    """Round a positive number down to four digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return float(f"{math.floor(value / unit * (1 + 1e-12)) * unit:.4g}")  # a number of four digits stays as it is


def safe_step(domain: Domain, space_order: int, velocity: float) -> float:
    """The Courant limit of a stencil of twice the space order, rounded to four digits; ms.

    Devito's ``examples.seismic.model`` takes this step for a model of that space order. It is 4 to 13 % below the
    limit, where the shortest waves are only marginally stable.
    """
    return float(f"{courant_limit(domain, 2 * space_order, velocity):.3e}")


def phase_error(points: float, space_order: int, courant: float = 0.0) -> float:
    """Relative error of the phase velocity of a plane wave along a grid axis.

    Parameters
    ----------
    points
        Grid points per wavelength, above 2.
    space_order
        Order of the finite differences.
    courant
        velocity x time step / spacing; 0 for the error of the finite differences in space alone.

    Notes
    -----
    From the dispersion relation of the leap-frog scheme, ``sin(w dt / 2) = (c dt / 2) K`` with ``K^2`` the negative
    symbol of the stencil at the wavenumber k (Alford, Kelly and Boore 1974, doi:10.1190/1.1440470).
    """
    kh = 2 * math.pi / points
    weights = second_derivative_weights(space_order)
    symbol = -(weights[0] + 2 * sum(a * math.cos(j * kh) for j, a in enumerate(weights) if j))
    if courant == 0:
        return math.sqrt(symbol) / kh - 1
    inner = 0.5 * courant * math.sqrt(symbol)
    return 2 * math.asin(min(inner, 1.0)) / (courant * kh) - 1
