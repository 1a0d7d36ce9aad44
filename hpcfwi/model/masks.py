"""Frozen cells: those of the inversion that keep their initial velocity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.conditioning import PolygonSection
from hpcfwi.config.inversion import FrozenSection
from hpcfwi.errors import InputError
from hpcfwi.model.arrays import read_array
from hpcfwi.model.grid import EDGE_TOLERANCE, Domain
from hpcfwi.model.model_file import FLOAT32_ROUNDING
from hpcfwi.model.resampling import Axis
from hpcfwi.model.water import above_sea_floor


def frozen_cells(section: FrozenSection, domain: Domain, velocity: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The cells that any key of ``[inversion.frozen]`` selects, shape ``domain.shape``.

    ``velocity`` is that of the true model if it is known, else of the initial one, km/s. Raises InputError if a file cannot be
    read or does not fit the grid, a polygon has no cells, or all cells are frozen.
    """
    axes = [Axis(n, h, o) for n, h, o in zip(domain.shape, domain.spacing, domain.origin, strict=True)]
    frozen = np.zeros(domain.shape, dtype=bool)
    if section.velocity_below is not None:
        frozen |= velocity <= section.velocity_below * (1 + FLOAT32_ROUNDING)
    if section.depth_above is not None:
        depth = domain.origin[-1] + domain.spacing[-1] * np.arange(domain.shape[-1])
        frozen |= depth <= section.depth_above + EDGE_TOLERANCE * domain.spacing[-1]
    if section.bathymetry is not None:
        frozen |= above_sea_floor(section.bathymetry, axes, "inversion.frozen.bathymetry")
    for number, polygon in enumerate(section.polygons, 1):
        inside = _in_polygon(polygon, domain, f"inversion.frozen.polygons[{number}]")
        if not inside.any():
            raise InputError(
                f"inversion.frozen.polygons[{number}]: has no cell of the grid, which reaches from {list(domain.origin)} to "
                f"{list(domain.last)} m"
            )
        frozen |= inside
    if section.mask_file is not None:
        frozen |= read_mask(section.mask_file, domain.shape)
    if frozen.all():
        raise InputError("inversion.frozen: freezes every cell of the model, so there is nothing to invert for")
    return frozen


def read_mask(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Read the mask of frozen cells."""
    mask = read_array(path, "inversion.frozen.mask_file")
    if mask.shape != shape:
        raise InputError(f"inversion.frozen.mask_file: {path} has shape {mask.shape}, but the grid has {shape} points")
    return mask.astype(bool)


def _in_polygon(section: PolygonSection, domain: Domain, key: str) -> NDArray[np.bool_]:
    """The cells in a polygon of x and z, or in a prism whose section is one of x and y; edges belong to it."""
    axes = [o + h * np.arange(n) for o, h, n in zip(domain.origin, domain.spacing, domain.shape, strict=True)]
    inside = points_in_polygon(section.vertices, axes[0], axes[1], EDGE_TOLERANCE * min(domain.spacing))
    if domain.ndim == 2:
        if section.top is not None or section.bottom is not None:
            raise InputError(f"{key}: has top or bottom, which belong to 3-D models; in 2-D vertices are [x, z]")
        return inside
    slack = EDGE_TOLERANCE * domain.spacing[-1]
    above = -np.inf if section.top is None else section.top - slack
    below = np.inf if section.bottom is None else section.bottom + slack
    return inside[..., None] & (axes[2] >= above) & (axes[2] <= below)


def points_in_polygon(
    vertices: tuple[tuple[float, ...], ...], across: NDArray, down: NDArray, slack: float
) -> NDArray[np.bool_]:
    """Which points of a grid, shape (across, down), lie in a polygon or within ``slack`` of its edges.

    A point is inside if a ray from it crosses the edges an odd number of times.
    """
    u, v = across[:, None], down[None, :]
    inside, edge = np.zeros((2, across.size, down.size), dtype=bool)
    for (u1, v1), (u2, v2) in zip(vertices, (*vertices[1:], vertices[0]), strict=True):
        du, dv = u2 - u1, v2 - v1
        spans = (v1 > v) != (v2 > v)
        inside ^= spans & (u < u1 + du * (v - v1) / (dv or 1.0))
        nearest = np.clip(((u - u1) * du + (v - v1) * dv) / ((du**2 + dv**2) or 1.0), 0, 1)
        edge |= (u - u1 - nearest * du) ** 2 + (v - v1 - nearest * dv) ** 2 <= slack**2
    return inside | edge
