"""Charts of the report, convergence and the misfit of each shot: SVG images by matplotlib that follow the page's theme."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.inversion.history import Row
from hpcfwi.model.survey import Shot
from hpcfwi.reporting.figures import draw_misfits
from hpcfwi.reporting.formatting import counted, number
from hpcfwi.reporting.plotting import Slice, finite, label_axes, new_figure, render, use_log_scale
from hpcfwi.reporting.report.data import RunModels, ShotMisfits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Ink of the page by day and by night; matplotlib draws with the former.
INK, INK_AT_NIGHT = "#1c2126", "#e4e8eb"
THEME = f"<style>svg{{--ink:{INK}}}@media(prefers-color-scheme:dark){{svg{{--ink:{INK_AT_NIGHT}}}}}</style>"
SVG_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "legend.frameon": False,
    "svg.hashsalt": "hpcfwi",
}
# Inches of a chart, and the place of its axes.
CHART_SIZE, CHART_BOX = (4.6, 2.9), (0.18, 0.16, 0.79, 0.77)
# Points of a curve, and shots, that are drawn; points above which an SVG holds them as an image; rows of a table.
MAX_POINTS, MAX_SHOTS, MAX_VECTOR_POINTS, WORST_SHOTS = 1000, 4000, 500, 5


@dataclass(frozen=True)
class Chart:
    """A picture with a title, and its content in words."""

    title: str
    summary: str
    picture: str
    max_inches: float = 5.6


@dataclass(frozen=True)
class ShotCharts:
    """Misfits of the shots in an evaluation."""

    evaluation: int
    survey_map: Chart | None  # None where positions are unknown
    chart: Chart
    worst: list[dict[str, Any]]  # rows of a table of the shots with the largest relative misfits
    note: str = ""  # what is left out, and why


def data_uri(content: bytes, kind: str) -> str:
    """An image of a kind such as ``"png"``, as an address."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def draw_svg(build: Callable[[], Figure]) -> str:
    """Build a figure and return it as the address of an SVG image whose text and lines follow the browser's theme."""
    svg = render(build, "svg", SVG_STYLE, transparent=True, metadata={"Date": None}).decode()
    head, opening, body = svg.partition("<svg ")
    attributes, end, body = body.partition(">")
    return data_uri(f"{head}{opening}{attributes}{end}{THEME}{body.replace(INK, 'var(--ink)')}".encode(), "svg+xml")


def convergence_charts(rows: Sequence[Row], evaluations: Mapping[int, tuple[float, float]]) -> list[Chart]:
    """Charts of a history and of the misfits of evaluations, by their numbers; empty while there is nothing to show."""
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
        meaning = "Wall time of an iteration, with all evaluations of its line search"
        charts.append(_iteration_chart("Time per iteration", "Wall time (s)", numbers[1:], seconds, meaning, " s"))
    return charts


def _misfit_chart(rows: Sequence[Row], evaluations: Mapping[int, tuple[float, float]]) -> Chart:
    numbers, accepted = [row.evaluations for row in rows], [row.misfit for row in rows]
    tried = sorted(evaluations)
    misfits = [evaluations[n][0] for n in tried]
    initial = accepted[0] if rows else misfits[0]
    last, initial = accepted[-1] if rows else misfits[-1], initial if initial > 0 else 1.0
    summary = (
        f"Relative to that of the initial model: {number(100 * last / initial)} % after "
        f"{counted(max(0, len(rows) - 1), 'iteration')} and {counted(max([0, *tried, *numbers]), 'evaluation')}."
    )

    def build() -> Figure:
        figure = new_figure(CHART_SIZE, None)
        tries, steps = _some(len(tried), MAX_POINTS), _some(len(rows), MAX_POINTS)
        draw_misfits(
            figure.add_axes(CHART_BOX),
            [tried[i] for i in tries],
            [misfits[i] for i in tries],
            [numbers[i] for i in steps],
            [accepted[i] for i in steps],
            initial,
        )
        return figure

    return Chart("Misfit", summary, draw_svg(build))


