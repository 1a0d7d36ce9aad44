"""The regular grid of a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

AXIS_NAMES = {2: ("x", "z"), 3: ("x", "y", "z")}


@dataclass(frozen=True)
class Domain:
    """A regular grid; arrays are indexed ``[x, z]`` or ``[x, y, z]``, z pointing down.

    Parameters
    ----------
    shape
        Grid points along each axis.
    spacing
        Distance between grid points along each axis, m.
    origin
        Position of the first grid point, m.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]

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

    def contains(self, positions: ArrayLike) -> NDArray[np.bool_]:
        """Find which positions, shape (n, ndim), m, lie inside the grid, with a tolerance of a millionth of a cell."""
        points = np.asarray(positions, dtype=float)
        slack = 1e-6 * np.asarray(self.spacing)
        inside = (points >= np.asarray(self.origin) - slack) & (points <= np.asarray(self.last) + slack)
        return np.asarray(inside.all(axis=-1))
