"""What a solver is built for: the absorbing layer, orders and sizes, and the memory they take; known without Devito."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hpcfwi.model.grid import Domain
from hpcfwi.model.wavelet import highest_frequency, peak_frequency
from hpcfwi.solver.boundary import AbsorbingLayer, Cpml, Sponge
from hpcfwi.solver.interpolation import points_needed

if TYPE_CHECKING:  # workers do not need it
    from hpcfwi.model.problem import Problem


@dataclass(frozen=True)
class SolverSpec:
    """Everything that the generated code depends on."""

    boundary: AbsorbingLayer  # the grid and its absorbing layer
    space_order: int  # of the Laplacian's finite differences: even, 2 to 16
    dtype: str  # "float32" or "float64"
    time_samples: int  # of the longest time axis
    snapshot_every: int  # steps between two kept levels of the forward wavefield
    receivers: int  # largest number of receivers of a shot
    layer_gradient: bool = False  # whether the gradient in the layer is computed, too
    interpolation_points: int = 2  # along each axis, around each source and receiver
    # names in hpcfwi.solver.equations.EQUATIONS and hpcfwi.solver.operators.STORAGES
    equation: str = "acoustic"
    storage: str = "snapshots"
    # Of the forward wavefield's time axis, which the storage may divide; 0: all snapshots are in one segment.
    segment_snapshots: int = 0
    checkpoints: int = 0  # states of the forward wavefield that a checkpointed storage keeps
    born: bool = False  # whether the Born operator is compiled, too

    def __post_init__(self) -> None:
        if self.layer_gradient and isinstance(self.boundary, Cpml):
            raise ValueError("the gradient in a layer of CPML is not computed")

    @classmethod
    def from_problem(cls, problem: Problem, every_step: bool = False, whole: bool = False) -> SolverSpec:
        """Choose what the shots of a problem need, with all snapshots of the wavefield, or every step of it, in memory.

        ``whole`` computes shots in the whole model instead of windows.
        """
        solver, samples = problem.config.solver, problem.time_samples
        every = 1
        if not every_step:
            every = snapshot_interval(problem.time_steps[1], highest_frequency(problem.wavelet), solver.sampling_margin)
        # keep a few levels of a short record, too
        every = max(1, min(every, samples // 4))
        layer = problem.domain if whole else problem.solver_domain, solver.layer_cells, solver.free_surface
        boundary: AbsorbingLayer = Sponge(*layer)
        if solver.boundary == "cpml":
            # a wavelet may have its peak at zero
            frequency = max(peak_frequency(problem.wavelet), 0.1 * highest_frequency(problem.wavelet))
            boundary = Cpml(*layer, velocity=problem.edge_velocity, frequency=frequency)
        receivers = int(problem.survey.receiver_counts.max())
        folded = solver.boundary_gradient == "exact"
        sizes = (samples, every, receivers, folded, points_needed(problem))
        return cls(boundary, solver.space_order, solver.dtype, *sizes, born=problem.linearised)

    @property
    def domain(self) -> Domain:
        """The model's grid."""
        return self.boundary.domain

    @property
    def snapshots(self) -> int:
        """Levels of the forward wavefield that are kept over the longest time axis."""
        return (self.time_samples - 1) // self.snapshot_every + 1

    @property
    def buffer_snapshots(self) -> int:
        """Snapshots of a segment."""
        return self.segment_snapshots or self.snapshots

    @property
    def segment_steps(self) -> int:
        """Time steps of a segment."""
        return self.segment_snapshots * self.snapshot_every or self.time_samples

    @property
    def segments(self) -> int:
        """Segments of the longest time axis."""
        return math.ceil(self.time_samples / self.segment_steps)

    @property
    def state_bytes(self) -> int:
        """Bytes of the state of the forward wavefield: two levels, and the layer's variables."""
        shape = [*self.boundary.padded_shape]
        if self.boundary.free_surface:
            shape[-1] += self.space_order // 2  # its mirror image
        return (2 * math.prod(shape) + self.boundary.memory_points) * np.dtype(self.dtype).itemsize

    @property
    def itemsize(self) -> int:
        """Bytes of a value of the wavefields."""
        return np.dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of a worker's wavefields and traces."""
        return self.fixed_bytes + self.storage_bytes

    @property
    def touched_bytes(self) -> int:
        """Those that a shot uses: without the checkpoints that wait for a disk to fail."""
        waiting = self.checkpoints * self.state_bytes + self.boundary.memory_points * self.itemsize
        return self.nbytes - waiting * (self.storage == "disk")

    @property
    def fixed_bytes(self) -> int:
        """Those besides the storage of the forward wavefield."""
        shape = self.boundary.padded_shape
        halo, padded = math.prod(n + 2 * self.space_order for n in shape), math.prod(shape)
        # with a halo: m, three levels each of u and v, and a sponge's damping; without: the extended model, and the gradient
        fields = (7 + isinstance(self.boundary, Sponge)) * halo
        # the scattered wavefield takes the place of the adjoint one, but has variables of its own in the layer
        fields += (1 + self.born) * self.boundary.memory_points
        traces = self.time_samples + self.domain.ndim * (1 + self.interpolation_points)
        if self.segments > 1:
            traces += self.segment_steps
        return (fields + padded + self.kept_points + traces * (self.receivers + 1)) * self.itemsize

    @property
    def kept_points(self) -> int:
        """Values of a snapshot: the model's grid, or the layer's, too."""
        return math.prod(self.boundary.padded_shape if self.layer_gradient else self.domain.shape)

    @property
    def storage_bytes(self) -> int:
        """Bytes that the storage of the forward wavefield takes in memory."""
        buffer = self.buffer_snapshots * self.kept_points * self.itemsize
        if self.storage == "disk":  # checkpoints take the place of a disk that fails
            return 2 * buffer + self.checkpoints * self.state_bytes + self.boundary.memory_points * self.itemsize
        if self.storage == "checkpointed":
            return buffer + self.checkpoints * self.state_bytes + self.boundary.memory_points * self.itemsize
        if self.storage == "compressed":
            groups = self.segments * math.ceil(self.buffer_snapshots / 4)
            rows = math.prod(self.boundary.padded_shape[axis] for axis in self.boundary.memory_order[:-1])
            return buffer + groups * 4 * (self.kept_points + rows * self.itemsize)
        return buffer

    @property
    def disk_bytes(self) -> int:
        """Bytes that the storage of the forward wavefield takes on a disk."""
        on_disk = self.storage == "disk"
        return self.segments * self.buffer_snapshots * self.kept_points * self.itemsize if on_disk else 0


def snapshot_interval(step: float, highest_frequency: float, margin: float) -> int:
    """Largest number of steps of ``step`` ms between two kept levels of the wavefield.

    The product of two wavefields has twice the ``highest_frequency``, kHz, of the wavelet; ``margin`` is the number of samples
    in its period. The sum of the samples equals the integral while this is above 1: no frequency is aliased to zero.
    """
    return max(1, math.floor(1.0 / (margin * 2.0 * highest_frequency * step)))
