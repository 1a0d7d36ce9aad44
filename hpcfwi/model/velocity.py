"""Velocity models: built-in ones and ones from files, and their conversion to squared slowness."""

import math
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.models import CircleModel, ConstantModel, DomeModel, FileModel, LayersModel, Model
from hpcfwi.config.quantities import MAX_VELOCITY_KM_S, MIN_VELOCITY_KM_S
from hpcfwi.errors import InputError
from hpcfwi.io import require_regular_file
from hpcfwi.model.grid import EDGE_TOLERANCE, Domain

# Relative error of a velocity that was saved in single precision.
FLOAT32_ROUNDING = float(np.finfo(np.float32).eps)

Numbers = TypeVar("Numbers", float, NDArray[np.float64])


def squared_slowness(velocity: Numbers) -> Numbers:
    """Convert velocity, km/s, to squared slowness ``m = 1 / v^2``, (s/km)^2."""
    return 1.0 / velocity**2


def velocity_from(m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert squared slowness, (s/km)^2, to velocity ``v = 1 / sqrt(m)``, km/s."""
    return np.asarray(1.0 / np.sqrt(m))


def build_model(section: Model, domain: Domain, name: str) -> NDArray[np.float64]:
    """Make the velocities, km/s, shape ``domain.shape``, that the section ``[name]`` describes.

    Raises InputError if a file cannot be read, does not fit the grid, or has impossible velocities.
    """
    shape = domain.shape
    axes = [o + h * np.arange(n) for o, h, n in zip(domain.origin, domain.spacing, shape, strict=True)]
    match section:
        case ConstantModel():
            return np.full(shape, section.velocity)
        case DomeModel():
            return _dome(section, domain, axes, name)
        case LayersModel():
            depth = axes[-1] + EDGE_TOLERANCE * domain.spacing[-1]
            layer = np.searchsorted(np.asarray(section.interfaces), depth, side="right")
            return np.broadcast_to(np.asarray(section.velocities)[layer], shape).copy()
        case CircleModel():
            center = section.center or tuple(axis[len(axis) // 2] for axis in axes)
            if len(center) != len(axes):
                raise InputError(f"{name}.center: has {len(center)} coordinates, but the grid has {len(axes)} axes")
            radius = section.radius or 15 * min(domain.spacing)
            squares = [((axis - c) ** 2) for axis, c in zip(axes, center, strict=True)]
            distance2 = sum(np.meshgrid(*squares, indexing="ij", sparse=True))
            return np.where(distance2 <= radius**2, section.inside, section.background)
        case FileModel():
            found = file_grid_shape(section, name)
            if found != shape:
                hint = "; it looks transposed: z is the last axis, and runs fastest" if found == shape[::-1] else ""
                raise InputError(
                    f"{name}.file: {section.file} gives a grid of {found} points, but the grid has {shape}{hint}; "
                    f"correct {name}.decimate, grid.shape or the other model"
                )
            return _read_model(section, name)


def _dome(section: DomeModel, domain: Domain, axes: list[NDArray], name: str) -> NDArray[np.float64]:
    """Layers, each point at the depth that it had before it was lifted and faulted."""
    *across, depth = np.meshgrid(*axes, indexing="ij", sparse=True)
    center = section.center or tuple(axis[len(axis) // 2] for axis in axes[:-1])
    if len(center) != len(across):
        raise InputError(f"{name}.center: has {len(center)} coordinates, but the grid has {len(across)} besides z")
    distance2 = sum((axis - c) ** 2 for axis, c in zip(across, center, strict=True))
    # no exponential function: its last bits depend on the processor
    before = depth + section.height / (1 + distance2 / section.radius**2) ** 2
    if section.fault is not None:
        plane = section.fault + (depth - domain.origin[-1]) / math.tan(math.radians(section.dip))
        before = before - np.where(across[0] > plane, section.throw, 0.0)
    layer = np.searchsorted(np.asarray(section.interfaces), before + EDGE_TOLERANCE * domain.spacing[-1], side="right")
    return np.asarray(section.velocities)[layer]


def file_grid_shape(section: FileModel, name: str) -> tuple[int, ...]:
    """Shape of the grid that a model file gives, after decimation."""
    key = f"{name}.file"
    stored = _open_npy(section.file, key, _advice(key)).shape if section.file.suffix == ".npy" else section.shape
    if stored is None:
        raise InputError(f"{name}.shape: is missing; raw binary ({section.file}) needs the samples along each axis")
    steps = _decimation(section, len(stored), name)
    return tuple(-(-n // step) for n, step in zip(stored, steps, strict=True))


def read_array(path: Path, key: str) -> NDArray:
    """Memory-map a .npy file of numbers or booleans; ``key`` is the configuration key, for messages."""
    array = np.asarray(_open_npy(path, key))
    if array.dtype.kind not in "fiub":
        raise InputError(f"{key}: {path}: holds {array.dtype}, not real numbers")
    return array


def read_mask(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Read the mask of frozen cells."""
    mask = read_array(path, "inversion.frozen.mask_file")
    if mask.shape != shape:
        raise InputError(f"inversion.frozen.mask_file: {path} has shape {mask.shape}, but the grid has {shape} points")
    return mask.astype(bool)


def smooth_model(velocity: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Smooth velocities by a Gaussian of ``sigma`` cells, mirrored at the edges.

    Like :func:`scipy.ndimage.gaussian_filter`, but with the same bytes on every processor: scipy computes its weights with
    numpy's exponential function, whose last bits differ with AVX-512.
    """
    from scipy.ndimage import correlate1d  # takes a quarter of a second, and only some models need it

    radius = int(4.0 * sigma + 0.5)
    half = [float((-((Decimal(k) / Decimal(sigma)) ** 2) / 2).exp()) for k in range(radius + 1)]
    weights = np.array([*half[:0:-1], *half])
    weights /= math.fsum(weights)
    smoothed = np.asarray(velocity, dtype=np.float64)
    for axis in range(smoothed.ndim):
        smoothed = correlate1d(smoothed, weights, axis, mode="reflect")
    return smoothed


def _decimation(section: FileModel, ndim: int, name: str) -> tuple[int, ...]:
    steps = section.decimate if isinstance(section.decimate, tuple) else (section.decimate,) * ndim
    if len(steps) != ndim:
        raise InputError(f"{name}.decimate: has {len(steps)} numbers, but {section.file} has {ndim} axes")
    return steps


def _open_npy(path: Path, key: str, advice: str = "") -> NDArray:
    try:
        with np.errstate(over="ignore"):  # in the size of a shape that is too large for any file
            return np.lib.format.open_memmap(require_regular_file(path), mode="r")
    except FileNotFoundError:
        raise InputError(f"{key}: {path}: no such file{advice}") from None
    except Exception as error:  # a broken header can make numpy raise anything
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"{key}: {path}: is not a readable .npy file ({reason})") from None


def _advice(key: str) -> str:
    return f"; give another path with --set {key}=PATH"


def _read_model(section: FileModel, name: str) -> NDArray[np.float64]:
    if section.file.suffix == ".npy":
        stored = read_array(section.file, f"{name}.file")
        if section.shape is not None and section.shape != stored.shape:
            raise InputError(f"{name}.shape: is {section.shape}, but {section.file} has shape {stored.shape}")
    else:
        stored = _open_raw(section, name)
    steps = _decimation(section, stored.ndim, name)
    values = np.array(stored[tuple(slice(None, None, step) for step in steps)], dtype=np.float64)
    if section.unit == "m/s":
        values /= 1000.0
    _check_stored(values, section, name)
    if section.clip is not None:
        values = np.clip(values, *section.clip)
    low, high = float(values.min()), float(values.max())
    if not (low * (1 + FLOAT32_ROUNDING) >= MIN_VELOCITY_KM_S and high <= MAX_VELOCITY_KM_S * (1 + FLOAT32_ROUNDING)):
        raise InputError(
            f"{name}.file: {section.file} has velocities of {low:g} to {high:g} km/s; they should lie between "
            f"{MIN_VELOCITY_KM_S:g} and {MAX_VELOCITY_KM_S:g} km/s: correct the file, or limit them with {name}.clip"
        )
    return values


def _open_raw(section: FileModel, name: str) -> NDArray:
    assert section.shape is not None  # file_grid_shape requires it
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
        raise InputError(f"{name}.file: {section.file}: no such file{_advice(f'{name}.file')}") from None
    except OSError as error:
        raise InputError(f"{name}.file: {section.file}: cannot be read ({error.strerror})") from None


def _check_stored(values: NDArray, section: FileModel, name: str) -> None:
    """Raise on NaN, infinite and negative values, and on the wrong unit, before clipping hides them."""
    where = f"{name}.file: {section.file} has"
    raw = "" if section.file.suffix == ".npy" else f"; if the file is correct, {name}.dtype is wrong"
    broken = ~np.isfinite(values)
    if broken.any():
        first = tuple(int(i) for i in np.argwhere(broken)[0])
        raise InputError(
            f"{where} values that are NaN or infinite ({int(broken.sum())} of {broken.size}), the first at grid point "
            f"{first}{raw}"
        )
    low, middle, high = float(values.min()), float(np.median(values)), float(values.max())
    if low <= 0:
        first = tuple(int(i) for i in np.unravel_index(int(values.argmin()), values.shape))
        raise InputError(f"{where} a velocity of {low:g} km/s at grid point {first}; velocities are positive{raw}")
    if middle > MAX_VELOCITY_KM_S and section.unit == "km/s":
        hint = f'which looks like m/s; if so, set {name}.unit = "m/s"'
    elif middle < MIN_VELOCITY_KM_S and section.unit == "m/s":
        hint = f'after division by 1000; if the file has km/s, set {name}.unit = "km/s"'
    else:
        return
    raise InputError(f"{where} velocities of {low:g} to {high:g} km/s, {hint}{raw}")
