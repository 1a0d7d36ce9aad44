"""Staged files: named by their content, written atomically, and verified by every reader.

A staged file has a magic line, a line of JSON (kind, size and digest of the payload, further facts), and the payload. Only a
payload with the expected digest is unpickled, and only from a file and a folder that no other user can write.
"""

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

MAGIC = b"hpcfwi staged file, version 1\n"
MAX_HEADER_BYTES = 16_000_000  # of shots with many traces that are left out
# A larger number of files is spread over 256 folders.
MAX_FILES_PER_FOLDER = 2000


@dataclass(frozen=True)
class StagedFile:
    """A staged file, by its absolute path on the shared file system, and the digest of its payload."""

    path: str
    digest: str


def digest(*parts: bytes | memoryview) -> str:
    """BLAKE2b digest of the parts, 40 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=20)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def shard_folder(folder: Path, name: str, total: int) -> Path:
    """The folder of one of ``total`` files; file systems are slow with many thousands in one folder."""
    if total <= MAX_FILES_PER_FOLDER:
        return folder
    return folder / hashlib.blake2b(name.encode(), digest_size=1).hexdigest()


def stage(
    folder: Path, kind: str, content: Any, name: str | None = None, *, sync: bool = True, **facts: Any
) -> StagedFile:
    """Pickle ``content`` into a staged file, by default ``<kind>-<digest>.pkl``; ``facts`` are more entries of its header.

    ``sync`` waits for the disk; it is False for files that a restart does not need.
    """
    payload = cloudpickle.dumps(content)
    payload_digest = digest(payload)
    path = folder / (name or f"{kind}-{payload_digest}.pkl")
    write_container(path, kind, (payload,), payload_digest, sync, **facts)
    return StagedFile(str(path), payload_digest)


def write_container(
    path: Path, kind: str, payload: Sequence[bytes | memoryview], digest: str, sync: bool = True, **facts: Any
) -> None:
    """Write a header and the parts of a payload atomically."""
    header = json.dumps({"kind": kind, "bytes": sum(map(len, payload)), "digest": digest, **facts}).encode() + b"\n"
    write_atomic(path, lambda file: file.writelines((MAGIC, header, *payload)), sync)


def load(staged: StagedFile, kind: str) -> Any:
    """Unpickle a staged file, after verifying its digest and the owners of file and folder.

    Raises
    ------
    StagingError
        If it cannot be read, is not the expected file, or cannot be trusted.
    """
    _, payload = read_container(Path(staged.path), kind, staged.digest)
    return unpickle(Path(staged.path), payload)


def unpickle(path: Path, payload: bytes) -> Any:
    """Unpickle the verified payload of ``path``; raises StagingError if a module that it needs is missing."""
    try:
        return cloudpickle.loads(payload)
    except Exception as error:
        raise StagingError(f"{path}: cannot be unpickled here ({type(error).__name__}: {error})") from error


def find_staged(path: Path, kind: str, origin: str) -> StagedFile | None:
    """Find an undamaged staged file whose header names this origin."""
    try:
        header, _ = read_container(path, kind)
    except StagingError:
        return None
    return StagedFile(str(path), str(header["digest"])) if header.get("origin") == origin else None


def read_header(path: Path) -> dict[str, Any] | None:
    """The header of a staged file; None if it is malformed or cannot be read."""
    try:
        with require_regular_file(path).open("rb") as file:
            return _header(file.read(len(MAGIC)), file.readline(MAX_HEADER_BYTES))
    except OSError:
        return None


def read_container(path: Path, kind: str, expected: str | None = None) -> tuple[dict[str, Any], bytes]:
    """The header and the verified payload of a staged file; raises StagingError as :func:`load` does."""
    try:
        with require_regular_file(path).open("rb") as file:
            for status in (os.fstat(file.fileno()), path.parent.stat()):
                problem = _accessible_to_others(status)
                if problem:
                    raise StagingError(f"{path}: is not trusted, since it or its folder {problem}")
            header = _header(file.read(len(MAGIC)), file.readline(MAX_HEADER_BYTES))
            payload = file.read()
    except OSError as error:
        raise StagingError(f"{path}: cannot be read ({error.strerror or error})") from None
    if header is None:
        raise StagingError(f"{path}: is not a staged file of hpcfwi")
    if header.get("kind") != kind:
        raise StagingError(f"{path}: holds a {shortened(repr(header.get('kind')))}, not a {kind!r}")
    if header.get("bytes") != len(payload):
        expected_bytes = shortened(str(header.get("bytes")))
        raise StagingError(f"{path}: is damaged: {len(payload)} bytes of content instead of {expected_bytes}")
    found = digest(payload)
    if found != header.get("digest"):
        wanted = shortened(str(header.get("digest")))
        raise StagingError(f"{path}: is damaged: its content has the digest {found}, its header says {wanted}")
    if expected is not None and found != expected:
        raise StagingError(f"{path}: is not the file that was staged (digest {found}, not {expected})")
    return header, payload


def _header(magic: bytes, line: bytes) -> dict[str, Any] | None:
    if magic != MAGIC or not line.endswith(b"\n"):
        return None
    try:
        header = parse_json(line)
    except ValueError:
        return None
    return header if isinstance(header, dict) else None
