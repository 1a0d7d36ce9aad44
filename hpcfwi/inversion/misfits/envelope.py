"""Misfits of envelopes, which are smooth where waveforms oscillate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcfwi.inversion.misfits.base import Misfit
from hpcfwi.inversion.misfits.correlation import Correlation
from hpcfwi.inversion.misfits.least_squares import LeastSquares
from hpcfwi.model.grid import TimeAxis

# The envelope is smooth where it is zero, too: amplitude below which it is rounded off, as a share of the observed trace's rms.
ROUNDED_SHARE = 1e-3


@dataclass(frozen=True)
class Envelope:
    """The L2 misfit of envelopes (Bozdağ et al. 2011), or of squared envelopes (Wu et al. 2014).

    ``0.5 sum (E_p^n - E_o^n)^2`` with ``E_p = sqrt(p^2 + (H p)^2)`` and the Hilbert transform H
    (doi:10.1111/j.1365-246X.2011.04970.x; doi:10.1190/geo2013-0294.1). Its unit is that of amplitudes to the power 2 n. With
    ``b = n E_p^(n-2) (E_p^n - E_o^n)`` the adjoint source is ``b p - H(b H p)``, because H is antisymmetric. Traces of zeros
    have an envelope of zeros.

    For n = 1 the envelope is ``sqrt(p^2 + (H p)^2 + e^2) - e``, with e 0.1 % of the observed trace's rms: it has a derivative
    where it is zero. H sees zeros before and after a trace.

    Parameters
    ----------
    power
        n: 1, or 2 for squared envelopes, in which strong arrivals dominate more.
    misfit
        What compares the envelopes.
    """

    power: int = 1
    misfit: Misfit = LeastSquares()

    def evaluate(self, predicted: NDArray, observed: NDArray, axis: TimeAxis) -> tuple[float, NDArray]:
        """Return the misfit of the envelopes, and the adjoint source."""
        rounding = ROUNDED_SHARE * np.sqrt(np.square(observed, dtype=np.float64).mean(axis=0))
        p = predicted.astype(np.float64)
        quadrature = hilbert(p)
        found, slope = self._envelope(p, quadrature, rounding)
        o = observed.astype(np.float64)
        value, source = self.misfit.evaluate(found, self._envelope(o, hilbert(o), rounding)[0], axis)
        b = slope * source
        return value, (b * p - hilbert(b * quadrature)).astype(predicted.dtype)

    def _envelope(self, p: NDArray, quadrature: NDArray, rounding: NDArray) -> tuple[NDArray, NDArray | float]:
        """``E^n``, and s in its derivative ``s (p dp + H p H dp)``."""
        squared = np.square(p) + np.square(quadrature)
        if self.power == 2:
            return squared, 2.0
        root = np.sqrt(squared + rounding**2)
        return root - rounding, np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)


def normalised_envelope(power: int = 1, amplitude_power: float = 0.0) -> Envelope:
    """The global correlation of envelopes (Oh and Alkhalifah 2018, doi:10.1093/gji/ggy031).

    ``sum_r w_r (1 - <E_p, E_o> / (|E_p| |E_o|))`` over the traces r, with n-th powers of envelopes as of :class:`Envelope`.
    :class:`~hpcfwi.inversion.misfits.correlation.Correlation` says what happens to traces of zeros, and has the derivative with
    respect to E. The misfit has no unit; a trace counts from 0 to 1, because envelopes are positive.

    Parameters
    ----------
    power
        n: 1, or 2 for squared envelopes.
    amplitude_power
        q in the weights ``w_r = (|E_o|^2 / mean |E_o|^2)^(q / 2)``.
    """
    return Envelope(power, Correlation(amplitude_power))


def hilbert(gather: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Hilbert transform of each trace of a gather, shape (samples, receivers), with zeros before and after it."""
    from scipy.fft import irfft, next_fast_len, rfft

    count = next_fast_len(2 * len(gather), real=True)
    spectrum = rfft(gather, count, axis=0)
    spectrum *= -1j
    spectrum[0] = 0
    if count % 2 == 0:
        spectrum[-1] = 0
    return np.asarray(irfft(spectrum, count, axis=0)[: len(gather)])
