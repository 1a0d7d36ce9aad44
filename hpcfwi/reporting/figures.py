"""The pictures of a run: models, their errors, convergence, gathers and the gradient.

Called at the end of a run and by ``hpcfwi report``. Every figure is built by a private function that returns it, and written
by a public one. Matplotlib is imported only while drawing, and pyplot never: no windows, no global state.
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

DPI = 150
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.formatter.use_mathtext": True,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # what a user's matplotlibrc may ask for and a compute node may not have
    "text.usetex": False,
}

# Inches: the most that all panels of a figure take together, a single one's mean side, a column's text, a letter of it.
WIDEST, TALLEST, LARGEST_PANEL, NARROWEST_TEXT, LETTER = 10.0, 7.5, 5.0, 1.4, 0.09
VELOCITY, DIFFERENCE, RECORD = "viridis", "RdBu", "gray"


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
    """Draw the true model (where it is known), the initial and the final one on one colour scale.

    Parameters
    ----------
    path
        PNG file to write.
    domain
        The grid. Of a 3-D one, three slices through the middle are shown.
    initial, final, true
        P-wave velocities, km/s, shape ``domain.shape``; cells that are not finite stay grey.
    sources, receivers
        Positions, shape (n, ndim), m; thinned where they are too dense to be told apart.

    Returns
    -------
    Path
        ``path``.
    """
    return _save(path, lambda: _models_figure(domain, initial, final, true, sources, receivers))


def draw_difference(
    path: Path, domain: Domain, *, initial: NDArray, final: NDArray, true: NDArray | None = None
) -> Path:
    """Draw what is wrong with the initial and the final model, or, where the truth is not known, what has changed.

    Parameters
    ----------
    path
        PNG file to write.
    domain
        The grid.
    initial, final, true
        P-wave velocities, km/s, shape ``domain.shape``.

    Returns
    -------
    Path
        ``path``.

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
    """Draw the misfit of every evaluation and of the accepted iterations, relative to the first one.

    Parameters
    ----------
    path
        PNG file to write.
    misfits
        Misfit of evaluation 1, 2, ...
    iteration_evaluations
        Number of evaluations that had been done when iteration 0 (the initial model), 1, ... was accepted.
    iteration_misfits
        Misfits of these iterations.
    model_errors
        Relative errors of the iterations' velocities (a fraction; None or NaN where not known).

    Returns
    -------
    Path
        ``path``.
    """
    return _save(path, lambda: _convergence_figure(misfits, iteration_evaluations, iteration_misfits, model_errors))


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
    """Draw one shot: observed, predicted and the difference, all on the observed record's grey scale.

    Parameters
    ----------
    path
        PNG file to write.
    observed, predicted
        Records, shape (samples, n); ``predicted`` by the final model.
    sample_interval
        ms.
    receivers
        Positions, shape (n, ndim), m. The traces are sorted by the coordinate that varies most; where it is not
        equally spaced they are numbered.
    source
        Position, shape (ndim,), m.
    shot
        Name of the shot.
    initial
        Record predicted by the initial model, shape (samples, n): its residual becomes a fourth panel.

    Returns
    -------
    Path
        ``path``.
    """
    return _save(
        path,
        lambda: _gather_figure(observed, predicted, sample_interval, receivers, source, shot, initial),
    )


def draw_gradient(path: Path, domain: Domain, *, gradient: NDArray, frozen: NDArray | None = None) -> Path:
    """Draw the gradient of the misfit at the first iteration.

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

    Returns
    -------
    Path
        ``path``.
    """
    return _save(path, lambda: _gradient_figure(domain, gradient, frozen))


def _save(path: Path, build: Callable[[], Figure]) -> Path:
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = build()
        write_aside(
            path,
            lambda file: figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.1),
        )
    return path


def _models_figure(
    domain: Domain,
    initial: NDArray,
    final: NDArray,
    true: NDArray | None,
    sources: ArrayLike | None,
    receivers: ArrayLike | None,
) -> Figure:
    models = {"True model": true, "Initial model": initial, "Final model": final}
    known = {title: values for title, values in models.items() if values is not None}
    sheet = _Sheet(domain, list(known))
    # An inversion may leave spikes at the sources: the final model does not stretch the scale by its last few cells.
    clean = [_finite(values) for values in known.values() if values is not final]
    limits = np.concatenate([*clean, _percentiles(final, (0.5, 99.5))])
    low, high = (limits.min(), limits.max()) if limits.size else (0.0, 1.0)
    margin = 0.05 if low == high else 0.0
    sheet.paint(list(known.values()), VELOCITY, (low - margin, high + margin), "P-wave velocity (km/s)")
    sheet.mark(sources, "source", marker="*", s=60, c="red", edgecolors="white", apart=0.3, zorder=4)
    sheet.mark(receivers, "receiver", marker="v", s=14, c="white", edgecolors="black", apart=0.22, zorder=3)
    return sheet.finished()


