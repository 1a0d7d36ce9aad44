"""The time steps of a shot, which run in segments."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.grid import TimeAxis

if TYPE_CHECKING:  # imports Devito
    from hpcfwi.solver.devito_internals import Kernel
    from hpcfwi.solver.operators import Propagator


class SegmentedLoop:
    """Runs a propagator's kernels; each segment begins with step 0 of the kernel.

    Parameters
    ----------
    propagator
        The kernels. Positions, model and time step are in their arrays already.
    axis
        Time axis of the shot.
    source
        Samples of the source, shape (axis.samples,).
    gather
        Traces of the receivers, shape (axis.samples, receivers): forward segments write them, adjoint ones read them. With one
        segment it may be a view of the kernel's own traces.
    """

    def __init__(self, propagator: Propagator, axis: TimeAxis, source: NDArray[np.float64], gather: NDArray) -> None:
        self.propagator, self.axis, self.source, self.gather = propagator, axis, source, gather
        self.kernel_seconds = 0.0  # in compiled code
        self._equation, self._steps = propagator.equation, propagator.spec.segment_steps
        self._traces = np.asarray(self._equation.receivers.data)
        self._in_place = np.shares_memory(self._traces, gather)
        self._turned = False  # whether adjoint steps have begun, after which the gather is the adjoint source
        self._adjoint = False  # whether the layer's variables belong to the adjoint wavefield
        self._parked: tuple[NDArray, ...] = ()  # those of the adjoint wavefield, while forward steps are repeated

    @property
    def segments(self) -> int:
        """Number of segments."""
        return math.ceil(self.axis.samples / self._steps)

    def _bounds(self, segment: int) -> tuple[int, int]:
        return segment * self._steps, min((segment + 1) * self._steps, self.axis.samples)

    def snapshots(self, segment: int) -> int:
        """Snapshots in a segment."""
        start, stop = self._bounds(segment)
        return math.ceil((stop - start) / self.propagator.spec.snapshot_every)

    def forward(self, segment: int) -> None:
        """Step the forward wavefield, from where it is, and write the traces of this segment, if it is the first time."""
        self._switch(adjoint=False)
        start, stop = self._bounds(segment)
        self._equation.source.data[: stop - start, 0] = self.source[start:stop]
        self._run(self.propagator.forward, 0, stop - start)
        if not self._in_place and not self._turned:
            self.gather[start:stop] = self._traces[: stop - start, : self.gather.shape[1]]
        if stop < self.axis.samples:
            self._equation.carry_over(stop - start)

    def adjoint(self, segment: int) -> None:
        """Step the adjoint wavefield back, with the traces of this segment as its source."""
        self._turned = True
        self._switch(adjoint=True)
        start, stop = self._bounds(segment)
        if not self._in_place:
            self._traces[: stop - start, : self.gather.shape[1]] = self.gather[start:stop]
        # the first step of the shot has nothing before it
        self._run(self.propagator.gradient, 0 if start else 1, stop - start)
        if start:
            self._equation.carry_over(self._steps, adjoint=True)

    def born(self, segment: int) -> None:
        """Step the forward and the scattered wavefield through a segment, and write the traces of the scattered one."""
        start, stop = self._bounds(segment)
        self._equation.source.data[: stop - start, 0] = self.source[start:stop]
        self._run(self.propagator.born, 0, stop - start)
        if not self._in_place:
            self.gather[start:stop] = self._traces[: stop - start, : self.gather.shape[1]]
        if stop < self.axis.samples:
            self._equation.carry_over(stop - start, scattered=True)

    def restart(self) -> None:
        """Set the forward wavefield back to the start of the shot."""
        self._switch(adjoint=False)
        for array in self._equation.state():
            array[:] = 0

    def state(self) -> tuple[NDArray, ...]:
        """Arrays from which the next forward segment starts."""
        self._switch(adjoint=False)
        return self._equation.state()

    def _switch(self, adjoint: bool) -> None:
        """Let the layer's variables belong to the other wavefield; forward steps are repeated from a saved state only."""
        if adjoint == self._adjoint:
            return
        self._adjoint, memory = adjoint, self._equation.memory
        if not adjoint:
            self._parked = ()  # before there are new ones
            self._parked = tuple(array.copy() for array in memory)
        for i, array in enumerate(memory if adjoint else ()):
            array[:] = self._parked[i] if self._parked else 0

    def _run(self, kernel: Kernel, first: int, stop: int) -> None:
        """Run the steps from ``first`` to before ``stop``, or back, with the receivers of this shot only."""
        last_receiver = {self._equation.receivers.dimensions[-1].max_name: self.gather.shape[1] - 1}
        self.kernel_seconds += kernel(time_m=first, time_M=stop - 1, dt=self.axis.step, **last_receiver)
