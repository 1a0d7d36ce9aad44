"""Observed data: shot gathers from .npy files or HDF5, and wavelets from files."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.run import MAX_AMPLITUDE
from hpcfwi.errors import DataError, InputError
from hpcfwi.io import quoted, require_regular_file
from hpcfwi.model.velocity import read_array

if TYPE_CHECKING:
    import h5py

__all__ = ["check_gather", "check_gathers", "check_record_shape", "gather_shape", "read_gather", "read_wavelet"]


# What h5py raises about files that are none, or broken.
UNREADABLE = (OSError, RuntimeError, KeyError, TypeError, ValueError)
# Samples of a wavelet.
MOST_SAMPLES = 10_000_000


def _hdf5(path: Path) -> h5py.File:
    import h5py  # few runs need it

    return h5py.File(path, "r")


def check_gathers(path: Path, shots: list[str]) -> None:
    """Raise unless there is a gather for each shot."""
    try:
        if path.is_dir():
            missing = [name for name in shots if not (path / f"{name}.npy").is_file()]
            where = f"{path} has no file {missing[0]}.npy" if missing else ""
        elif path.is_file():
            with _hdf5(path) as file:
                missing = [name for name in shots if not _has_shape(file.get(name))]
            where = f"{path} has no dataset {missing[0]!r}" if missing else ""
        else:
            raise InputError(f"data.file: {path}: no such file or folder")
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"data.file: {path}: is no folder of gathers and no readable HDF5 file ({reason})") from None
    if missing:
        more = f" (nor those of {len(missing) - 1} more shots)" if len(missing) > 1 else ""
        raise InputError(
            f"data.file: {where}{more}; every shot of the survey needs its gather, or has to "
            f"be left out: --set {shlex.quote(f'data.exclude={json.dumps(missing[:20])}')}"
        )


def _has_shape(found: object) -> bool:
    """Whether what is in an HDF5 file is an array; not a group, nor a type, nor a dataset of nothing."""
    return getattr(found, "shape", None) is not None


def read_gather(path: Path, shot: str, expected: tuple[int, int] | None = None) -> NDArray:
    """Read one shot's gather, shape (samples, receivers); of another shape than is ``expected`` nothing is read."""
    try:
        if path.is_dir():
            return read_array(path / f"{shot}.npy", "data.file")
        with _hdf5(path) as file:
            if expected is not None:
                check_record_shape(shot, _shape(file, shot), *expected)
            return np.asarray(file[shot])
    except DataError:
        raise
    except InputError as error:
        raise DataError(shot, str(error)) from None
    except UNREADABLE as error:
        raise DataError(shot, f"data.file: {path} cannot be read ({error})") from None


def _shape(file: h5py.File, shot: str) -> tuple[int, ...]:
    if not _has_shape(file[shot]):
        raise DataError(shot, f"data.file: {file.filename} has no array of this name")
    return tuple(file[shot].shape)


def check_gather(shot: str, record: NDArray, samples: int, receivers: int) -> None:
    """Raise unless an observed record has the survey's shape and real, finite numbers."""
    if record.dtype.kind not in "fiu":
        raise DataError(shot, f"its record in data.file holds {record.dtype}, not real numbers")
    check_record_shape(shot, record.shape, samples, receivers)
    broken = ~(np.abs(record) <= MAX_AMPLITUDE)
    if broken.any():
        sample, trace = np.argwhere(broken)[0]
        raise DataError(
            shot,
            f"its record in data.file has values that are NaN, infinite or beyond {MAX_AMPLITUDE:g} ({int(broken.sum())} of "
            f"{broken.size}), the first ({record[sample, trace]:g}) at sample {sample + 1} of receiver {trace + 1}",
        )


def check_record_shape(shot: str, shape: tuple[int, ...], samples: int, receivers: int) -> None:
    """Raise unless an observed record has ``samples`` rows and ``receivers`` columns."""
    if shape != (samples, receivers):
        hint = "; it looks transposed" if shape == (receivers, samples) else ""
        raise DataError(
            shot,
            f"its record in data.file has shape {shape}, but {samples} samples (data.recording_time over "
            f"data.sample_interval, and 1) of {receivers} receivers, ({samples}, {receivers}), are expected{hint}",
        )


def gather_shape(path: Path, shot: str) -> tuple[int, ...]:
    """Shape of one shot's gather, without reading it."""
    if path.is_dir():
        return read_gather(path, shot).shape
    try:
        with _hdf5(path) as file:
            return _shape(file, shot)
    except UNREADABLE as error:
        raise DataError(shot, f"data.file: {path} cannot be read ({error})") from None


def read_wavelet(path: Path) -> tuple[float, ...]:
    """Read the samples of a wavelet from .npy or from text with one number a line."""
    key = "wavelet.file"
    try:
        if path.suffix == ".npy":
            values = np.squeeze(read_array(path, key))
        else:
            values = np.array([_sample(line, number, path) for number, line in _lines(require_regular_file(path))])
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{key}: {path}: cannot be read ({reason}); it should be .npy, or text with one number a line"
        ) from None
    if values.ndim != 1 or values.size < 4:
        raise InputError(f"{key}: {path}: has shape {values.shape}; a wavelet has one axis of at least 4 samples")
    if values.size > MOST_SAMPLES:
        raise InputError(f"{key}: {path}: has {values.size} samples; a wavelet has at most {MOST_SAMPLES}")
    values = values.astype(np.float64)
    broken = np.flatnonzero(~np.isfinite(values))
    if broken.size:
        raise InputError(f"{key}: {path}: sample {broken[0] + 1} is {values[broken[0]]:g}, not a finite number")
    largest = float(np.abs(values).max())
    if not 1 / MAX_AMPLITUDE <= largest <= MAX_AMPLITUDE:
        raise InputError(
            f"{key}: {path}: its largest amplitude is {largest:g}; it should lie between {1 / MAX_AMPLITUDE:g} and "
            f"{MAX_AMPLITUDE:g}"
        )
    return tuple(float(value) for value in values)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbers and contents of the lines that are not blank and no comment."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return [(number, line) for number, line in enumerate(lines, 1) if line]


def _sample(text: str, line: int, path: Path) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"wavelet.file: {path}, line {line}: is {quoted(text)}; it should be one number a line"
        ) from None
