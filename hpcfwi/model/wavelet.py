"""Source wavelets: Ricker, or samples from a file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.discretization import TimeAxis

__all__ = ["RickerWavelet", "SampledWavelet", "Wavelet", "highest_frequency", "peak_frequency"]

# Amplitude, relative to the spectrum's peak, below which a frequency is not worth a grid point: -40 dB.
FLOOR = 0.01


@dataclass(frozen=True)
class RickerWavelet:
    """The Ricker wavelet ``amplitude (1 - 2 r^2) exp(-r^2)`` with ``r = pi f (t - delay)``.

    Parameters
    ----------
    frequency
        Peak frequency, kHz.
    delay
        Time of the peak, ms.
    amplitude
        Value at the peak.
    """

    frequency: float
    delay: float
    amplitude: float = 1.0

    def sample(self, axis: TimeAxis) -> NDArray[np.float64]:
        """Values on a time axis."""
        r2 = (np.pi * self.frequency * (axis.times - self.delay)) ** 2
        return self.amplitude * (1 - 2 * r2) * np.exp(-r2)


@dataclass(frozen=True)
class SampledWavelet:
    """A wavelet given by samples; zero after its end.

    Parameters
    ----------
    values
        Samples, from time zero on.
    interval
        Sample interval, ms.
    """

    values: tuple[float, ...]
    interval: float

    def sample(self, axis: TimeAxis) -> NDArray[np.float64]:
        """Values on a time axis, by a cubic spline."""
        from hpcfwi.model.processing import resample

        out = np.zeros(axis.samples)
        known = resample(np.asarray(self.values)[:, None], self.interval, axis, "float64")[:, 0]
        out[: len(known)] = known
        return out


Wavelet = RickerWavelet | SampledWavelet


def _spectrum(wavelet: Wavelet) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies, kHz, and amplitudes."""
    if isinstance(wavelet, RickerWavelet):
        frequencies = np.linspace(0.0, 5.0 * wavelet.frequency, 5001)
        ratio = (frequencies / wavelet.frequency) ** 2
        return frequencies, ratio * np.exp(-ratio)
    count = max(4096, 8 * len(wavelet.values))
    frequencies = np.asarray(np.fft.rfftfreq(count, wavelet.interval), dtype=np.float64)
    return frequencies, np.abs(np.fft.rfft(wavelet.values, count))


def highest_frequency(wavelet: Wavelet) -> float:
    """Highest frequency, kHz, whose amplitude is above 1 % of the spectrum's peak (for a Ricker 2.76 times its peak)."""
    frequencies, amplitudes = _spectrum(wavelet)
    return float(frequencies[np.flatnonzero(amplitudes >= FLOOR * amplitudes.max())[-1]])


def peak_frequency(wavelet: Wavelet) -> float:
    """Frequency, kHz, of the largest amplitude."""
    frequencies, amplitudes = _spectrum(wavelet)
    return float(frequencies[np.argmax(amplitudes)])
