"""Where the traces of a SEG-Y or Seismic Unix file lie: its headers, their contradictions, and the size of the file.

References: SEG-Y rev 0 (Barry, Cavers and Kneale 1975), rev 1 (2002), rev 2 (2017), at library.seg.org.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hpcfwi.errors import InputError
from hpcfwi.formats.segy import SAMPLE_NAMES, SAMPLE_TYPES, TRACE_HEADER_BYTES, ByteOrder, SegyFile
from hpcfwi.io import require_regular_file

SUFFIXES, SU_SUFFIXES = (".sgy", ".segy"), (".su",)
TEXT_HEADER_BYTES, BINARY_HEADER_BYTES = 3200, 400
HEADER_BYTES = TEXT_HEADER_BYTES + BINARY_HEADER_BYTES
MAX_SAMPLES, MAX_EXTENDED_HEADERS, MAX_TRACE_HEADERS = 10_000_000, 1000, 100
END_OF_TEXT = ("((SEG: EndText))", "((SEG:EndText))")
# In rev 2, bytes 3297 to 3300 hold this number, from which the byte order is known.
ENDIAN_CONSTANT = 16909060
# Bytes of the headers, counted from 1 as in the standard.
INTERVAL, SAMPLES, FORMAT, MEASUREMENT = 3217, 3221, 3225, 3255
EXTENDED_SAMPLES, EXTENDED_INTERVAL, ENDIAN, REVISION = 3269, 3273, 3297, 3501
EXTENDED_HEADERS, EXTRA_TRACE_HEADERS, FIRST_TRACE, TRAILERS = 3505, 3507, 3521, 3529
TRACE_SAMPLES, TRACE_INTERVAL = 115, 117
MEASUREMENT_UNITS: dict[int, Literal["m", "ft"]] = {1: "m", 2: "ft"}


@dataclass(frozen=True)
class Overrides:
    """What a user knows better than the file's headers; None leaves it to the file.

    ``key`` is the section of the configuration that has these names, for messages.
    """

    samples: int | None = None
    byte_order: ByteOrder | None = None
    sample_format: int | None = None
    key: str = "data.headers"


class _Bytes:
    """Numbers in a header in one byte order, by their byte in the standard."""

    def __init__(self, content: bytes, byte_order: ByteOrder, first: int) -> None:
        self.content, self.first = content, first
        self.order = ">" if byte_order == "big" else "<"

    def get(self, byte: int, code: str = "H") -> int:
        return int(struct.unpack_from(self.order + code, self.content, byte - self.first)[0])

    def get_float(self, byte: int) -> float:
        return float(struct.unpack_from(self.order + "d", self.content, byte - self.first)[0])


def is_seismic_file(path: Path) -> bool:
    """Whether a name ends as those of SEG-Y and Seismic Unix files do."""
    return path.suffix.lower() in SUFFIXES + SU_SUFFIXES


def open_segy(path: Path, overrides: Overrides = Overrides(), where: str = "data.file") -> SegyFile:
    """Find out where the traces of a SEG-Y or Seismic Unix file lie.

    Parameters
    ----------
    path
        The file; Seismic Unix if its name ends in ``.su``.
    overrides
        What the file's headers have wrong.
    where
        The key of the configuration that names the file, for messages.

    Returns
    -------
    SegyFile

    Raises
    ------
    InputError
        If it cannot be read, is not such a file, is truncated, or contradicts itself.
    """
    where = f"{where}: {path}"
    try:
        size = require_regular_file(path).stat().st_size
        with path.open("rb") as file:
            if path.suffix.lower() in SU_SUFFIXES:
                return _open_su(path, size, file.read(TRACE_HEADER_BYTES), overrides, where)
            head = file.read(HEADER_BYTES)
            if len(head) < HEADER_BYTES:
                raise InputError(
                    f"{where}: has {size} bytes, but the headers of SEG-Y alone have {HEADER_BYTES}; it is truncated, or not "
                    "SEG-Y"
                )
            extended = file.read(MAX_EXTENDED_HEADERS * TEXT_HEADER_BYTES) if _has_open_end(head) else b""
            layout = _read_binary_header(path, head, extended, size, overrides, where)
            errors = []
            for place in layout.first_traces:
                found = replace(layout.file, first_trace=place)
                file.seek(place)
                first = file.read(TRACE_HEADER_BYTES)
                try:
                    return _count_traces(found, layout.trailer, size, first, overrides, where)
                except InputError as error:
                    errors.append(error)
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error})") from None
    raise errors[0]


@dataclass(frozen=True)
class _Layout:
    """What the binary header says about the places of the traces."""

    file: SegyFile  # without the number of its traces
    first_traces: tuple[int, ...]  # bytes before the first trace: the likely number, and another one that is possible
    trailer: int  # bytes after the last trace


def _has_open_end(head: bytes) -> bool:
    """Whether the number of extended text headers is "as many as there are" (-1), in either byte order."""
    return head[EXTENDED_HEADERS - 1 : EXTENDED_HEADERS + 1] == b"\xff\xff"


def _read_binary_header(
    path: Path, head: bytes, extended: bytes, size: int, overrides: Overrides, where: str
) -> _Layout:
    order = _byte_order(head, overrides, where)
    header = _Bytes(head, order, 1)
    code = _sample_code(header, overrides, where)
    major, minor = _revision(head)
    samples, interval = header.get(SAMPLES), float(header.get(INTERVAL))
    headers, trailer, place = 1, 0, 0
    if major == 2:
        samples = header.get(EXTENDED_SAMPLES, "I") or samples
        precise = header.get_float(EXTENDED_INTERVAL)
        interval = precise if 0 < precise < 1e9 else interval
        headers += header.get(EXTRA_TRACE_HEADERS, "I")
        trailer = max(0, header.get(TRAILERS, "i")) * TEXT_HEADER_BYTES
        place = header.get(FIRST_TRACE, "Q")
        if headers > MAX_TRACE_HEADERS:
            raise InputError(f"{where}: its binary header announces {headers} headers for each trace; it is damaged")
        if place and not HEADER_BYTES <= place <= size:
            raise InputError(
                f"{where}: its binary header puts the first trace after {place} bytes, but the file has {size} and its headers "
                f"{HEADER_BYTES}; it is damaged or truncated"
            )
    places = (place,) if place else _first_traces(header, extended, major, where)
    revision = f"{major}.{minor}" if major else "0"
    unit = MEASUREMENT_UNITS.get(header.get(MEASUREMENT))
    file = SegyFile(path, order, places[0], headers * TRACE_HEADER_BYTES, 0, samples, code, interval, unit, revision)
    return _Layout(file, places, trailer)


def _revision(head: bytes) -> tuple[int, int]:
    """Major and minor revision; those of writers that take them for one number of two bytes are the other way round."""
    major, minor = head[REVISION - 1], head[REVISION]
    if major == 0:
        major, minor = minor, 0
    return (major, minor) if major in (1, 2) else (0, 0)


def _first_traces(header: _Bytes, extended: bytes, major: int, where: str) -> tuple[int, ...]:
    """Places where the first trace may be: after the extended text headers that the binary header announces."""
    count = header.get(EXTENDED_HEADERS, "h")
    if major == 0:
        # rev 0 has no such headers, but writers that do not set the revision announce some
        likely = count if 0 < count <= MAX_EXTENDED_HEADERS else 0
        return tuple(HEADER_BYTES + each * TEXT_HEADER_BYTES for each in sorted({likely, 0}, reverse=True))
    if count == -1:
        count = _extended_headers(extended, where)
    elif not 0 <= count <= MAX_EXTENDED_HEADERS:
        raise InputError(f"{where}: its binary header announces {count} extended text headers; it is damaged")
    return (HEADER_BYTES + count * TEXT_HEADER_BYTES,)


def _sample_code(header: _Bytes, overrides: Overrides, where: str) -> int:
    stored = header.get(FORMAT)
    code = overrides.sample_format or stored
    if code in SAMPLE_TYPES:
        return code
    known = ", ".join(f"{number} ({name})" for number, name in SAMPLE_NAMES.items())
    if overrides.sample_format:
        raise InputError(
            f"{overrides.key}.sample_format: is {code}, which is not read here; it should be one of {known}"
        )
    swapped = stored >> 8 | (stored & 255) << 8
    if overrides.byte_order and swapped in SAMPLE_TYPES:
        raise InputError(
            f"{where}: the sample format in its binary header is {stored} in the byte order of {overrides.key}.byte_order, "
            f"which is {overrides.byte_order}, but {swapped} ({SAMPLE_NAMES[swapped]}) in the other one; take that key out"
        )
    raise InputError(
        f"{where}: its binary header has the sample format {code}, which is not read here; it should be one of {known}. If the "
        f"header is wrong, set {overrides.key}.sample_format"
    )


def _byte_order(head: bytes, overrides: Overrides, where: str) -> ByteOrder:
    """The byte order in which the binary header makes sense."""
    if overrides.byte_order is not None:
        return overrides.byte_order
    headers: dict[ByteOrder, _Bytes] = {"big": _Bytes(head, "big", 1), "little": _Bytes(head, "little", 1)}
    for order, header in headers.items():
        if header.get(ENDIAN, "I") == ENDIAN_CONSTANT:
            return order
    # a code below 256 in one order is 256 or more in the other
    for order, header in headers.items():
        if 0 < header.get(FORMAT) < 256:
            return order
    if overrides.sample_format is not None:
        return "big"
    what = "it looks like text, not like SEG-Y." if _looks_like_text(head) else "is it SEG-Y?"
    raise InputError(
        f"{where}: the sample format in its binary header is {headers['big'].get(FORMAT)} (big-endian) or "
        f"{headers['little'].get(FORMAT)} (little-endian), but codes go from 1 to 16: {what} A file of Seismic Unix should end "
        f"in .su; if only this number is wrong, set {overrides.key}.sample_format"
    )


def _looks_like_text(head: bytes) -> bool:
    binary = head[TEXT_HEADER_BYTES:]
    return sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in binary) > 0.95 * len(binary)


def _extended_headers(content: bytes, where: str) -> int:
    """Number of extended text headers up to the one that says that it is the last."""
    for number in range(len(content) // TEXT_HEADER_BYTES):
        block = content[number * TEXT_HEADER_BYTES : (number + 1) * TEXT_HEADER_BYTES]
        for encoding in ("ascii", "cp037"):
            if block.decode(encoding, "replace").lstrip().startswith(END_OF_TEXT):
                return number + 1
    raise InputError(
        f"{where}: its binary header announces extended text headers without a number, and none of the first "
        f"{MAX_EXTENDED_HEADERS} is the last one (it would begin with {END_OF_TEXT[0]})"
    )


def _open_su(path: Path, size: int, first: bytes, overrides: Overrides, where: str) -> SegyFile:
    if len(first) < TRACE_HEADER_BYTES:
        raise InputError(f"{where}: has {size} bytes, less than the header of a trace ({TRACE_HEADER_BYTES})")
    code = overrides.sample_format or 5
    if code not in SAMPLE_TYPES:
        raise InputError(f"{overrides.key}.sample_format: is {code}; it should be one of {sorted(SAMPLE_TYPES)}")
    orders: list[ByteOrder] = [overrides.byte_order] if overrides.byte_order else ["little", "big"]
    errors, fitting, counts = [], [], {}
    for order in orders:
        header = _Bytes(first, order, 1)
        interval, counts[order] = float(header.get(TRACE_INTERVAL)), header.get(TRACE_SAMPLES)
        candidate = SegyFile(path, order, 0, TRACE_HEADER_BYTES, 0, counts[order], code, interval, None, "SU")
        try:
            fitting.append(_count_traces(candidate, 0, size, first, overrides, where))
        except InputError as error:
            errors.append(error)
    if fitting:
        # both orders fit a file of one trace, or a number of samples that the user gives: the right one has lower numbers
        return min(fitting, key=lambda file: (counts[file.byte_order], file.interval_us))
    if len(errors) == 1 or overrides.samples:
        raise errors[0]
    seen = " or ".join(f"{samples} ({order}-endian)" for order, samples in counts.items())
    raise InputError(
        f"{where}: its first trace header counts {seen} samples, and its {size} bytes are not a whole number of such traces; "
        f"it is truncated, or not of Seismic Unix. If the header is wrong, set {overrides.key}.samples"
    )


def _count_traces(found: SegyFile, trailer: int, size: int, first: bytes, overrides: Overrides, where: str) -> SegyFile:
    """Choose the number of samples that fits the size of the file; tell if headers disagree."""
    if size <= found.first_trace:
        raise InputError(f"{where}: has headers of {found.first_trace} bytes, but no traces")
    if len(first) < TRACE_HEADER_BYTES:
        raise InputError(f"{where}: ends inside the header of its first trace; it is truncated")
    is_su, width = found.revision == "SU", found.sample_type.itemsize
    content = size - found.first_trace - trailer
    in_file, in_trace = found.samples, _Bytes(first, found.byte_order, 1).get(TRACE_SAMPLES)

    def fits(samples: int) -> bool:
        return 0 < samples <= MAX_SAMPLES and content > 0 and content % (found.header_bytes + samples * width) == 0

    said = f"the first trace header says {in_trace}" if is_su else f"the binary header says {in_file} samples a trace, "
    said += "" if is_su else f"the first trace header {in_trace}"
    notes: list[str] = []
    if overrides.samples is not None:
        samples = overrides.samples
        if not fits(samples):
            raise InputError(_misfit(found, content, samples, overrides, where, said, asked=True))
    elif fits(in_file):
        samples = in_file
        if not is_su and in_trace not in (0, in_file):
            notes.append(f"{said}; the size of the file fits {in_file}, which are used")
    elif fits(in_trace):
        samples = in_trace
        notes.append(f"{said}; the size of the file fits {in_trace}, which are used")
    elif in_file == 0 and in_trace == 0:
        raise InputError(
            f"{where}: {said}; without samples there are no data. If headers are wrong, set {overrides.key}.samples"
        )
    else:
        raise InputError(_misfit(found, content, in_file or in_trace, overrides, where, said))
    traces = content // (found.header_bytes + samples * width)
    return replace(found, traces=traces, samples=samples, notes=found.notes + tuple(notes))


def _misfit(
    found: SegyFile, content: int, samples: int, overrides: Overrides, where: str, said: str, asked: bool = False
) -> str:
    """The message for a file whose size is not that of a whole number of traces."""
    size = found.header_bytes + samples * found.sample_type.itemsize
    whole, rest = divmod(max(0, content), size)
    subject = f"{overrides.key}.samples: {samples} samples do not fit {found.path}" if asked else where
    shorter = found.first_trace + whole * size
    return (
        f"{subject}: {said}, and a trace of {samples} samples has {size} bytes; but the {content} bytes after the file's "
        f"headers are {whole} traces and {rest} bytes. The file is truncated, its traces have different lengths, or the "
        f"headers are wrong: copy it again, set {overrides.key}.samples, or cut a copy after its last whole trace: truncate -s "
        f"{shorter} COPY"
    )
