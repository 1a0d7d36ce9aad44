"""Velocity models: built-in ones and ones from files, their smoothing, and their conversion to squared slowness."""

import math
from decimal import Decimal
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.models import (
    CircleModel,
    ConstantModel,
    DomeModel,
    FileModel,
    GradientModel,
    LayersModel,
    Model,
)
from hpcfwi.config.quantities import MIN_VELOCITY_KM_S
from hpcfwi.errors import InputError
from hpcfwi.model.grid import EDGE_TOLERANCE, Domain
from hpcfwi.model.model_file import open_model_file
from hpcfwi.model.resampling import Axis
from hpcfwi.model.water import above_sea_floor, sea_floor

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
        case GradientModel():
            return _gradient(section, domain, axes[-1], name)
        case CircleModel():
            center = section.center or tuple(axis[len(axis) // 2] for axis in axes)
            if len(center) != len(axes):
                raise InputError(f"{name}.center: has {len(center)} coordinates, but the grid has {len(axes)} axes")
            radius = section.radius or 15 * min(domain.spacing)
            squares = [((axis - c) ** 2) for axis, c in zip(axes, center, strict=True)]
            distance2 = sum(np.meshgrid(*squares, indexing="ij", sparse=True))
            return np.where(distance2 <= radius**2, section.inside, section.background)
        case FileModel():
            return open_model_file(section, name, domain.spacing, domain.origin).read(domain)


def _gradient(section: GradientModel, domain: Domain, depth: NDArray, name: str) -> NDArray[np.float64]:
    """Velocities that grow with depth, below water."""
    grid = [Axis(n, h, o) for n, h, o in zip(domain.shape, domain.spacing, domain.origin, strict=True)]
    water, key = section.water, f"{name}.water.bathymetry"
    floor = domain.origin[-1] if water is None else sea_floor(water.bathymetry, grid, key)
    top = np.asarray(floor if section.top is None else section.top, dtype=np.float64)
    if section.gradient is not None:
        slope = np.asarray(section.gradient / 1000)
    else:
        assert section.bottom is not None
        assert section.bottom_velocity is not None
        if (section.bottom <= top).any():
            raise InputError(
                f"{name}.bottom: is {section.bottom:g} m; it should be below the top of the gradient, {top.max():g} m"
            )
        slope = (section.bottom_velocity - section.velocity) / (section.bottom - top)
    growing = section.velocity + slope[..., None] * (depth - top[..., None])
    velocity = np.broadcast_to(np.clip(growing, MIN_VELOCITY_KM_S, section.highest), domain.shape)
    return (
        velocity.copy()
        if water is None
        else np.where(above_sea_floor(water.bathymetry, grid, key), water.velocity, velocity)
    )


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
