"""A sheet of panels: the planes of several models on one colour scale, at equal aspect, without waste.

The workshop of :mod:`hpcfwi.reporting.figures`, which says what is drawn.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcfwi.model.grid import Domain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BAR", "Sheet", "View", "colour_bar", "draw_image", "finite", "new_figure", "thin", "views_of"]

# Inches: the most that all panels take together, the mean side of one, a column's text, a letter of it, the colour bar.
WIDEST, TALLEST, LARGEST_PANEL, TEXT, LETTER, BAR = 10.0, 7.5, 5.0, 1.6, 0.075, 0.17
# Colour of what is not a number, on colour maps and on the grey of records.
MISSING = {"gray": "khaki"}

Extent = tuple[float, float, float, float]


@dataclass(frozen=True)
class View:
    """A plane of the model: the axes that run across and down the page, and where it cuts the third one."""

    across: int
    down: int
    cut: tuple[int | slice, ...]
    extent: Extent
    title: str = ""

    @classmethod
    def of(cls, domain: Domain, across: int, down: int, title: str = "") -> View:
        """The plane through the middle; its extent reaches half a cell beyond the outer grid points, km."""
        cut = tuple(slice(None) if axis in (across, down) else n // 2 for axis, n in enumerate(domain.shape))
        low = [(o - h / 2) / 1000 for o, h in zip(domain.origin, domain.spacing, strict=True)]
        high = [(e + h / 2) / 1000 for e, h in zip(domain.last, domain.spacing, strict=True)]
        # depth points down the page, y of a map up
        ends = (high[down], low[down]) if down == domain.ndim - 1 else (low[down], high[down])
        return cls(across, down, cut, (low[across], high[across], *ends), title)

    @property
    def size(self) -> tuple[float, float]:
        left, right, bottom, top = self.extent
        return right - left, abs(bottom - top)

    def plane(self, values: NDArray) -> NDArray:
        """The values on the plane, the first row at the top of the page."""
        rows = values[self.cut].T
        return rows if self.extent[2] > self.extent[3] else rows[::-1]


def views_of(domain: Domain) -> list[View]:
    """The model itself, or three slices of a 3-D one."""
    if domain.ndim == 2:
        return [View.of(domain, 0, 1)]
    middle = [(o + n // 2 * h) / 1000 for o, n, h in zip(domain.origin, domain.shape, domain.spacing, strict=True)]
    return [
        View.of(domain, 0, 2, f"at y = {middle[1]:.3g} km"),
        View.of(domain, 1, 2, f"at x = {middle[0]:.3g} km"),
        View.of(domain, 0, 1, f"at depth {middle[2]:.3g} km"),
    ]


class Sheet:
    """A figure with a panel for each model and view; all panels share one colour scale.

    Attributes
    ----------
    panels
        Of each panel: its axes, its view, its size in inches, and the number of its model.
    """

    def __init__(self, domain: Domain, titles: list[str]) -> None:
        views = views_of(domain)
        sizes = np.array([view.size for view in views])
        if domain.ndim == 3:
            # a map on the scale of flat sections would leave most of its row empty
            sizes[2] *= min(1.0, 1.5 * sizes[0, 1] / sizes[2, 1])
        stacked = domain.ndim == 3 or sizes[0, 0] > 2 * sizes[0, 1]
        rows, columns = (len(titles), len(views)) if stacked else (1, len(titles))
        widths = sizes[:, 0] if stacked else np.repeat(sizes[:, 0], columns)
        total, tallest = widths.sum(), sizes[:, 1].max()
        scale = min(WIDEST / total, TALLEST / (rows * tallest), LARGEST_PANEL / math.sqrt(widths[0] * tallest))
        # the colour bar, as tall as the panels, needs room for its label
        self.inches = np.array([scale * total, max(scale * rows * tallest, TEXT)])
        narrowest = scale * widths.min()
        room = max(narrowest, TEXT if columns > 1 else 2 * TEXT)
        self.gap = (room - narrowest) / 2 if columns > 1 else 0.0
        self.figure = new_figure(gap=self.gap)
        cells = self.figure.add_gridspec(rows, columns + 1, width_ratios=[*(scale * widths), BAR])
        self.bar = self.figure.add_subplot(cells[:, -1])
        panels = [self.figure.add_subplot(cells[i, j]) for i in range(rows) for j in range(columns)]
        self.grid = np.array(panels).reshape(rows, columns)
        self.handles: list[Any] = []
        self.panels = [
            (axes, view, scale * size, i)
            for i, row in enumerate(self.grid if stacked else self.grid.T)
            for axes, view, size in zip(row, views, sizes, strict=True)
        ]
        for axes, view, size, i in self.panels:
            # in the middle of a row the model's name may reach over its neighbours, whose titles are a line lower
            name = _wrap(titles[i], room if domain.ndim == 2 else WIDEST) if view is views[len(views) // 2] else ""
            axes.set_title("\n".join(filter(None, (name, view.title))))
            _label(axes, domain, view, size)
        for axes in self.grid[:-1].flat:
            axes.set_xlabel("")
            axes.tick_params(labelbottom=False)
        for axes in self.grid[:, 1:].flat if domain.ndim == 2 else ():
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)

    def paint(self, models: list[NDArray], colours: str, limits: tuple[float, float], label: str) -> None:
        """Fill the panels and add the colour bar, with arrows where values lie beyond the limits."""
        for axes, view, _, i in self.panels:
            image = draw_image(axes, view.plane(models[i]), view.extent, colours, limits)
        values = np.concatenate([finite(model) for model in models])
        below, above = bool((values < limits[0]).any()), bool((values > limits[1]).any())
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
        colour_bar(image, self.bar, self.inches[1], label, extend)

    def mark(self, positions: ArrayLike | None, name: str, *, apart: float, **look: Any) -> None:
        """Scatter positions, projected on every view and thinned to one in ``apart`` inches."""
        if positions is None or np.size(positions) == 0:
            return
        points = np.atleast_2d(np.asarray(positions, dtype=float)) / 1000
        for axes, view, size, _ in self.panels:
            shown = thin(points[:, [view.across, view.down]], apart * view.size[0] / size[0])
            # not clipped: half of the symbols of a survey lie on the model's edge
            drawn = axes.scatter(*shown.T, linewidths=0.5, clip_on=False, label=name, **look)
        self.handles.append(drawn)

    def hatch(self, mask: NDArray, name: str) -> None:
        """Hatch and outline the cells of a mask."""
        from matplotlib.patches import Patch

        for axes, view, _, _ in self.panels:
            plane = view.plane(mask).astype(float)
            place: dict[str, Any] = {"extent": view.extent, "origin": "upper"}
            if plane.any():
                axes.contourf(plane, [0.5, 1.5], colors="none", hatches=["////"], **place)
            if 0 < plane.mean() < 1:
                axes.contour(plane, [0.5], colors="black", linewidths=0.8, **place)
        self.handles.append(Patch(facecolor="none", edgecolor="black", hatch="////", label=name))

    def finished(self) -> Figure:
        """Add the legend, and give the figure the size at which the panels fill their places at equal aspect."""
        if self.handles:
            place = "outside lower center"
            self.figure.legend(handles=self.handles, loc=place, ncols=len(self.handles), frameon=False)
        rows, columns = self.grid.shape
        size = self.inches + np.array([2.0 + (1.0 + 2 * self.gap) * (columns + 1), 2.0 * rows + 1.0])
        # What text and colour bar need is known only once they are laid out; it hardly depends on the size.
        engine: Any = self.figure.get_layout_engine()
        for _ in range(3):
            self.figure.set_size_inches(size)
            engine.execute(self.figure)
            places = np.array([axes.get_position(original=True).size for axes in self.grid.flat])
            missing = self.inches - size * places.sum(axis=0) / (rows, columns)
            # the colour bar is a column like the others and takes its share
            size = size + missing * np.array([1 + BAR / self.inches[0], 1.0])
        # Laid out again with panels of fixed aspect, it would never come to rest.
        self.figure.set_layout_engine("none")
        for axes in self.grid.flat:
            axes.set_aspect("equal", anchor="N")
        return self.figure


def new_figure(size: tuple[float, float] | None = None, gap: float = 0.0) -> Figure:
    """An empty figure of a size in inches, with a gap on both sides of every panel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # as layout="constrained", all distances in inches
    engine = ConstrainedLayoutEngine(w_pad=0.06 + gap, h_pad=0.06, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=size, layout=engine)
    FigureCanvasAgg(figure)
    return figure


