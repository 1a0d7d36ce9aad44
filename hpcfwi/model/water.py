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
    """Which points are water: those above the sea floor, not on it. Arguments and errors are those of :func:`sea_floor`."""
    depths = axes[-1].origin + axes[-1].spacing * np.arange(axes[-1].count)
    water = depths < sea_floor(bathymetry, axes, key)[..., None] - EDGE_TOLERANCE * axes[-1].spacing
    return np.broadcast_to(water, [axis.count for axis in axes])


def sea_floor(bathymetry: float | Path, axes: Sequence[Axis], key: str) -> NDArray[np.float64]:
    """Depth of the sea floor at each column of a grid, m; between the points of a file linear, beyond them the nearest one's.

    Parameters
    ----------
    bathymetry
        The z of the sea floor, m, or a CSV file.
    axes
        Of the grid, z last.
    key
        That of the configuration, for messages.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    if not isinstance(bathymetry, Path):
        return np.full([axis.count for axis in axes[:-1]], float(bathymetry))
    across = [axis.origin + axis.spacing * np.arange(axis.count) for axis in axes[:-1]]
    path, names = bathymetry, ("x", "y")[: len(across)]
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
