"""Adaptive waveform inversion: the misfit of the filter that turns one trace into the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcfwi.inversion.misfits.base import UnitTraces
from hpcfwi.model.grid import TimeAxis

# The default of max_lag, in mean periods of the observed traces.
LAG_PERIODS = 4


@dataclass(frozen=True)
class AdaptiveWaveform:
    """Adaptive waveform inversion (AWI): the lags in the filter that matches two traces (Warner and Guasch 2016).

    For each trace r, w is the Wiener filter that turns the observed trace into the predicted one, in the frequency domain
    ``W = conj(O) P / (|O|^2 + e)``: the reverse filter of doi:10.1190/geo2015-0387.1. Their misfit is half the square of its
    rms lag, ``l = |T w| / |w|``. A limited band and e keep w from being a spike where p = o, so that this is not smallest
    there. The misfit here compares l with the rms lag of that filter, whose spectrum is ``|O|^2 / (|O|^2 + e)``:

        ``sum_r w_r 0.5 (l - l_o)^2``,  ``T = min(|lag| / max_lag, 1)``.

    It is theirs where the filter of equal traces is a spike. It has no unit, and does not see amplitudes; a trace whose filter
    is a spike at max_lag counts about 0.5. The adjoint source is ``w_r (1 - l_o / l) (T^2 - l^2) w / |w|^2``, filtered with
    ``O / (|O|^2 + e)``, times the derivative of ``p / |p|``: both traces are divided by their norms first. A trace that is not
    observed counts nothing. One that is observed but not predicted counts ``0.5 w_r``, with a zero adjoint source. The misfit
    is undefined if all traces are such.

    Parameters
    ----------
    max_lag
        Lag from which on the penalty does not grow, ms: noise at longer lags counts no more. None: four mean periods of
        the observed traces.
    damping
        e as a share of the largest ``|O|^2`` of the trace.
    amplitude_power
        q in the weights ``w_r = (|o_r|^2 / mean |o|^2)^(q / 2)``.
    """

    max_lag: float | None = None
    damping: float = 0.01
    amplitude_power: float = 0.0

    def evaluate(self, predicted: NDArray, observed: NDArray, axis: TimeAxis) -> tuple[float, NDArray]:
        """Return the sum over the traces, and the adjoint source."""
        from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

        traces = UnitTraces.of(predicted, observed, self.amplitude_power)
        count = next_fast_len(2 * len(predicted), real=True)  # the filter does not wrap around
        spectrum = rfft(traces.observed, count, axis=0)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        damped = power + self.damping * power.max(axis=0)
        damped[:, traces.weights == 0] = 1.0
        spectrum /= damped
        filters = irfft(spectrum.conj() * rfft(traces.predicted, count, axis=0), count, axis=0)
        lags = axis.step * np.minimum(np.arange(count), count - np.arange(count))
        period = power.sum() / float((rfftfreq(count, axis.step) * power.sum(axis=1)).sum())
        squared = np.minimum(lags / (self.max_lag or LAG_PERIODS * period), 1.0) ** 2
        lag, energy = _rms_lag(filters, squared)
        excess = lag - _rms_lag(irfft(power / damped, count, axis=0), squared)[0]
        value = traces.sum(0.5 * np.square(excess), of_missing=0.5)
        slope = np.divide(traces.weights * excess, lag * energy, out=np.zeros_like(lag), where=lag * energy > 0)
        back = rfft(slope * (squared[:, None] - np.square(lag)) * filters, count, axis=0)
        source = irfft(spectrum * back, count, axis=0)[: len(predicted)]
        return value, traces.derivative.transpose(source).astype(predicted.dtype)


def _rms_lag(
    filters: NDArray[np.float64], squared: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The rms lag and the energy of filters, shape (lags, receivers), from the squared lags; 0 for filters of zeros."""
    energies = np.square(filters)
    energy = energies.sum(axis=0)
    moments = np.einsum("i,ij->j", squared, energies)
    return np.sqrt(np.divide(moments, energy, out=np.zeros_like(energy), where=energy > 0)), energy
