"""Observed data: shot gathers from .npy files or HDF5, and wavelets from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.run import LARGEST
from hpcfwi.data.models import read_array
from hpcfwi.errors import DataError, InputError, anew_without

if TYPE_CHECKING:
    import h5py

__all__ = ["check_record", "check_record_shape", "check_source", "gather_shape", "read_gather", "read_wavelet"]


def _hdf5(path: Path) -> h5py.File:
    import h5py  # few runs need it

    return h5py.File(path, "r")


def check_source(path: Path, shots: list[str]) -> None:
    """Raise unless there is a gather for each shot."""
    try:
        if path.is_dir():
            missing = [name for name in shots if not (path / f"{name}.npy").is_file()]
            where = f"{path} has no file {missing[0]}.npy" if missing else ""
        elif path.is_file():
            with _hdf5(path) as file:
                missing = [name for name in shots if not hasattr(file.get(name), "dtype")]
            where = f"{path} has no dataset {missing[0]!r}" if missing else ""
        else:
            raise InputError(f"data.file: {path}: no such file or folder")
    except (OSError, RuntimeError, KeyError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"data.file: {path}: is no folder of gathers and no readable HDF5 file ({reason})") from None
    if missing:
        more = f" (nor those of {len(missing) - 1} more shots)" if len(missing) > 1 else ""
        raise InputError(f"data.file: {where}{more}; every shot of the survey needs its gather")


def read_gather(path: Path, shot: str) -> NDArray:
    """Read one shot's gather, shape (samples, receivers)."""
    try:
        if path.is_dir():
            return read_array(path / f"{shot}.npy", "data.file")
        with _hdf5(path) as file:
            return np.asarray(file[shot])
    except InputError as error:
        raise DataError(shot, str(error)) from None
    except (OSError, RuntimeError, KeyError) as error:
        raise DataError(shot, f"data.file: {path} cannot be read ({error})") from None


def check_record(shot: str, record: NDArray, samples: int, receivers: int) -> None:
    """Raise unless an observed record has the survey's shape and real, finite numbers."""
    if record.dtype.kind not in "fiu":
        raise DataError(shot, f"its record in data.file holds {record.dtype}, not real numbers")
    check_record_shape(shot, record.shape, samples, receivers)
    broken = ~(np.abs(record) <= LARGEST)
    if broken.any():
        sample, trace = np.argwhere(broken)[0]
        raise DataError(
            shot,
            f"its record in data.file has values that are NaN, infinite or beyond {LARGEST:g} ({int(broken.sum())} of "
            f"{broken.size}), the first ({record[sample, trace]:g}) at sample {sample + 1} of receiver {trace + 1}; mend "
            f"that record and start the same command again\n  Or begin anew without it: {anew_without(shot)}",
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
    with _hdf5(path) as file:
        return tuple(file[shot].shape)


def read_wavelet(path: Path) -> tuple[float, ...]:
    """Read the samples of a wavelet from .npy or from text with one number a line."""
    key = "wavelet.file"
    try:
        if path.suffix == ".npy":
            values = np.squeeze(read_array(path, key)).astype(np.float64)
        else:
            values = np.array([_sample(line, number, path) for number, line in _lines(path)])
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{key}: {path}: cannot be read ({reason}); it should be .npy, or text with one number a line"
        ) from None
    if values.ndim != 1 or values.size < 4:
        raise InputError(f"{key}: {path}: has shape {values.shape}; a wavelet has one axis of at least 4 samples")
    broken = np.flatnonzero(~np.isfinite(values))
    if broken.size:
        raise InputError(f"{key}: {path}: sample {broken[0] + 1} is {values[broken[0]]:g}, not a finite number")
    largest = float(np.abs(values).max())
    if not 1 / LARGEST <= largest <= LARGEST:
        raise InputError(
            f"{key}: {path}: its largest amplitude is {largest:g}; it should lie between {1 / LARGEST:g} and {LARGEST:g}"
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
        shown = repr(text if len(text) <= 40 else f"{text[:37]}...")
        raise InputError(f"wavelet.file: {path}, line {line}: is {shown}; it should be one number a line") from None
