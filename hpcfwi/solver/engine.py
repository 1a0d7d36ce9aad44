"""Engines that compute shots: with Devito in this process, or sleeping, for scaling studies."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.survey import Shot
from hpcfwi.model.wavelet import Wavelet

if TYPE_CHECKING:  # Devito takes seconds, and the command line only needs SleepingShots
    from hpcfwi.solver.devito_internals import Kernel
    from hpcfwi.solver.operators import Propagator

# From a predicted gather, shape (samples, receivers), to misfit and adjoint source, of the same shape. The engine overwrites
# the gather in its next shot.
Comparison = Callable[[NDArray], tuple[float, NDArray]]

# Condition number of the Hessian of the sleeping engine's misfit, so that L-BFGS-B needs some iterations.
SLEEPING_CONDITION = 100.0
# Its minimum, (s/km)^2: a uniform model of 2 km/s.
SLEEPING_MINIMUM = 0.25


class ShotEngine(Protocol):
    """Computes shots one at a time in the current model. A worker keeps its engine."""

    kernel_seconds: float  # in compiled code so far
    runs_kernels: bool  # whether it runs kernels, whose threads can be counted

    def set_model(self, m: NDArray) -> None:
        """Use the squared slowness ``m``, (s/km)^2, shape ``domain.shape``."""

    def record(self, shot: Shot, axis: TimeAxis) -> NDArray:
        """Model a gather, shape (samples, receivers); the next call overwrites it.

        The shot has at most ``spec.receivers`` receivers, the axis at most ``spec.time_samples`` samples.
        """

    def misfit_and_gradient(self, shot: Shot, axis: TimeAxis, compare: Comparison) -> tuple[float, NDArray[np.float64]]:
        """Misfit of a shot, and its gradient with respect to ``m``, shape ``domain.shape``."""


class DevitoEngine:
    """Runs a propagator's kernels in this process, in memory that is allocated once.

    ``boundary_gradient`` is the configuration's: ``"exact"`` folds the gradient in the absorbing layer onto the model's edge,
    ``"crop"`` drops it.
    """

    runs_kernels = True

    def __init__(self, propagator: Propagator, wavelet: Wavelet, boundary_gradient: str = "exact") -> None:
        self.propagator = propagator
        self.equation, self.boundary = propagator.equation, propagator.equation.boundary
        self.wavelet = wavelet
        self.kernel_seconds = 0.0
        self._to_model = self.boundary.crop if boundary_gradient == "crop" else self.boundary.extend_transpose
        self._sampled_wavelet: tuple[TimeAxis, NDArray] | None = None
        self.equation.allocate()
        propagator.storage.allocate()

    def set_model(self, m: NDArray) -> None:
        """Use the squared slowness ``m``, (s/km)^2, on the model's grid."""
        self.equation.parameters[0].data[:] = self._extend(m)

    def record(self, shot: Shot, axis: TimeAxis) -> NDArray:
        """Model a gather, a view that the next call overwrites, and keep its wavefield for the gradient."""
        self._place(shot, axis)
        self._run(self.propagator.forward, shot, axis, first=0)
        return self._gather(shot, axis)

    def misfit_and_gradient(self, shot: Shot, axis: TimeAxis, compare: Comparison) -> tuple[float, NDArray[np.float64]]:
        """Model a gather, compare it, and propagate the adjoint source backwards."""
        misfit, adjoint_source = compare(self.record(shot, axis))
        self._gather(shot, axis)[:] = adjoint_source
        (gradient,) = self.equation.gradients
        self.equation.adjoint_field.data_with_halo[:] = 0
        gradient.data[:] = 0
        self._run(self.propagator.gradient, shot, axis, first=1)
        return misfit, self._to_model(np.asarray(gradient.data))

    def born(self, shot: Shot, axis: TimeAxis, direction: NDArray) -> NDArray:
        """Derivative of the gather in the ``direction`` of a change of ``m``; the propagator needs its Born operator."""
        assert self.propagator.born is not None
        self._place(shot, axis)
        self.equation.gradients[0].data[:] = self._extend(direction)
        self.equation.adjoint_field.data_with_halo[:] = 0
        self._run(self.propagator.born, shot, axis, first=0)
        return self._gather(shot, axis).copy()

    def _extend(self, values: NDArray) -> NDArray:
        return self.boundary.extend(values.astype(self.propagator.spec.dtype, copy=False))

    def _place(self, shot: Shot, axis: TimeAxis) -> None:
        """Set source and receivers, and zero the wavefield."""
        if self._sampled_wavelet is None or self._sampled_wavelet[0] != axis:
            self._sampled_wavelet = axis, self.wavelet.sample(axis)
        equation = self.equation
        equation.source.coordinates.data[0] = shot.source
        equation.source.data[: axis.samples, 0] = self._sampled_wavelet[1]
        equation.receivers.coordinates.data[: len(shot.receivers)] = shot.receivers
        equation.forward_field.data_with_halo[:] = 0

    def _gather(self, shot: Shot, axis: TimeAxis) -> NDArray:
        """The receivers' traces: output of the forward kernel, input of the gradient kernel."""
        return np.asarray(self.equation.receivers.data[: axis.samples, : len(shot.receivers)])

    def _run(self, kernel: Kernel, shot: Shot, axis: TimeAxis, first: int) -> None:
        """Step from ``first`` to the end of the axis, or back, with the receivers of this shot only."""
        last_receiver = {self.equation.receivers.dimensions[-1].max_name: len(shot.receivers) - 1}
        self.kernel_seconds += kernel(time_m=first, time_M=axis.samples - 1, dt=axis.step, **last_receiver)


