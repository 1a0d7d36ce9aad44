"""Records from one time axis to another. Apart from the axes, since only who has records needs (and imports) splines."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from hpcfwi.model.discretization import TimeAxis

__all__ = ["resample"]


def resample(record: NDArray, interval: float, axis: TimeAxis, dtype: str, extrapolate: bool = False) -> NDArray:
    """Interpolate a record to a time axis by a cubic spline per trace.

    Parameters
    ----------
    record
        Shape (samples, traces).
    interval
        Its sample interval, ms.
    axis
        Where to.
    dtype
        Of the result.
    extrapolate
        Whether to follow the spline past the end of the record.

    Returns
    -------
    ndarray, shape (n, traces)
        All samples of the axis, or without ``extrapolate`` those that the record covers.
    """
    end = (len(record) - 1) * interval
    covered = axis.samples if extrapolate else min(axis.samples, math.floor(end / axis.step + 1e-9) + 1)
    if math.isclose(interval, axis.step, rel_tol=1e-9) and covered <= len(record):
        return np.ascontiguousarray(record[:covered], dtype=dtype)
    known = interval * np.arange(len(record))
    degree = min(3, len(record) - 1)
    spline = make_interp_spline(known, np.asarray(record, dtype=np.float64), k=degree, axis=0)
    return spline(axis.times[:covered]).astype(dtype)
