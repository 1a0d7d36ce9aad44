"""The state of a run, derived from its events, for the display, ``hpcfwi status`` and the report."""

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from hpcfwi.events import types as events
from hpcfwi.events.types import Event
from hpcfwi.io import shortened

# Limits of the size of a state, however many events a run has.
MAX_KINDS_OF_FAILURES, MAX_HOSTS, MAX_LINE_LENGTH, MAX_LEFT_OVER_JOBS = 50, 5000, 300, 1000
# The time left is estimated from this many iterations.
STEPS_AVERAGED = 5
# States after which a driver does nothing more.
ENDED = ("done", "stopped", "failed")
# Why an open objective has stopped without an error.
CLOSED = "the program has closed its objective; start it again to go on"


def one_line(text: str) -> str:
    """The beginning of the first line of a text, in printable characters."""
    if len(text) <= MAX_LINE_LENGTH and text.isprintable():  # nearly always
        return text
    return shortened(text.partition("\n")[0], MAX_LINE_LENGTH)


Line = Annotated[str, AfterValidator(one_line)]


@dataclass
class WorkerState:
    """A connected worker process, and the shots that it has evaluated."""

    host: Line
    name: Line  # Dask's
    held_since: float  # since when its cores are held: start of its job or process, s since 1970
    cores: int
    shots: int = 0
    seconds: float = 0.0

    def core_seconds(self, now: float) -> float:
        """Cores times the seconds for which they were held."""
        return self.cores * max(0.0, now - self.held_since)


