"""The events of a run: one class for each kind, with the unit and meaning of every field.

A line of ``events.jsonl`` is one event. Writers construct a class, readers get the same class back::

    log.write(ShotRetried(shot="12", worker="tcp://10.0.0.7:4000", reason="its worker died"))
    for event in read_events(path):
        match event:
            case ShotDone(shot=name, seconds=seconds):
                print(name, seconds)

:func:`parse_event` is the only place where a line is validated: a line that is malformed, or of a kind that this version does
not know, is no event, and fields that it does not know are ignored. Code that has an event relies on its types and limits.
``python -m hpcfwi.events.types`` prints the reference table, with ``json`` the JSON Schema of a line.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import MISSING, dataclass, field, fields
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Literal, dataclass_transform

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

__all__ = ["EVENTS", "SCHEMA", "Event", "event_schema", "event_table", "parse_event"]

# Version in the first line of each file. It changes when a field changes its meaning or goes, not when one is added.
SCHEMA = 2
# Decimals of seconds, and of the time, in the file.
SECONDS_DECIMALS, TIME_DECIMALS = 6, 3


def about(meaning: str, **limits: Any) -> Any:
    """The meaning of a field, for the reference, and its limits."""
    return Field(description=meaning, **limits)


Count = Annotated[int, Field(ge=0, le=2**53)]
Duration = Annotated[float, Field(ge=0)]
Time = Annotated[float, about("when it happened, s since 1970, by the clock of the host that logs it", ge=0, lt=1e10)]
Host = Annotated[str, about("short name of a host, as `hostname -s` prints it")]
Worker = Annotated[str, about("Dask's address of a worker; in events about jobs, the name of the job's worker")]
Name = Annotated[str, about("Dask's name of a worker")]
Pid = Annotated[Count, about("number of a process")]
Job = Annotated[str, about("number of a batch job; of a start, the job that the driver runs in")]
Nodes = Annotated[str, about("nodes of a job")]
Node = Annotated[str, about("a node of the allocation")]
ExitCode = Annotated[int, about("exit code of a command")]
Reason = Annotated[str, about("why, in words")]
Message = Annotated[str, about("a message to the user")]
LogTail = Annotated[str, about("the last lines of a log")]
Traceback = Annotated[str, about("Python's traceback")]
Command = Annotated[str, about("a shell command; of the dashboard, one that makes it reachable from another machine")]
ProcessStart = Annotated[float, about("when the process began, s since 1970", ge=0, lt=1e10)]
Threads = Annotated[Count, about("OpenMP threads of a worker process")]
Cores = Annotated[Count, about("cores of a worker process")]
Shot = Annotated[str, about("name of a shot")]
Shots = Annotated[Count, about("number of shots")]
FailedShots = Annotated[list[str], about("names of the shots that failed on the host")]
Evaluation = Annotated[Count, about("number of an evaluation of misfit and gradient; 1 is the initial model")]
Evaluations = Annotated[Count, about("evaluations so far, replayed ones included")]
Iterations = Annotated[Count, about("number of iterations; of a start, the limit")]
Misfit = Annotated[float, about("misfit of a shot, or summed over all shots")]
ModelError = Annotated[float, about("norm(vp - vp_true) / norm(vp_true), where a true model is known")]
Replayed = Annotated[bool, about("whether the answer was in the journal")]
CoreHours = Annotated[float, about("cores of the workers times the hours for which they were held, in all starts")]
Seconds = Annotated[Duration, about("duration, s")]
SolverSeconds = Annotated[Duration, about("part of `seconds`: loading or building the solver, s")]
ModelSeconds = Annotated[Duration, about("part of `seconds`: loading the model, or staging it, s")]


@dataclass_transform(kw_only_default=True, frozen_default=True)
@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened. The name of a kind is that of its class in lower-case words, unless ``name`` is given."""

    __pydantic_config__: ClassVar = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")
    event: ClassVar[str] = ""
    _defaults: ClassVar[dict[str, Any]] = {}
    time: Time = field(default_factory=time.time)

    def __init_subclass__(cls, name: str = "") -> None:
        name = name or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cls.__name__).lower()
        cls.event = name
        cls.__annotations__ = {"event": Literal[name], **cls.__annotations__}
        dataclass(frozen=True, kw_only=True)(cls)
        cls._defaults = {one.name: one.default for one in fields(cls) if one.name not in ("time", "event")}

    def facts(self) -> dict[str, Any]:
        """Time, event, and the fields that differ from their defaults, as JSON types."""
        facts: dict[str, Any] = {"time": round(self.time, TIME_DECIMALS), "event": self.event}
        for name, default in self._defaults.items():
            value = getattr(self, name)
            if value != default:
                short = isinstance(value, float) and name.endswith("seconds")
                facts[name] = round(value, SECONDS_DECIMALS) if short else value
        return facts

    def line(self) -> bytes:
        """The line of ``events.jsonl``."""
        # file names may hold bytes that are no text
        return json.dumps(self.facts(), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


class _OnWorker(Event):
    worker: Worker
    host: Host
    pid: Pid


class LogSegment(Event):
    """The first line of each file of the log, and of each start."""

    schema: Annotated[int, about("version of the event format")]
    segment: Annotated[int, about("number of this file of the log; 1 is the oldest", ge=1, le=9_999)]


class Summary(Event):
    """What the older files of the log amount to, for readers of the last one alone."""

    summary: Annotated[dict[str, Any], about("the state of the run, as `RunState.summary` gives it")]


class RunStarted(Event, name="start"):
    """A driver begins a run, or continues it."""

    version: Annotated[str, about("version of hpcfwi")]
    problem: Annotated[str, about("digest of everything that the answers depend on")]
    layout: Annotated[str, about("how a node is divided among worker processes, in words")]
    launch: Annotated[str, about("how workers are started: `local`, `jobs` or `allocation`")]
    site: Annotated[str, about("name of the site")]
    host: Host
    pid: Pid
    process_start: ProcessStart
    workers_planned: Annotated[Count, about("worker processes that the run wants")]
    shots: Shots
    iterations: Iterations
    versions: Annotated[dict[str, str] | None, about("versions of Python and of the libraries")] = None
    job: Job | None = None
    nodes_planned: Annotated[Count | None, about("nodes, or worker jobs, that the run wants")] = None
    threads: Threads | None = None
    cores: Cores | None = None
    stand_in: Annotated[str | None, about("what replaces the kernels in a scaling study")] = None


class Dashboard(Event):
    """Dask's dashboard is open."""

    address: Annotated[str, about("address of the dashboard for a browser")]
    command: Command | None = None


class RunWarning(Event, name="warning"):
    """Something may not be as the user wishes."""

    message: Message
    traceback: Traceback | None = None
    host: Host | None = None
    worker: Worker | None = None
    pid: Pid | None = None


class RunInterrupted(Event, name="interrupted"):
    """The run stops early and can be continued."""

    reason: Reason


class RunFailed(Event, name="failed"):
    """The run has failed."""

    error: Annotated[str, about("class of the error")]
    message: Message
    traceback: Traceback | None = None


class Requeued(Event, name="requeue"):
    """The batch job goes back into the queue, or cannot."""

    starts: Annotated[Count, about("starts of the batch job so far")]
    fruitless_starts: Annotated[Count, about("starts that finished nothing")]
    message: Message


class Optimised(Event):
    """The optimiser has ended."""

    seconds: Seconds
    iterations: Iterations
    evaluations: Evaluations
    message: Message
    optimiser_seconds: Annotated[Duration, about("part of `seconds`: the optimiser itself, s")] = 0.0
    writing_seconds: Annotated[Duration, about("part of `seconds`: writing iterations and their models, s")] = 0.0


class Figures(Event):
    """The figures are drawn."""

    seconds: Seconds


class Report(Event):
    """The report is written."""

    seconds: Seconds
    file: Annotated[str, about("path in the run folder")]


class RunDone(Event, name="done"):
    """The run is done."""

    seconds: Seconds
    iterations: Iterations
    evaluations: Evaluations
    misfit: Misfit
    initial_misfit: Annotated[float, about("misfit of the initial model")]
    message: Message
    left_out: Annotated[str, about("shots that are not in the sums, in words; else empty")]
    irreproducible: Annotated[str, about("why the last bits may differ from run to run, in words; else empty")]
    model_error: ModelError | None = None
    core_hours: CoreHours = 0.0


class RunClosed(Event, name="closed"):
    """All workers have ended; the driver's last event."""

    seconds: Seconds
    core_hours: CoreHours


class JobStateChanged(Event, name="job"):
    """A worker job is submitted, or its state has changed."""

    job: Job
    worker: Worker
    state: Annotated[str, about("`submitted`, `pending`, `running` or `ended`")]
    native_state: Annotated[str | None, about("the batch system's own word for the state")] = None
    reason: Reason | None = None
    nodes: Nodes | None = None


class JobRejected(Event):
    """The batch system rejected a worker job."""

    worker: Worker
    command: Command
    exit_code: ExitCode
    message: Message


class JobDraining(Event):
    """A worker job gets no more shots, and another job replaces it."""

    job: Job
    nodes: Nodes
    excluded: Annotated[bool, about("whether the job is on a node that gets no more shots")]
    seconds_left: Annotated[float | None, about("seconds until the job's time limit")] = None


class JobDrained(Event):
    """The last shots of a draining job are done."""

    job: Job


class JobLost(Event):
    """A worker job has ended before its time."""

    job: Job
    reason: Reason
    had_worker: Annotated[bool, about("whether a worker of the job has connected")]
    log: LogTail


class JobsLeftOver(Event):
    """Jobs of an earlier driver are still in the queue."""

    jobs: Annotated[list[str], about("numbers of batch jobs")]


class NodeLost(Event):
    """The workers of a node of the allocation have ended."""

    node: Node
    exit_code: ExitCode
    restarted: Annotated[bool, about("whether the workers are started again")]
    log: LogTail


class WorkerStartFailed(Event):
    """A local worker died while it started."""

    reason: Reason


class FirstWorkers(Event):
    """The first workers are connected."""

    count: Annotated[Count, about("number of workers")]
    scheduler: Annotated[str, about("Dask's address of the scheduler")]


class WorkerJoined(Event):
    """A worker is connected."""

    worker: Worker
    host: Host
    name: Name
    pid: Pid | None = None
    threads: Threads | None = None
    cores: Cores | None = None
    process_start: ProcessStart | None = None
    job_start: Annotated[float | None, about("when the script of its job began, s since 1970", ge=0, lt=1e10)] = None


class WorkerLeft(Event):
    """A worker is gone."""

    worker: Worker
    host: Host
    name: Name


class WorkerDied(_OnWorker):
    """A worker process has ended by itself."""

    reason: Reason


class WorkerUnresponsive(Event):
    """A worker has sent no heartbeat for a while."""

    worker: Worker
    host: Host
    seconds: Seconds


class WorkerRestarted(Event):
    """A worker that hangs is ended and started anew."""

    worker: Worker
    host: Host


class HostExcluded(Event):
    """A host gets no more shots, since several have failed on it."""

    host: Host
    failed_shots: FailedShots


class HostReadmitted(Event):
    """An excluded host gets shots again, since no other host is left."""

    host: Host
    failed_shots: FailedShots


class Solver(Event):
    """The driver or a worker process has its solver."""

    seconds: Seconds
    source: Annotated[str, about("`driver`, or where a worker has its solver from")]
    built: Annotated[bool | None, about("whether the solver was built and compiled, not found")] = None
    digest: Annotated[str | None, about("digest of a staged file")] = None
    differences: Annotated[list[str] | None, about("how the machine differs from that of the staged solver")] = None
    host: Host | None = None
    worker: Worker | None = None
    pid: Pid | None = None
    machine: Annotated[dict[str, str] | None, about("what distinguishes kinds of machines")] = None


class ThreadPlacement(_OnWorker, name="threads"):
    """Where the kernels of a worker really run."""

    threads: Threads
    cpus: Annotated[str, about("CPUs that the threads ran on")]
    shot: Shot


class StagingData(Event):
    """Observed data are being modelled or read."""

    shots: Shots


class ShotStaged(_OnWorker):
    """The observed data of a shot are staged."""

    shot: Shot
    seconds: Seconds
    staged_before: Annotated[bool | None, about("whether an earlier start has staged them")] = None
    solver_seconds: SolverSeconds = 0.0


class DataStaged(Event):
    """The observed data of all shots are staged."""

    shots: Shots
    seconds: Seconds


class EvaluationStarted(Event):
    """The shots of an evaluation begin."""

    evaluation: Evaluation
    shots: Shots


class SumsFound(Event):
    """An evaluation continues with sums that an earlier start has left."""

    shots: Shots
    shots_total: Annotated[Count, about("shots of the survey")]


class ShotDone(_OnWorker, name="shot"):
    """A shot of an evaluation is done."""

    shot: Shot
    evaluation: Evaluation
    misfit: Misfit
    seconds: Seconds
    kernel_seconds: Annotated[Duration, about("part of `seconds`: Devito's kernels, s")]
    peak_memory: Annotated[Count, about("largest memory of the process so far, bytes")]
    solver_seconds: SolverSeconds = 0.0
    model_seconds: ModelSeconds = 0.0
    data_seconds: Annotated[Duration, about("part of `seconds`: reading and resampling observed data, s")] = 0.0


class TaskFailed(_OnWorker):
    """A task has failed."""

    task: Annotated[str, about("name of the function that failed")]
    traceback: Traceback


class TaskOverdue(Event):
    """A task takes far longer than others of its kind."""

    key: Annotated[str, about("Dask's key of a task")]
    worker: Worker
    seconds: Seconds
    limit_seconds: Annotated[Duration, about("seconds that the task may take")]


class ShotRetried(Event, name="retry"):
    """A shot is started again on another worker."""

    shot: Shot
    worker: Worker
    reason: Reason


class ShotExcluded(Event):
    """A shot that fails everywhere is left out, and the inversion begins anew without it."""

    shot: Shot
    reason: Reason


class EvaluationDone(Event, name="evaluation"):
    """An evaluation is done."""

    evaluation: Evaluation
    number: Annotated[Count, about("the same as `evaluation`")]
    misfit: Misfit
    seconds: Seconds
    replayed: Replayed
    drift: Annotated[float, about("relative difference between the model and the journal's, where replayed")]
    model_seconds: ModelSeconds = 0.0
    shots_seconds: Annotated[Duration, about("part of `seconds`: until the last shot was done, s")] = 0.0
    sum_seconds: Annotated[Duration, about("part of `seconds`: from the last shot to the sum of all, s")] = 0.0
    journal_seconds: Annotated[Duration, about("part of `seconds`: reading or writing the journal, s")] = 0.0
    cpu_seconds: Annotated[Duration, about("CPU time of the driver, with Dask's scheduler, for shots and sum, s")] = 0.0
    shots_per_task: Annotated[Count, about("shots that a task computes", ge=1)] = 1


class IterationDone(Event, name="iteration"):
    """An iteration is done."""

    iteration: Annotated[Count, about("number of an iteration; 0 is the initial model")]
    evaluations: Evaluations
    misfit: Misfit
    gradient_norm: Annotated[float, about("two-norm of the gradient")]
    step_seconds: Annotated[Duration, about("wall time of the iteration, s")]
    elapsed_seconds: Annotated[Duration, about("wall time of all iterations so far, s")]
    model_error: ModelError | None = None
    m_error: Annotated[float | None, about("norm of the element-wise relative error of the squared slowness")] = None
    replayed: Replayed = False


EVENTS: dict[str, type[Event]] = {
    kind.event: kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Event) and kind not in (Event, _OnWorker)
}


