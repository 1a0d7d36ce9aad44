"""The survey: shots with their sources and receivers, from lines, grids and CSV files."""

from __future__ import annotations

import csv
import hashlib
import math
import unicodedata
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, overload
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.io import quoted, require_regular_file, shortened

if TYPE_CHECKING:
    from hpcfwi.config.run import Positions  # workers import this module without pydantic

MAX_NAME_LENGTH = 100
# File systems allow 255 bytes; the rest is for suffixes and temporary names.
MAX_FILE_NAME_LENGTH = 200


@dataclass(frozen=True, eq=False)
class Shot:
    """One source and its receivers."""

    name: str  # the user's, unique in the survey
    source: NDArray[np.float64]  # position, shape (ndim,), m
    receivers: NDArray[np.float64]  # positions, shape (n, ndim), m

    @property
    def file_name(self) -> str:
        """The name as a file name without suffix, unique in the survey.

        Letters, digits, ``-``, ``_``, ``.`` and ``~`` stay; other characters, and a dot or hyphen at the start, are percent-
        encoded as in a URL: ``A/1`` becomes ``A%2F1``.
        """
        encoded = quote(self.name, safe="")
        if encoded[0] in ".-":
            encoded = f"%{ord(encoded[0]):02X}{encoded[1:]}"
        if len(encoded) > MAX_FILE_NAME_LENGTH:
            # no percent-encoded name has "%-" in it, so this one is unique, too
            digest = hashlib.blake2b(self.name.encode(), digest_size=8).hexdigest()
            encoded = f"{encoded[: MAX_FILE_NAME_LENGTH - 18]}%-{digest}"
        return encoded


class LazyShots(Sequence[Shot]):
    """Shots that are made when they are asked for, so that a large survey takes little memory."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the shots."""

    @property
    @abstractmethod
    def receiver_counts(self) -> NDArray[np.int64]:
        """Number of receivers of each shot."""

    @abstractmethod
    def select(self, shots: Sequence[int]) -> LazyShots:
        """Some of the shots, by their numbers from 0."""

    @abstractmethod
    def keep(self, receivers: Mapping[str, NDArray[np.bool_]]) -> LazyShots:
        """The shots, of which some keep only some of their receivers."""

    @overload
    def __getitem__(self, index: int) -> Shot: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Shot]: ...

    def __getitem__(self, index: int | slice) -> Shot | Sequence[Shot]:
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        number = range(len(self))[index]  # raises IndexError
        return self.make(number)

    @abstractmethod
    def make(self, number: int) -> Shot:
        """Make a shot."""


@dataclass(frozen=True, eq=False)
class Survey:
    """Shots in survey order."""

    shots: tuple[Shot, ...] | LazyShots

    def __len__(self) -> int:
        return len(self.shots)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the shots."""
        return self.shots.names if isinstance(self.shots, LazyShots) else tuple(shot.name for shot in self.shots)

    @cached_property
    def receiver_counts(self) -> NDArray[np.int64]:
        """Number of receivers of each shot."""
        if isinstance(self.shots, LazyShots):
            return self.shots.receiver_counts
        return np.array([len(shot.receivers) for shot in self.shots], dtype=np.int64)

    def spreads(self) -> Iterator[NDArray[np.float64]]:
        """Positions of the receivers of each shot; those that shots share only once."""
        last = None
        for shot in self.shots:
            if shot.receivers is not last:
                yield shot.receivers
            last = shot.receivers

    def keep(self, receivers: Mapping[str, NDArray[np.bool_]]) -> Survey:
        """Return the survey in which the named shots keep only some receivers: masks of shape (receivers,)."""
        if not receivers:
            return self
        if isinstance(self.shots, LazyShots):
            return Survey(self.shots.keep(receivers))
        kept = (
            Shot(shot.name, shot.source, shot.receivers[receivers[shot.name]]) if shot.name in receivers else shot
            for shot in self.shots
        )
        return Survey(tuple(kept))

    def without(self, names: Collection[str]) -> Survey:
        """Return the survey without the named shots; raises InputError for unknown names, or if no shot would remain."""
        known, excluded = self.names, set(names)
        if not excluded:
            return self
        unknown = sorted(excluded.difference(known))
        if unknown:
            raise InputError(f"data.exclude: there is no shot {unknown[0]!r}; the shots are {list_names(known)}")
        if known and excluded.issuperset(known):
            raise InputError("data.exclude: leaves no shot of the survey; keep at least one")
        return self.select([number for number, name in enumerate(known) if name not in excluded])

    def select(self, numbers: Sequence[int]) -> Survey:
        """Return the survey of some shots, by their places from 0."""
        if isinstance(self.shots, LazyShots):
            return Survey(self.shots.select(numbers))
        return Survey(tuple(self.shots[number] for number in numbers))


def list_names(names: Sequence[str]) -> str:
    """Join names for a message; of many, the first five and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 6 else ""
    return ", ".join(names[: 5 if more else 6]) + more


