"""A model in a file: its samples, read when they are needed, and what the file says about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# Share of a cell by which a sample may miss its place on a regular axis: files round coordinates.
PLACE_TOLERANCE = 1e-3
LENGTH_UNITS = {"m": 1.0, "meter": 1.0, "meters": 1.0, "metre": 1.0, "metres": 1.0, "km": 1000.0, "ft": 0.3048}
UNITS_OF_VELOCITY = ("km/s", "m/s", "s/km", "s/m", "s2/km2", "s2/m2")
SPELLINGS = {"ms-1": "m/s", "kms-1": "km/s", "(s/km)2": "s2/km2", "(s/m)2": "s2/m2"}
# Names of an axis in files, by the letter that it has here.
AXIS_WORDS = {
    "x": ("x", "easting", "distance", "lateral", "inline position"),
    "y": ("y", "northing", "crossline position"),
    "z": ("z", "depth"),
}


class FormatError(ValueError):
    """A file is malformed, or holds something else; the message goes on after the path of the file."""


class StoredArray(Protocol):
    """Samples in a file: a memory map or the like. ``np.asarray(array[slices])`` reads a part."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, key: Any) -> Any: ...


@dataclass(frozen=True)
class StoredModel:
    """A model in a file; what the file does not say is None.

    Parameters
    ----------
    values
        The samples, one array axis for each letter of ``axes``.
    axes
        Order of the array's axes, slowest first: ``"xz"``, ``"zyx"``, ...
    spacing, origin
        Distance of the samples along each array axis, and position of the first one, m. The spacing is negative where
        coordinates fall; z is the depth.
    unit
        Unit of the values: ``"km/s"``, ``"m/s"``, ``"s/km"``, ...
    """

    values: StoredArray
    axes: str | None = None
    spacing: tuple[float | None, ...] = ()
    origin: tuple[float | None, ...] = ()
    unit: str | None = None


def regular_axis(coordinates: NDArray, what: str) -> tuple[float, float]:
    """The first of equidistant coordinates, and their distance; raises FormatError if they are not equidistant."""
    values = np.asarray(coordinates, dtype=np.float64)
    rounding = np.finfo(coordinates.dtype).eps if coordinates.dtype.kind == "f" else 0.0
    if not np.isfinite(values).all():
        raise FormatError(f"has coordinates {what} that are NaN or infinite")
    first, step = float(values[0]), float(values[-1] - values[0]) / max(1, len(values) - 1)
    misses = np.abs(values - (first + step * np.arange(len(values))))
    worst = int(misses.argmax())
    if step == 0 or misses[worst] > PLACE_TOLERANCE * abs(step) + 4 * rounding * np.abs(values).max():
        raise FormatError(
            f"has coordinates {what} that are not equidistant: number {worst + 1} of {len(values)} is {values[worst]:.10g}, "
            f"but equal steps from {first:.10g} to {values[-1]:.10g} give {first + worst * step:.10g}; resample the model to a "
            "regular grid"
        )
    return first, step


def axis_letter(name: str) -> str | None:
    """The letter of an axis, by its name in a file."""
    word = name.strip().lower()
    return next((letter for letter, names in AXIS_WORDS.items() if word in names), None)


def axes_of(names: list[str]) -> str | None:
    """Order of axes with these names; None unless the names say it of every axis."""
    letters = "".join(axis_letter(name) or "?" for name in names)
    return letters if sorted(letters) in (["x", "z"], ["x", "y", "z"]) else None


def metres_per(unit: str) -> float:
    """Metres in a unit of length; 1 for one that is unknown or missing."""
    return LENGTH_UNITS.get(unit.strip().lower(), 1.0)


def velocity_unit(text: str) -> str | None:
    """The unit of velocity, slowness or squared slowness that a text names in one of the usual ways."""
    plain = text.lower().replace(" ", "").replace("**", "").replace("^", "").replace("sec", "s")
    plain = SPELLINGS.get(plain, plain)
    return plain if plain in UNITS_OF_VELOCITY else None
