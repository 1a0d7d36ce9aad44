"""The pictures of a scaling study: speed-up, efficiency, where the time went, and what is to be expected."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpcfwi.reporting.formatting import counted
from hpcfwi.reporting.plotting import new_figure, save_figure
from hpcfwi.scaling.results import Estimate, Level, Scaling
from hpcfwi.scaling.time_breakdown import PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_scaling"]

SERIES = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a")
EVALUATION, JOB, IDEAL = "#1f77b4", "#d95f02", "0.45"
# Parts that are not worth a colour of their own are shown together.
SMALL = 0.01
COLOURS = {
    "kernels": "#2a7f3f",
    "shot_overhead": "#8fcf9a",
    "dispatch": "#c7e9c0",
    "imbalance": "#f4a582",
    "sum": "#b2182b",
    "optimiser_and_driver": "#762a83",
    "model_staging": "#c2a5cf",
    "journal": "#e7d4e8",
    "driver_start": "#08519c",
    "queue_wait": "#3182bd",
    "worker_start": "#6baed6",
    "solver": "#9ecae1",
    "observed_data": "#c6dbef",
    "results": "#969696",
    "closing": "#bdbdbd",
    "missing_workers": "#525252",
    "unexplained": "#000000",
}


def draw_scaling(folder: Path, scaling: Scaling) -> list[Path]:
    """Draw ``scaling.png`` (speed-up and efficiency with confidence bands), ``parts.png`` and ``forecast.png``.

    Parameters
    ----------
    folder
        Where to.
    scaling
        The results of a study.

    Returns
    -------
    list of Path
        The pictures.
    """
    pictures: dict[str, Callable[[Scaling], Figure]] = {
        "scaling.png": _scaling_figure,
        "parts.png": _parts_figure,
        "forecast.png": _forecast_figure,
    }
    return [save_figure(folder / name, partial(draw, scaling)) for name, draw in pictures.items()]


def _scaling_figure(scaling: Scaling) -> Figure:
    figure = new_figure((9.5, 4.2))
    left, right = figure.subplots(1, 2)
    nodes = np.array([level.nodes for level in scaling.levels], dtype=float)
    ideal = nodes / nodes[0]
    _band(left, scaling, lambda level: level.speedup, EVALUATION, "evaluation")
    _band(left, scaling, lambda level: level.job_speedup, JOB, "whole job")
    left.plot(nodes, ideal, color=IDEAL, linestyle="--", label="ideal")
    left.set(
        xscale="log",
        yscale="log",
        ylim=(0.8, 1.3 * ideal[-1]),
        ylabel="shots per second, relative" if scaling.weak else "speed-up",
    )
    left.set_yticks(ideal, [f"{value:g}" for value in ideal])
    _band(right, scaling, lambda level: level.efficiency, EVALUATION, "evaluation", 100)
    _band(right, scaling, lambda level: level.job_efficiency, JOB, "whole job", 100)
    right.axhline(100, color=IDEAL, linestyle="--", label="ideal")
    right.set(xscale="log", ylabel="efficiency, %", ylim=(0, 110))
    for axes in (left, right):
        _node_axis(axes, nodes)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    repeats = max(found.rung.repeat for found in scaling.measured)
    told = f"{repeats} runs of each; bands: 95 % confidence" if repeats > 1 else "one run of each"
    kind = "Weak" if scaling.weak else "Strong"
    figure.suptitle(f"{kind} scaling, {_survey(scaling)}; {told}{_stand_in(scaling)}", fontsize=9)
    return figure


def _band(
    axes: Axes, scaling: Scaling, of: Callable[[Level], Estimate], colour: str, label: str, factor: float = 1.0
) -> None:
    nodes = [level.nodes for level in scaling.levels]
    found = [of(level) for level in scaling.levels]
    axes.plot(nodes, [factor * estimate.value for estimate in found], "o-", color=colour, label=label, markersize=4)
    low = [factor * (estimate.value if estimate.low is None else estimate.low) for estimate in found]
    high = [factor * (estimate.value if estimate.high is None else estimate.high) for estimate in found]
    axes.fill_between(nodes, low, high, color=colour, alpha=0.2, linewidth=0)


def _node_axis(axes: Axes, nodes: np.ndarray) -> None:
    axes.set_xlabel("nodes")
    axes.set_xticks(nodes, [f"{count:g}" for count in nodes])
    axes.minorticks_off()


def _parts_figure(scaling: Scaling) -> Figure:
    figure = new_figure((9.5, 4.6))
    axes = figure.subplots()
    walls = np.array([level.wall.value for level in scaling.levels])
    places = np.arange(len(walls))
    shares = {name: np.array([level.parts[name] for level in scaling.levels]) / walls for name in PARTS}
    shown = [name for name in COLOURS if name == "unexplained" or shares[name].max() >= SMALL]
    rest = sum((shares[name] for name in PARTS if name not in shown), np.zeros(len(walls)))
    bottom = np.zeros(len(walls))
    for name in shown:
        axes.bar(places, 100 * shares[name], 0.7, bottom=100 * bottom, color=COLOURS[name], label=PARTS[name])
        bottom += np.maximum(shares[name], 0)
    if rest.max() > 0:
        axes.bar(places, 100 * rest, 0.7, bottom=100 * bottom, color="#fee08b", label="others, each below 1 %")
    names = [f"{level.nodes}\n{level.wall.value:.3g} s" for level in scaling.levels]
    axes.set_xticks(places, names)
    axes.set(xlabel="nodes, wall time of the whole job", ylabel="where the wall time went, %", ylim=(0, 100))
    axes.set_xlim(-0.6, len(walls) - 0.4)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), reverse=True)
    figure.suptitle(f"Means over the workers, {_survey(scaling)}{_stand_in(scaling)}", fontsize=9)
    return figure


def _forecast_figure(scaling: Scaling) -> Figure:
    figure = new_figure((9.5, 4.2))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, job in zip(panels, (False, True), strict=True):
        # of an evaluation the last one says the same as that before it
        for forecast, colour in zip(scaling.forecasts[: 4 if job else 3], SERIES, strict=False):
            kind = "weak" if forecast.weak else "strong"
            label = f"{kind}, {forecast.title}"
            if job:
                label += f", {counted(forecast.predictions[0].evaluations, 'evaluation')}"
            nodes = [prediction.nodes for prediction in forecast.predictions]
            values = [100 * forecast.efficiency(prediction, job) for prediction in forecast.predictions]
            axes.plot(nodes, values, "-", color=colour, label=label)
            for prediction, _ in forecast.takeovers if not job else ():
                axes.plot(prediction.nodes, 100 * forecast.efficiency(prediction), "v", color=colour, markersize=6)
        if job:
            _measured(axes, scaling, lambda level: level.job_efficiency)
        else:
            _measured(axes, scaling, lambda level: level.efficiency)
        axes.set(xscale="log", xlabel="nodes", ylim=(0, 110))
        axes.set_title("whole jobs" if job else "evaluations (▼: another bottleneck takes over)", fontsize=9)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("predicted efficiency, %")
    for axes in panels:
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)
    figure.suptitle(f"Predicted from the runs{_stand_in(scaling)}", fontsize=9)
    return figure


def _measured(axes: Axes, scaling: Scaling, of: Callable[[Level], Estimate]) -> None:
    nodes = [level.nodes for level in scaling.levels]
    axes.plot(nodes, [100 * of(level).value for level in scaling.levels], "ko", markersize=4, label="measured")


def _survey(scaling: Scaling) -> str:
    shots = sorted({level.shots for level in scaling.levels})
    return f"{shots[0]} shots" if len(shots) == 1 else f"{shots[0]} to {shots[-1]} shots"


def _stand_in(scaling: Scaling) -> str:
    told = scaling.measured[0].account.facts.get("stand_in")
    return f"\n{told} stand in for the kernels" if told else ""
