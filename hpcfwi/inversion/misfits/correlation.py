"""The misfit of waveforms without their amplitudes: global correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcfwi.inversion.misfits.base import UnitTraces
from hpcfwi.model.grid import TimeAxis


@dataclass(frozen=True)
class Correlation:
    """Global correlation: L2 misfit of traces that are divided by their norms (Choi and Alkhalifah 2012).

    With ``c_r = <p_r, o_r> / (|p_r| |o_r|)`` for each trace r (doi:10.1111/j.1365-2478.2012.01079.x),

        ``sum_r w_r (1 - c_r) = sum_r w_r 0.5 |p_r / |p_r| - o_r / |o_r||^2``.

    It has no unit; a trace counts from 0 (the same waveform) over 1 (uncorrelated) to 2 (the opposite one). The adjoint source
    is ``w_r (c_r p_r / |p_r| - o_r / |o_r|) / |p_r|``. A trace that is not observed counts nothing. One that is observed but
    not predicted counts ``w_r``, with a zero adjoint source. The misfit is undefined if all traces are such.

    Parameters
    ----------
    amplitude_power
        q in the weights ``w_r = (|o_r|^2 / mean |o|^2)^(q / 2)``, the mean over observed traces. With 0 all traces count the
        same; with 2, each one as much as in the L2 misfit.
    """

    amplitude_power: float = 0.0

    def evaluate(self, predicted: NDArray, observed: NDArray, axis: TimeAxis) -> tuple[float, NDArray]:  # noqa: ARG002
        """Return the sum over the traces, and the adjoint source."""
        traces = UnitTraces.of(predicted, observed, self.amplitude_power)
        residual = traces.predicted - traces.observed
        value = traces.sum(0.5 * np.square(residual).sum(axis=0), of_missing=1.0)
        return value, traces.derivative.transpose(traces.weights * residual).astype(predicted.dtype)
