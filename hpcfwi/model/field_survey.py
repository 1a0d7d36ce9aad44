"""The survey of SEG-Y and Seismic Unix files: traces grouped into shots, and moved to the coordinates of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.formats.trace_headers import HeaderField
from hpcfwi.model.survey import problem_of_name
from hpcfwi.model.trace_headers import (
    FIELD_RECORD,
    OFFSET,
    TRACE_CODE,
    Positions,
    TraceHeaders,
    check_headers,
    read_headers,
    standard_field,
    time_sampling,
)

if TYPE_CHECKING:
    from hpcfwi.config.data import DataSection

MAX_SHOTS = 1_000_000
# Sources of one shot may differ by this much, m: coordinates are rounded.
SOURCE_TOLERANCE_M = 1.0
# A shot whose receivers come again with this share is there twice.
REPEATED_SHARE = 0.5
# Weights of y and z in sums that tell positions apart.
SQRT_2, SQRT_3 = 2**0.5, 3**0.5
# Distances of sources and receivers are compared with the offsets in headers if so many traces have one.
MIN_OFFSETS, MAX_OFFSETS = 10, 20_000


@dataclass(frozen=True, eq=False)
class FieldShots:
    """The traces of each shot as runs of consecutive traces; shots are in the order in which they appear in the files."""

    names: tuple[str, ...]
    first: NDArray[np.int64]  # number of each run's first trace, shot by shot
    count: NDArray[np.int64]  # traces of each run
    bounds: NDArray[np.int64]  # where each shot's runs begin, and the end

    def __len__(self) -> int:
        return len(self.names)

    def runs(self, shot: int) -> list[tuple[int, int]]:
        """First trace and number of traces of each run of a shot."""
        own = slice(self.bounds[shot], self.bounds[shot + 1])
        return list(zip(self.first[own].tolist(), self.count[own].tolist(), strict=True))

    def traces(self, shot: int) -> NDArray[np.int64]:
        """Numbers of a shot's traces."""
        return np.concatenate([np.arange(first, first + count) for first, count in self.runs(shot)])

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Number of traces of each shot."""
        return np.add.reduceat(self.count, self.bounds[:-1])


@dataclass(frozen=True, eq=False)
class FieldSurvey:
    """Recorded shots as the headers describe them, in the survey's coordinates."""

    headers: TraceHeaders
    positions: Positions
    shots: FieldShots
    sources: NDArray[np.float64]  # position of each shot, shape (shots, 3), m: x, y, z below the datum
    interval: float  # ms
    samples: int
    contradictions: tuple[str, ...]  # of headers and file, and what was done about them
    note: str  # how traces were grouped


def read_field_survey(data: DataSection, extra: tuple[HeaderField, ...] = ()) -> FieldSurvey:
    """Read headers, group the traces into shots, and check what the headers say.

    Parameters
    ----------
    data
        ``[data]``, whose ``file`` names SEG-Y or Seismic Unix files.
    extra
        More header fields to read.

    Raises
    ------
    InputError
        If files cannot be read, hold no positions, or contradict themselves: a shot with several sources, a shot that is there
        twice, distances that are a power of ten off the offsets in the headers.
    """
    headers = read_headers(data, extra)
    positions = Positions.of(headers, data.headers)
    contradictions = check_headers(positions)
    interval, samples, timing = time_sampling(headers, data)
    shots, sources, note, doubts = _group(positions)
    _check_offsets(positions)
    told = (*contradictions, *timing, *doubts)
    return FieldSurvey(headers, positions, shots, sources, interval, samples, told, note)


