"""Models in the report, coloured images with axes by matplotlib, and the model of each iteration."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.inversion.history import GRADIENT_FILE, Row, model_file
from hpcfwi.model.arrays import read_array
from hpcfwi.model.grid import Domain
from hpcfwi.reporting import plotting
from hpcfwi.reporting.figures import gradient_limits
from hpcfwi.reporting.formatting import counted, number
from hpcfwi.reporting.plotting import DIFFERENCE_COLOURS, VELOCITY_COLOURS, Limits, Slice, depth_slices, slices_of
from hpcfwi.reporting.report.charts import MAX_SHOTS, MAX_VECTOR_POINTS, data_uri, draw_svg, some
from hpcfwi.reporting.report.data import RunModels, ShotMisfits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Limits: pixels of a model and of its longer side; iterations in the slider, pixels of all their images, and bytes of the
# models that are read for them.
MAX_PIXELS, MAX_SIDE, MAX_FRAMES, MAX_HISTORY_PIXELS, MAX_BYTES = 300_000, 600, 60, 4_000_000, 3_000_000_000
# Number of colours of an image, and the colour of cells that are not finite.
LEVELS, MISSING_COLOUR = 255, (190, 190, 190)
# Sizes, inches: width of a panel and of a flat one, the largest height, and room left of, below and around a panel.
PANEL, FLAT_PANEL, MAX_HEIGHT, LEFT, BELOW, AROUND = 2.9, 6.4, 4.4, 0.62, 0.5, 0.1
COLOUR_NAMES = {"viridis": ("violet", "yellow"), "RdBu": ("red", "blue"), "plasma": ("dark blue", "yellow")}
FIRST_GRADIENT = "Gradient of the misfit with respect to squared slowness at the initial model"


@dataclass(frozen=True)
class Scale:
    """Colours of values; those beyond a limit have its colour."""

    colours: str
    limits: Limits
    label: str
    unit: str = ""
    logarithmic: bool = False

    @property
    def norm(self) -> Any:
        from matplotlib.colors import LogNorm, Normalize

        return (LogNorm if self.logarithmic else Normalize)(*self.limits)

    def paint(self, values: NDArray) -> str:
        """An image of values, the first row at the top, as the address of a PNG file."""
        from matplotlib import colormaps
        from PIL import Image

        low, high = self.limits
        with np.errstate(all="ignore"):
            levels = (values - low) / ((high - low) or 1.0) * LEVELS
            levels = np.where(np.isfinite(levels), np.clip(levels, 0, LEVELS - 1), LEVELS)
        image, file = Image.fromarray(levels.astype(np.uint8)), io.BytesIO()
        palette = np.round(255 * colormaps[self.colours](np.linspace(0, 1, LEVELS))[:, :3]).astype(np.uint8)
        image.putpalette([*palette.ravel().tolist(), *MISSING_COLOUR])
        image.save(file, "PNG")
        return data_uri(file.getvalue(), "png")

    @property
    def bar(self) -> str:
        """The colour bar."""

        def draw(axes: Axes) -> None:
            from matplotlib.cm import ScalarMappable

            colours = ScalarMappable(self.norm, self.colours)
            ticks = None if self.logarithmic else plotting.round_ticks(5)
            axes.figure.colorbar(colours, cax=axes, orientation="horizontal", label=self.label, ticks=ticks)

        return draw_svg((3.9, 0.62), (0.06, 0.68, 0.88, 0.26), draw)

    @property
    def alt(self) -> str:
        """The colour bar in words."""
        (first, last), (low, high) = COLOUR_NAMES[self.colours], self.limits
        return f"Colours from {first} ({number(low)}) to {last} ({number(high)}): {self.label}"


@dataclass(frozen=True)
class Frame:
    """The axes of a slice; the page puts them above the image."""

    picture: str  # address of an SVG with a transparent background
    inches: tuple[float, float]
    box: tuple[float, float, float, float]  # left, top, width and height of the image, percent
    extent: str  # of the axes, in words

    @classmethod
    def draw(cls, domain: Domain, plane: Slice, mark: Callable[[Axes, Slice, float], None] = lambda *_: None) -> Frame:
        """Draw the axes; ``mark`` draws on them; it also gets the slice and the length of an inch, km."""
        aspect = plane.size[0] / plane.size[1]
        width = min(FLAT_PANEL if aspect > 2 else PANEL, MAX_HEIGHT * aspect)
        height = width / aspect
        total = (LEFT + width + 2 * AROUND, BELOW + height + AROUND)
        left, top, across, down = LEFT / total[0], AROUND / total[1], width / total[0], height / total[1]

        def draw(axes: Axes) -> None:
            axes.set(xlim=plane.extent[:2], ylim=plane.extent[2:])
            plotting.label_axes(axes, domain, plane, (width, height))
            mark(axes, plane, plane.size[0] / width)

        names, (west, east, *vertical) = plotting.axis_names(domain), plane.extent
        extent = (
            f"{names[plane.across].lower()} {number(west)} to {number(east)} km, "
            f"{names[plane.down].lower()} {number(min(vertical))} to {number(max(vertical))} km"
        )
        picture = draw_svg(total, (left, 1 - top - down, across, down), draw)
        return cls(picture, total, (100 * left, 100 * top, 100 * across, 100 * down), extent)


@functools.lru_cache(1)
def _frames(domain: Domain) -> list[Frame]:
    """Axes without marks for each slice, drawn once for all groups."""
    return [Frame.draw(domain, plane) for plane in slices_of(domain)]


@dataclass(frozen=True)
class Panel:
    """An image of a slice of a model, with its axes."""

    title: str
    alt: str
    image: str
    frame: Frame


@dataclass(frozen=True)
class PanelGroup:
    """Panels with one scale."""

    panels: list[Panel]
    scale: Scale
    survey: bool = False  # whether sources and receivers are marked


def models_group(models: RunModels) -> PanelGroup | None:
    """The true, initial and final (or current) models that are known, with the survey; None without a model."""
    domain, latest = models.domain, models.latest
    if domain is None or latest is None:
        return None
    name = "Final model" if models.done else "Current model"
    candidates = {"True model": models.true, "Initial model": models.initial, name: models.velocity}
    known = {title: values for title, values in candidates.items() if values is not None}
    *others, _ = known.values()
    scale = _velocities(plotting.velocity_limits(*others, last=latest))

    def mark(axes: Axes, plane: Slice, inch: float) -> None:
        for positions, style in ((models.receivers, plotting.RECEIVER), (models.sources, plotting.SOURCE)):
            axes.scatter(*plane.project(positions, 0.14 * inch).T, **style)

    frames = [Frame.draw(domain, plane, mark) for plane in slices_of(domain)] if models.shots else _frames(domain)
    panels: list[Panel] = []
    for title, values in known.items():
        slices = slices_of(domain)
        panels += _panels(slices, _planes(values, slices), scale, title, f"{title}, P-wave velocity", frames)
    return PanelGroup(panels, scale, bool(models.shots))


def depths_group(models: RunModels) -> PanelGroup | None:
    """Maps of the true and the latest model at several depths; None for 2-D models."""
    domain, latest = models.domain, models.latest
    if domain is None or latest is None or domain.ndim == 2:
        return None
    slices = depth_slices(domain)
    name = "Initial model" if models.velocity is None else "Final model" if models.done else "Current model"
    known = {name: latest}
    if models.true is not None:
        known = {"True model": models.true, **known}
    scale = _velocities(plotting.velocity_limits(*list(known.values())[:-1], last=latest))
    frames, panels = [Frame.draw(domain, plane) for plane in slices], list[Panel]()
    for title, values in known.items():
        planes = _planes(values, slices)
        panels += _panels(slices, planes, scale, title, f"{title}, P-wave velocity", frames)
    return PanelGroup(panels, scale)


def survey_map(misfits: ShotMisfits, models: RunModels) -> PanelGroup | None:
    """The relative misfit of each shot at its source, seen from the side in 2-D, from above in 3-D; None if unknown."""
    domain, ground, shares = models.domain, models.latest, misfits.shares
    shots = [shot for shot in models.shots if shares.get(shot.name, 0.0) > 0]
    if domain is None or ground is None or not shots:
        return None
    shots = [shots[i] for i in some(len(shots), MAX_SHOTS)]
    values, plane = [shares[shot.name] for shot in shots], Slice.of(domain, 0, 1)
    low, high = min(values), max(values)
    limits = (low, high if high > low else low + 1.0)
    scale = Scale("plasma", limits, "Misfit, % of that in the first evaluation", logarithmic=high > 20 * low)

    def mark(axes: Axes, plane: Slice, inch: float) -> None:
        sources = np.stack([shot.source for shot in shots])[:, [plane.across, plane.down]] / 1000
        axes.plot(*plane.project(models.receivers, 0.05 * inch).T, ".", ms=2, color="0.4", clip_on=False)
        style: dict[str, Any] = {"s": 50, "edgecolors": "black", "linewidths": 0.6, "clip_on": False, "zorder": 3}
        style |= {"c": values, "cmap": scale.colours, "norm": scale.norm, "rasterized": len(shots) > MAX_VECTOR_POINTS}
        axes.scatter(sources[:, 0], sources[:, 1], **style)

    first, last = plotting.velocity_limits(last=ground)
    # the lightest quarter of the greys, so that sources stand out
    image = Scale("Greys", (first, 4 * last - 3 * first), "").paint(_thinned(plane.plane(ground), MAX_PIXELS))
    between = f"between {number(low, 3)} and {number(high, 3)} % of that in the first one"
    alt = f"Map of the survey: the misfit of the shot at each source in evaluation {misfits.number}, {between}"
    return PanelGroup([Panel("Misfit at each source", alt, image, Frame.draw(domain, plane, mark))], scale)


def gradient_group(models: RunModels, gradient: NDArray | None) -> PanelGroup | None:
    """The gradient at the initial model; None if it is unknown."""
    domain = models.domain
    if domain is None or gradient is None:
        return None
    limits = gradient_limits(gradient, models.frozen)
    scale = Scale(DIFFERENCE_COLOURS, limits, "Misfit per (s/km)²", "misfit per (s/km)²")
    slices = slices_of(domain)
    panels = _panels(slices, _planes(gradient, slices), scale, "First gradient", FIRST_GRADIENT, _frames(domain))
    return PanelGroup(panels, scale)


def _velocities(limits: Limits) -> Scale:
    return Scale(VELOCITY_COLOURS, limits, "P-wave velocity (km/s)", "km/s")


def _planes(values: NDArray, slices: Sequence[Slice], pixels: int = MAX_PIXELS) -> list[NDArray[np.float32]]:
    """The slices of a model, thinned to at most ``pixels`` points together."""
    return [_thinned(each.plane(values), pixels // len(slices)) for each in slices]


def _thinned(plane: NDArray, pixels: int) -> NDArray[np.float32]:
    step = max(1, math.ceil(max(plane.shape) / MAX_SIDE))
    while math.prod(-(-side // step) for side in plane.shape) > pixels:
        step += 1
    return plane[::step, ::step].astype(np.float32)


def _panels(
    slices: Sequence[Slice],
    planes: Sequence[NDArray],
    scale: Scale,
    title: str,
    meaning: str,
    frames: Sequence[Frame],
) -> list[Panel]:
    values = np.concatenate([plotting.finite(plane) for plane in planes])
    span = f"from {number(values.min())} to {number(values.max())} {scale.unit}" if values.size else "no numbers"
    panels = []
    for each, plane, frame in zip(slices, planes, frames, strict=True):
        name, what = (f"{title}, {each.title}", f"{meaning}, slice {each.title}") if each.title else (title, meaning)
        panels.append(Panel(name, f"{what}: {span}; {frame.extent}", scale.paint(plane), frame))
    return panels


@dataclass
class ModelHistory:
    """The model of every iteration."""

    groups: list[PanelGroup] = field(default_factory=list)  # the last model, and its difference to a known one
    frames: list[dict[str, Any]] = field(default_factory=list)  # label, images and texts of each iteration
    gradient: NDArray | None = None  # the first one, if known
    notes: list[str] = field(default_factory=list)  # what is missing, and why


def model_history(run: Path, rows: Sequence[Row], models: RunModels) -> ModelHistory:
    """Read the models of the iterations in a run folder and draw them; only some of long runs and large models."""
    history = ModelHistory()
    domain, notes = models.domain, history.notes
    if domain is None or not rows:
        return history
    with suppress(InputError):
        history.gradient = _read(run / GRADIENT_FILE, domain)
    size = 4 * math.prod(domain.shape)
    chosen = some(len(rows), int(np.clip(MAX_BYTES // size, 2, MAX_FRAMES))).tolist()
    if len(chosen) < len(rows):
        notes.append(f"{len(chosen)} of {counted(len(rows), 'model')} are shown.")
    pixels = MAX_HISTORY_PIXELS // (2 * len(chosen))
    shown: list[tuple[Row, list[NDArray]]] = []
    reason = ""
    for place in chosen:
        try:
            velocity = _read(run / model_file(rows[place].iteration), domain)
        except InputError as error:
            reason = reason or str(error)
            continue
        # keep slices only: there may be many large models
        shown.append((rows[place], _planes(velocity, slices_of(domain), pixels)))
    if len(shown) < len(chosen):
        what = counted(len(chosen) - len(shown), "model") if shown else "The models of the iterations"
        notes.append(f"{what} cannot be read: {reason}")
    if shown:
        _draw_history(history, shown, models, pixels)
    return history


def _read(path: Path, domain: Domain) -> NDArray[np.float32]:
    """An array of a run on its grid; raises InputError if it is missing or damaged."""
    values = read_array(path, "the report")
    if values.shape != domain.shape:
        raise InputError(f"{path}: has shape {values.shape}, but the grid has {domain.shape}")
    return np.asarray(values, dtype=np.float32)


def _draw_history(
    history: ModelHistory, shown: list[tuple[Row, list[NDArray]]], models: RunModels, pixels: int
) -> None:
    domain = models.domain
    assert domain is not None
    slices, frames = slices_of(domain), _frames(domain)
    known = [_planes(model, slices, pixels) for model in (models.true, models.initial) if model is not None]
    (_, initial), (_, last) = shown[0], shown[-1]
    covered = (plane for planes in known for plane in planes)
    velocities = _velocities(plotting.velocity_limits(*covered, last=np.concatenate(last, axis=None)))
    other = "initial" if models.true is None else "true"

    def difference(planes: list[NDArray]) -> list[NDArray]:
        return [plane - reference for plane, reference in zip(planes, known[0], strict=True)]

    if known:
        limits = plotting.symmetric_limits(*(np.concatenate(difference(each), axis=None) for each in (initial, last)))
        differences = Scale(DIFFERENCE_COLOURS, limits, f"Model − {other} model (km/s)", "km/s")
    for row, planes in shown:
        name = f"iteration {row.iteration}" if row.iteration else "the initial model"
        panels = _panels(slices, planes, velocities, "Model", f"P-wave velocity of {name}", frames)
        history.groups = [PanelGroup(panels, velocities)]
        if known:
            title, meaning = f"Difference to the {other} model", f"Difference of {name} to the {other} model"
            panels = _panels(slices, difference(planes), differences, title, meaning, frames)
            history.groups.append(PanelGroup(panels, differences))
        pictures = [[panel.image, panel.alt] for group in history.groups for panel in group.panels]
        history.frames.append({"label": _label(row), "pictures": pictures})


def _label(row: Row) -> str:
    name = f"Iteration {row.iteration}" if row.iteration else "Initial model (iteration 0)"
    stage = f", stage {row.stage}" if row.stage > 1 else ""
    error = "" if row.model_error is None else f", model error {number(100 * row.model_error, 3)} %"
    return f"{name}{stage}: misfit {number(row.misfit, 6)}{error}"
