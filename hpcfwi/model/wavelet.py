"""Source wavelets: Ricker, or samples from a file, band-passed by the processing of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.io import quoted, require_regular_file
from hpcfwi.model.grid import TimeAxis, true_frequency

if TYPE_CHECKING:
    from hpcfwi.config.run import (  # workers import this module without pydantic
        EstimatedWaveletSection,
        RickerSection,
        WaveletFileSection,
    )
    from hpcfwi.model.processing.filters import BandPass

# Of a wavelet, times and frequencies beyond these shares of its peak and its highest frequency are left out: records do not
# pass them on (hpcfwi.model.processing.sampling).
SMALLEST_VALUE, HIGHEST_KEPT, MIN_FREQUENCIES = 1e-20, 4.0, 200
# The highest frequency is the last one with this share (-40 dB) of the spectrum's peak.
HIGHEST_FREQUENCY_LEVEL = 0.01
MAX_WAVELET_SAMPLES = 10_000_000
# A band-passed wavelet begins where it passes this share of its peak, and ends with the last sample above the second share.
BAND_PASSED_START, BAND_PASSED_END = 1e-3, 1e-8


@dataclass(frozen=True)
class RickerWavelet:
    """The Ricker wavelet ``amplitude (1 - 2 r^2) exp(-r^2)`` with ``r = pi f (t - delay)`` (Ricker 1953)."""

    frequency: float  # of the peak of the spectrum, kHz
    delay: float  # time of the peak, ms
    amplitude: float = 1.0  # value at the peak
    lead: ClassVar[float] = 0.0  # ms by which the wavelet begins before time zero

    @property
    def duration(self) -> float:
        """Time, ms, after which the wavelet is zero."""
        return self.delay + 2 / self.frequency

    def sample(self, axis: TimeAxis) -> NDArray[np.float64]:
        """Return the values on a time axis, shape (axis.samples,)."""
        r2 = (np.pi * self.frequency * (axis.times - self.delay)) ** 2
        return self.amplitude * (1 - 2 * r2) * np.exp(-r2)


@dataclass(frozen=True)
class SampledWavelet:
    """A wavelet given by its samples; zero after the last one."""

    values: tuple[float, ...]  # from time zero on
    interval: float  # between samples, ms
    lead: ClassVar[float] = 0.0  # ms by which the wavelet begins before time zero

    @property
    def duration(self) -> float:
        """Time, ms, after which the wavelet is zero."""
        return len(self.values) * self.interval

    def sample(self, axis: TimeAxis) -> NDArray[np.float64]:
        """Return the values of a cubic spline on a time axis, shape (axis.samples,)."""
        from hpcfwi.model.processing.sampling import resample  # scipy, which a Ricker wavelet does not need

        out = np.zeros(axis.samples)
        known = resample(np.asarray(self.values)[:, None], self.interval, axis, "float64")[:, 0]
        out[: len(known)] = known
        return out


@dataclass(frozen=True)
class BandPassedWavelet:
    """A wavelet after band-passes (:func:`band_passed`).

    A filter of zero phase makes it begin before time zero. So it is sampled ``lead`` ms late, and so are the records that are
    modelled with it.
    """

    raw: RickerWavelet | SampledWavelet
    bands: tuple[BandPass, ...]
    lead: float  # ms by which the wavelet begins before time zero

    @property
    def duration(self) -> float:
        """Time, ms, after which the wavelet has died out."""
        return self.lead + self.raw.duration + sum(band.duration(BAND_PASSED_START) for band in self.bands)

    def gain(self, frequencies: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Response of the filters at frequencies, kHz."""
        return np.prod([band.response(frequencies) for band in self.bands], axis=0)

    def sample(self, axis: TimeAxis) -> NDArray[np.float64]:
        """Return the values on a time axis that begins at time ``-lead``, shape (axis.samples,)."""
        from hpcfwi.model.processing.filters import padded_count  # scipy, which a Ricker wavelet does not need

        # the raw wavelet may have higher frequencies than the axis carries
        finer = max(1, math.ceil(4 * axis.step * highest_frequency(self.raw)))
        fine = TimeAxis(axis.step / finer, (axis.samples - 1) * finer + 1)
        count = padded_count(self.bands, fine)
        frequencies = np.asarray(np.fft.rfftfreq(count, fine.step), dtype=np.float64)
        moved = self.gain(frequencies) * np.exp(-2j * np.pi * frequencies * self.lead)
        values = np.fft.irfft(np.fft.rfft(self.raw.sample(fine), count) * moved, count)[: fine.samples : finer]
        size = np.abs(values)
        values[np.flatnonzero(size >= BAND_PASSED_END * size.max())[-1] + 1 :] = 0
        return np.asarray(values, dtype=np.float64)


