"""The event log: whole lines only, whatever happens to the disk or the driver, and one log whatever the number of its files."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sample_events import a_run, sample

from hpcfwi.errors import RunError
from hpcfwi.events import log as log_module
from hpcfwi.events.log import EventLog, Follower, read_events, read_state
from hpcfwi.events.state import RunState
from hpcfwi.events.types import ShotDone
from hpcfwi.io import write_atomic

# these events are of no run
pytestmark = pytest.mark.hostile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


def numbers(path):
    """The evaluations of the shots, which the tests count up."""
    return [event.evaluation for event in read_events(path) if isinstance(event, ShotDone)]


def shots(log, count):
    for i in range(count):
        log.write(sample("shot", evaluation=i, shot=f"s{time.monotonic_ns()}"))


def test_every_event_is_a_line_with_its_time_and_name(path):
    log = EventLog(path)
    log.write(sample("start", version="1"))
    log.write(sample("retry", time=12.3456789, shot="a", worker="b", reason="c"))
    log.close()
    log.write(sample("closed"))
    first, second, third = map(json.loads, path.read_text().splitlines())
    assert (first["event"], first["segment"]) == ("log segment", 1)
    assert (second["event"], second["version"]) == ("start", "1")
    assert second["time"] > 1e9
    assert third == {"time": 12.346, "event": "retry", "shot": "a", "worker": "b", "reason": "c"}


def test_lines_of_many_threads_do_not_mix(path):
    log = EventLog(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: log.write(sample("shot", evaluation=i, shot="x" * 5000)), range(200)))
    assert sorted(numbers(path)) == list(range(200))


@pytest.mark.parametrize("left", ["", "half a li", '{"time": 1}\n', '{"time": 1}\n{"time": 2, "eve'])
def test_a_line_that_a_dead_machine_left_unfinished_is_cut(path, left):
    path.write_text(left)
    EventLog(path).write(sample("start"))
    lines = path.read_text().splitlines()
    assert json.loads(lines[-1])["event"] == "start"
    assert lines[:-2] == ['{"time": 1}'] * left.count("\n")


def test_an_event_that_does_not_fit_on_the_disk_is_an_error_and_leaves_no_half_line(path):
    program = """
import resource, signal, sys
from pathlib import Path
from hpcfwi.errors import RunError
from hpcfwi.events import log as log_module
from hpcfwi.events.log import EventLog
from hpcfwi.events.types import EvaluationStarted

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (550, 550))
log = EventLog(Path(sys.argv[1]))
try:
    for i in range(100):
        log.write(EvaluationStarted(time=1e9, evaluation=i, shots=10**15))
except RunError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert f"{path}: cannot be written" in done.stdout
    assert path.read_text().endswith("}\n")
    assert [event.evaluation for event in read_events(path) if event.event == "evaluation started"] == [0, 1, 2, 3]


def test_a_log_that_cannot_be_opened_is_named(path):
    path.mkdir()
    with pytest.raises(RunError, match=r"events\.jsonl: cannot be written"):
        EventLog(path)


def test_a_log_that_does_not_exist_is_named(path):
    for name in (path, str(path)):
        with pytest.raises(RunError, match=r"events\.jsonl: cannot be read \(No such file or directory\)"):
            list(read_events(name))
    assert read_state(path) == RunState()


def test_a_long_log_continues_in_another_file_and_is_read_as_one(path):
    log = EventLog(path, segment_bytes=3000)
    a_run(log.write)
    log.close()
    files = [file for file in path.parent.iterdir() if file != path]
    assert len(files) > 3
    assert all(file.suffix == ".gz" and file.stat().st_size < 3500 for file in files)
    whole = []
    a_run(whole.append)
    read = [event for event in read_events(path) if event.event not in ("log segment", "summary")]
    assert read == whole


def test_the_last_file_alone_restores_the_state_of_the_run(path):
    whole, parted = EventLog(path.with_name("whole.jsonl")), EventLog(path, segment_bytes=3000)
    for log in (whole, parted):
        a_run(log.write)
        log.close()
    all_events = RunState()
    for event in read_events(path):
        all_events.apply(event)
    last = read_state(path)
    assert len(path.read_bytes().splitlines()) < 30
    for state in (all_events, read_state(whole.path)):
        assert replace(state, segment=0, last=0.0) == replace(last, segment=0, last=0.0)
    assert (last.shots_done, last.shots_total, last.evaluation) == (25, 40, 1)
    assert last.workers["tcp://0"].shots == 20 + 13


