"""Regularisation: penalties on the slope of the velocity, with their gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.conditioning import TikhonovSection, TotalVariationSection
from hpcfwi.inversion.functional_gradient import FunctionalGradient
from hpcfwi.inversion.parametrisation import Parametrisation, Vector
from hpcfwi.model.problem import Problem
from hpcfwi.model.velocity import velocity_from

M_PER_KM = 1000.0


@dataclass(frozen=True, eq=False)
class Slopes:
    """Slopes of a velocity along each axis, 1/s (km/s per km), between each cell and the next one; none next to frozen cells.

    Parameters
    ----------
    factors
        For each axis what multiplies the difference of two neighbours, 1/(s km/s); zero at the end of the axis and next to
        frozen cells. Shape of the grid.
    counts
        Number of slopes along each axis.
    """

    factors: tuple[NDArray[np.float64], ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, frozen: NDArray[np.bool_], spacing: tuple[float, ...], axes: tuple[float, ...] | None) -> Slopes:
        """Slopes on a grid, times the factors ``axes``."""
        factors, counts = [], []
        for axis, (h, share) in enumerate(zip(spacing, axes or (1.0,) * len(spacing), strict=True)):
            factor = np.zeros(frozen.shape)
            between = np.moveaxis(factor, axis, 0)
            free = np.moveaxis(~frozen, axis, 0)
            pairs = free[:-1] & free[1:]
            between[:-1] = np.where(pairs, share * M_PER_KM / h, 0.0)
            factors.append(factor)
            counts.append(max(1, int(pairs.sum())))
        return cls(tuple(factors), tuple(counts))

    def apply(self, velocity: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """The slopes."""
        return [f * (np.roll(velocity, -1, axis) - velocity) for axis, f in enumerate(self.factors)]

    def transpose(self, slopes: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """The transpose of :meth:`apply`."""
        scaled = [f * slope for f, slope in zip(self.factors, slopes, strict=True)]
        return np.asarray(sum(np.roll(s, 1, axis) - s for axis, s in enumerate(scaled)))


@dataclass(frozen=True, eq=False)
class Penalty:
    """A penalty on the slopes of ``v - reference``; 1 where they are 1/s everywhere.

    Parameters
    ----------
    weight
        Share of the first misfit that it is multiplied by.
    slopes
        The slopes.
    reference
        Velocity that is subtracted, km/s, shape of the grid; or zero.
    corner
        None for the mean of their squares (Tikhonov), else for that of their size: slopes below the corner, 1/s, count
        quadratically.

    Notes
    -----
    With s the slopes along the axes: ``sum_axes mean(s^2)``, and ``mean(sqrt(sum_axes s^2 + e^2) - e)`` (Rudin, Osher and
    Fatemi 1992, doi:10.1016/0167-2789(92)90242-F; smoothed as by Vogel and Oman 1996, doi:10.1137/0917016). Means do not
    depend on the spacing.
    """

    weight: float
    slopes: Slopes
    reference: NDArray[np.float64] | float
    corner: float | None = None

    @classmethod
    def of(cls, section: TikhonovSection | TotalVariationSection, problem: Problem) -> Penalty:
        """The penalty of a section of the configuration."""
        slopes = Slopes.of(problem.frozen, problem.domain.spacing, section.axes)
        reference = problem.initial_velocity if section.of == "change" else 0.0
        corner = section.corner if isinstance(section, TotalVariationSection) else None
        return cls(section.weight, slopes, reference, corner)

    def evaluate(self, velocity: NDArray[np.float64]) -> FunctionalGradient:
        """The penalty, without its weight, and its gradient with respect to the velocity, 1/(km/s)."""
        slopes, counts = self.slopes.apply(velocity - self.reference), self.slopes.counts
        if self.corner is None:
            value = sum(float((s**2).sum()) / n for s, n in zip(slopes, counts, strict=True))
            return FunctionalGradient(
                value, self.slopes.transpose([2 / n * s for s, n in zip(slopes, counts, strict=True)])
            )
        cells = sum(counts) / len(counts)
        size = np.sqrt(sum(s**2 for s in slopes) + self.corner**2)
        return FunctionalGradient(
            float((size - self.corner).sum()) / cells, self.slopes.transpose([s / (cells * size) for s in slopes])
        )


@dataclass(frozen=True, eq=False)
class Regularisation:
    """The sum of weighted penalties, which is added to the misfit."""

    penalties: tuple[Penalty, ...] = ()

    @classmethod
    def from_problem(cls, problem: Problem) -> Regularisation:
        """The regularisation of a problem."""
        section = problem.config.inversion.regularisation
        chosen = (section.tikhonov, section.total_variation)
        return cls(tuple(Penalty.of(each, problem) for each in chosen if each is not None))

    def add(
        self, misfit: FunctionalGradient, parametrisation: Parametrisation, x: Vector, unit: float
    ) -> FunctionalGradient:
        """``J + unit sum weight R`` and its gradient with respect to x, from those of J.

        The gradient follows from the chain rule with ``dv/dm = -v^3 / 2``. Without penalties the result is ``misfit``.
        """
        if not self.penalties:
            return misfit
        velocity = velocity_from(parametrisation.to_model(x))
        parts = [(unit * each.weight, each.evaluate(velocity)) for each in self.penalties]
        gradient = np.asarray(sum(w * part.g for w, part in parts))
        pulled = parametrisation.pull_back(x, -0.5 * velocity**3 * gradient)
        return FunctionalGradient(misfit.f + sum(w * part.f for w, part in parts), misfit.g + pulled)
