"""Models as small pictures: a pixel for a grid point or several, a palette of 256 colours, in an address that holds all of it.

No drawing library is needed for them, and the axes around are text of the page.
"""

from __future__ import annotations

import base64
import functools
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcfwi.reporting.sheet import View, finite

__all__ = ["Scale", "coarse", "data_uri", "scale_of", "symmetric"]

# Colours at equal distances, between which there is a straight line; the last number is what stands for no number at all.
# viridis, and ColorBrewer's RdBu, as in the pictures of figures/; plasma, and a faint ground below it.
PALETTES = {
    "velocity": (
        "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c"
        " 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725"
    ),
    "difference": "67001f b2182b d6604d f4a582 fddbc7 f7f7f7 d1e5f0 92c5de 4393c3 2166ac 053061",
    "ground": "ffffff d8dce0",
    "heat": (
        "0d0887 310597 4c02a1 6600a7 7e03a8 9511a1 aa2395 bc3587 cc4778"
        " da5a6a e66c5c f0804e f89540 fdac33 fdc527 f8df25 f0f921"
    ),
}
NOTHING = (190, 190, 190)
LEVELS = 255
# Sides of a picture, in pixels.
LARGEST_SIDE = 600


@dataclass(frozen=True)
class Scale:
    """Which colour a value has.

    Parameters
    ----------
    colours
        Name of a palette.
    low, high
        Values at its ends; those beyond have the colours of the ends.
    """

    colours: str
    low: float
    high: float

    def paint(self, rows: NDArray) -> str:
        """A picture of values, the first row at the top, as a data address."""
        span = (self.high - self.low) or 1.0
        with np.errstate(all="ignore"):
            levels = np.floor((np.asarray(rows, dtype=np.float32) - self.low) / span * LEVELS)
            known = np.isfinite(levels)
            shades = np.where(known, np.clip(levels, 0, LEVELS - 1), LEVELS).astype(np.uint8)
        return data_uri(_png(shades, palette(self.colours)))

    @property
    def bar(self) -> str:
        """The palette itself, from left to right."""
        return data_uri(_png(np.arange(LEVELS, dtype=np.uint8)[None], palette(self.colours)))

    def colour(self, part: float) -> str:
        """The colour at a part of the way, as CSS has it."""
        at = 3 * min(LEVELS - 1, max(0, int(part * LEVELS)))
        return f"#{palette(self.colours)[at : at + 3].hex()}"


def scale_of(*models: NDArray, last: NDArray) -> Scale:
    """For velocities: all of some models, but for the extreme cells of the last one, which has spikes at the sources."""
    values = np.concatenate([finite(model) for model in models] + [_without_extremes(finite(last))])
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    margin = 0.05 if low == high else 0.0
    return Scale("velocity", low - margin, high + margin)


def symmetric(*differences: NDArray, percent: float = 99.5) -> Scale:
    """For differences: as much above zero as below."""
    sizes = np.concatenate([np.abs(finite(values)) for values in differences])
    limit = float((sizes.size and (np.percentile(sizes, percent) or sizes.max())) or 1.0)
    return Scale("difference", -limit, limit)


def coarse(view: View, values: NDArray, most: int) -> NDArray:
    """The plane of a view, every k-th row and column so that there are at most so many values."""
    plane = view.plane(values)
    step = max(1, math.ceil(max(plane.shape) / LARGEST_SIDE))
    while math.prod(-(-side // step) for side in plane.shape) > most:
        step += 1
    return plane[::step, ::step]


def _without_extremes(values: NDArray) -> NDArray:
    return np.percentile(values, (0.5, 99.5)) if values.size else values


@functools.cache
def palette(name: str) -> bytes:
    """256 colours of three bytes."""
    stops = np.array([list(bytes.fromhex(colour)) for colour in PALETTES[name].split()], dtype=float)
    at = np.linspace(0, len(stops) - 1, LEVELS)
    colours = np.stack([np.interp(at, np.arange(len(stops)), channel) for channel in stops.T], axis=-1)
    return bytes(colours.round().astype(np.uint8).tobytes()) + bytes(NOTHING)


def _png(shades: NDArray[np.uint8], colours: bytes) -> bytes:
    """A picture of one byte a pixel (ISO/IEC 15948)."""
    height, width = shades.shape
    lines = np.zeros((height, width + 1), dtype=np.uint8)  # before each line the number of its filter: none
    lines[:, 1:] = shades
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", colours), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def data_uri(png: bytes) -> str:
    """A picture as an address."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
