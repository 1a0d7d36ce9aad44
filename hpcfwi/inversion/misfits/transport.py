"""Optimal transport between the graphs of traces."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcfwi.inversion.misfits.base import UndefinedMisfit, trace_weights
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.filters import Resample
from hpcfwi.model.processing.gains import Normalise

# The default of max_shift, in mean periods of the observed gather.
SHIFT_PERIODS = 2
# Traces are sampled so often in the shortest period that holds this share of the observed energy.
SAMPLES_PER_PERIOD, ENERGY_SHARE = 4, 0.99


@dataclass(frozen=True)
class GraphTransport:
    """Graph-space optimal transport (GSOT): the cost of moving one trace's points (t, amplitude) to the other's.

    For each trace r, with the largest observed amplitude ``A_r`` and the best assignment s of its N samples at the times t_i
    (Métivier et al. 2019, doi:10.1088/1361-6420/ab206f),

        ``sum_r w_r (dt / tau) min_s sum_i 0.5 [((p_i - o_s(i)) / A_r)^2 + ((t_i - t_s(i)) / tau)^2]``.

    It has no unit: it is an integral over the time in units of tau. For a short tau samples stay where they are, and it is the
    L2 misfit of ``p / A_r``. The adjoint source is ``w_r (dt / tau) (p_i - o_s(i)) / A_r^2``: the assignment is the best one,
    so its own derivative does not matter. A trace that is not observed counts nothing. One that is not predicted is
    transported as any other. The misfit is undefined if nothing is observed.

    The assignment is exact (:func:`scipy.optimize.linear_sum_assignment`; Crouse 2016, doi:10.1109/TAES.2016.140952). Its cost
    grows with up to the third power of N, so the traces are resampled first, with a low-pass against aliases; the adjoint
    source passes through the transpose of that.

    Parameters
    ----------
    max_shift
        tau, ms: a sample that is shifted by so much costs as much as one that is wrong by the largest amplitude. None: two mean
        periods of the observed gather.
    sample_interval
        dt, the sample interval after the resampling, ms. None: a multiple of the gathers' that samples 4 times the shortest
        period in the observed gather.
    amplitude_power
        q in the weights ``w_r = (|o_r|^2 / mean |o|^2)^(q / 2)``.
    """

    max_shift: float | None = None
    sample_interval: float | None = None
    amplitude_power: float = 0.0

    def evaluate(self, predicted: NDArray, observed: NDArray, axis: TimeAxis) -> tuple[float, NDArray]:
        """Return the sum over the traces, and the adjoint source."""
        from scipy.optimize import linear_sum_assignment

        weights = trace_weights(Normalise().linearise(observed)[1].scales, self.amplitude_power)
        if not weights.any():
            raise UndefinedMisfit("the observed gather is zero, and its amplitudes are what others are measured by")
        frequencies, shares = _energy_spectrum(observed, axis)
        tau = self.max_shift or SHIFT_PERIODS / float((frequencies * shares).sum())
        highest = frequencies[np.searchsorted(np.cumsum(shares), ENERGY_SHARE)]
        multiple = max(1, math.floor(1 / (SAMPLES_PER_PERIOD * highest * axis.step)))
        resample = Resample(self.sample_interval or multiple * axis.step)
        operator = resample.operator(axis) if resample.interval != axis.step else None
        p, o = (
            gather.astype(np.float64) if operator is None else operator.apply(gather.astype(np.float64))
            for gather in (predicted, observed)
        )
        times = np.arange(len(p)) * resample.interval / tau
        distances = np.square(times[:, None] - times)
        value, source = 0.0, np.zeros_like(p)
        for r in np.flatnonzero(weights):
            scale = np.abs(o[:, r]).max()
            cost = np.square((p[:, r, None] - o[:, r]) / scale) + distances
            rows, columns = linear_sum_assignment(cost)
            value += weights[r] * cost[rows, columns].sum()
            source[:, r] = weights[r] * (p[:, r] - o[columns, r]) / scale**2
        share = resample.interval / tau
        back = source if operator is None else operator.transpose(source)
        return 0.5 * share * float(value), (share * back).astype(predicted.dtype)


def _energy_spectrum(gather: NDArray, axis: TimeAxis) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies, kHz, and the share of a gather's energy at each of them."""
    from scipy.fft import next_fast_len, rfft, rfftfreq

    count = next_fast_len(2 * len(gather), real=True)
    energy = np.square(np.abs(rfft(gather, count, axis=0))).sum(axis=1, dtype=np.float64)
    return rfftfreq(count, axis.step), energy / energy.sum()
