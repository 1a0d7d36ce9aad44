"""What an optimiser gets and returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.optimize import OptimizeResult

from hpcfwi.config.inversion import InversionSection
from hpcfwi.inversion.parametrisation import Parametrisation, Vector

Subset = tuple[int, ...]  # indices of shots, in survey order

# A few cells at sources and edges have far larger gradients than all others; this quantile is the size of a step.
STEP_QUANTILE = 0.99


class SurveyFunction(Protocol):
    """Misfit and gradient of a survey, or of some of its shots."""

    @property
    def shot_count(self) -> int:
        """Shots of the survey."""

    def __call__(self, x: Vector, shots: Subset | None = None) -> tuple[float, Vector]:
        """Misfit and gradient at x, float64: the sum over all shots (None), or over some, times all shots over some."""


@dataclass(frozen=True, eq=False)
class Iterate:
    """A vector that an optimiser has reached, with what it knows of the misfit there."""

    x: Vector
    misfit: float  # of all shots, or the estimate of it from a batch
    gradient: Vector  # of the same shots
    shots: int | None = None  # of the batch; None: all

    def result(self, iterations: int, message: str) -> OptimizeResult:
        """The result of an optimiser that ends here."""
        return OptimizeResult(x=self.x, fun=self.misfit, jac=self.gradient, nit=iterations, message=message)


class Optimizer(Protocol):
    """Minimises the misfit."""

    def minimise(
        self,
        objective: SurveyFunction,
        x0: Vector,
        parametrisation: Parametrisation,
        section: InversionSection,
        on_iteration: Callable[[Iterate], str | None],
    ) -> OptimizeResult:
        """Minimise from ``x0`` within the parametrisation's bounds.

        The iterates are a pure function of x0, bounds, options and what the objective returns, so an interrupted minimisation
        continues when it gets the same misfits and gradients again.

        Parameters
        ----------
        objective
            The misfit.
        x0
            The first vector.
        parametrisation
            Bounds, and the change of velocity that a step causes.
        section
            The configuration's ``[inversion]``.
        on_iteration
            Called with the first vector and after each iteration; what it returns, unless None or empty, is the reason to stop.

        Returns
        -------
        OptimizeResult
            ``x``, ``fun`` and ``jac`` of the last iterate, ``nit`` iterations, and ``message``: why it stopped.
        """


def step_size(parametrisation: Parametrisation, x: Vector, step: Vector) -> float:
    """Size of a step of x, km/s: the 99 % quantile of the changes of velocity that it causes, over the free cells."""
    low, high = parametrisation.bounds
    changes = np.abs(parametrisation.velocity_change(x, step)[low < high])
    return float(np.quantile(changes, STEP_QUANTILE))


def limit_message(key: str) -> str:
    """Why an optimiser stops that has reached a limit of the configuration."""
    return f"inversion.{key} is reached"
