"""Observed gathers as they are stored, and those in a folder of .npy files or an HDF5 file.

A folder has ``<shot>.npy`` for each shot, named by :attr:`Shot.file_name`; the plain name is accepted, too, unless it has a
slash or a percent sign. In an HDF5 file, which has a dataset for each shot, a slash in a name leads through groups.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import DataError, InputError
from hpcfwi.model.arrays import read_array
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.survey import Shot

if TYPE_CHECKING:
    import h5py

# Errors of h5py for damaged files and for other formats.
UNREADABLE = (OSError, RuntimeError, KeyError, TypeError, ValueError)
# Most names in a command that a message suggests.
MAX_ADVISED_NAMES = 20


@dataclass(frozen=True, eq=False)
class Recording:
    """The gather of a shot as it was recorded."""

    values: NDArray  # shape (samples, traces)
    interval: float  # ms
    starts: NDArray[np.float64]  # time of each trace's first sample after the shot, ms


class RecordingReader(Protocol):
    """Where the gather of a shot is stored; workers get it and read."""

    def read(self, traces: int) -> Recording:
        """Read the gather, which should have so many ``traces``; raises DataError if that is impossible."""
        ...


class Recordings(Protocol):
    """Where the gathers of a survey are stored."""

    def reader(self, name: str) -> RecordingReader:
        """The reader of a shot's gather."""
        ...


@dataclass(frozen=True)
class ArrayRecordings:
    """The gathers in a folder of .npy files or an HDF5 file."""

    path: Path
    interval: float  # of the samples, ms
    duration: float  # ms; later samples are not read

    def reader(self, name: str) -> ArrayRecording:
        """The reader of a shot's gather."""
        return ArrayRecording(self.path, name, TimeAxis.within(self.duration, self.interval))


@dataclass(frozen=True)
class ArrayRecording:
    """A gather (samples, traces) in a .npy file or a dataset of HDF5."""

    path: Path
    name: str  # of the shot
    recording: TimeAxis

    def read(self, traces: int) -> Recording:
        """Read the gather; raises DataError if it cannot be read, has another shape or does not hold numbers."""
        shot = Shot(self.name, np.zeros(0), np.zeros((0, 0)))
        with _gather(self.path, shot) as stored:
            check_shape(shot, stored.shape, self.recording, traces)  # before it is in memory
            if stored.dtype.kind not in "fiu":
                raise DataError(self.name, f"its gather in data.file holds {stored.dtype}, not real numbers")
            values = np.asarray(stored[: self.recording.samples])
        return Recording(values, self.recording.step, np.zeros(values.shape[1]))


