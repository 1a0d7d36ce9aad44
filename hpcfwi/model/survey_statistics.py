"""What a survey looks like in numbers: extents, intervals, offsets, fold, and the amplitudes and broken traces of its shots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.gathers import Recording
from hpcfwi.model.survey import Shot, Survey
from hpcfwi.model.traces import TracePolicy, find_broken

OFFSET_BINS, MAX_FOLD_CELLS = 10, 1_000_000
# Shots from which intervals between receivers are taken.
INTERVAL_SHOTS = 20
# A trace is clipped if so many consecutive samples have its largest absolute value.
CLIPPED_SAMPLES = 4
# Without data.traces.spikes, traces with larger spikes than this are counted.
SPIKES_COUNTED = 10.0


@dataclass(frozen=True, eq=False)
class Fold:
    """How many midpoints of sources and receivers lie in each cell of the horizontal plane."""

    counts: NDArray[np.int64]  # shape (cells along x,) or (cells along x, cells along y)
    origin: tuple[float, ...]  # m; corner of the first cell
    cell: float  # m; its size

    @property
    def largest(self) -> int:
        """Largest fold."""
        return int(self.counts.max())

    @property
    def median(self) -> float:
        """Median of the fold in the cells that have some."""
        return float(np.median(self.counts[self.counts > 0]))


@dataclass(frozen=True, eq=False)
class SurveyStatistics:
    """A survey in numbers; positions have the axes of its shots, the last one is depth, all in m.

    Parameters
    ----------
    traces
        Number of traces.
    per_shot
        Fewest and most traces of a shot.
    sources, receivers
        Lowest and highest position, shape (2, ndim).
    source_interval, receiver_interval
        Median distance between neighbours in the order of the data; None for a single position.
    offsets
        Smallest and largest horizontal distance of source and receiver.
    offset_edges, offset_counts
        Histogram of the offsets.
    fold
        Midpoints in each cell.
    """

    traces: int
    per_shot: tuple[int, int]
    sources: NDArray[np.float64]
    receivers: NDArray[np.float64]
    source_interval: float | None
    receiver_interval: float | None
    offsets: tuple[float, float]
    offset_edges: NDArray[np.float64]
    offset_counts: NDArray[np.int64]
    fold: Fold


def survey_statistics(survey: Survey) -> SurveyStatistics:
    """Describe a survey; its shots are visited twice."""
    positions, receivers, offsets = [], _Range(), _Range()
    gaps: list[NDArray] = []
    for number, (shot, distances) in enumerate(_offsets(survey)):
        positions.append(shot.source)
        receivers.add(shot.receivers)
        offsets.add(distances[:, None])
        if number < INTERVAL_SHOTS and len(shot.receivers) > 1:
            gaps.append(np.linalg.norm(np.diff(shot.receivers, axis=0), axis=1))
    sources = np.stack(positions)
    low, high = float(offsets.low[0]), float(offsets.high[0])
    edges = np.linspace(0.0, _round_up(high), OFFSET_BINS + 1)
    counts = np.zeros(OFFSET_BINS, dtype=np.int64)
    receiver_interval = _median(np.concatenate(gaps)) if gaps else None
    corner = np.minimum(sources.min(axis=0), receivers.low)[:-1]
    extent = np.maximum(sources.max(axis=0), receivers.high)[:-1] - corner
    cell = 0.5 * (receiver_interval or max(float(extent.max()), 1.0))
    varies = extent > cell  # a line along x has no cells across
    while np.prod(np.floor(extent[varies] / cell) + 1) > MAX_FOLD_CELLS:
        cell *= 2
    shape = tuple(int(n) + 1 if use else 1 for n, use in zip(extent // cell, varies, strict=True))
    fold = np.zeros(shape, dtype=np.int64)
    for shot, distances in _offsets(survey):
        counts += np.histogram(distances, edges)[0]
        middles = 0.5 * (shot.source + shot.receivers)[:, :-1] - corner
        cells = np.clip((middles // cell).astype(np.int64), 0, np.array(shape) - 1)
        np.add.at(fold, tuple(cells.T), 1)
    used = [axis for axis, n in enumerate(shape) if n > 1] or [0]
    squeezed = fold.reshape([shape[axis] for axis in used])
    sizes = survey.receiver_counts
    return SurveyStatistics(
        int(sizes.sum()),
        (int(sizes.min()), int(sizes.max())),
        np.stack([sources.min(axis=0), sources.max(axis=0)]),
        np.stack([receivers.low, receivers.high]),
        _median(np.linalg.norm(np.diff(sources, axis=0), axis=1)) if len(sources) > 1 else None,
        receiver_interval,
        (low, high),
        edges,
        counts,
        Fold(squeezed, tuple(float(corner[axis]) for axis in used), cell),
    )


class _Range:
    """Lowest and highest values of columns."""

    def __init__(self) -> None:
        self.low: NDArray[np.float64] = np.array([np.inf])
        self.high: NDArray[np.float64] = np.array([-np.inf])

    def add(self, rows: NDArray[np.float64]) -> None:
        self.low = np.minimum(self.low, rows.min(axis=0))
        self.high = np.maximum(self.high, rows.max(axis=0))


def _offsets(survey: Survey) -> Iterator[tuple[Shot, NDArray[np.float64]]]:
    """Shots and the horizontal distances of their receivers."""
    for shot in survey.shots:
        yield shot, np.sqrt(((shot.receivers - shot.source)[:, :-1] ** 2).sum(axis=1))


def _median(distances: NDArray[np.float64]) -> float | None:
    moved = distances[distances > 0]
    return float(np.median(moved)) if len(moved) else None


def _round_up(value: float) -> float:
    """The next number of two digits of which a tenth is easily read."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** np.floor(np.log10(value))
    return float(next(unit * step for step in (1, 2, 2.5, 4, 5, 6, 8, 10) if unit * step >= value * (1 - 1e-9)))


