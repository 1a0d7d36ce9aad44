"""Figures of a survey before it is inverted: a map, offsets, and a gather."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.gathers import Recording
from hpcfwi.model.grid import AXIS_NAMES, Domain
from hpcfwi.model.survey import Shot, Survey
from hpcfwi.model.survey_statistics import SurveyStatistics
from hpcfwi.reporting import plotting
from hpcfwi.reporting.figures import trace_axis
from hpcfwi.reporting.formatting import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of a large survey, the receivers of about so many shots are drawn.
MAX_SHOTS, THINNED_TO = 200, 150


def survey_figure(
    survey: Survey, found: SurveyStatistics, shot: Shot, stored: Recording, domain: Domain | None = None
) -> Figure:
    """A map of sources and receivers, the fold, the offsets, and the gather of one shot.

    With a ``domain``, positions are in the model's coordinates and its outline is drawn.
    """
    figure = plotting.new_figure((11, 7.5))
    grid = figure.add_gridspec(2, 3, width_ratios=[1.3, 0.8, 1.2])
    _draw_map(figure.add_subplot(grid[0, :2]), survey, domain)
    _draw_fold(figure.add_subplot(grid[1, 0]), found)
    _draw_offsets(figure.add_subplot(grid[1, 1]), found)
    _draw_gather(figure.add_subplot(grid[:, 2]), shot, stored)
    return figure


def _draw_map(axes: Axes, survey: Survey, domain: Domain | None) -> None:
    shots = survey.shots[:: max(1, len(survey) // MAX_SHOTS)]
    sources = np.stack([shot.source for shot in shots])
    receivers = np.concatenate([shot.receivers for shot in shots])
    ndim = sources.shape[1]
    flat = ndim == 3 and max(np.ptp(sources[:, 1]), np.ptp(receivers[:, 1])) > 0
    down = 1 if flat else ndim - 1
    across = [0, down]
    for points, style, name in ((receivers, plotting.RECEIVER, "receivers"), (sources, plotting.SOURCE, "sources")):
        shown = points[:, across] / 1000
        spacing = float(np.ptp(shown, axis=0).max()) / THINNED_TO
        shown = plotting.thin(shown, spacing) if spacing else shown[:1]
        axes.scatter(*shown.T, label=name, **style)
    if domain is not None:
        low, high = (np.array(ends)[across] / 1000 for ends in (domain.origin, domain.last))
        axes.plot([low[0], high[0], high[0], low[0], low[0]], [low[1], low[1], high[1], high[1], low[1]], "k-", lw=1)
    axes.set_facecolor("0.92")
    names = AXIS_NAMES[ndim]
    axes.set(xlabel=f"{names[0]} (km)", ylabel=f"{names[down]} (km)" if flat else "Depth (km)")
    if flat:
        axes.set_aspect("equal", adjustable="datalim")
    else:
        axes.invert_yaxis()
    title = counted(len(survey), "shot") + (f", of which {len(shots)} are drawn" if len(shots) < len(survey) else "")
    axes.set_title(title + ("" if domain is None else "; the frame is the model"))
    axes.legend(loc="best", fontsize=7)


def _draw_fold(axes: Axes, found: SurveyStatistics) -> None:
    fold = found.fold
    cells = [
        (np.arange(n) + 0.5) * fold.cell / 1000 + o / 1000 for n, o in zip(fold.counts.shape, fold.origin, strict=True)
    ]
    if fold.counts.ndim == 1:
        axes.fill_between(cells[0], fold.counts, step="mid", color="0.6")
        axes.set(xlabel="Midpoint (km)", ylabel="Fold", ylim=(0, None))
    else:
        image = axes.pcolormesh(cells[0], cells[1], np.where(fold.counts, fold.counts, np.nan).T, cmap="viridis")
        axes.figure.colorbar(image, ax=axes, label="Fold")
        axes.set(xlabel="Midpoint x (km)", ylabel="Midpoint y (km)", aspect="equal")
    axes.set_title(f"Fold in cells of {fold.cell:.4g} m")


def _draw_offsets(axes: Axes, found: SurveyStatistics) -> None:
    axes.stairs(found.offset_counts, found.offset_edges / 1000, fill=True, color="0.6")
    axes.set(xlabel="Offset (km)", ylabel="Traces", title="Offsets")


def _draw_gather(axes: Axes, shot: Shot, stored: Recording) -> None:
    values = _balanced(stored.values)
    order, (left, right), label = trace_axis(shot.receivers)
    step = stored.interval / 1000
    start = float(stored.starts.min()) / 1000
    extent = (left, right, start + (len(values) - 0.5) * step, start - 0.5 * step)
    plotting.draw_image(axes, values[:, order], extent, "gray", plotting.symmetric_limits(values, percent=98))
    axes.set(title=f"Shot {shot.name}, each trace on its own scale", xlabel=label, ylabel="Time (s)")


def _balanced(values: NDArray) -> NDArray[np.float64]:
    """Traces divided by their root mean square; broken ones stay as they are, and are drawn as missing."""
    with np.errstate(all="ignore"):
        scale = np.sqrt(np.mean(np.square(values, dtype=np.float64), axis=0))
        return np.where((scale > 0) & np.isfinite(scale), values / np.where(scale > 0, scale, 1.0), np.nan)
