"""The pictures of a run: models, their errors, convergence, gathers and the gradient.

Called at the end of a run and by ``hpcfwi report``. Every figure is built by a private function that returns it and
written by a public one. Matplotlib is imported only while drawing, pyplot never: no windows, no global state.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcfwi.data.staging import write_aside
from hpcfwi.physics.domain import AXIS_NAMES, Domain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_convergence", "draw_difference", "draw_gather", "draw_gradient", "draw_models"]

STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.formatter.limits": (-3, 4),
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # what a user's matplotlibrc may ask for and a compute node may not have
    "text.usetex": False,
}
# Inches: the most that all panels take together, the mean side of one, a column's text, a letter of it, the colour bar.
WIDEST, TALLEST, LARGEST_PANEL, TEXT, LETTER, BAR = 10.0, 7.5, 5.0, 1.6, 0.075, 0.17
VELOCITY, DIFFERENCE, RECORD = "viridis", "RdBu", "gray"

Extent = tuple[float, float, float, float]


def draw_models(
    path: Path,
    domain: Domain,
    *,
    initial: NDArray,
    final: NDArray,
    true: NDArray | None = None,
    sources: ArrayLike | None = None,
    receivers: ArrayLike | None = None,
) -> Path:
    """Draw the true model (where it is known), the initial and the final one on one colour scale; returns ``path``.

    Parameters
    ----------
    path
        PNG file to write.
    domain
        The grid. Of a 3-D one, three slices through the middle are shown.
    initial, final, true
        P-wave velocities, km/s, shape ``domain.shape``; cells that are not finite are grey.
    sources, receivers
        Positions, shape (n, ndim), m; thinned where they are too dense to be told apart.
    """
    models = {"True model": true, "Initial model": initial, "Final model": final}
    known = {title: values for title, values in models.items() if values is not None}
    return _save(path, lambda: _models_figure(domain, known, sources, receivers))


def draw_difference(
    path: Path, domain: Domain, *, initial: NDArray, final: NDArray, true: NDArray | None = None
) -> Path:
    """Draw the errors of the initial and the final model, or, without the truth, what has changed; returns ``path``.

    Parameters
    ----------
    path
        PNG file to write.
    domain
        The grid.
    initial, final, true
        P-wave velocities, km/s, shape ``domain.shape``.

    Notes
    -----
    The relative error in a title is ``norm(v - true) / norm(true)``, over the cells where both are finite.
    """
    return _save(path, lambda: _difference_figure(domain, initial, final, true))


def draw_convergence(
    path: Path,
    *,
    misfits: Sequence[float],
    iteration_evaluations: Sequence[int],
    iteration_misfits: Sequence[float],
    model_errors: Sequence[float | None] | None = None,
) -> Path:
    """Draw the misfit of every evaluation and of the accepted iterations, relative to the first; returns ``path``.

    Parameters
    ----------
    path
        PNG file to write.
    misfits
        Misfit of evaluation 1, 2, ...
    iteration_evaluations
        Evaluations done when iteration 0 (the initial model), 1, 2, ... was accepted.
    iteration_misfits
        Misfits of these iterations.
    model_errors
        Relative errors of their velocities (a fraction; None or NaN where not known).
    """
    errors = 100 * np.array(model_errors if model_errors is not None else [], dtype=float)
    return _save(path, lambda: _convergence_figure(misfits, iteration_evaluations, iteration_misfits, errors))


def draw_gather(
    path: Path,
    *,
    observed: NDArray,
    predicted: NDArray,
    sample_interval: float,
    receivers: ArrayLike,
    source: ArrayLike,
    shot: str,
    initial: NDArray | None = None,
) -> Path:
    """Draw one shot: observed, predicted and the difference, on the observed record's scale; returns ``path``.

    Parameters
    ----------
    path
        PNG file to write.
    observed, predicted
        Records, shape (samples, n); ``predicted`` by the final model.
    sample_interval
        ms.
    receivers
        Positions, shape (n, ndim), m. The traces are sorted by the coordinate that varies most; unless it is equally
        spaced, they are numbered.
    source
        Position, shape (ndim,), m.
    shot
        Name of the shot.
    initial
        Record predicted by the initial model, shape (samples, n): its residual becomes a fourth panel.
    """
    records = {"Observed": observed, "Predicted by the final model": predicted}
    for name, record in (("final", predicted), ("initial", initial)):
        if record is not None:
            told = f"Predicted − observed, {name}\nrms {_percent(record - observed, observed)} of observed"
            records[told] = record - observed
    place = np.asarray(source, dtype=float) / 1000
    where = ", ".join(f"{axis} = {v:.3g} km" for axis, v in zip(AXIS_NAMES[len(place)], place, strict=True))
    positions = np.atleast_2d(np.asarray(receivers, dtype=float))
    title = f"Shot {shot}, source at {where}"
    return _save(path, lambda: _gather_figure(records, sample_interval, positions, title))


def draw_gradient(path: Path, domain: Domain, *, gradient: NDArray, frozen: NDArray | None = None) -> Path:
    """Draw the gradient of the misfit at the first iteration; returns ``path``.

    Parameters
    ----------
    path
        PNG file to write.
    domain
        The grid.
    gradient
        With respect to squared slowness, misfit per (s/km)^2, shape ``domain.shape``.
    frozen
        Cells that the inversion leaves alone, boolean, shape ``domain.shape``; they are hatched.
    """
    return _save(path, lambda: _gradient_figure(domain, gradient, frozen))


def _save(path: Path, build: Callable[[], Figure]) -> Path:
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = build()
        write_aside(path, lambda file: figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.1))
    return path


def _models_figure(
    domain: Domain, models: dict[str, NDArray], sources: ArrayLike | None, receivers: ArrayLike | None
) -> Figure:
    sheet = _Sheet(domain, list(models))
    *clean, final = (_finite(values) for values in models.values())
    # An inversion leaves spikes at the sources: the extreme cells of the final model do not stretch the scale.
    limits = np.concatenate([*clean, np.percentile(final, (0.5, 99.5)) if final.size else final])
    low, high = (float(limits.min()), float(limits.max())) if limits.size else (0.0, 1.0)
    margin = 0.05 if low == high else 0.0
    sheet.paint(list(models.values()), VELOCITY, (low - margin, high + margin), "P-wave velocity (km/s)")
    sheet.mark(sources, "source", apart=0.18, marker="*", s=60, c="red", edgecolors="white", zorder=4)
    sheet.mark(receivers, "receiver", apart=0.2, marker="v", s=14, c="white", edgecolors="black", zorder=3)
    return sheet.finished()


def _difference_figure(domain: Domain, initial: NDArray, final: NDArray, true: NDArray | None) -> Figure:
    differences = {"Final − initial model": final - initial}
    if true is not None:
        differences = {
            f"{name} − true model\nrelative error {_percent(model - true, true)}": model - true
            for name, model in (("Initial", initial), ("Final", final))
        }
    sheet = _Sheet(domain, list(differences))
    limit = max(_amplitude(values, 99.5) for values in differences.values())
    sheet.paint(list(differences.values()), DIFFERENCE, (-limit, limit), "Velocity difference (km/s)")
    return sheet.finished()


def _gradient_figure(domain: Domain, gradient: NDArray, frozen: NDArray | None) -> Figure:
    title = "Gradient of the misfit at the first iteration\n(positive: a higher velocity there lowers the misfit)"
    sheet = _Sheet(domain, [title])
    # Near sources and receivers it is orders of magnitude larger than elsewhere, and most of all in frozen water.
    limit = _amplitude(gradient if frozen is None or frozen.all() else gradient[~frozen], 98)
    sheet.paint([gradient], DIFFERENCE, (-limit, limit), "Misfit per (s/km)$^2$")
    if frozen is not None and frozen.any():
        sheet.hatch(frozen, "frozen: not updated")
    return sheet.finished()


def _convergence_figure(
    misfits: Sequence[float], evaluations: Sequence[int], accepted: Sequence[float], errors: NDArray
) -> Figure:
    from matplotlib.ticker import MaxNLocator

    told = _finite(errors)
    figure = _new_figure((7.0, 5.8 if told.size else 3.6))
    panels = figure.subplots(2 if told.size else 1, 1, sharex=True, squeeze=False)[:, 0]
    first = misfits[0] if misfits[0] > 0 else 1.0
    # a logarithmic axis has no place for zero
    every, kept = (np.where(np.asarray(f) > 0, f, np.nan) / first for f in (misfits, accepted))
    panels[0].plot(1 + np.arange(len(every)), every, ".-", color="0.6", lw=0.8, label="every evaluation")
    panels[0].plot(evaluations, kept, "o-", color="C0", ms=5, label="accepted iteration")
    _logarithmic(panels[0], np.concatenate([every, kept]))
    count = f"{len(kept) - 1} iteration{'s' * (len(kept) != 2)}"
    panels[0].set_title(f"Misfit: {_number(100 * accepted[-1] / first)} % of the first one after {count}")
    panels[0].set_ylabel("Misfit / first misfit")
    panels[0].legend()
    if told.size:
        panels[1].plot(evaluations, errors, "o-", color="C1", ms=5)
        panels[1].set_title(f"Model error: from {_number(told[0])} % to {_number(told[-1])} %")
        panels[1].set_ylabel("Relative error of velocity (%)")
    for axes in panels:
        axes.grid(color="0.9")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panels[-1].set_xlim(0.5, len(misfits) + 0.5)
    panels[-1].set_xlabel("Evaluations of misfit and gradient")
    return figure


def _logarithmic(axes: Axes, values: NDArray) -> None:
    """A logarithmic scale, unless there is one value only; plain numbers at as many ticks as its range needs."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    values = _finite(values)
    decades = math.log10(values.max() / values.min()) if values.size else 0.0
    if decades == 0:
        return
    axes.set_yscale("log")
    if decades < 3:
        axes.yaxis.set_major_locator(
            MaxNLocator(6, steps=[1, 2, 5, 10]) if decades < 0.7 else LogLocator(subs=(1, 2, 5))
        )
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def _gather_figure(records: dict[str, NDArray], sample_interval: float, receivers: NDArray, title: str) -> Figure:
    from matplotlib.ticker import MaxNLocator

    order, (left, right), label = _trace_axis(receivers)
    observed = records["Observed"]
    limit, step = _amplitude(observed, 99), sample_interval / 1000
    extent = (left, right, (len(observed) - 0.5) * step, -0.5 * step)
    figure = _new_figure((2.6 * len(records) + 1.2, 5.5))
    *panels, bar = figure.subplots(1, len(records) + 1, width_ratios=[*(2.6,) * len(records), BAR])
    for axes, (name, record) in zip(panels, records.items(), strict=True):
        image = _image(axes, record[:, order], extent, RECORD, (-limit, limit))
        axes.set(title=name, xlabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer="Trace" in label, min_n_ticks=1))
        axes.tick_params(labelleft=axes is panels[0])
    panels[0].set_ylabel("Time (s)")
    _colour_bar(image, bar, 4.5, "Pressure (arbitrary unit)", "both")
    figure.suptitle(title, fontsize=11)
    return figure


