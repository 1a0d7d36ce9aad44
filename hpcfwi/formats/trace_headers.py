"""Header fields of SEG-Y traces, and their values for all traces of a file, without the samples.

The values of a large file are kept in files of a cache folder, a column for each field, which are mapped to memory: the
headers of a survey are spread over all of its bytes, and every command needs them.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.formats.segy import TRACE_HEADER_BYTES, SegyFile, file_stamp
from hpcfwi.io import quoted

# Standard fields of four bytes; the others have two (SEG-Y rev 1 and 2, table 3).
FOUR_BYTE_FIELDS = {
    *range(1, 29, 4),
    *range(37, 69, 4),
    *range(73, 89, 4),
    *range(181, 201, 4),
    205,
    219,
    225,
    233,
    237,
}
FIELD_TYPES = {"int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"}
# The standard has them as signed numbers, but they are counts, and files with long traces use all 16 bits.
UNSIGNED_FIELDS = {115, 117}
# Files of fewer traces are read again each time.
MIN_CACHED_TRACES = 200_000
# Larger traces are skipped between headers; smaller ones are read with them, in blocks of so many bytes. The heap would keep
# larger blocks: 16 MB leave a driver 60 MB larger for the rest of its life.
MAX_READ_TRACE_BYTES, BLOCK_BYTES = 65536, 1_000_000
READER_THREADS = 4


@dataclass(frozen=True)
class HeaderField:
    """A number in the header of each trace."""

    name: str  # as the user or the standard calls it
    byte: int  # its first one, counted from 1
    type: str  # a value of FIELD_TYPES

    @property
    def width(self) -> int:
        """Bytes."""
        return int(self.type[1:])

    def __str__(self) -> str:
        return f"{self.name} (byte {self.byte})" if not self.name[:1].isdigit() else f"byte {self.name}"


def standard_fields() -> dict[str, int]:
    """First bytes of the standard's fields by segyio's names, such as ``SourceX`` and ``FieldRecord``."""
    from segyio import tracefield

    return dict(tracefield.keys)


def parse_field(text: str | int, key: str) -> HeaderField:
    """Find a header field.

    Parameters
    ----------
    text
        Its name in segyio, of any case; its first byte (of a standard field, or else of four bytes); or ``byte:type`` with a
        type of :data:`FIELD_TYPES`, such as ``"181:float32"``.
    key
        The key of the configuration, for the message.

    Raises
    ------
    InputError
        If there is no such field.
    """
    standard = standard_fields()
    word = str(text).strip()
    by_name = {name.lower(): name for name in standard}
    if word.lower() in by_name:
        name = by_name[word.lower()]
        return HeaderField(name, standard[name], _standard_type(standard[name]))
    number, colon, kind = word.partition(":")
    if number.isascii() and number.isdigit() and len(number) <= 9 and (not colon or kind in FIELD_TYPES):
        byte, stored = int(number), FIELD_TYPES[kind] if colon else None
        by_byte = {first: name for name, first in standard.items()}
        if stored is None:
            stored = _standard_type(byte) if byte in by_byte else "i4"
        if 1 <= byte <= TRACE_HEADER_BYTES + 1 - int(stored[1:]):
            return HeaderField(word if colon else by_byte.get(byte, word), byte, stored)
        raise InputError(
            f"{key}: is {text!r}, {stored[1:]} bytes from byte {byte} on, but a trace header has the bytes 1 to "
            f"{TRACE_HEADER_BYTES}"
        )
    near = get_close_matches(word, [*standard], n=1, cutoff=0.5)
    hint = f' Did you mean "{near[0]}"?' if near else ""
    raise InputError(
        f'{key}: is {quoted(word)}; it should be the name of a header field such as "SourceX" or "FieldRecord", its first '
        f'byte, or "byte:type" with the type {", ".join(FIELD_TYPES)}.{hint}'
    )


def _standard_type(byte: int) -> str:
    if byte in UNSIGNED_FIELDS:
        return "u2"
    return "i4" if byte in FOUR_BYTE_FIELDS else "i2"


def read_columns(
    file: SegyFile, fields: Sequence[HeaderField], cache: Path | None = None, where: str = "data.file"
) -> dict[HeaderField, NDArray]:
    """Values of header fields for all traces of a file, in its order.

    Parameters
    ----------
    file, fields
        What to read.
    cache
        Folder for the columns of large files; by default ``hpcfwi/headers`` in the user's cache folder (``XDG_CACHE_HOME``).
    where
        The key of the configuration that names the file, for messages.

    Returns
    -------
    dict
        For each field an array of shape (traces,), in this machine's byte order; read-only, and of a large file a map of a
        cached file. A field with one value in all traces takes no memory.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    wanted = list(dict.fromkeys(fields))
    if file.traces < MIN_CACHED_TRACES:
        arrays = {field: np.empty(file.traces, _native(field)) for field in wanted}
        _fill(file, arrays, where)
        return {field: _compact(array) for field, array in arrays.items()}
    with _cache_folder(file, cache) as folder:
        found = {field: _load(folder, file, field) for field in wanted}
        missing = [field for field, column in found.items() if column is None]
        if missing:
            _cache(file, missing, folder, where)
        loaded = {field: _load(folder, file, field) for field in wanted}
        return {field: column for field, column in loaded.items() if column is not None}


