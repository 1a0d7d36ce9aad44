"""The arrays that the kernels work on, allocated once and used for every shot of a worker's life."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import RunError
from hpcfwi.solver.equations import Propagator

__all__ = ["Wavefields"]

DEVITO = logging.getLogger("Devito")


class Wavefields:
    """A propagator with memory: set a model, then run shot after shot.

    Parameters
    ----------
    propagator
        The operators; their symbols' arrays are allocated here, at most once.

    Attributes
    ----------
    kernel_seconds
        Time spent in compiled code so far.
    """

    def __init__(self, propagator: Propagator) -> None:
        self.propagator = propagator
        self.spec = propagator.spec
        self.boundary = propagator.spec.boundary
        self.kernel_seconds = 0.0
        self._arguments: dict[str, dict[str, Any]] = {}
        self._samples = 0
        self._dt = 0.0
        self._dtype = np.dtype(self.spec.dtype)
        self._extended = np.empty(self.boundary.padded_shape, dtype=self._dtype)
        propagator.damp.data[:] = self.boundary.damping(self._dtype)

    @property
    def nbytes(self) -> int:
        """Memory of all arrays, bytes."""
        p = self.propagator
        fields = (p.m, p.damp, p.gradient, p.u, p.v, p.snapshots, p.source, p.receivers)
        return sum(int(np.prod(f.shape_allocated)) * self._dtype.itemsize for f in fields)

    def set_model(self, m: NDArray) -> None:
        """Use the squared slowness ``m``, (s/km)^2, on the physical grid; the sponge takes its edge values."""
        self.propagator.m.data[:] = self.boundary.extend(m.astype(self._dtype, copy=False), out=self._extended)

    def forward(self, source: NDArray, receivers: NDArray, wavelet: NDArray, dt: float, samples: int) -> NDArray:
        """Model one shot and keep its wavefield for :meth:`gradient`.

        Parameters
        ----------
        source
            Position, shape (ndim,), m.
        receivers
            Positions, shape (n, ndim), m; n at most ``spec.receivers``.
        wavelet
            Source time function at the time step, shape (samples,).
        dt
            Time step, ms.
        samples
            Steps of the time axis; at most ``spec.time_samples``.

        Returns
        -------
        ndarray, shape (samples, n)
            Pressure at the receivers: a view that the next call overwrites.
        """
        p = self.propagator
        self._samples, self._dt = samples, dt
        p.source.coordinates.data[0] = source
        p.receivers.coordinates.data[: len(receivers)] = receivers
        p.source.data[:samples, 0] = wavelet
        p.u.data_with_halo[:] = 0
        self._count = len(receivers)
        self._apply(p.forward_operator, time_m=0)
        return np.asarray(p.receivers.data[:samples, : self._count])

    def gradient(self, residual: NDArray) -> NDArray:
        """Back-propagate a residual for the shot that :meth:`forward` ran last.

        Parameters
        ----------
        residual
            Derivative of the misfit with respect to the record, shape (samples, n); may be the record's view itself.

        Returns
        -------
        ndarray, padded shape
            Gradient with respect to m on the padded grid: a view that the next call overwrites.
        """
        p = self.propagator
        place = np.asarray(p.receivers.data[: self._samples, : self._count])
        if not np.may_share_memory(place, residual):
            place[:] = residual
        p.v.data_with_halo[:] = 0
        p.gradient.data[:] = 0
        self._apply(p.gradient_operator, time_m=1)
        return np.asarray(p.gradient.data)

    def linearised(
        self,
        perturbation: NDArray,
        source: NDArray,
        receivers: NDArray,
        wavelet: NDArray,
        dt: float,
        samples: int,
    ) -> NDArray:
        """Derivative of the record in the direction ``perturbation`` of m (physical grid); shape (samples, n)."""
        p = self.propagator
        if p.linearised_operator is None:
            raise ValueError("this propagator was built without its linearised operator")
        self._samples, self._dt, self._count = samples, dt, len(receivers)
        p.source.coordinates.data[0] = source
        p.receivers.coordinates.data[: len(receivers)] = receivers
        p.source.data[:samples, 0] = wavelet
        p.gradient.data[:] = self.boundary.extend(perturbation.astype(self._dtype), out=self._extended)
        p.u.data_with_halo[:] = 0
        p.v.data_with_halo[:] = 0
        self._apply(p.linearised_operator, time_m=0)
        return np.array(p.receivers.data[:samples, : self._count])

    def _apply(self, operator: Any, time_m: int) -> None:
        """Call a kernel; what ``operator.apply`` would work out each time, in milliseconds, is kept."""
        span = {"time_m": time_m, "time_M": self._samples - 1, "dt": self._dt, "p_receivers_M": self._count - 1}
        if DEVITO.isEnabledFor(logging.INFO):  # --verbose: only this way Devito tells how fast they were
            self.kernel_seconds += sum(entry.time for entry in operator.apply(**span).values())
            return
        known = self._arguments.get(operator.name)
        if known is None:
            # pointers to our own arrays, which stay where they are for as long as we do, and limits of the grid
            arguments = operator.arguments(**span)
            known = self._arguments[operator.name] = {p.name: arguments[p.name] for p in operator.parameters}
        values = [span.get(name, value) for name, value in known.items()]
        started = time.perf_counter()
        code = operator.cfunction(*values)
        self.kernel_seconds += time.perf_counter() - started
        if code:
            raise RunError(f"the kernel {operator.name} has ended with error {code}")