def _trace_axis(receivers: NDArray) -> tuple[NDArray, tuple[float, float], str]:
    """Order of the traces, ends of the horizontal axis and its label."""
    axis = int(np.argmax(np.ptp(receivers, axis=0)))
    name = AXIS_NAMES[receivers.shape[1]][axis]
    name = "depth" if name == "z" else name
    order = np.lexsort((*receivers.T, receivers[:, axis]))
    along = receivers[order, axis] / 1000
    gaps = np.diff(along)
    # An image has columns of one width; a missing trace would shift all that follow.
    if len(gaps) and np.ptp(gaps) < 0.02 * gaps.mean():
        half = gaps.mean() / 2
        return order, (along[0] - half, along[-1] + half), f"Receiver {name} (km)"
    return order, (0.5, len(order) + 0.5), f"Trace, sorted by receiver {name}"


@dataclass(frozen=True)
class _View:
    """A plane of the model: the axes that run across and down the page, and where it cuts the third one."""

    across: int
    down: int
    cut: tuple[int | slice, ...]
    extent: Extent
    title: str = ""

    @classmethod
    def of(cls, domain: Domain, across: int, down: int, title: str = "") -> _View:
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


def _views(domain: Domain) -> list[_View]:
    """The model itself, or three slices of a 3-D one."""
    if domain.ndim == 2:
        return [_View.of(domain, 0, 1)]
    middle = [(o + n // 2 * h) / 1000 for o, n, h in zip(domain.origin, domain.shape, domain.spacing, strict=True)]
    return [
        _View.of(domain, 0, 2, f"at y = {middle[1]:.3g} km"),
        _View.of(domain, 1, 2, f"at x = {middle[0]:.3g} km"),
        _View.of(domain, 0, 1, f"at depth {middle[2]:.3g} km"),
    ]


class _Sheet:
    """A figure with a panel for each model and view; all panels share one colour scale.

    Attributes
    ----------
    panels
        Of each panel: its axes, its view, its size in inches, and the number of its model.
    """

    def __init__(self, domain: Domain, titles: list[str]) -> None:
        views = _views(domain)
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
        self.figure = _new_figure(gap=self.gap)
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
            image = _image(axes, view.plane(models[i]), view.extent, colours, limits)
        values = np.concatenate([_finite(model) for model in models])
        below, above = bool((values < limits[0]).any()), bool((values > limits[1]).any())
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
        _colour_bar(image, self.bar, self.inches[1], label, extend)

    def mark(self, positions: ArrayLike | None, name: str, *, apart: float, **look: Any) -> None:
        """Scatter positions, projected on every view and thinned to one in ``apart`` inches."""
        if positions is None or np.size(positions) == 0:
            return
        points = np.atleast_2d(np.asarray(positions, dtype=float)) / 1000
        for axes, view, size, _ in self.panels:
            shown = _thin(points[:, [view.across, view.down]], apart * view.size[0] / size[0])
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


def _new_figure(size: tuple[float, float] | None = None, gap: float = 0.0) -> Figure:
    """An empty figure of a size in inches, with a gap on both sides of every panel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # as layout="constrained", all distances in inches
    engine = ConstrainedLayoutEngine(w_pad=0.06 + gap, h_pad=0.06, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=size, layout=engine)
    FigureCanvasAgg(figure)
    return figure


def _image(axes: Axes, rows: NDArray, extent: Extent, colours: str, limits: tuple[float, float]) -> Any:
    """An image, its first row at the top; what is not finite has a colour that the scale has not."""
    from matplotlib import colormaps

    colormap = colormaps[colours].with_extremes(bad="khaki" if colours == RECORD else "0.75")
    scale: dict[str, Any] = {"cmap": colormap, "vmin": limits[0], "vmax": limits[1]}
    return axes.imshow(np.ma.masked_invalid(rows), extent=extent, aspect="auto", origin="upper", **scale)


def _colour_bar(image: Any, place: Axes, inches: float, label: str, extend: str) -> None:
    from matplotlib.ticker import ScalarFormatter

    how: dict[str, Any] = {"extend": extend, "extendfrac": 0.12 / inches, "format": ScalarFormatter(useMathText=True)}
    place.figure.colorbar(image, cax=place, label=_wrap(label, inches), **how)


def _label(axes: Axes, domain: Domain, view: _View, inches: NDArray) -> None:
    from matplotlib.ticker import MaxNLocator

    names = ["Distance", "Depth"] if domain.ndim == 2 else ["Distance x", "Distance y", "Depth"]
    axes.set(xlabel=f"{names[view.across]} (km)", ylabel=f"{names[view.down]} (km)")
    # as many ticks as their labels have room for
    for axis, length, each in zip((axes.xaxis, axes.yaxis), inches, (0.6, 0.35), strict=True):
        axis.set_major_locator(MaxNLocator(int(np.clip(length / each, 1, 8)), steps=[1, 2, 5, 10]))


def _wrap(title: str, inches: float) -> str:
    return "\n".join(textwrap.fill(line, int(inches / LETTER)) for line in title.split("\n"))


def _thin(points: NDArray, cell: float) -> NDArray:
    """One point of every cell; of an even line, every k-th point."""
    steps = []
    for values in points.T:
        gaps = np.diff(np.unique(values))
        usual = float(np.median(gaps)) if gaps.size else cell
        steps.append(usual * math.ceil(cell / usual))
    cells = np.floor((points - points.min(axis=0)) / steps + 1e-6)
    _, first = np.unique(cells, axis=0, return_index=True)
    return points[np.sort(first)]


def _finite(values: ArrayLike) -> NDArray:
    flat = np.ravel(np.asarray(values, dtype=float))
    return flat[np.isfinite(flat)]


def _amplitude(values: NDArray, percent: float) -> float:
    """Where to clip a symmetric scale: at a percentile of the absolute values, or their maximum if that is zero."""
    sizes = np.abs(_finite(values))
    return float((sizes.size and (np.percentile(sizes, percent) or sizes.max())) or 1.0)


def _percent(difference: NDArray, reference: NDArray) -> str:
    """Norm of a difference over that of its reference, where both are finite."""
    both = np.isfinite(difference) & np.isfinite(reference)
    size = np.linalg.norm(reference[both])
    return f"{_number(100 * float(np.linalg.norm(difference[both]) / size))} %" if size else "unknown"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}" if abs(value) < 1 else f"{value:.1f}"
