"""The figures of a finished run: models, their errors, convergence, one shot's gathers, the first gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcfwi.model.grid import AXIS_NAMES, Domain
from hpcfwi.reporting import plotting
from hpcfwi.reporting.formatting import counted
from hpcfwi.reporting.wavelet_figure import wavelet_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hpcfwi.inversion.history import Row
    from hpcfwi.inversion.objective import Objective, ShotGathers
    from hpcfwi.model.problem import Problem
    from hpcfwi.model.source_estimate import SourceFilters


def draw_run_figures(
    folder: Path,
    problem: Problem,
    objective: Objective,
    rows: Sequence[Row],
    velocity: NDArray,
    gradient: NDArray | None,
    on_grid: Callable[[NDArray], NDArray] = lambda model: model,
    source: SourceFilters | None = None,
    stages: Mapping[int, str] = MappingProxyType({}),
) -> None:
    """Write the figures of a run as PNG files; workers predict the gathers of the middle shot.

    ``objective`` is that of the last stage, and ``on_grid`` brings models to its grid. ``velocity`` is the final model, km/s;
    ``gradient`` the one at the initial model, misfit per (s/km)^2, if it is known; ``source`` are the filters of an estimated
    wavelet; ``stages`` are the names of stages by the number of their first evaluation.
    """
    folder.mkdir(exist_ok=True, mode=0o700)
    domain, compared = problem.domain, objective.problem
    shots = compared.survey.shots
    middle = len(shots) // 2
    shot = shots[middle]
    models: dict[str, Any] = {"initial": problem.initial_velocity, "final": velocity, "true": problem.true_velocity}
    sources = np.stack([each.source for each in shots])
    receivers = np.unique(np.concatenate(list(compared.survey.spreads())), axis=0)
    window = None if compared.windows is None else compared.windows.corners(shot)
    start = on_grid(problem.initial_velocity)
    final, first = (objective.predict(model, middle) for model in (on_grid(velocity), start))
    # with a time step that follows the model the two records have different time axes
    initial = first.predicted if first.axis == final.axis and first.predicted.shape == final.observed.shape else None
    record = (final.observed, final.predicted, final.axis.step, final.receivers, shot.source, shot.name, initial)
    misfits = [evaluation.misfit for evaluation in objective.evaluations]
    history = ([r.evaluations for r in rows], [r.misfit for r in rows], [r.model_error for r in rows])
    pictures: dict[str, Callable[[], Figure]] = {
        "models": lambda: models_figure(domain, **models, sources=sources, receivers=receivers, window=window),
        "difference": lambda: difference_figure(domain, **models),
        "convergence": lambda: convergence_figure(misfits, *history, stages),
        "gather": lambda: gather_figure(*record),
    }
    if gradient is not None:
        pictures["gradient"] = lambda: gradient_figure(domain, gradient, problem.frozen)
    if compared.processing.steps:
        gathers = {"before": objective.predict(start, 0, processed=False), "after": objective.predict(start, 0)}
        pictures["processing"] = lambda: processing_figure(gathers, shots[0].name, compared.processing.names)
    if source is not None:
        pictures["wavelet"] = lambda: wavelet_figure(compared.wavelet, source)
    if domain.ndim == 3:
        pictures["depths"] = lambda: depths_figure(domain, **models)
    for name, draw in pictures.items():
        plotting.save_figure(folder / f"{name}.png", draw, problem.exclusion_note)


def models_figure(
    domain: Domain,
    *,
    initial: NDArray,
    final: NDArray,
    true: NDArray | None = None,
    sources: ArrayLike | None = None,
    receivers: ArrayLike | None = None,
    window: tuple[ArrayLike, ArrayLike] | None = None,
) -> Figure:
    """The true model (if known), the initial and the final one, km/s, on one colour scale; three slices of 3-D models.

    ``sources`` and ``receivers`` are positions, shape (n, ndim), m; dense ones are thinned. ``window`` are two opposite corners
    of the window of a shot, m. Cells that are not finite are grey.
    """
    models = {"True model": true, "Initial model": initial, "Final model": final}
    known = {title: values for title, values in models.items() if values is not None}
    *others, last = known.values()
    limits = plotting.velocity_limits(*others, last=last)
    drawing = plotting.ModelFigure(domain, known, plotting.VELOCITY_COLOURS, limits, "P-wave velocity (km/s)")
    drawing.mark(sources, "source", 0.18, plotting.SOURCE)
    drawing.mark(receivers, "receiver", 0.2, plotting.RECEIVER)
    if window is not None:
        drawing.frame(window, "window of the middle shot")
    return drawing.finish()


def depths_figure(domain: Domain, *, initial: NDArray, final: NDArray, true: NDArray | None = None) -> Figure:
    """Maps of 3-D models at several depths, km/s, on one colour scale."""
    models = {"True model": true, "Initial model": initial, "Final model": final}
    known = {title: values for title, values in models.items() if values is not None}
    *others, last = known.values()
    style = (plotting.VELOCITY_COLOURS, plotting.velocity_limits(*others, last=last), "P-wave velocity (km/s)")
    return plotting.ModelFigure(domain, known, *style, maps=plotting.depth_slices(domain)).finish()


def difference_figure(domain: Domain, *, initial: NDArray, final: NDArray, true: NDArray | None = None) -> Figure:
    """The errors of the initial and the final model or, without a true model, the difference of the two.

    The relative error in a title is ``norm(v - true) / norm(true)`` over the cells where both are finite.
    """
    differences = {"Final − initial model": final - initial}
    if true is not None:
        differences = {
            f"{name} − true model\nrelative error {_percent(model - true, true)}": model - true
            for name, model in (("Initial", initial), ("Final", final))
        }
    limits, label = plotting.symmetric_limits(*differences.values()), "Velocity difference (km/s)"
    return plotting.ModelFigure(domain, differences, plotting.DIFFERENCE_COLOURS, limits, label).finish()


def gradient_figure(domain: Domain, gradient: NDArray, frozen: NDArray | None = None) -> Figure:
    """The gradient of the misfit with respect to squared slowness at the initial model; ``frozen`` cells are hatched."""
    title = "Gradient of the misfit at the initial model\n(positive: a higher velocity there lowers the misfit)"
    style = (plotting.DIFFERENCE_COLOURS, gradient_limits(gradient, frozen), "Misfit per (s/km)$^2$")
    drawing = plotting.ModelFigure(domain, {title: gradient}, *style)
    if frozen is not None and frozen.any():
        drawing.hatch(frozen, "frozen: not updated")
    return drawing.finish()


def gradient_limits(gradient: NDArray, frozen: NDArray | None) -> tuple[float, float]:
    """Colour limits of a gradient, which is far larger at sources, at receivers and in frozen cells."""
    return plotting.symmetric_limits(gradient if frozen is None or frozen.all() else gradient[~frozen], percent=98)


def convergence_figure(
    misfits: Sequence[float],
    iteration_evaluations: Sequence[int],
    iteration_misfits: Sequence[float],
    model_errors: Sequence[float | None] = (),
    stages: Mapping[int, str] = MappingProxyType({}),
) -> Figure:
    """The misfits of all evaluations and of the iterations, relative to the first of their stage, and the model errors.

    ``misfits`` has a value for each evaluation. The other arguments have one for each iteration, from 0 (the initial model) on:
    the number of its last evaluation, its misfit and its model error (a fraction; None or NaN if unknown). ``stages`` are names
    of stages by the number of their first evaluation.
    """
    errors = 100 * np.array(model_errors, dtype=float)
    known = plotting.finite(errors)
    figure = plotting.new_figure((7.0, 5.8 if known.size else 3.6))
    top, *below = figure.subplots(2 if known.size else 1, 1, sharex=True, squeeze=False)[:, 0]
    every = np.column_stack([np.arange(1, len(misfits) + 1), misfits])
    accepted = np.column_stack([iteration_evaluations, iteration_misfits])
    starts = sorted({1, *stages})
    every, accepted = (relative_misfits(points, every, starts) for points in (every, accepted))
    draw_misfits(top, every, accepted, starts)
    count = counted(len(iteration_misfits) - 1, "iteration")
    of = f"that of its stage, {stages[starts[-1]]}," if stages else "the first misfit"
    top.set_title(f"Misfit: {_number(100 * accepted[-1, 1])} % of {of} after {count}")
    for start in starts if stages else ():
        for axes in figure.axes:
            axes.axvline(start - 0.5, color="0.5", lw=0.8, ls=":")
        label = {"rotation": 90, "va": "bottom", "fontsize": 8, "color": "0.4", "transform": top.get_xaxis_transform()}
        top.text(start - 0.4, 0.02, stages[start], **label)
    for axes in below:
        axes.plot(iteration_evaluations, errors, "o-", color="C1", ms=5)
        axes.set_title(f"Model error: from {_number(known[0])} % to {_number(known[-1])} %")
        axes.set_ylabel("Relative error of velocity (%)")
        axes.grid()
        top.set_xlabel("")
    figure.axes[-1].set_xlabel("Evaluations of misfit and gradient")
    return figure


def relative_misfits(points: NDArray, evaluations: NDArray, starts: Sequence[int]) -> NDArray:
    """Misfits relative to the first one of their stage.

    ``points`` and ``evaluations`` have shape (n, 2): numbers of evaluations, and misfits; stages begin at ``starts``.
    """
    numbers = evaluations[:, 0]
    places = np.minimum(np.searchsorted(numbers, starts), len(numbers) - 1)  # a damaged log may lack some
    firsts = np.where(evaluations[places, 1] > 0, evaluations[places, 1], 1.0)
    return np.column_stack(
        [points[:, 0], points[:, 1] / firsts[np.searchsorted(starts, points[:, 0], side="right") - 1]]
    )


def draw_misfits(axes: Axes, evaluations: NDArray, accepted: NDArray, starts: Sequence[int] = (1,)) -> None:
    """Plot the relative misfits of all evaluations and of the accepted ones; no line joins two stages.

    ``evaluations`` and ``accepted`` are those of :func:`relative_misfits`, shape (n, 2).
    """
    evaluations, accepted = (
        np.insert(points, np.searchsorted(points[:, 0], starts[1:]), np.nan, axis=0)
        for points in (evaluations, accepted)
    )
    # a logarithmic axis has no place for zero
    every, kept = (np.where(points[:, 1] > 0, points[:, 1], np.nan) for points in (evaluations, accepted))
    axes.plot(evaluations[:, 0], every, ".-", color="0.6", lw=0.8, label="every evaluation")
    axes.plot(accepted[:, 0], kept, "o-", color="C0", ms=5, label="accepted iteration")
    plotting.use_log_scale(axes, np.concatenate([every, kept]))
    last = float(np.nanmax([1.0, *evaluations[:, 0], *accepted[:, 0]]))
    plotting.use_integer_axis(axes, "Evaluations of misfit and gradient", 1, last)
    axes.set_ylabel("Misfit / first misfit")
    axes.legend()


def gather_figure(
    observed: NDArray,
    predicted: NDArray,
    sample_interval: float,
    receivers: ArrayLike,
    source: ArrayLike,
    shot: str,
    initial: NDArray | None = None,
) -> Figure:
    """One shot: observed and predicted record (shape (samples, n)), and the difference, all on the scale of the observed one.

    The traces are sorted by the coordinate of the receivers (shape (n, ndim), m) that varies most, and numbered unless they are
    equally spaced. ``sample_interval`` is in ms. The residual of the ``initial`` model's record is a fourth panel.
    """
    records = {"Observed": observed, "Predicted by the final model": predicted}
    for name, record in (("final", predicted), ("initial", initial)):
        if record is not None:
            rms = _percent(record - observed, observed)
            records[f"Predicted − observed, {name}\nrms {rms} of observed"] = record - observed
    order, (left, right), label = trace_axis(np.atleast_2d(np.asarray(receivers, dtype=float)))
    step = sample_interval / 1000
    extent = (left, right, (len(observed) - 0.5) * step, -0.5 * step)
    limits = plotting.symmetric_limits(observed, percent=99)
    figure = plotting.new_figure((2.6 * len(records) + 1.2, 5.5))
    *panels, bar = figure.subplots(1, len(records) + 1, width_ratios=[*(2.6,) * len(records), plotting.BAR])
    for axes, (title, record) in zip(panels, records.items(), strict=True):
        image = plotting.draw_image(axes, record[:, order], extent, "gray", limits)
        axes.set(title=title, xlabel=label)
        axes.xaxis.set_major_locator(plotting.round_ticks(5, integer="Trace" in label, min_n_ticks=1))
        axes.tick_params(labelleft=axes is panels[0])
    panels[0].set_ylabel("Time (s)")
    plotting.colour_bar(image, bar, 4.5, "Pressure (arbitrary unit)", "both")
    position = np.asarray(source, dtype=float) / 1000
    place = ", ".join(f"{axis} = {x:.3g} km" for axis, x in zip(AXIS_NAMES[len(position)], position, strict=True))
    figure.suptitle(f"Shot {shot}, source at {place}", fontsize=11, parse_math=False)
    return figure


def processing_figure(stages: dict[str, ShotGathers], shot: str, steps: str) -> Figure:
    """One shot's observed and predicted record, each before and after the processing, each on its own scale.

    ``stages`` has the gathers "before" and "after"; ``steps`` says what is done.
    """
    order, (left, right), label = trace_axis(stages["before"].receivers)
    records = [
        (f"Observed,\n{stage} the processing", gathers.observed, gathers.axis) for stage, gathers in stages.items()
    ]
    records += [
        (f"Predicted in the initial model,\n{stage} the processing", gathers.predicted, gathers.axis)
        for stage, gathers in stages.items()
    ]
    figure = plotting.new_figure((11.6, 5.0))
    panels = figure.subplots(1, len(records), sharey=True)
    for axes, (title, record, axis) in zip(panels, records, strict=True):
        step = axis.step / 1000
        extent = (left, right, (axis.samples - 0.5) * step, -0.5 * step)
        plotting.draw_image(axes, record[:, order], extent, "gray", plotting.symmetric_limits(record, percent=99))
        axes.set(title=title, xlabel=label)
        axes.xaxis.set_major_locator(plotting.round_ticks(5, integer="Trace" in label, min_n_ticks=1))
    panels[0].set_ylabel("Time (s)")
    figure.suptitle(f"Shot {shot}: {steps}", fontsize=11, parse_math=False)
    return figure


def trace_axis(receivers: NDArray) -> tuple[NDArray, tuple[float, float], str]:
    """Order of the traces, and limits and label of the horizontal axis."""
    axis = int(np.argmax(np.ptp(receivers, axis=0)))
    name = AXIS_NAMES[receivers.shape[1]][axis]
    name = "depth" if name == "z" else name
    order = np.lexsort((*receivers.T, receivers[:, axis]))
    along = receivers[order, axis] / 1000
    gaps = np.diff(along)
    # the columns of an image have one width, so a gap would shift all traces after it
    if len(gaps) and np.ptp(gaps) < 0.02 * gaps.mean():
        half = gaps.mean() / 2
        return order, (along[0] - half, along[-1] + half), f"Receiver {name} (km)"
    return order, (0.5, len(order) + 0.5), f"Trace, sorted by receiver {name}"


def _percent(difference: NDArray, reference: NDArray) -> str:
    both = np.isfinite(difference) & np.isfinite(reference)
    size = np.linalg.norm(reference[both])
    return f"{_number(100 * float(np.linalg.norm(difference[both]) / size))} %" if size else "unknown"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}" if abs(value) < 1 else f"{value:.1f}"
