"""The event log and the history: whole lines only, whatever happens to the disk or the driver."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from hpcfwi.errors import RunError
from hpcfwi.reporting.events import EventLog, read_events
from hpcfwi.reporting.history import History, Row


def row(iteration, error=0.25):
    return Row(iteration, iteration + 1, 1 / 3, 2.0, error, None, 0.5, 1.5)


def test_every_event_is_a_line_with_its_time_and_kind(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.write("start", version="1")
    log.write("shot", time=12.3456789, shot="a")
    log.close()
    log.write("too late")
    first, second = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert (first["event"], first["version"]) == ("start", "1")
    assert first["time"] > 1e9
    assert second == {"time": 12.346, "event": "shot", "shot": "a"}


def test_lines_of_many_threads_do_not_mix(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: log.write("shot", number=i, text="x" * 5000), range(200)))
    assert sorted(event["number"] for event in read_events(tmp_path / "events.jsonl")) == list(range(200))


@pytest.mark.parametrize("left", ["", "half a li", '{"time": 1}\n', '{"time": 1}\n{"time": 2, "eve'])
def test_a_line_that_a_dead_machine_left_unfinished_is_cut(tmp_path, left):
    path = tmp_path / "events.jsonl"
    path.write_text(left)
    EventLog(path).write("start")
    lines = path.read_text().splitlines()
    assert json.loads(lines[-1])["event"] == "start"
    assert lines[:-1] == ['{"time": 1}'] * left.count("\n")


def test_an_event_that_does_not_fit_on_the_disk_is_an_error_and_leaves_no_half_line(tmp_path):
    program = """
import resource, signal, sys
from pathlib import Path
from hpcfwi.errors import RunError
from hpcfwi.reporting.events import EventLog

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
log = EventLog(Path(sys.argv[1]))
try:
    for i in range(100):
        log.write("shot", number=i, text="x" * 150)
except RunError as error:
    print(error)
"""
    path = tmp_path / "events.jsonl"
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert f"{path}: cannot be written" in done.stdout
    assert path.read_text().endswith("}\n")
    assert [event["number"] for event in read_events(path)] == [0, 1, 2, 3]


def test_a_log_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(RunError, match=r"events\.jsonl: cannot be written"):
        EventLog(tmp_path / "events.jsonl")


def test_history_has_the_promised_columns_and_empty_cells_for_what_is_not_known(tmp_path):
    history = History(tmp_path / "history.csv")
    assert history.add(row(0, None))
    assert history.add(row(1))
    assert (tmp_path / "history.csv").read_text() == (
        "iteration,evaluations,misfit,gradient_norm,model_error,m_error,step_seconds,elapsed_seconds\n"
        "0,1,0.3333333333333333,2.0,,,0.5,1.5\n"
        "1,2,0.3333333333333333,2.0,0.25,,0.5,1.5\n"
    )


def test_rows_come_back_to_the_last_bit_and_are_not_written_twice(tmp_path):
    history = History(tmp_path / "history.csv")
    history.add(row(0))
    again = History(tmp_path / "history.csv")
    assert again.rows == [row(0)]
    assert not again.add(row(0))
    assert again.add(row(1))
    assert History(tmp_path / "history.csv").rows == [row(0), row(1)]


def test_later_iterations_of_an_earlier_start_can_be_cut(tmp_path):
    history = History(tmp_path / "history.csv")
    for i in range(4):
        history.add(row(i))
    history.cut(1)
    assert History(tmp_path / "history.csv").rows == [row(0), row(1)]


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "iteration,evaluations\n0\n", "iteration\nx\n"])
def test_a_history_of_somebody_else_is_named(tmp_path, content):
    (tmp_path / "history.csv").write_text(content)
    with pytest.raises(RunError, match=r"history\.csv: cannot be read .* remove it"):
        History(tmp_path / "history.csv")
