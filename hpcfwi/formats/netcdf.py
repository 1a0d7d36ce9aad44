"""NetCDF-3, NetCDF-4 and HDF5 with the conventions of xarray: an array, and a coordinate for each of its dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.formats.stored_model import (
    FormatError,
    StoredModel,
    axes_of,
    axis_letter,
    metres_per,
    regular_axis,
    velocity_unit,
)
from hpcfwi.io import require_regular_file, shortened

if TYPE_CHECKING:
    import xarray

SIGNATURES = {b"\x89HDF": "h5netcdf", b"CDF\x01": "scipy", b"CDF\x02": "scipy"}


def open_netcdf(path: Path, variable: str | None = None) -> StoredModel:
    """Open the array ``variable`` (in HDF5 also ``group/name``), or the only one with two or three axes.

    Missing values, by ``_FillValue``, are NaN; ``scale_factor`` and ``add_offset`` are applied. Raises FormatError, or whatever
    xarray raises for a damaged file.
    """
    import xarray  # takes a third of a second, and few runs need it

    with require_regular_file(path).open("rb") as file:
        engine = SIGNATURES.get(file.read(4))
    if engine is None:
        raise FormatError("is neither NetCDF nor HDF5: its first bytes are not those of either")
    if engine == "h5netcdf":
        import h5py

        # of a file that cannot be opened so far, h5netcdf would print a traceback besides the error that it raises
        with h5py.File(path, "r") as file:
            file.attrs.get("_nc3_strict")
    group, _, name = (variable or "").strip("/").rpartition("/")
    of_hdf5 = {"group": group or None, "phony_dims": "sort"} if engine == "h5netcdf" else {}
    dataset = xarray.open_dataset(path, engine=engine, decode_times=False, cache=False, **of_hdf5)
    array = dataset[_choose(dataset, name)]
    array = array.squeeze([name for name, size in array.sizes.items() if size == 1 and array.ndim > 2])
    places = [_axis(array, str(dimension)) for dimension in array.dims]
    return StoredModel(
        array.variable,
        axes_of([_name(array, str(dimension)) for dimension in array.dims]),
        tuple(spacing for _, spacing in places),
        tuple(origin for origin, _ in places),
        velocity_unit(str(array.attrs.get("units", ""))),
    )


def write_netcdf(
    path: Path, values: NDArray[np.float32], axes: str, spacing: Sequence[float], origin: Sequence[float], unit: str
) -> None:
    """Write a model as NetCDF-4: the array ``velocity`` with a coordinate, m, for each axis; z points down.

    ``axes`` has a letter for each axis of ``values``; spacing and origin, m, are in the same order.
    """
    import xarray

    coordinates = {
        letter: (letter, o + h * np.arange(n), {"units": "m", "axis": letter.upper()})
        for letter, n, h, o in zip(axes, values.shape, spacing, origin, strict=True)
    }
    coordinates["z"][2].update(positive="down", long_name="depth")
    attributes = {"units": unit, "long_name": "velocity"}
    dataset = xarray.Dataset({"velocity": (tuple(axes), values, attributes)}, coordinates, {"Conventions": "CF-1.11"})
    dataset.to_netcdf(path, engine="h5netcdf")


def _choose(dataset: xarray.Dataset, name: str) -> str:
    names = [str(key) for key, array in dataset.data_vars.items() if sum(n > 1 for n in array.shape) in (2, 3)]
    listed = shortened(", ".join(names) or "none")
    if name:
        if name not in dataset.data_vars:
            raise FormatError(f"has no array {shortened(name, 60)!r}; the arrays with two or three axes are: {listed}")
        return name
    if len(names) != 1:
        groups = "" if names else "; one in a group has the name group/array"
        raise FormatError(
            f'has {len(names)} arrays with two or three axes ({listed}); name one with "variable"{groups}'
        )
    return names[0]


def _name(array: xarray.DataArray, dimension: str) -> str:
    """The name of an axis, or the letter that its coordinate says it is."""
    if axis_letter(dimension) or dimension not in array.coords:
        return dimension
    attributes = array.coords[dimension].attrs
    names = [str(attributes.get(key, "")) for key in ("axis", "standard_name", "long_name")]
    return next((name for name in names if axis_letter(name)), dimension)


def _axis(array: xarray.DataArray, dimension: str) -> tuple[float | None, float | None]:
    """Position of the first sample along a dimension, and the spacing, m; None for a dimension without a coordinate."""
    if dimension not in array.coords or array.sizes[dimension] < 2:
        return None, None
    coordinate = array.coords[dimension]
    if coordinate.dtype.kind not in "fiu":
        raise FormatError(f"has coordinates {shortened(dimension, 60)} of type {coordinate.dtype}, not numbers")
    scale = metres_per(str(coordinate.attrs.get("units", "")))
    if coordinate.attrs.get("positive") == "up":
        scale = -scale
    origin, spacing = regular_axis(coordinate.values, shortened(dimension, 60))
    return origin * scale, spacing * scale
