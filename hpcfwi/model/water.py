"""Water above the sea floor of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.model.grid import EDGE_TOLERANCE
from hpcfwi.model.resampling import Axis
from hpcfwi.model.survey import Table


def above_sea_floor(bathymetry: float | Path, axes: Sequence[Axis], key: str) -> NDArray[np.bool_]:
    """Which points are water: those above the sea floor, not on it.

    ``bathymetry`` is the z of the sea floor, m, or a CSV file; ``key`` is that of the configuration, for messages. Raises
    InputError if the file cannot be read.
    """
    *across, depths = (axis.origin + axis.spacing * np.arange(axis.count) for axis in axes)
    floor = (
        _sea_floor(bathymetry, across, key) if isinstance(bathymetry, Path) else np.full((1,) * len(across), bathymetry)
    )
    water = depths < floor[..., None] - EDGE_TOLERANCE * axes[-1].spacing
    return np.broadcast_to(water, [axis.count for axis in axes])


def _sea_floor(path: Path, across: list[NDArray], key: str) -> NDArray[np.float64]:
    """Depth of the sea floor at the columns of the grid: linear between the points of the file, of the nearest one beyond."""
    names = ("x", "y")[: len(across)]
    points = Table(path, key).positions((*names, "depth"))
    places, depths = points[:, :-1], points[:, -1]
    if len(np.unique(places, axis=0)) < len(places):
        raise InputError(f"{key}: {path}: has two rows with the same {' and '.join(names)}; keep one of them")
    if len(names) == 1:
        order = places[:, 0].argsort()
        return np.interp(across[0], places[order, 0], depths[order])
    from scipy.interpolate import (
        LinearNDInterpolator,
        NearestNDInterpolator,
    )  # slow to import, and few models need them
    from scipy.spatial import QhullError

    columns = np.stack(np.meshgrid(*across, indexing="ij"), axis=-1)
    try:
        inside = LinearNDInterpolator(places, depths)(columns)
    except (QhullError, ValueError):
        raise InputError(
            f"{key}: {path}: has {len(places)} points on one line; a sea floor in three dimensions needs more"
        ) from None
    return np.where(np.isfinite(inside), inside, NearestNDInterpolator(places, depths)(columns))