@dataclass
class RunState:
    """The state of a run after the events so far; :meth:`apply` adds the next event."""

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)
    # "new", "starting", "waiting" (for workers), "data", "inverting", "finishing", "done", "stopped" (can be continued) or
    # "failed", and since when, s since 1970. A killed driver logs no event: see hpcfwi.events.lease.Liveness.
    state: Line = "new"
    since: float | None = None
    reason: str = ""  # why the run has stopped or failed
    start: events.RunStarted | None = None  # the last one
    starts: int = 0
    dashboard: events.Dashboard | None = None  # None if it is not open
    stage: events.StageStarted | None = None  # the current one; None if there are none
    stage_iterations: int = 0  # limit of the number of the stage's last iteration
    iteration: int | None = None  # the last finished one
    iterations: int = 0  # the limit
    evaluation: int = 0  # the last finished one
    misfit: float | None = None  # of the last iteration
    model_error: float | None = None
    initial_misfit: float | None = None
    shots_done: int = 0  # of the current evaluation or data
    shots_total: int = 0
    jobs: dict[Line, Line] = field(default_factory=dict)  # worker jobs in the queue: state, batch system's reason
    left_over_jobs: list[Line] = field(default_factory=list)  # of earlier starts
    workers: dict[str, WorkerState] = field(default_factory=dict)  # connected workers, by address
    core_seconds_gone: float = 0.0  # of the workers that have left
    shots_on: Counter[Line] = field(default_factory=Counter)  # shots of evaluations by host, in all starts
    failures: Counter[Line] = field(default_factory=Counter)  # count of each line of text; the latest comes last
    warnings: Counter[Line] = field(default_factory=Counter)
    traces_left_out: Counter[Line] = field(default_factory=Counter)  # number of traces by reason
    step_seconds: list[float] = field(default_factory=list)  # durations of the last iterations
    last: float = 0.0  # time of the last event, s since 1970
    segment: int = 0  # number of the log's current file

    def __post_init__(self) -> None:
        # names of the shots counted in shots_done
        self._seen: set[str] = set()

    def apply(self, event: Event) -> None:
        """Update the state with the next event."""
        before = self.state
        self.last = event.time
        self._apply(event)
        if self.state != before and not isinstance(event, events.Summary):
            self.since = self.last

    def _apply(self, event: Event) -> None:
        match event:  # the most frequent one first
            case events.ShotDone():
                self._shot_done(event)
            case events.ShotStaged():
                self._count_shot(event.shot)
            case events.LogSegment():
                self.segment = event.segment
            case events.Summary():
                with suppress(ValidationError):  # of another version
                    self.__dict__.update(_adapter().validate_json(json.dumps(event.summary)).__dict__)
            case events.RunStarted():
                self._run_started(event)
            case events.Dashboard():
                self.dashboard = event
            case events.RunWarning():
                _count(self.warnings, event.message)
            case events.JobStateChanged(state="ended"):
                self.jobs.pop(one_line(event.job), None)
            case events.JobStateChanged():
                text = f"{event.state} ({event.reason})" if event.reason else event.state
                self.jobs[one_line(event.job)] = one_line(text)
                self.state = "waiting" if self.state == "starting" else self.state
            case events.WorkerJoined():
                held_since = min(event.time, event.job_start or event.process_start or event.time)
                host, name = one_line(event.host), one_line(event.name)
                self.workers[event.worker] = WorkerState(host, name, held_since, event.cores or 1)
            case events.WorkerLeft():
                self._worker_left(event.worker)
            case events.TracesLeftOut():
                self.traces_left_out.update(event.counts())
            case events.StagingData():
                self.state = "data"
                self.traces_left_out.clear()
                self._shots_begin(event.shots)
            case events.DataStaged():
                self.state = "inverting"
                self._shots_begin(event.shots)
            case events.EvaluationStarted():
                self.evaluation = event.evaluation - 1
                self._shots_begin(event.shots)
            case events.StageStarted():
                self.stage, self.initial_misfit, self.step_seconds = event, None, []
                self.stage_iterations = (self.iteration or 0) + event.iterations
            case events.SumsFound():
                self.shots_done = event.shots
            case events.OperationStarted():
                self._shots_begin(event.shots)
            case events.OperationOnShot():
                self._count_shot(event.shot)
                self._count_on(event.worker, event.host, event.seconds)
            case events.OperationDone():
                self.shots_done = self.shots_total
            case events.EvaluationDone() if self.opened:  # of any shots and models
                self.evaluation, self.shots_done, self.misfit = event.evaluation, self.shots_total, event.misfit
            case events.EvaluationDone():
                self.evaluation, self.shots_done = event.evaluation, self.shots_total
                if self.initial_misfit is None:  # the first one of the run, or of a stage
                    self.initial_misfit = event.misfit
                    self.misfit = event.misfit if self.misfit is None else self.misfit
            case events.IterationDone():
                self.iteration, self.misfit, self.model_error = event.iteration, event.misfit, event.model_error
                if not self.iteration:
                    self.initial_misfit = event.misfit
                else:
                    self.step_seconds = [*self.step_seconds, event.step_seconds][-STEPS_AVERAGED:]
            case events.Optimised():
                self.state, self.iteration = "finishing", event.iterations
            case events.RunDone():
                self.state, self.reason = "done", event.message
            case events.RunFailed():
                self.state, self.reason = "failed", event.message
            case events.RunInterrupted():
                self.state, self.reason = "stopped", event.reason
            case events.Requeued():
                self.reason = event.message
            case events.RunClosed():
                self._all_workers_left()
                if self.state not in ENDED:  # of hpcfwi model, or a program that has opened the objective
                    why = CLOSED if self.opened else "only the observed data were requested"
                    self.state, self.reason = "stopped", why
            case events.ShotExcluded():  # the inversion starts over
                self.iteration, self.evaluation, self.misfit, self.model_error = None, 0, None, None
                self.initial_misfit, self.step_seconds, self.stage = None, [], None
        line = failure_line(event)
        if line is not None:
            _count(self.failures, line)

    @property
    def opened(self) -> bool:
        """Whether a program has opened the objective in place of a run."""
        return self.start is not None and bool(self.start.opened)

    def core_hours(self, now: float) -> float:
        """Cores of all workers so far times the hours for which they were held."""
        return (self.core_seconds_gone + sum(worker.core_seconds(now) for worker in self.workers.values())) / 3600

    @property
    def time_left(self) -> float | None:
        """Upper estimate of the seconds left: remaining iterations times the mean of the last ones; None if unknown.

        Those of a stage, as the next may take longer.
        """
        if self.state != "inverting" or self.iteration is None or not self.step_seconds:
            return None
        limit = self.stage_iterations if self.stage else self.iterations
        return sum(self.step_seconds) / len(self.step_seconds) * max(0, limit - self.iteration)

    def summary(self) -> dict[str, Any]:
        """The whole state as JSON types, for the event ``summary``."""
        return _adapter().dump_python(self, mode="json")

    def _run_started(self, event: events.RunStarted) -> None:
        self._all_workers_left()
        self.left_over_jobs = [*dict.fromkeys([*self.left_over_jobs, *self.jobs])][-MAX_LEFT_OVER_JOBS:]
        self.start, self.starts = event, self.starts + 1
        self.state, self.reason, self.dashboard = "starting", "", None
        self.stage = None
        self.iterations, self.shots_done, self.shots_total, self.jobs = event.iterations, 0, event.shots, {}

    def _worker_left(self, address: str) -> None:
        worker = self.workers.pop(address, None)
        if worker is not None:
            self.core_seconds_gone += worker.core_seconds(self.last)

    def _all_workers_left(self) -> None:
        for address in list(self.workers):
            self._worker_left(address)

    def _shots_begin(self, total: int) -> None:
        self.shots_done, self.shots_total = 0, total
        self._seen.clear()

    def _count_shot(self, shot: str) -> None:
        if shot not in self._seen:
            self._seen.add(shot)
            self.shots_done = min(self.shots_total, self.shots_done + 1)

    def _count_on(self, address: str, host: str, seconds: float) -> None:
        worker, host = self.workers.get(address), one_line(host)
        if worker is not None:
            worker.shots += 1
            worker.seconds += seconds
        self.shots_on[host if host in self.shots_on or len(self.shots_on) < MAX_HOSTS else "other hosts"] += 1

    def _shot_done(self, event: events.ShotDone) -> None:
        self._count_on(event.worker, event.host, event.seconds)
        if event.evaluation == self.evaluation + 1:  # not a late result of an earlier evaluation
            self._count_shot(event.shot)


