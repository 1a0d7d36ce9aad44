"""The source signature of recorded data: checks of amplitude, polarity and time, and estimates of the wavelet."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.artifacts import StagedFile, find_staged, load, stage
from hpcfwi.config.run import EstimatedWaveletSection, RunConfig
from hpcfwi.errors import InputError
from hpcfwi.events import types as events
from hpcfwi.model.source_estimate import (
    GatherComparison,
    SourceFilters,
    estimate_filter,
    shown_part,
    total_comparison,
)
from hpcfwi.model.survey import list_names
from hpcfwi.model.wavelet import Wavelet, peak_frequency
from hpcfwi.version import __version__

if TYPE_CHECKING:
    from hpcfwi.inversion.objective import Objective, ShotOperations
    from hpcfwi.run.session import Session

KIND = "source"
# Shots that are compared before the first iteration.
SHOTS_COMPARED = 3
# Observed data that are so many times as large or small as predicted ones have another unit.
LARGEST_SCALE = 10.0
# The polarity is reversed if the correlation is below -MIN_CORRELATION, and so many times as strong as any positive one.
MIN_CORRELATION, REVERSED_RATIO = 0.3, 1.3


def estimate_filters(objective: Objective, velocity: NDArray) -> SourceFilters:
    """Find the filters of predicted gathers in a model, km/s, with an objective that does not filter them.

    Raises InputError if nothing is predicted.
    """
    section, names = objective.problem.config.wavelet, objective.problem.survey.names
    assert isinstance(section, EstimatedWaveletSection)
    compared = objective.compare(velocity, range(len(names)), processed=False, max_offset=section.max_offset)
    _check_traces(section, compared)
    common = estimate_filter(total_comparison(compared), section.damping)
    if not section.per_shot:
        return SourceFilters(common)
    # a shot without traces up to max_offset has the filter of the survey
    each = [estimate_filter(one, section.damping) if one.predicted.any() else common for one in compared]
    return SourceFilters(None, dict(zip(names, each, strict=True)))


@contextmanager
def with_source_of(
    unfiltered: Objective, operations: Callable[[StagedFile], ShotOperations], folder: Path, velocity: NDArray
) -> Iterator[ShotOperations]:
    """The operations on a shot with the wavelet that is estimated in a model, km/s.

    ``unfiltered`` is an objective that does not filter predicted gathers; ``operations`` makes those with filters, which are
    staged in a folder.
    """
    filters = stage(folder, KIND, estimate_filters(unfiltered, velocity), sync=False)
    try:
        yield operations(filters)
    finally:
        Path(filters.path).unlink(missing_ok=True)


def estimate_source(
    session: Session, objective: Objective, velocity: NDArray, number: int, name: str
) -> tuple[StagedFile, SourceFilters]:
    """Estimate the wavelet in a model, km/s; an estimate of an earlier start is used again.

    ``number`` is that of the estimate, from 1; ``name`` that of its file. Returns the staged filters, and the filters.
    """
    from hpcfwi.inversion.objective import task_key

    started, problem = time.perf_counter(), objective.problem
    section = problem.config.wavelet
    assert isinstance(section, EstimatedWaveletSection)
    path = session.folder.staged / name
    shots = tuple(shot.digest for shot in objective.shots)
    origin = task_key(__version__, problem.digest, shots, velocity.tobytes())
    staged = find_staged(path, KIND, origin)
    replayed = staged is not None
    if staged is None:
        filters = estimate_filters(objective, velocity)
        staged = stage(session.folder.staged, KIND, filters, name=path.name, origin=origin)
    else:
        filters = load(staged, KIND)
    found = list(filters.all())
    session.folder.write_bytes(session.folder.wavelet, _wavelet_table(problem.wavelet, filters))
    event = events.SourceEstimated(
        estimate=number,
        filters=len(found),
        explained=float(np.mean([each.explained for each in found])),
        condition=max(each.condition for each in found),
        staged_before=replayed or None,
        seconds=time.perf_counter() - started,
    )
    session.log.write(event)
    which = "for each shot" if section.per_shot else "for the survey"
    session.print_line(
        f"wavelet estimated {which}: filtered predictions explain {100 * event.explained:.3g} % of the observed energy "
        f"(condition {event.condition:.3g})"
    )
    return staged, filters


def _wavelet_table(wavelet: Wavelet, filters: SourceFilters) -> bytes:
    """``wavelet.csv``: time in ms, and the wavelet before and after the estimate."""
    named = [("estimated", filters.common)] if filters.common is not None else filters.by_shot.items()
    columns: dict[str, NDArray[np.float64]] = {}
    for name, each in named:
        times, before, columns[name] = each.apply_to(wavelet)
    part = shown_part([before, *columns.values()])
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["time_ms", "before", *columns])
    signals = (times, before, *columns.values())
    writer.writerows([f"{value:.9g}" for value in row] for row in zip(*(each[part] for each in signals), strict=True))
    return text.getvalue().encode()


def _check_traces(section: EstimatedWaveletSection, compared: list[GatherComparison]) -> None:
    empty = not any(each.traces and each.predicted.any() for each in compared)
    if empty:
        limit = "" if section.max_offset is None else f" up to {section.max_offset:g} m (wavelet.max_offset)"
        raise InputError(
            f"wavelet.kind: the wavelet cannot be estimated: nothing is predicted at offsets{limit}; check the positions and "
            "the initial model"
        )


def check_source(session: Session, objective: Objective, velocity: NDArray) -> None:
    """Compare observed and predicted gathers of some shots in the initial model, km/s, before it is inverted.

    Raises InputError if their amplitudes differ by more than a factor of 10, or their polarity is reversed; warns of that with
    ``data.mismatch = "warn"``, and of a shift in time.
    """
    problem = objective.problem
    names = problem.survey.names
    shots = sorted({round(place) for place in np.linspace(0, len(names) - 1, SHOTS_COMPARED)})
    compared = total_comparison(objective.compare(velocity, shots))
    where = f"data.file: observed data of shots {list_names([names[shot] for shot in shots])}"
    problems = source_problems(compared, problem.config, peak_frequency(problem.wavelet))
    for text, serious in problems:
        if serious and problem.config.data.mismatch == "refuse":
            raise InputError(
                f"{where} {text}. After a change of the wavelet start over with --fresh; to go on as it is: "
                "--set data.mismatch=warn"
            )
        session.warn(f"{where} {text}")


def source_problems(compared: GatherComparison, config: RunConfig, frequency: float) -> list[tuple[str, bool]]:
    """What is wrong with amplitude, polarity and time of predictions, and whether it is serious.

    ``frequency`` is that of the wavelet's peak, kHz.
    """
    lags, correlation = compared.correlation()
    best, worst = int(np.argmax(correlation)), int(np.argmin(correlation))
    low, high = float(correlation[worst]), float(correlation[best])
    reversed_polarity = low < -MIN_CORRELATION and -low > REVERSED_RATIO * max(high, 0.0)
    sign = -1.0 if reversed_polarity else 1.0
    found: list[tuple[str, bool]] = []
    scale = compared.scale
    if not math.isfinite(scale):
        return [("cannot be compared: nothing is predicted in the initial model", False)]
    if not 1 / LARGEST_SCALE <= scale <= LARGEST_SCALE:
        other = ", and have the other polarity" if reversed_polarity else ""
        advice = _advice(config, frequency, sign * scale)
        found.append((f"are {scale:.3g} times as large as predicted ones in the initial model{other}; {advice}", True))
    elif reversed_polarity:
        found.append(
            (
                f"have the other polarity than predicted ones (correlation {low:.2f} at a lag of {lags[worst]:.3g} ms, at best "
                f"{high:.2f}); {_advice(config, frequency, -1.0)}",
                True,
            )
        )
    lag = float(lags[worst if reversed_polarity else best])
    # an estimated wavelet has no systematic shift
    known = config.wavelet.kind != "estimate" and max(high, -low) > MIN_CORRELATION
    if known and abs(lag) > 0.5 / frequency:
        late = "later" if lag > 0 else "earlier"
        found.append(
            (
                f"come {abs(lag):.4g} ms {late} than predicted ones (correlation {max(high, -low):.2f}); if that is not the "
                f"initial model's fault, {_advice_on_shift(config, lag)}",
                False,
            )
        )
    return found


def _advice(config: RunConfig, frequency: float, factor: float) -> str:
    """How to make predictions ``factor`` times as large."""
    wavelet = config.wavelet
    if wavelet.kind == "estimate":
        return (
            "the estimated wavelet explains almost nothing of them: check the positions, the initial model, and "
            "wavelet.peak_frequency"
        )
    estimate = f'estimate the wavelet: wavelet.kind = "estimate", wavelet.peak_frequency = {1000 * frequency:.3g}'
    if wavelet.kind == "file":
        return estimate
    return f"--set wavelet.amplitude={wavelet.amplitude * factor:.4g}, or {estimate}"


def _advice_on_shift(config: RunConfig, lag: float) -> str:
    """How to make predictions come ``lag`` ms later."""
    wavelet = config.wavelet
    if wavelet.kind == "file":
        return "move the samples of the wavelet"
    delay = 1000 / wavelet.peak_frequency if wavelet.delay is None else wavelet.delay
    if delay + lag >= 0:
        return f"--set wavelet.delay={delay + lag:.4g}"
    if config.data.is_seismic:
        return f"--set data.headers.delay={(config.data.headers.delay or 0.0) - lag:.4g}"
    return "move the observed samples"
