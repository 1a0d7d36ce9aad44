"""Madagascar's RSF: a text header with the axes, and the samples behind it or in a file of their own.

See https://ahay.org/wiki/Guide_to_RSF_file_format. Axis 1 runs fastest. Where the header has no labels, axis 1 is z, axis 2
is x and axis 3 is y, as in Madagascar's modelling programs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from hpcfwi.formats.stored_model import FormatError, StoredArray, StoredModel, axes_of, metres_per, velocity_unit
from hpcfwi.io import require_regular_file, shortened

MAX_HEADER_BYTES = 1_000_000
MAX_AXES = 9
# Of a number in ASCII, with the blanks around it.
MAX_WORD_BYTES = 64
# Between a header and the samples that follow it in the same file.
END_OF_HEADER = b"\x0c\x0c\x04"
PARAMETER = re.compile(r"""(?:^|\s)([\w.#-]+)=("[^"]*"|'[^']*'|\S+)""")
TYPES = {("float", 4): "f4", ("float", 8): "f8", ("double", 8): "f8", ("int", 4): "i4", ("short", 2): "i2"}
BYTE_ORDER = {"native": "=", "xdr": ">"}


def open_rsf(path: Path) -> StoredModel:
    """Open a model; raises FormatError or OSError if it cannot be read."""
    with require_regular_file(path).open("rb") as file:
        text, packed, _ = file.read(MAX_HEADER_BYTES + len(END_OF_HEADER)).partition(END_OF_HEADER)
    if len(text) > MAX_HEADER_BYTES or (not packed and b"\0" in text):
        raise FormatError(f"is not an RSF header (text of at most {MAX_HEADER_BYTES} bytes, with n1=, n2= and in=)")
    header = {key: value.strip("\"'") for key, value in PARAMETER.findall(text.decode("latin-1"))}
    shape = _shape(header)
    # the header counts from the fastest axis, arrays from the slowest
    numbers = [axis for axis in range(len(shape), 0, -1) if shape[axis - 1] > 1]
    labels = [header.get(f"label{axis}", "") for axis in numbers]
    default = "yxz" if len(numbers) == 3 and not any(labels) else None
    scales = [metres_per(header.get(f"unit{axis}", "")) for axis in numbers]
    return StoredModel(
        _samples(path, header, [shape[axis - 1] for axis in numbers], len(text) + len(packed) if packed else None),
        axes_of(labels) or default,
        tuple(_length(header, f"d{axis}", scale) for axis, scale in zip(numbers, scales, strict=True)),
        tuple(_length(header, f"o{axis}", scale) for axis, scale in zip(numbers, scales, strict=True)),
        velocity_unit(header.get("unit", "")),
    )


def write_rsf(
    file: BinaryIO, values: NDArray[np.float32], axes: str, spacing: Sequence[float], origin: Sequence[float], unit: str
) -> None:
    """Write a model, float32, to an open file: the header, and the samples behind it.

    ``axes`` has a letter for each axis of ``values``; spacing and origin, m, are in the same order.
    """
    lines = ["hpcfwi export"]
    for number, i in enumerate(reversed(range(values.ndim)), 1):
        lines.append(f"\tn{number}={values.shape[i]} o{number}={float(origin[i])!r} d{number}={float(spacing[i])!r}")
        lines.append(f'\tlabel{number}="{axes[i]}" unit{number}="m"')
    lines.append(f'\tlabel="velocity" unit="{unit}" esize=4 data_format="xdr_float" in="stdin"')
    file.write("\n".join(lines).encode() + b"\n" + END_OF_HEADER)
    file.write(np.ascontiguousarray(values, dtype=">f4").data)


def _shape(header: dict[str, str]) -> list[int]:
    """Samples along axis 1, 2, ..., up to the last one that the header names."""
    shape = []
    for axis in range(1, MAX_AXES + 1):
        text = header.get(f"n{axis}")
        if text is None:
            break
        if not re.fullmatch(r"\d{1,12}", text) or int(text) < 1:
            raise FormatError(
                f"has n{axis}={shortened(text, 40)} in its header; it should be a whole number, 1 or more"
            )
        shape.append(int(text))
    if not shape:
        raise FormatError("is not an RSF header: it has no n1=")
    return shape


def _length(header: dict[str, str], key: str, scale: float) -> float | None:
    text = header.get(key)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (value == 0 and key[0] == "d"):
        raise FormatError(f"has {key}={shortened(text, 40)} in its header; it should be a number")
    return value * scale


def _samples(path: Path, header: dict[str, str], shape: list[int], offset: int | None) -> StoredArray:
    """Map the samples: behind the header at ``offset``, or in the file that the header names."""
    order, _, kind = header.get("data_format", "native_float").partition("_")
    source, place = _binary(path, header, offset)
    if order == "ascii" and kind in ("float", "double", "int"):
        return _ascii(source, place, shape)
    size = header.get("esize", "8" if kind == "double" else "2" if kind == "short" else "4")
    code = TYPES.get((kind, int(size) if size.isdecimal() and len(size) < 3 else 0))
    if code is None or order not in BYTE_ORDER:
        raise FormatError(
            f"has data_format={shortened(header.get('data_format', 'native_float'), 40)} with esize={shortened(size, 40)}, "
            "which cannot be read; native_float, xdr_float and ascii_float can (sfdd converts)"
        )
    dtype = np.dtype(BYTE_ORDER[order] + code)
    expected, found = math.prod(shape) * dtype.itemsize, source.stat().st_size - place
    if found != expected:
        counts = " x ".join(map(str, reversed(shape)))
        raise FormatError(
            f"needs {expected} bytes of samples by its header ({counts} of {dtype.itemsize} bytes), but {source} has {found}"
        )
    return np.memmap(source, dtype=dtype, mode="r", offset=place, shape=tuple(shape))


def _binary(path: Path, header: dict[str, str], offset: int | None) -> tuple[Path, int]:
    """The file with the samples, and where in it they begin."""
    name = header.get("in")
    if name is None or "\0" in name:
        raise FormatError("is not a complete RSF header: it has no in=, the file with the samples")
    if name == "stdin":
        if offset is None:
            raise FormatError('has in="stdin", but no samples follow its header')
        return path, offset
    source = path.parent / name
    try:
        return require_regular_file(source), 0
    except OSError as error:
        raise FormatError(
            f"has in={shortened(name)}, but {source} cannot be read ({error.strerror}); correct it in the header, or move "
            "the samples there"
        ) from None


def _ascii(source: Path, place: int, shape: list[int]) -> NDArray[np.float64]:
    count = math.prod(shape)
    with source.open("rb") as file:
        file.seek(place)
        words = file.read(MAX_WORD_BYTES * count).split()
    if len(words) != count:
        raise FormatError(f"needs {count} numbers by its header, but {source} has {len(words)}")
    try:
        return np.array(words, dtype=np.float64).reshape(shape)
    except ValueError as error:
        raise FormatError(f"has samples in {source} that are not numbers ({error})") from None
