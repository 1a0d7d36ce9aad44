"""Amplitudes: time gain, normalisation of traces, and the correction of point sources to line sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.filters import SpectralFilter
from hpcfwi.model.processing.operators import Composition, Operator, Step, Weights
from hpcfwi.model.survey import Shot

# Traces whose norm is below this share of the gather's largest one count as zero: they are rounding errors.
SMALLEST_NORM = 1e-7


@dataclass(frozen=True)
class TimeGain(Step):
    """Multiply by ``(t / 1 s)^power``."""

    kind = "time_gain"
    power: float

    def build(self, shot: Shot, axis: TimeAxis) -> Weights:  # noqa: ARG002
        """Weights of the samples of every trace."""
        return Weights(((axis.times / 1000) ** self.power)[:, None])


@dataclass(frozen=True)
class Normalise(Step):
    """Divide each trace by its L2 norm, so that the misfit compares waveforms but not amplitudes.

    A trace that is zero, or whose norm is below 1e-7 of the largest one of the gather, becomes zero, and so does its
    derivative.
    """

    kind = "normalise"

    def build(self, shot: Shot, axis: TimeAxis) -> Normalise:  # noqa: ARG002
        """The step itself: it depends on the gather alone."""
        return self

    def linearise(self, gather: NDArray) -> tuple[NDArray, NormaliseDerivative]:
        """Return the unit traces, and the derivative."""
        norms = np.sqrt(np.square(gather, dtype=np.float64).sum(axis=0))
        used = norms > SMALLEST_NORM * norms.max(initial=0.0)
        scales = np.divide(1.0, norms, out=np.zeros_like(norms), where=used)
        unit = np.multiply(gather, scales, dtype=gather.dtype)
        return unit, NormaliseDerivative(unit, scales)


@dataclass(frozen=True, eq=False)
class NormaliseDerivative(Operator):
    """Derivative of ``n = d / |d|``: ``(I - n n^T) / |d|`` for each trace."""

    unit: NDArray  # n, shape (samples, receivers)
    scales: NDArray[np.float64]  # 1 / |d| of each trace, 0 of zero traces

    def apply(self, gather: NDArray) -> NDArray:
        """Return the part of each trace that is perpendicular to n, divided by the norm of d."""
        along = np.multiply(self.unit, gather, dtype=np.float64).sum(axis=0)
        return np.multiply(gather - self.unit * along, self.scales).astype(gather.dtype, copy=False)

    def transpose(self, gather: NDArray) -> NDArray:
        """Return the same: the operator is symmetric."""
        return self.apply(gather)


@dataclass(frozen=True)
class LineSource(Step):
    """Make records of point sources comparable with those of line sources, which a 2-D model has; observed gathers only.

    Notes
    -----
    In a homogeneous medium of velocity v the far fields of both sources at the distance r differ by the factor
    ``G_2D / G_3D = sqrt(2 pi r v / (i w)) = sqrt(2 r v) F[1 / sqrt(t)]`` in the frequency domain. A wave that arrives at the
    time t has travelled ``r = v t``, reflected or not: multiply by ``v sqrt(2 t)`` and convolve with ``1 / sqrt(t)``.
    Amplitudes are right for waves that travel with v; the phase, pi / 4, is right for all. Forbriger, Groos and Schäfer (2014,
    Geophysical Journal International 198, 1387-1404) discuss this transformation, and one for direct waves of unknown
    velocity, with the factor ``r sqrt(2 / t)``.

    The traces are multiplied first, so that the tail of the convolution has the amplitude of the arrival. Between samples the
    integral ``int s(t - t') t'^(-1/2) dt'`` takes s as linear, exactly; the low-pass ``sinc^2(f dt)`` of that is divided out.
    """

    kind = "line_source"
    observed_only = True
    velocity: float  # km/s
    delay: float = 0.0  # ms; when the wavelet has its peak, from which travel times count

    def build(self, shot: Shot, axis: TimeAxis) -> Composition:  # noqa: ARG002
        """The operator on gathers whose amplitudes are ``1 / r`` with r in m."""
        from scipy.fft import next_fast_len, rfft, rfftfreq

        travelled = np.maximum(axis.times - self.delay, 0.0)
        gain = Weights((self.velocity * np.sqrt(2 * travelled))[:, None])
        ends = np.arange(-1.0, axis.samples + 1)
        integral = 4 / 3 * np.sqrt(axis.step) * np.maximum(ends, 0.0) ** 1.5
        weights = integral[2:] - 2 * integral[1:-1] + integral[:-2]
        count = int(next_fast_len(2 * axis.samples, real=True))
        response = rfft(weights, count) / np.sinc(rfftfreq(count)) ** 2
        return Composition((gain, SpectralFilter(response, count)))