def draw_image(axes: Axes, rows: NDArray, extent: Extent, colours: str, limits: tuple[float, float]) -> Any:
    """An image, its first row at the top; what is not finite has a colour that the scale has not."""
    from matplotlib import colormaps

    colormap = colormaps[colours].with_extremes(bad=MISSING.get(colours, "0.75"))
    scale: dict[str, Any] = {"cmap": colormap, "vmin": limits[0], "vmax": limits[1]}
    return axes.imshow(np.ma.masked_invalid(rows), extent=extent, aspect="auto", origin="upper", **scale)


def colour_bar(image: Any, place: Axes, inches: float, label: str, extend: str) -> None:
    """A colour bar of a height in inches that fills its place."""
    from matplotlib.ticker import ScalarFormatter

    how: dict[str, Any] = {"extend": extend, "extendfrac": 0.12 / inches, "format": ScalarFormatter(useMathText=True)}
    place.figure.colorbar(image, cax=place, label=_wrap(label, inches), **how)


def _label(axes: Axes, domain: Domain, view: View, inches: NDArray) -> None:
    from matplotlib.ticker import MaxNLocator

    names = ["Distance", "Depth"] if domain.ndim == 2 else ["Distance x", "Distance y", "Depth"]
    axes.set(xlabel=f"{names[view.across]} (km)", ylabel=f"{names[view.down]} (km)")
    # as many ticks as their labels have room for
    for axis, length, each in zip((axes.xaxis, axes.yaxis), inches, (0.6, 0.35), strict=True):
        axis.set_major_locator(MaxNLocator(int(np.clip(length / each, 1, 8)), steps=[1, 2, 5, 10]))


def _wrap(title: str, inches: float) -> str:
    return "\n".join(textwrap.fill(line, int(inches / LETTER)) for line in title.split("\n"))


def thin(points: NDArray, cell: float) -> NDArray:
    """One point of every cell; of an even line, every k-th point."""
    steps = []
    for values in points.T:
        gaps = np.diff(np.unique(values))
        usual = float(np.median(gaps)) if gaps.size else cell
        steps.append(usual * math.ceil(cell / usual))
    cells = np.floor((points - points.min(axis=0)) / steps + 1e-6)
    _, first = np.unique(cells, axis=0, return_index=True)
    return points[np.sort(first)]


def finite(values: ArrayLike) -> NDArray:
    """The numbers among the values, flat."""
    flat = np.ravel(np.asarray(values, dtype=float))
    return flat[np.isfinite(flat)]
