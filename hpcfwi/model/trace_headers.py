"""The trace headers of a survey in SEG-Y or Seismic Unix files: scalars, units and elevations, as positions in metres."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.formats.segy import SegyFile
from hpcfwi.formats.segy_layout import Overrides, is_seismic_file, open_segy
from hpcfwi.formats.trace_headers import HeaderField, parse_field, read_columns, release

if TYPE_CHECKING:
    from hpcfwi.config.data import DataSection, HeadersSection

# Traces whose positions are computed at once.
CHUNK = 200_000
# Values of header fields after which mapped columns are released.
RELEASED_AFTER = 20_000_000
MAX_FILES = 10_000
# Numbers in headers of type float may be anything.
LARGEST_NUMBER = 1e12
METRES = {"m": 1.0, "ft": 0.3048, "us-ft": 1200 / 3937}
# Fields that no key names: what the standard has for them is right, or a key gives the number itself.
COORDINATE_SCALAR, ELEVATION_SCALAR, TIME_SCALAR, COORDINATE_UNITS, DELAY, OFFSET = 71, 69, 215, 89, 109, 37
SAMPLE_COUNT, SAMPLE_INTERVAL, FIELD_RECORD, TRACE_CODE = 115, 117, 9, 29
POSITION_ROLES = (
    "source_x", "source_y", "source_elevation", "source_depth",
    "receiver_x", "receiver_y", "receiver_elevation", "receiver_depth",
)  # fmt: skip
# CoordinateUnits: seconds of arc and degrees, with the largest longitude and latitude.
GEOGRAPHIC = {
    2: ("seconds of arc", 648_000.0, 324_000.0),
    3: ("degrees", 180.0, 90.0),
    4: ("degrees, minutes and seconds", 1_800_000.0, 900_000.0),
}


@dataclass(frozen=True, eq=False)
class TraceHeaders:
    """Header fields of all traces of some files; traces are numbered from 0 over all files."""

    files: tuple[SegyFile, ...]
    columns: tuple[dict[HeaderField, NDArray], ...]  # of each file
    roles: dict[str, HeaderField]  # fields by their keys in data.headers
    _taken: list[int] = dataclass_field(default_factory=lambda: [0])  # values since mapped columns were released

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Number of each file's first trace, and the number of all traces."""
        return np.cumsum([0, *(file.traces for file in self.files)])

    def __len__(self) -> int:
        return sum(file.traces for file in self.files)

    def take(self, field: HeaderField, traces: NDArray[np.integer]) -> NDArray:
        """Values of a field for traces, shape (traces,)."""
        out = np.empty(len(traces), field.type)
        if not len(traces):
            return out
        self._taken[0] += len(traces)
        if self._taken[0] > RELEASED_AFTER:
            self._taken[0] = 0
            for column in (column for columns in self.columns for column in columns.values()):
                release(column)
        starts = self.starts
        first, last = np.searchsorted(starts, [traces.min(), traces.max()], side="right") - 1
        if first == last:  # as for most shots and all chunks
            return self._in_file(first, field, traces - starts[first])
        owners = np.searchsorted(starts, traces, side="right") - 1
        for owner in np.unique(owners):
            own = owners == owner
            out[own] = self._in_file(owner, field, traces[own] - starts[owner])
        return out

    def _in_file(self, number: int, field: HeaderField, traces: NDArray[np.integer]) -> NDArray:
        column = self.columns[number][field]
        return np.broadcast_to(column[:1], len(traces)) if column.strides == (0,) else column[traces]

    def chunks(self) -> Iterator[NDArray[np.int64]]:
        """Numbers of all traces, some at a time, none of two files."""
        starts = self.starts
        for first, end in pairwise(starts.tolist()):
            for start in range(first, end, CHUNK):
                yield np.arange(start, min(start + CHUNK, end))

    def range(self, field: HeaderField) -> tuple[float, float]:
        """Smallest and largest value of a field."""
        ranges = [(values.min(), values.max()) for values in self._pieces(field)]
        return float(min(low for low, _ in ranges)), float(max(high for _, high in ranges))

    def _pieces(self, field: HeaderField) -> Iterator[NDArray]:
        for columns in self.columns:
            column = columns[field]
            if column.strides == (0,):
                yield column[:1]
                continue
            for start in range(0, len(column), CHUNK):
                yield column[start : start + CHUNK]

    def place(self, trace: int) -> str:
        """File and number of a trace, for messages."""
        starts = self.starts
        owner = int(np.searchsorted(starts, trace, side="right")) - 1
        return f"{self.files[owner].path.name}, trace {trace - int(starts[owner]) + 1}"