def _group(positions: Positions) -> tuple[FieldShots, NDArray[np.float64], str, tuple[str, ...]]:
    """Group traces by the header that names the shot, or by the source position; returns shots, sources, how, and doubts."""
    headers = positions.headers
    by_name = headers.roles.get("shot")
    record = standard_field(FIELD_RECORD)
    label = by_name or record
    firsts, counts, labels, sources = [], [], [], []
    for chunk in headers.chunks():
        source, found = positions.sources(chunk), headers.take(label, chunk)
        changed = (source[1:] != source[:-1]).any(axis=1) | (found[1:] != found[:-1])
        starts = np.concatenate([[0], np.flatnonzero(changed) + 1])
        firsts.append(chunk[starts])
        counts.append(np.diff([*starts, len(chunk)]))
        labels.append(found[starts])
        sources.append(source[starts])
    first, count = np.concatenate(firsts), np.concatenate(counts)
    label_of, source_of = np.concatenate(labels), np.concatenate(sources)
    # a name for each position, and a position for each name?
    place_of = _identify(source_of)
    name_of = _identify(label_of[:, None])
    pairs = len(np.unique(np.stack([place_of, name_of], axis=1), axis=0))
    one_to_one = pairs == place_of.max() + 1 == name_of.max() + 1
    if by_name is not None:
        shot_of = name_of
        note = f"{int(shot_of.max()) + 1} shots, grouped by {by_name}"
    else:
        shot_of = place_of
        named = f"named by {record}" if one_to_one else "numbered from 0"
        note = f"{int(shot_of.max()) + 1} shots, grouped by the position of the source and {named}"
    if shot_of.max() >= MAX_SHOTS:
        raise InputError(
            f"data.file: {note}; at most {MAX_SHOTS} are possible. Is that the right field? (data.headers.shot, source_x)"
        )
    doubts = () if by_name is not None or one_to_one else _doubts(name_of, place_of, source_of, record)
    order = np.argsort(shot_of, kind="stable")  # shot by shot; within a shot, in the order of the files
    runs = np.bincount(shot_of)
    bounds = np.concatenate([[0], np.cumsum(runs)])
    own = order[bounds[:-1]]  # the first run of each shot
    named_by_field = by_name is not None or one_to_one
    names = tuple(map(_text, label_of[own])) if named_by_field else tuple(map(str, range(len(own))))
    for name in names:
        problem = problem_of_name(name)
        if problem:
            raise InputError(f"data.headers.shot: the shot name {name!r} ({label}) {problem}")
    _check_sources(headers, by_name, names, shot_of, source_of, first, one_to_one)
    shots = FieldShots(names, first[order], count[order], bounds)
    return shots, source_of[own], note, doubts


def _doubts(
    name_of: NDArray, place_of: NDArray, source_of: NDArray[np.float64], record: HeaderField
) -> tuple[str, ...]:
    """Tell if sources of the same record are at several positions, but so near that they may be one."""
    records, places = int(name_of.max()) + 1, int(place_of.max()) + 1
    largest = float(_spreads(name_of, source_of).max())
    if records >= places or largest > SOURCE_TOLERANCE_M:
        return ()
    return (
        f"the sources of each {record} differ by up to {largest:.3g} m, which makes {places} shots of {records}; set "
        'data.headers.shot = "FieldRecord" if these are the shots',
    )