Wavelet = RickerWavelet | SampledWavelet | BandPassedWavelet


def band_passed(wavelet: RickerWavelet | SampledWavelet, bands: tuple[BandPass, ...]) -> Wavelet:
    """Filter a wavelet; it leads by the time at which it passes 0.1 % of its peak."""
    if not bands:
        return wavelet
    reach = sum(band.duration(BAND_PASSED_START**2) for band in bands if band.phase == "zero")
    found = BandPassedWavelet(wavelet, bands, reach)
    axis = TimeAxis.covering(found.duration, 1 / (4 * highest_frequency(found)))
    size = np.abs(found.sample(axis))
    start = axis.times[np.argmax(size > BAND_PASSED_START * size.max())]
    return replace(found, lead=max(0.0, math.ceil(reach - start)))


def disperse(wavelet: Wavelet, axis: TimeAxis) -> NDArray[np.float64]:
    """Sample a wavelet so that the leap-frog scheme, which moves frequencies, makes waves of the right spectrum.

    Returns the values, shape (axis.samples,): the forward time dispersion transform (Koene et al. 2018,
    doi:10.1093/gji/ggx563), which gives the frequency :func:`~hpcfwi.model.grid.true_frequency` of each dispersed one its
    amplitude.
    """
    return delayed(wavelet, axis, 0.0)


def delayed(
    wavelet: Wavelet, axis: TimeAxis, delay: float, dispersed: bool = True, leap_frog: bool = True
) -> NDArray[np.float64]:
    """Sample a wavelet that arrives ``delay`` ms later, shape (axis.samples,).

    It leaves as :func:`disperse` makes it, or, with ``dispersed=False``, as it is. Its waves travel as in the leap-frog
    scheme, or, with ``leap_frog=False``, as in nature.
    """
    values = wavelet.sample(axis)
    kept = np.flatnonzero(np.abs(values) > SMALLEST_VALUE * np.abs(values).max())[-1] + 1 if values.any() else 1
    count = 2 * axis.samples
    frequencies = np.arange(axis.samples + 1) / (count * axis.step)
    moved = true_frequency(frequencies, axis.step)
    found = np.zeros(len(frequencies), dtype=complex)
    leaving = moved if dispersed else frequencies
    used = np.flatnonzero(leaving <= HIGHEST_KEPT * highest_frequency(wavelet))
    if len(used) < MIN_FREQUENCIES:  # a record of less than a few periods
        used = np.arange(len(frequencies))
    for chosen in np.array_split(used, math.ceil(len(used) * kept / 2**22)):
        found[chosen] = np.exp(-2j * np.pi * leaving[chosen, None] * axis.times[:kept]) @ values[:kept]
    travelling = moved if leap_frog else frequencies
    return np.fft.irfft(found * np.exp(-2j * np.pi * travelling * delay), count)[: axis.samples]


@dataclass(frozen=True)
class SourceSignal:
    """What a source adds to the wave equation at its position.

    The equation is ``m u_tt - laplace(u) = s(t) delta(x)``. If s is in Pa m (in 2-D, for a line source, in Pa), records are in
    Pa: in a homogeneous 3-D medium ``s(t - r / v) / (4 pi r)`` at the distance r.
    """

    wavelet: Wavelet  # s
    scale: float = 1.0  # a grid point's share of the delta function, 1 / m^ndim: one over the volume of a cell
    dispersed: bool = True  # whether to make up for the time dispersion of the leap-frog scheme (:func:`disperse`)

    def sample(self, axis: TimeAxis) -> NDArray[np.float64]:
        """Return the values that a grid point gets on a time axis, shape (axis.samples,)."""
        values = disperse(self.wavelet, axis) if self.dispersed else self.wavelet.sample(axis)
        return self.scale * values


