"""Charts of the report, of convergence and of shots: SVG images by matplotlib in the colours of the page's theme."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.inversion.history import Row, first_evaluations
from hpcfwi.reporting.figures import draw_misfits, relative_misfits
from hpcfwi.reporting.formatting import counted, natural_order, number
from hpcfwi.reporting.plotting import finite, new_figure, render, use_integer_axis, use_log_scale
from hpcfwi.reporting.report.data import RunModels, ShotMisfits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Box = tuple[float, float, float, float]
# Ink of the page in the light theme, with which matplotlib draws, and in the dark theme.
INK, DARK_THEME_INK = "#1c2126", "#e4e8eb"
THEME = f"<style>svg{{--ink:{INK}}}@media(prefers-color-scheme:dark){{svg{{--ink:{DARK_THEME_INK}}}}}</style>"
SVG_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "legend.frameon": False,
    "svg.hashsalt": "hpcfwi",
}
# Size of a chart, inches, and position of its axes in it.
CHART_SIZE, CHART_BOX = (4.6, 2.9), (0.18, 0.16, 0.79, 0.77)
# Limits: points of a curve, shots, points that an SVG holds as vectors, and rows of the table of shots.
MAX_POINTS, MAX_SHOTS, MAX_VECTOR_POINTS, WORST_SHOTS = 1000, 4000, 500, 5


@dataclass(frozen=True)
class Chart:
    """A picture with its content in words."""

    title: str
    summary: str
    picture: str


@dataclass(frozen=True)
class ShotMisfitChart:
    """Misfits of the shots in an evaluation."""

    evaluation: int
    chart: Chart
    worst: list[dict[str, Any]]  # shots with the largest relative misfits, as rows of a table
    note: str = ""  # what is missing, and why


def data_uri(content: bytes, kind: str) -> str:
    """The address of an embedded image; ``kind`` is ``"png"``, for example."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def draw_svg(size: tuple[float, float], box: Box, draw: Callable[[Axes], None]) -> str:
    """Draw axes in a box (fractions) of a figure (inches); returns the address of its SVG image in the colours of the theme."""

    def build() -> Figure:
        figure = new_figure(size, None)
        draw(figure.add_axes(box))
        return figure

    svg = render(build, "svg", SVG_STYLE, transparent=True, metadata={"Date": None}).decode().replace(INK, "var(--ink)")
    return data_uri(re.sub("<svg [^>]*>", lambda match: match[0] + THEME, svg, count=1).encode(), "svg+xml")


def convergence_charts(rows: Sequence[Row], evaluations: Mapping[int, float]) -> list[Chart]:
    """Charts of a history and of the misfits of the evaluations by number."""
    charts = [_misfit_chart(rows, evaluations)] if rows or evaluations else []
    if not rows:
        return charts
    numbers = [row.iteration for row in rows]
    errors = [np.nan if row.model_error is None else 100 * row.model_error for row in rows]
    if np.isfinite(errors).any():
        meaning = "Norm of the velocity error, relative to the norm of the true velocity"
        charts.append(_iteration_chart("Model error", "Model error (%)", numbers, errors, meaning, " %"))
    norms = [row.gradient_norm for row in rows]
    charts.append(_iteration_chart("Gradient", "Norm of the gradient", numbers, norms, "Two-norm of the gradient"))
    seconds = [row.step_seconds for row in rows[1:]]
    if seconds:
        meaning = "Wall time of an iteration with its line search; of an interrupted one, the part after the restart"
        charts.append(_iteration_chart("Time per iteration", "Wall time (s)", numbers[1:], seconds, meaning, " s"))
    return charts


