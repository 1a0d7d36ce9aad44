"""What misfits share: their protocol, and how those that normalise traces do so."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.gains import Normalise, NormaliseDerivative


class Misfit(Protocol):
    """A function of one shot's predicted and observed gathers."""

    def evaluate(self, predicted: NDArray, observed: NDArray, axis: TimeAxis) -> tuple[float, NDArray]:
        """Compare two gathers.

        Parameters
        ----------
        predicted, observed
            Shape (samples, receivers), the same for both; neither may be changed.
        axis
            Time axis of the gathers.

        Returns
        -------
        float, ndarray
            The misfit, and its derivative with respect to ``predicted`` (the adjoint source), of the same shape.

        Raises
        ------
        UndefinedMisfit
            If the misfit has no value for these gathers.
        """


class UndefinedMisfit(ValueError):
    """A misfit has no value for the gathers of a shot; the message says why."""


class UnitTraces(NamedTuple):
    """Two gathers whose traces are divided by their L2 norms; zero traces stay zero."""

    predicted: NDArray[np.float64]  # shape (samples, receivers), as is the next one
    observed: NDArray[np.float64]
    weights: NDArray[np.float64]  # of the traces, shape (receivers,); 0 where nothing is observed
    missing: NDArray[np.bool_]  # which traces are observed but not predicted
    derivative: NormaliseDerivative  # of ``predicted`` with respect to the predicted gather

    @classmethod
    def of(cls, predicted: NDArray, observed: NDArray, amplitude_power: float) -> UnitTraces:
        """Normalise the traces of two gathers, shape (samples, receivers).

        The weights are ``(|o_r|^2 / mean |o|^2)^(amplitude_power / 2)``, the mean over observed traces. Norms below 1e-7 of a
        gather's largest one count as zero. Raises UndefinedMisfit if no trace is both predicted and observed.
        """
        unit, derivative = Normalise().linearise(predicted.astype(np.float64))
        unit_observed, of_observed = Normalise().linearise(observed.astype(np.float64))
        heard = of_observed.scales > 0
        missing = heard & (derivative.scales == 0)
        if not (heard & ~missing).any():
            what = "the observed gather is zero" if not heard.any() else "no trace is both predicted and observed"
            raise UndefinedMisfit(f"{what}, so that no trace can be normalised")
        return cls(unit, unit_observed, trace_weights(of_observed.scales, amplitude_power), missing, derivative)

    def sum(self, values: NDArray[np.float64], of_missing: float) -> float:
        """The weighted sum of a value for each trace, which is ``of_missing`` where nothing is predicted."""
        return float((self.weights * np.where(self.missing, of_missing, values)).sum())


def trace_weights(scales: NDArray[np.float64], amplitude_power: float) -> NDArray[np.float64]:
    """Weights of traces with inverse norms ``scales``, shape (receivers,), 0 where there is no trace (:class:`UnitTraces`)."""
    weights = np.zeros_like(scales)
    heard = scales > 0
    if heard.any():
        squares = scales[heard] ** -2.0
        weights[heard] = (squares / squares.mean()) ** (amplitude_power / 2)
    return weights
