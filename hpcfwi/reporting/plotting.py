"""Shared by all drawings: one style, slices of models in km with depth downwards, colour scales, and files.

Matplotlib is imported only by functions that draw; pyplot, with its windows and global figures, never is.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcfwi.io import write_atomic
from hpcfwi.model.grid import Domain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.formatter.limits": (-3, 4),
    "grid.color": "0.5",
    "grid.alpha": 0.25,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # a user's matplotlibrc may ask for LaTeX, which compute nodes rarely have
    "text.usetex": False,
}
VELOCITY_COLOURS, DIFFERENCE_COLOURS = "viridis", "RdBu"
# Symbols of sources and receivers, which often lie on the edge of the model and so are not clipped.
SYMBOL: dict[str, Any] = {"linewidths": 0.5, "clip_on": False}
SOURCE: dict[str, Any] = {"marker": "*", "s": 60, "c": "red", "edgecolors": "white", "zorder": 4, **SYMBOL}
RECEIVER: dict[str, Any] = {"marker": "v", "s": 14, "c": "white", "edgecolors": "black", "zorder": 3, **SYMBOL}
# Colour of cells that are not finite, by colour map; the others use grey.
MISSING_COLOURS = {"gray": "khaki"}
# Sizes of model figures in inches: limits of all panels together and of one, the least width for a title; room left of and
# below a panel, for a line of text and for a letter; and the width of the colour bar.
MAX_WIDTH, MAX_HEIGHT, MAX_PANEL, MIN_COLUMN = 10.0, 7.5, 5.0, 1.6
LEFT, BELOW, LINE, LETTER, BAR = 0.65, 0.5, 0.17, 0.075, 0.17
# Number of maps in a figure of depth slices.
DEPTHS = 4
# Arrows of a colour bar, by whether values lie below and above its limits.
EXTEND = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}

Limits = tuple[float, float]
Extent = tuple[float, float, float, float]


@dataclass(frozen=True)
class Slice:
    """A plane of a model: all of a 2-D one, or a cut through a 3-D one."""

    across: int  # axes of the grid that run across and down the page
    down: int
    index: tuple[int | slice, ...]  # cuts the plane out of an array of the grid's shape
    extent: Extent  # left, right, bottom, top, km; half a cell beyond the outer grid points
    title: str  # where a 3-D model is cut; empty for a 2-D one

    @classmethod
    def of(cls, domain: Domain, across: int, down: int, at: int | None = None) -> Slice:
        """The slice through the grid point ``at`` of the third axis, by default in the middle of the grid."""
        points = [n // 2 if at is None else at for n in domain.shape]
        index = tuple(slice(None) if axis in (across, down) else i for axis, i in enumerate(points))
        axes = zip(domain.origin, domain.last, domain.spacing, strict=True)
        edges = [((first - h / 2) / 1000, (last + h / 2) / 1000) for first, last, h in axes]
        bottom, top = edges[down]
        # depth increases downwards; y of a map increases upwards
        vertical = (top, bottom) if down == domain.ndim - 1 else (bottom, top)
        grid = zip(("x =", "y =", "depth"), domain.origin, points, domain.spacing, strict=False)
        cuts = [f"at {name} {(first + i * h) / 1000:.3g} km" for name, first, i, h in grid]
        title = "".join(cuts[axis] for axis in range(domain.ndim) if axis not in (across, down))
        return cls(across, down, index, (*edges[across], *vertical), title)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, km."""
        left, right, bottom, top = self.extent
        return right - left, abs(bottom - top)

    def plane(self, values: NDArray) -> NDArray:
        """The values on the plane, its first row at the top of the page."""
        rows = values[self.index].T
        return rows if self.extent[2] > self.extent[3] else rows[::-1]

    def project(self, positions: ArrayLike, spacing: float) -> NDArray:
        """Project positions, m, on the plane, km; dense ones are thinned to about one in ``spacing`` km."""
        return thin(np.atleast_2d(np.asarray(positions, dtype=float))[:, [self.across, self.down]] / 1000, spacing)


