"""Interpolation between grid points: the points near a source or a receiver, and their weights."""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.grid import Domain
from hpcfwi.solver.boundary import AbsorbingLayer

if TYPE_CHECKING:
    from hpcfwi.model.problem import Problem

# Points along each axis for positions between grid points.
SINC_POINTS = 8
# Waves of at least this many points per wavelength are interpolated with the least error. For 8 weights the largest error of
# any position is 0.1 % at 4 points per wavelength, 0.02 % at 5, and 7 % at 3.
POINTS_PER_WAVELENGTH = 4.0
# Positions are rounded to this fraction of a cell: the same survey at other coordinates has the same weights.
ROUNDING = 2.0**-20


def points_needed(problem: Problem) -> int:
    """Points along each axis that the positions of a survey need: an even number.

    Two for linear interpolation, or if all positions are grid points.
    """
    domain, solver = problem.solver_domain, problem.config.solver
    sources = (shot.source[None] for shot in problem.survey.shots)
    positions = chain(sources, problem.survey.spreads())
    if solver.interpolation == "linear" or all((_in_cells(domain, each) % 1 == 0).all() for each in positions):
        return 2
    # Devito wants a halo as wide as half of them
    return min(SINC_POINTS, 2 * solver.space_order, min(domain.shape) // 2 * 2)


def stencils(
    boundary: AbsorbingLayer, positions: NDArray[np.float64], points: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Weights of the grid points around each position.

    Parameters
    ----------
    boundary
        The padded grid.
    positions
        Shape (n, ndim), m; in the model.
    points
        Points along each axis: 2 for linear interpolation, more for sinc functions.

    Returns
    -------
    first, weights
        Index of the first point on the padded grid, shape (n, ndim), and the weight of each point along each axis, shape (n,
        ndim, points). A point's weight is the product over the axes, which are in the layer's ``memory_order``.

    Notes
    -----
    A wave is reproduced as a sum of sinc functions, as in the method of Hicks (2002, doi:10.1190/1.1451454). His weights are
    those of a Kaiser window; these have the least squared error over all waves of at least :data:`POINTS_PER_WAVELENGTH`, and
    so exist for points on one side, too: next to an absorbing layer only points of the model are used. At a free surface, rows
    above it mirror those below with the opposite sign, so their weights are subtracted there.
    """
    cells = np.clip(_in_cells(boundary.domain, positions), 0, np.array(boundary.domain.shape) - 1)
    first = np.empty(cells.shape, dtype=np.int32)
    weights = np.empty((*cells.shape, points))
    for place, axis in enumerate(boundary.memory_order):
        mirrored = boundary.free_surface and axis == boundary.domain.ndim - 1
        start, line = _along_axis(cells[:, axis], boundary.domain.shape[axis], points, mirrored)
        first[:, place], weights[:, place] = start + boundary.widths[axis][0], line
    return first, weights


def _in_cells(domain: Domain, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions from the domain's origin, in cells, rounded to :data:`ROUNDING`."""
    cells = (positions - np.asarray(domain.origin)) / np.asarray(domain.spacing)
    return np.asarray(np.round(cells / ROUNDING) * ROUNDING)


def _along_axis(cells: NDArray, count: int, points: int, mirrored: bool) -> tuple[NDArray, NDArray]:
    """First point and weights along an axis of ``count`` points; with ``mirrored``, its first one is a free surface."""
    lowest = 1 - points // 2 if mirrored else 0
    first = np.clip(np.floor(cells).astype(int) + 1 - points // 2, lowest, count - points)
    index = first[:, None] + np.arange(points)
    distance = index - cells[:, None]
    if points == 2:
        weights = 1 - np.abs(distance)
    else:
        weights = np.where(cells[:, None] % 1 == 0, distance == 0, _sinc(distance) @ _inverse(points))
    if mirrored:
        weights = weights * np.sign(index)  # zero on the surface
        first = np.maximum(first, 0)
        folded = np.zeros_like(weights)
        np.add.at(folded, (np.arange(len(cells))[:, None], np.abs(index) - first[:, None]), weights)
        weights = folded
    return first, weights


def _sinc(distance: NDArray) -> NDArray[np.float64]:
    """The mean of ``cos(k d)`` over the wavenumbers k of :data:`POINTS_PER_WAVELENGTH` or more."""
    return np.asarray(np.sinc(2 / POINTS_PER_WAVELENGTH * distance))


@cache
def _inverse(points: int) -> NDArray[np.float64]:
    """Inverse matrix of the normal equations of the weights."""
    index = np.arange(points)
    return np.asarray(np.linalg.inv(_sinc(index[:, None] - index)), dtype=np.float64)
