"""What the report knows of a run: its events, read once, and the models and survey in its files."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.run import RunConfig, load_run_config
from hpcfwi.errors import HpcfwiError, InputError
from hpcfwi.events import types as events
from hpcfwi.events.state import RunState, failure_line
from hpcfwi.events.types import Event
from hpcfwi.inversion.history import History, Row
from hpcfwi.model.grid import Domain
from hpcfwi.model.problem import Problem
from hpcfwi.model.survey import Shot
from hpcfwi.model.velocity import read_array
from hpcfwi.reporting.report.gantt import Timeline

# Failures, tracebacks, and evaluations or iterations that are kept.
MAX_FAILURES, MAX_TRACEBACKS, MAX_POINTS = 50, 5, 100_000


class ShotMisfits:
    """Misfits of the shots, by name, in the first evaluation and in the last one that is complete."""

    def __init__(self) -> None:
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.number = 0  # of the last evaluation; 0 before there is one
        self._current: dict[str, float] = {}
        self._current_number = 0

    @property
    def shares(self) -> dict[str, float]:
        """Last misfits in percent of the first ones, where both are known."""
        return {shot: 100 * f / self.first[shot] for shot, f in self.last.items() if self.first.get(shot, 0.0) > 0}

    def begin(self, number: int) -> None:
        """An evaluation begins, or continues after another start."""
        if number != self._current_number:
            self._current, self._current_number = {}, number
        if number == 1:
            self.first = self._current

    def add(self, number: int, shot: str, misfit: float) -> None:
        """A shot is done; its event may come after that of its evaluation, since workers send them directly."""
        if number == self._current_number:
            self._current[shot] = misfit
        if number == self.number:
            self.last[shot] = misfit

    def end(self, number: int) -> None:
        """An evaluation is complete; one that was replayed has not begun, and changes nothing."""
        if number == self._current_number:
            self.last, self.number = self._current, number


class ReportData:
    """The events of a run, reduced to what the report shows, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self.state, self.timeline, self.shot_misfits = RunState(), Timeline(), ShotMisfits()
        # misfit and seconds by number; of a replayed evaluation, the seconds of its computation
        self.evaluations: dict[int, tuple[float, float]] = {}
        self.iterations: dict[int, events.IterationDone] = {}
        # the last ones: when (s of the timeline), and a line about each
        self.failures: deque[tuple[float, str]] = deque(maxlen=MAX_FAILURES)
        self.tracebacks: deque[str] = deque(maxlen=MAX_TRACEBACKS)
        # left out because they failed
        self.excluded_shots: list[str] = []
        # whether figures/ shows the present end of the run, not an earlier one
        self.figures_current = False
        # times of the first and the last event, s since 1970
        self.began = self.ended = 0.0

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> ReportData:
        """Read all events."""
        data = cls()
        for event in events:
            data.apply(event)
        data.timeline.close()
        return data

    def apply(self, event: Event) -> None:
        """Take the next event."""
        self.state.apply(event)
        self.timeline.apply(event)
        self.began, self.ended = self.began or event.time, event.time
        # nearly all events are shots
        if isinstance(event, events.ShotDone):
            self.shot_misfits.add(event.evaluation, event.shot, event.misfit)
            return
        failure = failure_line(event)
        if failure is not None:
            self.failures.append((self.timeline.now, failure))
        match event:
            case events.RunStarted():
                self.figures_current = False
            case events.Figures():
                self.figures_current = True
            case events.EvaluationStarted():
                self.shot_misfits.begin(event.evaluation)
            case events.EvaluationDone():
                self._add_evaluation(event)
            case events.IterationDone():
                if len(self.iterations) < MAX_POINTS:
                    self.iterations.setdefault(event.iteration, event)
            case events.TaskFailed():
                self.tracebacks.append(event.traceback)
            case events.ShotExcluded():
                # another inversion begins without the shot
                self.excluded_shots.append(event.shot)
                self.shot_misfits = ShotMisfits()
                self.evaluations.clear()
                self.iterations.clear()

    def _add_evaluation(self, event: events.EvaluationDone) -> None:
        self.shot_misfits.end(event.evaluation)
        before = self.evaluations.get(event.evaluation)
        seconds = before[1] if before is not None and event.replayed else event.seconds
        if before is not None or len(self.evaluations) < MAX_POINTS:
            self.evaluations[event.evaluation] = (event.misfit, seconds)


def read_history(path: Path, data: ReportData) -> tuple[list[Row], list[str]]:
    """The iterations in ``history.csv``, or else those in the events; and notes on what is wrong with the file."""
    notes = []
    try:
        rows = History(path).rows
        if rows:
            return rows, []
    except HpcfwiError as error:
        notes.append(f"{error} The iterations below are those in events.jsonl.")
    names = [field.name for field in fields(Row)]
    events = [data.iterations.get(number) for number in range(len(data.iterations))]
    # rows follow each other without a gap
    known = events[: events.index(None)] if None in events else events
    return [Row(*(getattr(event, name) for name in names)) for event in known], notes


@dataclass(frozen=True, eq=False)
class RunModels:
    """Grid, models (km/s) and survey of a run, as far as its folder has them."""

    domain: Domain | None = None
    velocity: NDArray | None = None  # the final model or, of a run that is not done, the current one
    done: bool = False
    initial: NDArray | None = None
    true: NDArray | None = None
    frozen: NDArray | None = None  # cells that the inversion does not update
    shots: tuple[Shot, ...] = ()
    notes: tuple[str, ...] = ()  # what is missing, and why

    @classmethod
    def read(cls, run: Path, excluded: Collection[str] = (), problem: Problem | None = None) -> RunModels:
        """Read what the run folder has; the problem, too, from its ``config.toml``, unless it is given."""
        notes: list[str] = []
        config = None
        try:
            config = load_run_config(run / "config.toml") if problem is None else problem.config
            problem = problem or Problem.from_config(config)
        except HpcfwiError as error:
            notes.append(f"Initial and true model and the survey cannot be shown: {error}")
        velocity, done = _read_velocity(run, notes)
        if problem is None:
            return cls(_domain_of(config, velocity), velocity, done, notes=tuple(notes))
        if velocity is not None and velocity.shape != problem.domain.shape:
            notes.append(
                f"The run's model has the shape {velocity.shape}, the grid of config.toml {problem.domain.shape}."
            )
            velocity = None
        shots = tuple(shot for shot in problem.survey.shots if shot.name not in excluded)
        models = (problem.initial_velocity, problem.true_velocity, problem.frozen)
        return cls(problem.domain, velocity, done, *models, shots, tuple(notes))

    @property
    def latest(self) -> NDArray | None:
        """The final, the current or the initial model, whichever is known."""
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
    """The grid, where the problem's files are gone: its shape is that of the run's own model."""
    if config is None or velocity is None or len(config.grid.spacing) != velocity.ndim:
        return None
    origin = config.grid.origin or (0.0,) * velocity.ndim
    return Domain(velocity.shape, config.grid.spacing, origin) if math.prod(velocity.shape) else None