def _difference_figure(domain: Domain, initial: NDArray, final: NDArray, true: NDArray | None) -> Figure:
    if true is None:
        differences = {"Final − initial model": final - initial}
    else:
        differences = {
            f"{name} − true model\nrelative error {_percent(model - true, true)}": model - true
            for name, model in (("Initial", initial), ("Final", final))
        }
    sheet = _Sheet(domain, list(differences))
    # each its own: a good final model must not hide the initial one's errors among its zeros
    limit = max(_amplitude(values, 99.5) for values in differences.values())
    sheet.paint(list(differences.values()), DIFFERENCE, (-limit, limit), "Velocity difference (km/s)")
    return sheet.finished()


def _gradient_figure(domain: Domain, gradient: NDArray, frozen: NDArray | None) -> Figure:
    title = "Gradient of the misfit at the first iteration\n(positive: a higher velocity there lowers the misfit)"
    sheet = _Sheet(domain, [title])
    # The imprint of sources and receivers is orders of magnitude larger than what the reflectors contribute.
    limit = _amplitude(gradient if frozen is None or frozen.all() else gradient[~frozen], 98)
    sheet.paint([gradient], DIFFERENCE, (-limit, limit), "Misfit per (s/km)$^2$")
    if frozen is not None and frozen.any():
        sheet.hatch(frozen, "frozen: not updated")
    return sheet.finished()


def _convergence_figure(
    misfits: Sequence[float],
    iteration_evaluations: Sequence[int],
    iteration_misfits: Sequence[float],
    model_errors: Sequence[float | None] | None,
) -> Figure:
    from matplotlib.ticker import MaxNLocator

    errors = 100 * np.array(model_errors if model_errors is not None else [], dtype=float)
    known = np.isfinite(errors).any()
    figure = _new_figure(size=(7.0, 5.8 if known else 3.6))
    panels = figure.subplots(2 if known else 1, 1, sharex=True, squeeze=False)[:, 0]
    first = misfits[0] if misfits[0] > 0 else 1.0
    every, accepted = (_positive(values) / first for values in (misfits, iteration_misfits))
    top = panels[0]
    top.plot(1 + np.arange(len(every)), every, ".-", color="0.6", lw=0.8, label="every evaluation")
    top.plot(iteration_evaluations, accepted, "o-", color="C0", ms=5, label="accepted iteration")
    _logarithmic(top, np.concatenate([every, accepted]))
    top.set_ylabel("Misfit / first misfit")
    top.set_title(f"Misfit: {_number(100 * accepted[-1])} % of the first one after {len(accepted) - 1} iterations")
    top.legend()
    if known:
        panels[1].plot(iteration_evaluations, errors, "o-", color="C1", ms=5)
        told = errors[np.isfinite(errors)]
        panels[1].set_title(f"Model error: from {_number(told[0])} % to {_number(told[-1])} %")
        panels[1].set_ylabel("Relative error of velocity (%)")
    for axes in panels:
        axes.grid(color="0.9")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panels[-1].set_xlim(0.5, len(misfits) + 0.5)
    panels[-1].set_xlabel("Evaluations of misfit and gradient")
    return figure


