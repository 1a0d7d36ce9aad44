"""Picks: the time of a mute at some offsets, for all shots or for each one, from a CSV file."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import DataError, InputError
from hpcfwi.io import quoted, require_regular_file
from hpcfwi.model.survey import Shot

MAX_PICKS = 1_000_000
COLUMNS = ("offset", "time")
ALL_SHOTS = ""


@dataclass(frozen=True)
class Picks:
    """Times at offsets, linear between them, and constant before the first and after the last one."""

    # (shot, offsets in m, times in ms), in the order of shots; a single one without a name is for all shots
    curves: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of these shots that have no picks."""
        known = {name for name, _, _ in self.curves}
        return [] if ALL_SHOTS in known else [name for name in names if name not in known]

    def times(self, shot: Shot) -> NDArray[np.float64]:
        """Time of each trace, ms; raises DataError if a shot has no picks."""
        for name, known, values in self.curves:
            if name in (shot.name, ALL_SHOTS):
                along = np.linalg.norm(shot.receivers - shot.source, axis=1)
                return np.interp(along, known, values)
        raise DataError(shot.name, f"has no picks; {self.curves[0][0]!r} and {len(self.curves) - 1} more shots have")


def read_picks(path: Path, key: str) -> Picks:
    """Read a CSV file with the columns offset (m), time (ms) and perhaps shot; ``key`` names it in messages.

    Raises InputError if it cannot be read, or a pick is not a number or occurs twice.
    """
    where = f"{key}: {path}"
    found: dict[str, dict[float, float]] = {}
    try:
        lines = require_regular_file(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    for line, name, offset, time in _rows(lines, where):
        curve = found.setdefault(name, {})
        if offset in curve:
            raise InputError(f"{where}, line {line}: has a second pick at the offset {offset:g} m")
        curve[offset] = time
    if not found:
        raise InputError(f"{where}: has no picks; it needs a row with {' and '.join(COLUMNS)} for each")
    curves = (
        (name, tuple(sorted(curve)), tuple(curve[offset] for offset in sorted(curve))) for name, curve in found.items()
    )
    return Picks(tuple(curves))


def _rows(lines: list[str], where: str) -> Iterator[tuple[int, str, float, float]]:
    """Line number, shot, offset and time of each pick."""
    header: list[str] = []
    if len(lines) > MAX_PICKS:
        raise InputError(f"{where}: has {len(lines)} lines; at most {MAX_PICKS} are possible")
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        row = [cell.strip() for cell in next(csv.reader([line], delimiter=max(",;\t", key=line.count)))]
        if not header:
            header = [cell.lower() for cell in row]
            missing = [name for name in COLUMNS if name not in header]
            if missing:
                raise InputError(
                    f"{where}, line {number}: has no column {missing[0]!r}; the header should name offset (m), time (ms) and, "
                    "if picks differ from shot to shot, shot"
                )
            continue
        cells = dict(zip(header, row, strict=False))
        values = [_number(cells.get(name, "")) for name in COLUMNS]
        for name, value in zip(COLUMNS, values, strict=True):
            if not math.isfinite(value) or (name == "offset" and value < 0):
                limit = "a number, 0 m or more" if name == "offset" else "a number, in ms"
                raise InputError(
                    f"{where}, line {number}: {name} is {quoted(cells.get(name, ''))}; it should be {limit}"
                )
        offset, time = values
        yield number, cells.get("shot", ALL_SHOTS), offset, time


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
