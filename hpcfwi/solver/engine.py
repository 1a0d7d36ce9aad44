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
from hpcfwi.model.wavelet import SourceSignal, Wavelet
from hpcfwi.model.windows import Windows, cut
from hpcfwi.solver.interpolation import stencils
from hpcfwi.solver.time_loop import SegmentedLoop

if TYPE_CHECKING:  # Devito takes seconds, and the command line only needs SleepingShots
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

    @property
    def trouble(self) -> str:
        """What went wrong that the results survived; empty if nothing did."""

    def set_model(self, m: NDArray, own_edges: bool = False) -> None:
        """Use the squared slowness ``m``, (s/km)^2, shape ``domain.shape``.

        With ``own_edges`` the absorbing layer has the edge values of this model; else the engine decides.
        """

    def window(self, shot: Shot) -> tuple[int, ...]:
        """Index of the first cell of a shot's gradient in the whole grid; empty if it has the whole grid."""

    def record(self, shot: Shot, axis: TimeAxis) -> NDArray:
        """Model a gather, shape (samples, receivers); the next call overwrites it.

        The shot has at most ``spec.receivers`` receivers, the axis at most ``spec.time_samples`` samples.
        """

    def misfit_and_gradient(self, shot: Shot, axis: TimeAxis, compare: Comparison) -> tuple[float, NDArray[np.float64]]:
        """Misfit of a shot, and its gradient with respect to ``m`` in the shot's window, shape ``spec.domain.shape``."""

    def born(self, shot: Shot, axis: TimeAxis, direction: NDArray) -> NDArray:
        """Derivative of the gather in the ``direction`` of a change of ``m``, shape of the whole grid."""