def _gather_figure(
    observed: NDArray,
    predicted: NDArray,
    sample_interval: float,
    receivers: ArrayLike,
    source: ArrayLike,
    shot: str,
    initial: NDArray | None,
) -> Figure:
    order, extent, label = _trace_axis(np.atleast_2d(np.asarray(receivers, dtype=float)))
    records = {"Observed": observed, "Predicted by the final model": predicted}
    for name, record in (("final", predicted), ("initial", initial)):
        if record is not None:
            residual = record - observed
            records[f"Predicted − observed, {name}\nrms {_percent(residual, observed)} of observed"] = residual
    figure = _new_figure(size=(2.6 * len(records) + 1.2, 5.5))
    panels = figure.subplots(1, len(records), sharex=True, sharey=True)
    limit = _amplitude(observed, 99)
    step = sample_interval / 1000
    bottom, top = (len(observed) - 0.5) * step, -0.5 * step
    for axes, (title, record) in zip(panels, records.items(), strict=True):
        image = _image(axes, record[:, order], (*extent, bottom, top), RECORD, (-limit, limit), aspect="auto")
        axes.set(title=title, xlabel=label)
    panels[0].set_ylabel("Time (s)")
    figure.colorbar(image, ax=list(panels), label="Pressure (arbitrary unit)", extend="both", fraction=0.03, aspect=30)
    place = np.asarray(source, dtype=float) / 1000
    told = ", ".join(f"{axis} = {v:.3g} km" for axis, v in zip(AXIS_NAMES[len(place)], place, strict=True))
    figure.suptitle(f"Shot {shot}, source at {told}", fontsize=11)
    return figure


def _trace_axis(receivers: NDArray) -> tuple[NDArray, tuple[float, float], str]:
    """Order of the traces, extent of the horizontal axis, and its label."""
    axis = int(np.argmax(np.ptp(receivers, axis=0)))
    name = AXIS_NAMES[receivers.shape[1]][axis]
    order = np.argsort(receivers[:, axis], kind="stable")
    along = receivers[order, axis] / 1000
    gaps = np.diff(along)
    name = "depth" if name == "z" else name
    # An image has columns of one width; a missing trace or a crooked line would shift all that follow.
    if len(gaps) and np.ptp(gaps) < 0.02 * gaps.mean():
        half = gaps.mean() / 2
        return order, (along[0] - half, along[-1] + half), f"Receiver {name} (km)"
    return order, (0.5, len(order) + 0.5), f"Trace, sorted by receiver {name}"


