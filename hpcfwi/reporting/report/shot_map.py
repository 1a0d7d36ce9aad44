"""Where on the survey the data are explained, and where not: each shot's misfit at its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcfwi.reporting.panels import View
from hpcfwi.reporting.report.charts import Axis, Chart, Curve, dots, number
from hpcfwi.reporting.report.data import RunModels, ShotMisfits
from hpcfwi.reporting.report.models import ColourBar, Dots, Panel, Scale, axes_of, coarse, places, thinned

__all__ = ["ShotMap", "make_shot_map"]

# Shots that are drawn, colours that they have, shots of the table; pixels of the ground.
MOST_SHOTS, SHADES, WORST, GROUND = 4000, 12, 5, 60_000


@dataclass(frozen=True)
class ShotMap:
    """Misfits of the shots.

    Parameters
    ----------
    number
        Of the evaluation that they are of.
    panel, bar
        The map; None where positions are not known.
    chart
        Misfits in the order of the survey.
    worst
        Rows of a table: those that are explained worst.
    note
        What is left out, and why.
    """

    number: int
    panel: Panel | None
    bar: ColourBar | None
    chart: Chart
    worst: list[dict[str, Any]]
    note: str = ""


def make_shot_map(misfits: ShotMisfits, scene: RunModels) -> ShotMap | None:
    """Draw them; None while no evaluation has been computed."""
    if not misfits.last:
        return None
    order = [shot.name for shot in scene.shots] or sorted(misfits.last)
    names = [name for name in order if name in misfits.last] or sorted(misfits.last)
    last = np.array([misfits.last[name] for name in names])
    first = np.array([misfits.first.get(name, np.nan) for name in names])
    with np.errstate(all="ignore"):
        ratios = last / first
    known = bool(np.isfinite(ratios).any())
    note = "" if known else "The log has no misfits of the first evaluation to compare with."
    if len(names) > MOST_SHOTS:
        note = f"{note} {MOST_SHOTS} of {len(names)} shots are drawn.".strip()
    shown = np.unique(np.linspace(0, len(names) - 1, min(len(names), MOST_SHOTS)).round().astype(int))
    panel = bar = None
    if scene.shots and scene.domain is not None and known:
        positions = {shot.name: shot.source for shot in scene.shots}
        placed = [i for i in shown if names[i] in positions]
        if placed:
            sources = np.stack([positions[names[i]] for i in placed])
            panel, bar = _map(scene, sources, ratios[placed], misfits.number)
    chart = _chart(first, last, shown, misfits.number)
    where = {shot.name: ", ".join(number(v / 1000) for v in shot.source) for shot in scene.shots}
    # those without a first misfit come last
    order_ = np.argsort(-np.where(np.isfinite(ratios), ratios, -1.0), kind="stable")[:WORST]
    worst = [
        {"shot": names[i], "where": where.get(names[i], ""), "first": first[i], "last": last[i], "ratio": ratios[i]}
        for i in order_
    ]
    return ShotMap(misfits.number, panel, bar, chart, worst, note)


def _map(scene: RunModels, sources: np.ndarray, ratios: np.ndarray, evaluation: int) -> tuple[Panel, ColourBar]:
    """Seen from the side in 2-D, from above in 3-D."""
    domain = scene.domain
    assert domain is not None
    view = View.of(domain, 0, 1)
    across, up = axes_of(domain, view)
    usable = np.isfinite(ratios) & (ratios > 0)
    shares = 100 * ratios
    low, high = (float(f(shares[usable])) for f in (np.min, np.max)) if usable.any() else (0.0, 1.0)
    wide = high > 20 * low > 0
    axis = Axis("", low, high if high > low else low + 1.0, logarithmic=wide)
    parts = axis.place(shares) / 100
    levels = np.clip((np.nan_to_num(parts) * SHADES).astype(int), 0, SHADES - 1)
    heat = Scale("heat", axis.low, axis.high)
    at = places(sources[:, [view.across, view.down]] / 1000, across, up)
    inside = np.isfinite(at).all(axis=1)
    receivers = Dots("spread", dots(places(thinned(scene.receivers, view), across, up)))
    edges = Dots("edge", dots(at[inside & usable]))
    shades = [
        Dots("shot", dots(at[inside & usable & (levels == level)]), heat.colour((level + 0.5) / SHADES))
        for level in range(SHADES)
    ]
    ground = scene.velocity if scene.velocity is not None else scene.initial
    assert ground is not None
    scale = Scale("ground", float(np.nanmin(ground)), float(np.nanmax(ground)))
    alt = (
        f"Map of the survey over the model: the misfit of each source's shot in evaluation {evaluation}, between "
        f"{number(low, 3)} and {number(high, 3)} % of that in the first one"
    )
    panel = Panel(
        "Misfit at each source", alt, scale.paint(coarse(view, ground, GROUND)), across, up, (receivers, edges, *shades)
    )
    return panel, ColourBar(heat, "Misfit, % of the first evaluation's", axis)


def _chart(first: np.ndarray, last: np.ndarray, shown: np.ndarray, evaluation: int) -> Chart:
    x = Axis("Shot, in the order of the survey", 0.5, len(last) + 0.5)
    y = Axis.around("Misfit of a shot", np.concatenate([first, last]), logarithmic=True)
    curves = [Curve.of(f"evaluation {evaluation}", "main", x, y, shown + 1, last[shown], line=False)]
    if evaluation != 1 and np.isfinite(first).any():
        curves.insert(0, Curve.of("first evaluation", "aside", x, y, shown + 1, first[shown], line=False))
    summary = (
        f"Misfit of each of {len(last)} shots in evaluation {evaluation}: from {number(last.min(), 3)} to "
        f"{number(last.max(), 3)}, median {number(np.median(last), 3)}."
    )
    return Chart("Misfit of each shot", summary, x, y, curves)
