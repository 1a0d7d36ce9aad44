"""How a run stands, as its events tell: what the display, ``hpcfwi status`` and the report show."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hpcfwi.io import shortened

__all__ = ["RunState", "WorkerState"]

# Kinds of failures that are kept, and hosts; steps that the time left is estimated from; letters of a line that is kept.
MOST, MOST_HOSTS, STEPS, LONGEST = 50, 5000, 5, 300
# States after which a driver does no more.
ENDED = ("done", "stopped", "failed")


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
    since
        When it came into its state, s since 1970.
    workers
        Those that are there, by their addresses.
    shots_on
        Shots of evaluations that were done on each host, in all starts.
    failures
        How often each thing went wrong, in a line each; what has happened last is the last one.
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
    since: float | None = None
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
    shots_on: Counter[str] = field(default_factory=Counter)
    gone: int = 0
    gone_core_seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    step_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=STEPS))
    last: float = 0.0

    def __post_init__(self) -> None:
        self._seen: set[str] = set()

    def heed(self, event: dict[str, Any]) -> None:
        """Take the next event; one that is not as it should be changes nothing, or little."""
        take = _TAKE.get(str(event.get("event")))
        before = self.state
        # somebody may have been at the file
        with suppress(KeyError, TypeError, ValueError, AttributeError, OverflowError):
            self.last = _finite(event.get("time"))
            if take is not None:
                take(self, event)
        if self.state != before and take is not RunState._so_far:
            self.since = self.last

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
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        told["workers"] = {address: asdict(worker) for address, worker in self.workers.items()}
        return {name: _PLAIN.get(type(value), lambda same: same)(value) for name, value in told.items()}

    def _so_far(self, event: dict[str, Any]) -> None:
        told = event["summary"]
        known = {one.name: _RESTORE[one.type](told[one.name]) for one in fields(self) if one.name in told}
        self.__dict__.update(RunState(**known).__dict__)

    def _started(self, event: dict[str, Any]) -> None:
        self._all_gone(self.last)
        self.start, self.starts = dict(event), self.starts + 1
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
            self.jobs.pop(_line(event["job"]), None)
        else:
            self.jobs[_line(event["job"])] = _line(f"{event['state']}{_bracketed(event.get('reason'))}")
        if self.state == "starting":
            self.state = "waiting"

    def _came(self, event: dict[str, Any]) -> None:
        now = _finite(event["time"])
        began = min(now, _finite(event.get("job_began") or event.get("began") or now))
        cores = int(event.get("cores") or 1)
        self.workers[str(event["worker"])] = WorkerState(_line(event["host"]), _line(event["name"]), began, cores)

    def _left(self, event: dict[str, Any]) -> None:
        self._gone(str(event["worker"]), _finite(event["time"]))

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
            worker = self.workers.get(str(event["worker"]))
            if worker is not None:
                worker.shots += 1
                worker.seconds += _finite(event["seconds"])
            host = _line(event["host"])
            self.shots_on[host if host in self.shots_on or len(self.shots_on) < MOST_HOSTS else "other hosts"] += 1
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
            self.initial_misfit = _finite(event["misfit"])
            self.misfit = self.initial_misfit if self.misfit is None else self.misfit

    def _iterated(self, event: dict[str, Any]) -> None:
        self.iteration, self.misfit = int(event["iteration"]), _finite(event["misfit"])
        error = event.get("model_error")
        self.model_error = None if error is None else _finite(error)
        if self.iteration:
            self.step_seconds.append(_finite(event["step_seconds"]))

    def _optimised(self, event: dict[str, Any]) -> None:
        self.state, self.iteration = "finishing", int(event["iterations"])

    def _ended(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        self.state = {"done": "done", "stopped": "failed"}.get(kind, "stopped")
        self.reason = str(event.get("message") or event.get("reason") or "")

    def _requeued(self, event: dict[str, Any]) -> None:
        self.reason = str(event["message"])

    def _closed(self, event: dict[str, Any]) -> None:
        self._all_gone(_finite(event["time"]))
        if self.state not in ENDED:  # of hpcfwi model
            self.state, self.reason = "stopped", "no more than the observed data was asked for"

    def _failed(self, event: dict[str, Any]) -> None:
        what = _line(_FAILURES[event["event"]].format_map({**event, "in": _bracketed(event.get("reason"))}))
        if what not in self.failures and len(self.failures) >= MOST:
            what = "other failures"
        # the last one is what has happened last
        self.failures[what] = self.failures.pop(what, 0) + 1

    def _warned(self, event: dict[str, Any]) -> None:
        what = _line(event["message"])
        if what in self.warnings or len(self.warnings) < MOST:
            self.warnings[what] += 1


def _line(text: Any) -> str:
    """The first line of a text, as far as anybody would read it."""
    told = str(text)
    if len(told) <= LONGEST and told.isprintable():  # nearly always
        return told
    return shortened(told.partition("\n")[0], LONGEST)


def _finite(number: Any) -> float:
    found = float(number)
    if not math.isfinite(found):
        raise ValueError(f"{number} is no number to go on with")
    return found


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
    "requeue": RunState._requeued,
    "closed": RunState._closed,
    **dict.fromkeys(_FAILURES, RunState._failed),
    "shot lost": RunState._lost,
}
# How JSON writes it.
_PLAIN: dict[type, Callable[[Any], Any]] = {Counter: dict, deque: list, dict: dict}
# What a summary has of a field, by its type.
_RESTORE: dict[Any, Callable[[Any], Any]] = {
    "str": str,
    "int": int,
    "float": _finite,
    "int | None": lambda told: None if told is None else int(told),
    "float | None": lambda told: None if told is None else _finite(told),
    "dict[str, Any]": dict,
    "dict[str, str]": lambda told: {_line(key): _line(value) for key, value in told.items()},
    "dict[str, WorkerState]": lambda told: {address: _worker(**facts) for address, facts in told.items()},
    "Counter[str]": lambda told: Counter({_line(key): int(value) for key, value in told.items()}),
    "deque[float]": lambda told: deque(map(_finite, told), maxlen=STEPS),
}


def _worker(
    host: str, name: str, began: float, cores: int, shots: int, seconds: float, until: float | None = None
) -> WorkerState:
    gone = None if until is None else _finite(until)
    return WorkerState(_line(host), _line(name), _finite(began), int(cores), int(shots), _finite(seconds), gone)