def build_survey(sources: Positions, receivers: Positions, axes: tuple[str, ...]) -> Survey:
    """Make the survey that ``[acquisition]`` describes; ``axes`` are the names of the grid's axes.

    Raises InputError if a CSV file cannot be read, or its shots do not match the sources.
    """
    names, positions = _named_sources(sources, axes)
    table = Table(receivers.file, "acquisition.receivers.file") if receivers.file else None
    spread = table.positions(axes) if table else _lattice(receivers)
    if table is None or "shot" not in table.header:
        return Survey(tuple(Shot(name, source, spread) for name, source in zip(names, positions, strict=True)))
    rows = table.rows_of_shots
    unknown = sorted(set(rows) - set(names))
    if unknown:
        raise InputError(
            f"{table.line(rows[unknown[0]][0])}: has a receiver of shot {unknown[0]!r}, but the survey has no such shot; "
            f"its {len(names)} shots are {list_names(names)}"
        )
    missing = [name for name in names if name not in rows]
    if missing:
        more = f" (nor of {len(missing) - 1} more shots)" if len(missing) > 1 else ""
        raise InputError(f"{table.where}: has no receivers of shot {missing[0]!r}{more}")
    return Survey(tuple(Shot(name, source, spread[rows[name]]) for name, source in zip(names, positions, strict=True)))


def move_down(survey: Survey, depth: float) -> tuple[Survey, tuple[str, ...]]:
    """Move sources and receivers above ``depth``, m, down to it; returns the survey, and a warning if any were moved."""
    sources: list[str] = []
    with_receivers: list[str] = []
    moved: dict[int, tuple[NDArray[np.float64], bool]] = {}  # by the array, which many shots may share
    shots = []
    for shot in survey.shots:
        if id(shot.receivers) not in moved:
            above = shot.receivers[:, -1] < depth
            moved[id(shot.receivers)] = (_at_least(shot.receivers, depth), bool(above.any()))
        receivers, any_above = moved[id(shot.receivers)]
        if any_above:
            with_receivers.append(shot.name)
        if shot.source[-1] < depth:
            sources.append(shot.name)
        shots.append(Shot(shot.name, _at_least(shot.source, depth), receivers))
    return Survey(tuple(shots)), moved_down_warning(depth, sources, with_receivers)


def moved_down_warning(depth: float, sources: Sequence[str], with_receivers: Sequence[str]) -> tuple[str, ...]:
    """A warning that names the shots whose source, or some of whose receivers, were moved; empty if none were."""
    parts = [("the source", sources), ("receivers", with_receivers)]
    found = [
        f"{what} of {len(names)} shot{'s' if len(names) > 1 else ''} ({list_names(names)})"
        for what, names in parts
        if names
    ]
    return (f"acquisition.minimum_depth: moved {' and '.join(found)} down to {depth:g} m",) if found else ()


def _at_least(positions: NDArray[np.float64], depth: float) -> NDArray[np.float64]:
    out = positions.copy()
    out[..., -1] = np.maximum(out[..., -1], depth)
    return out


def read_geometry(path: Path, axes: tuple[str, ...]) -> Survey:
    """Read ``data.geometry``, a CSV file with a row for each trace: shot, source_x, source_z, receiver_x, receiver_z.

    Raises InputError if it cannot be read, or a shot has two sources.
    """
    table = Table(path, "data.geometry")
    sources = table.positions(axes, "source_")
    receivers = table.positions(axes, "receiver_")
    shots = []
    for name, rows in table.rows_of_shots.items():
        moved = np.flatnonzero((sources[rows] != sources[rows[0]]).any(axis=1))
        if moved.size:
            raise InputError(
                f"{table.line(rows[moved[0]])}: shot {name!r} has another source position than on line "
                f"{table.line_numbers[rows[0]]}; give every source its own shot name"
            )
        shots.append(Shot(name, sources[rows[0]], receivers[rows]))
    return Survey(tuple(shots))


def _named_sources(positions: Positions, axes: tuple[str, ...]) -> tuple[list[str], NDArray[np.float64]]:
    """Names of the shots, and their positions; shots without a name are numbered from 0."""
    table = Table(positions.file, "acquisition.sources.file") if positions.file else None
    points = table.positions(axes) if table else _lattice(positions)
    if table is None or "shot" not in table.header:
        return [str(i) for i in range(len(points))], points
    for name, rows in table.rows_of_shots.items():
        if len(rows) > 1:
            raise InputError(
                f"{table.line(rows[1])}: shot {name!r} already has a source; every source is a shot of its own"
            )
    return list(table.rows_of_shots), points


def _lattice(positions: Positions) -> NDArray[np.float64]:
    """Points on a line, or on a grid in C order, shape (n, ndim)."""
    assert positions.first is not None  # the configuration requires it
    first = np.asarray(positions.first)
    last = np.asarray(positions.last if positions.last is not None else positions.first)
    if isinstance(positions.count, int):
        return np.linspace(first, last, positions.count)
    lines = [np.linspace(a, b, n) for a, b, n in zip(first, last, positions.count, strict=True)]
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(first))


