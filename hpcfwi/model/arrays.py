"""Arrays in .npy files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.io import require_regular_file


def open_npy(path: Path, key: str, advice: str = "") -> NDArray:
    """Memory-map a .npy file; ``key`` is the configuration key, and ``advice`` what to do if there is no such file."""
    try:
        with np.errstate(over="ignore"):  # in the size of a shape that is too large for any file
            return np.lib.format.open_memmap(require_regular_file(path), mode="r")
    except FileNotFoundError:
        raise InputError(f"{key}: {path}: no such file{advice}") from None
    except Exception as error:  # a broken header can make numpy raise anything
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"{key}: {path}: is not a readable .npy file ({reason})") from None


def read_array(path: Path, key: str) -> NDArray:
    """Memory-map a .npy file of numbers or booleans; ``key`` is the configuration key, for messages."""
    array = np.asarray(open_npy(path, key))
    if array.dtype.kind not in "fiub":
        raise InputError(f"{key}: {path}: holds {array.dtype}, not real numbers")
    return array
