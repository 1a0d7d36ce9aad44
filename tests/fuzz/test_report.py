"""The report of any run folder is written or refused in time, and nothing in the folder is taken for code."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from html.parser import HTMLParser

import pytest
from hypothesis import strategies as st
from sample_events import SAMPLES, field_type, sample_line

from hpcfwi.events.types import EVENTS, parse_event
from hpcfwi.reporting.report.data import ReportData
from hpcfwi.reporting.report.gantt import draw_gantt
from hpcfwi.reporting.report.page import write_report

# Images run no scripts, SVG included.
IMAGES = ("data:image/png;base64,", "data:image/svg+xml;base64,", "data:,", "#")
SMALL_FILES = ["events.jsonl", "history.csv", "result.json", "driver.json", "config.toml"]
SOUND_DRIVER = {"token": "a", "host": "h", "machine": "m", "pid": 1, "started": 1.0, "job": "7", "restarts": 0}


class Judge(HTMLParser):
    """Finds what a browser would run or load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        for name, value in attributes:
            loads = name in ("src", "href") and not (value or "").startswith(IMAGES)
            if loads or name.startswith("on"):
                self.found.append(f"<{tag} {name}={value}>")


def judge(path) -> None:
    judged = Judge(path.read_text(encoding="utf-8"))
    assert judged.scripts in (0, 2)
    assert judged.found == []


@pytest.fixture(scope="module")
def sound(first_run):
    """Files of a run that is done."""
    run = first_run[2]
    return {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def copy_of(sound, folder) -> None:
    for name, content in sound.items():
        if name.parts[0] not in ("staged", "report.html"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            (folder / name).write_bytes(content)


@pytest.mark.cases(120)
def test_a_run_folder_with_a_damaged_file_has_a_report(fuzz, hostile, error_of, sound):
    originals = {
        name: next(c for n, c in sound.items() if str(n) == name) for name in SMALL_FILES if name != "driver.json"
    }
    originals["driver.json"] = json.dumps(SOUND_DRIVER).encode()
    mutated = st.one_of([st.tuples(st.just(name), hostile.mutated(content)) for name, content in originals.items()])

    def check(folder, given):
        copy_of(sound, folder)
        name, content = given
        (folder / name).write_bytes(content)
        if not error_of(lambda: write_report(folder), folder):
            judge(folder / "report.html")

    fuzz(mutated, check)


FIELDS = sorted({field.name for kind in EVENTS.values() for field in fields(kind)})


def event_of(kind, changed):
    """A line with all fields of an event, some of which have become something else."""
    sound = {field.name: SAMPLES[field_type(EVENTS[kind], field.name)] for field in fields(EVENTS[kind])[2:]}
    return json.dumps({"time": 1.79e9, "event": kind, **sound, **changed}).encode()


@pytest.mark.cases(500)
def test_a_report_survives_events_with_fields_of_any_type(fuzz, hostile, error_of):
    evil = st.sampled_from(["<script>alert(1)</script>", '" onload="alert(1)', "</svg>", "</script>", "{{ 7 }}"])
    values = st.dictionaries(st.sampled_from(FIELDS), evil | hostile.values | hostile.scalars, max_size=3)
    lines = st.lists(st.builds(event_of, st.sampled_from([*EVENTS]), values), min_size=1, max_size=8).map(b"\n".join)

    def check(folder, content):
        (folder / "events.jsonl").write_bytes(content)
        if not error_of(lambda: write_report(folder), folder):
            judge(folder / "report.html")

    fuzz(lines, check)


@pytest.mark.cases(1500)
def test_a_timeline_with_any_numbers_is_drawn(fuzz, hostile):
    times = hostile.numbers | st.floats(1.79e9, 1.8e9) | st.sampled_from([1.79e9, 0.0, 5e9])
    event = st.fixed_dictionaries(
        {
            "event": st.sampled_from(
                [
                    "start",
                    "worker joined",
                    "worker left",
                    "worker died",
                    "shot",
                    "shot staged",
                    "evaluation started",
                    "evaluation",
                    "staging data",
                    "data staged",
                    "optimised",
                    "done",
                    "retry",
                    "closed",
                ]
            ),
            "time": times,
            "worker": st.sampled_from(["a", "b"]),
            "host": st.just("h"),
            "name": st.just("n"),
            "shot": st.just("s"),
            "evaluation": st.integers(-2, 3) | hostile.whole,
            "misfit": hostile.numbers,
            "seconds": times,
            "process_start": times,
        }
    )

    def check(_, events):
        lines = [sample_line(event["event"], **event) for event in events]
        data = ReportData(event for event in map(parse_event, lines) if event is not None)
        gantt = draw_gantt(data.timeline)
        if gantt is not None:
            for block in [*gantt.shots, *gantt.phases, *gantt.evaluations]:
                assert 0 <= block.begin <= 1000
                assert 0 < block.width <= 1001
            assert len(gantt.ticks) < 60

    fuzz(st.lists(event, max_size=20), check)


@pytest.mark.cases(30)
def test_damaged_journal_entries_are_skipped(fuzz, hostile, error_of, sound):
    entry = next(content for name, content in sound.items() if name.parts[0] == "journal")

    def check(folder, content):
        copy_of(sound, folder)
        (folder / "journal" / "a.bin").write_bytes(content)
        if not error_of(lambda: write_report(folder), folder):
            judge(folder / "report.html")
        shutil.rmtree(folder / "journal")

    fuzz(hostile.mutated(entry), check)
