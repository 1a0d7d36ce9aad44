"""The pictures of a run: models, their errors, convergence, gathers and the gradient.

Called at the end of a run. Every figure is built by a private function that returns it and
written by a public one. Matplotlib is imported only while drawing, pyplot never: no windows, no global state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcfwi.io import write_atomic
from hpcfwi.model.grid import AXIS_NAMES, Domain
from hpcfwi.reporting.panels import BAR, Sheet, colour_bar, draw_image, finite, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "draw_convergence",
    "draw_difference",
    "draw_gather",
    "draw_gradient",
    "draw_models",
    "footnote",
    "save_figure",
]

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
VELOCITY, DIFFERENCE, RECORD = "viridis", "RdBu", "gray"


# Below every picture.
_note: ContextVar[str] = ContextVar("note", default="")


@contextmanager
def footnote(text: str) -> Iterator[None]:
    """Pictures that are drawn inside have this text below them."""
    token = _note.set(text)
    try:
        yield
    finally:
        _note.reset(token)


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
    return save_figure(path, lambda: _models_figure(domain, known, sources, receivers))


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
    return save_figure(path, lambda: _difference_figure(domain, initial, final, true))


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
    return save_figure(path, lambda: _convergence_figure(misfits, iteration_evaluations, iteration_misfits, errors))


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
    return save_figure(path, lambda: _gather_figure(records, sample_interval, positions, title))


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
    return save_figure(path, lambda: _gradient_figure(domain, gradient, frozen))


def save_figure(path: Path, build: Callable[[], Figure]) -> Path:
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = build()
        if _note.get():
            figure.text(0.0, 0.0, _note.get(), fontsize=7, va="top", transform=figure.transSubfigure)
        write_atomic(path, lambda file: figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.1))
    return path


def _models_figure(
    domain: Domain, models: dict[str, NDArray], sources: ArrayLike | None, receivers: ArrayLike | None
) -> Figure:
    sheet = Sheet(domain, list(models))
    *clean, final = (finite(values) for values in models.values())
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
    sheet = Sheet(domain, list(differences))
    limit = max(_amplitude(values, 99.5) for values in differences.values())
    sheet.paint(list(differences.values()), DIFFERENCE, (-limit, limit), "Velocity difference (km/s)")
    return sheet.finished()


def _gradient_figure(domain: Domain, gradient: NDArray, frozen: NDArray | None) -> Figure:
    title = "Gradient of the misfit at the first iteration\n(positive: a higher velocity there lowers the misfit)"
    sheet = Sheet(domain, [title])
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

    told = finite(errors)
    figure = new_figure((7.0, 5.8 if told.size else 3.6))
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

    values = finite(values)
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
    figure = new_figure((2.6 * len(records) + 1.2, 5.5))
    *panels, bar = figure.subplots(1, len(records) + 1, width_ratios=[*(2.6,) * len(records), BAR])
    for axes, (name, record) in zip(panels, records.items(), strict=True):
        image = draw_image(axes, record[:, order], extent, RECORD, (-limit, limit))
        axes.set(title=name, xlabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer="Trace" in label, min_n_ticks=1))
        axes.tick_params(labelleft=axes is panels[0])
    panels[0].set_ylabel("Time (s)")
    colour_bar(image, bar, 4.5, "Pressure (arbitrary unit)", "both")
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


def _amplitude(values: NDArray, percent: float) -> float:
    """Where to clip a symmetric scale: at a percentile of the absolute values, or their maximum if that is zero."""
    sizes = np.abs(finite(values))
    return float((sizes.size and (np.percentile(sizes, percent) or sizes.max())) or 1.0)


def _percent(difference: NDArray, reference: NDArray) -> str:
    """Norm of a difference over that of its reference, where both are finite."""
    both = np.isfinite(difference) & np.isfinite(reference)
    size = np.linalg.norm(reference[both])
    return f"{_number(100 * float(np.linalg.norm(difference[both]) / size))} %" if size else "unknown"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}" if abs(value) < 1 else f"{value:.1f}"
