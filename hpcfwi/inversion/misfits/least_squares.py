"""Misfits of residuals: least squares, and Huber's, which outliers dominate less."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcfwi.inversion.misfits.base import UndefinedMisfit
from hpcfwi.model.grid import TimeAxis


@dataclass(frozen=True)
class LeastSquares:
    """The L2 misfit ``0.5 sum (p - o)^2`` (Tarantola 1984, doi:10.1190/1.1441754), without the factor dt.

    Its unit is that of squared amplitudes, and its adjoint source is ``p - o``.
    """

    def evaluate(self, predicted: NDArray, observed: NDArray, axis: TimeAxis) -> tuple[float, NDArray]:  # noqa: ARG002
        """Return half the sum of squared residuals, summed in float64, and the residuals."""
        residual = predicted - observed
        return 0.5 * float(np.square(residual, dtype=np.float64).sum()), residual


@dataclass(frozen=True)
class Huber:
    """The Huber misfit: quadratic for small residuals r = p - o, linear for large ones (Guitton and Symes 2003).

    ``sum h(r)`` with ``h = r^2 / 2`` where ``|r| <= d`` and ``d (|r| - d / 2)`` elsewhere (Huber 1964,
    doi:10.1214/aoms/1177703732; Guitton and Symes 2003, doi:10.1190/1.1598124). Its unit is that of squared amplitudes, and its
    adjoint source is r, clipped to [-d, d].

    Parameters
    ----------
    threshold
        d as a share of the rms of the observed gather, over the samples that are not zero. It is undefined for a gather of
        zeros.
    """

    threshold: float = 1.0

    def evaluate(self, predicted: NDArray, observed: NDArray, axis: TimeAxis) -> tuple[float, NDArray]:  # noqa: ARG002
        """Return the sum over all samples, and the clipped residuals."""
        count = np.count_nonzero(observed)
        if not count:
            raise UndefinedMisfit("the observed gather is zero, and its threshold is a share of the gather's rms")
        limit = self.threshold * np.sqrt(np.square(observed, dtype=np.float64).sum() / count)
        residual = predicted.astype(np.float64) - observed
        clipped = np.clip(residual, -limit, limit)
        return float((clipped * (residual - 0.5 * clipped)).sum()), clipped.astype(predicted.dtype)
