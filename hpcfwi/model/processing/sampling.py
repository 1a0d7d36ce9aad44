"""The samples at which predicted and observed gathers are compared, and the operators that bring gathers there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.grid import TimeAxis, true_frequency
from hpcfwi.model.processing.operators import Operator
from hpcfwi.model.wavelet import Wavelet, highest_frequency

if TYPE_CHECKING:
    from hpcfwi.config.run import RunConfig

# The resampling of predicted gathers passes frequencies up to the first multiple of the wavelet's highest one, and none above
# the second, or above this share of what both time axes carry.
PASS_BAND, STOP_BAND, USABLE_SHARE = 1.1, 3.0, 0.95
# Values of a block of rows of the operator while it is built.
MAX_BLOCK_VALUES = 2_000_000
# Weights below this share of the largest one of a sample are left out: their sum is some 1e-5 of a record.
SMALLEST_WEIGHT = 1e-5
# The interpolating filter is a sinc function in a Kaiser window: the largest error in its pass and stop band, dB, the shape of
# the window, and its length on each side in periods of the width of the transition band (Kaiser 1974).
FILTER_ERROR = 80.0
FILTER_SHAPE, FILTER_PERIODS = 0.1102 * (FILTER_ERROR - 8.7), (FILTER_ERROR - 8) / (2.285 * 4 * math.pi)


@dataclass(frozen=True)
class Tail(Operator):
    """Restrict a predicted gather to the samples that have observed data, for ``data.tail = "extrapolate"``.

    The last predicted sample counts as zero, because Devito's tutorials do not compute it.
    """

    samples: int  # of the predicted gather
    observed: int  # samples of the observed gather on the same time axis
    zero_last: bool = False  # whether the last predicted sample counts as zero

    def apply(self, gather: NDArray) -> NDArray:
        """Return the compared samples, shape (observed, receivers); a gather that ends there comes back unchanged."""
        compared = gather[: self.observed]
        if self.zero_last:
            compared = compared.copy()
            compared[self.samples - 1 :] = 0
        return compared

    def transpose(self, gather: NDArray) -> NDArray:
        """Return the gather on the whole time axis, shape (samples, receivers), zero where nothing is compared."""
        out = np.zeros((self.samples, *gather.shape[1:]), dtype=gather.dtype)
        out[: self.observed] = gather
        if self.zero_last:
            out[-1] = 0
        return out


@dataclass(frozen=True, eq=False)
class Resampling(Operator):
    """Interpolate a predicted gather to the samples of the observed one (:func:`resampling`)."""

    weights: Any  # sparse matrix, shape (observed samples, predicted samples)

    def apply(self, gather: NDArray) -> NDArray:
        """Return the gather, shape (observed samples, receivers)."""
        return np.asarray(self.weights @ gather).astype(gather.dtype, copy=False)

    def transpose(self, gather: NDArray) -> NDArray:
        """Return the gather on the predicted samples."""
        return np.asarray(self.weights.T @ gather).astype(gather.dtype, copy=False)


@dataclass(frozen=True)
class RecordSampling:
    """The samples at which predicted and observed gathers are compared.

    By default predicted gathers are interpolated to the samples of the observed ones, which stay as they are. With
    ``extrapolate`` it is the other way around, as in Devito's tutorials: a spline interpolates the observed ones.
    """

    recording: TimeAxis  # of the observed gathers
    highest_frequency: float  # of the wavelet, kHz
    corrected: bool = True  # whether the time dispersion is taken out of predicted gathers
    extrapolate: bool = False  # data.tail
    lead: float = 0.0  # of the wavelet, ms; records of the time t have the time t + lead in predicted gathers
    extra: float = 0.0  # ms beyond the recording that an estimated wavelet needs of predicted gathers

    @classmethod
    def from_config(cls, config: RunConfig, wavelet: Wavelet, recording: TimeAxis) -> RecordSampling:
        """The sampling of a run."""
        corrected = config.solver.time_dispersion == "corrected"
        extra = 1000 / config.wavelet.peak_frequency if config.wavelet.kind == "estimate" else 0.0
        extrapolate = config.data.tail == "extrapolate"
        return cls(recording, highest_frequency(wavelet), corrected, extrapolate, wavelet.lead, extra)

    def band(self, step: float) -> tuple[float, float]:
        """Frequencies, kHz, up to which gathers of a time step, ms, pass, and above which nothing does."""
        limit = USABLE_SHARE * min(0.5 / self.recording.step, 1 / (math.pi * step))
        stop = min(STOP_BAND * self.highest_frequency, limit)
        return min(PASS_BAND * self.highest_frequency, 0.85 * stop), stop

    def margin(self, step: float) -> float:
        """How much longer than the observed gathers the predicted ones have to be, ms."""
        low, high = self.band(step)
        return min(FILTER_PERIODS / (high - low), float(self.recording.times[-1]))

    def compared(self, axis: TimeAxis) -> TimeAxis:
        """Time axis of the compared gathers."""
        return axis if self.extrapolate else self.recording

    def operator(self, axis: TimeAxis, dtype: str) -> Operator:
        """What is done to predicted gathers on a time axis."""
        if self.extrapolate:
            return Tail(axis.samples, axis.samples, zero_last=True)
        return resampling(axis, self.recording, self.band(axis.step), self.corrected, dtype, self.lead)

    @property
    def extended(self) -> TimeAxis:
        """Time axis of the observed gathers, longer by ``extra``."""
        return TimeAxis.within(float(self.recording.times[-1]) + self.extra, self.recording.step)

    def extended_operator(self, axis: TimeAxis, dtype: str) -> Operator:
        """The samples of predicted gathers on the extended time axis."""
        return resampling(axis, self.extended, self.band(axis.step), self.corrected, dtype, self.lead)

    def observed(self, record: NDArray, axis: TimeAxis, dtype: str) -> NDArray:
        """An observed gather, at the samples where it is compared."""
        if self.extrapolate:
            return resample(record, self.recording.step, axis, dtype, extrapolate=True)
        return np.ascontiguousarray(record, dtype=dtype)

    def synthetic(self, record: NDArray, axis: TimeAxis, dtype: str) -> NDArray:
        """An observed gather, made of a modelled one on a time axis."""
        predicted = self.operator(axis, dtype).apply(record)
        if self.extrapolate:
            return resample(predicted, axis.step, self.recording, dtype, extrapolate=True)
        return predicted


@lru_cache(maxsize=4)
def resampling(
    axis: TimeAxis, recording: TimeAxis, band: tuple[float, float], corrected: bool, dtype: str, lead: float = 0.0
) -> Resampling:
    """The operator that interpolates gathers from one time axis to another.

    Parameters
    ----------
    axis, recording
        Time axes before and after.
    band
        Frequencies, kHz, up to which everything passes, and above which nothing does.
    corrected
        Whether the time dispersion of the leap-frog scheme is removed.
    dtype
        Precision.
    lead
        Time on the first axis, ms, at which the second one begins.

    Notes
    -----
    The leap-frog scheme with the time step dt moves what belongs to the frequency ``f`` to a higher one, ``f' =
    asin(pi f dt) / (pi dt)`` (:func:`hpcfwi.model.grid.true_frequency`). So the sample at time t is the sum over f of
    ``exp(2 pi i f t)`` times the spectrum of the gather at f' (the inverse time dispersion transform of Koene et al. 2018,
    doi:10.1093/gji/ggx563). A wavelet is transformed the other way (:func:`hpcfwi.model.wavelet.disperse`).
    """
    from scipy.fft import irfft, next_fast_len
    from scipy.sparse import csr_array, vstack

    low, high = band
    guard = math.ceil(4 * FILTER_PERIODS / (high - low) / axis.step)  # the transform is periodic
    count = next_fast_len(axis.samples + guard, real=True)
    dispersed = np.arange(count // 2 + 1) / (count * axis.step)
    frequencies = true_frequency(dispersed, axis.step) if corrected else dispersed
    gain = _low_pass(frequencies, low, high)
    if corrected:
        gain = gain * np.cos(np.pi * dispersed * axis.step)  # df / df'
    rows = []
    block = max(1, MAX_BLOCK_VALUES // count)
    for times in np.array_split(recording.times + lead, math.ceil(recording.samples / block)):
        phases = np.exp(-2j * np.pi * frequencies * times[:, None])
        weights = irfft(gain * phases, count, axis=1)[:, : axis.samples]
        weights[np.abs(weights) < SMALLEST_WEIGHT * np.abs(weights).max(axis=1, keepdims=True)] = 0
        rows.append(csr_array(weights.astype(dtype)))
    return Resampling(vstack(rows, format="csr"))


def _low_pass(frequencies: NDArray, low: float, high: float) -> NDArray[np.float64]:
    """Response of the interpolating filter: 1 up to ``low``, 0 above ``high``; all in kHz."""
    half, cutoff = FILTER_PERIODS / (high - low), 0.5 * (low + high)
    times = np.linspace(-half, half, 2 * math.ceil(8 * high * half) + 1)  # good for frequencies up to 4 high
    taps = np.sinc(2 * cutoff * times) * np.kaiser(len(times), FILTER_SHAPE)
    passed = frequencies < 4 * high
    gain = np.zeros(len(frequencies))
    gain[passed] = np.cos(2 * np.pi * frequencies[passed, None] * times) @ (taps / taps.sum())
    return gain


def resample(record: NDArray, interval: float, axis: TimeAxis, dtype: str, extrapolate: bool = False) -> NDArray:
    """Interpolate a record, shape (samples, traces), to a time axis by a cubic spline per trace.

    ``interval`` is the record's, ms. The result has the samples that the record covers, or with ``extrapolate`` all samples of
    the axis, where the spline goes on past the end of the record.
    """
    end = (len(record) - 1) * interval
    covered = axis.samples if extrapolate else min(axis.samples, math.floor(end / axis.step + 1e-9) + 1)
    if math.isclose(interval, axis.step, rel_tol=1e-9) and covered <= len(record):
        return np.ascontiguousarray(record[:covered], dtype=dtype)
    from scipy.interpolate import make_interp_spline  # takes a third of a second, and reports do not need it

    known, degree = interval * np.arange(len(record)), min(3, len(record) - 1)
    spline = make_interp_spline(known, np.asarray(record, dtype=np.float64), k=degree, axis=0)
    return spline(axis.times[:covered]).astype(dtype)