def slices_of(domain: Domain) -> list[Slice]:
    """A 2-D model as a whole, or three slices through the middle of a 3-D one."""
    planes = [(0, 1)] if domain.ndim == 2 else [(0, 2), (1, 2), (0, 1)]
    return [Slice.of(domain, *plane) for plane in planes]


def depth_slices(domain: Domain) -> list[Slice]:
    """Maps of a 3-D model at depths that divide it evenly."""
    depths = np.linspace(0, domain.shape[2] - 1, DEPTHS + 2)[1:-1]
    return [Slice.of(domain, 0, 1, at) for at in sorted({round(depth) for depth in depths})]


class ModelFigure:
    """A figure with a panel for each model and slice, all at equal aspect and on one colour scale."""

    def __init__(
        self,
        domain: Domain,
        models: dict[str, NDArray],
        colours: str,
        limits: Limits,
        label: str,
        maps: Sequence[Slice] = (),  # instead of the slices of slices_of()
    ) -> None:
        slices = maps or slices_of(domain)
        sizes = np.array([each.size for each in slices])
        if domain.ndim == 3 and not maps:
            # a map on the scale of flat sections would be far higher than these
            sizes[2] *= min(1.0, 1.5 * sizes[0, 1] / sizes[2, 1])
        stacked = domain.ndim == 3 or sizes[0, 0] > 2 * sizes[0, 1]
        rows, columns = (len(models), len(slices)) if stacked else (1, len(models))
        widths = sizes[:, 0] if stacked else np.repeat(sizes[:, 0], columns)
        tallest = sizes[:, 1].max()
        scale = min(MAX_WIDTH / widths.sum(), MAX_HEIGHT / (rows * tallest), MAX_PANEL / math.sqrt(widths[0] * tallest))
        sizes, widths, height = scale * sizes, scale * widths, scale * tallest
        # a title may be wider than its panel
        room = np.maximum(widths, MIN_COLUMN if columns > 1 else 2 * MIN_COLUMN)
        names = [_wrap(title, MAX_WIDTH if domain.ndim == 3 else room[0]) for title in models]
        lines = max(name.count("\n") for name in names) + 1 + (domain.ndim == 3)
        pitch = height + LINE * lines + 0.25
        # every panel of a 3-D model has labels of its vertical axis, but only the first one of 2-D models
        between = LEFT if domain.ndim == 3 else 0.3
        lefts = LEFT + np.concatenate([[0.0], np.cumsum(room + between)])
        bar_height = max(rows * pitch - (pitch - height), MIN_COLUMN)
        total = np.array([lefts[-1] + 1.2, BELOW + bar_height + pitch - height + 0.4])
        top = total[1] - (pitch - height)
        self.figure = new_figure(tuple(total), None)

        def add_axes(left: float, below_top: float, width: float, height: float) -> Axes:
            place = ((left, top - below_top - height), (width, height))
            return self.figure.add_axes(tuple(np.concatenate(place / total)))

        # axes, slice and its width in inches, for each panel
        self.panels: list[tuple[Axes, Slice, float]] = []
        self.handles: list[Any] = []
        for i, (name, values) in enumerate(zip(names, models.values(), strict=True)):
            for j, (each, size) in enumerate(zip(slices, sizes, strict=True)):
                row, column = (i, j) if stacked else (0, i)
                axes = add_axes(lefts[column] + (room[column] - size[0]) / 2, row * pitch, *size)
                # the middle panel of a row has the name of the model, above its own title
                axes.set_title("\n".join(filter(None, (name if j == len(slices) // 2 else "", each.title))))
                label_axes(axes, domain, each, size)
                if row < rows - 1:
                    axes.set_xlabel("")
                    axes.tick_params(labelbottom=False)
                if domain.ndim == 2 and column > 0:
                    axes.set_ylabel("")
                    axes.tick_params(labelleft=False)
                image = draw_image(axes, each.plane(values), each.extent, colours, limits)
                self.panels.append((axes, each, size[0]))
        # the colour bar has an arrow at each limit that values exceed
        drawn = np.concatenate([finite(values) for values in models.values()])
        extend = EXTEND[bool((drawn < limits[0]).any()), bool((drawn > limits[1]).any())]
        bar = add_axes(lefts[-1] - between + 0.15, 0.0, BAR, bar_height)
        colour_bar(image, bar, bar_height, label, extend)

    def mark(self, positions: ArrayLike | None, name: str, spacing: float, style: dict[str, Any]) -> None:
        """Mark positions, m, on every panel; dense ones are thinned to about one in ``spacing`` inches."""
        if positions is None or np.size(positions) == 0:
            return
        for axes, each, width in self.panels:
            shown = each.project(positions, spacing * each.size[0] / width)
            marks = axes.scatter(shown[:, 0], shown[:, 1], label=name, **style)
        self.handles.append(marks)

    def hatch(self, mask: NDArray, name: str) -> None:
        """Hatch and outline the cells of a mask."""
        from matplotlib.patches import Patch

        for axes, each, _ in self.panels:
            plane = each.plane(mask).astype(float)
            place: dict[str, Any] = {"extent": each.extent, "origin": "upper"}
            if plane.any():
                axes.contourf(plane, [0.5, 1.5], colors="none", hatches=["////"], **place)
            if 0 < plane.mean() < 1:
                axes.contour(plane, [0.5], colors="black", linewidths=0.8, **place)
        self.handles.append(Patch(facecolor="none", edgecolor="black", hatch="////", label=name))

    def frame(self, corners: tuple[ArrayLike, ArrayLike], name: str) -> None:
        """Draw a box between two opposite corners, m, on every panel."""
        from matplotlib.patches import Rectangle

        style: dict[str, Any] = {"fill": False, "edgecolor": "white", "linestyle": "--", "linewidth": 1.2, "zorder": 2}
        for axes, each, _ in self.panels:
            first, last = (np.asarray(corner, dtype=float)[[each.across, each.down]] / 1000 for corner in corners)
            axes.add_patch(Rectangle(tuple(first), *(last - first), **style))
        self.handles.append(Rectangle((0, 0), 1, 1, **{**style, "edgecolor": "black"}, label=name))

    def finish(self) -> Figure:
        """Add the legend below the panels; returns the figure."""
        if self.handles:
            below = min(axes.get_position().y0 for axes, *_ in self.panels) - BELOW / self.figure.get_size_inches()[1]
            place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, below), "ncols": 2}
            self.figure.legend(handles=self.handles, frameon=False, **place)
        return self.figure


def new_figure(size: tuple[float, float], layout: Any = "constrained") -> Figure:
    """An empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout=layout)


def render(build: Callable[[], Figure], kind: str, style: dict[Any, Any] | None = None, **options: Any) -> bytes:
    """Build a figure in STYLE and return it as a PNG or SVG file; ``options`` are those of ``savefig``."""
    import matplotlib

    with matplotlib.rc_context({**STYLE, **(style or {})}):
        file = io.BytesIO()
        build().savefig(file, format=kind, **options)
    return file.getvalue()


def save_figure(path: Path, build: Callable[[], Figure], note: str = "") -> Path:
    """Write a figure as a PNG file, with a note below it; a failed write keeps the old file."""

    def annotated() -> Figure:
        figure = build()
        figure.text(0.0, 0.0, note, fontsize=7, va="top", transform=figure.transSubfigure, parse_math=False)
        return figure

    content = render(annotated if note else build, "png", bbox_inches="tight", pad_inches=0.1)
    write_atomic(path, lambda file: file.write(content))
    return path


def draw_image(axes: Axes, rows: NDArray, extent: Extent, colours: str, limits: Limits) -> Any:
    """Draw values as an image, the first row at the top."""
    from matplotlib import colormaps

    colormap = colormaps[colours].with_extremes(bad=MISSING_COLOURS.get(colours, "0.75"))
    scale: dict[str, Any] = {"cmap": colormap, "vmin": limits[0], "vmax": limits[1]}
    return axes.imshow(np.ma.masked_invalid(rows), extent=extent, aspect="auto", origin="upper", **scale)


def colour_bar(image: Any, axes: Axes, height: float, label: str, extend: str) -> None:
    """Fill axes of a height in inches with the colour bar of an image."""
    from matplotlib.ticker import ScalarFormatter

    style: dict[str, Any] = {"extend": extend, "extendfrac": 0.12 / height, "format": ScalarFormatter(useMathText=True)}
    axes.figure.colorbar(image, cax=axes, label=_wrap(label, height), **style)


def round_ticks(most: int, **options: Any) -> Any:
    """A locator of about ``most`` ticks at round numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most, steps=[1, 2, 5, 10], **options)


def use_integer_axis(axes: Axes, label: str, first: float, last: float) -> None:
    """Label a horizontal axis of numbers that count something, from the first to the last."""
    axes.set(xlabel=label, xlim=(first - 0.5, last + 0.5))
    axes.xaxis.set_major_locator(round_ticks(9, integer=True, min_n_ticks=1))
    axes.grid()


def axis_names(domain: Domain) -> tuple[str, ...]:
    """Names of the coordinates of a grid."""
    return ("Distance", "Depth") if domain.ndim == 2 else ("Distance x", "Distance y", "Depth")


def label_axes(axes: Axes, domain: Domain, plane: Slice, inches: ArrayLike) -> None:
    """Name the axes of a slice, and set as many ticks as their labels have room for."""
    names = axis_names(domain)
    axes.set(xlabel=f"{names[plane.across]} (km)", ylabel=f"{names[plane.down]} (km)")
    for axis, length, each in zip((axes.xaxis, axes.yaxis), np.asarray(inches), (0.6, 0.35), strict=True):
        axis.set_major_locator(round_ticks(int(np.clip(length / each, 1, 8))))


def use_log_scale(axes: Axes, values: ArrayLike) -> None:
    """Make the vertical axis logarithmic unless all values are equal; a short range has plain numbers at its ticks."""
    from matplotlib.ticker import LogLocator, NullFormatter

    shown = finite(values)
    shown = shown[shown > 0]
    decades = math.log10(shown.max()) - math.log10(shown.min()) if shown.size else 0.0
    if decades == 0:
        return
    axes.set_yscale("log")
    if decades < 3:
        locator = LogLocator(subs=(1, 2, 5)) if decades >= 0.7 else round_ticks(6)
        axes.yaxis.set_major_locator(locator)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def velocity_limits(*models: ArrayLike, last: ArrayLike) -> Limits:
    """Limits that cover some models, and the last one without its extremes: inversions leave spikes at sources."""
    values = finite(last)
    extremes = np.percentile(values, (0.5, 99.5)) if values.size else values
    covered = np.concatenate([*map(finite, models), extremes])
    low, high = (float(covered.min()), float(covered.max())) if covered.size else (0.0, 1.0)
    margin = 0.05 if low == high else 0.0
    return low - margin, high + margin


def symmetric_limits(*differences: ArrayLike, percent: float = 99.5) -> Limits:
    """Limits at plus and minus the largest percentile of the absolute values, or their maximum if that is zero."""
    found = [np.abs(finite(values)) for values in differences]
    limit = max((float(np.percentile(sizes, percent) or sizes.max()) for sizes in found if sizes.size), default=0.0)
    return -(limit or 1.0), limit or 1.0


def thin(points: NDArray, spacing: float) -> NDArray:
    """Keep one point in each cell of about this size; of an evenly spaced line, every k-th point."""
    steps = []
    for values in points.T:
        gaps = np.diff(np.unique(values))
        usual = float(np.median(gaps)) if gaps.size else spacing
        steps.append(usual * math.ceil(spacing / usual))
    cells = np.floor((points - points.min(axis=0)) / steps + 1e-6)
    _, first = np.unique(cells, axis=0, return_index=True)
    return points[np.sort(first)]


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """The finite values, flat."""
    flat = np.ravel(np.asarray(values, dtype=float))
    return flat[np.isfinite(flat)]


def _wrap(title: str, inches: float) -> str:
    return "\n".join(textwrap.fill(line, int(inches / LETTER)) for line in title.split("\n"))
