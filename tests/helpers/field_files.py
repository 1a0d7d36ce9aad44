"""Writes SEG-Y and Seismic Unix files with segyio: any samples, any headers, and small surveys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import segyio
from numpy.typing import NDArray

from hpcfwi.config.run import load_run_config
from hpcfwi.formats.segy import SAMPLE_TYPES
from hpcfwi.model.problem import Problem

VIKING = Path(__file__).parents[3] / "shared/data/segy/viking_small.segy"
SMALL_SU = VIKING.with_name("small.su")


def write_segy(
    path: Path,
    values: NDArray,
    fields: Mapping[str, Any] | None = None,
    *,
    interval_us: int = 2000,
    code: int = 5,
    endian: str = "big",
    extended: int = 0,
    binary: Mapping[int, int] | None = None,
) -> Path:
    """Write traces, shape (traces, samples), with header fields by segyio's names: a number for all, or one for each trace."""
    traces, samples = values.shape
    spec = segyio.spec()
    spec.samples = interval_us / 1000 * np.arange(samples)
    spec.tracecount, spec.format, spec.endian, spec.ext_headers = traces, code, endian, extended
    headers = {"TRACE_SAMPLE_COUNT": samples, "TRACE_SAMPLE_INTERVAL": interval_us, **(fields or {})}
    keys = {segyio.tracefield.keys[name]: np.broadcast_to(value, traces).tolist() for name, value in headers.items()}
    stored = np.ascontiguousarray(values, np.float32 if code == 1 else SAMPLE_TYPES[code])
    with segyio.create(str(path), spec) as file:
        file.bin.update({3217: interval_us, **(binary or {})})
        for trace in range(traces):
            file.header[trace] = {key: numbers[trace] for key, numbers in keys.items()}
            file.trace[trace] = stored[trace]
    return path


def write_su(path: Path, values: NDArray, fields: Mapping[str, Any] | None = None, *, endian: str = "little") -> Path:
    """Write traces of 4-byte IEEE floats as Seismic Unix: those of SEG-Y without the headers of the file."""
    write_segy(path, values, fields, endian=endian)
    path.write_bytes(path.read_bytes()[3600:])
    return path


def patch(path: Path, byte: int, content: bytes) -> Path:
    """Overwrite bytes of a file from a byte that is counted from 1, as in the standard."""
    with path.open("r+b") as file:
        file.seek(byte - 1)
        file.write(content)
    return path


def survey_fields(
    sources: Sequence[Sequence[float]], receivers: Sequence[NDArray], scalar: int = 1, **more: Any
) -> dict[str, Any]:
    """Header fields of shots one after the other.

    ``sources`` are x, y, depth of each shot and ``receivers`` its receivers, shape (n, 3), in m; ``scalar`` is that of the
    standard for coordinates and elevations: -100 for centimetres.
    """
    counts = [len(each) for each in receivers]
    factor = -scalar if scalar < 0 else 1 / (scalar or 1)
    source = np.rint(factor * np.repeat(np.asarray(sources, dtype=float), counts, axis=0)).astype(int)
    receiver = np.rint(factor * np.concatenate([np.asarray(each, dtype=float) for each in receivers])).astype(int)
    fields = {
        "FieldRecord": np.repeat(np.arange(1, len(counts) + 1), counts),
        "TraceNumber": np.concatenate([np.arange(1, count + 1) for count in counts]),
        "TraceIdentificationCode": 1,
        "SourceGroupScalar": scalar,
        "ElevationScalar": scalar,
        "SourceX": source[:, 0],
        "SourceY": source[:, 1],
        "SourceDepth": source[:, 2],
        "GroupX": receiver[:, 0],
        "GroupY": receiver[:, 1],
        "ReceiverGroupElevation": -receiver[:, 2],
    }
    return {**fields, **more}


def line(count: int = 5, first: float = 100.0, step: float = 50.0, depth: float = 20.0) -> NDArray:
    """Receivers on a line along x, shape (count, 3), m."""
    return np.array([(first + step * i, 0.0, depth) for i in range(count)])


def take(fields: Mapping[str, Any], traces: Any) -> dict[str, Any]:
    """The fields of some traces."""
    return {name: np.asarray(value)[traces] if np.ndim(value) else value for name, value in fields.items()}


FIELD = """
[grid]
shape = [31, 31]
spacing = [20.0, 20.0]

[initial]
kind = "constant"
velocity = 2.5

[data]
file = "a.sgy"

[wavelet]
kind = "ricker"
peak_frequency = 10.0

[solver]
space_order = 4

[inversion]
iterations = 2
bounds = [2.0, 3.5]

[output]
figures = false
"""


def load_field(folder: Path, *settings: str) -> Problem:
    """The problem of ``FIELD`` in a folder, with settings as of ``--set``."""
    (folder / "fwi.toml").write_text(FIELD, encoding="utf-8")
    return Problem.from_config(load_run_config(folder / "fwi.toml", settings))


def advised(message: str) -> list[str]:
    """The settings that a message advises, as the user would type them."""
    words = re.split(r"[;\s]+", message)
    return [words[i + 1].rstrip(",") for i, word in enumerate(words) if word == "--set"]
