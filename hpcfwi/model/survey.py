"""The survey: shots, their sources and receivers."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import DataError, InputError
from hpcfwi.io import quoted, require_regular_file, shortened
from hpcfwi.model.grid import Domain

if TYPE_CHECKING:
    from hpcfwi.config.run import Positions  # workers import this module without pydantic

__all__ = ["Shot", "Survey", "build_survey", "read_geometry"]


@dataclass(frozen=True, eq=False)
class Shot:
    """One source and the receivers that listened to it.

    Parameters
    ----------
    name
        Unique in the survey; letters, digits, ``-``, ``_`` and ``.``.
    source
        Position, shape (ndim,), m.
    receivers
        Positions, shape (n, ndim), m.
    """

    name: str
    source: NDArray[np.float64]
    receivers: NDArray[np.float64]

    @property
    def file_name(self) -> str:
        """The shot's name as a file name without a suffix: safe on every file system, unique in the survey."""
        return self.name


@dataclass(frozen=True, eq=False)
class Survey:
    """Shots in survey order."""

    shots: tuple[Shot, ...]

    def __len__(self) -> int:
        return len(self.shots)

    @property
    def max_receivers(self) -> int:
        return max(len(shot.receivers) for shot in self.shots)

    def without(self, names: Collection[str]) -> Survey:
        """The survey without some shots.

        Raises
        ------
        InputError
            If there is no such shot, or none would be left.
        """
        known, left_out = [shot.name for shot in self.shots], set(names)
        unknown = sorted(left_out.difference(known))
        if unknown:
            raise InputError(f"data.exclude: there is no shot {unknown[0]!r}; there are {_some(known)}")
        if known and left_out.issuperset(known):
            raise InputError("data.exclude: leaves no shot of the survey")
        return Survey(tuple(shot for shot in self.shots if shot.name not in left_out))

    def check(self, domain: Domain) -> None:
        """Raise where a source or receiver is outside the physical domain.

        Raises
        ------
        DataError
            Naming the shot, the position and the domain's limits.
        InputError
            If there is no shot at all.
        """
        if not self.shots:
            raise InputError("the survey is empty: there is no shot in it")
        limits = ", ".join(
            f"{axis} {low:g} to {high:g} m"
            for axis, low, high in zip(domain.axes, domain.origin, domain.last, strict=True)
        )
        strayed = ~domain.contains(np.stack([shot.source for shot in self.shots]))
        sound = None
        for shot, astray in zip(self.shots, strayed, strict=True):
            if len(shot.receivers) == 0:
                raise DataError(shot.name, "has no receivers")
            if not astray and shot.receivers is sound:
                continue  # a spread that all shots have is looked at once
            sound = shot.receivers
            for what, positions in (("source", shot.source[None]), ("receiver", shot.receivers)):
                outside = np.flatnonzero(~domain.contains(positions))
                if outside.size:
                    place = ", ".join(f"{value:g}" for value in positions[outside[0]])
                    more = f" (and {outside.size - 1} more)" if outside.size > 1 else ""
                    number = f" {outside[0] + 1}" if what == "receiver" else ""
                    raise DataError(
                        shot.name,
                        f"{what}{number} at ({place}) m{more} is outside the model, which covers {limits}",
                    )


def _some(names: list[str]) -> str:
    """The first and the last of them."""
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:3])}, ... {names[-1]}"


NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


def build_survey(sources: Positions, receivers: Positions, axes: tuple[str, ...]) -> Survey:
    """Make the survey that ``[acquisition]`` describes; ``axes`` are the names of the grid's axes."""
    names, places = _sources(sources, axes)
    if receivers.file is None:
        spread = _lattice(receivers)
        return Survey(tuple(Shot(name, place, spread) for name, place in zip(names, places, strict=True)))
    table = _Table(receivers.file, "acquisition.receivers.file")
    positions = table.positions(axes)
    if "shot" not in table.header:
        return Survey(tuple(Shot(name, place, positions) for name, place in zip(names, places, strict=True)))
    rows = table.groups()
    strangers = sorted(set(rows) - set(names))
    if strangers:
        raise InputError(
            f"{table.key}: {table.path}, line {table.lines[rows[strangers[0]][0]]}: has a receiver of shot "
            f"{strangers[0]!r}, which is none of the {len(names)} shots ({names[0]!r} to {names[-1]!r})"
        )
    deaf = [name for name in names if name not in rows]
    if deaf:
        more = f" (nor of {len(deaf) - 1} more shots)" if len(deaf) > 1 else ""
        raise InputError(f"{table.key}: {table.path}: has no receivers of shot {deaf[0]!r}{more}")
    return Survey(tuple(Shot(name, place, positions[rows[name]]) for name, place in zip(names, places, strict=True)))