def check_gathers(
    path: Path, shots: Sequence[Shot], recording: TimeAxis, excluded: Sequence[str] = (), quorum: float = 1.0
) -> tuple[str, ...]:
    """Check that every shot has a gather, and the shapes of three; warn if one of them is longer than the recording.

    ``excluded`` are the names in ``data.exclude``, for the message. Raises InputError if a shot has no gather, and DataError if
    the gathers of all three, or with a ``quorum`` of 1 that of the first shot, cannot be used.
    """
    try:
        if not (path.is_dir() or path.is_file()):
            raise InputError(f"data.file: {path}: no such file or folder")
        missing = _missing(path, shots)
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"data.file: {path}: is neither a folder of gathers nor a readable HDF5 file ({reason})"
        ) from None
    if missing:
        raise InputError(_missing_message(path, missing, excluded))
    errors, warnings = [], []
    checked = [shots[0], shots[len(shots) // 2], shots[-1]]
    for shot in checked:
        try:
            with _gather(path, shot) as stored:
                check_shape(shot, stored.shape, recording, len(shot.receivers))
                samples = len(stored)
        except DataError as error:
            errors.append(error)
            continue
        if samples > recording.samples:
            length = (samples - 1) * recording.step
            warnings.append(
                f"data.file: gathers are longer than data.recording_time; that of shot {shot.name} has {samples} samples "
                f"of {recording.step:g} ms ({length:g} ms), of which the first {recording.samples} are used. Correct "
                "data.sample_interval if the records are not that long"
            )
    if len(errors) == len(checked) or (errors and quorum == 1 and errors[0].shot == shots[0].name):
        raise errors[0]
    return tuple(warnings[:1])


def _missing(path: Path, shots: Sequence[Shot]) -> list[Shot]:
    if path.is_dir():
        return [shot for shot in shots if not _npy(path, shot).is_file()]
    with _hdf5(path) as file:
        for shot in shots:
            if any(part in ("", ".") for part in shot.name.split("/")):
                problem = f"the name of shot {shot.name!r} is not possible in HDF5; use a folder of .npy files"
                raise InputError(f"data.file: {path}: {problem}")
        return [shot for shot in shots if not _is_array(file.get(shot.name))]


def _missing_message(path: Path, missing: Sequence[Shot], excluded: Sequence[str]) -> str:
    wanted = f"file {missing[0].file_name}.npy" if path.is_dir() else f"dataset {missing[0].name!r}"
    more = f" (nor those of {len(missing) - 1} more shots)" if len(missing) > 1 else ""
    advice = "or exclude the shots without one (data.exclude)"
    if len(missing) <= MAX_ADVISED_NAMES:
        names = json.dumps([*excluded, *(shot.name for shot in missing)], ensure_ascii=False)
        advice = f"or exclude the shots without one: --set {shlex.quote(f'data.exclude={names}')}"
    return f"data.file: {path} has no {wanted}{more}; add a gather for every shot of the survey, {advice}"


def check_shape(shot: Shot, shape: tuple[int, ...], recording: TimeAxis, receivers: int) -> None:
    """Raise DataError unless a stored gather has a trace for each receiver, and all samples of the recording."""
    samples = recording.samples
    if len(shape) != 2 or shape[1] != receivers:
        transposed = len(shape) == 2 and shape[0] == receivers
        raise DataError(
            shot.name,
            f"its gather in data.file has the shape {shape}, but (samples, receivers) should be ({samples}, {receivers})"
            f"{'; it looks transposed' if transposed else ''}",
        )
    if shape[0] < samples:
        raise DataError(
            shot.name,
            f"its gather in data.file is {max(0, shape[0] - 1) * recording.step:g} ms long ({shape[0]} samples of "
            f"{recording.step:g} ms), but data.recording_time needs {(samples - 1) * recording.step:g} ms ({samples} samples); "
            "shorten data.recording_time, or correct data.sample_interval",
        )


@contextmanager
def _gather(path: Path, shot: Shot) -> Iterator[NDArray | h5py.Dataset]:
    """Open the stored gather of a shot; errors inside the context become a DataError of the shot."""
    try:
        if path.is_dir():
            yield read_array(_npy(path, shot), "data.file")
            return
        with _hdf5(path) as file:
            found = file[shot.name]
            if not _is_array(found):
                raise DataError(shot.name, f"data.file: {path} has no array of this name")
            yield found
    except DataError:
        raise
    except InputError as error:
        raise DataError(shot.name, str(error)) from None
    except UNREADABLE as error:
        raise DataError(shot.name, f"data.file: {path} cannot be read ({error})") from None


def _npy(folder: Path, shot: Shot) -> Path:
    encoded = folder / f"{shot.file_name}.npy"
    # a plain name with "%" could be the encoded name of another shot
    if shot.file_name == shot.name or "/" in shot.name or "%" in shot.name or encoded.is_file():
        return encoded
    plain = folder / f"{shot.name}.npy"
    return plain if plain.is_file() else encoded


def _hdf5(path: Path) -> h5py.File:
    import h5py  # few runs need it

    return h5py.File(path, "r")


def _is_array(found: object) -> bool:
    """Whether an HDF5 object is an array: not a group, a type or an empty dataset."""
    return getattr(found, "shape", None) is not None
