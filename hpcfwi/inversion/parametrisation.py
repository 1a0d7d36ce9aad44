"""The optimiser's variables: vectors for models, their bounds, and gradients with respect to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.problem import Problem
from hpcfwi.model.velocity import squared_slowness, velocity_from

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

    def pull_back(self, x: Vector, gradient: NDArray[np.float64]) -> Vector:
        """The gradient with respect to x, from that with respect to the model at x: ``(dm/dx)^T g``."""

    def velocity_change(self, x: Vector, step: Vector) -> NDArray[np.float64]:
        """Change of velocity, km/s, to first order in a ``step`` of x."""


@dataclass(frozen=True, eq=False)
class _CellByCell(ABC):
    """``x_i = phi(m_i)``, flat, in C order, with a monotonic function phi.

    Frozen cells are in x, with the initial model as both bounds and a gradient of zero; their model is the initial one to the
    last bit.
    """

    initial: NDArray[np.float64]  # initial model, squared slowness, (s/km)^2
    frozen: NDArray[np.bool_]  # cells that keep it
    velocity_bounds: tuple[float, float]  # lowest and highest, km/s

    @classmethod
    def from_problem(cls, problem: Problem) -> _CellByCell:
        """The parametrisation of a problem's initial model."""
        return cls(squared_slowness(problem.initial_velocity), problem.frozen, problem.config.inversion.bounds)

    @staticmethod
    @abstractmethod
    def phi(m: NDArray[np.float64]) -> NDArray[np.float64]:
        """The variable of a squared slowness."""

    @staticmethod
    @abstractmethod
    def inverse(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The squared slowness of a variable."""

    @staticmethod
    @abstractmethod
    def derivative(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """``dm/dx``."""

    @property
    def bounds(self) -> tuple[Vector, Vector]:
        """The variable of both velocity bounds, and of the initial model where it is frozen."""
        limits = self.phi(squared_slowness(np.array(self.velocity_bounds)))
        initial = self.phi(self.initial)
        low, high = (np.where(self.frozen, initial, limit).ravel() for limit in (limits.min(), limits.max()))
        return low, high

    def to_vector(self, model: NDArray[np.float64]) -> Vector:
        """The variables of the cells in C order."""
        return self.phi(model).ravel()

    def to_model(self, x: Vector) -> NDArray[np.float64]:
        """The cells on the grid."""
        return np.where(self.frozen, self.initial, self.inverse(x.reshape(self.initial.shape)))

    def pull_back(self, x: Vector, gradient: NDArray[np.float64]) -> Vector:
        """The gradient's cells times ``dm/dx``, zero where they are frozen."""
        return np.where(self.frozen, 0.0, self.derivative(x.reshape(gradient.shape)) * gradient).ravel()

    def velocity_change(self, x: Vector, step: Vector) -> NDArray[np.float64]:
        """``dv = -v^3 / 2 dm``, from ``v = m^(-1/2)``."""
        return -0.5 * self.inverse(x) ** -1.5 * self.derivative(x) * step


class SquaredSlowness(_CellByCell):
    """``x = m``, (s/km)^2."""

    @staticmethod
    def phi(m: NDArray[np.float64]) -> NDArray[np.float64]:
        """The squared slowness itself."""
        return m

    @staticmethod
    def inverse(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The squared slowness itself."""
        return x

    @staticmethod
    def derivative(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """One."""
        return np.ones_like(x)


class Velocity(_CellByCell):
    """``x = v = m^(-1/2)``, km/s."""

    @staticmethod
    def phi(m: NDArray[np.float64]) -> NDArray[np.float64]:
        """``m^(-1/2)``."""
        return velocity_from(m)

    @staticmethod
    def inverse(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """``x^-2``."""
        return squared_slowness(x)

    @staticmethod
    def derivative(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """``-2 x^-3``."""
        return -2.0 / x**3


class LogVelocity(_CellByCell):
    """``x = ln v = -1/2 ln m``, with v in km/s."""

    @staticmethod
    def phi(m: NDArray[np.float64]) -> NDArray[np.float64]:
        """``-1/2 ln m``."""
        return -0.5 * np.log(m)

    @staticmethod
    def inverse(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """``exp(-2 x)``."""
        return np.exp(-2.0 * x)

    @staticmethod
    def derivative(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """``-2 exp(-2 x)``."""
        return -2.0 * np.exp(-2.0 * x)


# Parametrisations by their names in ``inversion.parameter``.
PARAMETRISATIONS: dict[str, type[_CellByCell]] = {
    "squared_slowness": SquaredSlowness,
    "velocity": Velocity,
    "log_velocity": LogVelocity,
}


def parametrisation_of(problem: Problem) -> Parametrisation:
    """The parametrisation that ``inversion.parameter`` names, of a problem's initial model."""
    return PARAMETRISATIONS[problem.config.inversion.parameter].from_problem(problem)
