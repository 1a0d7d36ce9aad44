"""Files named by their content, written aside and renamed, and verified by whoever reads them.

A staged file is a line of magic, a line of JSON (kind, payload size and digest, further facts), and the payload. A reader
says which digest it expects; nothing is unpickled before the payload has proved to be that, nor from a file or folder that
somebody else could have written.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from hpcfwi.errors import InputError, StagingError
from hpcfwi.files import parse_json, regular, shortened

__all__ = [
    "StagedFile",
    "digest",
    "find_staged",
    "load",
    "make_private",
    "read_container",
    "read_header",
    "shard",
    "stage",
    "sweep",
    "unpickle",
    "write_aside",
]

MAGIC = b"hpcfwi staged file, version 1\n"
LONGEST_HEADER = 65536
UNFINISHED = ".part"
# Files that one folder may well have; above it they are spread over 256.
CROWD = 2000


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


def shard(folder: Path, name: str, total: int) -> Path:
    """The folder for one of ``total`` files: of more than a few thousand no folder gets all, which file systems dislike."""
    return folder if total <= CROWD else folder / hashlib.blake2b(name.encode(), digest_size=1).hexdigest()


def write_aside(path: Path, write: Callable[[Any], object], sync: bool = True) -> None:
    """Let ``write`` fill a temporary file in the same folder, bring it to disk and give it its name.

    Without ``sync`` it may be lost or torn with the machine (not with the process), which its reader has to expect.

    Raises
    ------
    StagingError
        If the file system refuses; what was half written is removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=UNFINISHED, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            Path(temporary).replace(path)
            if sync:
                _sync_folder(path.parent)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StagingError(
            f"{path}: cannot be written ({error.strerror or error}); make room or mend it, then start the same command again"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk, where the file system can do that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left half-written; to be called while nobody writes."""
    for left in folder.rglob(f".*{UNFINISHED}"):
        with suppress(OSError):  # a folder of this name, say, is none of ours
            left.unlink(missing_ok=True)


def make_private(folder: Path) -> Path:
    """Make a folder that only its owner can enter.

    Raises
    ------
    InputError
        If it cannot be made, or belongs to somebody else, or others may write to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(0o700)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made or used ({error.strerror}); choose a folder that you can write to with --run-dir"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: cannot be written to; choose another folder with --run-dir")
    problem = _open_to_others(folder.stat())
    if problem:
        raise InputError(f"{folder}: {problem}; choose a folder of your own with --run-dir")
    return folder


def _open_to_others(status: os.stat_result) -> str | None:
    """Why a file or folder cannot be trusted, or None."""
    if status.st_uid not in (os.geteuid(), 0):
        return "belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by other users"
    return None


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
    write_aside(path, lambda file: file.writelines((MAGIC, header, *payload)), sync)


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
        with regular(path).open("rb") as file:
            return _header(file.read(len(MAGIC)), file.readline(LONGEST_HEADER))
    except OSError:
        return None


def read_container(path: Path, kind: str, expected: str | None = None) -> tuple[dict[str, Any], bytes]:
    """Header and verified payload of a staged file."""
    try:
        with regular(path).open("rb") as file:
            for status in (os.fstat(file.fileno()), path.parent.stat()):
                problem = _open_to_others(status)
                if problem:
                    raise StagingError(f"{path}: is not read, since it or its folder {problem}")
            header = _header(file.read(len(MAGIC)), file.readline(LONGEST_HEADER))
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
