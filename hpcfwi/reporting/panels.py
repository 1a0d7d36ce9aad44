"""Panels of the report: pictures of models with their axes, and what is marked on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcfwi.physics.domain import Domain
from hpcfwi.reporting.charts import Axis, dots, number
from hpcfwi.reporting.rasters import Scale, coarse, scale_of, symmetric
from hpcfwi.reporting.scene import Scene
from hpcfwi.reporting.sheet import View, finite, thin, views_of

__all__ = [
    "ColourBar",
    "Dots",
    "Panel",
    "Plate",
    "axes_of",
    "gradient_plate",
    "models_plate",
    "panels_of",
    "places",
    "planes_of",
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


def models_plate(scene: Scene) -> Plate | None:
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


def gradient_plate(scene: Scene, gradient: NDArray) -> Plate:
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


def _symbols(scene: Scene, view: View) -> tuple[Dots, ...]:
    assert scene.domain is not None
    axes = axes_of(scene.domain, view)
    # each source has a rim: symbols lie on any colour
    kinds = (("receiver", scene.receivers), ("rim", scene.sources), ("source", scene.sources))
    return tuple(Dots(look, dots(places(thinned(points, view), *axes))) for look, points in kinds)


def _covers(axis: Axis) -> str:
    low, high = sorted((axis.low, axis.high))
    name = axis.label.removesuffix(" (km)").lower()
    return f"{name} {number(low)} to {number(high)} km"
