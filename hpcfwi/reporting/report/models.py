"""Panels of the report: pictures of models with their axes, and what is marked on them."""

from __future__ import annotations

import base64
import functools
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcfwi.model.grid import Domain
from hpcfwi.reporting.panels import View, finite, thin, views_of
from hpcfwi.reporting.report.charts import Axis, dots, number
from hpcfwi.reporting.report.data import RunModels

__all__ = [
    "ColourBar",
    "Dots",
    "Panel",
    "Plate",
    "Scale",
    "axes_of",
    "coarse",
    "data_uri",
    "gradient_plate",
    "models_plate",
    "panels_of",
    "places",
    "planes_of",
    "scale_of",
    "symmetric",
    "thinned",
]

# Pixels of a model; a symbol in so many of the area's width.
MOST_PIXELS, APART = 300_000, 70


@dataclass(frozen=True)
class Dots:
    """Symbols of one kind: a path of points, its class in the style sheet, and a colour where it is not that of the class."""

    look: str
    path: str
    colour: str = ""


@dataclass(frozen=True)
class Panel:
    """A picture with axes.

    Parameters
    ----------
    title
        What it shows; its view, too, in 3-D.
    alt
        The same in words, with its numbers.
    picture
        Data address.
    x, y
        Axes, km.
    marks
        Symbols above it.
    """

    title: str
    alt: str
    picture: str
    x: Axis
    y: Axis
    marks: tuple[Dots, ...] = ()

    @property
    def aspect(self) -> float:
        """Width over height, in truth."""
        return abs((self.x.high - self.x.low) / (self.y.high - self.y.low))


@dataclass(frozen=True)
class ColourBar:
    """What the colours mean; ``given`` is the axis along it where that is not an even one."""

    scale: Scale
    label: str
    given: Axis | None = None

    @property
    def axis(self) -> Axis:
        return self.given or Axis(self.label, self.scale.low, self.scale.high, most=5)

    @property
    def alt(self) -> str:
        """In words."""
        names = {"velocity": ("violet", "yellow"), "difference": ("red", "blue"), "heat": ("dark blue", "yellow")}
        low, high = names[self.scale.colours]
        return f"Colours from {low} ({number(self.axis.low)}) to {high} ({number(self.axis.high)}): {self.label}"


@dataclass(frozen=True)
class Plate:
    """Panels on one scale.

    Parameters
    ----------
    panels
        Row by row.
    bar
        Of all of them.
    symbols
        Whether sources and receivers are marked.
    """

    panels: list[Panel]
    bar: ColourBar
    symbols: bool = False


def planes_of(domain: Domain, values: NDArray, most: int = MOST_PIXELS) -> list[NDArray[np.float32]]:
    """What is shown of a model: all of it in 2-D, three slices in 3-D; together no more points than so many pixels."""
    views = views_of(domain)
    return [coarse(view, values, most // len(views)).astype(np.float32) for view in views]


def panels_of(domain: Domain, planes: Sequence[NDArray], scale: Scale, title: str, told: str, unit: str) -> list[Panel]:
    """A panel for each plane of :func:`planes_of`."""
    found = np.concatenate([finite(plane) for plane in planes])
    span = f"from {number(found.min())} to {number(found.max())} {unit}" if found.size else "no numbers"
    panels = []
    for view, plane in zip(views_of(domain), planes, strict=True):
        name = f"{title}, {view.title}" if view.title else title
        across, down = axes_of(domain, view)
        alt = f"{told}{f', slice {view.title}' if view.title else ''}: {span}; {_covers(across)}, {_covers(down)}"
        panels.append(Panel(name, alt, scale.paint(plane), across, down))
    return panels


def axes_of(domain: Domain, view: View) -> tuple[Axis, Axis]:
    """Axes of a view: across the page, and up it."""
    names = ["Distance", "Depth"] if domain.ndim == 2 else ["Distance x", "Distance y", "Depth"]
    left, right, bottom, top = view.extent
    flat = view.size[0] > 3 * view.size[1]
    return (
        Axis(f"{names[view.across]} (km)", left, right, most=7),
        Axis(f"{names[view.down]} (km)", bottom, top, most=4 if flat else 6),
    )


def models_plate(scene: RunModels) -> Plate | None:
    """True, initial and final (or current) model, as far as they are known, with the survey."""
    last = scene.velocity if scene.velocity is not None else scene.initial
    if scene.domain is None or last is None:
        return None
    name = "Final model" if scene.done else "Current model"
    models = {"True model": scene.true, "Initial model": scene.initial, name: scene.velocity}
    known = {title: values for title, values in models.items() if values is not None}
    *others, _ = known.values()
    scale = scale_of(*others, last=last)
    panels = [
        panel
        for title, values in known.items()
        for panel in panels_of(
            scene.domain, planes_of(scene.domain, values), scale, title, f"{title}, P-wave velocity", "km/s"
        )
    ]
    if scene.shots:
        views = views_of(scene.domain)
        symbols = [_symbols(scene, view) for view in views]
        panels = [replace(panel, marks=symbols[i % len(views)]) for i, panel in enumerate(panels)]
    return Plate(panels, ColourBar(scale, "P-wave velocity (km/s)"), bool(scene.shots))


def gradient_plate(scene: RunModels, gradient: NDArray) -> Plate:
    """The gradient at the initial model."""
    assert scene.domain is not None
    frozen = scene.frozen
    # it is largest at sources and receivers, by far
    free = gradient if frozen is None or frozen.all() else gradient[~frozen]
    scale = symmetric(free, percent=98)
    told = "Gradient of the misfit with respect to squared slowness at the initial model"
    panels = panels_of(
        scene.domain, planes_of(scene.domain, gradient), scale, "First gradient", told, "misfit per (s/km)²"
    )
    return Plate(panels, ColourBar(scale, "Misfit per (s/km)²"))


def thinned(points: NDArray, view: View) -> NDArray:
    """Positions, m, on a view, km; where they are dense only some of them."""
    shown = np.atleast_2d(points)[:, [view.across, view.down]] / 1000
    return thin(shown, view.size[0] / APART)


def places(points: ArrayLike, across: Axis, down: Axis) -> NDArray:
    """Where points, km, are in the area, percent from its left and its top."""
    x, y = np.asarray(points, dtype=float).T
    return np.stack([across.place(x), 100 - down.place(y)], axis=-1)


def _symbols(scene: RunModels, view: View) -> tuple[Dots, ...]:
    assert scene.domain is not None
    axes = axes_of(scene.domain, view)
    # each source has a rim: symbols lie on any colour
    kinds = (("receiver", scene.receivers), ("rim", scene.sources), ("source", scene.sources))
    return tuple(Dots(look, dots(places(thinned(points, view), *axes))) for look, points in kinds)


def _covers(axis: Axis) -> str:
    low, high = sorted((axis.low, axis.high))
    name = axis.label.removesuffix(" (km)").lower()
    return f"{name} {number(low)} to {number(high)} km"


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
