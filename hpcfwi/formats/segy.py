"""The traces of a SEG-Y or Seismic Unix file; :mod:`hpcfwi.formats.segy_layout` finds out where they lie.

segyio converts IBM floats here and knows the names of the header fields (:mod:`hpcfwi.formats.trace_headers`). It does not
open the files: it rejects those whose binary header has the wrong number of samples, which are common, and it cannot be told
the right one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ByteOrder = Literal["big", "little"]

TRACE_HEADER_BYTES = 240
# Types of samples by their code in the binary header; 1 is an IBM float, which NumPy does not have.
SAMPLE_TYPES = {
    1: "u4", 2: "i4", 3: "i2", 5: "f4", 6: "f8", 8: "i1", 9: "i8", 10: "u4", 11: "u2", 12: "u8", 16: "u1",
}  # fmt: skip
SAMPLE_NAMES = {
    1: "4-byte IBM float", 2: "4-byte integer", 3: "2-byte integer", 5: "4-byte IEEE float", 6: "8-byte IEEE float",
    8: "1-byte integer", 9: "8-byte integer", 10: "4-byte unsigned integer", 11: "2-byte unsigned integer",
    12: "8-byte unsigned integer", 16: "1-byte unsigned integer",
}  # fmt: skip
IBM = 1
# Formats whose values single precision holds exactly; the others become double precision.
SINGLE_PRECISION = {1, 3, 5, 8, 11, 16}


@dataclass(frozen=True)
class SegyFile:
    """Where the traces of a file lie, and what its binary header says.

    Parameters
    ----------
    path
        The file.
    byte_order
        Of headers and samples.
    first_trace
        Bytes before the first trace.
    header_bytes
        Bytes of headers before the samples of each trace.
    traces, samples
        Number of traces, and of samples in each.
    sample_code
        Type of the samples: a key of :data:`SAMPLE_TYPES`.
    interval_us
        Sample interval, microseconds; 0 if the binary header has none.
    unit
        Unit of lengths in the headers, or None if the binary header has none.
    revision
        Of the standard, or "SU".
    notes
        What is contradictory in the file, and what was done about it.
    """

    path: Path
    byte_order: ByteOrder
    first_trace: int
    header_bytes: int
    traces: int
    samples: int
    sample_code: int
    interval_us: float
    unit: Literal["m", "ft"] | None
    revision: str
    notes: tuple[str, ...] = ()

    @property
    def sample_type(self) -> np.dtype:
        """Type of the samples in the file; that of the bits of an IBM float."""
        return np.dtype(SAMPLE_TYPES[self.sample_code]).newbyteorder(self.byte_order)

    @property
    def trace_bytes(self) -> int:
        """Bytes of a trace with its headers."""
        return self.header_bytes + self.samples * self.sample_type.itemsize

    @property
    def description(self) -> str:
        """Standard, byte order and format, in words."""
        standard = "Seismic Unix" if self.revision == "SU" else f"SEG-Y rev {self.revision}"
        return f"{standard}, {self.byte_order}-endian, {SAMPLE_NAMES[self.sample_code]}"

    def read_traces(self, numbers: NDArray[np.integer]) -> NDArray[np.floating]:
        """Read traces by their numbers from 0.

        Returns
        -------
        ndarray
            Shape (samples, traces): float32, or float64 if the samples have more digits than that.

        Raises
        ------
        OSError
            If the file cannot be read, or has become shorter.
        """
        record = np.dtype([("header", "V", self.header_bytes), ("samples", self.sample_type, (self.samples,))])
        dtype = np.float32 if self.sample_code in SINGLE_PRECISION else np.float64
        out = np.empty((len(numbers), self.samples), dtype=dtype)
        breaks = (np.flatnonzero(np.diff(numbers) != 1) + 1).tolist()
        with self.path.open("rb") as file:
            for begin, end in pairwise([0, *breaks, len(numbers)] if len(numbers) else []):
                file.seek(self.first_trace + int(numbers[begin]) * self.trace_bytes)
                content = file.read((end - begin) * self.trace_bytes)
                if len(content) != (end - begin) * self.trace_bytes:
                    raise OSError(f"it ends before trace {int(numbers[end - 1]) + 1}")
                out[begin:end] = self._floats(np.frombuffer(content, record)["samples"])
        return np.ascontiguousarray(out.T)

    def _floats(self, stored: NDArray) -> NDArray:
        if self.sample_code != IBM:
            return stored
        import segyio._segyio  # noqa: F401 - segyio.tools needs it, and does not import it
        from segyio.tools import native

        # segyio expects the big-endian bits of the floats
        return np.asarray(native(np.ascontiguousarray(stored.astype(">u4")), format=IBM, copy=False))


def file_stamp(path: Path) -> tuple[str, int, int]:
    """What tells one version of a file from another: absolute path, bytes, and time of change in ns."""
    status = os.stat(path)  # noqa: PTH116 - follows links as path.stat() does, in one call
    return str(path.resolve()), status.st_size, status.st_mtime_ns
