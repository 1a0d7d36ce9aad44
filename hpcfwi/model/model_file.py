"""Velocity models from files: what the configuration and the file say of them, and their values on the grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import psutil
from numpy.typing import NDArray

from hpcfwi.config.models import UNITS, FileModel
from hpcfwi.config.quantities import MAX_VELOCITY_KM_S, MIN_VELOCITY_KM_S
from hpcfwi.errors import InputError
from hpcfwi.formats.netcdf import open_netcdf
from hpcfwi.formats.rsf import open_rsf
from hpcfwi.formats.segy_model import open_segy_model
from hpcfwi.formats.stored_model import PLACE_TOLERANCE, FormatError, StoredArray, StoredModel
from hpcfwi.io import shortened
from hpcfwi.model.arrays import open_npy
from hpcfwi.model.grid import AXIS_NAMES, Domain
from hpcfwi.model.resampling import Axis, covers, needed_samples, resample, shared_points
from hpcfwi.model.survey import Survey
from hpcfwi.model.units import doubt, to_velocity
from hpcfwi.model.water import above_sea_floor

if TYPE_CHECKING:
    from hpcfwi.config.run import RunConfig

# Relative error of a velocity that was saved in single precision.
FLOAT32_ROUNDING = float(np.finfo(np.float32).eps)
SUFFIXES = {
    ".npy": "npy",
    ".segy": "segy",
    ".sgy": "segy",
    ".nc": "netcdf",
    ".netcdf": "netcdf",
    ".h5": "netcdf",
    ".hdf5": "netcdf",
    ".rsf": "rsf",
}
FORMAT_NAMES = {"segy": "SEG-Y", "netcdf": "NetCDF or HDF5", "rsf": "RSF"}
# Float64 arrays of the samples in memory while they are converted and resampled.
SAMPLE_ARRAYS = 4
# km/s; velocities of water, and how much they differ at one depth.
WATER, WATER_VARIATION = (1.4, 1.6), 0.01


@dataclass(frozen=True)
class ModelFile:
    """A model file, opened; its axes are x, (y,) z, ascending, whatever their order in the file."""

    section: FileModel
    name: str  # of the section: "model" or "initial"
    stored: StoredModel
    order: str  # of the axes in the file
    samples: tuple[Axis, ...]  # after decimation
    steps: tuple[int, ...]  # of decimation
    spacing: tuple[float, ...]  # of the grid, m
    origin: tuple[float, ...]  # of the grid, m
    located: tuple[bool, ...]  # whether samples have a place of their own along an axis; else they are on the grid

    @property
    def where(self) -> str:
        """Key and path, for messages."""
        return f"{self.name}.file: {self.section.file}"

    def check_origin(self) -> None:
        """Raise InputError if the grid begins outside of the file."""
        axes = zip(AXIS_NAMES[len(self.samples)], self.samples, self.located, self.spacing, self.origin, strict=True)
        for letter, samples, located, h, o in axes:
            if located and not covers(samples, Axis(1, h, o)):
                first = [float(f"{axis.origin:.10g}") for axis in self.samples]
                raise InputError(
                    f"{self.where} covers {letter} from {samples.extent}, but the grid begins at {o:.10g} m; "
                    f"set grid.origin = {first}, or, if the file's coordinates are wrong, {self.name}.origin"
                )

    def grid_shape(self) -> tuple[int, ...]:
        """Points of the grid that reaches to the last sample."""
        return tuple(
            max(0, math.floor((axis.last - o) / h + PLACE_TOLERANCE) + 1) if located else axis.count
            for axis, located, h, o in zip(self.samples, self.located, self.spacing, self.origin, strict=True)
        )

    def read(self, domain: Domain) -> NDArray[np.float64]:
        """Velocities on the grid, km/s; those of the file, to the last bit, where it has samples on all points of the grid."""
        grid = tuple(Axis(n, h, o) for n, h, o in zip(domain.shape, domain.spacing, domain.origin, strict=True))
        self._check_extent(domain, grid)
        shared = [shared_points(samples, axis) for samples, axis in zip(self.samples, grid, strict=True)]
        if None not in shared:
            return self._velocity(cast(list[slice], shared))
        parts = [needed_samples(samples, axis) for samples, axis in zip(self.samples, grid, strict=True)]
        return self._fill_water(resample(self._velocity(parts), self._axes(parts), grid), grid)

    def transposed(self) -> ModelFile:
        """The file with its axes in reverse order."""
        section = self.section.model_copy(update={"axes": self.order[::-1]})
        return open_model_file(section, self.name, self.spacing, self.origin)

    def _fits(self, grid: tuple[Axis, ...]) -> list[bool]:
        """Along which axes the samples cover the grid, or, without a place of their own, are as many as its points."""
        axes = zip(self.samples, grid, self.located, strict=True)
        return [covers(samples, axis) if located else samples.count == axis.count for samples, axis, located in axes]

    def _check_extent(self, domain: Domain, grid: tuple[Axis, ...]) -> None:
        fits = self._fits(grid)
        if all(fits):
            return
        reverse, i = self.transposed(), fits.index(False)
        hint = f'; it looks transposed: set {self.name}.axes = "{reverse.order}"' if all(reverse._fits(grid)) else ""
        samples, axis = self.samples[i], grid[i]
        if not self.located[i]:
            counts = tuple(axis.count for axis in self.samples)
            raise InputError(
                f"{self.where} gives a grid of {counts} points, but the grid has {domain.shape}{hint}; set {self.name}.spacing "
                f"if its samples are elsewhere, or correct {self.name}.decimate, grid.shape or the other model"
            )
        raise InputError(
            f"{self.where} covers {domain.axes[i]} from {samples.extent} ({samples.count} samples, {samples.spacing:.10g} m "
            f"apart), but the grid goes from {axis.extent}{hint}; correct grid.origin or grid.shape, or, if the file's "
            f"coordinates are wrong, set {self.name}.origin and {self.name}.spacing"
        )

    def _velocity(self, parts: list[slice]) -> NDArray[np.float64]:
        """Velocities of the samples in a part of the file, km/s."""
        values, axes = self._stored_values(parts), self._axes(parts)
        unit, certain = self._unit()
        raw = f"; if the file is correct, {self.name}.dtype is wrong" if _format(self.section) == "raw" else ""
        water = self._is_water(axes)
        if water.all():
            raise InputError(
                f"{self.name}.water.bathymetry: lies below the whole model of {self.section.file}; z points down, in m"
            )
        broken = ~np.isfinite(values) & ~water
        if broken.any():
            raise InputError(
                f"{self.where} has values that are NaN or infinite ({int(broken.sum())} of {broken.size}), the first at "
                f"{self._place(parts, broken)}{raw}"
            )
        # files often have zero, or no value, in the water
        values = np.where(water, values[~water].max(), values)
        if values.min() <= 0:
            raise InputError(
                f"{self.where} has a {UNITS[unit]} of {values.min():g} {unit} at {self._place(parts, values == values.min())}; "
                f"it should be positive{raw}"
            )
        doubtful = doubt(values[~water], unit, certain, f"{self.name}.unit")
        if doubtful:
            raise InputError(f"{self.where} has {doubtful}{raw}")
        velocity = to_velocity(values, unit)
        if self.section.clip is not None:
            velocity = np.clip(velocity, *self.section.clip)
        low, high = float(velocity.min()), float(velocity.max())
        if low * (1 + FLOAT32_ROUNDING) < MIN_VELOCITY_KM_S or high > MAX_VELOCITY_KM_S * (1 + FLOAT32_ROUNDING):
            raise InputError(
                f"{self.where} has velocities of {low:g} to {high:g} km/s; they should lie between {MIN_VELOCITY_KM_S:g} and "
                f"{MAX_VELOCITY_KM_S:g} km/s: correct the file, or limit them with {self.name}.clip"
            )
        if self.section.axes is None and self.stored.axes is None:
            self._check_order(velocity)
        return self._fill_water(velocity, axes)

    def _axes(self, parts: list[slice]) -> tuple[Axis, ...]:
        return tuple(axis.part(part.start, part.stop) for axis, part in zip(self.samples, parts, strict=True))

    def _is_water(self, axes: tuple[Axis, ...]) -> NDArray[np.bool_]:
        """Which points lie above the sea floor."""
        if self.section.water is None:
            return np.zeros([axis.count for axis in axes], dtype=bool)
        return above_sea_floor(self.section.water.bathymetry, axes, f"{self.name}.water.bathymetry")

    def _fill_water(self, velocity: NDArray[np.float64], axes: tuple[Axis, ...]) -> NDArray[np.float64]:
        if self.section.water is None:
            return velocity
        return np.where(self._is_water(axes), self.section.water.velocity, velocity)

    def _check_order(self, velocity: NDArray[np.float64]) -> None:
        """Refuse water along one side, from top to bottom, where the top is not water: the axes are in another order."""
        side, top = velocity[0], velocity[..., 0]
        if _like_water(side) and not _like_water(top):
            raise InputError(
                f"{self.where} looks transposed: its first samples along x, at all depths, are water ({side.min():g} to "
                f'{side.max():g} km/s), and its top is not; set {self.name}.axes = "{self.order[::-1]}", or "{self.order}" if '
                "the model is right as it is"
            )

    def _stored_values(self, parts: list[slice]) -> NDArray[np.float64]:
        """The samples in a part of the file, as x, (y,) z."""
        names = AXIS_NAMES[len(parts)]
        needed = SAMPLE_ARRAYS * 8 * math.prod(part.stop - part.start for part in parts)
        installed = psutil.virtual_memory().total
        if needed > installed:
            raise InputError(
                f"{self.where} has {math.prod(p.stop - p.start for p in parts):.3g} samples in the grid, for which "
                f"{needed / 1e9:.3g} GB of memory are needed, but this machine has {installed / 1e9:.3g} GB; set "
                f"{self.name}.decimate"
            )
        slices = {}
        for letter, part, step in zip(names, parts, self.steps, strict=True):
            axis = self.order.index(letter)
            first, last = part.start * step, (part.stop - 1) * step
            if _descends(self.stored, axis):
                end = self.stored.values.shape[axis] - 1
                slices[letter] = slice(end - first, end - last - 1 if end > last else None, -step)
            else:
                slices[letter] = slice(first, last + 1, step)
        try:
            values = np.asarray(self.stored.values[tuple(slices[letter] for letter in self.order)])
        except Exception as error:  # a damaged file can make its library raise anything
            raise InputError(f"{self.where}: cannot be read ({_reason(error)})") from None
        return np.array(values.transpose([self.order.index(letter) for letter in names]), dtype=np.float64, order="C")

    def _unit(self) -> tuple[str, bool]:
        """The unit of the values, and whether file or configuration say it."""
        quantity, unit = self.section.quantity, self.section.unit or self.stored.unit
        if unit and (quantity is None or UNITS[unit] == quantity):
            return unit, True
        return next(unit for unit, of in UNITS.items() if of == (quantity or "velocity")), quantity is not None

    def _place(self, parts: list[slice], mask: NDArray[np.bool_]) -> str:
        """The first sample of a mask, counted as in the file, in words."""
        first = np.unravel_index(int(mask.argmax()), mask.shape)
        place = tuple(int((part.start + i) * step) for part, i, step in zip(parts, first, self.steps, strict=True))
        return f"sample {place} along {', '.join(AXIS_NAMES[len(parts)])}"


def open_model_file(
    section: FileModel, name: str, spacing: tuple[float, ...], origin: tuple[float, ...] | None
) -> ModelFile:
    """Open the file of the section ``[name]``; spacing and origin, m, are those of the grid.

    Raises InputError if it cannot be opened, or contradicts the configuration.
    """
    if section.variable is not None and _format(section) != "netcdf":
        raise InputError(
            f"{name}.variable: goes with NetCDF and HDF5, but {section.file} is read as {_format(section)}; take it out, or "
            f'set {name}.format = "netcdf"'
        )
    stored = _open(section, name)
    where, shape = f"{name}.file: {section.file}", stored.values.shape
    if stored.values.dtype.kind not in "fiub":
        raise InputError(f"{where}: holds {stored.values.dtype}, not real numbers")
    if len(shape) != len(spacing):
        raise InputError(f"{where} has {len(shape)} axes, but grid.spacing has {len(spacing)}")
    if section.shape is not None and section.shape != shape:
        raise InputError(f"{name}.shape: is {section.shape}, but {section.file} has shape {shape}")
    if 0 in shape:
        raise InputError(f"{where} has the shape {shape}, without any sample")
    letters = AXIS_NAMES[len(shape)]
    order = section.axes or stored.axes or "".join(letters)
    if len(order) != len(shape):
        raise InputError(f'{name}.axes: is "{order}", but {section.file} has {len(shape)} axes')
    steps = section.decimate if isinstance(section.decimate, tuple) else (section.decimate,) * len(shape)
    if len(steps) != len(shape):
        raise InputError(f"{name}.decimate: has {len(steps)} numbers, but {section.file} has {len(shape)} axes")
    samples, located, grid_origin = [], [], origin or (0.0,) * len(shape)
    for i, letter in enumerate(letters):
        axis = order.index(letter)
        step, first = (stored.spacing[axis], stored.origin[axis]) if stored.spacing else (None, None)
        count = shape[axis]
        if step is not None and step < 0:
            first, step = None if first is None else first + (count - 1) * step, -step
        step, first = section.spacing[i] if section.spacing else step, section.origin[i] if section.origin else first
        located.append(step is not None or first is not None)
        distance = spacing[i] if step is None else step * steps[i]
        samples.append(Axis(-(-count // steps[i]), distance, grid_origin[i] if first is None else first))
    return ModelFile(section, name, stored, order, tuple(samples), steps, spacing, grid_origin, tuple(located))


def model_files(config: RunConfig) -> list[tuple[str, FileModel]]:
    """The sections of models from files, with their names."""
    sections = (("model", config.model), ("initial", config.initial))
    return [(name, section) for name, section in sections if isinstance(section, FileModel)]


def check_axes(files: Sequence[tuple[str, FileModel]], survey: Survey, domain: Domain) -> None:
    """Raise InputError if the survey lies outside of the grid that a model file gives, but inside with its axes reversed.

    ``files`` are the sections with their names.
    """
    positions = np.concatenate(
        [
            np.stack([shot.source for shot in survey.shots]),
            *survey.spreads(),
        ]
    )
    outside = int((~domain.contains(positions)).sum())
    if not outside:
        return
    for name, section in files:
        file = open_model_file(section, name, domain.spacing, domain.origin)
        reverse = file.transposed()
        if replace(domain, shape=reverse.grid_shape()).contains(positions).all():
            raise InputError(
                f'{file.where} looks transposed: with the axes "{file.order}" {outside} sources and receivers are outside of '
                f'its grid of {domain.shape} points, with the axes reversed all are inside; set {name}.axes = "{reverse.order}"'
            )


def _open(section: FileModel, name: str) -> StoredModel:
    path, kind = section.file, _format(section)
    key = f"{name}.file"
    advice = f"; give another path with --set {key}=PATH"
    try:
        match kind:
            case "npy":
                return StoredModel(open_npy(path, key, advice))
            case "segy":
                return open_segy_model(path)
            case "netcdf":
                return open_netcdf(path, section.variable)
            case "rsf":
                return open_rsf(path)
        return StoredModel(_open_raw(section, name))
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{key}: {path}: no such file{advice}") from None
    except FormatError as error:
        raise InputError(f"{key}: {path}: {error}") from None
    except Exception as error:  # a damaged file can make its library raise anything
        what = f"is not a readable {FORMAT_NAMES[kind]} file" if kind in FORMAT_NAMES else "cannot be read"
        raise InputError(f"{key}: {path}: {what} ({_reason(error)})") from None


def _open_raw(section: FileModel, name: str) -> StoredArray:
    if section.shape is None:
        raise InputError(f"{name}.shape: is missing; raw binary ({section.file}) needs the samples along each axis")
    dtype = np.dtype(section.dtype)
    expected, size = math.prod(section.shape) * dtype.itemsize, section.file.stat().st_size
    if size != expected:
        raise InputError(
            f"{name}.shape: {section.shape} samples of {section.dtype} are {expected} bytes, but {section.file} has "
            f"{size} bytes; {name}.shape and {name}.dtype must be those of the file"
        )
    return np.memmap(section.file, dtype=dtype, mode="r", shape=section.shape)


def _format(section: FileModel) -> str:
    return section.format or SUFFIXES.get(section.file.suffix.lower(), "raw")


def _descends(stored: StoredModel, axis: int) -> bool:
    """Whether coordinates fall along an axis of the file."""
    step = stored.spacing[axis] if stored.spacing else None
    return step is not None and step < 0


def _like_water(values: NDArray[np.float64]) -> bool:
    low, high = values.min(), values.max()
    return bool(WATER[0] <= low and high <= WATER[1] and high - low <= WATER_VARIATION)


def _reason(error: Exception) -> str:
    return shortened(str(getattr(error, "strerror", None) or error).partition("\n")[0] or type(error).__name__)
