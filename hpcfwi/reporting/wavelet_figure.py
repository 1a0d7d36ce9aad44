"""The figure of an estimated wavelet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hpcfwi.model.source_estimate import SourceFilter, SourceFilters, shown_part
from hpcfwi.model.wavelet import Wavelet
from hpcfwi.reporting import plotting

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def wavelet_figure(wavelet: Wavelet, filters: SourceFilters) -> Figure:
    """The wavelet before and after the estimate in time, its amplitude spectrum and its phase; all shots' if they differ."""
    found = list(filters.all())
    signals = [each.apply_to(wavelet) for each in found]
    part = shown_part([signals[0][1], *(after for _, _, after in signals)])
    figure = plotting.new_figure((10.5, 3.4))
    time, amplitude, phase = figure.subplots(1, 3)
    for number, each in enumerate(found):
        times, before, after = (values[part] for values in signals[number])
        alone = len(found) == 1
        if number == 0:
            size = np.abs(before).max() or 1.0
            time.plot(times, before / size, color="0.6", label="before the estimate")
        largest = np.abs(after).max() or 1.0
        label = "estimated" if alone else "estimated, of each shot" if number == 0 else None
        style = {"color": "C0", "lw": 1.5 if alone else 0.6, "alpha": 1.0 if alone else 0.6}
        time.plot(times, after / largest, label=label, **style)
        frequencies, spectrum, angle = _spectrum(wavelet, each)
        amplitude.plot(frequencies, spectrum, **style)
        loud = spectrum > 0.05
        phase.plot(frequencies[loud], angle[loud], ".", ms=3, **{k: v for k, v in style.items() if k != "lw"})
    scale = np.median([np.abs(after).max() for _, _, after in signals])
    time.set(xlabel="Time (ms)", ylabel="Amplitude / largest", title=f"Wavelet, largest value {scale:.3g}")
    time.legend(fontsize=7)
    amplitude.set(xlabel="Frequency (Hz)", ylabel="Amplitude / largest", title="Amplitude spectrum", ylim=(0, None))
    phase.set(
        xlabel="Frequency (Hz)", ylabel="Phase of the filter (degrees)", title="Change of phase", ylim=(-180, 180)
    )
    for axes in (time, amplitude, phase):
        axes.grid(True)
    explained = 100 * float(np.mean([each.explained for each in found]))
    condition = max(each.condition for each in found)
    figure.suptitle(
        f"Estimated wavelet: explains {explained:.3g} % of the observed energy, condition {condition:.3g}", fontsize=11
    )
    return figure


def _spectrum(wavelet: Wavelet, found: SourceFilter) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frequencies, Hz, amplitudes of the estimated wavelet over the largest, and phase of the filter, degrees."""
    count = 2 * (len(found.response) - 1)
    values = np.zeros(count)
    values[: found.axis.samples] = wavelet.sample(found.axis)
    amplitudes = np.abs(np.fft.rfft(values) * found.response)
    frequencies = 1000 * np.fft.rfftfreq(count, found.axis.step)
    shown = amplitudes >= 0.002 * amplitudes.max()
    part = slice(0, int(np.flatnonzero(shown)[-1]) + 1)
    return (
        frequencies[part],
        amplitudes[part] / (amplitudes.max() or 1.0),
        np.degrees(np.angle(found.response[part])),
    )