@dataclass(frozen=True)
class SleepingShots:
    """How long shots sleep in scaling studies, which leave out the kernels; durations are log-normal."""

    mean_s: float
    spread: float = 0.0  # standard deviation of the durations over their mean

    @classmethod
    def parse(cls, text: str) -> SleepingShots:
        """Parse ``SECONDS`` or ``SECONDS:SPREAD``, the value of ``--stand-in``; raises InputError if it is neither."""
        mean, _, spread = text.partition(":")
        try:
            found = cls(float(mean), float(spread or 0))
        except ValueError:
            found = cls(math.nan)
        if not (0 <= found.mean_s < math.inf and 0 <= found.spread <= 10):
            raise InputError(
                f"--stand-in {text}: should be the mean duration of a shot in seconds (0 or more), optionally with the "
                "standard deviation over the mean (0 to 10): --stand-in 2 or --stand-in 2:0.25"
            )
        return found

    def __str__(self) -> str:
        spread = f", standard deviation {100 * self.spread:g} %, log-normal" if self.spread else ""
        return f"shots that sleep for {self.mean_s:g} s{spread}"

    def duration(self, name: str) -> float:
        """Seconds that the shot of this name sleeps, the same every time."""
        if not self.spread or not self.mean_s:
            return self.mean_s
        number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")
        normal = NormalDist().inv_cdf((number + 0.5) / 256**7)
        variance = math.log1p(self.spread**2)
        return self.mean_s * math.exp(math.sqrt(variance) * normal - variance / 2)


class SleepingEngine:
    """Sleeps in place of the kernels; models, data and gradients have their real sizes.

    The misfit of each shot is ``0.5 sum_i w_i (m_i - 0.25)^2``, with weights from 1 to 100.
    """

    runs_kernels = False

    def __init__(self, shots: SleepingShots, dtype: str) -> None:
        self.shots, self.dtype = shots, dtype
        self.kernel_seconds = 0.0
        self._m: NDArray[np.float64] = np.zeros(0)

    def set_model(self, m: NDArray) -> None:
        """Use the squared slowness ``m``, (s/km)^2."""
        self._m = np.asarray(m, dtype=np.float64)

    def record(self, shot: Shot, axis: TimeAxis) -> NDArray:
        """A gather of zeros, at once."""
        return np.zeros((axis.samples, len(shot.receivers)), dtype=self.dtype)

    def misfit_and_gradient(
        self,
        shot: Shot,
        axis: TimeAxis,  # noqa: ARG002
        compare: Comparison,  # noqa: ARG002
    ) -> tuple[float, NDArray[np.float64]]:
        """Sleep, and return a quadratic function of the model."""
        started = time.perf_counter()
        time.sleep(self.shots.duration(shot.name))
        self.kernel_seconds += time.perf_counter() - started
        weight = np.linspace(1.0, SLEEPING_CONDITION, self._m.size).reshape(self._m.shape)
        rest = self._m - SLEEPING_MINIMUM
        return 0.5 * float((weight * rest**2).sum()), weight * rest


def open_engine(
    propagator: Propagator, wavelet: Wavelet, boundary_gradient: str, sleeping: SleepingShots | None
) -> ShotEngine:
    """The engine of a run: sleeping in a study without kernels, else Devito's."""
    if sleeping is not None:
        return SleepingEngine(sleeping, propagator.spec.dtype)
    return DevitoEngine(propagator, wavelet, boundary_gradient)
