"""Events for tests that care about some of their fields only."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from hpcfwi.events.types import EVENTS, Event

SAMPLES = {"str": "x", "int": 1, "float": 1.0, "bool": False, "list": [], "dict": {}}


def sample(kind: str, **facts: Any) -> Event:
    """An event of a kind with these facts; required fields that are not given get a value of their type."""
    event = EVENTS[kind]
    required = [one.name for one in fields(event) if one.default is MISSING and one.default_factory is MISSING]
    values = {name: SAMPLES[_type_of(event, name)] for name in required if name not in facts}
    return event(**values, **facts)


def _type_of(event: type[Event], name: str) -> str:
    from typing import get_args, get_origin, get_type_hints

    kind = get_type_hints(event)[name]
    return (get_origin(kind) or kind).__name__ if not get_args(kind) else get_origin(kind).__name__
