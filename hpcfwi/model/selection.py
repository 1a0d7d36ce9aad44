"""Shots and traces that are left out before any sample is read: outside the model, or on the user's list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.model.grid import Domain
from hpcfwi.model.header_expressions import HeaderExpression
from hpcfwi.model.recorded import RecordedShots
from hpcfwi.model.survey import Survey, Table, list_names

if TYPE_CHECKING:
    from hpcfwi.config.data import TracesSection
    from hpcfwi.model.field_survey import FieldSurvey


@dataclass(frozen=True, eq=False)
class Selection:
    """What is left out of a survey, and the weights of what is not; only shots that differ from the rest are named."""

    kept: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)  # by shot: its traces that are used
    left_out: Mapping[str, dict[str, tuple[int, ...]]] = field(
        default_factory=dict
    )  # by shot and reason: numbers from 1
    weights: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # by shot: of the traces that are used
    shots: tuple[str, ...] = ()  # those that are left out as a whole

    def count(self, reason: str) -> int:
        """Number of traces that are left out for a reason."""
        return sum(len(reasons.get(reason, ())) for reasons in self.left_out.values())


def select_traces(
    survey: Survey,
    domain: Domain,
    section: TracesSection,
    weights: Mapping[str, NDArray[np.float32]],
    killed: Mapping[str, NDArray[np.bool_]],
) -> tuple[Survey, Selection, tuple[str, ...]]:
    """Leave out traces with the weight 0, killed ones and, if ``data.traces.outside`` says so, those outside the model.

    Parameters
    ----------
    survey, domain
        The shots, and the model's grid.
    section
        ``[data.traces]``.
    weights, killed
        By shot, for each of its traces: the user's weight, and whether an expression selects it.

    Returns
    -------
    survey, selection, warnings

    Raises
    ------
    InputError
        If more traces are outside than ``data.traces.outside`` allows, or no shot is left.
    """
    drop = section.outside != "refuse"
    if not (drop or weights or killed):
        return survey, Selection(), ()
    kept: dict[str, NDArray[np.bool_]] = {}
    left_out: dict[str, dict[str, tuple[int, ...]]] = {}
    without: list[str] = []
    for shot in survey.shots:
        count, name = len(shot.receivers), shot.name
        reasons: dict[str, NDArray[np.bool_]] = {}
        if drop and not domain.contains(shot.source[None])[0]:
            without.append(name)
            reasons["outside"] = np.ones(count, dtype=bool)
        elif drop:
            reasons["outside"] = ~domain.contains(shot.receivers)
        chosen = killed.get(name, np.zeros(count, dtype=bool))
        reasons["killed"] = chosen | (weights[name] == 0 if name in weights else False)
        used = ~np.logical_or.reduce(list(reasons.values()))
        if used.all():
            continue
        left_out[name] = {
            reason: tuple((np.flatnonzero(mask) + 1).tolist()) for reason, mask in reasons.items() if mask.any()
        }
        if used.any():
            kept[name] = used
        elif name not in without:
            without.append(name)
    selection = Selection(kept, left_out, _kept_weights(weights, kept), tuple(without))
    return _apply(survey, domain, selection, section)


def _kept_weights(
    weights: Mapping[str, NDArray[np.float32]], kept: Mapping[str, NDArray[np.bool_]]
) -> dict[str, NDArray[np.float32]]:
    return {name: values[kept[name]] if name in kept else values for name, values in weights.items()}


def _apply(
    survey: Survey, domain: Domain, selection: Selection, section: TracesSection
) -> tuple[Survey, Selection, tuple[str, ...]]:
    total, outside, warnings = int(survey.receiver_counts.sum()), selection.count("outside"), []
    if isinstance(section.outside, float) and outside > section.outside * total:
        raise InputError(
            f"data.traces.outside: {outside} of {total} traces are outside the model, a share of {outside / total:.3g}, but "
            f'{section.outside:g} is allowed; enlarge the model, or set data.traces.outside to a larger share or to "drop"'
        )
    if len(selection.shots) == len(survey):
        raise InputError(
            f"data.traces: no shot of the {len(survey)} is left: {outside} of {total} traces are outside the model, and "
            f"{selection.count('killed')} are on your list{'. ' + advice_on_position(survey, domain) if outside else ''}"
        )
    for reason, key in (("outside", "outside the model"), ("killed", "on your list")):
        if selection.count(reason):
            warnings.append(f"data.traces: {selection.count(reason)} of {total} traces are left out: they are {key}")
    if selection.shots:
        warnings.append(
            f"data.traces: {len(selection.shots)} of {len(survey)} shots are left out ({list_names(selection.shots)}): their "
            "source or all their receivers are outside the model, or on your list"
        )
    return survey.without(selection.shots).keep(selection.kept), selection, tuple(warnings)


def check_extent(survey: Survey, domain: Domain) -> None:
    """Raise InputError, with advice, if sources or receivers of recorded shots lie outside the model."""
    inside = domain.contains(np.stack([shot.source for shot in survey.shots]))
    sources, receivers = int((~inside).sum()), sum(int((~domain.contains(each)).sum()) for each in survey.spreads())
    if not sources and not receivers:
        return
    total = int(survey.receiver_counts.sum())
    limits = ", ".join(
        f"{axis} {low:g} to {high:g} m" for axis, low, high in zip(domain.axes, domain.origin, domain.last, strict=True)
    )
    some = "" if receivers == total else "; or leave such traces out: --set data.traces.outside=drop"
    raise InputError(
        f"data.file: {sources} of {len(survey)} sources and {receivers} of {total} receivers lie outside the model, which "
        f"covers {limits}. {advice_on_position(survey, domain)}{some}"
    )


def advice_on_position(survey: Survey, domain: Domain) -> str:
    """What to type for a survey that lies outside the model."""
    parts = [(each.min(axis=0), each.max(axis=0)) for each in survey.spreads() if len(each)]
    sources = np.stack([shot.source for shot in survey.shots])
    low = np.min([sources.min(axis=0), *(part[0] for part in parts)], axis=0)
    high = np.max([sources.max(axis=0), *(part[1] for part in parts)], axis=0)
    first, last = np.asarray(domain.origin), np.asarray(domain.last)
    covers = ", ".join(f"{axis} {a:.9g} to {b:.9g} m" for axis, a, b in zip(domain.axes, low, high, strict=True))
    advice = [f"The survey covers {covers}"]
    large = high - low > last - first
    for axis in np.flatnonzero(large):
        advice.append(
            f"the model is too small along {domain.axes[axis]}: take a larger grid.shape[{axis}], at least "
            f"{int(np.ceil((high - low)[axis] / domain.spacing[axis])) + 1}"
        )
    across = slice(0, domain.ndim - 1)
    if not large[across].any() and ((low < first) | (high > last))[across].any():
        shift = (0.5 * (first + last - low - high))[across].tolist()
        if isinstance(survey.shots, RecordedShots):
            advice.append(f"to put it into the middle: {survey.shots.transform.moved(shift).settings}")
        else:
            advice.append("does grid.origin have the survey's coordinates?")
    if not large[-1] and low[-1] < first[-1]:
        advice.append(
            f"z lies above the model: set data.headers.datum to the elevation of the model's z = 0 ({first[-1] - low[-1]:g} m "
            f"more than it is), or have what lies above moved down: --set acquisition.minimum_depth={first[-1]:g}"
        )
    elif not large[-1] and high[-1] > last[-1]:
        advice.append("z lies below the model: do data.headers.elevations and datum have the right sign?")
    return "; ".join(advice)


def read_weights(path: Path, survey: Survey) -> dict[str, NDArray[np.float32]]:
    """Read ``data.traces.weights``: by shot, the weight of each trace.

    Raises InputError if the file cannot be read, or has an unknown shot or trace.
    """
    table = Table(path, "data.traces.weights")
    counts = dict(zip(survey.names, survey.receiver_counts.tolist(), strict=True))
    found: dict[str, NDArray[np.float32]] = {}
    traces = table.numbers("trace", whole=True)
    weights = table.numbers("weight") if "weight" in table.header else np.zeros(len(traces))
    for name, rows in table.rows_of_shots.items():
        if name not in counts:
            raise InputError(f"{table.line(rows[0])}: there is no shot {name!r}; the shots are {list_names([*counts])}")
        found[name] = np.ones(counts[name], np.float32)
        for row in rows:
            if not 1 <= traces[row] <= counts[name]:
                raise InputError(
                    f"{table.line(row)}: trace is {traces[row]:g}; shot {name!r} has the traces 1 to {counts[name]}"
                )
            if weights[row] != 0 and not 1e-6 <= weights[row] <= 1e6:
                raise InputError(
                    f"{table.line(row)}: weight is {weights[row]:g}; it should be 0, or between 1e-6 and 1e6"
                )
            found[name][int(traces[row]) - 1] = weights[row]
        if len(np.unique(traces[rows])) < len(rows):
            again = next(row for place, row in enumerate(rows) if traces[row] in traces[rows[:place]])
            raise InputError(f"{table.line(again)}: trace {traces[again]:g} of shot {name!r} is there twice")
    return found


def killed_traces(survey: FieldSurvey, expressions: tuple[HeaderExpression, ...]) -> dict[str, NDArray[np.bool_]]:
    """By shot, the traces that one of the expressions selects; shots without one are left out."""
    found: dict[str, NDArray[np.bool_]] = {}
    for shot, name in enumerate(survey.shots.names if expressions else ()):
        traces = survey.shots.traces(shot)
        mask = np.zeros(len(traces), dtype=bool)
        for expression in expressions:
            values = {word: survey.headers.take(header, traces) for word, header in expression.fields.items()}
            mask |= expression.evaluate(values)
        if mask.any():
            found[name] = mask
    return found