def read_geometry(path: Path, axes: tuple[str, ...]) -> Survey:
    """Read a CSV with a row for each trace: shot, source_x, source_z, receiver_x, receiver_z (and the y's)."""
    table = _Table(path, "data.geometry")
    sources = table.positions(axes, "source_")
    receivers = table.positions(axes, "receiver_")
    shots = []
    for name, rows in table.groups().items():
        moved = np.flatnonzero((sources[rows] != sources[rows[0]]).any(axis=1))
        if moved.size:
            raise InputError(
                f"{table.key}: {path}, line {table.lines[rows[moved[0]]]}: the source of shot {name!r} is not where it "
                f"is on line {table.lines[rows[0]]}"
            )
        shots.append(Shot(name, sources[rows[0]], receivers[rows]))
    return Survey(tuple(shots))


def _sources(positions: Positions, axes: tuple[str, ...]) -> tuple[list[str], NDArray[np.float64]]:
    if positions.file is None:
        places = _lattice(positions)
        return [str(i) for i in range(len(places))], places
    table = _Table(positions.file, "acquisition.sources.file")
    places = table.positions(axes)
    if "shot" not in table.header:
        return [str(i) for i in range(len(places))], places
    groups = table.groups()
    twice = next((name for name, rows in groups.items() if len(rows) > 1), None)
    if twice is not None:
        raise InputError(
            f"{table.key}: {table.path}, line {table.lines[groups[twice][1]]}: shot {twice!r} is there a second time"
        )
    return list(groups), places


def _lattice(positions: Positions) -> NDArray[np.float64]:
    """Points on a line, or on a grid in C order, shape (n, ndim)."""
    assert positions.first is not None  # the configuration has seen to it
    first = np.asarray(positions.first)
    last = np.asarray(positions.last if positions.last is not None else positions.first)
    if isinstance(positions.count, int):
        return np.linspace(first, last, positions.count)
    lines = [np.linspace(a, b, n) for a, b, n in zip(first, last, positions.count, strict=True)]
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(first))


class _Table:
    """A CSV file with a header; blank lines and lines that begin with # do not count."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.lines: list[int] = []
        self.rows: list[list[str]] = []
        self.header: list[str] = []
        try:
            with require_regular_file(path).open(newline="", encoding="utf-8-sig") as file:
                self._read(csv.reader(file))
        except FileNotFoundError:
            raise InputError(f"{key}: {path}: no such file") from None
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{key}: {path}: is no readable CSV file ({reason})") from None
        if not self.rows:
            raise InputError(f"{key}: {path}: has no rows below its header, so the survey would be empty")

    def _read(self, reader: object) -> None:
        for row in reader:  # type: ignore[attr-defined]
            cells = [cell.strip() for cell in row]
            if not any(cells) or cells[0].startswith("#"):
                continue
            line: int = reader.line_num  # type: ignore[attr-defined]
            if not self.header:
                self.header = [cell.lower() for cell in cells]
                twice = next((name for name, times in Counter(self.header).items() if name and times > 1), None)
                if twice is not None:
                    raise InputError(
                        f"{self.key}: {self.path}, line {line}: has the column {quoted(twice)} more than once"
                    )
                continue
            if len(cells) != len(self.header):
                raise InputError(
                    f"{self.key}: {self.path}, line {line}: has {len(cells)} columns, the header has {len(self.header)} "
                    f"({shortened(', '.join(self.header))})"
                )
            self.lines.append(line)
            self.rows.append(cells)

    def positions(self, axes: tuple[str, ...], prefix: str = "") -> NDArray[np.float64]:
        """The columns ``<prefix>x``, (y,) z as positions, shape (rows, ndim), m."""
        wanted = [prefix + axis for axis in axes]
        for name in wanted:
            self._require(name, wanted)
        columns = [self.header.index(name) for name in wanted]
        out = np.empty((len(self.rows), len(axes)))
        for i, row in enumerate(self.rows):
            for j, column in enumerate(columns):
                try:
                    out[i, j] = float(row[column])
                except ValueError:
                    out[i, j] = np.nan
                if not np.isfinite(out[i, j]):
                    raise InputError(
                        f"{self.key}: {self.path}, line {self.lines[i]}: {wanted[j]} is {quoted(row[column])}; it should "
                        "be a number, in m"
                    )
        return out

    def _require(self, column: str, wanted: list[str]) -> None:
        if column not in self.header:
            raise InputError(
                f"{self.key}: {self.path}: has no column {column!r}; its header names the columns "
                f"{shortened(', '.join(self.header))}, and {', '.join(wanted)} are needed"
            )

    def groups(self) -> dict[str, list[int]]:
        """Rows of each shot, in the order in which the shots first appear."""
        self._require("shot", ["shot"])
        column = self.header.index("shot")
        found: dict[str, list[int]] = {}
        for i, row in enumerate(self.rows):
            if not NAME.fullmatch(row[column]):
                raise InputError(
                    f"{self.key}: {self.path}, line {self.lines[i]}: {quoted(row[column])} is no name for a shot; "
                    "letters, digits, '_', '-' and '.' may be in it"
                )
            found.setdefault(row[column], []).append(i)
        return found