def build_wavelet(
    section: RickerSection | WaveletFileSection | EstimatedWaveletSection,
) -> RickerWavelet | SampledWavelet:
    """Make the wavelet that ``[wavelet]`` describes; of one that is estimated, the wavelet before the estimate."""
    if section.kind == "file":
        return SampledWavelet(read_wavelet(section.file), section.sample_interval)
    frequency = section.peak_frequency / 1000.0
    amplitude = section.amplitude if section.kind == "ricker" else 1.0
    return RickerWavelet(frequency, 1.0 / frequency if section.delay is None else section.delay, amplitude)


@lru_cache(4)
def highest_frequency(wavelet: Wavelet) -> float:
    """Highest frequency, kHz, with at least 1 % of the spectrum's peak amplitude (for a Ricker 2.76 times its peak)."""
    frequencies, amplitudes = spectrum(wavelet)
    return float(frequencies[np.flatnonzero(amplitudes >= HIGHEST_FREQUENCY_LEVEL * amplitudes.max())[-1]])


def peak_frequency(wavelet: Wavelet) -> float:
    """Frequency of the largest amplitude, kHz."""
    frequencies, amplitudes = spectrum(wavelet)
    return float(frequencies[np.argmax(amplitudes)])


def peak_amplitude(wavelet: Wavelet) -> float:
    """Largest absolute value."""
    if isinstance(wavelet, RickerWavelet):
        return abs(wavelet.amplitude)
    if isinstance(wavelet, SampledWavelet):
        return float(np.abs(wavelet.values).max())
    axis = TimeAxis.covering(wavelet.duration, 1 / (20 * highest_frequency(wavelet)))
    return float(np.abs(wavelet.sample(axis)).max())


def spectrum(wavelet: Wavelet) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies of a wavelet, kHz, and their amplitudes, in an arbitrary unit."""
    if isinstance(wavelet, RickerWavelet):
        frequencies = np.linspace(0.0, 5.0 * wavelet.frequency, 5001)
        ratio = (frequencies / wavelet.frequency) ** 2
        return frequencies, ratio * np.exp(-ratio)
    if isinstance(wavelet, BandPassedWavelet):
        frequencies, amplitudes = spectrum(wavelet.raw)
        return frequencies, amplitudes * np.abs(wavelet.gain(frequencies))
    count = max(4096, 8 * len(wavelet.values))
    frequencies = np.asarray(np.fft.rfftfreq(count, wavelet.interval), dtype=np.float64)
    return frequencies, np.abs(np.fft.rfft(wavelet.values, count))


def read_wavelet(path: Path) -> tuple[float, ...]:
    """Read the samples of a wavelet from .npy, or from text with one number a line."""
    from hpcfwi.config.quantities import MAX_AMPLITUDE
    from hpcfwi.model.arrays import read_array

    where = f"wavelet.file: {path}"
    values = np.squeeze(read_array(path, "wavelet.file")) if path.suffix == ".npy" else _read_text(path, where)
    if values.ndim != 1 or values.size < 4:
        raise InputError(f"{where}: has the shape {values.shape}; a wavelet has one axis of at least 4 samples")
    if values.size > MAX_WAVELET_SAMPLES:
        raise InputError(f"{where}: has {values.size} samples; a wavelet has at most {MAX_WAVELET_SAMPLES}")
    values = values.astype(np.float64)
    broken = np.flatnonzero(~np.isfinite(values))
    if broken.size:
        raise InputError(f"{where}: sample {broken[0] + 1} is {values[broken[0]]:g}, not a finite number")
    largest, smallest_allowed = float(np.abs(values).max()), 1 / MAX_AMPLITUDE
    if not smallest_allowed <= largest <= MAX_AMPLITUDE:
        raise InputError(
            f"{where}: has a largest amplitude of {largest:g}; it should be between {smallest_allowed:g} and {MAX_AMPLITUDE:g}"
        )
    return tuple(values.tolist())


def _read_text(path: Path, where: str) -> NDArray[np.float64]:
    try:
        lines = require_regular_file(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{where}: cannot be read ({reason}); it should be .npy, or text with one number a line"
        ) from None
    values = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            try:
                values.append(float(text))
            except ValueError:
                raise InputError(f"{where}, line {number}: is {quoted(text)}; it should be one number a line") from None
    return np.array(values)
