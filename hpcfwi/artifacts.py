"""Files named by their content, written aside and renamed, and verified by whoever reads them.

A staged file is a line of magic, a line of JSON (kind, payload size and digest, further facts), and the payload. A reader
says which digest it expects; nothing is unpickled before the payload has proved to be that, nor from a file or folder that
somebody else could have written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from hpcfwi.errors import StagingError
from hpcfwi.io import _accessible_to_others, parse_json, require_regular_file, shortened, write_atomic

__all__ = [
    "StagedFile",
    "digest",
    "find_staged",
    "load",
    "read_container",
    "read_header",
    "shard_folder",
    "stage",
    "unpickle",
]

MAGIC = b"hpcfwi staged file, version 1\n"
MAX_HEADER_BYTES = 65536
# Files that one folder may well have; above it they are spread over 256.
MAX_FILES_PER_FOLDER = 2000


@dataclass(frozen=True)
class StagedFile:
    """A staged file and what it must contain.

    Parameters
    ----------
    path
        Absolute path on the shared file system.
    digest
        Of the payload.
    """

    path: str
    digest: str


def digest(*parts: bytes | memoryview) -> str:
    """BLAKE2b digest of the parts, 40 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=20)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def shard_folder(folder: Path, name: str, total: int) -> Path:
    """The folder for one of ``total`` files: of more than a few thousand no folder gets all, which file systems dislike."""
    return (
        folder if total <= MAX_FILES_PER_FOLDER else folder / hashlib.blake2b(name.encode(), digest_size=1).hexdigest()
    )


def stage(
    folder: Path, kind: str, content: Any, name: str | None = None, *, sync: bool = True, **facts: Any
) -> StagedFile:
    """Pickle ``content`` into ``folder`` under ``name``, by default ``<kind>-<digest>.pkl``; ``facts`` go into its header.

    What is of no use to a later start need not be brought to disk (``sync``).
    """
    payload = cloudpickle.dumps(content)
    told = digest(payload)
    path = folder / (name or f"{kind}-{told}.pkl")
    write_container(path, kind, (payload,), told, sync, **facts)
    return StagedFile(str(path), told)


def write_container(
    path: Path, kind: str, payload: Sequence[bytes | memoryview], told: str, sync: bool = True, **facts: Any
) -> None:
    """Write a header and the parts of a payload under a name that is theirs only once they are whole."""
    header = json.dumps({"kind": kind, "bytes": sum(map(len, payload)), "digest": told, **facts}).encode() + b"\n"
    write_atomic(path, lambda file: file.writelines((MAGIC, header, *payload)), sync)


def load(staged: StagedFile, kind: str) -> Any:
    """Unpickle a staged file after its owner, its folder and its digest have been verified.

    Raises
    ------
    StagingError
        Naming the file and what is wrong with it.
    """
    _, payload = read_container(Path(staged.path), kind, staged.digest)
    return unpickle(Path(staged.path), payload)


def unpickle(path: Path, payload: bytes) -> Any:
    """Unpickle the verified payload of ``path``; what it needs may still be missing here."""
    try:
        return cloudpickle.loads(payload)
    except Exception as error:
        raise StagingError(f"{path}: cannot be unpickled here ({type(error).__name__}: {error})") from error


def find_staged(path: Path, kind: str, origin: str) -> StagedFile | None:
    """A staged file that is there, sound, and says in its header that it is of this origin; else None."""
    header = read_header(path)
    if header is None or header.get("origin") != origin:
        return None
    try:
        read_container(path, kind)
    except StagingError:
        return None
    return StagedFile(str(path), str(header["digest"]))


def read_header(path: Path) -> dict[str, Any] | None:
    """The header of a staged file, or None where it is none."""
    try:
        with require_regular_file(path).open("rb") as file:
            return _header(file.read(len(MAGIC)), file.readline(MAX_HEADER_BYTES))
    except OSError:
        return None


def read_container(path: Path, kind: str, expected: str | None = None) -> tuple[dict[str, Any], bytes]:
    """Header and verified payload of a staged file."""
    try:
        with require_regular_file(path).open("rb") as file:
            for status in (os.fstat(file.fileno()), path.parent.stat()):
                problem = _accessible_to_others(status)
                if problem:
                    raise StagingError(f"{path}: is not read, since it or its folder {problem}")
            header = _header(file.read(len(MAGIC)), file.readline(MAX_HEADER_BYTES))
            payload = file.read()
    except OSError as error:
        raise StagingError(f"{path}: cannot be read ({error.strerror or error})") from None
    if header is None:
        raise StagingError(f"{path}: is no staged file of hpcfwi")
    if header.get("kind") != kind:
        raise StagingError(f"{path}: holds a {shortened(repr(header.get('kind')))}, not a {kind!r}")
    if header.get("bytes") != len(payload):
        raise StagingError(
            f"{path}: is damaged: {len(payload)} bytes of content where {shortened(str(header.get('bytes')))} belong"
        )
    found = digest(payload)
    if found != header.get("digest"):
        raise StagingError(
            f"{path}: is damaged: its content has the digest {found}, its header says "
            f"{shortened(str(header.get('digest')))}"
        )
    if expected is not None and found != expected:
        raise StagingError(f"{path}: is another file than the one that was staged (digest {found}, not {expected})")
    return header, payload


def _header(magic: bytes, line: bytes) -> dict[str, Any] | None:
    if magic != MAGIC or not line.endswith(b"\n"):
        return None
    try:
        header = parse_json(line)
    except ValueError:
        return None
    return header if isinstance(header, dict) else None