def _iteration_chart(
    title: str, label: str, numbers: Sequence[int], values: Sequence[float], meaning: str, unit: str = ""
) -> Chart:
    first, last = (f"{number(value)}{unit}" for value in (values[0], values[-1]))
    summary = f"{meaning}: {first} at first, {last} at last." if len(values) > 1 else f"{meaning}: {first}."

    def build() -> Figure:
        from matplotlib.ticker import MaxNLocator

        figure = new_figure(CHART_SIZE, None)
        axes = figure.add_axes(CHART_BOX)
        shown = _some(len(values), MAX_POINTS)
        axes.plot(np.asarray(numbers)[shown], np.asarray(values)[shown], "o-", ms=4)
        axes.set(xlabel="Iteration", ylabel=label, xlim=(numbers[0] - 0.5, numbers[-1] + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if unit == " s":
            axes.set_ylim(bottom=0)
        elif not unit:
            use_log_scale(axes, values)
        axes.grid()
        return figure

    return Chart(title, summary, draw_svg(build))


def shot_charts(misfits: ShotMisfits, models: RunModels) -> ShotCharts | None:
    """Draw the misfit of each shot in the last complete evaluation; None before there is one."""
    if not misfits.last:
        return None
    order = [shot.name for shot in models.shots] or sorted(misfits.last)
    names = [name for name in order if name in misfits.last] or sorted(misfits.last)
    last = np.array([misfits.last[name] for name in names])
    first = np.array([misfits.first.get(name, np.nan) for name in names])
    with np.errstate(all="ignore"):
        shares = 100 * last / first
    shown = _some(len(names), MAX_SHOTS)
    known = bool(np.isfinite(shares).any())
    notes = [] if known else ["The log has no misfits of the first evaluation to compare with."]
    if len(shown) < len(names):
        notes.append(f"{len(shown)} of {len(names)} shots are drawn.")
    shots = {shot.name: shot for shot in models.shots}
    placed = [i for i in shown if names[i] in shots and np.isfinite(shares[i]) and shares[i] > 0]
    survey_map = None
    if placed and models.latest is not None:
        survey_map = _survey_map(models, [shots[names[i]] for i in placed], shares[placed], misfits.number)
    # those without a first misfit come last
    largest = np.argsort(-np.where(np.isfinite(shares), shares, -1.0), kind="stable")[:WORST_SHOTS]
    worst = [
        {
            "shot": names[i],
            "source": ", ".join(number(x / 1000) for x in shots[names[i]].source) if names[i] in shots else "",
            "first": first[i],
            "last": last[i],
            "share": shares[i],
        }
        for i in largest
    ]
    return ShotCharts(
        misfits.number, survey_map, _shot_chart(first, last, shown, misfits.number), worst, " ".join(notes)
    )


def _survey_map(models: RunModels, shots: Sequence[Shot], shares: NDArray, evaluation: int) -> Chart:
    """Seen from the side in 2-D, from above in 3-D."""
    domain, ground = models.domain, models.latest
    assert domain is not None
    assert ground is not None
    plane = Slice.of(domain, 0, 1)
    width = 6.5 if plane.size[0] > 2 * plane.size[1] else 4.6
    height = float(np.clip((width - 0.8) * plane.size[1] / plane.size[0], 0.7, 6.0))
    low, high = float(shares.min()), float(shares.max())

    def build() -> Figure:
        from matplotlib.colors import LogNorm, Normalize

        figure = new_figure((width, height + 1.3))
        axes = figure.subplots()
        values = plane.plane(ground)
        step = max(1, max(values.shape) // 300)
        # faint, so that the sources stand out
        axes.imshow(values[::step, ::step], cmap="Greys", extent=plane.extent, alpha=0.35, interpolation="none")
        label_axes(axes, domain, plane, (width - 0.8, height))
        axes.plot(*plane.project(models.receivers, plane.size[0] / 70).T, ".", ms=2, color=INK, clip_on=False)
        sources = np.stack([shot.source for shot in shots])[:, [plane.across, plane.down]] / 1000
        marks = axes.scatter(
            sources[:, 0],
            sources[:, 1],
            c=shares,
            s=60,
            cmap="plasma",
            norm=LogNorm(low, high) if high > 20 * low else Normalize(low, high if high > low else low + 1.0),
            edgecolors="black",
            linewidths=0.6,
            clip_on=False,
            zorder=3,
            rasterized=len(shots) > MAX_VECTOR_POINTS,
        )
        figure.colorbar(marks, location="bottom", aspect=35, label="Misfit, % of that in the first evaluation")
        return figure

    summary = (
        f"Map of the survey over the model: the misfit of the shot at each source in evaluation {evaluation}, between "
        f"{number(low, 3)} and {number(high, 3)} % of that in the first one"
    )
    return Chart("Misfit at each source", summary, draw_svg(build), 1.2 * width)


def _shot_chart(first: NDArray, last: NDArray, shown: NDArray, evaluation: int) -> Chart:
    def build() -> Figure:
        figure = new_figure(CHART_SIZE, None)
        axes = figure.add_axes(CHART_BOX)
        style: dict[str, Any] = {"ls": "", "marker": ".", "rasterized": len(shown) > MAX_VECTOR_POINTS}
        if evaluation != 1 and np.isfinite(first).any():
            axes.plot(shown + 1, first[shown], color="0.6", label="first evaluation", **style)
        axes.plot(shown + 1, last[shown], color="C0", label=f"evaluation {evaluation}", **style)
        use_log_scale(axes, np.concatenate([first, last]))
        axes.set(xlabel="Shot, in the order of the survey", ylabel="Misfit of a shot", xlim=(0.5, len(last) + 0.5))
        axes.grid()
        axes.legend()
        return figure

    known = finite(last)
    summary = (
        f"Misfit of each of {len(last)} shots in evaluation {evaluation}: from {number(known.min(), 3)} to "
        f"{number(known.max(), 3)}, median {number(float(np.median(known)), 3)}."
    )
    return Chart("Misfit of each shot", summary, draw_svg(build))


def _some(count: int, limit: int) -> NDArray[np.int_]:
    """Indices of at most ``limit`` of so many things, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))