def release(column: NDArray) -> None:
    """Let go of the pages of a mapped column, which count as memory of this process; the next access maps them again."""
    base: object = column
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def _native(field: HeaderField) -> np.dtype:
    return np.dtype(field.type)


def _is_constant(column: NDArray) -> bool:
    step = 1_000_000
    return all(bool((column[i : i + step] == column[0]).all()) for i in range(0, len(column), step))


def _compact(column: NDArray) -> NDArray:
    """The column without memory of its own if all values are the same."""
    if len(column) and _is_constant(column):
        return np.broadcast_to(column[:1].copy(), column.shape)
    column.flags.writeable = False
    return column


def _fill(file: SegyFile, columns: dict[HeaderField, NDArray], where: str) -> None:
    """Read the headers of all traces, and put the fields into the columns."""
    order = ">" if file.byte_order == "big" else "<"
    stride = TRACE_HEADER_BYTES if file.trace_bytes > MAX_READ_TRACE_BYTES else file.trace_bytes
    record = np.dtype(
        {
            "names": [f"f{i}" for i in range(len(columns))],
            "formats": [f"{order}{field.type}" for field in columns],
            "offsets": [field.byte - 1 for field in columns],
            "itemsize": stride,
        }
    )
    block = max(1, BLOCK_BYTES // stride)

    def read(first: int) -> None:
        count = min(block, file.traces - first)
        start = file.first_trace + first * file.trace_bytes
        if stride == file.trace_bytes:
            content = _read_exactly(descriptor, count * stride, start)
        else:
            content = b"".join(_read_exactly(descriptor, stride, start + i * file.trace_bytes) for i in range(count))
        headers = np.frombuffer(content, record)
        for i, column in enumerate(columns.values()):
            column[first : first + count] = headers[f"f{i}"]

    try:
        descriptor = os.open(file.path, os.O_RDONLY)
        try:
            with ThreadPoolExecutor(READER_THREADS) as pool:
                for _ in pool.map(read, range(0, file.traces, block)):
                    pass
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"{where}: {file.path}: cannot be read ({error.strerror or error})") from None


def _read_exactly(descriptor: int, count: int, start: int) -> bytes:
    content = os.pread(descriptor, count, start)
    while len(content) < count:  # a signal, or a file system that returns less at once
        more = os.pread(descriptor, count - len(content), start + len(content))
        if not more:
            raise OSError("it has become shorter while it was read")
        content += more
    return content


@contextmanager
def _cache_folder(file: SegyFile, cache: Path | None) -> Iterator[Path]:
    """The folder with the columns of a file; a temporary one, if the cache cannot be written."""
    parent = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpcfwi" / "headers"
    source = json.dumps([*file_stamp(file.path), file.first_trace, file.trace_bytes, file.byte_order])
    folder = parent / hashlib.blake2b(source.encode(), digest_size=10).hexdigest()
    if _can_cache(folder, source, 4 * file.traces):
        yield folder
        return
    # the columns stay mapped after the files are gone
    with tempfile.TemporaryDirectory(prefix="hpcfwi-headers-") as temporary:
        yield Path(temporary)


def _can_cache(folder: Path, source: str, needed: int) -> bool:
    """Make a folder for the columns of a file, and whether they may be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "source").write_text(source, encoding="utf-8")
        _forget_changed_files(folder.parent)
        return shutil.disk_usage(folder).free > 20 * needed and os.access(folder, os.W_OK)
    except OSError:
        return False


def _forget_changed_files(parent: Path) -> None:
    """Remove the columns of files that are gone or have changed."""
    for source in parent.glob("*/source"):
        with suppress(OSError, ValueError, TypeError):
            path, *version = json.loads(source.read_text(encoding="utf-8"))[:3]
            if not Path(path).exists() or list(file_stamp(Path(path))[1:]) != version:
                shutil.rmtree(source.parent)


def _cache(file: SegyFile, fields: Sequence[HeaderField], folder: Path, where: str) -> None:
    """Write columns to a folder; those of one value only once."""
    new = {field: _create(folder, file, field) for field in fields}
    try:
        _fill(file, {field: column for field, (_, column) in new.items()}, where)
        for field in fields:
            temporary, column = new[field]
            column.flush()
            if _is_constant(column):
                np.save(temporary, column[:1].copy())
            temporary.replace(_column_path(folder, field))
    finally:
        for temporary, _ in new.values():
            temporary.unlink(missing_ok=True)


def _column_path(folder: Path, field: HeaderField) -> Path:
    return folder / f"{field.byte}-{field.type}.npy"


def _create(folder: Path, file: SegyFile, field: HeaderField) -> tuple[Path, np.memmap]:
    handle, name = tempfile.mkstemp(prefix=f".{field.byte}.", suffix=".npy", dir=folder)
    os.close(handle)
    return Path(name), np.lib.format.open_memmap(name, "w+", _native(field), (file.traces,))


def _load(folder: Path, file: SegyFile, field: HeaderField) -> NDArray | None:
    """A column that is in the folder; None if it is missing or damaged."""
    try:
        column = np.load(_column_path(folder, field), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if column.dtype != _native(field) or column.shape not in ((file.traces,), (1,)):
        return None
    return np.broadcast_to(np.asarray(column), (file.traces,)) if len(column) == 1 else column.view(np.ndarray)
