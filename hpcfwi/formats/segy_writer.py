"""SEG-Y files that hpcfwi writes: rev 1, big endian, IEEE floats; shot gathers, and what models have in common with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.formats.stored_model import FormatError

# Rev 1 keeps the number of samples and their interval in signed 16-bit integers, and coordinates in 32-bit ones.
MAX_INT16, MAX_INT32 = 2**15 - 1, 2**31 - 1
SCALARS = (1, -10, -100, -1000, -10000)
# m; a coordinate that differs by less is the same.
COORDINATE_ROUNDING = 1e-6
TEXT_LINES, TEXT_WIDTH = 38, 76  # without the last two, which rev 1 prescribes


@dataclass(frozen=True)
class Scaling:
    """Coordinates as whole numbers: value / ``-scalar`` is in m, or the value itself where the scalar is 1.

    ``error`` is the largest difference, m, between a coordinate and its whole number.
    """

    scalar: int
    error: float

    @classmethod
    def of(cls, coordinates: NDArray[np.float64], what: str) -> Scaling:
        """The coarsest scalar of the standard that keeps these coordinates, m, or the finest that can hold them."""
        largest = float(np.abs(coordinates).max(initial=0.0))
        found = None
        for scalar in SCALARS:
            scaled = coordinates * abs(scalar)
            if largest * abs(scalar) > MAX_INT32:
                break
            found = cls(scalar, float(np.abs(scaled - np.rint(scaled)).max(initial=0.0)) / abs(scalar))
            if found.error <= COORDINATE_ROUNDING:
                return found
        if found is None or found.error > 0.05:
            raise FormatError(
                f"{what} of up to {largest:.10g} m cannot be kept in 32-bit integers to better than 0.1 m"
            )
        return found

    def integers(self, coordinates: NDArray[np.float64]) -> NDArray[np.int64]:
        """The whole numbers of coordinates, m."""
        return np.rint(np.asarray(coordinates) * abs(self.scalar)).astype(np.int64)


def whole_number(value: float, what: str) -> int:
    """A sample interval, or a depth step, as its header field; raises FormatError if it is no positive 16-bit integer.

    ``what`` begins the message.
    """
    number = round(value)
    if abs(value - number) > 1e-6 * max(1.0, abs(value)) or not 1 <= number <= MAX_INT16:
        raise FormatError(f"{what}, but SEG-Y rev 1 has whole numbers from 1 to {MAX_INT16}")
    return number


def check_samples(samples: int, what: str) -> None:
    """Raise FormatError if a trace is longer than rev 1 allows; ``what`` begins its message."""
    if samples > MAX_INT16:
        raise FormatError(f"{what}, but SEG-Y rev 1 has at most {MAX_INT16} in a trace")


@contextmanager
def create_segy(path: Path, traces: int, samples: int, interval: int, text: Sequence[str]) -> Iterator[Any]:
    """Create a file, and yield it open for :mod:`segyio`; ``interval`` is the header field."""
    import segyio

    spec = segyio.spec()
    spec.tracecount, spec.samples, spec.format = traces, np.arange(samples), segyio.SegySampleFormat.IEEE_FLOAT_4_BYTE
    with segyio.create(path, spec) as file:
        file.text[0] = text_header(text)
        file.bin = {
            segyio.BinField.Interval: interval,
            segyio.BinField.IntervalOriginal: interval,
            segyio.BinField.Samples: samples,
            segyio.BinField.SamplesOriginal: samples,
            segyio.BinField.Format: int(spec.format),
            segyio.BinField.MeasurementSystem: 1,  # m
            segyio.BinField.SEGYRevision: 1,
            segyio.BinField.TraceFlag: 1,  # all traces have the same length
        }
        yield file


def text_header(lines: Sequence[str]) -> str:
    """The text header with at most 38 lines, and the two that rev 1 prescribes."""
    import segyio

    plain = (line.encode("ascii", "replace").decode()[:TEXT_WIDTH] for line in lines[:TEXT_LINES])
    numbered = dict(enumerate(plain, 1)) | {39: "SEG Y REV1", 40: "END TEXTUAL HEADER"}
    return str(segyio.tools.create_text_header(numbered))


class ShotGathers:
    """Writes the gathers of a survey to one file, a shot at a time.

    Parameters
    ----------
    file
        As :func:`create_segy` yields it.
    interval
        Sample interval, microseconds.
    plane, depth
        Scaling of the horizontal coordinates, and of depths.
    """

    def __init__(self, file: Any, interval: int, plane: Scaling, depth: Scaling) -> None:
        self._file, self._interval, self._plane, self._depth = file, interval, plane, depth
        self._traces = 0

    def write(
        self,
        field_record: int,
        number: int,
        source: NDArray[np.float64],
        receivers: NDArray[np.float64],
        record: NDArray[np.floating],
    ) -> None:
        """Write the traces of a shot.

        ``field_record`` is its FieldRecord, ``number`` its place in the survey, from 1; the source has shape (3,), the
        receivers (n, 3), x, y and depth, m; the record has shape (samples, n).
        """
        from segyio import TraceField

        source_x, source_y = self._plane.integers(source[:2])
        fixed = {
            TraceField.FieldRecord: field_record,
            TraceField.EnergySourcePoint: number,
            TraceField.TraceIdentificationCode: 1,  # seismic data
            TraceField.SourceDepth: self._depth.integers(source[2:])[0],
            TraceField.ElevationScalar: self._depth.scalar,
            TraceField.SourceGroupScalar: self._plane.scalar,
            TraceField.SourceX: source_x,
            TraceField.SourceY: source_y,
            TraceField.CoordinateUnits: 1,  # length
            TraceField.TRACE_SAMPLE_COUNT: len(record),
            TraceField.TRACE_SAMPLE_INTERVAL: self._interval,
        }
        offsets = np.rint(np.linalg.norm(receivers[:, :2] - source[:2], axis=1)).astype(int)
        plane, elevations = self._plane.integers(receivers[:, :2]), -self._depth.integers(receivers[:, 2])
        traces = np.ascontiguousarray(np.asarray(record, dtype=np.float32).T)
        for i, trace in enumerate(traces):
            self._file.header[self._traces] = fixed | {
                TraceField.TRACE_SEQUENCE_LINE: self._traces + 1,
                TraceField.TRACE_SEQUENCE_FILE: self._traces + 1,
                TraceField.TraceNumber: i + 1,
                TraceField.offset: offsets[i],
                TraceField.ReceiverGroupElevation: elevations[i],
                TraceField.GroupX: plane[i, 0],
                TraceField.GroupY: plane[i, 1],
            }
            self._file.trace[self._traces] = trace
            self._traces += 1