class Table:
    """A CSV file with a header, from an editor or a spreadsheet.

    Commas, semicolons or tabs separate columns; unless commas do, numbers may have a decimal comma. Blank lines and lines that
    start with ``#`` are comments. ``key`` is that of the configuration, for messages.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.where = path, f"{key}: {path}"
        self.header: list[str] = []
        self.rows: list[list[str]] = []
        self.line_numbers: list[int] = []
        try:
            require_regular_file(path)
            with path.open("rb") as file:
                utf16 = file.read(2) in (b"\xff\xfe", b"\xfe\xff")  # "Unicode text" of spreadsheets
            with path.open(newline="", encoding="utf-16" if utf16 else "utf-8-sig") as lines:
                self._read(lines)
        except FileNotFoundError:
            raise InputError(f"{self.where}: no such file") from None
        except UnicodeError as error:
            raise InputError(f"{self.where}: is not UTF-8 text ({error}); save it as CSV in UTF-8") from None
        except (OSError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{self.where}: is not a readable CSV file ({reason})") from None
        if not self.rows:
            raise InputError(f"{self.where}: has no rows below its header, so the survey would be empty")

    def line(self, row: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.where}, line {self.line_numbers[row]}"

    def positions(self, axes: tuple[str, ...], prefix: str = "") -> NDArray[np.float64]:
        """Read the columns ``<prefix>x``, (y,) z: positions, shape (rows, ndim), m."""
        names = [prefix + axis for axis in axes]
        columns = [self._column(name, names) for name in names]
        out = np.empty((len(self.rows), len(axes)))
        for i, row in enumerate(self.rows):
            for j, column in enumerate(columns):
                out[i, j] = self._number(row[column])
                if not math.isfinite(out[i, j]):
                    raise InputError(
                        f"{self.line(i)}: {names[j]} is {quoted(row[column])}; it should be a number, in m"
                    )
        return out

    def numbers(self, name: str, whole: bool = False) -> NDArray[np.float64]:
        """Read a column of numbers, or of whole ones, shape (rows,)."""
        column = self._column(name, [name])
        values = np.array([self._number(row[column]) for row in self.rows])
        wrong = np.flatnonzero(~np.isfinite(values) | (whole & (values != np.round(values))))
        if len(wrong):
            raise InputError(
                f"{self.line(int(wrong[0]))}: {name} is {quoted(self.rows[wrong[0]][column])}; it should be a "
                f"{'whole ' if whole else ''}number"
            )
        return values

    @cached_property
    def rows_of_shots(self) -> dict[str, list[int]]:
        """Rows of each shot, in the order in which the shots first appear."""
        column = self._column("shot", ["shot"])
        found: dict[str, list[int]] = {}
        for i, row in enumerate(self.rows):
            if row[column] not in found:
                problem = problem_of_name(row[column])
                if problem:
                    raise InputError(f"{self.line(i)}: the shot name {quoted(row[column])} {problem}")
            found.setdefault(row[column], []).append(i)
        return found

    def _read(self, lines: Iterator[str]) -> None:
        skipped, first = 0, ""
        for first in lines:
            if not _is_comment(first):
                break
            skipped += 1
        delimiter = max(",;\t", key=first.count)
        self._decimal_comma = delimiter != ","
        reader = csv.reader(chain([first], lines), delimiter=delimiter)
        for cells in reader:
            row, line = [cell.strip() for cell in cells], skipped + reader.line_num
            if not any(row) or row[0].startswith("#"):
                continue
            if not self.header:
                self.header = [cell.lower() for cell in row]
                twice = [name for name, count in Counter(self.header).items() if name and count > 1]
                if twice:
                    raise InputError(f"{self.where}, line {line}: has the column {quoted(twice[0])} more than once")
                continue
            if len(row) != len(self.header):
                raise InputError(
                    f"{self.where}, line {line}: has {len(row)} columns, but the header has {len(self.header)} "
                    f"({shortened(', '.join(self.header))})"
                )
            self.line_numbers.append(line)
            self.rows.append(row)

    def _number(self, text: str) -> float:
        try:
            return float(text.replace(",", ".") if self._decimal_comma else text)
        except ValueError:
            return math.nan

    def _column(self, name: str, needed: list[str]) -> int:
        if name not in self.header:
            raise InputError(
                f"{self.where}: has no column {name!r}; its header names the columns {shortened(', '.join(self.header))}, "
                f"but {', '.join(needed)} are needed"
            )
        return self.header.index(name)


def _is_comment(line: str) -> bool:
    """Whether a line is blank, a comment, or the ``sep=;`` that spreadsheets write first."""
    text = line.strip()
    return not text or text.startswith("#") or (text.lower().startswith("sep=") and len(text) <= 5)


def problem_of_name(name: str) -> str:
    """What is wrong with the name of a shot, or nothing."""
    if not name:
        return "is empty"
    if len(name) > MAX_NAME_LENGTH:
        return f"has {len(name)} characters; at most {MAX_NAME_LENGTH} are possible"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return "has control characters; use printable ones"
    return ""
