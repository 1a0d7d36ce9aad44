"""Stopping criteria, the same for all optimisers."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.inversion import InversionSection


class Convergence:
    """Decides after each iteration whether the inversion is done.

    Parameters
    ----------
    section
        The configuration's ``[inversion]``.
    observed_energy
        Sum of squares of the observed gathers, as the misfit compares them; needed for ``noise_level`` alone.
    """

    def __init__(self, section: InversionSection, observed_energy: float = 0.0) -> None:
        self.section = section
        # half the energy of the noise: the L2 misfit of the true model, by the discrepancy principle
        self._noise_misfit = 0.5 * (section.noise_level or 0.0) * observed_energy
        self._first: float | None = None
        self._misfits: deque[tuple[int, float]] = deque()  # of all shots, by iteration, over change_iterations
        self._velocity: NDArray[np.float64] | None = None

    def reason(self, iteration: int, misfit: float | None, velocity: NDArray[np.float64]) -> str:
        """Why the inversion is done; empty if it is not.

        Parameters
        ----------
        iteration
            Its number; 0 is the initial model.
        misfit
            Of all shots; None if only a batch was evaluated.
        velocity
            The model, km/s.
        """
        return (self._misfit_reason(iteration, misfit) if misfit is not None else "") or self._model_reason(velocity)

    def _misfit_reason(self, iteration: int, misfit: float) -> str:
        section = self.section
        self._first = misfit if self._first is None else self._first
        self._misfits.append((iteration, misfit))
        while len(self._misfits) > 1 and self._misfits[1][0] <= iteration - section.change_iterations:
            self._misfits.popleft()
        then, before = self._misfits[0]
        if section.noise_level is not None and misfit <= self._noise_misfit:
            return (
                f"the residuals have at most {section.noise_level:g} of the energy of the observed data "
                "(inversion.noise_level)"
            )
        if section.misfit_share is not None and misfit <= section.misfit_share * self._first:
            return f"the misfit is at most {section.misfit_share:g} of the first one (inversion.misfit_share)"
        change = section.misfit_change
        if change is None or then > iteration - section.change_iterations or before - misfit >= change * abs(before):
            return ""
        return (
            f"the misfit has fallen by less than {change:g} of it in {iteration - then} iterations "
            "(inversion.misfit_change)"
        )

    def _model_reason(self, velocity: NDArray[np.float64]) -> str:
        share = self.section.model_change
        if share is None:
            return ""
        before, self._velocity = self._velocity, velocity
        # a model that has not changed at all is a new start with another wavelet, or that of a failed line search
        if before is None or np.linalg.norm(velocity - before) >= share * np.linalg.norm(velocity):
            return ""
        return f"the iteration changed the velocities by less than {share:g} of them (inversion.model_change)"


class Budget:
    """Decides after each iteration whether the budget of a run, or of a stage, is spent."""

    def __init__(self, hours: float | None, core_hours: float | None = None) -> None:
        self.budgets = hours, core_hours
        self.spent = False

    def reason(self, hours: float, core_hours: float = 0.0) -> str:
        """Why the inversion has to stop after so much wall time and so many core-hours; empty if it has not."""
        names = ("budget_hours", "hours"), ("budget_core_hours", "core-hours")
        for (key, unit), budget, spent in zip(names, self.budgets, (hours, core_hours), strict=True):
            if budget is not None and spent >= budget:
                self.spent = True
                return f"the iterations have taken {spent:.3g} of {budget:g} {unit} (inversion.{key})"
        return ""
