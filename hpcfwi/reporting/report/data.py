"""The data of a report: events of a run, read once, and models and survey from its files."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from itertools import count, takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.run import RunConfig, load_run_config
from hpcfwi.errors import HpcfwiError, InputError
from hpcfwi.events import types as events
from hpcfwi.events.state import RunState, failure_line
from hpcfwi.events.types import Event
from hpcfwi.inversion.history import History, Row
from hpcfwi.model.arrays import read_array
from hpcfwi.model.grid import Domain
from hpcfwi.model.problem import Problem
from hpcfwi.model.survey import Shot
from hpcfwi.reporting.report.gantt import Timeline

# Limits: failures, tracebacks, and shots whose traces are listed.
MAX_FAILURES, MAX_TRACEBACKS, MAX_SHOTS_LISTED = 50, 5, 500


class ShotMisfits:
    """Misfits of the shots, by name, in the first and in the last complete evaluation."""

    def __init__(self) -> None:
        self.number = 0  # of the last complete evaluation
        self._found: dict[int, dict[str, float]] = {}  # by evaluation: the first, the last complete and the current one

    @property
    def first(self) -> dict[str, float]:
        return self._found.get(1, {})

    @property
    def last(self) -> dict[str, float]:
        return self._found.get(self.number, {})

    @property
    def shares(self) -> dict[str, float]:
        """Last misfits in percent of the first ones, for shots that have both."""
        return {shot: 100 * f / self.first[shot] for shot, f in self.last.items() if self.first.get(shot, 0.0) > 0}

    def begin(self, number: int) -> None:
        """Begin an evaluation, or continue it after another start."""
        kept = {1, self.number, number}
        self._found = {number: {}, **{n: misfits for n, misfits in self._found.items() if n in kept}}

    def add(self, number: int, shot: str, misfit: float) -> None:
        """Add a finished shot; its worker sends the event, which may arrive after the end of the evaluation."""
        if number in self._found:
            self._found[number][shot] = misfit

    def end(self, number: int) -> None:
        """End an evaluation; replayed ones do not begin, and change nothing."""
        if number in self._found:
            self.number = max(self.number, number)


class ReportData:
    """Events of a run, reduced to the content of the report: some numbers of each shot and of each evaluation."""

    def __init__(self, log: Iterable[Event] = ()) -> None:
        self.state, self.timeline, self.shot_misfits = RunState(), Timeline(), ShotMisfits()
        self.evaluations: dict[int, float] = {}  # misfit by number
        self.iterations: dict[int, events.IterationDone] = {}
        self.failures: deque[tuple[float, str]] = deque(maxlen=MAX_FAILURES)  # seconds of the timeline, and a line
        self.tracebacks: deque[str] = deque(maxlen=MAX_TRACEBACKS)
        self.shots = 0  # that the inversion uses
        self.excluded_shots: list[str] = []  # shots that failed
        self.traces_left_out: dict[str, dict[str, str]] = {}  # by shot and reason: numbers of traces
        self.figures_current = False  # whether figures/ is from the last end of the run, not an earlier one
        self.began = self.ended = 0.0  # times of the first and the last event, s since 1970
        for event in log:
            self.apply(event)
        self.timeline.close()

    def apply(self, event: Event) -> None:
        self.state.apply(event)
        self.timeline.apply(event)
        self.began, self.ended = self.began or event.time, event.time
        if isinstance(event, events.ShotDone):  # like nearly all events
            self.shot_misfits.add(event.evaluation, event.shot, event.misfit)
            return
        failure = failure_line(event)
        if failure is not None:
            self.failures.append((self.timeline.now, failure))
        match event:
            case events.RunStarted() if event.shots > self.shots:  # the first, or one that may use failed shots again
                self._begin_inversion(event.shots)
                self.excluded_shots.clear()
            case events.StagingData():
                self.traces_left_out.clear()
            case events.TracesLeftOut() if len(self.traces_left_out) < MAX_SHOTS_LISTED:
                self.traces_left_out[event.shot] = event.reasons
            case events.Optimised():
                self.figures_current = False
            case events.Figures():
                self.figures_current = True
            case events.EvaluationStarted():
                self.figures_current = False
                self.shot_misfits.begin(event.evaluation)
            case events.EvaluationDone():
                self.shot_misfits.end(event.evaluation)
                self.evaluations[event.evaluation] = event.misfit
            case events.IterationDone():
                self.iterations.setdefault(event.iteration, event)
            case events.TaskFailed():
                self.tracebacks.append(event.traceback)
            case events.RunFailed():
                self.tracebacks.append("\n".join(filter(None, (event.message, event.traceback))))
            case events.ShotExcluded():
                self._begin_inversion(self.shots - 1)
                self.excluded_shots.append(event.shot)

    def _begin_inversion(self, shots: int) -> None:
        """Forget another inversion, over more or fewer shots."""
        self.shots, self.shot_misfits = shots, ShotMisfits()
        self.evaluations.clear()
        self.iterations.clear()


def read_history(path: Path, data: ReportData) -> tuple[list[Row], list[str]]:
    """The iterations in ``history.csv`` or else in the events, and notes on a damaged file."""
    notes = []
    try:
        if rows := History(path).rows:
            return rows, []
    except HpcfwiError as error:
        notes.append(f"{error}. The iterations below are those in events.jsonl.")
    names = [field.name for field in fields(Row)]
    known = takewhile(data.iterations.__contains__, count())  # rows have no gaps
    return [Row(*(getattr(data.iterations[number], name) for name in names)) for number in known], notes


@dataclass(frozen=True, eq=False)
class RunModels:
    """Grid, models (km/s) and survey of a run; what its folder lacks is None or empty."""

    domain: Domain | None = None
    velocity: NDArray | None = None  # the final model, or the current one of an unfinished run
    done: bool = False
    initial: NDArray | None = None
    true: NDArray | None = None
    frozen: NDArray | None = None  # cells that the inversion does not update
    shots: tuple[Shot, ...] = ()
    notes: tuple[str, ...] = ()  # what is missing, and why

    @classmethod
    def read(cls, run: Path, excluded: Collection[str] = (), problem: Problem | None = None) -> RunModels:
        """Read a run folder; by default ``problem`` is read from its ``config.toml``."""
        notes: list[str] = []
        config = None
        try:
            config = load_run_config(run / "config.toml") if problem is None else problem.config
            problem = problem or Problem.from_config(config)
        except HpcfwiError as error:
            notes.append(f"Initial model, true model and survey cannot be shown: {error}")
        velocity, done = _read_velocity(run, notes)
        if problem is None:
            return cls(_domain_of(config, velocity), velocity, done, notes=tuple(notes))
        if velocity is not None and velocity.shape != problem.domain.shape:
            shapes = f"{velocity.shape}, the grid of config.toml {problem.domain.shape}"
            notes.append(f"The run's model has the shape {shapes}.")
            velocity = None
        shots = tuple(shot for shot in problem.survey.shots if shot.name not in excluded)
        models = (problem.initial_velocity, problem.true_velocity, problem.frozen)
        return cls(problem.domain, velocity, done, *models, shots, tuple(notes))

    @property
    def latest(self) -> NDArray | None:
        """The final model, else the current, else the initial one."""
        return self.velocity if self.velocity is not None else self.initial

    @property
    def sources(self) -> NDArray[np.float64]:
        """Positions of all sources, shape (n, ndim), m."""
        return np.stack([shot.source for shot in self.shots])

    @property
    def receivers(self) -> NDArray[np.float64]:
        """Positions of all receivers, each once, shape (n, ndim), m."""
        # shots often share one array
        spreads = {id(shot.receivers): shot.receivers for shot in self.shots}
        return np.unique(np.concatenate(list(spreads.values())), axis=0)


def _read_velocity(run: Path, notes: list[str]) -> tuple[NDArray | None, bool]:
    for name, done in (("model.npy", True), ("model-current.npy", False)):
        if not (run / name).exists():
            continue
        try:
            values = read_array(run / name, "the run's model")
            if not 2 <= values.ndim <= 3 or min(values.shape) < 2:
                raise InputError(f"{run / name}: has the shape {values.shape}; a model has two or three axes")
            return values.astype(float), done
        except HpcfwiError as error:
            notes.append(f"The run's model cannot be shown: {error}")
    return None, False


def _domain_of(config: RunConfig | None, velocity: NDArray | None) -> Domain | None:
    """The grid without the files of the problem: its shape is that of the run's own model."""
    if config is None or velocity is None or len(config.grid.spacing) != velocity.ndim:
        return None
    origin = config.grid.origin or (0.0,) * velocity.ndim
    return Domain(velocity.shape, config.grid.spacing, origin) if math.prod(velocity.shape) else None
