"""Models from one regular grid to another, an axis at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcfwi.formats.stored_model import PLACE_TOLERANCE


@dataclass(frozen=True)
class Axis:
    """Equidistant points along one axis."""

    count: int
    spacing: float  # m, positive
    origin: float  # m

    @property
    def last(self) -> float:
        """Position of the last point, m."""
        return self.origin + (self.count - 1) * self.spacing

    @property
    def extent(self) -> str:
        """From where to where it goes, in words."""
        return f"{self.origin:.10g} to {self.last:.10g} m"

    def part(self, start: int, stop: int) -> Axis:
        """Points ``start`` to ``stop - 1``."""
        return Axis(stop - start, self.spacing, self.origin + start * self.spacing)


def covers(samples: Axis, grid: Axis) -> bool:
    """Whether samples reach over a grid, to within a cell, the larger one, at each end."""
    cell = max(samples.spacing, grid.spacing) * (1 + PLACE_TOLERANCE)
    return samples.origin - grid.origin <= cell and grid.last - samples.last <= cell


def shared_points(samples: Axis, grid: Axis) -> slice | None:
    """The samples that lie on the points of the grid, one on each; None if the grid has others between or beyond them."""
    first = (grid.origin - samples.origin) / samples.spacing
    last = (grid.last - samples.origin) / samples.spacing
    start, stop = round(first), round(last) + 1
    same = stop - start == grid.count and max(abs(first - start), abs(last + 1 - stop)) <= PLACE_TOLERANCE
    return slice(start, stop) if same and start >= 0 and stop <= samples.count else None


def needed_samples(samples: Axis, grid: Axis) -> slice:
    """The samples that the values on the grid depend on."""
    margin = max(samples.spacing, grid.spacing)
    start = int((grid.origin - margin - samples.origin) // samples.spacing)
    stop = int((grid.last + margin - samples.origin) // samples.spacing) + 2
    start = min(max(0, start), samples.count - 1)
    return slice(start, max(start + 1, min(stop, samples.count)))


def resample(velocity: NDArray[np.float64], samples: tuple[Axis, ...], grid: tuple[Axis, ...]) -> NDArray[np.float64]:
    """Velocities on a grid.

    Along an axis on which the grid is coarser than the samples, slowness is averaged over the cell of each grid point: a wave
    along that axis takes as long through the grid as through the samples. Along the other axes velocity is interpolated
    linearly. The outermost samples extend beyond the edges.

    Notes
    -----
    The averages are those of a slowness that is constant in the cell of each sample; half a cell at the edges of the grid may
    lie outside the samples and does not count.
    """
    coarser = [g.spacing > s.spacing * (1 + PLACE_TOLERANCE) for s, g in zip(samples, grid, strict=True)]
    if any(coarser):
        slowness = 1 / velocity
        for axis, average in enumerate(coarser):
            if average:
                slowness = _average(slowness, samples[axis], grid[axis], axis)
        velocity = 1 / slowness
    for axis, averaged in enumerate(coarser):
        if not averaged and shared_points(samples[axis], grid[axis]) != slice(0, samples[axis].count):
            velocity = _interpolate(velocity, samples[axis], grid[axis], axis)
    return velocity


def _average(values: NDArray[np.float64], samples: Axis, grid: Axis, axis: int) -> NDArray[np.float64]:
    """Averages over the cells of the grid, of values that are constant in the cell of each sample."""
    values = np.moveaxis(values, axis, 0)
    # edges of the grid's cells, in cells of the samples from the first edge on; a cell outside gets the outermost sample
    edges = (grid.origin + grid.spacing * (np.arange(grid.count + 1) - 0.5) - samples.origin) / samples.spacing + 0.5
    low, high = np.clip(edges[:-1], 0, samples.count - 1), np.clip(edges[1:], 1, samples.count)
    first, across = low.astype(np.int64), (-1, *[1] * (values.ndim - 1))
    total = np.zeros((grid.count, *values.shape[1:]))
    for sample in range(int(np.ceil(high - first).max())):
        place = first + sample
        share = np.clip(np.minimum(high, place + 1) - np.maximum(low, place), 0, None) / (high - low)
        total += share.reshape(across) * values[np.minimum(place, samples.count - 1)]
    return np.moveaxis(total, 0, axis)


def _interpolate(values: NDArray[np.float64], samples: Axis, grid: Axis, axis: int) -> NDArray[np.float64]:
    places = (grid.origin + grid.spacing * np.arange(grid.count) - samples.origin) / samples.spacing
    return np.moveaxis(_at(np.moveaxis(values, axis, 0), np.clip(places, 0, samples.count - 1)), 0, axis)


def _at(values: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values between the samples 0, 1, ... of the first axis, linearly interpolated."""
    left = np.minimum(places.astype(np.int64), max(0, len(values) - 2))
    share = (places - left).reshape(-1, *[1] * (values.ndim - 1))
    right = np.minimum(left + 1, len(values) - 1)
    return values[left] * (1 - share) + values[right] * share
