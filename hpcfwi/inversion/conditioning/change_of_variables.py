"""The optimiser's variables with smoothing, a taper and soft bounds: a parametrisation around another one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.conditioning import ConditioningSection
from hpcfwi.inversion.conditioning.diffusion import Diffusion
from hpcfwi.inversion.conditioning.soft_bounds import SoftBounds
from hpcfwi.inversion.parametrisation import Parametrisation, Vector, parametrisation_of
from hpcfwi.model.problem import Problem
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.model.wavelet import peak_frequency

# Bounds are soft wherever variables change: those of a cell's model are no limits of its variable any more.
DEFAULT_SOFT_BOUNDS_KM_S = 0.02
# Largest width of a soft bound, as a share of the interval between the two.
MAX_WIDTH = 0.25


@dataclass(frozen=True, eq=False)
class Conditioned:
    """A change of variables: ``u = B(w0 + T S (y - w0))`` is the vector of another parametrisation.

    The optimiser sees y, and the gradient with respect to it. Frozen cells are in y, with equal bounds; the others have none,
    because B keeps u within the bounds.

    Parameters
    ----------
    inner
        The parametrisation of u.
    initial
        The u of the initial model.
    frozen
        Cells that keep it, shape of the grid.
    soft_bounds
        B; in frozen cells it is not used.
    smoothing, taper
        S, and the diagonal of T, shape of the grid; None for the identity.
    """

    inner: Parametrisation
    initial: Vector
    frozen: NDArray[np.bool_]
    soft_bounds: SoftBounds
    smoothing: Diffusion | None = None
    taper: NDArray[np.float64] | None = None

    @property
    def _fixed(self) -> NDArray[np.bool_]:
        return self.frozen.ravel()

    @cached_property
    def _start(self) -> Vector:
        """The w of the initial model, w0."""
        return np.where(self._fixed, self.initial, self.soft_bounds.inverse(self.initial))

    @property
    def bounds(self) -> tuple[Vector, Vector]:
        """None, but for frozen cells."""
        return tuple(np.where(self._fixed, self.initial, limit) for limit in (-np.inf, np.inf))  # type: ignore[return-value]

    def to_vector(self, model: NDArray[np.float64]) -> Vector:
        """The y of the initial model; of another one that whose difference from it has been smoothed and tapered."""
        u = self.inner.to_vector(model)
        return np.where(self._fixed, u, self.soft_bounds.inverse(u))

    def to_model(self, x: Vector) -> NDArray[np.float64]:
        """The model of ``B(w0 + T S (y - w0))``."""
        return self.inner.to_model(self._bounded(self._spread(x)))

    def pull_back(self, x: Vector, gradient: NDArray[np.float64]) -> Vector:
        """``S^T T B' g``, with g the inner parametrisation's gradient; zero in frozen cells."""
        w = self._spread(x)
        g = self.inner.pull_back(self._bounded(w), gradient) * self.soft_bounds.derivative(w)
        g = np.where(self.frozen, 0.0, g.reshape(self.frozen.shape))
        if self.taper is not None:
            g = self.taper * g
        return (g if self.smoothing is None else self.smoothing.transpose(g)).ravel()

    def velocity_change(self, x: Vector, step: Vector) -> NDArray[np.float64]:
        """That of the inner parametrisation for ``B' T S step``."""
        w = self._spread(x)
        return self.inner.velocity_change(self._bounded(w), self.soft_bounds.derivative(w) * self._shape(step))

    def _shape(self, step: Vector) -> Vector:
        """``T S step``; zero in frozen cells."""
        change = np.where(self.frozen, 0.0, step.reshape(self.frozen.shape))
        if self.smoothing is not None:
            change = self.smoothing.apply(change)
        return (change if self.taper is None else self.taper * change).ravel()

    def _spread(self, y: Vector) -> Vector:
        start = self._start
        return start + self._shape(y - start)

    def _bounded(self, w: Vector) -> Vector:
        return np.where(self._fixed, self.initial, self.soft_bounds.apply(w))


def variables_of(problem: Problem) -> Parametrisation:
    """The optimiser's variables of a problem."""
    inner = parametrisation_of(problem)
    section = problem.config.inversion.conditioning
    if section == ConditioningSection():
        return inner
    initial = inner.to_vector(squared_slowness(problem.initial_velocity))
    return Conditioned(
        inner, initial, problem.frozen, _soft_bounds(inner, problem), _smoothing(problem), _taper(problem)
    )


def _soft_bounds(inner: Parametrisation, problem: Problem) -> SoftBounds:
    """Soft bounds within those of the inner parametrisation; frozen cells have those of another cell, and do not use them."""
    section, frozen = problem.config.inversion.conditioning, problem.frozen.ravel()
    low, high = inner.bounds
    if section.max_change is not None:
        ends = [problem.initial_velocity + change for change in (-section.max_change, section.max_change)]
        within = [inner.to_vector(squared_slowness(np.clip(v, *problem.config.inversion.bounds))) for v in ends]
        low, high = np.maximum(low, np.minimum(*within)), np.minimum(high, np.maximum(*within))
    some = int(np.argmin(frozen))
    low, high = (np.where(frozen, limit[some], limit) for limit in (low, high))
    width = section.soft_bounds or DEFAULT_SOFT_BOUNDS_KM_S
    widths = [width / np.abs(inner.velocity_change(limit, np.ones(limit.shape))).ravel() for limit in (low, high)]
    return SoftBounds(low, high, *(np.minimum(each, MAX_WIDTH * (high - low)) for each in widths))


def _smoothing(problem: Problem) -> Diffusion | None:
    section, spacing = problem.config.inversion.conditioning.smoothing, problem.domain.spacing
    if section is None:
        return None
    lengths = section.length if isinstance(section.length, tuple) else (section.length,) * len(spacing)
    if section.unit == "m":
        return Diffusion.of(lengths, spacing, problem.frozen)
    wavelength = problem.initial_velocity / peak_frequency(problem.wavelet)  # km/s over kHz: m
    return Diffusion.of([length * wavelength for length in lengths], spacing, problem.frozen)


def _taper(problem: Problem) -> NDArray[np.float64] | None:
    """The square root of ``3 r^2 - 2 r^3``, by which T T scales the first update; r is the distance over the taper's length."""
    length = problem.config.inversion.conditioning.taper
    if not length or not problem.frozen.any():
        return None
    from scipy.ndimage import distance_transform_edt  # slow to import, and few problems need it

    r = np.minimum(distance_transform_edt(~problem.frozen, sampling=problem.domain.spacing) / length, 1.0)
    return np.sqrt(r**2 * (3 - 2 * r))
