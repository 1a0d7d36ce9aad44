"""The curves of the report: misfit, model error, gradient and time of every iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hpcfwi.reporting.charts import Axis, Chart, Curve, number
from hpcfwi.reporting.history import Row
from hpcfwi.reporting.words import counted

__all__ = ["convergence_charts"]


def convergence_charts(rows: Sequence[Row], evaluations: Mapping[int, tuple[float, float]]) -> list[Chart]:
    """Charts of a run's history and of the misfits of its evaluations, by their numbers; none where there is nothing yet."""
    charts = [_misfits(rows, evaluations)] if rows or evaluations else []
    if not rows:
        return charts
    numbers = [row.iteration for row in rows]
    errors = [np.nan if row.model_error is None else 100 * row.model_error for row in rows]
    if np.isfinite(errors).any():
        what = "Norm of the velocity's difference to the true one, relative to the norm of that"
        charts.append(_by_iteration("Model error", "Model error (%)", numbers, errors, what, unit=" %"))
    norms = [row.gradient_norm for row in rows]
    charts.append(
        _by_iteration("Gradient", "Norm of the gradient", numbers, norms, "Two-norm of the gradient", logarithmic=True)
    )
    steps = [row.step_seconds for row in rows[1:]]
    if steps:
        what = "Wall time of each iteration, with all evaluations of its line search"
        charts.append(
            _by_iteration("Time of an iteration", "Wall time (s)", numbers[1:], steps, what, unit=" s", zero=True)
        )
    return charts


def _misfits(rows: Sequence[Row], evaluations: Mapping[int, tuple[float, float]]) -> Chart:
    tried = sorted(evaluations)
    misfits = [evaluations[n][0] for n in tried]
    kept, accepted = [row.evaluations for row in rows], [row.misfit for row in rows]
    first = accepted[0] if rows else misfits[0]
    first = first if first > 0 else 1.0
    every, some = (np.asarray(values, dtype=float) / first for values in (misfits, accepted))
    x = Axis("Evaluations of misfit and gradient", 0.5, max([1, *tried, *kept]) + 0.5)
    y = Axis.around("Misfit / first misfit", np.concatenate([every, some]), logarithmic=True)
    curves = [Curve.of("every evaluation", "aside", x, y, tried, every)]
    if rows:
        curves.append(Curve.of("accepted iteration", "main", x, y, kept, some))
    last = some[-1] if rows else every[-1]
    summary = (
        f"Relative to that of the initial model: {number(100 * last, 3)} % after "
        f"{counted(len(rows) - 1 if rows else 0, 'iteration')} and {counted(max([0, *tried, *kept]), 'evaluation')}."
    )
    return Chart("Misfit", summary, x, y, curves)


def _by_iteration(
    title: str,
    label: str,
    numbers: Sequence[int],
    values: Sequence[float],
    what: str,
    unit: str = "",
    logarithmic: bool = False,
    zero: bool = False,
) -> Chart:
    x = Axis("Iteration", numbers[0] - 0.5, numbers[-1] + 0.5)
    y = Axis.around(label, [0.0, *values] if zero else values, logarithmic)
    first, last = (f"{number(value)}{unit}" for value in (values[0], values[-1]))
    summary = f"{what}: {first} at first, {last} at last." if len(values) > 1 else f"{what}: {first}."
    return Chart(title, summary, x, y, [Curve.of(title.lower(), "main", x, y, numbers, values)])
