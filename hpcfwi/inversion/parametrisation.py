"""The optimiser's variables: vectors for models, their bounds, and gradients with respect to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.problem import Problem
from hpcfwi.model.velocity import squared_slowness

Vector = NDArray[np.float64]


class Parametrisation(Protocol):
    """Maps models m (squared slowness, (s/km)^2, on the grid) to vectors x and back; the optimiser sees only vectors."""

    @property
    def bounds(self) -> tuple[Vector, Vector]:
        """Lowest and highest values of x."""

    def to_vector(self, model: NDArray[np.float64]) -> Vector:
        """The vector of a model."""

    def to_model(self, x: Vector) -> NDArray[np.float64]:
        """The model of a vector."""

    def pull_back(self, gradient: NDArray[np.float64]) -> Vector:
        """The gradient with respect to x, from that with respect to the model: ``(dm/dx)^T g``."""

    def velocity_change(self, x: Vector, step: Vector) -> NDArray[np.float64]:
        """Change of velocity, km/s, to first order in a ``step`` of x."""


@dataclass(frozen=True, eq=False)
class SquaredSlowness:
    """``x = m``, flat, in C order. Frozen cells are in x, with the initial model as both bounds and a gradient of zero."""

    initial: NDArray[np.float64]  # initial model, squared slowness, (s/km)^2
    frozen: NDArray[np.bool_]  # cells that keep it
    velocity_bounds: tuple[float, float]  # lowest and highest, km/s

    @classmethod
    def from_problem(cls, problem: Problem) -> SquaredSlowness:
        """The parametrisation of a problem's initial model."""
        return cls(squared_slowness(problem.initial_velocity), problem.frozen, problem.config.inversion.bounds)

    @property
    def bounds(self) -> tuple[Vector, Vector]:
        """Squared slowness of the highest and of the lowest velocity, and the initial model where it is frozen."""
        slow, fast = self.velocity_bounds
        low, high = squared_slowness(fast), squared_slowness(slow)
        return tuple(np.where(self.frozen, self.initial, limit).ravel() for limit in (low, high))  # type: ignore[return-value]

    def to_vector(self, model: NDArray[np.float64]) -> Vector:
        """The cells in C order."""
        return model.ravel()

    def to_model(self, x: Vector) -> NDArray[np.float64]:
        """The cells on the grid."""
        return x.reshape(self.initial.shape)

    def pull_back(self, gradient: NDArray[np.float64]) -> Vector:
        """The gradient's cells, zero where they are frozen."""
        return np.where(self.frozen, 0.0, gradient).ravel()

    def velocity_change(self, x: Vector, step: Vector) -> NDArray[np.float64]:
        """``dv = -v^3 / 2 dm``, from ``v = m^(-1/2)``."""
        return -0.5 * x**-1.5 * step
