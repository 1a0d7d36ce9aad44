"""Filters: band-pass, and resampling with an anti-alias filter."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.model.grid import TimeAxis, round_down
from hpcfwi.model.processing.operators import Operator, Step, Weights, ramp
from hpcfwi.model.processing.sampling import Resampling, resampling
from hpcfwi.model.survey import Shot, Survey

# The Fourier transform is periodic: gathers are padded until the response has fallen to this share.
WRAP_AROUND = 1e-7
# The end of a gather is tapered where the response to what comes after it is above this share: gathers that are as loud at
# their end as before then have errors of at most 0.7 %.
END_EFFECT = 0.1
# Values of the padded traces that are transformed at a time.
MAX_BLOCK_VALUES = 4_000_000
# Shares of the Nyquist frequency up to which resampling passes everything, and above which it passes nothing.
PASS_SHARE, STOP_SHARE = 0.75, 0.95


@dataclass(frozen=True, eq=False)
class SpectralFilter(Operator):
    """Multiply the spectrum of each trace by a response; the transpose multiplies by its conjugate."""

    response: NDArray[np.complex128]  # at the frequencies of the transform, shape (count // 2 + 1,)
    count: int  # samples of the transform, more than those of a gather

    def apply(self, gather: NDArray) -> NDArray:
        """Return the filtered gather."""
        return self._filter(gather, self.response)

    def transpose(self, gather: NDArray) -> NDArray:
        """Return the gather, filtered backwards in time."""
        return self._filter(gather, self.response.conj())

    def _filter(self, gather: NDArray, response: NDArray) -> NDArray:
        from scipy.fft import irfft, rfft  # numpy.fft computes in double precision only

        out = np.empty_like(gather)
        block = max(1, MAX_BLOCK_VALUES // self.count)
        for first in range(0, gather.shape[1], block):
            traces = gather[:, first : first + block]
            spectrum = rfft(traces, self.count, axis=0)
            spectrum *= response.astype(spectrum.dtype)[:, None]
            out[:, first : first + block] = irfft(spectrum, self.count, axis=0)[: len(gather)]
        return out


@dataclass(frozen=True)
class BandPass(Step):
    """A Butterworth filter between two corner frequencies, or beyond one; with zero phase, or causal.

    Notes
    -----
    The response is that of an analog filter of order n (Butterworth 1930), so it does not depend on the sample interval. With
    ``s = i f / f_c`` the causal low-pass is ``1 / prod(s - p_k)``, its poles ``p_k = exp(i pi (2k + n - 1) / (2n))``, k = 1 to
    n, and the high-pass is that of ``1 / s``. With zero phase the response is the absolute value of the causal one,
    ``(1 + (f / f_c)^(2n))^(-1/2)``. Both are ``1 / sqrt(2)`` at a corner. n is even: the absolute value of a high-pass of odd
    order has a kink at f = 0, and its response in time does not fall exponentially.

    The causal response falls like the slowest pole, ``exp(-2 pi f_c sin(pi / (2n)) t)``, and the one of zero phase like that
    on both sides, because its branch points are the poles and their mirror images.
    """

    kind = "bandpass"
    low: float | None  # kHz; below it amplitudes fall
    high: float | None  # kHz; above it amplitudes fall
    order: int = 4  # even
    phase: Literal["zero", "causal"] = "zero"

    def response(self, frequencies: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Response at frequencies, kHz."""
        poles = np.exp(0.5j * np.pi * (2 * np.arange(1, self.order + 1) + self.order - 1) / self.order)
        response = np.ones(frequencies.shape, dtype=np.complex128)
        for pole in poles:
            if self.high is not None:
                response /= 1j * frequencies / self.high - pole
            if self.low is not None:
                s = 1j * frequencies / self.low
                response *= s / (1 - pole * s)
        return response if self.phase == "causal" else np.abs(response).astype(np.complex128)

    def duration(self, share: float) -> float:
        """Time, ms, in which the response falls to a share of itself."""
        corner = min(f for f in (self.low, self.high) if f is not None)
        return math.log(1 / share) / (2 * math.pi * corner * math.sin(math.pi / (2 * self.order)))

    def check(self, key: str, axis: TimeAxis, survey: Survey, highest: float) -> tuple[str, ...]:  # noqa: ARG002
        """Raise InputError if a corner is not below the Nyquist frequency."""
        nyquist = 1 / (2 * axis.step)
        for name, corner in (("low", self.low), ("high", self.high)):
            if corner is not None and corner >= nyquist:
                raise InputError(
                    f"{key}.{name}: {1000 * corner:g} Hz is not below {1000 * nyquist:.4g} Hz, the Nyquist frequency of "
                    f"gathers with a sample interval of {axis.step:g} ms"
                )
        return ()

    def build(self, shot: Shot, axis: TimeAxis) -> SpectralFilter:  # noqa: ARG002
        """The filter of gathers on a time axis."""
        return _spectral_filter(self, axis)


