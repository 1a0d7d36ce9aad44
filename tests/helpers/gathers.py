"""Gathers of Ricker wavelets, shape (samples, traces), whose misfits are known or can be looked at."""

import numpy as np

from hpcfwi.model.grid import TimeAxis

PERIOD = 100.0  # ms, of the peak frequency


def ricker(times, frequency=1 / PERIOD):
    """A Ricker wavelet around time zero."""
    square = (np.pi * frequency * times) ** 2
    return (1 - 2 * square) * np.exp(-square)


def arrivals(axis: TimeAxis, shift: float = 0.0, spacing: float = 10.0, traces: int = 5):
    """Two arrivals in each trace, all later by ``shift``, ms; amplitudes fall from trace to trace."""
    moveout = spacing * np.arange(traces)
    times = axis.times[:, None] - shift
    return (ricker(times - 250 - moveout) - 0.6 * ricker(times - 430 - moveout / 2)) / (1 + np.arange(traces))