def _misfit_chart(rows: Sequence[Row], evaluations: Mapping[int, float]) -> Chart:
    accepted = {row.evaluations: row.misfit for row in rows}
    tried = dict(sorted(evaluations.items()))
    starts = sorted(first_evaluations(rows).values()) or [1]
    known = np.array(sorted((accepted | tried).items()))
    every, kept = (
        relative_misfits(np.array([*points.items()]).reshape(-1, 2), known, starts) for points in (tried, accepted)
    )
    last = (kept if len(kept) else every)[-1, 1]
    of = "the first one of its stage" if len(starts) > 1 else "that of the initial model"
    counts = f"{counted(max(0, len(rows) - 1), 'iteration')} and {counted(max([*tried, *accepted]), 'evaluation')}"
    summary = f"Relative to {of}: {number(100 * last)} % after {counts}."

    def draw(axes: Axes) -> None:
        draw_misfits(axes, every[some(len(every), MAX_POINTS)], kept[some(len(kept), MAX_POINTS)], starts)

    return Chart("Misfit", summary, draw_svg(CHART_SIZE, CHART_BOX, draw))


def _iteration_chart(
    title: str, label: str, numbers: Sequence[int], values: Sequence[float], meaning: str, unit: str = ""
) -> Chart:
    first, last = (f"{number(value)}{unit}" for value in (values[0], values[-1]))
    summary = f"{meaning}: {first} at first, {last} at last." if len(values) > 1 else f"{meaning}: {first}."

    def draw(axes: Axes) -> None:
        shown = some(len(values), MAX_POINTS)
        axes.plot(np.asarray(numbers)[shown], np.asarray(values)[shown], "o-", ms=4)
        axes.set_ylabel(label)
        use_integer_axis(axes, "Iteration", numbers[0], numbers[-1])
        if unit == " s":
            axes.set_ylim(bottom=0)
        elif not unit:
            use_log_scale(axes, values)

    return Chart(title, summary, draw_svg(CHART_SIZE, CHART_BOX, draw))


def shot_misfits(misfits: ShotMisfits, models: RunModels) -> ShotMisfitChart | None:
    """Draw the misfit of each shot in the last complete evaluation; None before there is one."""
    if not misfits.last:
        return None
    shots = {shot.name: shot for shot in models.shots}
    names = [name for name in shots if name in misfits.last] or sorted(misfits.last, key=natural_order)
    first, last = (np.array([found.get(name, np.nan) for name in names]) for found in (misfits.first, misfits.last))
    shown, shares, evaluation = some(len(names), MAX_SHOTS), misfits.shares, f"evaluation {misfits.number}"

    def draw(axes: Axes) -> None:
        style: dict[str, Any] = {"ls": "", "marker": ".", "rasterized": len(shown) > MAX_VECTOR_POINTS}
        if misfits.number != 1 and np.isfinite(first).any():
            axes.plot(shown + 1, first[shown], color="0.6", label="first evaluation", **style)
        axes.plot(shown + 1, last[shown], color="C0", label=evaluation, **style)
        use_log_scale(axes, np.concatenate([first, last]))
        axes.set_ylabel("Misfit of a shot")
        use_integer_axis(axes, f"Shot, {'in the order of the survey' if shots else 'by name'}", 1, len(last))
        axes.legend()

    known = finite(last)
    low, high, middle = (number(float(value), 3) for value in (known.min(), known.max(), np.median(known)))
    summary = f"Misfit of each of {len(last)} shots in {evaluation}: from {low} to {high}, median {middle}."
    notes = [] if shares else ["The log has no misfits of the first evaluation."]
    if len(shown) < len(names):
        notes.append(f"{len(shown)} of {len(names)} shots are drawn.")
    worst = [
        {
            "shot": name,
            "source": ", ".join(number(x / 1000) for x in shots[name].source) if name in shots else "",
            "first": misfits.first.get(name),
            "last": misfits.last[name],
            "share": shares.get(name),
        }
        for name in sorted(names, key=lambda name: -shares.get(name, -1.0))[:WORST_SHOTS]
    ]
    chart = Chart("Misfit of each shot", summary, draw_svg(CHART_SIZE, CHART_BOX, draw))
    return ShotMisfitChart(misfits.number, chart, worst, " ".join(notes))


def some(count: int, limit: int) -> NDArray[np.int_]:
    """At most ``limit`` of the indices below ``count``, evenly spaced, including the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))