def _spreads(group_of: NDArray, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the positions of each group extend along one axis."""
    groups = int(group_of.max()) + 1
    low, high = np.full((groups, 3), np.inf), np.full((groups, 3), -np.inf)
    np.minimum.at(low, group_of, points)
    np.maximum.at(high, group_of, points)
    return np.asarray((high - low).max(axis=1))


def _identify(rows: NDArray) -> NDArray[np.int64]:
    """Number distinct rows from 0 in the order in which they first appear."""
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[inverse.reshape(-1)]


def _text(value: np.generic) -> str:
    """A number, with as many digits as it takes to tell it from any other one."""
    return str(value).removesuffix(".0")


def _check_sources(
    headers: TraceHeaders,
    by_name: HeaderField | None,
    names: tuple[str, ...],
    shot_of: NDArray,
    source_of: NDArray,
    first: NDArray,
    one_to_one: bool,
) -> None:
    """Raise InputError if traces that a header puts into one shot have several sources."""
    if by_name is None or one_to_one:
        return
    spread = _spreads(shot_of, source_of)
    worst = int(np.argmax(spread))
    if spread[worst] <= SOURCE_TOLERANCE_M:
        return
    own = np.flatnonzero(shot_of == worst)
    other = own[np.argmax(np.abs(source_of[own] - source_of[own[0]]).max(axis=1))]
    places = len(np.unique(source_of[own], axis=0))
    constant = f"{by_name} is {names[0]} in all {len(headers)} traces, whose sources are" if len(names) == 1 else (
        f"the traces of shot {names[worst]} ({by_name}) have sources"
    )  # fmt: skip
    raise InputError(
        f"data.headers.shot: {constant} at {places} positions: {_point(source_of[own[0]])} in "
        f"{headers.place(int(first[own[0]]))}, {_point(source_of[other])} in {headers.place(int(first[other]))}. Name another "
        "field, or take data.headers.shot out to group traces by the position of the source"
    )


def check_repeated(survey: FieldSurvey, killed: Mapping[str, NDArray[np.bool_]]) -> None:
    """Raise InputError if a shot is there twice: its receivers come again elsewhere in the files.

    ``killed`` are by shot the traces that are not looked at.
    """
    headers, shots = survey.headers, survey.shots
    for shot in map(int, np.flatnonzero(shots.sizes > 1)):
        traces, name = shots.traces(shot), shots.names[shot]
        if name in killed:
            traces = traces[~killed[name]]
        receivers = survey.positions.receivers(traces)
        x, y, z = receivers.T
        if len(np.unique(x + SQRT_2 * y + SQRT_3 * z)) == len(traces):
            continue  # a quick test: all positions differ
        _, first, inverse = np.unique(receivers, axis=0, return_index=True, return_inverse=True)
        again = np.flatnonzero(first[inverse.reshape(-1)] != np.arange(len(traces)))
        if len(again) < REPEATED_SHARE * len(first):
            continue
        pair = traces[[int(first[inverse.reshape(-1)][again[0]]), int(again[0])]]
        raise InputError(
            f"data.file: shot {name} is there twice: {len(again)} of its {len(first)} receivers come again, the first in "
            f"{headers.place(int(pair[0]))} and in {headers.place(int(pair[1]))}; {_advice_on_repeated(headers, pair)}"
        )


def _advice_on_repeated(headers: TraceHeaders, pair: NDArray[np.int64]) -> str:
    """What to do about two traces of one shot with the same receiver."""
    records, codes = (headers.take(standard_field(byte), pair) for byte in (FIELD_RECORD, TRACE_CODE))
    if codes[0] != codes[1]:
        return (
            "they are different components, of which one is used: --set "
            f"'data.traces.kill=[\"TraceIdentificationCode != {codes[0]}\"]' or {codes[1]}"
        )
    if records[0] != records[1] and "shot" not in headers.roles:
        return 'if these are different shots at one place, set data.headers.shot = "FieldRecord"'
    return "remove one of the files"


def _check_offsets(positions: Positions) -> None:
    """Compare the distances of sources and receivers with the offsets in the headers, which have no scalar."""
    headers = positions.headers
    field = standard_field(OFFSET)
    if headers.range(field) == (0.0, 0.0) or positions.section.coordinate_scalar is not None:
        return
    traces = np.unique(np.linspace(0, len(headers) - 1, MAX_OFFSETS).astype(np.int64))
    offsets = np.abs(headers.take(field, traces).astype(np.float64))
    across = (positions.sources(traces) - positions.receivers(traces))[:, :2]
    distances = np.hypot(*across.T) / positions.metres(traces)
    used = (offsets > 0) & (distances > 0)
    if used.sum() < MIN_OFFSETS:
        return
    ratio = float(np.median(distances[used] / offsets[used]))
    power = round(float(np.log10(ratio)))
    if power == 0 or abs(ratio / 10.0**power - 1) > 0.1:
        return
    scalar = headers.take(standard_field(71), traces[:1])[0]
    applied = 1.0 if scalar == 0 else -1 / scalar if scalar < 0 else float(scalar)
    raise InputError(
        f"data.headers.coordinate_scalar: with SourceGroupScalar = {scalar}, distances of sources and receivers are "
        f"{ratio:.3g} times the offsets in the headers (bytes 37 to 40), for example {distances[used][0]:.6g} and "
        f"{offsets[used][0]:.6g}. Set data.headers.coordinate_scalar = {applied / 10.0**power:g}, or {applied:g} if the "
        "coordinates are right"
    )


def _point(position: NDArray) -> str:
    return f"({', '.join(f'{value:.9g}' for value in position)}) m"