@cache
def _adapter() -> TypeAdapter[Event]:
    kinds = reduce(or_, EVENTS.values())
    return TypeAdapter(Annotated[kinds, Field(discriminator="event")])  # type: ignore[arg-type]


def parse_event(line: bytes | str) -> Event | None:
    """The event in a line of the log; None where the line is malformed or of an unknown kind."""
    try:
        return _adapter().validate_json(line)
    except ValidationError:
        return None


def event_schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) of one line of the event log; strict: it knows every event and every field."""
    kinds = []
    for name, kind in EVENTS.items():
        schema = TypeAdapter(kind).json_schema()
        required = [fact.name for fact in fields(kind) if fact.default is MISSING or fact.name == "event"]
        properties = {
            # a field without a value is not written
            fact: _without_null({key: value for key, value in told.items() if key not in ("default", "title")})
            for fact, told in schema["properties"].items()
        }
        kinds.append(
            {
                "title": name,
                "description": kind.__doc__,
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": False,
            }
        )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"an event of hpcfwi, schema {SCHEMA}",
        "oneOf": kinds,
    }


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    (kind,) = [kind for kind in schema.pop("anyOf", [{}]) if kind != {"type": "null"}]
    return kind | schema


def event_table() -> str:
    """Every event and every field, as two Markdown tables."""
    lines = ["| Event | Meaning | Fields (those in brackets not always) |", "|---|---|---|"]
    meanings: dict[str, tuple[str, str]] = {}
    for kind in event_schema()["oneOf"]:
        names = []
        for name, told in kind["properties"].items():
            meanings[name] = (told.get("type", "text"), told.get("description", "kind of the event"))
            if name not in ("time", "event"):
                names.append(f"`{name}`" if name in kind["required"] else f"[`{name}`]")
        lines.append(f"| `{kind['title']}` | {kind['description']} | {', '.join(names)} |")
    lines += ["", "| Field | Type | Meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {meaning} |" for name, (kind, meaning) in meanings.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(json.dumps(event_schema(), indent=1) if sys.argv[1:] == ["json"] else event_table(), end="")
