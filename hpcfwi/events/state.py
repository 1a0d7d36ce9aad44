"""How a run stands, folded from its events: the display, ``hpcfwi status`` and the report all read this one state."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from hpcfwi.events.types import (
    Dashboard,
    DataStaged,
    EvaluationDone,
    EvaluationStarted,
    Event,
    HostExcluded,
    IterationDone,
    JobLost,
    JobRejected,
    JobStateChanged,
    LogSegment,
    NodeLost,
    Optimised,
    Requeued,
    RunClosed,
    RunDone,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunWarning,
    ShotDone,
    ShotExcluded,
    ShotRetried,
    ShotStaged,
    StagingData,
    Summary,
    SumsFound,
    WorkerDied,
    WorkerJoined,
    WorkerLeft,
    WorkerRestarted,
    WorkerStartFailed,
    WorkerUnresponsive,
)
from hpcfwi.io import shortened

__all__ = ["ENDED", "RunState", "WorkerState", "failure_line"]

# Limits of what a state keeps, whatever the number of events.
MAX_KINDS_OF_FAILURES, MAX_HOSTS, MAX_LINE_LENGTH, MAX_LEFT_OVER_JOBS = 50, 5000, 300, 1000
# Iterations that the time left is estimated from.
STEPS_AVERAGED = 5
# States in which a driver does no more.
ENDED = ("done", "stopped", "failed")


def one_line(text: str) -> str:
    """The beginning of the first line of a text, printable."""
    if len(text) <= MAX_LINE_LENGTH and text.isprintable():  # nearly always
        return text
    return shortened(text.partition("\n")[0], MAX_LINE_LENGTH)


Line = Annotated[str, AfterValidator(one_line)]


@dataclass
class WorkerState:
    """A worker process that is connected.

    Parameters
    ----------
    host, name
        Where it runs, and Dask's name for it.
    held_since
        When its cores began to be held: the start of its job or process, s since 1970.
    cores
        Its cores.
    shots, seconds
        Shots of evaluations that it has done, and the time that they took.
    """

    host: Line
    name: Line
    held_since: float
    cores: int
    shots: int = 0
    seconds: float = 0.0

    def core_seconds(self, now: float) -> float:
        """Cores times the time for which they were held."""
        return self.cores * max(0.0, now - self.held_since)


@dataclass
class RunState:
    """How a run stands after the events so far; :meth:`apply` takes the next event.

    Attributes
    ----------
    state
        ``"new"``, ``"starting"``, ``"waiting"`` (for workers), ``"data"``, ``"inverting"``, ``"finishing"``, ``"done"``,
        ``"stopped"`` (can be continued) or ``"failed"``. A driver that was killed logs no event: see
        :class:`~hpcfwi.events.lease.Liveness`.
    reason
        Why it has stopped or failed.
    since
        When it came into its state, s since 1970.
    start, starts
        The last start, and the number of starts.
    dashboard
        Where the dashboard is, while one is open.
    iteration, iterations
        The last iteration that is done, and the limit.
    evaluation
        Evaluations that are done.
    misfit, model_error
        Of the last iteration.
    shots_done, shots_total
        Of the evaluation, or of the data, that is under way.
    jobs
        State of each worker job that has not ended, with the batch system's reason.
    left_over_jobs
        Worker jobs of earlier starts that had not ended when a new driver began.
    workers
        Connected workers, by address.
    shots_on
        Shots of evaluations that were done on each host, in all starts.
    failures, warnings
        How often each happened, as a line of text; the latest failure comes last.
    step_seconds
        Durations of the last iterations.
    last
        Time of the last event, s since 1970.
    segment
        Number of the file of the log that it is in.
    """

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)
    state: Line = "new"
    reason: str = ""
    since: float | None = None
    start: RunStarted | None = None
    starts: int = 0
    dashboard: Dashboard | None = None
    iteration: int | None = None
    iterations: int = 0
    evaluation: int = 0
    misfit: float | None = None
    initial_misfit: float | None = None
    model_error: float | None = None
    shots_done: int = 0
    shots_total: int = 0
    jobs: dict[Line, Line] = field(default_factory=dict)
    left_over_jobs: list[Line] = field(default_factory=list)
    workers: dict[str, WorkerState] = field(default_factory=dict)
    shots_on: Counter[Line] = field(default_factory=Counter)
    workers_gone: int = 0
    core_seconds_gone: float = 0.0
    failures: Counter[Line] = field(default_factory=Counter)
    warnings: Counter[Line] = field(default_factory=Counter)
    step_seconds: list[float] = field(default_factory=list)
    last: float = 0.0
    segment: int = 0

    def __post_init__(self) -> None:
        self._seen: set[str] = set()

    def apply(self, event: Event) -> None:
        """Take the next event."""
        before = self.state
        self.last = event.time
        handle = _HANDLERS.get(type(event))
        if handle is not None:
            handle(self, event)
        if self.state != before and not isinstance(event, Summary):
            self.since = self.last

    def core_hours(self, now: float) -> float:
        """Cores of all workers so far times the hours for which they were held."""
        return (self.core_seconds_gone + sum(worker.core_seconds(now) for worker in self.workers.values())) / 3600

    @property
    def time_left(self) -> float | None:
        """Seconds until the limit of iterations, at most, at the pace of the last ones; None where that is not known."""
        if self.state != "inverting" or self.iteration is None or not self.step_seconds:
            return None
        return sum(self.step_seconds) / len(self.step_seconds) * max(0, self.iterations - self.iteration)

    def summary(self) -> dict[str, Any]:
        """The whole state as JSON types, for the event ``summary``."""
        return _adapter().dump_python(self, mode="json")

    def _restore(self, event: Summary) -> None:
        with suppress(ValidationError):
            self.__dict__.update(_adapter().validate_json(json.dumps(event.summary)).__dict__)

    def _segment_begins(self, event: LogSegment) -> None:
        self.segment = event.segment

    def _run_started(self, event: RunStarted) -> None:
        self._all_workers_left()
        self.left_over_jobs = [*dict.fromkeys([*self.left_over_jobs, *self.jobs])][-MAX_LEFT_OVER_JOBS:]
        self.start, self.starts = event, self.starts + 1
        self.state, self.reason, self.dashboard = "starting", "", None
        self.iterations, self.shots_done, self.shots_total, self.jobs = event.iterations, 0, event.shots, {}

    def _dashboard_open(self, event: Dashboard) -> None:
        self.dashboard = event

    def _warned(self, event: RunWarning) -> None:
        _count(self.warnings, event.message)

    def _job_changed(self, event: JobStateChanged) -> None:
        job = one_line(event.job)
        if event.state == "ended":
            self.jobs.pop(job, None)
        else:
            self.jobs[job] = one_line(f"{event.state}{_bracketed(event.reason)}")
        if self.state == "starting":
            self.state = "waiting"

    def _worker_joined(self, event: WorkerJoined) -> None:
        held_since = min(event.time, event.job_start or event.process_start or event.time)
        self.workers[event.worker] = WorkerState(
            one_line(event.host), one_line(event.name), held_since, event.cores or 1
        )

    def _worker_left(self, event: WorkerLeft) -> None:
        self._release(event.worker)

    def _release(self, address: str) -> None:
        worker = self.workers.pop(address, None)
        if worker is not None:
            self.workers_gone += 1
            self.core_seconds_gone += worker.core_seconds(self.last)

    def _all_workers_left(self) -> None:
        for address in list(self.workers):
            self._release(address)

    def _shots_begin(self, total: int) -> None:
        self.shots_done, self.shots_total = 0, total
        self._seen.clear()

    def _staging_data(self, event: StagingData) -> None:
        self.state = "data"
        self._shots_begin(event.shots)

    def _data_staged(self, event: DataStaged) -> None:
        self.state = "inverting"
        self._shots_begin(event.shots)

    def _shot_counted(self, event: ShotStaged | ShotDone) -> None:
        if event.shot not in self._seen:
            self._seen.add(event.shot)
            self.shots_done = min(self.shots_total, self.shots_done + 1)

    def _shot_done(self, event: ShotDone) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None:
            worker.shots += 1
            worker.seconds += event.seconds
        host = one_line(event.host)
        self.shots_on[host if host in self.shots_on or len(self.shots_on) < MAX_HOSTS else "other hosts"] += 1
        if event.evaluation == self.evaluation + 1:  # not of an earlier one, by a worker that was given up
            self._shot_counted(event)

    def _evaluation_started(self, event: EvaluationStarted) -> None:
        self.evaluation = event.evaluation - 1
        self._shots_begin(event.shots)

    def _sums_found(self, event: SumsFound) -> None:
        self.shots_done = event.shots

    def _evaluation_done(self, event: EvaluationDone) -> None:
        self.evaluation, self.shots_done = event.evaluation, self.shots_total
        if self.evaluation == 1:
            self.initial_misfit = event.misfit
            self.misfit = event.misfit if self.misfit is None else self.misfit

    def _iteration_done(self, event: IterationDone) -> None:
        self.iteration, self.misfit, self.model_error = event.iteration, event.misfit, event.model_error
        if self.iteration:
            self.step_seconds = [*self.step_seconds, event.step_seconds][-STEPS_AVERAGED:]

    def _optimised(self, event: Optimised) -> None:
        self.state, self.iteration = "finishing", event.iterations

    def _run_done(self, event: RunDone) -> None:
        self.state, self.reason = "done", event.message

    def _run_failed(self, event: RunFailed) -> None:
        self.state, self.reason = "failed", event.message

    def _run_interrupted(self, event: RunInterrupted) -> None:
        self.state, self.reason = "stopped", event.reason

    def _requeued(self, event: Requeued) -> None:
        self.reason = event.message

    def _closed(self, _: RunClosed) -> None:
        self._all_workers_left()
        if self.state not in ENDED:  # of hpcfwi model
            self.state, self.reason = "stopped", "only the observed data were requested"

    def _failure(self, event: Event) -> None:
        _count(self.failures, failure_line(event) or "")

    def _shot_excluded(self, event: ShotExcluded) -> None:
        """The inversion begins anew without the shot."""
        self._failure(event)
        self.iteration, self.evaluation, self.misfit, self.model_error = None, 0, None, None
        self.initial_misfit = None
        self.step_seconds = []


def failure_line(event: Event) -> str | None:
    """A line about something that went wrong; None for events that are no failures."""
    text = _FAILURES.get(type(event))
    return None if text is None else text.format_map({**vars(event), "why": _bracketed(vars(event).get("reason"))})


def _count(counter: Counter[str], text: str) -> None:
    line = one_line(text)
    if line not in counter and len(counter) >= MAX_KINDS_OF_FAILURES:
        line = "others"
    counter[line] = counter.pop(line, 0) + 1  # the latest comes last


def _bracketed(text: Any) -> str:
    return f" ({text})" if text else ""


@cache
def _adapter() -> TypeAdapter[RunState]:
    return TypeAdapter(RunState)


_FAILURES: dict[type[Event], str] = {
    ShotRetried: "shot {shot} was started again on another worker: {reason}",
    WorkerDied: "a worker on {host} died: {reason}",
    WorkerUnresponsive: "a worker on {host} sent no heartbeats",
    WorkerRestarted: "a worker on {host} hung and was restarted",
    HostExcluded: "host {host} gets no more shots, since several failed there",
    JobLost: "worker job {job} {reason}",
    JobRejected: "the batch system rejected a worker job: {message}",
    NodeLost: "the workers of node {node} ended (exit code {exit_code})",
    WorkerStartFailed: "a worker died while it started{why}",
    ShotExcluded: "shot {shot} is left out: {reason}",
}
_HANDLERS: dict[type[Event], Callable[[RunState, Any], None]] = {
    LogSegment: RunState._segment_begins,
    Summary: RunState._restore,
    RunStarted: RunState._run_started,
    Dashboard: RunState._dashboard_open,
    RunWarning: RunState._warned,
    JobStateChanged: RunState._job_changed,
    WorkerJoined: RunState._worker_joined,
    WorkerLeft: RunState._worker_left,
    StagingData: RunState._staging_data,
    ShotStaged: RunState._shot_counted,
    DataStaged: RunState._data_staged,
    EvaluationStarted: RunState._evaluation_started,
    SumsFound: RunState._sums_found,
    ShotDone: RunState._shot_done,
    EvaluationDone: RunState._evaluation_done,
    IterationDone: RunState._iteration_done,
    Optimised: RunState._optimised,
    RunInterrupted: RunState._run_interrupted,
    RunFailed: RunState._run_failed,
    RunDone: RunState._run_done,
    Requeued: RunState._requeued,
    RunClosed: RunState._closed,
    **dict.fromkeys(_FAILURES, RunState._failure),
    ShotExcluded: RunState._shot_excluded,
}
