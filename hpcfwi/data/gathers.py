"""Observed data: shot gathers from .npy files or HDF5, and wavelets from files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcfwi.data.models import read_array
from hpcfwi.errors import DataError, InputError

__all__ = ["check_record", "check_source", "read_gather", "read_wavelet"]


def check_source(path: Path, shots: list[str]) -> None:
    """Raise unless there is a gather for each shot."""
    if path.is_dir():
        missing = [name for name in shots if not (path / f"{name}.npy").is_file()]
        where = f"{path} has no file {missing[0]}.npy" if missing else ""
    elif path.is_file():
        try:
            with h5py.File(path, "r") as file:
                missing = [name for name in shots if not isinstance(file.get(name), h5py.Dataset)]
        except OSError as error:
            raise InputError(f"data.file: {path}: is no readable HDF5 file ({error})") from None
        where = f"{path} has no dataset {missing[0]!r}" if missing else ""
    else:
        raise InputError(f"data.file: {path}: no such file or folder")
    if missing:
        more = f" (nor those of {len(missing) - 1} more shots)" if len(missing) > 1 else ""
        raise InputError(f"data.file: {where}{more}; every shot of the survey needs its gather")


def read_gather(path: Path, shot: str) -> NDArray:
    """Read one shot's gather, shape (samples, receivers)."""
    try:
        if path.is_dir():
            return read_array(path / f"{shot}.npy", "data.file")
        with h5py.File(path, "r") as file:
            return np.asarray(file[shot])
    except InputError as error:
        raise DataError(shot, str(error)) from None
    except (OSError, KeyError) as error:
        raise DataError(shot, f"data.file: {path} cannot be read ({error})") from None


def check_record(shot: str, record: NDArray, samples: int, receivers: int) -> None:
    """Raise unless a record has the survey's shape and real, finite numbers."""
    if record.dtype.kind not in "fiu":
        raise DataError(shot, f"its record holds {record.dtype}, not real numbers")
    if record.shape != (samples, receivers):
        hint = "; it looks transposed" if record.shape == (receivers, samples) else ""
        raise DataError(
            shot,
            f"its record has shape {record.shape}; (samples, receivers) = ({samples}, {receivers}) follow from "
            f"data.recording_time, data.sample_interval and the geometry{hint}",
        )
    broken = ~np.isfinite(record)
    if broken.any():
        sample, trace = np.argwhere(broken)[0]
        raise DataError(
            shot,
            f"its record has {int(broken.sum())} values that are NaN or infinite, the first at sample {sample} of "
            f"receiver {trace + 1}; mend or leave out that shot",
        )


def read_wavelet(path: Path) -> tuple[float, ...]:
    """Read the samples of a wavelet from .npy or from text with one number a line."""
    key = "wavelet.file"
    try:
        if path.suffix == ".npy":
            values = np.squeeze(read_array(path, key)).astype(np.float64)
        else:
            values = np.array([float(line) for line in _lines(path)])
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{key}: {path}: cannot be read as a wavelet ({reason}); one number a line is expected"
        ) from None
    if values.ndim != 1 or values.size < 4:
        raise InputError(f"{key}: {path}: has shape {values.shape}; a wavelet has one axis of at least 4 samples")
    if not np.isfinite(values).all():
        raise InputError(f"{key}: {path}: sample {int(np.flatnonzero(~np.isfinite(values))[0])} is NaN or infinite")
    if not values.any():
        raise InputError(f"{key}: {path}: all samples are zero")
    return tuple(float(value) for value in values)


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [line for line in (raw.split("#")[0].strip() for raw in text.splitlines()) if line]
