"""The types of events: what is written is read back, what is malformed is no event, and the reference says what is in them."""

from __future__ import annotations

import json
import time

import pytest
from jsonschema import Draft202012Validator
from sample_events import sample, sample_line

from hpcfwi.events.types import EVENTS, ShotDone, event_schema, parse_event


@pytest.mark.parametrize("kind", EVENTS)
def test_events_are_read_back_as_written(kind):
    event = sample(kind, time=1.5)
    assert parse_event(event.line()) == event
    Draft202012Validator(event_schema()).validate(event.facts())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b'{"time": 1}',
        b'{"time": 1, "event": "of the future"}',
        sample_line("shot", seconds=-1.0),
        sample_line("shot", seconds="1"),
        sample_line("shot", misfit=None),
        sample_line("shot", misfit=float("nan")),
        sample_line("shot", evaluation=1.5),
        sample_line("shot", evaluation=10**30),
        sample_line("shot", time=1e11),
        sample_line("shot").replace(b'"time"', b'"nantime"'),
        sample_line("summary", time=1.5, summary="x"),
        b'{"time": 1, "event": "summary", "summary": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}",
        sample_line("warning", time=1.5).replace(b'"x"', b'"\\ud800"'),
    ],
)
def test_a_malformed_line_is_not_an_event(line):
    assert parse_event(line) is None


def test_fields_of_a_later_version_are_ignored():
    assert parse_event(sample_line("retry", time=1.5, **{"of the future": 1})) == sample("retry", time=1.5)


def test_numbers_are_rounded_and_defaults_are_left_out():
    facts = sample("shot", time=1.23456, seconds=1 / 3, solver_seconds=0.0).facts()
    assert (facts["time"], facts["seconds"]) == (1.235, 0.333333)
    assert "solver_seconds" not in facts


def test_events_with_undecodable_bytes_in_a_file_name_can_be_read():
    event = parse_event(sample("warning", message="/data/\udcff.sgy: ü").line())
    assert event.message == "/data/?.sgy: ü"


def test_a_field_has_the_same_meaning_in_every_event():
    meanings = {}
    for kind in event_schema()["$defs"].values():
        for name, described in kind["properties"].items():
            if name != "event":
                meaning = {**described.get("anyOf", [{}])[0], **described}["description"]
                assert meanings.setdefault(name, meaning) == meaning, name


def test_reading_a_line_is_faster_than_parsing_its_json():
    line = sample("shot", worker="tcp://10.0.0.1:4000", host="node0001", shot="s123").line()

    def cpu_seconds(read):
        began = time.process_time()
        for _ in range(20_000):
            read(line)
        return time.process_time() - began

    assert isinstance(parse_event(line), ShotDone)
    assert min(cpu_seconds(parse_event) for _ in range(3)) < 1.5 * min(cpu_seconds(json.loads) for _ in range(3))
