"""Processing of gathers: operators on predicted ones, and the resampling of observed ones."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.grid import TimeAxis


class Operator(Protocol):
    """A linear operator P on a predicted gather d, shape (samples, receivers).

    The misfit compares ``P d`` with the observed gather, which is processed already. The adjoint source is ``P^T dJ/d(P d)``.
    """

    def apply(self, gather: NDArray) -> NDArray:
        """Return ``P gather``; the argument stays as it is."""
        ...

    def transpose(self, gather: NDArray) -> NDArray:
        """Return ``P^T gather``; the argument stays as it is."""
        ...


@dataclass(frozen=True)
class Tail:
    """Restrict a predicted gather to the samples that have observed data (``data.tail``).

    The last step of a time axis usually lies past the end of the observed data. ``"cut"`` drops the samples past the end.
    ``"extrapolate"`` compares them with the spline of the observed data, and sets the last predicted sample to zero, because
    Devito's tutorials do not compute it.
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
