"""What ``hpcfwi data info`` prints about a survey."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hpcfwi.io import format_ranges
from hpcfwi.model.coordinates import fit_line
from hpcfwi.model.field_survey import FieldSurvey
from hpcfwi.model.grid import AXIS_NAMES, EDGE_TOLERANCE, Domain
from hpcfwi.model.survey import Survey
from hpcfwi.model.survey_statistics import GatherStatistics, SurveyStatistics
from hpcfwi.reporting.formatting import counted

Row = tuple[str, str]
BAR = 24  # characters of the longest bar of a histogram
# Positions of a line that are this far beside it, as a share of its length, make it a 3-D survey.
LINE_SHARE = 0.02
GATHER_TITLES = ("shot", "traces", "rms", "peak", "dominant", "within 20 dB", "broken traces")


def file_rows(survey: FieldSurvey) -> Iterator[Row]:
    """The files, and what is contradictory in them."""
    files = survey.headers.files
    for file in files[:5]:
        size = file.path.stat().st_size
        yield (
            file.path.name,
            f"{file.description}, {counted(file.traces, 'trace')} of {file.samples} samples, {size / 1e6:.4g} MB",
        )
    if len(files) > 5:
        size = sum(file.path.stat().st_size for file in files)
        yield f"and {len(files) - 5} more", f"{counted(len(survey.headers), 'trace')}, {size / 1e6:.4g} MB in all"
    yield "shots", survey.note


def survey_rows(found: SurveyStatistics, sources: NDArray[np.float64]) -> Iterator[Row]:
    """Extents, intervals and fold of a survey, and how straight it is; ``sources`` are all their positions, m."""
    axes = AXIS_NAMES[found.sources.shape[1]]
    few, most = found.per_shot
    yield "traces", f"{found.traces}, {few if few == most else f'{few} to {most}'} a shot"
    for name, ends, interval in (
        ("sources", found.sources, found.source_interval),
        ("receivers", found.receivers, found.receiver_interval),
    ):
        extent = ", ".join(f"{axis} {_extent(low, high)}" for axis, low, high in zip(axes, *ends, strict=True))
        yield name, extent + (f"; {interval:.6g} m apart" if interval else "")
    if len(axes) == 3 and np.ptp(sources[:, 1]) > 0:  # else they lie along x
        line = fit_line(sources)
        distance = float(np.abs(line.distances(sources)).max())
        length = float(np.linalg.norm(np.ptp(sources[:, :2], axis=0)))
        if distance <= LINE_SHARE * length:
            yield "line", f"the sources lie within {distance:.3g} m of a straight line: {line.settings}"
    yield "offsets", _extent(*found.offsets)
    most_traces = max(1, int(found.offset_counts.max()))
    used = int(np.flatnonzero(found.offset_counts)[-1]) + 1 if found.offset_counts.any() else 0
    for low, high, count in zip(
        found.offset_edges[:used], found.offset_edges[1 : used + 1], found.offset_counts[:used], strict=True
    ):
        yield f"  {low:g} to {high:g} m", f"{'█' * round(BAR * count / most_traces)} {count}"
    fold = found.fold
    yield "fold", f"{fold.median:g} in the middle, {fold.largest} at most, in cells of {fold.cell:.4g} m"


def time_rows(survey: FieldSurvey, delays: tuple[float, float]) -> Iterator[Row]:
    """Samples and their interval, and the time of the first one, ms."""
    length = (survey.samples - 1) * survey.interval
    start = "" if delays == (0.0, 0.0) else f"; the first at {_extent(*delays, 'ms')} after the shot"
    yield (
        "time",
        f"{survey.samples} samples every {survey.interval:g} ms: {length:g} ms, up to {500 / survey.interval:g} Hz{start}",
    )


def model_rows(survey: Survey, domain: Domain) -> Iterator[Row]:
    """How a survey, in the coordinates of the model, lies in it, and why traces lie outside."""
    ends = zip(domain.axes, domain.origin, domain.last, strict=True)
    yield "model", ", ".join(f"{axis} {_extent(low, high)}" for axis, low, high in ends)
    sources, receivers = np.zeros((2, len(domain.axes)), np.int64), np.zeros((2, len(domain.axes)), np.int64)
    outside = traces = 0
    for shot in survey.shots:
        beyond, source_beyond = _beyond(shot.receivers, domain), _beyond(shot.source[None], domain)
        sources += source_beyond.sum(axis=1)
        receivers += beyond.sum(axis=1)
        traces += len(shot.receivers)
        outside += int((beyond | source_beyond).any(axis=(0, 2)).sum())
    if not outside:
        yield "", f"{counted(traces, 'trace')}, all inside"
        return
    yield "", f"{outside} of {counted(traces, 'trace')} outside:"
    for side, word, limits in ((0, "below", domain.origin), (1, "above", domain.last)):
        for axis, name in enumerate(domain.axes):
            counts = (sources[side, axis], "source"), (receivers[side, axis], "receiver")
            parts = [counted(int(count), noun) for count, noun in counts if count]
            if parts:
                yield "", f"  {name} {word} {limits[axis]:g} m: {' and '.join(parts)}"


def _beyond(positions: NDArray[np.float64], domain: Domain) -> NDArray[np.bool_]:
    """Which positions lie before the first and beyond the last grid point, shape (2, positions, axes)."""
    slack = EDGE_TOLERANCE * np.array(domain.spacing)
    return np.stack([positions < np.array(domain.origin) - slack, positions > np.array(domain.last) + slack])


def gather_rows(gathers: Sequence[GatherStatistics]) -> Iterator[tuple[str, ...]]:
    """A row for each sampled shot, under :data:`GATHER_TITLES`."""
    for found in gathers:
        broken = "; ".join(f"{reason}: {format_ranges(traces + 1)}" for reason, traces in found.broken.items())
        yield (
            found.name,
            str(found.traces),
            f"{found.rms:.4g}",
            f"{found.peak:.4g}",
            f"{found.frequency:.3g} Hz",
            f"{found.band[0]:.3g} to {found.band[1]:.3g} Hz",
            broken or "none",
        )


def _extent(low: float, high: float, unit: str = "m") -> str:
    return f"{low:.9g} {unit}" if low == high else f"{low:.9g} to {high:.9g} {unit}"
