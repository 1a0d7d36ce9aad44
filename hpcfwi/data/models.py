"""Velocity models: built-in ones, and ones from files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hpcfwi.config.run import CircleModel, ConstantModel, FileModel, GridSection, LayersModel
from hpcfwi.errors import InputError

__all__ = ["build_model", "check_velocities", "file_grid_shape", "read_array", "read_mask", "smooth_model"]

# Velocities of rock, water and air in km/s: what is outside is a mistake, most often of units.
SLOWEST, FASTEST = 0.1, 15.0


def build_model(
    section: CircleModel | LayersModel | ConstantModel | FileModel,
    grid: GridSection,
    shape: tuple[int, ...],
    name: str,
) -> NDArray[np.float64]:
    """Make the velocities, km/s, that a ``[model]`` or ``[initial]`` section describes.

    Parameters
    ----------
    section
        The section.
    grid
        Spacing and origin.
    shape
        Grid points along each axis.
    name
        Name of the section, for messages.

    Returns
    -------
    ndarray of shape ``shape``
    """
    origin = grid.origin or (0.0,) * len(shape)
    axes = [o + h * np.arange(n) for o, h, n in zip(origin, grid.spacing, shape, strict=True)]
    match section:
        case ConstantModel():
            values = np.full(shape, section.velocity)
        case LayersModel():
            layer = np.searchsorted(np.asarray(section.interfaces), axes[-1], side="right")
            values = np.broadcast_to(np.asarray(section.velocities)[layer], shape).copy()
        case CircleModel():
            values = _circle(section, axes, grid)
        case FileModel():
            values = _read_model(section, name)
            if values.shape != shape:
                raise InputError(
                    f"{name}.file: {section.file} gives a grid of {values.shape}, the grid is {shape}; "
                    f"{name}.decimate, {name}.shape and grid.shape must fit together"
                )
    check_velocities(values, name, str(section.file) if isinstance(section, FileModel) else None)
    return values


def _circle(section: CircleModel, axes: list[NDArray[np.float64]], grid: GridSection) -> NDArray[np.float64]:
    center = section.center or tuple(axis[0] + grid.spacing[i] * (len(axis) // 2) for i, axis in enumerate(axes))
    if len(center) != len(axes):
        raise InputError(f"model.center: has {len(center)} coordinates, the grid {len(axes)}")
    radius = section.radius or 15 * min(grid.spacing)
    squares = [((axis - c) ** 2) for axis, c in zip(axes, center, strict=True)]
    distance2 = sum(np.meshgrid(*squares, indexing="ij", sparse=True))
    return np.where(distance2 <= radius**2, section.inside, section.background)


def file_grid_shape(section: FileModel, name: str) -> tuple[int, ...]:
    """Shape of the grid that a model file gives, after decimation."""
    stored = section.shape
    if section.file.suffix == ".npy":
        stored = _open_npy(section.file, f"{name}.file").shape
    if stored is None:
        raise InputError(f"{name}.shape: is missing; raw binary ({section.file}) needs the samples along each axis")
    steps = _steps(section, len(stored), name)
    return tuple(-(-n // step) for n, step in zip(stored, steps, strict=True))


def _steps(section: FileModel, ndim: int, name: str) -> tuple[int, ...]:
    steps = section.decimate if isinstance(section.decimate, tuple) else (section.decimate,) * ndim
    if len(steps) != ndim:
        raise InputError(f"{name}.decimate: has {len(steps)} numbers, the file {ndim} axes")
    return steps


def _open_npy(path: Path, key: str) -> NDArray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{key}: {path}: no such file") from None
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, AttributeError) as error:
        raise InputError(f"{key}: {path}: is no readable .npy file ({error})") from None


def read_array(path: Path, key: str) -> NDArray:
    """Read a .npy file of real numbers or truth values; ``key`` is the configuration's, for messages."""
    array = np.asarray(_open_npy(path, key))
    if array.dtype.kind not in "fiub":
        raise InputError(f"{key}: {path}: holds {array.dtype}, not real numbers")
    return array