@lru_cache(maxsize=8)
def _spectral_filter(band: BandPass, axis: TimeAxis) -> SpectralFilter:
    count = padded_count((band,), axis)
    frequencies = np.asarray(np.fft.rfftfreq(count, axis.step), dtype=np.float64)
    return SpectralFilter(band.response(frequencies), count)


def padded_count(bands: Iterable[BandPass], axis: TimeAxis) -> int:
    """Samples of a Fourier transform in which the responses of filters do not reach around a time axis."""
    from scipy.fft import next_fast_len

    padding = sum(band.duration(WRAP_AROUND) for band in bands)
    return int(next_fast_len(axis.samples + math.ceil(padding / axis.step), real=True))


def end_taper(bands: Iterable[BandPass], axis: TimeAxis) -> Weights | None:
    """Taper the end of gathers that filters of zero phase would complete with what comes after it; None if none would.

    A filter of zero phase needs what comes after a sample. Predicted gathers have that where the wavelet is filtered, but
    recorded ones end.
    """
    reach = end_effect(bands)
    if reach == 0:
        return None
    return Weights(ramp(axis.times[-1] - axis.times, min(reach, float(axis.times[-1])))[:, None])


def end_effect(bands: Iterable[BandPass]) -> float:
    """Time before the end of a gather, ms, in which filters of zero phase lack what comes after it."""
    return sum(band.duration(END_EFFECT) for band in bands if band.phase == "zero")


@dataclass(frozen=True)
class Resample(Step):
    """Interpolate gathers to another sample interval, without what its Nyquist frequency folds back."""

    kind = "resample"
    interval: float  # ms

    def axis_after(self, axis: TimeAxis) -> TimeAxis:
        """The longest time axis of the new interval within the old one."""
        return TimeAxis(self.interval, math.floor(axis.times[-1] / self.interval + 1e-9) + 1)

    def passed(self, axis: TimeAxis) -> float:
        """Frequency, kHz, up to which gathers on a time axis stay complete."""
        return PASS_SHARE / (2 * max(self.interval, axis.step))

    def check(self, key: str, axis: TimeAxis, survey: Survey, highest: float) -> tuple[str, ...]:  # noqa: ARG002
        """Warn if gathers lose a part of the wavelet's band; raise InputError if they do not carry it."""
        limit = 1 / (2 * highest)
        if self.interval > limit:
            raise InputError(
                f"{key}.sample_interval: {self.interval:g} ms resolves frequencies up to {500 / self.interval:.4g} Hz "
                f"(Nyquist), but the wavelet reaches {1000 * highest:.4g} Hz; take at most {round_down(limit):.4g} ms"
            )
        passed = self.passed(axis)
        if passed >= highest:
            return ()
        shorter = round_down(self.interval * passed / highest)
        return (
            f"{key}.sample_interval: at {self.interval:g} ms, gathers are complete up to {1000 * passed:.3g} Hz, but the "
            f"wavelet reaches {1000 * highest:.3g} Hz; {shorter:.4g} ms would keep all of it",
        )

    def build(self, shot: Shot, axis: TimeAxis) -> Resampling:  # noqa: ARG002
        """The operator of gathers on a time axis: it is the same for all shots."""
        return self.operator(axis)

    def operator(self, axis: TimeAxis) -> Resampling:
        """The interpolating low-pass of gathers on a time axis."""
        band = self.passed(axis), STOP_SHARE / (2 * max(self.interval, axis.step))
        return resampling(axis, self.axis_after(axis), band, False, "float64")
