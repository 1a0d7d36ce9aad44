"""``hpcfwi status`` of damaged run folders prints what makes sense, as text and as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from hypothesis import strategies as st
from rich.console import Console
from sample_events import sample, sample_line

from hpcfwi.events.lease import Holder
from hpcfwi.events.log import EventLog, Follower
from hpcfwi.events.types import EVENTS
from hpcfwi.reporting.status import StatusReader, run_status
from hpcfwi.reporting.status_text import status_changes, status_lines, status_table

FIELDS = sorted({field.name for kind in EVENTS.values() for field in fields(kind)})
RESULT = {"state": "done", "limits": {}, "summary": {"iterations": 2, "misfit": 0.5, "message": "ok"}}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> bytes:
    """The log of a run that is at work, in its second file."""
    log = EventLog(tmp_path_factory.mktemp("sound") / "events.jsonl")
    log.write(
        sample("start", host="a", pid=1, iterations=5, shots=4, site="b", launch="jobs", layout="c", workers_planned=2)
    )
    log.write(sample("job", job="1", worker="w", state="pending", reason="Resources"))
    log.write(sample("worker joined", worker="tcp://1", host="n1", name="0", process_start=1.5, cores=2))
    log.write(sample("retry", shot="3", worker="tcp://1", reason="late"))
    log.write(sample("dashboard", address="http://127.0.0.1:8787/status", command="ssh x"))
    log._rotate()
    log.write(sample("evaluation started", evaluation=1, shots=4))
    log.write(sample("shot", shot="1", evaluation=1, worker="tcp://1", host="n1", seconds=1.5))
    log.write(sample("evaluation", evaluation=1, misfit=8.0))
    log.write(sample("iteration", iteration=1, misfit=8.0, step_seconds=50.0, model_error=0.5))
    log.write(sample("done", message="ok"))
    log.close()
    return log.path.read_bytes()


def text_of(reader: StatusReader) -> str:
    """All that is said of a run, in every way."""
    status = reader.read()
    text = json.dumps(asdict(status), allow_nan=False)
    lines = [*status_lines(status), *status_changes(None, status)]
    assert all(line.isprintable() for line in lines)
    assert all(len(line) < 7000 for line in lines)
    with Path(os.devnull).open("w") as nothing:
        Console(file=nothing, force_terminal=True, width=80).print(status_table(status))
    return text


def check(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    before = sorted((entry.name, entry.stat().st_mtime_ns) for entry in folder.iterdir())
    reader = StatusReader(folder)
    assert text_of(reader)
    assert text_of(reader)  # of what has been read already
    assert sorted((entry.name, entry.stat().st_mtime_ns) for entry in folder.iterdir()) == before


@pytest.mark.cases(500)
def test_the_status_of_a_damaged_log_is_printable(fuzz, hostile, sound):
    fuzz(hostile.mutated(sound).map(lambda content: {"events.jsonl": content}), check)


@pytest.mark.cases(500)
def test_the_status_of_a_log_with_hostile_fields_is_printable(fuzz, hostile):
    names = [*FIELDS, *Follower(Path()).state.summary()]
    facts = st.dictionaries(st.sampled_from(names), hostile.values, max_size=3)
    event = st.builds(
        lambda kind, fields, inner: sample_line(kind, **{**fields, "event": kind, "summary": inner}),
        st.sampled_from([*EVENTS]),
        facts,
        facts,
    )
    first = sample_line("log segment", segment=2)
    log = st.lists(event, max_size=6).map(b"".join)
    fuzz(log.map(lambda content: {"events.jsonl": first + content}), check)


@pytest.mark.cases(300)
def test_the_status_with_a_damaged_lease_and_result_is_printable(fuzz, hostile, sound):
    here = asdict(Holder.current())
    holders = [here, here | {"pid": 2**22 + 1}, here | {"machine": "elsewhere"}]
    changed = st.dictionaries(st.sampled_from([*here, "more"]), hostile.values, max_size=3)
    lease = st.builds(lambda sound, new: json.dumps(sound | new).encode(), st.sampled_from(holders), changed)
    lease |= hostile.mutated(*(json.dumps(holder).encode() for holder in holders))
    result = hostile.mutated(json.dumps(RESULT).encode()) | hostile.values.map(lambda value: json.dumps(value).encode())
    log = st.just(sound) | st.just(b"")
    fuzz(st.fixed_dictionaries({"driver.json": lease, "result.json": result, "events.jsonl": log}), check)


@pytest.mark.cases(150)
def test_status_finds_any_argument_or_refuses_it(fuzz, hostile, error_of):
    def check(folder, word):
        (folder / "runs" / "a").mkdir(parents=True)
        (folder / "runs" / "a" / "events.jsonl").touch()
        error_of(lambda: run_status(word), word, "no such run folder", "is not a run folder", "cannot be read")

    fuzz(hostile.texts | st.text(max_size=20) | st.sampled_from(["a", "runs/a", "", ".", "..", "/", "a\0b"]), check)
