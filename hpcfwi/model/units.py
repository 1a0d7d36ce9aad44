"""What the numbers in a model file mean: velocity, slowness or squared slowness, in m/s or km/s."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.models import UNITS
from hpcfwi.config.quantities import MAX_VELOCITY_KM_S, MIN_VELOCITY_KM_S

# km/s; the middle of a model of rock, sediments and water lies in this range.
USUAL = (1.0, 9.0)


def to_velocity(values: NDArray[np.float64], unit: str) -> NDArray[np.float64]:
    """Convert positive values in a unit of :data:`~hpcfwi.config.models.UNITS` to velocity, km/s."""
    match unit:
        case "m/s":
            return values / 1000.0
        case "s/km":
            return 1.0 / values
        case "s/m":
            return 1.0 / (1000.0 * values)
        case "s2/km2":
            return 1.0 / np.sqrt(values)
        case "s2/m2":
            return 1.0 / (1000.0 * np.sqrt(values))
    return values


def doubt(values: NDArray[np.float64], unit: str, certain: bool, key: str) -> str | None:
    """Why positive values are probably not in this unit, and what to do; None if they may well be.

    A value that is velocity in one unit may be slowness in another. So unless the unit is ``certain``, because the file or the
    configuration says it, unusually low velocities that would be usual ones in another unit are doubtful, too. ``key`` is the
    one to set. One value out of range is not a wrong unit: the median decides.
    """
    span = np.array([values.min(), np.median(values), values.max()])
    low, middle, high = to_velocity(span, unit)
    possible = MIN_VELOCITY_KM_S <= middle <= MAX_VELOCITY_KM_S
    if possible and (certain or USUAL[0] <= middle):
        return None
    found = [other for other in UNITS if other != unit and USUAL[0] <= to_velocity(span, other)[1] <= USUAL[1]]
    if possible and not found:
        return None
    seen = f"values from {span[0]:g} to {span[2]:g}, which are unlikely in {unit}"
    if not found:
        slow, fast = sorted((low, high))
        return f"{seen} ({slow:g} to {fast:g} km/s); correct {key}, or the file"
    ranges = {other: sorted(to_velocity(span[::2], other).tolist()) for other in found}
    # without outliers, all values make sense in the right unit
    whole = {name: (a, b) for name, (a, b) in ranges.items() if a >= MIN_VELOCITY_KM_S and b <= MAX_VELOCITY_KM_S}
    looks = " or ".join(f"{name} ({a:g} to {b:g} km/s)" for name, (a, b) in (whole or ranges).items())
    choices = " or ".join(f'"{name}"' for name in whole or ranges)
    otherwise = f'; if they are right, set {key} = "{unit}"' if possible else ""
    return f"{seen}; they look like {looks}: if so, set {key} = {choices}{otherwise}"