@dataclass(frozen=True, eq=False)
class GatherStatistics:
    """The amplitudes and broken traces of a shot.

    Parameters
    ----------
    name
        Of the shot.
    rms, peak
        Root of the mean square, and largest absolute value, of the traces that are not broken.
    frequency
        Of the largest mean amplitude spectrum, Hz.
    band
        Frequencies between which the mean amplitude spectrum is within 20 dB of its largest value, Hz.
    traces
        Number of traces.
    broken
        Numbers of broken traces by reason: "not finite", "dead", "duplicated", "spiky" and "clipped", from 0.
    """

    name: str
    rms: float
    peak: float
    frequency: float
    band: tuple[float, float]
    traces: int
    broken: dict[str, NDArray[np.int64]]


def gather_statistics(shot: Shot, stored: Recording, spikes: float | None = None) -> GatherStatistics:
    """Describe the recorded gather of a shot; traces with a sample ``spikes`` times as large as all around it are spiky."""
    values = stored.values
    samples, traces = values.shape
    policy = TracePolicy(spikes=spikes or SPIKES_COUNTED)
    whole = np.zeros(traces, np.int64), np.full(traces, samples)
    broken = find_broken(values, shot, policy, *whole, np.arange(1, traces + 1))
    unusable = np.zeros(traces, dtype=bool)
    for reason in ("not finite", "dead"):
        unusable[broken.get(reason, [])] = True
    used = values[:, ~unusable].astype(np.float64)
    if not used.size:
        return GatherStatistics(shot.name, 0.0, 0.0, 0.0, (0.0, 0.0), traces, broken)
    sizes = np.abs(used)
    at_peak = sizes == sizes.max(axis=0)
    if samples >= CLIPPED_SAMPLES:
        windows = np.lib.stride_tricks.sliding_window_view(at_peak, CLIPPED_SAMPLES, axis=0)
        clipped = np.flatnonzero(windows.all(axis=-1).any(axis=0))
        if len(clipped):
            broken["clipped"] = np.flatnonzero(~unusable)[clipped]
    spectrum = np.abs(np.fft.rfft(used, axis=0)).mean(axis=1)
    frequencies = np.fft.rfftfreq(samples, stored.interval / 1000)
    loud = frequencies[spectrum >= 0.1 * spectrum.max()]
    return GatherStatistics(
        shot.name,
        float(np.sqrt((used**2).mean())),
        float(sizes.max()),
        float(frequencies[np.argmax(spectrum)]),
        (float(loud[0]), float(loud[-1])),
        traces,
        broken,
    )
