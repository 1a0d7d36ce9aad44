"""Types of values in a run configuration, with their units and limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

# Wide enough for laboratory samples and planets; a value outside is a typing error or in the wrong unit.
MIN_VELOCITY_KM_S, MAX_VELOCITY_KM_S = 0.1, 15.0
# The square of a larger amplitude overflows single precision.
MAX_AMPLITUDE = 1e18
MAX_POSITIONS = 1_000_000
# Of a 2-D line from its section.
DEFAULT_MAX_DISTANCE_M = 100.0


def _not_empty(path: Path) -> Path:
    if path == Path() or "\0" in str(path):
        raise ValueError(f'is "{path}"; it should be the path of a file')
    return path


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] >= limits[1]:
        raise ValueError(f"the first velocity must be lower than the second, not {list(limits)}")
    return limits


Velocity = Annotated[float, Field(ge=MIN_VELOCITY_KM_S, le=MAX_VELOCITY_KM_S)]
VelocityRange = Annotated[tuple[Velocity, Velocity], AfterValidator(_ascending)]
Metres = Annotated[float, Field(ge=-1e8, le=1e8)]
Milliseconds = Annotated[float, Field(ge=1e-6, le=1e8)]
Count = Annotated[int, Field(ge=1, le=MAX_POSITIONS)]
Counts = Annotated[tuple[Count, ...], Field(min_length=2, max_length=3)]
Vector = Annotated[tuple[Metres, ...], Field(min_length=2, max_length=3)]
Spacing = Annotated[tuple[Annotated[float, Field(ge=1e-6, le=1e6)], ...], Field(min_length=2, max_length=3)]
GridShape = Annotated[tuple[Annotated[int, Field(ge=3, le=1_000_000)], ...], Field(min_length=2, max_length=3)]
FilePath = Annotated[Path, Field(strict=False), AfterValidator(_not_empty)]
FilePaths = Annotated[tuple[FilePath, ...], Field(min_length=1)]
