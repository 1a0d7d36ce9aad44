"""Models in the report: coloured images under axes by matplotlib; and the model of every iteration, from the journal."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import StagingError
from hpcfwi.inversion.history import Row
from hpcfwi.inversion.journal import Entry, entries
from hpcfwi.inversion.misfit import FunctionalGradient
from hpcfwi.model.grid import Domain
from hpcfwi.model.velocity import velocity_from
from hpcfwi.reporting.figures import gradient_limits
from hpcfwi.reporting.formatting import counted, number
from hpcfwi.reporting.plotting import (
    DIFFERENCE_COLOURS,
    VELOCITY_COLOURS,
    Limits,
    Slice,
    axis_names,
    finite,
    label_axes,
    new_figure,
    slices_of,
    symmetric_limits,
    velocity_limits,
)
from hpcfwi.reporting.report.charts import data_uri, draw_svg
from hpcfwi.reporting.report.data import RunModels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Frame", "ModelHistory", "Panel", "PanelGroup", "Scale", "gradient_group", "model_history", "models_group"]

# Pixels of a model and of its longer side; iterations in the slider, pixels of all their images together, and bytes of
# the journal that are read for them.
MAX_PIXELS, MAX_SIDE, MAX_FRAMES, MAX_HISTORY_PIXELS, MAX_BYTES = 300_000, 600, 60, 4_000_000, 3_000_000_000
# An image has so many colours, and a last one for cells without a value.
LEVELS, MISSING_COLOUR = 255, (190, 190, 190)
# Inches: width of a panel and of a flat one, the largest height, and room for labels left of, below and around it.
PANEL, FLAT_PANEL, MAX_HEIGHT, LEFT, BELOW, AROUND = 2.9, 6.4, 4.4, 0.62, 0.5, 0.1
COLOUR_NAMES = {VELOCITY_COLOURS: ("violet", "yellow"), DIFFERENCE_COLOURS: ("red", "blue")}
FIRST_GRADIENT = "Gradient of the misfit with respect to squared slowness at the initial model"


@dataclass(frozen=True)
class Scale:
    """Colours of values between two limits; values beyond them have the colours of the limits."""

    colours: str
    limits: Limits
    label: str
    unit: str

    def paint(self, values: NDArray) -> str:
        """An image of values, the first row at the top, as the address of a PNG with a palette."""
        from matplotlib import colormaps
        from PIL import Image

        low, high = self.limits
        with np.errstate(all="ignore"):
            levels = np.floor((np.asarray(values, dtype=np.float32) - low) / ((high - low) or 1.0) * LEVELS)
            levels = np.where(np.isfinite(levels), np.clip(levels, 0, LEVELS - 1), LEVELS).astype(np.uint8)
        image, file = Image.fromarray(levels), io.BytesIO()
        palette = np.round(255 * colormaps[self.colours](np.linspace(0, 1, LEVELS))[:, :3]).astype(np.uint8)
        image.putpalette([*palette.ravel().tolist(), *MISSING_COLOUR])
        image.save(file, "PNG")
        return data_uri(file.getvalue(), "png")

    @property
    def bar(self) -> str:
        """The colour bar."""

        def build() -> Figure:
            from matplotlib.cm import ScalarMappable
            from matplotlib.colors import Normalize
            from matplotlib.ticker import MaxNLocator

            figure = new_figure((3.9, 0.62), None)
            axes = figure.add_axes((0.06, 0.68, 0.88, 0.26))
            colours = ScalarMappable(Normalize(*self.limits), self.colours)
            ticks = MaxNLocator(5, steps=[1, 2, 5, 10])
            figure.colorbar(colours, cax=axes, orientation="horizontal", label=self.label, ticks=ticks)
            return figure

        return draw_svg(build)

    @property
    def alt(self) -> str:
        """The colour bar in words."""
        (first, last), (low, high) = COLOUR_NAMES[self.colours], self.limits
        return f"Colours from {first} ({number(low)}) to {last} ({number(high)}): {self.label}"


@dataclass(frozen=True)
class Frame:
    """The axes of a slice, to lie above its image.

    Parameters
    ----------
    picture
        Address of an SVG, transparent where the image is.
    inches
        Width and height.
    box
        Left, top, width and height of the image's place, percent.
    extent
        What the axes cover, in words.
    """

    picture: str
    inches: tuple[float, float]
    box: tuple[float, float, float, float]
    extent: str

    @classmethod
    def draw(cls, domain: Domain, plane: Slice, models: RunModels | None = None) -> Frame:
        """Draw the axes and, where they are given, the sources and receivers of a run."""
        aspect = plane.size[0] / plane.size[1]
        width = min(FLAT_PANEL if aspect > 2 else PANEL, MAX_HEIGHT * aspect)
        inches = (width, width / aspect)
        total = (LEFT + width + 2 * AROUND, BELOW + width / aspect + AROUND)
        left, top, across, down = LEFT / total[0], AROUND / total[1], width / total[0], inches[1] / total[1]

        def build() -> Figure:
            figure = new_figure(total, None)
            axes = figure.add_axes((left, 1 - top - down, across, down))
            axes.set(xlim=plane.extent[:2], ylim=plane.extent[2:])
            label_axes(axes, domain, plane, inches)
            if models is not None:
                spacing = 0.14 * plane.size[0] / width
                receivers, sources = (plane.project(p, spacing) for p in (models.receivers, models.sources))
                style: dict[str, Any] = {"linewidths": 0.5, "clip_on": False}
                axes.scatter(
                    receivers[:, 0], receivers[:, 1], marker="v", s=13, c="white", edgecolors="black", zorder=3, **style
                )
                axes.scatter(
                    sources[:, 0], sources[:, 1], marker="*", s=55, c="red", edgecolors="white", zorder=4, **style
                )
            return figure

        names, (west, east, *vertical) = axis_names(domain), plane.extent
        extent = (
            f"{names[plane.across].lower()} {number(west)} to {number(east)} km, "
            f"{names[plane.down].lower()} {number(min(vertical))} to {number(max(vertical))} km"
        )
        return cls(draw_svg(build), total, (100 * left, 100 * top, 100 * across, 100 * down), extent)


@dataclass(frozen=True)
class Panel:
    """An image of a slice of a model, with its axes."""

    title: str
    alt: str
    image: str
    frame: Frame


@dataclass(frozen=True)
class PanelGroup:
    """Panels on one scale."""

    panels: list[Panel]
    scale: Scale
    survey: bool = False  # whether sources and receivers are marked


def models_group(models: RunModels) -> PanelGroup | None:
    """True, initial and final (or current) model, as far as they are known, with the survey; None without a model."""
    domain, latest = models.domain, models.latest
    if domain is None or latest is None:
        return None
    name = "Final model" if models.done else "Current model"
    candidates = {"True model": models.true, "Initial model": models.initial, name: models.velocity}
    known = {title: values for title, values in candidates.items() if values is not None}
    *others, _ = known.values()
    scale = Scale(VELOCITY_COLOURS, velocity_limits(*others, last=latest), "P-wave velocity (km/s)", "km/s")
    frames = [Frame.draw(domain, plane, models if models.shots else None) for plane in slices_of(domain)]
    panels = [
        panel
        for title, values in known.items()
        for panel in _panels(domain, _planes(domain, values), frames, scale, title, f"{title}, P-wave velocity")
    ]
    return PanelGroup(panels, scale, bool(models.shots))


def gradient_group(models: RunModels, gradient: NDArray) -> PanelGroup:
    """The gradient at the initial model."""
    domain = models.domain
    assert domain is not None
    limits = gradient_limits(gradient, models.frozen)
    scale = Scale(DIFFERENCE_COLOURS, limits, "Misfit per (s/km)²", "misfit per (s/km)²")
    frames = [Frame.draw(domain, plane) for plane in slices_of(domain)]
    return PanelGroup(
        _panels(domain, _planes(domain, gradient), frames, scale, "First gradient", FIRST_GRADIENT), scale
    )


def _planes(domain: Domain, values: NDArray, pixels: int = MAX_PIXELS) -> list[NDArray[np.float32]]:
    """The slices of a model, every k-th point of them, so that they have at most so many points together."""
    slices = slices_of(domain)
    planes = []
    for plane in (each.plane(values) for each in slices):
        step = max(1, math.ceil(max(plane.shape) / MAX_SIDE))
        while math.prod(-(-side // step) for side in plane.shape) > pixels // len(slices):
            step += 1
        planes.append(plane[::step, ::step].astype(np.float32))
    return planes


def _panels(
    domain: Domain, planes: Sequence[NDArray], frames: Sequence[Frame], scale: Scale, title: str, meaning: str
) -> list[Panel]:
    """A panel for each slice."""
    values = np.concatenate([finite(plane) for plane in planes])
    span = f"from {number(values.min())} to {number(values.max())} {scale.unit}" if values.size else "no numbers"
    panels = []
    for each, plane, frame in zip(slices_of(domain), planes, frames, strict=True):
        where = f", slice {each.title}" if each.title else ""
        name = ", ".join(filter(None, (title, each.title)))
        panels.append(Panel(name, f"{meaning}{where}: {span}; {frame.extent}", scale.paint(plane), frame))
    return panels


@dataclass
class ModelHistory:
    """The model of every iteration.

    Parameters
    ----------
    groups
        Panels of the last iteration: its model and, where another is known, its difference to that.
    frames
        For each iteration a label, and the image and text of every panel, as the script of the page takes them.
    gradient
        The first gradient; None where the journal does not have it.
    notes
        What is left out, and why.
    """

    groups: list[PanelGroup] = field(default_factory=list)
    frames: list[dict[str, Any]] = field(default_factory=list)
    gradient: NDArray | None = None
    notes: list[str] = field(default_factory=list)


def model_history(journal: Path, rows: Sequence[Row], models: RunModels) -> ModelHistory:
    """Look the models of the iterations up in a journal and draw them; of long runs, and of large models, some of them."""
    history = ModelHistory()
    domain = models.domain
    if domain is None or not rows:
        return history
    found, damaged = entries(journal)
    if not found:
        history.notes.append(
            f"There is no slider: the journal, which holds the models, is missing or empty ({journal})."
        )
        return history
    count = int(np.clip(MAX_BYTES // max(entry.bytes for entry in found), 2, MAX_FRAMES))
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
    if len(chosen) < len(rows):
        history.notes.append(f"{len(chosen)} of {counted(len(rows), 'model')} are shown, including the initial one.")
    reader = _JournalReader(found, rows, domain, damaged)
    pixels = MAX_HISTORY_PIXELS // (2 * len(chosen))
    shown: list[tuple[Row, list[NDArray]]] = []
    for place in map(int, chosen):
        recorded = reader.read(place)
        if recorded is None:
            continue
        answer, m = recorded
        with np.errstate(all="ignore"):
            velocity = velocity_from(m.reshape(domain.shape))
        # only what is shown is kept: there may be many models
        shown.append((rows[place], _planes(domain, velocity, pixels)))
        if place == 0 and answer.g.size == m.size:
            history.gradient = answer.g.reshape(domain.shape)
    if reader.damaged:
        history.notes.append(f"{counted(reader.damaged, 'file')} of the journal cannot be read.")
    if reader.missing:
        what = f"{counted(reader.missing, 'iteration')} of those to be shown" if shown else "The iterations"
        history.notes.append(f"{what} cannot be found in the journal.")
    if shown:
        _draw_history(history, shown, models, domain, pixels)
    return history


class _JournalReader:
    """Finds an iteration's entry: optimisers accept the last point of a line search or, rarely, an earlier one."""

    def __init__(self, found: list[Entry], rows: Sequence[Row], domain: Domain, damaged: int) -> None:
        self.rows, self.size, self.damaged, self.missing = rows, math.prod(domain.shape), damaged, 0
        self._entries: dict[int, list[Entry]] = {}
        for entry in found:
            self._entries.setdefault(entry.number, []).append(entry)

    def read(self, place: int) -> tuple[FunctionalGradient, NDArray] | None:
        """Answer and squared slowness of a row; None where the journal does not have them."""
        row = self.rows[place]
        before = self.rows[place - 1].evaluations if place else 0
        # a damaged history may claim any number of evaluations
        for evaluation in range(row.evaluations, max(before, row.evaluations - 101), -1):
            for entry in self._entries.get(evaluation, []):
                try:
                    answer, m = entry.read(self.size)
                except StagingError:
                    self.damaged += 1
                    continue
                # an entry of another problem, such as that with a shot more, has another misfit
                if answer.f == row.misfit:
                    return answer, m
        self.missing += 1
        return None


