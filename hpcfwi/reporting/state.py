"""How a run stands, as its events tell: what the display, ``hpcfwi status`` and the report show."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["RunState", "WorkerState"]

# Kinds of failures that are kept, and workers that are gone; steps that the time left is estimated from.
MOST, MOST_GONE, STEPS = 50, 200, 5


@dataclass
class WorkerState:
    """A worker process.

    Parameters
    ----------
    host, name
        Where it is, and Dask's name for it.
    began
        When it, or its job, began to be paid for, s since 1970.
    cores
        Cores that it has.
    shots
        Shots that it has done.
    seconds
        Time that it took for them.
    until
        When it was gone; None while it is there.
    """

    host: str
    name: str
    began: float
    cores: int
    shots: int = 0
    seconds: float = 0.0
    until: float | None = None

    def core_seconds(self, now: float) -> float:
        """Cores times the time for which they were held."""
        return self.cores * max(0.0, (now if self.until is None else self.until) - self.began)


@dataclass
class RunState:
    """Folds events, one after the other, into how the run stands.

    Attributes
    ----------
    state
        ``"new"``, ``"starting"``, ``"waiting"`` (for workers), ``"data"``, ``"inverting"``, ``"finishing"``, ``"done"``,
        ``"stopped"`` (can be continued) or ``"failed"``. Events cannot tell of a driver that was killed.
    reason
        Why it has stopped or failed.
    workers
        Those that are there, by their addresses.
    failures
        How often each thing went wrong, in a line each.
    evaluation
        Evaluations that are done.
    misfit, model_error
        Of the last iteration.
    shots_done, shots_total
        Of the evaluation, or of the data, that is under way.
    step_seconds
        Of the last iterations.
    """

    state: str = "new"
    reason: str = ""
    start: dict[str, Any] = field(default_factory=dict)
    starts: int = 0
    dashboard: dict[str, Any] = field(default_factory=dict)
    iteration: int | None = None
    iterations: int = 0
    evaluation: int = 0
    misfit: float | None = None
    initial_misfit: float | None = None
    model_error: float | None = None
    shots_done: int = 0
    shots_total: int = 0
    jobs: dict[str, str] = field(default_factory=dict)
    workers: dict[str, WorkerState] = field(default_factory=dict)
    gone: int = 0
    gone_core_seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    step_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=STEPS))
    last: float = 0.0

    def __post_init__(self) -> None:
        self._seen: set[str] = set()

    def heed(self, event: dict[str, Any]) -> None:
        """Take the next event; one that is not as it should be changes nothing."""
        take = _TAKE.get(str(event.get("event")))
        when = event.get("time")
        if isinstance(when, (int, float)) and math.isfinite(when):
            self.last = float(when)
        if take is None:
            return
        try:
            take(self, event)
        except (KeyError, TypeError, ValueError, AttributeError):
            return  # somebody has been at the file

    def core_hours(self, now: float) -> float:
        """Cores of all workers so far times the hours for which they were held."""
        present = sum(worker.core_seconds(now) for worker in self.workers.values())
        return (self.gone_core_seconds + present) / 3600

    @property
    def time_left(self) -> float | None:
        """Seconds until the limit of iterations, at most, at the pace of the last ones; None where that is not known."""
        if self.state != "inverting" or self.iteration is None or not self.step_seconds:
            return None
        return sum(self.step_seconds) / len(self.step_seconds) * max(0, self.iterations - self.iteration)

    def summary(self) -> dict[str, Any]:
        """All of it as JSON, for the event ``so far``."""
        told = asdict(self)
        told["step_seconds"] = list(self.step_seconds)
        for name in ("failures", "warnings"):
            told[name] = dict(getattr(self, name).most_common(MOST))
        return told

    def _so_far(self, event: dict[str, Any]) -> None:
        told = dict(event["summary"])
        told["workers"] = {address: WorkerState(**facts) for address, facts in told["workers"].items()}
        told["failures"], told["warnings"] = Counter(told["failures"]), Counter(told["warnings"])
        told["step_seconds"] = deque(told["step_seconds"], maxlen=STEPS)
        self.__dict__.update(RunState(**told).__dict__)

    def _started(self, event: dict[str, Any]) -> None:
        self._all_gone(self.last)
        self.start, self.starts = event, self.starts + 1
        self.state, self.reason, self.dashboard = "starting", "", {}
        self.iterations, self.shots_total = int(event.get("iterations", 0)), int(event.get("shots", 0))
        self.shots_done, self.jobs = 0, {}

    def _lost(self, event: dict[str, Any]) -> None:
        """Without the shot another inversion begins."""
        self._failed(event)
        self.iteration, self.evaluation, self.misfit, self.model_error = None, 0, None, None
        self.initial_misfit = None
        self.step_seconds.clear()

    def _job(self, event: dict[str, Any]) -> None:
        if event["state"] == "ended":
            self.jobs.pop(str(event["job"]), None)
        else:
            self.jobs[str(event["job"])] = f"{event['state']}{_bracketed(event.get('reason'))}"
        if self.state == "starting":
            self.state = "waiting"

    def _came(self, event: dict[str, Any]) -> None:
        now = float(event["time"])
        began = min(now, float(event.get("job_began") or event.get("began") or now))
        cores = int(event.get("cores") or 1)
        self.workers[event["worker"]] = WorkerState(str(event["host"]), str(event["name"]), began, cores)

    def _left(self, event: dict[str, Any]) -> None:
        self._gone(event["worker"], float(event["time"]))

    def _gone(self, address: str, when: float) -> None:
        worker = self.workers.pop(address, None)
        if worker is not None:
            self.gone += 1
            self.gone_core_seconds += worker.core_seconds(when)

    def _all_gone(self, when: float) -> None:
        for address in list(self.workers):
            self._gone(address, when)

    def _observing(self, event: dict[str, Any]) -> None:
        self.state = "data"
        self._shots_begin(int(event["shots"]))

    def _shots_begin(self, total: int) -> None:
        self.shots_done, self.shots_total = 0, total
        self._seen.clear()

    def _shot_done(self, event: dict[str, Any]) -> None:
        if event["event"] == "shot":
            worker = self.workers.get(event["worker"])
            if worker is not None:
                worker.shots += 1
                worker.seconds += float(event["seconds"])
            if event["evaluation"] != self.evaluation + 1:
                return  # one that was started twice
        if event["shot"] not in self._seen:
            self._seen.add(event["shot"])
            self.shots_done = min(self.shots_total, self.shots_done + 1)

    def _observed(self, event: dict[str, Any]) -> None:
        self.state = "inverting"
        self._shots_begin(int(event["shots"]))

    def _evaluating(self, event: dict[str, Any]) -> None:
        self.evaluation = int(event["evaluation"]) - 1
        self._shots_begin(int(event["shots"]))

    def _found(self, event: dict[str, Any]) -> None:
        self.shots_done = int(event["shots"])

    def _evaluated(self, event: dict[str, Any]) -> None:
        self.evaluation, self.shots_done = int(event["evaluation"]), self.shots_total
        if self.evaluation == 1:
            self.initial_misfit = float(event["misfit"])
            self.misfit = self.initial_misfit if self.misfit is None else self.misfit

    def _iterated(self, event: dict[str, Any]) -> None:
        self.iteration, self.misfit = int(event["iteration"]), float(event["misfit"])
        error = event.get("model_error")
        self.model_error = None if error is None else float(error)
        if self.iteration:
            self.step_seconds.append(float(event["step_seconds"]))

    def _optimised(self, event: dict[str, Any]) -> None:
        self.state, self.iteration = "finishing", int(event["iterations"])

    def _ended(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        self.state = {"done": "done", "stopped": "failed"}.get(kind, "stopped")
        self.reason = str(event.get("message") or event.get("reason") or "")

    def _closed(self, event: dict[str, Any]) -> None:
        self._all_gone(float(event["time"]))

    def _failed(self, event: dict[str, Any]) -> None:
        what = _FAILURES[event["event"]].format_map({**event, "in": _bracketed(event.get("reason"))})
        if what in self.failures or len(self.failures) < MOST:
            self.failures[what] += 1
        else:
            self.failures["other failures"] += 1

    def _warned(self, event: dict[str, Any]) -> None:
        what = str(event["message"]).partition("\n")[0]
        if what in self.warnings or len(self.warnings) < MOST:
            self.warnings[what] += 1


def _bracketed(text: Any) -> str:
    return f" ({text})" if text else ""


_FAILURES = {
    "retry": "shot {shot} was started again on another worker: {reason}",
    "worker died": "a worker on {host} died: {reason}",
    "worker silent": "a worker on {host} was not heard of",
    "worker put out": "a worker on {host} hung, and was ended",
    "host excluded": "host {host} gets no more shots, since several failed there",
    "job lost": "worker job {job} {reason}",
    "job refused": "the batch system refused a worker job: {message}",
    "node lost": "the workers of node {node} ended (exit code {code})",
    "start failed": "a worker died while it started{in}",
    "shot lost": "shot {shot} is left out: {reason}",
}
_TAKE: dict[str, Callable[[RunState, dict[str, Any]], None]] = {
    "so far": RunState._so_far,
    "start": RunState._started,
    "dashboard": lambda self, event: self.dashboard.update(event),
    "warning": RunState._warned,
    "job": RunState._job,
    "worker came": RunState._came,
    "worker left": RunState._left,
    "observing": RunState._observing,
    "staged": RunState._shot_done,
    "observed": RunState._observed,
    "evaluating": RunState._evaluating,
    "found": RunState._found,
    "shot": RunState._shot_done,
    "evaluation": RunState._evaluated,
    "iteration": RunState._iterated,
    "optimised": RunState._optimised,
    "interrupted": RunState._ended,
    "stopped": RunState._ended,
    "done": RunState._ended,
    "closed": RunState._closed,
    **dict.fromkeys(_FAILURES, RunState._failed),
    "shot lost": RunState._lost,
}
