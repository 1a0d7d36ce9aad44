"""Everything that the report tells of a run's events: read once, one after the other, whatever their number."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.run import RunConfig, load_run_config
from hpcfwi.errors import HpcfwiError, InputError
from hpcfwi.events.state import RunState, failure_line
from hpcfwi.events.types import (
    EvaluationDone,
    EvaluationStarted,
    Event,
    Figures,
    IterationDone,
    RunStarted,
    ShotDone,
    ShotExcluded,
    TaskFailed,
)
from hpcfwi.model.grid import Domain
from hpcfwi.model.problem import Problem
from hpcfwi.model.survey import Shot
from hpcfwi.model.velocity import read_array
from hpcfwi.reporting.report.timeline import Timeline

__all__ = ["ReportData", "RunModels", "ShotMisfits"]

# The last failures and tracebacks, and the points of a curve, that are kept.
MOST_FAILURES, MOST_TRACEBACKS, MOST_POINTS = 50, 5, 100_000


class ShotMisfits:
    """Misfits of the shots in the first evaluation and in the last one that was computed to its end.

    Attributes
    ----------
    first, last
        By the names of the shots.
    number
        Of the last evaluation; 0 while there is none.
    """

    def __init__(self) -> None:
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.number = 0
        self._current: dict[str, float] = {}
        self._current_number = 0

    def begin(self, number: int) -> None:
        """An evaluation begins, or goes on after another start."""
        if number != self._current_number:
            self._current, self._current_number = {}, number
        if number == 1:
            self.first = self._current

    def add(self, number: int, shot: str, misfit: float) -> None:
        """A shot is done; workers tell of it on another way than the driver of the evaluation, perhaps later."""
        for known, misfits in ((self._current_number, self._current), (self.number, self.last)):
            if number == known:
                misfits[shot] = misfit

    def end(self, number: int) -> None:
        """An evaluation is done."""
        if number == self._current_number:
            self.last, self.number = self._current, number


class ReportData:
    """The events of a run, folded.

    Attributes
    ----------
    state
        How the run stands.
    timeline
        What the workers did when.
    shots
        Their misfits.
    evaluations
        Misfit and seconds of each, by its number; of one that was replayed the seconds of when it was computed.
    iterations
        Events of the iterations, by their numbers.
    failures
        The last ones: when, and what in a line.
    tracebacks
        The last ones of tasks that failed.
    lost
        Shots that are left out since they failed.
    hosts
        Shots that were done on each.
    drawn
        Whether the pictures in ``figures/`` are of the end that the run is at.
    began, ended
        Time of the first and of the last event, s since 1970.
    """

    def __init__(self) -> None:
        self.state, self.timeline, self.shots = RunState(), Timeline(), ShotMisfits()
        self.evaluations: dict[int, tuple[float, float]] = {}
        self.iterations: dict[int, IterationDone] = {}
        self.failures: deque[tuple[float, str]] = deque(maxlen=MOST_FAILURES)
        self.tracebacks: deque[str] = deque(maxlen=MOST_TRACEBACKS)
        self.lost: list[str] = []
        self.hosts: dict[str, int] = {}
        self.drawn = False
        self.began = self.ended = 0.0
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            RunStarted: self._started,
            EvaluationStarted: lambda event: self.shots.begin(event.evaluation),
            EvaluationDone: self._evaluated,
            IterationDone: self._iterated,
            ShotDone: self._shot_done,
            ShotExcluded: self._lost,
            TaskFailed: lambda event: self.tracebacks.append(event.traceback),
            Figures: lambda _: self._drawn(),
        }

    @classmethod
    def of(cls, events: Iterable[Event]) -> ReportData:
        """Read all events."""
        chronicle = cls()
        for event in events:
            chronicle.apply(event)
        chronicle.timeline.close()
        return chronicle

    def apply(self, event: Event) -> None:
        """Take the next event."""
        self.state.apply(event)
        self.timeline.apply(event)
        handle = self._handlers.get(type(event))
        if handle is not None:
            handle(event)
        self.began, self.ended = self.began or event.time, event.time
        failure = None if isinstance(event, ShotDone) else failure_line(event)
        if failure is not None:
            self.failures.append((self.timeline.now, failure))

    def _started(self, _: RunStarted) -> None:
        self.drawn = False

    def _drawn(self) -> None:
        self.drawn = True

    def _evaluated(self, event: EvaluationDone) -> None:
        number, misfit, seconds = event.evaluation, event.misfit, event.seconds
        self.shots.end(number)
        before = self.evaluations.get(number)
        if before is not None and event.replayed:
            seconds = before[1]
        if before is not None or len(self.evaluations) < MOST_POINTS:
            self.evaluations[number] = (misfit, seconds)

    def _iterated(self, event: IterationDone) -> None:
        number = event.iteration
        if number in self.iterations or len(self.iterations) < MOST_POINTS:
            self.iterations.setdefault(number, event)

    def _shot_done(self, event: ShotDone) -> None:
        self.shots.add(event.evaluation, event.shot, event.misfit)
        host = event.host
        if host in self.hosts or len(self.hosts) < MOST_POINTS:
            self.hosts[host] = self.hosts.get(host, 0) + 1

    def _lost(self, event: ShotExcluded) -> None:
        """Without the shot another inversion begins."""
        self.lost.append(event.shot)
        self.shots = ShotMisfits()
        self.evaluations.clear()
        self.iterations.clear()


@dataclass(frozen=True, eq=False)
class RunModels:
    """Grid, models, survey.

    Parameters
    ----------
    domain
        The grid; None where nothing is known of it.
    velocity
        The final model, or, of a run that is not done, the current one, km/s; None while there is none.
    done
        Whether it is the final one.
    initial, true
        The other models, where they are known.
    frozen
        Cells that the inversion leaves alone.
    shots
        The survey; empty where it is not known.
    notes
        What is missing, and why.
    """

    domain: Domain | None = None
    velocity: NDArray | None = None
    done: bool = False
    initial: NDArray | None = None
    true: NDArray | None = None
    frozen: NDArray | None = None
    shots: tuple[Shot, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: Path, lost: Sequence[str] = (), problem: Problem | None = None) -> RunModels:
        """What there is in a run folder; ``problem`` is taken instead of that of its ``config.toml`` where it is given."""
        notes: list[str] = []
        config = None
        try:
            config = load_run_config(run / "config.toml") if problem is None else problem.config
            problem = problem or Problem.from_config(config)
        except HpcfwiError as error:
            notes.append(f"Initial and true model and the survey cannot be shown: {error}")
        velocity, done = _velocity(run, notes)
        if problem is None:
            return cls(_domain(config, velocity), velocity, done, notes=tuple(notes))
        if velocity is not None and velocity.shape != problem.domain.shape:
            notes.append(f"The run's model is of the shape {velocity.shape}, its grid of {problem.domain.shape}.")
            velocity = None
        shots = tuple(shot for shot in problem.survey.shots if shot.name not in set(lost))
        models = (problem.initial_velocity, problem.true_velocity, problem.frozen)
        return cls(problem.domain, velocity, done, *models, shots, tuple(notes))

    @property
    def sources(self) -> NDArray[np.float64]:
        """Positions of all sources, m."""
        return np.stack([shot.source for shot in self.shots])

    @property
    def receivers(self) -> NDArray[np.float64]:
        """Positions of all receivers, m, each once."""
        spreads = {id(shot.receivers): shot.receivers for shot in self.shots}
        return np.unique(np.concatenate(list(spreads.values())), axis=0)


def _velocity(run: Path, notes: list[str]) -> tuple[NDArray | None, bool]:
    for name, done in (("model.npy", True), ("model-current.npy", False)):
        if not (run / name).exists():
            continue
        try:
            values = read_array(run / name, "the run's model")
            if not 2 <= values.ndim <= 3 or min(values.shape) < 2:
                raise InputError(f"{run / name}: has the shape {values.shape}, which is not that of a model")
            return values.astype(float), done
        except HpcfwiError as error:
            notes.append(f"The run's model cannot be shown: {error}")
    return None, False


def _domain(config: RunConfig | None, velocity: NDArray | None) -> Domain | None:
    """Without the files of the problem the run's own model says how many points the grid has."""
    if config is None or velocity is None or len(config.grid.spacing) != velocity.ndim:
        return None
    origin = config.grid.origin or (0.0,) * velocity.ndim
    return Domain(velocity.shape, config.grid.spacing, origin) if math.prod(velocity.shape) else None
