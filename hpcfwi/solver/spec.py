"""What a solver is built for, and the memory that it needs; known without importing Devito."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hpcfwi.model.grid import Domain
from hpcfwi.model.wavelet import highest_frequency
from hpcfwi.solver.boundary import Sponge

if TYPE_CHECKING:  # workers do not need it
    from hpcfwi.model.problem import Problem


@dataclass(frozen=True)
class SolverSpec:
    """Everything that the generated code depends on.

    Parameters
    ----------
    boundary
        The grid and its absorbing layer.
    space_order
        Order of the Laplacian's finite differences, even, 2 to 16.
    dtype
        ``"float32"`` or ``"float64"``.
    time_samples
        Samples of the longest time axis.
    snapshot_every
        Steps between two kept levels of the forward wavefield.
    receivers
        Largest number of receivers of a shot.
    equation, storage
        Names in :data:`hpcfwi.solver.equations.EQUATIONS` and :data:`hpcfwi.solver.storage.STORAGES`.
    """

    boundary: Sponge
    space_order: int
    dtype: str
    time_samples: int
    snapshot_every: int
    receivers: int
    equation: str = "acoustic"
    storage: str = "snapshots"

    @classmethod
    def from_problem(cls, problem: Problem) -> SolverSpec:
        """Choose what the shots of a problem need."""
        solver, samples = problem.config.solver, problem.time_samples
        every = 1
        if solver.strategy == "sampled":
            every = snapshot_interval(problem.time_steps[1], highest_frequency(problem.wavelet), solver.sampling_margin)
        # keep a few levels of a short record, too
        every = max(1, min(every, samples // 4))
        boundary = Sponge(problem.domain, solver.sponge, solver.free_surface)
        return cls(boundary, solver.space_order, solver.dtype, samples, every, problem.survey.max_receivers)

    @property
    def domain(self) -> Domain:
        """The model's grid."""
        return self.boundary.domain

    @property
    def snapshots(self) -> int:
        """Levels of the forward wavefield that are kept over the longest time axis."""
        return (self.time_samples - 1) // self.snapshot_every + 1

    @property
    def nbytes(self) -> int:
        """Bytes of a worker's wavefields and traces."""
        shape = self.boundary.padded_shape
        halo = math.prod(n + 2 * self.space_order for n in shape)
        # with a halo: m, damp, three levels each of u and v; without: the gradient, the extended model, the snapshots
        fields = 8 * halo + (2 + self.snapshots) * math.prod(shape)
        return (fields + self.time_samples * (self.receivers + 1)) * np.dtype(self.dtype).itemsize


def snapshot_interval(step: float, highest_frequency: float, margin: float) -> int:
    """Largest number of steps between two kept levels of the wavefield.

    Parameters
    ----------
    step
        Time step, ms.
    highest_frequency
        Highest frequency of the wavelet, kHz.
    margin
        Samples per period of the highest frequency in the product of two wavefields, which is twice ``highest_frequency``.
        The sum of the samples equals the integral while this is above 1.
    """
    return max(1, math.floor(1.0 / (margin * 2.0 * highest_frequency * step)))