def _logarithmic(axes: Axes, values: NDArray) -> None:
    """A logarithmic scale with plain numbers at as many ticks as the range of the values needs."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    axes.set_yscale("log")
    values = _finite(values)
    decades = math.log10(values.max() / values.min()) if values.size else 0.0
    if decades < 3:
        axes.yaxis.set_major_locator(MaxNLocator(6) if decades < 0.7 else LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True)
class _View:
    """A plane of the model: the axes that run across and down the page, and where the plane cuts the third one."""

    across: int
    down: int
    cut: tuple[int | slice, ...]
    title: str = ""

    def plane(self, values: NDArray) -> NDArray:
        return values[self.cut].T

    def vertical(self, domain: Domain) -> bool:
        return self.down == domain.ndim - 1

    def extent(self, domain: Domain) -> tuple[float, float, float, float]:
        """Left, right, bottom, top of the image, km: half a cell beyond the outer grid points."""
        low = [(o - h / 2) / 1000 for o, h in zip(domain.origin, domain.spacing, strict=True)]
        high = [(e + h / 2) / 1000 for e, h in zip(domain.last, domain.spacing, strict=True)]
        depths = (high[self.down], low[self.down])
        return low[self.across], high[self.across], *(depths if self.vertical(domain) else depths[::-1])

    def size(self, domain: Domain) -> tuple[float, float]:
        left, right, bottom, top = self.extent(domain)
        return right - left, abs(bottom - top)


def _views(domain: Domain) -> list[_View]:
    """The model itself, or three slices through the middle of a 3-D one."""
    every = slice(None)
    if domain.ndim == 2:
        return [_View(0, 1, (every, every))]
    x, y, z = (n // 2 for n in domain.shape)
    at = [(o + i * h) / 1000 for o, i, h in zip(domain.origin, (x, y, z), domain.spacing, strict=True)]
    return [
        _View(0, 2, (every, y, every), f"at y = {at[1]:.3g} km"),
        _View(1, 2, (x, every, every), f"at x = {at[0]:.3g} km"),
        _View(0, 1, (every, every, z), f"at depth {at[2]:.3g} km"),
    ]


class _Sheet:
    """A figure with a panel for each model and view; all panels share one colour scale.

    Parameters
    ----------
    domain
        The grid.
    titles
        One for each model.
    """

    def __init__(self, domain: Domain, titles: list[str]) -> None:
        self.domain = domain
        self.views = _views(domain)
        self.handles: list[Any] = []
        sizes = [view.size(domain) for view in self.views]
        stacked = domain.ndim == 3 or sizes[0][0] > 2 * sizes[0][1]
        if domain.ndim == 3:
            # a map on the scale of flat sections would leave most of its row empty
            shrink = min(1.0, 2 * sizes[0][1] / sizes[2][1])
            sizes[2] = (shrink * sizes[2][0], shrink * sizes[2][1])
        self.rows, columns = (len(titles), len(sizes)) if stacked else (1, len(titles))
        in_a_row = sizes if stacked else sizes * columns
        total, tallest = sum(w for w, _ in in_a_row), max(h for _, h in in_a_row)
        scale = min(WIDEST / total, TALLEST / (self.rows * tallest), LARGEST_PANEL / math.sqrt(sizes[0][0] * tallest))
        self.sizes = [(scale * w, scale * h) for w, h in sizes]
        self.width, self.height = scale * total, scale * tallest
        narrowest = min(w for w, _ in self.sizes)
        room = max(narrowest, NARROWEST_TEXT if columns > 1 else 2 * NARROWEST_TEXT)
        self.figure = _new_figure((room - narrowest) / 2 if columns > 1 else 0.0)
        widths = [w for w, _ in in_a_row]
        self.grid = self.figure.subplots(self.rows, columns, width_ratios=widths, squeeze=False)
        self.panels = [list(row) for row in self.grid] if stacked else [[axes] for axes in self.grid[0]]
        for row, title in zip(self.panels, titles, strict=True):
            wrapped = _wrap(title, room if domain.ndim == 2 else self.width)
            for axes, view, size in zip(row, self.views, self.sizes, strict=True):
                _label(axes, domain, view, size)
                # the model's name may reach over its neighbours, whose titles are a line lower
                first = wrapped if axes is row[0] else ""
                axes.set_title("\n".join(filter(None, (first, view.title))), loc="left")
        for axes in self.grid[:-1].flat:
            axes.set_xlabel("")
            axes.tick_params(labelbottom=False)
        for axes in self.grid[:, 1:].flat if domain.ndim == 2 else ():
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)

    @property
    def _every_panel(self) -> list[tuple[Axes, _View, tuple[float, float], int]]:
        """Panels with their view, their size in inches and the number of their model."""
        return [
            (axes, view, size, i)
            for i, row in enumerate(self.panels)
            for axes, view, size in zip(row, self.views, self.sizes, strict=True)
        ]

    def paint(self, models: list[NDArray], colours: str, limits: tuple[float, float], label: str) -> None:
        """Fill the panels and add the colour bar, with arrows where values lie beyond the limits."""
        for axes, view, _, i in self._every_panel:
            extent = view.extent(self.domain)
            image = _image(axes, view.plane(models[i]), extent, colours, limits, aspect="equal")
        finite = np.concatenate([_finite(values) for values in models])
        below, above = bool((finite < limits[0]).any()), bool((finite > limits[1]).any())
        self.figure.colorbar(
            image,
            ax=list(self.grid.flat),
            label=label,
            extend={(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above],
            fraction=0.3 / self.width,
            aspect=max(5.0, self.rows * self.height / 0.17),
        )

    def mark(self, positions: ArrayLike | None, name: str, *, apart: float, **look: Any) -> None:
        """Scatter positions, projected on every view and thinned to about one in ``apart`` inches."""
        if positions is None or np.size(positions) == 0:
            return
        points = np.atleast_2d(np.asarray(positions, dtype=float)) / 1000
        for axes, view, size, _ in self._every_panel:
            cell = apart * view.size(self.domain)[0] / size[0]
            shown = _thin(points[:, [view.across, view.down]], cell)
            # not clipped: half of the symbols of a survey lie on the model's edge
            drawn = axes.scatter(*shown.T, linewidths=0.5, clip_on=False, label=name, **look)
        self.handles.append(drawn)

    def hatch(self, mask: NDArray, name: str) -> None:
        """Hatch and outline the cells of a mask."""
        from matplotlib.patches import Patch

        for axes, view, _, _ in self._every_panel:
            plane = view.plane(mask).astype(float)
            where: dict[str, Any] = {"extent": view.extent(self.domain), "origin": "upper"}
            if plane.any():
                axes.contourf(plane, [0.5, 1.5], colors="none", hatches=["////"], **where)
            if 0 < plane.mean() < 1:
                axes.contour(plane, [0.5], colors="black", linewidths=0.8, **where)
        self.handles.append(Patch(facecolor="none", edgecolor="black", hatch="////", label=name))

    def finished(self) -> Figure:
        """Add the legend, and give the figure the size in which the panels have theirs."""
        if self.handles:
            place = "outside lower center"
            self.figure.legend(handles=self.handles, loc=place, ncols=len(self.handles), frameon=False)
        # What labels and colour bar take is known only once they are laid out; it hardly depends on the size.
        size = np.array([self.width + 3.0, self.rows * (self.height + 1.0) + 1.0])
        for _ in range(3):
            self.figure.set_size_inches(size)
            self.figure.draw_without_rendering()
            slots = [axes.get_position(original=True).size * size for axes in self.grid.flat]
            taken = np.array([sum(w for w, _ in slots) / self.rows, sum(h for _, h in slots) / self.grid.shape[1]])
            size = size + [self.width, self.rows * self.height] - taken
        self.figure.set_size_inches(size)
        return self.figure


def _new_figure(gap: float = 0.0, size: tuple[float, float] | None = None) -> Figure:
    """An empty figure of a size in inches, with a gap to be left on both sides of every panel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06 + gap, h_pad=0.06)
    FigureCanvasAgg(figure)
    return figure