@cache
def standard_field(byte: int) -> HeaderField:
    """The standard's field that begins at a byte."""
    return parse_field(byte, "")


def find_files(paths: Iterable[Path], key: str = "data.file") -> tuple[Path, ...]:
    """Resolve patterns; the files that match one come in the order of the numbers in their names.

    Raises InputError if a pattern matches nothing, or a file is named twice.
    """
    found: list[Path] = []
    for path in paths:
        if path.exists() or not any(letter in path.name for letter in "*?["):
            found.append(path)
            continue
        try:
            matches = [match for match in path.parent.glob(path.name) if is_seismic_file(match)]
        except (ValueError, OSError) as error:
            raise InputError(f"{key}: {path} is not a pattern of file names ({error})") from None
        if not matches:
            raise InputError(f"{key}: no file matches {path}")
        found.extend(sorted(matches, key=lambda match: _by_numbers(match.name)))
    if len(found) > MAX_FILES:
        raise InputError(f"{key}: {len(found)} files; at most {MAX_FILES} are possible")
    path, times = Counter(map(_resolved, found)).most_common(1)[0]
    if times > 1:
        raise InputError(f"{key}: {path} is there {times} times; name each file once")
    return tuple(found)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a link to itself
        return path


def _by_numbers(name: str) -> list[tuple[bool, int, str]]:
    """A key to sort names so that line9 comes before line10."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"([0-9]+)", name)]


def read_headers(data: DataSection, extra: Sequence[HeaderField] = ()) -> TraceHeaders:
    """Read the headers of all traces that ``[data]`` names, with some ``extra`` fields.

    Raises InputError if a file cannot be read or is malformed, or a field does not exist.
    """
    section = data.headers
    roles = {}
    for role in (*POSITION_ROLES, "shot"):
        name = getattr(section, role)
        if name is not None:
            roles[role] = parse_field(name, f"data.headers.{role}")
    standard = (
        COORDINATE_SCALAR, ELEVATION_SCALAR, TIME_SCALAR, COORDINATE_UNITS, DELAY, OFFSET,
        SAMPLE_COUNT, SAMPLE_INTERVAL, FIELD_RECORD, TRACE_CODE,
    )  # fmt: skip
    fields = [*roles.values(), *map(standard_field, standard), *extra]
    overrides = Overrides(section.samples, section.byte_order, section.sample_format)
    files = tuple(open_segy(path, overrides) for path in find_files(data.files))
    return TraceHeaders(files, tuple(read_columns(file, fields) for file in files), roles)


@dataclass(frozen=True, eq=False)
class Positions:
    """Positions of sources and receivers from headers, in m, as the survey has them: x, y, and z below the datum."""

    headers: TraceHeaders
    section: HeadersSection
    to_metres: tuple[float, ...]  # of each file

    @classmethod
    def of(cls, headers: TraceHeaders, section: HeadersSection) -> Positions:
        """Choose the units of the files."""
        units = [section.unit or file.unit or "m" for file in headers.files]
        return cls(headers, section, tuple(METRES[unit] for unit in units))

    def sources(self, traces: NDArray[np.integer]) -> NDArray[np.float64]:
        """Positions of the sources of traces, shape (traces, 3)."""
        return self._positions("source", traces)

    def receivers(self, traces: NDArray[np.integer]) -> NDArray[np.float64]:
        """Positions of the receivers of traces, shape (traces, 3)."""
        return self._positions("receiver", traces)

    def delays(self, traces: NDArray[np.integer]) -> NDArray[np.float64]:
        """Time of the first sample of traces after their shots, ms."""
        if self.section.delay is not None:
            return np.full(len(traces), self.section.delay)
        return self._scaled(standard_field(DELAY), TIME_SCALAR, None, traces)

    def _positions(self, what: str, traces: NDArray[np.integer]) -> NDArray[np.float64]:
        section, out = self.section, np.zeros((len(traces), 3))
        for axis, name in enumerate("xy"):
            field = self.headers.roles[f"{what}_{name}"]
            out[:, axis] = self._scaled(field, COORDINATE_SCALAR, section.coordinate_scalar, traces)
        upwards = -1.0 if section.elevations == "up" else 1.0
        for name, sign in (("elevation", upwards), ("depth", 1.0)):
            found = self.headers.roles.get(f"{what}_{name}")
            if found is not None:
                out[:, 2] += sign * self._scaled(found, ELEVATION_SCALAR, section.elevation_scalar, traces)
        out *= self.metres(traces)[:, None]
        out[:, 2] += section.datum
        out += 0.0  # no negative zeros
        return out

    def metres(self, traces: NDArray[np.integer]) -> NDArray[np.float64]:
        """Metres in the unit of lengths of traces, shape (traces,)."""
        owners = np.searchsorted(self.headers.starts, traces, side="right") - 1
        return np.asarray(self.to_metres)[owners]

    def _scaled(
        self, field: HeaderField, scalar: int, given: float | None, traces: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """Values of a field times its scalar: a positive one multiplies, a negative one divides, and 0 is 1."""
        values = self.headers.take(field, traces).astype(np.float64)
        if given is not None:
            return values * given
        factor = self.headers.take(standard_field(scalar), traces).astype(np.float64)
        divided = values / np.where(factor < 0, -factor, 1.0)  # 123 / 100 is 1.23, but 123 * 0.01 is not
        return np.where(factor < 0, divided, values * np.where(factor > 0, factor, 1.0))


def check_headers(positions: Positions) -> tuple[str, ...]:
    """Check what the headers say about coordinates, and tell what they contradict.

    Raises InputError if they hold no coordinates, or geographic ones.
    """
    headers = positions.headers
    names = ("source_x", "source_y", "receiver_x", "receiver_y")
    ranges = {name: headers.range(field) for name, field in headers.roles.items()}
    fields = [str(headers.roles[name]) for name in names]
    where = f"data.file: {headers.files[0].path}{' and others' if len(headers.files) > 1 else ''}"
    for name, pair in ranges.items():
        if not all(abs(value) <= LARGEST_NUMBER for value in pair):
            raise InputError(
                f"{where}: {headers.roles[name]} holds numbers that are NaN, infinite or larger than {LARGEST_NUMBER:g}; is it "
                f"another field, or of another type? (data.headers.{name})"
            )
    if all(ranges[name] == (0.0, 0.0) for name in names):
        raise InputError(
            f"{where}: {', '.join(fields)} are 0 in all {len(headers)} traces: the headers hold no positions. Name the fields "
            "that do with data.headers.source_x and the keys beside it"
        )
    for end in ("source", "receiver"):
        if all(ranges[f"{end}_{axis}"] == (0.0, 0.0) for axis in "xy"):
            raise InputError(
                f"{where}: {headers.roles[f'{end}_x']} and {headers.roles[f'{end}_y']} are 0 in all {len(headers)} traces: the "
                f"headers hold no positions of {end}s. Name the fields that do: data.headers.{end}_x and data.headers.{end}_y"
            )
    notes = [f"{file.path.name}: {note}" for file in headers.files for note in file.notes]
    return (*notes, *_unit_notes(positions, ranges, where))


def _unit_notes(positions: Positions, ranges: dict[str, tuple[float, float]], where: str) -> tuple[str, ...]:
    """What CoordinateUnits says, if it is not lengths; raises InputError if the coordinates may be geographic."""
    headers, section = positions.headers, positions.section
    high = headers.range(standard_field(COORDINATE_UNITS))[1]
    if section.unit is not None or high < 2:
        return ()
    unit = int(high)
    name, longest, widest = GEOGRAPHIC.get(unit, (f"unit {unit}", 0.0, 0.0))
    factor = section.coordinate_scalar
    if factor is None:
        stored = float(headers.take(standard_field(COORDINATE_SCALAR), np.zeros(1, dtype=np.int64))[0])
        factor = -1 / stored if stored < 0 else stored or 1.0
    x = max(abs(value) for end in ("source", "receiver") for value in ranges[f"{end}_x"]) * factor
    y = max(abs(value) for end in ("source", "receiver") for value in ranges[f"{end}_y"]) * factor
    seen = f"CoordinateUnits (byte 89) is {unit} ({name}), x goes up to {x:.9g} and y to {y:.9g}"
    if unit in GEOGRAPHIC and 0 < x <= longest and 0 < y <= widest:
        raise InputError(
            f"{where}: {seen}: these are longitude and latitude. Project them to metres first (UTM, for instance) and write "
            'them to the headers; if they are lengths, set data.headers.unit = "m"'
        )
    taken = next((unit for unit, metres in METRES.items() if metres == positions.to_metres[0]), "m")
    return (f"{seen}; they are taken as lengths in {taken} (data.headers.unit)",)


def time_sampling(headers: TraceHeaders, data: DataSection) -> tuple[float, int, tuple[str, ...]]:
    """Sample interval, ms, number of samples of the shortest file, and what is contradictory.

    The interval is ``data.sample_interval``; else that of the trace headers, if they agree; else that of the binary header.
    Raises InputError if there is none, or several.
    """
    notes: list[str] = []
    in_traces = headers.range(standard_field(SAMPLE_INTERVAL))
    in_files = sorted({file.interval_us for file in headers.files} - {0.0})
    samples = min(file.samples for file in headers.files)
    if len({file.samples for file in headers.files}) > 1:
        longest = max(headers.files, key=lambda file: file.samples)
        notes.append(
            f"{longest.path.name} has {longest.samples} samples a trace; {samples}, as in the shortest file, are used"
        )
    low, high = headers.range(standard_field(SAMPLE_COUNT))
    if low != high:
        notes.append(
            f"the trace headers count from {low:g} to {high:g} samples a trace; all are read as {samples}, as the sizes of the "
            "files say"
        )
    said = f"sample interval: the trace headers say {_microseconds(in_traces)}, the binary header {_microseconds(in_files)}"
    if data.sample_interval is not None:
        asked = 1000 * data.sample_interval
        if any(value and not math.isclose(value, asked, rel_tol=1e-9) for value in (*in_traces, *in_files)):
            notes.append(f"{said}; {data.sample_interval:g} ms are used (data.sample_interval)")
        return data.sample_interval, samples, tuple(notes)
    if in_traces[0] == in_traces[1] > 0 and [int(value) for value in in_files] == [in_traces[0]]:
        chosen = in_files[0]  # which has fractions of a microsecond in rev 2
    elif in_traces[0] == in_traces[1] > 0:
        chosen = in_traces[0]
        if any(value != chosen for value in in_files):
            notes.append(f"{said}; {chosen / 1000:g} ms are used. Set data.sample_interval if that is wrong")
    elif len(in_files) == 1:
        chosen = in_files[0]
        if in_traces[1] > 0:
            notes.append(f"{said}; {chosen / 1000:g} ms are used. Set data.sample_interval if that is wrong")
    else:
        several = "; traces of several intervals cannot be read together" if in_traces[1] > 0 else ""
        raise InputError(
            f"data.file: {headers.files[0].path}: {said}{several}. If the headers are wrong, set data.sample_interval, ms"
        )
    return chosen / 1000, samples, tuple(notes)


def _microseconds(values: Sequence[float]) -> str:
    known = sorted(set(values))
    if not known or known == [0.0]:
        return "nothing"
    return f"{known[0]:g} µs" if len(known) == 1 else f"{known[0]:g} to {known[-1]:g} µs"
