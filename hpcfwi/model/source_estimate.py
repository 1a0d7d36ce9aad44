"""The source signature: observed and predicted gathers compared in the frequency domain, and the filter between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.chain import Processing
from hpcfwi.model.processing.filters import SpectralFilter
from hpcfwi.model.processing.mutes import offsets
from hpcfwi.model.processing.operators import Composition, Operator
from hpcfwi.model.processing.sampling import RecordSampling, Tail
from hpcfwi.model.traces import UsableTraces
from hpcfwi.model.wavelet import Wavelet

# Lags of at most this share of a record are looked at for a time shift.
MAX_LAG_SHARE = 0.25
# Frequencies with at least this share of the largest observed power count for the condition of an estimate, which is this
# where nothing is predicted at one of them.
BAND_LEVEL, MAX_CONDITION = 0.01, 1e300
# A wavelet is shown where it has at least this share of its peak.
SHOWN_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class GatherComparison:
    """Sums over traces of what observed gathers d and predicted gathers p have in common, at each frequency.

    Parameters
    ----------
    cross
        Sum of ``conj(p) d``, shape (frequencies,).
    predicted, observed
        Sums of ``|p|^2`` and ``|d|^2``, shape (frequencies,).
    axis
        Time axis of the gathers.
    traces
        Number of traces.
    """

    cross: NDArray[np.complex128]
    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    axis: TimeAxis
    traces: int

    @classmethod
    def of(cls, observed: NDArray, predicted: NDArray, axis: TimeAxis) -> GatherComparison:
        """Compare gathers, shape (samples, traces); the time axis may be longer than they are."""
        from scipy.fft import rfft

        count = transform_length(axis)
        d = rfft(observed.astype(np.float64), count, axis=0)
        p = rfft(predicted.astype(np.float64), count, axis=0)
        return cls(
            (p.conj() * d).sum(axis=1),
            np.square(np.abs(p)).sum(axis=1),
            np.square(np.abs(d)).sum(axis=1),
            axis,
            observed.shape[1],
        )

    def __add__(self, other: GatherComparison) -> GatherComparison:
        return replace(
            self,
            cross=self.cross + other.cross,
            predicted=self.predicted + other.predicted,
            observed=self.observed + other.observed,
            traces=self.traces + other.traces,
        )

    @property
    def scale(self) -> float:
        """Ratio of the root mean squares of observed and predicted gathers; infinite if nothing was predicted."""
        predicted = _energy(self.predicted)
        return math.sqrt(_energy(self.observed) / predicted) if predicted else math.inf

    @property
    def observed_energy(self) -> float:
        """Sum of squares of the observed gathers."""
        return _energy(self.observed) / (2 * (len(self.observed) - 1))

    def correlation(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lags by which observed gathers are late, ms, and their correlation with predicted ones there, from -1 to 1."""
        count = 2 * (len(self.cross) - 1)
        norm = math.sqrt(_energy(self.observed) * _energy(self.predicted))
        values = np.fft.fftshift(np.fft.irfft(self.cross, count))
        lags = (np.arange(count) - count // 2) * self.axis.step
        near = np.abs(lags) <= MAX_LAG_SHARE * self.axis.times[-1]
        return lags[near], (values[near] * count / norm if norm else np.zeros(int(near.sum())))


def _energy(power: NDArray[np.float64]) -> float:
    """Sum over all frequencies, positive and negative, of a power at the positive ones."""
    return float(power[0] + 2 * power[1:-1].sum() + power[-1])


def transform_length(axis: TimeAxis) -> int:
    """Even number of samples of a Fourier transform in which filtered gathers do not wrap around."""
    from scipy.fft import next_fast_len

    count = int(next_fast_len(2 * axis.samples, real=True))
    while count % 2:
        count = int(next_fast_len(count + 1, real=True))
    return count


@dataclass(frozen=True, eq=False)
class SourceFilter:
    """The filter that turns predicted gathers into observed ones, as a change of the wavelet would.

    Parameters
    ----------
    response
        Shape (frequencies,): those of a transform of :func:`transform_length` samples.
    axis
        Time axis of the gathers that are filtered.
    explained
        Share of the observed energy that filtered predictions explain.
    condition
        Largest predicted amplitude over the smallest one at frequencies that the observed gathers have: large, if the wavelet
        before the estimate lacks a part of their band.
    """

    response: NDArray[np.complex128]
    axis: TimeAxis
    explained: float
    condition: float

    def operators(self, recording: TimeAxis) -> tuple[SpectralFilter, Tail]:
        """The filter of gathers on its time axis, and their restriction to the samples of a shorter one."""
        return SpectralFilter(self.response, self.count), Tail(self.axis.samples, recording.samples)

    @property
    def count(self) -> int:
        """Samples of the Fourier transform."""
        return 2 * (len(self.response) - 1)

    def apply_to(self, wavelet: Wavelet) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Times, ms, the wavelet there, and what the filter makes of it; the same times for all filters of a survey."""
        count = self.count
        before = np.zeros(count)
        before[: self.axis.samples] = wavelet.sample(self.axis)
        after: NDArray[np.float64] = np.fft.irfft(np.fft.rfft(before) * self.response, count)
        # what comes before the first sample is at the end, as the transform is periodic
        begin = count // 4
        before, after = np.roll(before, begin), np.roll(after, begin)
        times = (np.arange(count, dtype=np.float64) - begin) * self.axis.step - wavelet.lead
        return times, before, after


def at_recorded_samples(sampling: RecordSampling, source: SourceFilter | None, axis: TimeAxis, dtype: str) -> Operator:
    """From predictions on a time axis to the samples of observed gathers, as another wavelet would make them."""
    if source is None:
        return sampling.operator(axis, dtype)
    return Composition((sampling.extended_operator(axis, dtype), *source.operators(sampling.recording)))


def comparison_for_estimate(
    traces: UsableTraces,
    predicted: NDArray,
    processing: Processing,
    sampling: RecordSampling,
    dtype: str,
    max_offset: float | None,
) -> GatherComparison:
    """Compare gathers from which the wavelet is estimated, with the processing that commutes with a change of the wavelet.

    ``traces`` and ``predicted`` are at the samples of observed gathers, without source filters; traces beyond ``max_offset``,
    m, are not used. The time axis of the result is the one on which predictions are filtered.
    """
    chains = traces.processing(processing.leading_part, sampling.recording, dtype)
    near = offsets(traces.shot) <= (math.inf if max_offset is None else max_offset)
    pair = chains.observed.apply(traces.record)[:, near], chains.predicted.apply(predicted)[:, near]
    return GatherComparison.of(*pair, sampling.extended)


def estimate_filter(comparison: GatherComparison, damping: float) -> SourceFilter:
    """Find the filter s that minimises ``sum |d - s p|^2 + damping mean(sum |p|^2) |s|^2`` at each frequency.

    The mean is that over all frequencies. Where nothing is predicted, s is zero.

    Notes
    -----
    ``s = sum(conj(p) d) / (sum |p|^2 + e)``, e the damping times the mean: damped least squares in the frequency domain (Pratt
    1999, doi:10.1190/1.1444597), damped as in the engine fdlsq of libstfinv (Groos et al. 2014, doi:10.1190/geo2013-0462.1).
    """
    power = comparison.predicted
    denominator = power + damping * float(power.mean())
    response = np.divide(comparison.cross, denominator, out=np.zeros_like(comparison.cross), where=denominator > 0)
    left = comparison.observed - 2 * (response.conj() * comparison.cross).real + np.square(np.abs(response)) * power
    energy = _energy(comparison.observed)
    band = power[comparison.observed >= BAND_LEVEL * comparison.observed.max()]
    return SourceFilter(
        response,
        comparison.axis,
        1 - _energy(left) / energy if energy else 0.0,
        math.sqrt(power.max() / band.min()) if band.min() > 0 else MAX_CONDITION if power.any() else 1.0,
    )


@dataclass(frozen=True, eq=False)
class SourceFilters:
    """The filter of the survey, or one for each shot."""

    common: SourceFilter | None = None
    by_shot: Mapping[str, SourceFilter] = field(default_factory=dict)

    def all(self) -> Iterator[SourceFilter]:
        """Every filter."""
        yield from self.by_shot.values() if self.common is None else (self.common,)

    def of(self, shot: str) -> SourceFilter | None:
        """The filter of a shot."""
        return self.by_shot.get(shot, self.common)


def shown_part(signals: Iterable[NDArray[np.float64]]) -> slice:
    """The samples where one of some signals is not nearly zero."""
    sizes = [np.abs(values) / np.abs(values).max() for values in signals if values.any()]
    shown = np.flatnonzero(np.max(sizes, axis=0) > SHOWN_SHARE) if sizes else np.arange(1)
    return slice(int(shown[0]), int(shown[-1]) + 1)


def total_comparison(comparisons: Iterable[GatherComparison]) -> GatherComparison:
    """Add up comparisons, at least one."""
    return reduce(lambda a, b: a + b, comparisons)
