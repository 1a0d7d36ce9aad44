"""Charts of the report: axes with ticks and lines, in percent of an area that has any width and keeps the size of its text.

Only numbers that were computed here get into paths; texts are escaped by the template.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcfwi.inversion.history import Row
from hpcfwi.reporting.formatting import counted

__all__ = ["Axis", "Chart", "Curve", "convergence_charts", "dots", "number"]

# Points of a curve; ticks of an axis; decades from which a misfit's axis is logarithmic; beyond them nothing is drawn.
MOST_POINTS, MOST_TICKS, LARGEST = 1000, 6, 1e100
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: object, digits: int = 4) -> str:
    """A number as a reader wants it; a dash where it is none."""
    try:
        told = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return "–"
    if not math.isfinite(told):
        return "–"
    text, _, power = f"{told:.{digits}g}".partition("e")
    if power:
        times = {"1": "", "-1": "-"}.get(text, f"{text}·")
        text = f"{times}10{str(int(power)).translate(RAISED)}"
    return text.replace("-", "−")


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Parameters
    ----------
    label
        What it is, with its unit.
    low, high
        Values at its ends: left and right, or bottom and top; ``low`` may be the larger one (depth).
    logarithmic
        Whether equal factors are equal distances.
    most
        Ticks, about.
    """

    label: str
    low: float
    high: float
    logarithmic: bool = False
    most: int = MOST_TICKS

    @classmethod
    def around(cls, label: str, values: ArrayLike, logarithmic: bool = False) -> Axis:
        """One on which all of the values have a place; logarithmic only where they differ much."""
        flat = usable(values)
        if logarithmic:
            flat = flat[flat > 0]
        if not flat.size:
            return cls(label, 0.0, 1.0)
        low, high = float(flat.min()), float(flat.max())
        if logarithmic and high > 5 * low:
            return cls(label, low / (high / low) ** 0.05, high * (high / low) ** 0.05, True)
        margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(label, low - margin if low < 0 or low > margin else 0.0, high + margin)

    def place(self, values: ArrayLike) -> NDArray[np.float64]:
        """Percent of the way from ``low`` to ``high``; not finite where there is no place for it."""
        given = np.asarray(values, dtype=float)
        low, high = self.low, self.high
        with np.errstate(all="ignore"):
            if self.logarithmic:
                given, low, high = np.log10(np.where(given > 0, given, np.nan)), math.log10(low), math.log10(high)
            return np.asarray(100 * (given - low) / (high - low))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places, in percent, and their labels."""
        low, high = sorted((self.low, self.high))
        at = _log_ticks(low, high) if self.logarithmic else []
        at = at if len(at) > 2 else _even_ticks(low, high, self.most)
        return [(round(float(place), 3), number(value)) for place, value in zip(self.place(at), at, strict=True)]


@dataclass(frozen=True)
class Curve:
    """A line, its points, or both; ``look`` is a class of the style sheet."""

    name: str
    look: str
    line: str = ""
    points: str = ""

    @classmethod
    def of(cls, name: str, look: str, x: Axis, y: Axis, xs: ArrayLike, ys: ArrayLike, line: bool = True) -> Curve:
        """Through values; where there are too many only some of them, the first and the last always."""
        places = np.stack([x.place(xs), 100 - y.place(ys)], axis=-1).reshape(-1, 2)
        if len(places) > MOST_POINTS:
            places = places[np.unique(np.linspace(0, len(places) - 1, MOST_POINTS).round().astype(int))]
        places = places[np.isfinite(places).all(axis=1)]
        path = "M" + "L".join(f"{a:.2f} {b:.2f}" for a, b in places) if line and len(places) > 1 else ""
        return cls(name, look, path, dots(places) if len(places) <= 120 or not line else "")


@dataclass(frozen=True)
class Chart:
    """Curves in an area.

    Parameters
    ----------
    title
        What it shows.
    summary
        The same for those who cannot see it, with its numbers.
    x, y
        Axes.
    curves
        What is drawn.
    """

    title: str
    summary: str
    x: Axis
    y: Axis
    curves: Sequence[Curve]


def dots(places: Iterable[Sequence[float]] | NDArray) -> str:
    """A path of points without length: with round ends they are dots, round however the area is stretched."""
    return "".join(f"M{a:.2f} {b:.2f}h0" for a, b in places)


def usable(values: ArrayLike) -> NDArray[np.float64]:
    """The values that can be drawn, flat."""
    flat = np.ravel(np.asarray(values, dtype=float))
    return flat[np.abs(flat) < LARGEST]


def _even_ticks(low: float, high: float, most: int) -> list[float]:
    """As many as may be of a step of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not 0 < span < LARGEST or span < 1e-12 * max(abs(low), abs(high)):
        return [low]
    power = math.floor(math.log10(span / most))
    for step in (float(f"{nice}e{power + more}") for more in (0, 1) for nice in (1, 2, 5)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [round(i * step, 12 - power) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, every so many, and between them 2 and 5 where they are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades < 2.5 else (1,)
    every = max(1, math.ceil(decades / MOST_TICKS))
    ticks = [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps if power % every == 0]
    return [tick for tick in ticks if low <= tick <= high]


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
