"""What a solver is built for: the absorbing layer, orders and sizes, and the memory they take; known without Devito."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.grid import Domain
from hpcfwi.model.wavelet import highest_frequency

if TYPE_CHECKING:  # workers do not need it
    from hpcfwi.model.problem import Problem


@dataclass(frozen=True)
class Sponge:
    """An absorbing layer whose damping grows towards its outer edge."""

    domain: Domain  # the model's grid
    cells: int  # width of the layer on every absorbing side
    free_surface: bool = False  # True: zero pressure at the top (z = origin); False: the top absorbs

    @property
    def widths(self) -> tuple[tuple[int, int], ...]:
        """Cells of the layer before and after the model, for each axis."""
        top = 0 if self.free_surface else self.cells
        return (*((self.cells, self.cells),) * (self.domain.ndim - 1), (top, self.cells))

    @property
    def padded_shape(self) -> tuple[int, ...]:
        """Grid points along each axis, the layer included."""
        return tuple(n + before + after for n, (before, after) in zip(self.domain.shape, self.widths, strict=True))

    @property
    def padded_origin(self) -> tuple[float, ...]:
        """Position of the first point of the padded grid, m."""
        return tuple(o - w[0] * h for o, w, h in zip(self.domain.origin, self.widths, self.domain.spacing, strict=True))

    @property
    def interior(self) -> tuple[slice, ...]:
        """Slices that cut the model's grid out of a padded array."""
        return tuple(slice(w[0], w[0] + n) for n, w in zip(self.domain.shape, self.widths, strict=True))

    def extend(self, values: NDArray) -> NDArray:
        """Copy values, shape ``domain.shape``, to an array of ``padded_shape``; the layer gets the model's edge values."""
        return np.pad(values, self.widths, mode="edge")

    def extend_transpose(self, values: NDArray) -> NDArray[np.float64]:
        """Add the values in the layer to the nearest points of the model's edge: the transpose of :meth:`extend`."""
        folded = np.asarray(values, dtype=np.float64)
        for axis, (n, (before, after)) in enumerate(zip(self.domain.shape, self.widths, strict=True)):
            rows = np.moveaxis(folded, axis, 0)
            core = rows[before : before + n].copy()
            core[0] += rows[:before].sum(axis=0)
            core[-1] += rows[before + n : before + n + after].sum(axis=0)
            folded = np.moveaxis(core, 0, axis)
        return np.ascontiguousarray(folded)

    def crop(self, values: NDArray) -> NDArray[np.float64]:
        """Cut the model's grid out of a padded array; drop the layer."""
        return np.array(values[self.interior], dtype=np.float64)

    def damping(self) -> NDArray[np.float64]:
        """Damping coefficient on the padded grid, ms/m^2; zero inside the model.

        Notes
        -----
        Along each axis it is ``1.5 ln(1000) / n * (p - sin(2 pi p) / (2 pi)) / h`` for a speed of 1 km/s, in a layer of n cells
        of width h, with ``p = (i + 1) / n`` in the i-th cell from the model: the profile of Devito's ``examples.seismic.model``
        (Louboutin et al. 2019, doi:10.5194/gmd-12-1165-2019). In corners, the damping terms of the axes add up.
        """
        total = np.zeros(self.padded_shape)
        for axis, ((before, after), h) in enumerate(zip(self.widths, self.domain.spacing, strict=True)):
            line = np.zeros(self.padded_shape[axis])
            if before:
                line[:before] = _profile(before, h)
            if after:
                line[-after:] = _profile(after, h)[::-1]
            total += line.reshape([-1 if a == axis else 1 for a in range(self.domain.ndim)])
        return total


def _profile(cells: int, spacing: float) -> NDArray[np.float64]:
    """Damping from the outermost cell inwards."""
    p = (cells + 1 - np.arange(cells)) / cells
    return 1.5 * math.log(1000.0) / cells * (p - np.sin(2 * np.pi * p) / (2 * np.pi)) / spacing


@dataclass(frozen=True)
class SolverSpec:
    """Everything that the generated code depends on."""

    boundary: Sponge  # the grid and its absorbing layer
    space_order: int  # of the Laplacian's finite differences: even, 2 to 16
    dtype: str  # "float32" or "float64"
    time_samples: int  # of the longest time axis
    snapshot_every: int  # steps between two kept levels of the forward wavefield
    receivers: int  # largest number of receivers of a shot
    # names in hpcfwi.solver.equations.EQUATIONS and hpcfwi.solver.storage.STORAGES
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
        receivers = max(len(shot.receivers) for shot in problem.survey.shots)
        return cls(boundary, solver.space_order, solver.dtype, samples, every, receivers)

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
    """Largest number of steps of ``step`` ms between two kept levels of the wavefield.

    The product of two wavefields has twice the ``highest_frequency``, kHz, of the wavelet; ``margin`` is the number of samples
    in its period. The sum of the samples equals the integral while this is above 1: no frequency is aliased to zero.
    """
    return max(1, math.floor(1.0 / (margin * 2.0 * highest_frequency * step)))
