"""Windows: the parts of a large model in which shots are computed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.grid import EDGE_TOLERANCE, Domain
from hpcfwi.model.survey import Shot, Survey


@dataclass(frozen=True)
class Windows:
    """A window for each shot, all of one shape, so that one solver serves all.

    Along each horizontal axis a window holds the shot's source and receivers and ``aperture`` metres beyond them; it is as deep
    as the model. Where it would reach beyond the model it is shifted, not cut.
    """

    model: Domain  # the whole grid
    shape: tuple[int, ...]  # grid points of a window
    aperture: float  # m

    @classmethod
    def around(cls, survey: Survey, model: Domain, aperture: float) -> Windows:
        """Windows that are large enough for each shot of a survey."""
        unknown = cls(model, model.shape, aperture)
        sizes = [high - low + 1 for low, high in map(unknown._needed, survey.shots)]
        needed = np.max(sizes, axis=0)
        return replace(unknown, shape=(*(int(n) for n in np.minimum(needed, model.shape[:-1])), model.shape[-1]))

    @property
    def domain(self) -> Domain:
        """The grid of a window, at the origin of the model."""
        return replace(self.model, shape=self.shape)

    def start(self, shot: Shot) -> tuple[int, ...]:
        """Index of the window's first point in the whole grid."""
        low, high = self._needed(shot)
        spare = np.array(self.shape[:-1]) - (high - low + 1)
        first = np.clip(low - spare // 2, 0, np.subtract(self.model.shape, self.shape)[:-1])
        return (*(int(i) for i in first), 0)

    def corners(self, shot: Shot) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions of the window's first and last grid point, m."""
        first = np.array(self.model.origin) + np.array(self.start(shot)) * self.model.spacing
        return first, first + (np.array(self.shape) - 1) * self.model.spacing

    def _needed(self, shot: Shot) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last index that a shot needs along each horizontal axis; they may lie outside the model."""
        positions = np.vstack([shot.source, shot.receivers])[:, :-1]
        origin, spacing = (np.array(values[:-1]) for values in (self.model.origin, self.model.spacing))
        low = (positions.min(axis=0) - self.aperture - origin) / spacing
        high = (positions.max(axis=0) + self.aperture - origin) / spacing
        return np.floor(low + EDGE_TOLERANCE).astype(int), np.ceil(high - EDGE_TOLERANCE).astype(int)


def cut(values: NDArray, start: tuple[int, ...], shape: tuple[int, ...]) -> NDArray:
    """The part of an array of the whole grid that begins at ``start``; all of it, if that is empty."""
    return values[tuple(slice(first, first + n) for first, n in zip(start, shape, strict=True))] if start else values


def embed(block: NDArray, start: tuple[int, ...], shape: tuple[int, ...]) -> NDArray:
    """An array of the whole grid that holds a block, and zeros around it."""
    if block.shape == shape:
        return block
    whole = np.zeros(shape, dtype=block.dtype)
    cut(whole, start, block.shape)[...] = block
    return whole