def _read_model(section: FileModel, name: str) -> NDArray[np.float64]:
    if section.file.suffix == ".npy":
        stored = read_array(section.file, f"{name}.file")
        if section.shape is not None and section.shape != stored.shape:
            raise InputError(f"{name}.shape: is {section.shape}, but {section.file} has shape {stored.shape}")
    else:
        stored = _read_raw(section, name)
    if not 2 <= stored.ndim <= 3:
        raise InputError(f"{name}.file: {section.file} has {stored.ndim} axes; a model has 2 or 3")
    steps = _steps(section, stored.ndim, name)
    values = np.array(stored[tuple(slice(None, None, step) for step in steps)], dtype=np.float64)
    if section.unit == "m/s":
        values /= 1000.0
    _refuse_unphysical(values, name, section.file)
    return values if section.clip is None else np.clip(values, *section.clip)


def _read_raw(section: FileModel, name: str) -> NDArray:
    if section.shape is None:
        raise InputError(f"{name}.shape: is missing; raw binary ({section.file}) needs the samples along each axis")
    dtype = np.dtype(section.dtype)
    expected = math.prod(section.shape) * dtype.itemsize
    try:
        size = section.file.stat().st_size
        if size != expected:
            raise InputError(
                f"{name}.shape: {section.shape} of {section.dtype} are {expected} bytes, "
                f"but {section.file} has {size} bytes"
            )
        return np.fromfile(section.file, dtype=dtype).reshape(section.shape)
    except FileNotFoundError:
        raise InputError(
            f"{name}.file: {section.file}: no such file; give its path with --set {name}.file=PATH"
        ) from None
    except OSError as error:
        raise InputError(f"{name}.file: {section.file}: cannot be read ({error.strerror})") from None


def _refuse_unphysical(values: NDArray, name: str, file: Path) -> None:
    """What clipping must not hide: broken values, and m/s taken for km/s."""
    broken = ~np.isfinite(values)
    if broken.any():
        where = tuple(int(i) for i in np.argwhere(broken)[0])
        raise InputError(
            f"{name}: {file} has {int(broken.sum())} values that are NaN or infinite, the first at {where}"
        )
    if values.min() <= 0:
        where = tuple(int(i) for i in np.unravel_index(int(values.argmin()), values.shape))
        raise InputError(f"{name}: {file} has a velocity of {values.min():g} km/s at {where}; velocities are positive")
    if np.median(values) > FASTEST:
        raise InputError(
            f"{name}: {file} has velocities of {values.min():g} to {values.max():g}, which looks like m/s; "
            f'km/s are expected, so set {name}.unit = "m/s"'
        )


def check_velocities(values: NDArray, name: str, file: str | None = None) -> None:
    """Raise unless all velocities can be those of a medium, in km/s."""
    source = f" ({file})" if file else ""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low <= 0:
        raise InputError(f"{name}: velocities must be positive numbers, not {low:g} to {high:g} km/s{source}")
    if high > FASTEST:
        hint = f", which looks like m/s: divide by 1000{f' or set {name}.unit = ' + chr(34) + 'm/s' + chr(34) if file else ''}"
        raise InputError(
            f"{name}: velocities of {low:g} to {high:g} km/s{source}{hint if high > 100 else ''}; "
            f"they should lie between {SLOWEST} and {FASTEST} km/s"
        )
    if low < SLOWEST:
        raise InputError(
            f"{name}: velocities of {low:g} to {high:g} km/s{source}; they should lie between {SLOWEST} and "
            f"{FASTEST} km/s"
        )


def smooth_model(velocity: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Smooth velocities by a Gaussian of ``sigma`` cells, mirrored at the edges."""
    return gaussian_filter(velocity, sigma, mode="reflect")


def read_mask(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Read the mask of frozen cells."""
    mask = read_array(path, "inversion.frozen.mask_file")
    if mask.shape != shape:
        raise InputError(f"inversion.frozen.mask_file: {path} has shape {mask.shape}, the grid {shape}")
    return mask.astype(bool)
