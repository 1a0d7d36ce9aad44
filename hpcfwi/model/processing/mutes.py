"""Mutes and windows: weights of samples by their time and by the offset of their trace.

An offset is the distance between source and receiver, m. Tapers are inside of what is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.operators import Step, Weights, ramp
from hpcfwi.model.processing.picks import Picks
from hpcfwi.model.survey import Shot, Survey, list_names


def offsets(shot: Shot) -> NDArray[np.float64]:
    """Distance of each receiver from the source, m."""
    distances: NDArray[np.float64] = np.linalg.norm(shot.receivers - shot.source, axis=1)
    return distances


@dataclass(frozen=True)
class Moveout:
    """A time for each offset: ``time + offset / velocity``."""

    velocity: float | None  # km/s; None: the same time at all offsets
    time: float  # ms, at offset 0

    def times(self, shot: Shot) -> NDArray[np.float64]:
        """Time of each trace, ms."""
        along = offsets(shot)
        return self.time + (np.zeros_like(along) if self.velocity is None else along / self.velocity)


@dataclass(frozen=True)
class _Mute(Step):
    """A mute at a time that depends on the offset."""

    curve: Moveout | Picks
    taper: float  # ms

    def check(self, key: str, axis: TimeAxis, survey: Survey, highest: float) -> tuple[str, ...]:  # noqa: ARG002
        """Raise InputError if a shot has no picks."""
        missing = self.curve.missing(shot.name for shot in survey.shots) if isinstance(self.curve, Picks) else []
        if missing:
            raise InputError(f"{key}.picks: has no picks of {len(missing)} shots: {list_names(missing)}")
        return ()


class TopMute(_Mute):
    """Remove what comes before a time that depends on the offset; amplitudes are complete ``taper`` ms after it."""

    kind = "top_mute"

    def build(self, shot: Shot, axis: TimeAxis) -> Weights:
        """Weights of the samples of a shot."""
        return Weights(ramp(axis.times[:, None] - self.curve.times(shot), self.taper))


class BottomMute(_Mute):
    """Remove what comes after a time that depends on the offset; amplitudes begin to fall ``taper`` ms before it."""

    kind = "bottom_mute"

    def build(self, shot: Shot, axis: TimeAxis) -> Weights:
        """Weights of the samples of a shot."""
        return Weights(ramp(self.curve.times(shot) - axis.times[:, None], self.taper))


@dataclass(frozen=True)
class OffsetWindow(Step):
    """Remove traces outside a range of offsets."""

    kind = "offset_window"
    minimum: float | None  # m
    maximum: float | None  # m
    taper: float  # m

    def build(self, shot: Shot, axis: TimeAxis) -> Weights:  # noqa: ARG002
        """Weights of the traces of a shot."""
        return Weights(_window(offsets(shot), self.minimum, self.maximum, self.taper)[None, :])


@dataclass(frozen=True)
class TimeWindow(Step):
    """Remove samples outside a range of times."""

    kind = "time_window"
    start: float | None  # ms
    end: float | None  # ms
    taper: float  # ms

    def build(self, shot: Shot, axis: TimeAxis) -> Weights:  # noqa: ARG002
        """Weights of the samples of every trace."""
        return Weights(_window(axis.times, self.start, self.end, self.taper)[:, None])


def _window(values: NDArray, first: float | None, last: float | None, taper: float) -> NDArray[np.float64]:
    weights = np.ones_like(values)
    if first is not None:
        weights = weights * ramp(values - first, taper)
    if last is not None:
        weights = weights * ramp(last - values, taper)
    return weights