class DevitoEngine:
    """Runs a propagator's kernels in this process, in memory that is allocated once.

    The absorbing layer keeps the edge values of the squared slowness ``edges``; if that is None, it follows the model.
    """

    runs_kernels = True

    def __init__(
        self,
        propagator: Propagator,
        signal: SourceSignal | Wavelet,
        edges: NDArray | None = None,
        windows: Windows | None = None,
    ) -> None:
        self.propagator = propagator
        self.equation, self.boundary = propagator.equation, propagator.equation.boundary
        self.signal = signal
        self.kernel_seconds = 0.0
        self.windows, dtype = windows, propagator.spec.dtype
        self._edges = None if edges is None else edges.astype(dtype, copy=False)
        self._model: tuple[NDArray, bool] | None = None  # to cut windows from, and whether the layer follows it
        self._current: tuple[int, ...] | None = None  # the window whose model the equation has
        self._axis: TimeAxis | None = None
        self._source: NDArray[np.float64] = np.zeros(0)
        self.equation.allocate()
        propagator.storage.allocate()
        spec = propagator.spec
        self._traces = np.asarray(self.equation.receivers.data)
        if spec.segments > 1:  # the kernels see one segment
            self._traces = np.empty((spec.time_samples, spec.receivers), dtype=spec.dtype)

    @property
    def trouble(self) -> str:
        """What went wrong with the storage of the wavefield."""
        return self.propagator.storage.trouble

    def set_model(self, m: NDArray, own_edges: bool = False) -> None:
        """Use the squared slowness ``m``, (s/km)^2, on the model's grid; with ``own_edges`` the layer follows it."""
        self._model, self._current = (m.astype(self.propagator.spec.dtype, copy=False), own_edges), None
        if self.windows is None:
            self._cut_model(())
            self._model = None

    def window(self, shot: Shot) -> tuple[int, ...]:
        """Index of the first cell of a shot's window."""
        return () if self.windows is None else self.windows.start(shot)

    def _cut_model(self, start: tuple[int, ...]) -> None:
        """Use the model in a window, and around it the edge values there."""
        if start == self._current or self._model is None:
            return
        m, own_edges = self._model
        inside = cut(m, start, self.boundary.domain.shape)
        if self._edges is None or own_edges:
            padded = self._extend(inside)
        else:
            padded = self._extend(cut(self._edges, start, inside.shape))
            padded[self.boundary.interior] = inside
        self.equation.set_model(self._to_memory(padded))
        self._current = start

    def record(self, shot: Shot, axis: TimeAxis) -> NDArray:
        """Model a gather, a view that the next call overwrites; its wavefield is not kept."""
        loop = self._place(shot, axis)
        self.equation.clear(adjoint=False)
        for segment in range(loop.segments):
            loop.forward(segment)
        return self._finish(loop)

    def misfit_and_gradient(self, shot: Shot, axis: TimeAxis, compare: Comparison) -> tuple[float, NDArray[np.float64]]:
        """Model a gather, compare it, and propagate the adjoint source backwards.

        The specification says whether the gradient in the absorbing layer is computed, too, and folded onto the model's edge.
        """
        loop, storage = self._place(shot, axis), self.propagator.storage
        self.equation.clear()
        self.equation.gradient_field.data[:] = 0
        storage.forward(loop)
        misfit, loop.gather[:] = compare(loop.gather)
        storage.backward(loop)
        self._finish(loop)
        if self.propagator.spec.layer_gradient:
            return misfit, self.boundary.extend_transpose(self._last_gradient())
        return misfit, self.model_gradient()

    def model_gradient(self) -> NDArray[np.float64]:
        """The last gradient in the model, without the layer's part; shape ``domain.shape``."""
        inside = self.boundary.interior if self.propagator.spec.layer_gradient else ...
        return np.array(self._last_gradient()[inside], dtype=np.float64, order="C")

    def _last_gradient(self) -> NDArray:
        values = np.asarray(self.equation.gradient_field.data)
        return values.transpose(np.argsort(self.boundary.memory_order))

    def born(self, shot: Shot, axis: TimeAxis, direction: NDArray) -> NDArray:
        """Derivative of the gather in the ``direction`` of a change of ``m``, a copy."""
        _ = self.propagator.born  # has variables of its own, which are cleared with the others
        loop = self._place(shot, axis)
        self.equation.clear()
        direction = cut(direction, self.window(shot), self.boundary.domain.shape)
        if self.propagator.spec.layer_gradient:
            direction = self._extend(direction)
        self.equation.gradient_field.data[:] = self._to_memory(direction)
        for segment in range(loop.segments):
            loop.born(segment)
        return self._finish(loop).copy()

    def _extend(self, values: NDArray) -> NDArray:
        return self.boundary.extend(values.astype(self.propagator.spec.dtype, copy=False))

    def _to_memory(self, values: NDArray) -> NDArray:
        return values.transpose(self.boundary.memory_order)

    def _place(self, shot: Shot, axis: TimeAxis) -> SegmentedLoop:
        """Set the positions, and what depends on the time step; returns the time loop of the shot."""
        equation, spec, start = self.equation, self.propagator.spec, self.window(shot)
        self._cut_model(start)
        shift = np.multiply(start, spec.domain.spacing) if start else 0.0
        if self._axis != axis:
            equation.fill(axis.step)
            self._axis, self._source = axis, self.signal.sample(axis)
        points = spec.interpolation_points
        for traces, positions in ((equation.source, shot.source[None]), (equation.receivers, shot.receivers)):
            first, weights = stencils(self.boundary, positions - shift, points)
            # Devito counts from the point before the middle
            traces.gridpoints.data[: len(first)] = first + (points // 2 - 1)
            traces.interpolation_coeffs.data[: len(first)] = weights
        return SegmentedLoop(self.propagator, axis, self._source, self._traces[: axis.samples, : len(shot.receivers)])

    def _finish(self, loop: SegmentedLoop) -> NDArray:
        """The gather of a time loop that is done."""
        self.kernel_seconds += loop.kernel_seconds
        return loop.gather


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

    runs_kernels, trouble = False, ""

    def __init__(self, shots: SleepingShots, dtype: str) -> None:
        self.shots, self.dtype = shots, dtype
        self.kernel_seconds = 0.0
        self._m: NDArray[np.float64] = np.zeros(0)

    def set_model(self, m: NDArray, own_edges: bool = False) -> None:  # noqa: ARG002
        """Use the squared slowness ``m``, (s/km)^2."""
        self._m = np.asarray(m, dtype=np.float64)

    def window(self, shot: Shot) -> tuple[int, ...]:  # noqa: ARG002
        """The whole grid."""
        return ()

    def record(self, shot: Shot, axis: TimeAxis) -> NDArray:
        """A gather of zeros, at once."""
        return np.zeros((axis.samples, len(shot.receivers)), dtype=self.dtype)

    def born(self, shot: Shot, axis: TimeAxis, direction: NDArray) -> NDArray:  # noqa: ARG002
        """A gather of zeros, at once."""
        return self.record(shot, axis)

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
    propagator: Propagator,
    wavelet: SourceSignal | Wavelet,
    edges: NDArray | None,
    windows: Windows | None,
    sleeping: SleepingShots | None,
) -> ShotEngine:
    """The engine of a run: sleeping in a study without kernels, else Devito's."""
    if sleeping is not None:
        return SleepingEngine(sleeping, propagator.spec.dtype)
    return DevitoEngine(propagator, wavelet, edges, windows)