def _draw_history(
    history: ModelHistory, shown: list[tuple[Row, list[NDArray]]], models: RunModels, domain: Domain, pixels: int
) -> None:
    known = [_planes(domain, model, pixels) for model in (models.true, models.initial) if model is not None]
    reference = known[0] if known else None
    (first, initial), (_, last) = shown[0], shown[-1]
    limits = velocity_limits(*(plane for planes in known for plane in planes), last=_flat(last))
    velocities = Scale(VELOCITY_COLOURS, limits, "P-wave velocity (km/s)", "km/s")
    other = "initial" if models.true is None else "true"
    if reference is not None:
        limits = symmetric_limits(*(_flat(_minus(planes, reference)) for planes in (initial, last)))
        differences = Scale(DIFFERENCE_COLOURS, limits, f"Model − {other} model (km/s)", "km/s")
    frames = [Frame.draw(domain, plane) for plane in slices_of(domain)]
    for row, planes in shown:
        name = f"iteration {row.iteration}" if row.iteration else "the initial model"
        meaning = f"P-wave velocity of {name}"
        groups = [PanelGroup(_panels(domain, planes, frames, velocities, "Model", meaning), velocities)]
        if reference is not None:
            title, meaning = f"Difference to the {other} model", f"Difference of {name} to the {other} model"
            panels = _panels(domain, _minus(planes, reference), frames, differences, title, meaning)
            groups.append(PanelGroup(panels, differences))
        pictures = [[panel.image, panel.alt] for group in groups for panel in group.panels]
        history.frames.append({"label": _label(row, first.misfit), "pictures": pictures})
    history.groups = groups


def _minus(planes: list[NDArray], others: list[NDArray]) -> list[NDArray]:
    return [plane - other for plane, other in zip(planes, others, strict=True)]


def _flat(planes: list[NDArray]) -> NDArray:
    return np.concatenate([plane.ravel() for plane in planes])


def _label(row: Row, first: float) -> str:
    name = f"Iteration {row.iteration}" if row.iteration else "Initial model (iteration 0)"
    share = f" ({number(100 * row.misfit / first, 3)} % of the initial misfit)" if row.iteration and first > 0 else ""
    error = "" if row.model_error is None else f", model error {number(100 * row.model_error, 3)} %"
    return f"{name}: misfit {number(row.misfit, 6)}{share}{error}"
