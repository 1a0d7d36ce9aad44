"""Velocity models: built-in ones, and ones from files."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.run import (
    MAX_VELOCITY_KM_S,
    MIN_VELOCITY_KM_S,
    CircleModel,
    ConstantModel,
    FileModel,
    GridSection,
    LayersModel,
)
from hpcfwi.errors import InputError
from hpcfwi.io import require_regular_file

__all__ = [
    "build_model",
    "check_velocities",
    "file_grid_shape",
    "read_array",
    "read_mask",
    "smooth_model",
    "squared_slowness",
    "velocity_from",
]

Numbers = TypeVar("Numbers", float, NDArray[np.float64])


def squared_slowness(velocity: Numbers) -> Numbers:
    """Convert velocity, km/s, to squared slowness ``m = 1 / v^2``, (s/km)^2."""
    return 1.0 / velocity**2


def velocity_from(m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert squared slowness, (s/km)^2, to velocity ``v = 1 / sqrt(m)``, km/s."""
    return np.asarray(1.0 / np.sqrt(m))


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
    axes: list[NDArray] = [o + h * np.arange(n) for o, h, n in zip(origin, grid.spacing, shape, strict=True)]
    match section:
        case ConstantModel():
            values = np.full(shape, section.velocity)
        case LayersModel():
            layer = np.searchsorted(np.asarray(section.interfaces), axes[-1], side="right")
            values = np.broadcast_to(np.asarray(section.velocities)[layer], shape).copy()
        case CircleModel():
            values = _circle(section, axes, grid, name)
        case FileModel():
            found = file_grid_shape(section, name)
            if found != shape:
                hint = "; it looks transposed: z is the last axis, and runs fastest" if found == shape[::-1] else ""
                raise InputError(
                    f"{name}.file: {section.file} gives a grid of {found} points, but the grid has {shape}{hint}; "
                    f"{name}.decimate, grid.shape and the other model must fit to it"
                )
            values = _read_model(section, name)
    check_velocities(values, name, str(section.file) if isinstance(section, FileModel) else None)
    return values


def _circle(section: CircleModel, axes: list[NDArray], grid: GridSection, name: str) -> NDArray[np.float64]:
    center = section.center or tuple(axis[len(axis) // 2] for axis in axes)
    if len(center) != len(axes):
        raise InputError(f"{name}.center: has {len(center)} coordinates, but the grid has {len(axes)} axes")
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
        raise InputError(f"{name}.decimate: has {len(steps)} numbers, but {section.file} has {ndim} axes")
    return steps


def _open_npy(path: Path, key: str) -> NDArray:
    try:
        with np.errstate(over="ignore"):  # in the size of a shape that is too large for any file
            return np.lib.format.open_memmap(require_regular_file(path), mode="r")
    except FileNotFoundError:
        raise _missing(path, key) from None
    except Exception as error:  # a broken header can make numpy stumble over anything
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"{key}: {path}: is no readable .npy file ({reason})") from None


def _missing(path: Path, key: str) -> InputError:
    return InputError(f"{key}: {path}: no such file; its path can be given with --set {key}=PATH")


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
    _refuse_unphysical(values, section, name)
    return values if section.clip is None else np.clip(values, *section.clip)


def _read_raw(section: FileModel, name: str) -> NDArray:
    assert section.shape is not None  # file_grid_shape has seen to it
    dtype = np.dtype(section.dtype)
    expected = math.prod(section.shape) * dtype.itemsize
    try:
        size = section.file.stat().st_size
        if size != expected:
            raise InputError(
                f"{name}.shape: {section.shape} samples of {section.dtype} are {expected} bytes, but {section.file} has "
                f"{size} bytes; {name}.shape and {name}.dtype must be those of the file"
            )
        return np.memmap(section.file, dtype=dtype, mode="r", shape=section.shape)
    except FileNotFoundError:
        raise _missing(section.file, f"{name}.file") from None
    except OSError as error:
        raise InputError(f"{name}.file: {section.file}: cannot be read ({error.strerror})") from None


def _refuse_unphysical(values: NDArray, section: FileModel, name: str) -> None:
    """What clipping must not hide: broken values, and m/s taken for km/s."""
    raw = "" if section.file.suffix == ".npy" else f"; if that is not in the file, {name}.dtype is wrong"
    broken = ~np.isfinite(values)
    if broken.any():
        where = tuple(int(i) for i in np.argwhere(broken)[0])
        raise InputError(
            f"{name}.file: {section.file} has values that are NaN or infinite ({int(broken.sum())} of {broken.size}), the "
            f"first at grid point {where}{raw}"
        )
    low, middle, high = float(values.min()), float(np.median(values)), float(values.max())
    if low <= 0:
        where = tuple(int(i) for i in np.unravel_index(int(values.argmin()), values.shape))
        raise InputError(
            f"{name}.file: {section.file} has a velocity of {low:g} km/s at grid point {where}; velocities are "
            f"positive{raw}"
        )
    told = f"{name}.file: {section.file} has velocities of {low:g} to {high:g} km/s"
    if middle > MAX_VELOCITY_KM_S and section.unit == "km/s":
        raise InputError(f'{told}, which looks like m/s; if it is, set {name}.unit = "m/s"{raw}')
    if middle < MIN_VELOCITY_KM_S and section.unit == "m/s":
        raise InputError(f'{told} after division by 1000; if they are km/s already, set {name}.unit = "km/s"{raw}')


def check_velocities(values: NDArray, name: str, file: str | None = None) -> None:
    """Raise unless all velocities can be those of a medium, in km/s."""
    low, high = float(values.min()), float(values.max())
    slack = 1e-9 * MAX_VELOCITY_KM_S
    if not (MIN_VELOCITY_KM_S - slack <= low and high <= MAX_VELOCITY_KM_S + slack):
        source = f" ({file})" if file else ""
        raise InputError(
            f"{name}: velocities of {low:g} to {high:g} km/s{source}; they should lie between {MIN_VELOCITY_KM_S:g} and "
            f"{MAX_VELOCITY_KM_S:g} km/s"
        )


def smooth_model(velocity: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Smooth velocities by a Gaussian of ``sigma`` cells, mirrored at the edges.

    That is :func:`scipy.ndimage.gaussian_filter`, with the same bytes on every processor: numpy's exponential function, of
    which the weights are made there, has other last bits on one with AVX-512.
    """
    from scipy.ndimage import correlate1d  # takes a quarter of a second, and only some models need it

    weights = _gaussian(sigma)
    smoothed = np.asarray(velocity, dtype=np.float64)
    for axis in range(smoothed.ndim):
        smoothed = correlate1d(smoothed, weights, axis, mode="reflect")
    return smoothed


def _gaussian(sigma: float) -> NDArray[np.float64]:
    """Weights out to four sigma, as scipy has them; their exponentials are rounded from more digits."""
    radius = int(4.0 * sigma + 0.5)
    half = [float((-((Decimal(k) / Decimal(sigma)) ** 2) / 2).exp()) for k in range(radius + 1)]
    values = np.array([*half[:0:-1], *half])
    return values / math.fsum(values)


def read_mask(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Read the mask of frozen cells."""
    mask = read_array(path, "inversion.frozen.mask_file")
    if mask.shape != shape:
        raise InputError(f"inversion.frozen.mask_file: {path} has shape {mask.shape}, but the grid has {shape} points")
    return mask.astype(bool)