def test_a_driver_that_was_killed_in_a_rotation_continues_in_the_file_that_it_has(path, monkeypatch):
    log = EventLog(path, segment_bytes=3000)
    shots(log, 5)

    def killed(target, *_):
        if target == path:
            raise KeyboardInterrupt
        write_atomic(target, *_)

    monkeypatch.setattr(log_module, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        shots(log, 100)
    monkeypatch.undo()
    assert path.with_name("events-0001.jsonl.gz").exists()
    before = numbers(path)
    again = EventLog(path, segment_bytes=4000)
    assert again.state.segment == 1
    assert numbers(path) == before
    shots(again, 20)
    assert numbers(path) == before + list(range(20))
    assert again.state.segment == 2


def test_a_log_that_cannot_be_opened_again_after_a_rotation_is_named_and_can_be_closed(path, monkeypatch):
    log = EventLog(path, segment_bytes=3000)
    shots(log, 5)

    def too_many(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(log, "_open", too_many)
    with pytest.raises(RunError, match=r"events\.jsonl: cannot be read or replaced \(Too many open files\)"):
        shots(log, 100)
    log.close()
    again = EventLog(path, segment_bytes=10**6)
    assert again.state.segment == 2
    shots(again, 1)
    assert numbers(path)[:5] == [0, 1, 2, 3, 4]


def test_a_damaged_older_file_is_an_error(path):
    log = EventLog(path, segment_bytes=3000)
    shots(log, 40)
    older = path.with_name("events-0001.jsonl.gz")
    older.write_bytes(older.read_bytes()[:100] + b"damage" + older.read_bytes()[106:])
    with pytest.raises(RunError, match=r"events\.jsonl: cannot be read"):
        list(read_events(path))


def test_a_reader_that_is_overtaken_by_a_rotation_reads_every_event_once(path):
    log = EventLog(path, segment_bytes=3000)
    shots(log, 10)
    reader = read_events(path)
    read = [next(reader)]
    shots(log, 30)
    read += list(reader)
    assert [event.evaluation for event in read if isinstance(event, ShotDone)][:10] == list(range(10))


def test_readers_of_a_log_that_is_being_written_see_each_event_once_and_in_order(path):
    log = EventLog(path, segment_bytes=3000)
    ended = threading.Event()

    def read():
        seen = []
        while not ended.is_set():
            found = numbers(path)
            assert found == list(range(len(found)))
            seen.append(len(found))
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        shots(log, 200)
        ended.set()
        assert all(reader.result() == sorted(reader.result()) for reader in readers)
    assert numbers(path) == list(range(200))


def test_a_follower_reads_new_events_across_rotations(path):
    log = EventLog(path, segment_bytes=3000)
    follower = Follower(path)
    assert follower.read()
    assert not follower.read()
    for _ in range(4):
        shots(log, 7)
        assert follower.read()
        assert replace(follower.state, last=0.0) == replace(log.state, last=0.0)
    with path.open("ab") as file:
        file.write(b'{"time": 1e9, "event": "iterat')
    assert not follower.read()
    os.truncate(path, path.stat().st_size - 30)
    assert log.state.segment > 1


@pytest.mark.parametrize("first", [b'{"event": "log segment", "segment": 1000000000000000000}', b"\xff" * 2000, b"{}"])
def test_a_damaged_first_line_hides_no_other_line_and_no_older_file_is_overwritten(path, first):
    log = EventLog(path, segment_bytes=3000)
    shots(log, 20)
    log.close()
    older = len(list(path.parent.iterdir())) - 1
    lost = sum(b'"shot"' in line for line in path.read_bytes().splitlines())
    path.write_bytes(first + b"\n" + sample("start").line())
    assert [event.event for event in read_events(path)] == ["start"]
    log = EventLog(path, segment_bytes=3000)
    shots(log, 20)
    log.close()
    assert log.state.segment > older
    assert len(numbers(path)) == 40 - lost


def test_a_hundred_thousand_shots_need_some_megabytes(path):
    """Compressed: what a run of that size adds for each evaluation."""
    log = EventLog(path, segment_bytes=1_000_000)
    for i in range(10_000):
        log.write(
            ShotDone(
                time=1.79e9 + i / 37,
                host=f"node{i % 97:04d}",
                worker=f"tls://10.11.{i % 97}.12:{30000 + i % 97}",
                pid=20000 + i % 97,
                shot=f"{i:06d}",
                evaluation=3,
                misfit=1e6 / (i + 7),
                seconds=10 + (i * 7919 % 1009) / 997,
                kernel_seconds=9 + (i * 7907 % 1009) / 997,
                peak_memory=2_000_000_000 + i * 4096,
            )
        )
    log.close()
    compressed = list(path.parent.glob("*.gz"))
    assert len(compressed) >= 2
    assert sum(file.stat().st_size for file in compressed) / (10_000 - 4000) < 100
