"""The physical domain, its regular grid and the sponge around it.

Everything here is plain NumPy: which part of an array is rock and which is absorbing layer, how a model is extended into
the layer, and the transpose of that extension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["Domain"]

AXIS_NAMES = {2: ("x", "z"), 3: ("x", "y", "z")}


@dataclass(frozen=True)
class Domain:
    """A regular grid with an absorbing sponge; arrays are indexed ``[x, z]`` or ``[x, y, z]``, z pointing down.

    Parameters
    ----------
    shape
        Grid points along each axis, without the sponge.
    spacing
        Distance between grid points along each axis, m.
    origin
        Position of the first grid point, m.
    sponge
        Width of the absorbing layer on every absorbing side, in cells.
    free_surface
        Whether the top (z = origin) is a free surface (pressure zero) instead of absorbing.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    sponge: int = 40
    free_surface: bool = False

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes: ``("x", "z")`` or ``("x", "y", "z")``."""
        return AXIS_NAMES[self.ndim]

    @property
    def last(self) -> tuple[float, ...]:
        """Position of the last grid point, m."""
        return tuple(o + (n - 1) * h for o, n, h in zip(self.origin, self.shape, self.spacing, strict=True))

    @property
    def widths(self) -> tuple[tuple[int, int], ...]:
        """Cells of sponge before and after the domain, for each axis."""
        top = 0 if self.free_surface else self.sponge
        return (*((self.sponge, self.sponge),) * (self.ndim - 1), (top, self.sponge))

    @property
    def padded_shape(self) -> tuple[int, ...]:
        return tuple(n + before + after for n, (before, after) in zip(self.shape, self.widths, strict=True))

    @property
    def padded_origin(self) -> tuple[float, ...]:
        return tuple(o - w[0] * h for o, w, h in zip(self.origin, self.widths, self.spacing, strict=True))

    @property
    def padded_points(self) -> int:
        return math.prod(self.padded_shape)

    @property
    def interior(self) -> tuple[slice, ...]:
        """Slices that cut the physical domain out of a padded array."""
        return tuple(slice(w[0], w[0] + n) for n, w in zip(self.shape, self.widths, strict=True))

    def contains(self, positions: ArrayLike) -> NDArray[np.bool_]:
        """Tell which positions, shape (n, ndim) in m, lie in the physical domain (to a millionth of a cell)."""
        points = np.asarray(positions, dtype=float)
        slack = 1e-6 * np.asarray(self.spacing)
        inside = (points >= np.asarray(self.origin) - slack) & (points <= np.asarray(self.last) + slack)
        return np.asarray(inside.all(axis=-1))

    def extend(self, values: NDArray, out: NDArray | None = None) -> NDArray:
        """Extend a physical array into the sponge: every cell there takes the value of the nearest edge point."""
        if out is None:
            out = np.empty(self.padded_shape, dtype=values.dtype)
        out[self.interior] = values
        for axis, (n, (before, after)) in enumerate(zip(self.shape, self.widths, strict=True)):
            rows = np.moveaxis(out, axis, 0)
            rows[:before] = rows[before]
            rows[before + n :] = rows[before + n - 1] if after else rows[before + n :]
        return out

    def extend_transpose(self, values: NDArray) -> NDArray[np.float64]:
        """Apply the transpose of :meth:`extend`: fold what lies in the sponge onto the nearest edge points."""
        folded = np.asarray(values, dtype=np.float64)
        for axis, (n, (before, after)) in enumerate(zip(self.shape, self.widths, strict=True)):
            rows = np.moveaxis(folded, axis, 0)
            core = rows[before : before + n].copy()
            core[0] += rows[:before].sum(axis=0)
            core[-1] += rows[before + n : before + n + after].sum(axis=0)
            folded = np.moveaxis(core, 0, axis)
        return np.ascontiguousarray(folded)

    def crop(self, values: NDArray) -> NDArray[np.float64]:
        """Cut the physical domain out of a padded array; what lies in the sponge is dropped."""
        return np.array(values[self.interior], dtype=np.float64)

    def damping(self, dtype: DTypeLike = np.float64) -> NDArray:
        """Damping coefficient of the sponge on the padded grid, 1/m (zero in the physical domain).

        Notes
        -----
        Per axis, with n cells of width h and p the distance into the layer over n:
        ``1.5 ln(1000) / n * (p - sin(2 pi p) / (2 pi)) / h``, the profile of Devito's ``examples.seismic.model``
        (there p runs from 2/n in the innermost cell to 1 + 1/n in the outermost).
        """
        total = np.zeros(self.padded_shape)
        for axis, ((before, after), h) in enumerate(zip(self.widths, self.spacing, strict=True)):
            line = np.zeros(self.padded_shape[axis])
            if before:
                line[:before] = _sponge_profile(before, h)
            if after:
                line[-after:] = _sponge_profile(after, h)[::-1]
            total += line.reshape([-1 if a == axis else 1 for a in range(self.ndim)])
        return total.astype(dtype)


def _sponge_profile(cells: int, spacing: float) -> NDArray[np.float64]:
    """Damping from the outermost cell inwards."""
    p = (cells + 1 - np.arange(cells)) / cells
    return 1.5 * math.log(1000.0) / cells * (p - np.sin(2 * np.pi * p) / (2 * np.pi)) / spacing
