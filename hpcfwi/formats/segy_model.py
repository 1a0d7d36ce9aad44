"""Velocity models in SEG-Y: a trace for each column of a 2-D line, or of a 3-D cube by inline and crossline.

A header field of SEG-Y has the sample interval in microseconds. In a file of depths the usual convention puts the depth step in
mm there (m times 1000), and the depth of the first sample, m, in the delay recording time. Coordinates are those of the CDP, or
of the source where the file has none; the coordinate scalar, the time scalar (of the delay) and feet are applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.formats.segy_writer import Scaling, check_samples, create_segy, whole_number
from hpcfwi.formats.stored_model import PLACE_TOLERANCE, FormatError, StoredModel
from hpcfwi.io import require_regular_file

FEET = 0.3048
HEADER_BYTES = 3600


class _Traces:
    """The samples of a file as an array of one trace for each entry of ``numbers``."""

    def __init__(self, path: Path, endian: str, numbers: NDArray[np.int64], samples: int, dtype: np.dtype) -> None:
        self._path, self._endian, self._numbers = path, endian, numbers
        self.shape, self.dtype = (*numbers.shape, samples), dtype

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray:
        numbers = self._numbers[key[:-1]]
        with _opened(self._path, self._endian) as file:
            values = np.empty((numbers.size, len(range(*key[-1].indices(self.shape[-1])))), self.dtype)
            for i, number in enumerate(numbers.ravel()):
                values[i] = file.trace.raw[int(number)][key[-1]]
        return values.reshape(*numbers.shape, -1)


def open_segy_model(path: Path) -> StoredModel:
    """Open a model; raises FormatError, or what :mod:`segyio` raises for a damaged file."""
    from segyio import BinField, TraceField

    endian = _endian(path)
    with _opened(path, endian) as file:
        samples, dtype, traces = len(file.samples), np.dtype(file.dtype), file.tracecount
        metre = FEET if file.bin[BinField.MeasurementSystem] == 2 else 1.0
        interval = file.bin[BinField.Interval] or file.header[0][TraceField.TRACE_SAMPLE_INTERVAL]

        def field(name: Any) -> NDArray[np.int64]:
            return np.asarray(file.attributes(name)[:], dtype=np.int64)

        delays, time_scalars = field(TraceField.DelayRecordingTime), field(TraceField.ScalarTraceHeader)
        lines, crosslines = field(TraceField.INLINE_3D), field(TraceField.CROSSLINE_3D)
        scalars = field(TraceField.SourceGroupScalar)
        places = field(TraceField.CDP_X), field(TraceField.CDP_Y)
        if not (places[0].any() or places[1].any()):
            places = field(TraceField.SourceX), field(TraceField.SourceY)
    tops = _scaled(delays, time_scalars) * metre
    if (tops != tops[0]).any():
        raise FormatError("has traces that begin at different depths (delay recording time); give all the same")
    step = (interval & 0xFFFF) / 1000 * metre or None  # some programs write it as an unsigned integer
    x, y = (_scaled(values, scalars) * metre for values in places)
    rounding = 1.5 * metre * float(_scaled(np.ones_like(scalars), scalars).max())  # of x and y to whole numbers
    rows, columns = len(set(lines)), len(set(crosslines))
    if min(rows, columns) > 1 and max(rows, columns) < traces:  # a line may cross an inline at each trace
        numbers = _cube(lines, crosslines)
        axes, spacing, origin = _cube_places(x[numbers], y[numbers], rounding)
    else:
        numbers, axes = np.arange(traces), "x"
        spacing, origin = _line_places(x, y, rounding)
    return StoredModel(
        _Traces(path, endian, numbers, samples, dtype), f"{axes}z", (*spacing, step), (*origin, float(tops[0]))
    )


def write_segy_model(
    path: Path, values: NDArray[np.float32], spacing: Sequence[float], origin: Sequence[float], text: Sequence[str]
) -> float:
    """Write a model, indexed [x, z] or [x, y, z], with inlines along x numbered by y, and the lines of ``text`` as a header.

    Returns the largest rounding of a coordinate, m. Raises FormatError if a number does not fit its header field.
    """
    from segyio import TraceField

    check_samples(values.shape[-1], f"a column has {values.shape[-1]} samples")
    step = f"the depth step of {spacing[-1]:g} m is kept in mm"
    interval = whole_number(1000 * spacing[-1], step)
    x, *across = (o + h * np.arange(n) for o, h, n in zip(origin, spacing, values.shape[:-1], strict=False))
    y = across[0] if across else np.zeros(1)
    plane = Scaling.of(np.concatenate([x, y]), "coordinates")
    top = Scaling.of(np.asarray(origin[-1:], dtype=float), "the depth of the first sample")
    delay = int(top.integers(np.asarray(origin[-1])))
    if abs(delay) > 2**15 - 1:
        raise FormatError(
            f"the depth of the first sample, {origin[-1]:g} m, does not fit 16 bits with the scalar {top.scalar}"
        )
    columns = values.reshape(len(x), len(y), -1)
    fixed = {
        TraceField.TraceIdentificationCode: 1,
        TraceField.SourceGroupScalar: plane.scalar,
        TraceField.ElevationScalar: 1,
        TraceField.CoordinateUnits: 1,
        TraceField.DelayRecordingTime: delay,
        TraceField.ScalarTraceHeader: top.scalar,
        TraceField.TRACE_SAMPLE_COUNT: values.shape[-1],
        TraceField.TRACE_SAMPLE_INTERVAL: interval,
    }
    with create_segy(path, len(x) * len(y), values.shape[-1], interval, text) as file:
        for j, at_y in enumerate(plane.integers(y)):
            for i, at_x in enumerate(plane.integers(x)):
                number = j * len(x) + i
                file.header[number] = fixed | {
                    TraceField.TRACE_SEQUENCE_LINE: number + 1,
                    TraceField.TRACE_SEQUENCE_FILE: number + 1,
                    TraceField.CDP: number + 1,
                    TraceField.INLINE_3D: j + 1,
                    TraceField.CROSSLINE_3D: i + 1,
                    **dict.fromkeys((TraceField.SourceX, TraceField.GroupX, TraceField.CDP_X), at_x),
                    **dict.fromkeys((TraceField.SourceY, TraceField.GroupY, TraceField.CDP_Y), at_y),
                }
                file.trace[number] = np.ascontiguousarray(columns[i, j])
    return max(plane.error, top.error)


def _opened(path: Path, endian: str) -> Any:
    import segyio

    return segyio.open(path, ignore_geometry=True, endian=endian)


def _endian(path: Path) -> str:
    """The byte order in which the format of the samples is a small number."""
    with require_regular_file(path).open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        raise FormatError(f"is not SEG-Y: it has {len(header)} bytes, fewer than the headers ({HEADER_BYTES})")
    code = header[3224:3226]
    for order in ("big", "little"):
        if 1 <= int.from_bytes(code, order) <= 16:
            return order
    raise FormatError(
        f"is not SEG-Y: bytes 3225 and 3226, the format of the samples, are {code[0]} and {code[1]}; 1 to 16 is possible"
    )


def _scaled(values: NDArray[np.int64], scalars: NDArray[np.int64]) -> NDArray[np.float64]:
    """Apply scalars as the standard says: positive multiplies, negative divides, 0 is 1."""
    scale = np.where(scalars == 0, 1, np.abs(scalars))
    return np.where(scalars < 0, values / scale, values * scale)


def _step(values: NDArray[np.float64]) -> float:
    return float(values[-1] - values[0]) / max(1, len(values) - 1)


def _line_places(
    x: NDArray[np.float64], y: NDArray[np.float64], rounding: float
) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    """Spacing and origin along a line: of x or y if the other is constant, else the distance from its first trace.

    Traces without coordinates, all of them the same, have neither.
    """
    if (x == x[0]).all() and (y == y[0]).all():
        return (None,), (None,)
    step = np.hypot(_step(x), _step(y))
    misses = np.hypot(*(values - (values[0] + _step(values) * np.arange(len(values))) for values in (x, y)))
    worst = int(misses.argmax())
    if misses[worst] > max(PLACE_TOLERANCE * step, rounding):
        raise FormatError(
            f"has traces that are not equidistant on a straight line: trace {worst + 1} of {len(x)}, at x {x[worst]:.10g} m "
            f"and y {y[worst]:.10g} m, misses its place by {misses[worst]:g} m; resample the model"
        )
    if (y == y[0]).all():
        return (_step(x),), (float(x[0]),)
    if (x == x[0]).all():
        return (_step(y),), (float(y[0]),)
    return (float(step),), (0.0,)


def _cube(lines: NDArray[np.int64], crosslines: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of the traces by inline and crossline, shape (inlines, crosslines)."""
    rows, columns = np.unique(lines), np.unique(crosslines)
    numbers = np.full((len(rows), len(columns)), -1) if len(rows) * len(columns) <= len(lines) else None
    if numbers is None or len(lines) != numbers.size:
        raise FormatError(
            f"is not a full cube: it has {len(lines)} traces on {len(rows)} inlines and {len(columns)} crosslines (bytes 189 "
            "and 193)"
        )
    numbers[np.searchsorted(rows, lines), np.searchsorted(columns, crosslines)] = np.arange(len(lines))
    if (numbers < 0).any():
        raise FormatError("is not a full cube: it has two traces of the same inline and crossline (bytes 189 and 193)")
    return numbers


def _cube_places(
    x: NDArray[np.float64], y: NDArray[np.float64], rounding: float
) -> tuple[str, tuple[float | None, ...], tuple[float | None, ...]]:
    """Axes, spacing and origin of positions by inline and crossline; inlines run along x where the file does not say."""
    if (x == x[0, 0]).all() and (y == y[0, 0]).all():
        return "yx", (None, None), (None, None)
    along_crosslines = abs(_step(x[0])) >= abs(_step(x[:, 0]))
    slow, fast = (y, x) if along_crosslines else (x, y)
    steps, first = (_step(slow[:, 0]), _step(fast[0])), (float(slow[0, 0]), float(fast[0, 0]))
    places = [o + h * np.arange(n) for o, h, n in zip(first, steps, slow.shape, strict=True)]
    misses = np.hypot(slow - places[0][:, None], fast - places[1])
    if 0 in steps or misses.max() > max(PLACE_TOLERANCE * min(map(abs, steps)), rounding):
        raise FormatError(
            f"has traces that are not on a regular grid along x and y (they miss it by up to {misses.max():g} m); resample the "
            "model to such a grid"
        )
    return ("yx" if along_crosslines else "xy"), steps, first
