"""Events for tests that care about some of their fields only."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, Union, get_origin, get_type_hints

from hpcfwi.events.types import EVENTS, Event

__all__ = ["SAMPLES", "a_run", "field_type", "sample", "sample_line"]

# A value of each type of a field.
SAMPLES: dict[type, Any] = {str: "x", int: 1, float: 1.0, bool: False, list: ["x"], dict: {"numpy": "2"}}


def sample(kind: str, **facts: Any) -> Event:
    """An event of a kind with these facts; required fields that are not given get a value of their type."""
    event = EVENTS[kind]
    required = [one.name for one in fields(event) if one.default is MISSING and one.default_factory is MISSING]
    values = {name: SAMPLES[field_type(event, name)] for name in required if name not in facts}
    return event(**values, **facts)


def sample_line(kind: str, **facts: Any) -> bytes:
    """A line of a log; the facts may be anything that JSON can write, also what no event has."""
    return json.dumps(sample(kind).facts() | facts).encode() + b"\n"


def field_type(event: type[Event], name: str) -> type:
    """The type of a field without its unit and meaning, and without None."""
    hint = get_type_hints(event)[name]
    if get_origin(hint) in (Union, UnionType):
        hint = hint.__args__[0]
    return get_origin(hint) or hint


def a_run(write: Callable[[Event], None]) -> None:
    """Events of a run that has begun its second evaluation: 40 shots, then 25."""

    def shots(evaluation: int, count: int) -> None:
        for i in range(count):
            facts = {"worker": f"tcp://{i % 2}", "host": "a", "seconds": 2.0}
            write(sample("shot", time=100.0 + i, shot=f"s{i}", evaluation=evaluation, **facts))

    write(sample("start", time=90.0, iterations=5, shots=40))
    write(sample("dashboard", time=90.0, address="http://127.0.0.1:8787/status"))
    write(sample("job", time=90.0, job="7", worker="w", state="pending", reason="Priority"))
    write(sample("warning", time=90.0, message="mind the gap"))
    write(sample("worker joined", time=91.0, worker="tcp://9", host="b", name="9", process_start=90.0, cores=4))
    write(sample("worker left", time=92.0, worker="tcp://9", host="b", name="9"))
    for i in range(2):
        facts = {"worker": f"tcp://{i}", "host": "a", "name": str(i), "process_start": 90.5, "cores": 4}
        write(sample("worker joined", time=91.0, **facts))
    write(sample("data staged", time=98.0, shots=40))
    write(sample("evaluation started", time=99.0, evaluation=1, shots=40))
    shots(1, 40)
    write(sample("evaluation", time=150.0, evaluation=1, misfit=8.0))
    write(sample("iteration", time=150.0, iteration=1, misfit=8.0, step_seconds=50.0, model_error=0.5))
    write(sample("retry", time=151.0, shot="s3", worker="tcp://1", reason="it was late"))
    write(sample("evaluation started", time=152.0, evaluation=2, shots=40))
    shots(2, 25)
