"""Absorbing layers around the model, known without Devito."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.grid import Domain

# Points on each side that the differences in CPML reach. With space order 8 and 10 cells, 1, 2, 3 and 4 put errors of 0.45,
# 0.07, 0.02 and 0.02 % into the records of the first case of tests/solver/test_absorption.py.
REACH = 3
# Theoretical reflection of CPML at normal incidence. The usual 1e-4 leaves 10 % in records at 40 wavelengths from a source just
# below the top, where waves graze the layer; this leaves 0.1 %.
REFLECTION = 1e-12
# Slabs at the ends of the innermost axis are this many cells wide, or a multiple: compilers make whole vectors of them.
VECTOR = 16


@dataclass(frozen=True)
class AbsorbingLayer:
    """Cells around the model in which waves are absorbed."""

    name: ClassVar[str]  # for users

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

    @property
    def memory_order(self) -> tuple[int, ...]:
        """Axes of the domain from the outermost to the innermost of the wavefields' arrays: the longest is innermost.

        Loops over the layer are then short along outer axes only.
        """
        return tuple(sorted(range(self.domain.ndim), key=lambda axis: (self.domain.shape[axis], -axis)))

    @property
    def memory_points(self) -> int:
        """Values of the layer's own variables, for each wavefield."""
        return 0

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


@dataclass(frozen=True)
class Sponge(AbsorbingLayer):
    """A layer whose damping grows towards its outer edge."""

    name: ClassVar[str] = "sponge"

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
class Cpml(AbsorbingLayer):
    """A convolutional perfectly matched layer (CPML), which stretches space along its axis by a complex factor."""

    name: ClassVar[str] = "CPML"

    velocity: float = 1.5  # highest in the layer, km/s
    frequency: float = 0.01  # dominant one of the wavelet, kHz

    def slab_cells(self, axis: int) -> int:
        """Cells of the slab at each end of an axis in which the memory variables, and derivatives of them, differ from zero."""
        cells = self.cells + REACH
        if axis == self.memory_order[-1]:
            cells = VECTOR * math.ceil(cells / VECTOR)
        return min(cells, self.padded_shape[axis])

    @property
    def memory_points(self) -> int:
        """Values of the two memory variables of all slabs, with the halo that Devito gives one of them."""
        total = 0
        for axis, widths in enumerate(self.widths):
            shape = [*self.padded_shape]
            shape[axis] = self.slab_cells(axis)
            slabs = sum(width > 0 for width in widths)
            total += slabs * (math.prod(shape) + math.prod(n + 2 * REACH for n in shape))
        return total

    def coefficients(self, axis: int, end: int, step: float, offset: float = 0.0) -> tuple[NDArray, NDArray]:
        """Coefficients a and b of the recursion ``psi = b psi + a f`` for a time step, ms, at each point of a padded axis.

        They belong to the layer at one end of the axis, 0 or 1; elsewhere both are zero. ``offset`` is the distance from each
        grid point in cells.

        Notes
        -----
        ``b = exp(-(s + alpha) dt)``, ``a = s / (s + alpha) (b - 1)``, with the damping ``s = -3 v ln(R) / (2 n h) p^2`` and the
        frequency shift ``alpha = pi f (1 - p)`` at the relative depth p into a layer of n cells of width h (Roden and Gedney
        2000, doi:10.1002/1098-2760(20001205)27:5<334::AID-MOP14>3.0.CO;2-A; Komatitsch and Martin 2007,
        doi:10.1190/1.2757586).
        """
        before, n = self.widths[axis][0], self.domain.shape[axis]
        position = np.arange(self.padded_shape[axis]) + offset
        depth = (position - (before + n - 1) if end else before - position) / self.cells
        inside = (depth > 0) & (depth <= 1)
        p = np.where(inside, depth, 0.0)
        s = -1.5 * self.velocity * math.log(REFLECTION) / (self.cells * self.domain.spacing[axis]) * p**2
        alpha = math.pi * self.frequency * (1 - p)
        b = np.where(inside, np.exp(-(s + alpha) * step), 0.0)
        return np.where(inside, s / np.where(inside, s + alpha, 1.0) * (b - 1), 0.0), b
