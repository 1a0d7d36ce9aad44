"""The base class of events, the fields that kinds of events share, and the validation of log lines.

The type of a field states its unit, meaning and limits; the field means the same in every event. Malformed lines, unknown kinds
of events and unknown fields are ignored. Code that receives an event can rely on its types and limits.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache, reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, dataclass_transform

if TYPE_CHECKING:  # workers create events but read none, and do not need pydantic
    from pydantic import TypeAdapter

# Version in the first line of each file. It changes if a field is removed or changes its meaning, not if one is added.
SCHEMA = 2
# Decimals of durations, and of the time, in the file.
SECONDS_DECIMALS, TIME_DECIMALS = 6, 3
# Every kind of event by its name; :mod:`hpcfwi.events.types` defines them.
EVENTS: dict[str, type[Event]] = {}


class about:
    """The meaning of a field, for the reference, and its limits in pydantic's terms, without importing pydantic."""

    def __init__(self, meaning: str = "", **limits: float) -> None:
        self.meaning, self.limits = meaning, limits

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        described = {"metadata": {"pydantic_js_updates": {"description": self.meaning}}} if self.meaning else {}
        return handler(source) | self.limits | described


Count = Annotated[int, about(ge=0, le=2**53)]
Duration = Annotated[float, about(ge=0)]
Time = Annotated[float, about("when it happened, s since 1970, by the clock of the host that logs it", ge=0, lt=1e10)]
Host = Annotated[str, about("short name of a host, as `hostname -s` prints it")]
Worker = Annotated[str, about("Dask's address of a worker; in events about jobs, the name of the job's worker")]
Name = Annotated[str, about("Dask's name of a worker")]
Pid = Annotated[Count, about("number of a process")]
Job = Annotated[str, about("number of a batch job; of a start, the job that the driver runs in")]
Nodes = Annotated[str, about("nodes of a job")]
ExitCode = Annotated[int, about("exit code of a command")]
Reason = Annotated[str, about("why, in words")]
Message = Annotated[str, about("a message to the user")]
LogTail = Annotated[str, about("the last lines of a log")]
Traceback = Annotated[str, about("Python's traceback")]
Command = Annotated[str, about("a shell command; of the dashboard, one that makes it reachable from another machine")]
Threads = Annotated[Count, about("OpenMP threads of a worker process")]
Cores = Annotated[Count, about("cores of a worker process")]
Shot = Annotated[str, about("name of a shot")]
Shots = Annotated[Count, about("number of shots")]
Batch = Annotated[Count | None, about("shots from which the misfit of all is estimated; absent if it is that of all")]
Operation = Annotated[str, about("`observed`, `shape`, `record`, `born`, `born_adjoint` or `gauss_newton`")]
Evaluation = Annotated[Count, about("number of an evaluation of misfit and gradient; 1 is the initial model")]
Evaluations = Annotated[Count, about("evaluations so far, or of a stage; replayed ones included")]
Stage = Annotated[Count, about("number of a stage of the inversion, from 1")]
Stages = Annotated[Count, about("number of stages of the inversion")]
Iterations = Annotated[Count, about("number of iterations; of a start, or a stage that begins, the limit")]
Misfit = Annotated[float, about("misfit of a shot, or summed over all shots")]
InitialMisfit = Annotated[float, about("misfit of the initial model; with stages, of the first one of the stage")]
ModelError = Annotated[float, about("norm(vp - vp_true) / norm(vp_true), where a true model is known")]
Replayed = Annotated[bool, about("whether the result was in the journal")]
CoreHours = Annotated[float, about("cores of the workers times the hours for which they were held, in all starts")]
Seconds = Annotated[Duration, about("duration, s")]
SolverSeconds = Annotated[Duration, about("part of `seconds`: loading or building the solver, s")]
ModelSeconds = Annotated[Duration, about("part of `seconds`: loading the model, or staging it, s")]


@dataclass_transform(kw_only_default=True)
@dataclass(kw_only=True, repr=False, eq=False)
class Event:
    """An event. The name of a kind is its class's name in lower-case words, unless ``name`` is given."""

    __pydantic_config__: ClassVar[dict[str, Any]]
    event: ClassVar[str] = ""
    _defaults: ClassVar[dict[str, Any]] = {}
    time: Time = field(default_factory=time.time)

    def __init_subclass__(cls, name: str = "") -> None:
        name = name or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cls.__name__).lower()
        cls.event = name
        cls.__annotations__ = {"event": Literal[name], **cls.__annotations__}
        cls.__pydantic_config__ = {
            "strict": True,
            "allow_inf_nan": False,
            "title": name,
            "json_schema_extra": {"description": cls.__doc__ or ""},
        }
        # do not let dataclass() compile methods for each kind: worker processes import all kinds
        dataclass(kw_only=True, repr=False, eq=False)(cls)
        if not cls.__name__.startswith("_"):
            EVENTS[name] = cls
        cls._defaults = {one.name: one.default for one in fields(cls) if one.name not in ("time", "event")}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

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
        # file names may contain bytes that are not text
        return json.dumps(self.facts(), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


@cache
def _adapter() -> TypeAdapter[Event]:
    from pydantic import Field, TypeAdapter

    import hpcfwi.events.types  # noqa: F401 - defines the kinds

    kinds = reduce(or_, EVENTS.values())
    return TypeAdapter(Annotated[kinds, Field(discriminator="event")])  # type: ignore[arg-type]


def parse_event(line: bytes | str) -> Event | None:
    """The event in a line of the log; None if the line is malformed, has no time or is of an unknown kind."""
    try:
        content = line if isinstance(line, bytes) else line.encode()
        # an event without a time would take that of its reading
        return _adapter().validate_json(content) if b'"time"' in content else None
    except ValueError:
        return None


def event_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a line of the event log."""
    return _adapter().json_schema()
