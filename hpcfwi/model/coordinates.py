"""From the coordinates of a survey to those of the model: a local origin, a rotation and, in 2-D, a projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.quantities import DEFAULT_MAX_DISTANCE_M

if TYPE_CHECKING:
    from hpcfwi.config.data import TransformSection

EAST = 90.0  # degrees; azimuth of the coordinates' x axis


@dataclass(frozen=True)
class Transform:
    """From the survey's coordinates to the model's: an origin, a rotation and, in 2-D, a projection (``[data.transform]``)."""

    origin: tuple[float, float]
    azimuth: float  # degrees
    max_distance: float  # m, from the section in 2-D
    ndim: int

    @classmethod
    def from_config(cls, section: TransformSection | None, ndim: int) -> Transform:
        """That of ``[data.transform]``; without it, x and y stay as they are."""
        if section is None:
            return cls((0.0, 0.0), EAST, DEFAULT_MAX_DISTANCE_M, ndim)
        return cls(section.origin, section.azimuth, section.max_distance, ndim)

    def apply(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions in the model, shape (n, ndim)."""
        along, across = self._rotated(points)
        parts = [along, across, points[:, 2]] if self.ndim == 3 else [along, points[:, 2]]
        return np.stack(parts, axis=1)

    def distances(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Signed distances from the vertical section of a 2-D model, m."""
        return self._rotated(points)[1]

    def moved(self, shift: Sequence[float]) -> Transform:
        """The transform that puts positions further along the model's horizontal axes, by ``shift``, m."""
        x, y = self._along
        along, across = shift[0], shift[1] if self.ndim == 3 else 0.0
        origin = self.origin[0] - along * x + across * y, self.origin[1] - along * y - across * x
        return replace(self, origin=origin)

    @property
    def settings(self) -> str:
        """What to type for origin and azimuth, rounded."""
        x, y = (f"{value:.2f}".removesuffix(".00") for value in self.origin)
        azimuth = "" if self.azimuth == EAST else f" --set data.transform.azimuth={self.azimuth:g}"
        return f"--set data.transform.origin=[{x},{y}]{azimuth}"

    @property
    def _along(self) -> tuple[float, float]:
        """The direction of the model's x axis, east and north; exactly (1, 0) by default."""
        if self.azimuth == EAST:
            return 1.0, 0.0
        angle = np.radians(self.azimuth)
        return float(np.sin(angle)), float(np.cos(angle))

    def _rotated(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        east, north = points[:, 0] - self.origin[0], points[:, 1] - self.origin[1]
        if self.azimuth == EAST:
            return east, north
        x, y = self._along
        return east * x + north * y, north * x - east * y


def fit_line(points: NDArray[np.float64]) -> Transform:
    """The section of a 2-D model along a straight line through positions, shape (n, 2 or 3), by least squares.

    It goes from the first position, whose x is 0, towards the last one; the azimuth is rounded to hundredths of a degree.
    """
    flat = points[:, :2]
    centre = flat.mean(axis=0)
    _, _, directions = np.linalg.svd(flat - centre, full_matrices=False)
    along = directions[0] * (1.0 if directions[0] @ (flat[-1] - flat[0]) >= 0 else -1.0)
    azimuth = round(float(np.degrees(np.arctan2(along[0], along[1]))) % 360, 2)
    section = Transform((float(centre[0]), float(centre[1])), azimuth, DEFAULT_MAX_DISTANCE_M, 2)
    return section.moved([-float(section.apply(np.append(flat[0], 0.0)[None])[0, 0])])