def failure_line(event: Event) -> str | None:
    """A line that describes a failure; None for other events."""
    text = _FAILURES.get(type(event))
    if text is None:
        return None
    return text.format_map({**vars(event), "failed_shots": ", ".join(vars(event).get("failed_shots", ()))})


def _count(counter: Counter[str], text: str) -> None:
    line = one_line(text)
    if line not in counter and len(counter) >= MAX_KINDS_OF_FAILURES:
        line = "others"
    counter[line] = counter.pop(line, 0) + 1  # the latest comes last


@cache
def _adapter() -> TypeAdapter[RunState]:
    return TypeAdapter(RunState)


_FAILURES: dict[type[Event], str] = {
    events.ShotRetried: "shot {shot} is retried: {reason}",
    events.WorkerDied: "a worker on {host} died: {reason}",
    events.WorkerUnresponsive: "a worker on {host} has sent no heartbeats for a while",
    events.WorkerRestarted: "a worker on {host} hung and was restarted",
    events.HostExcluded: "host {host} gets no more shots: {failed_shots} failed there",
    events.JobLost: "worker job {job} {reason}",
    events.JobRejected: "the batch system rejected a worker job: {message}",
    events.NodeLost: "the workers of node {node} ended (exit code {exit_code})",
    events.WorkerStartFailed: "a worker died while it started ({reason})",
    events.ShotExcluded: "shot {shot} is left out: {reason}",
}