def _image(
    axes: Axes,
    values: NDArray,
    extent: tuple[float, ...],
    colours: str,
    limits: tuple[float, float],
    aspect: str,
) -> Any:
    """An image whose first row is at the top end of the extent; cells that are not finite are grey."""
    from matplotlib import colormaps

    missing = "khaki" if colours == RECORD else "0.75"
    # The extent alone decides which way is up: rows are always drawn from its top to its bottom
    return axes.imshow(
        np.ma.masked_invalid(values),
        extent=extent,
        cmap=colormaps[colours].with_extremes(bad=missing),
        vmin=limits[0],
        vmax=limits[1],
        aspect=aspect,
        origin="upper",
    )


def _label(axes: Axes, domain: Domain, view: _View, size: tuple[float, float]) -> None:
    from matplotlib.ticker import MaxNLocator

    flat = domain.ndim == 2
    axes.set_xlabel("Distance (km)" if flat else f"Distance {domain.axes[view.across]} (km)")
    axes.set_ylabel("Depth (km)" if view.vertical(domain) else f"Distance {domain.axes[view.down]} (km)")
    # as many ticks as their labels have room for
    for axis, length, each in zip((axes.xaxis, axes.yaxis), size, (0.6, 0.35), strict=True):
        axis.set_major_locator(MaxNLocator(int(np.clip(length / each, 1, 8)), steps=[1, 2, 5, 10]))


def _wrap(title: str, inches: float) -> str:
    return "\n".join(textwrap.fill(line, max(10, int(inches / LETTER))) for line in title.split("\n"))


def _thin(points: NDArray, cell: float) -> NDArray:
    """One point of every cell; on an even line, every k-th point."""
    steps = []
    for values in points.T:
        gaps = np.diff(np.unique(values))
        usual = float(np.median(gaps)) if gaps.size else cell
        steps.append(usual * max(1, math.ceil(cell / usual)))
    cells = np.floor((points - points.min(axis=0)) / steps + 1e-6)
    _, first = np.unique(cells, axis=0, return_index=True)
    return points[np.sort(first)]


def _finite(values: ArrayLike) -> NDArray:
    flat = np.ravel(np.asarray(values, dtype=float))
    return flat[np.isfinite(flat)]


def _positive(values: Sequence[float]) -> NDArray:
    """The values, NaN where a logarithmic axis has no place for them."""
    array = np.asarray(values, dtype=float)
    return np.where(array > 0, array, np.nan)


def _percentiles(values: NDArray, percents: tuple[float, ...]) -> NDArray:
    finite = _finite(values)
    return np.percentile(finite, percents) if finite.size else finite


def _amplitude(values: NDArray, percent: float) -> float:
    """Where to clip a symmetric scale: a percentile of the absolute values, or their maximum if that is zero."""
    sizes = np.abs(_finite(values))
    return float((sizes.size and (np.percentile(sizes, percent) or sizes.max())) or 1.0)


def _percent(difference: NDArray, reference: NDArray) -> str:
    """Norm of a difference over that of its reference, where both are finite."""
    both = np.isfinite(difference) & np.isfinite(reference)
    size = np.linalg.norm(reference[both])
    return f"{_number(100 * float(np.linalg.norm(difference[both]) / size))} %" if size else "unknown"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}" if abs(value) < 1 else f"{value:.1f}"
