"""The event log and the history: whole lines only, whatever happens to the disk or the driver."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import pytest
from sample_events import sample

from hpcfwi.errors import RunError
from hpcfwi.events.log import EventLog, read_events, read_latest
from hpcfwi.events.state import RunState
from hpcfwi.inversion.history import History, Row

# events of all kinds, with facts of none
pytestmark = pytest.mark.hostile


def numbers(path):
    return [event["number"] for event in read_events(path) if event["event"] == "shot"]


def row(iteration, error=0.25):
    return Row(iteration, iteration + 1, 1 / 3, 2.0, error, None, 0.5, 1.5)


def test_every_event_is_a_line_with_its_time_and_kind(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.write(sample("start", version="1"))
    log.write(sample("shot", time=12.3456789, shot="a", seconds=1 / 3))
    log.close()
    log.write("too late")
    zeroth, first, second = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert (zeroth["event"], zeroth["schema"], zeroth["segment"]) == ("log", 1, 1)
    assert (first["event"], first["version"]) == ("start", "1")
    assert first["time"] > 1e9
    assert second == {"time": 12.346, "event": "shot", "shot": "a", "seconds": 0.333333}


def test_lines_of_many_threads_do_not_mix(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: log.write(sample("shot", number=i, text="x" * 5000)), range(200)))
    assert sorted(numbers(tmp_path / "events.jsonl")) == list(range(200))


@pytest.mark.parametrize("left", ["", "half a li", '{"time": 1}\n', '{"time": 1}\n{"time": 2, "eve'])
def test_a_line_that_a_dead_machine_left_unfinished_is_cut(tmp_path, left):
    path = tmp_path / "events.jsonl"
    path.write_text(left)
    EventLog(path).write("start")
    lines = path.read_text().splitlines()
    assert json.loads(lines[-1])["event"] == "start"
    assert lines[:-2] == ['{"time": 1}'] * left.count("\n")


def test_an_event_that_does_not_fit_on_the_disk_is_an_error_and_leaves_no_half_line(tmp_path):
    program = """
import resource, signal, sys
from pathlib import Path
from hpcfwi.errors import RunError
from hpcfwi.events.log import EventLog

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1070, 1070))
log = EventLog(Path(sys.argv[1]))
try:
    for i in range(100):
        log.write(sample("shot", number=i, text="x" * 150))
except RunError as error:
    print(error)
"""
    path = tmp_path / "events.jsonl"
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert f"{path}: cannot be written" in done.stdout
    assert path.read_text().endswith("}\n")
    assert numbers(path) == [0, 1, 2, 3]


def test_a_log_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(RunError, match=r"events\.jsonl: cannot be written"):
        EventLog(tmp_path / "events.jsonl")


def shots(log, evaluation, count):
    for i in range(count):
        facts = {
            "worker": f"tcp://{i % 2}",
            "host": "a",
            "pid": 1,
            "misfit": 1.0,
            "kernel_seconds": 1.0,
            "peak_memory": 1,
        }
        log.write(sample("shot", time=100.0 + i, shot=f"s{i}", evaluation=evaluation, seconds=2.0, number=i, **facts))


def a_run(log):
    """Events of a run that has begun its second evaluation."""
    log.write(sample("start", time=90.0, iterations=5, shots=40))
    log.write(sample("dashboard", time=90.0, address="http://127.0.0.1:8787/status"))
    log.write(sample("job", time=90.0, job="7", worker="w", state="pending", reason="Priority"))
    log.write(sample("warning", time=90.0, message="mind the gap"))
    log.write(sample("worker joined", time=91.0, worker="tcp://9", host="b", name="9", process_start=90.0, cores=4))
    log.write(sample("worker left", time=92.0, worker="tcp://9", host="b", name="9"))
    for i in range(2):
        log.write(
            sample("worker joined", time=91.0, worker=f"tcp://{i}", host="a", name=str(i), process_start=90.5, cores=4)
        )
    log.write(sample("evaluation started", time=99.0, evaluation=1, shots=40))
    shots(log, 1, 40)
    log.write(sample("evaluation", time=150.0, evaluation=1, misfit=8.0))
    log.write(sample("iteration", time=150.0, iteration=1, misfit=8.0, step_seconds=50.0, model_error=0.5))
    log.write(sample("retry", time=151.0, shot="s3", worker="tcp://1", reason="it was late"))
    log.write(sample("evaluation started", time=152.0, evaluation=2, shots=40))
    shots(log, 2, 25)


def test_a_long_log_goes_on_in_another_file_and_is_read_as_one(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", segment=3000)
    a_run(log)
    log.close()
    EventLog(tmp_path / "events.jsonl").close()  # compresses what the first had left
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) > 3
    assert all(path.stat().st_size < 3500 for path in tmp_path.iterdir())
    assert numbers(tmp_path / "events.jsonl") == [*range(40), *range(25)]


def test_the_last_file_alone_tells_how_the_run_stands(tmp_path):
    whole, parted = EventLog(tmp_path / "whole.jsonl"), EventLog(tmp_path / "parted.jsonl", segment=3000)
    for log in (whole, parted):
        a_run(log)
        log.close()
    states = []
    for events in (read_events(whole.path), read_latest(parted.path), read_events(parted.path)):
        state = RunState()
        for event in events:
            state.heed(event)
        states.append(state)
    assert len(list(read_latest(parted.path))) < 30
    assert states[0].summary() == {**states[1].summary(), "last": states[0].last}
    assert states[0].summary() == {**states[2].summary(), "last": states[0].last}
    assert (states[0].shots_done, states[0].shots_total, states[0].evaluation) == (25, 40, 1)
    assert states[1].workers["tcp://0"].shots == 20 + 13
    assert states[1].failures == {"shot s3 was started again on another worker: it was late": 1}
    assert states[1].core_hours(190.5) == pytest.approx((2 * 4 * 100 + 4 * 2) / 3600)


def test_a_summary_has_everything_and_comes_back_whole(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    a_run(log)
    log.write(sample("interrupted", time=200.0, reason="SIGTERM was received"))
    told, unused = log.state.summary(), RunState().summary()
    assert set(told) == {field.name for field in fields(RunState)}
    assert [name for name in told if told[name] == unused[name]] == []
    again = RunState()
    again.heed({"time": 200.0, "event": "summary", "summary": json.loads(json.dumps(told))})
    assert again.summary() == told
    assert {type(value) for value in vars(again).values()} == {type(value) for value in vars(log.state).values()}
    assert again.failures.most_common(1) == log.state.failures.most_common(1)


def test_a_summary_of_another_version_is_taken_as_far_as_it_is_understood():
    state = RunState()
    state.heed({"time": 1.0, "event": "summary", "summary": {"iteration": 3, "of the future": [1]}})
    assert (state.iteration, state.state) == (3, "new")
    state.heed({"time": 2.0, "event": "summary", "summary": {"iteration": 4, "workers": [1]}})
    assert state.iteration == 3


def test_a_reader_that_is_overtaken_by_a_new_file_reads_every_event_once(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", segment=3000)
    shots(log, 1, 10)
    reader = read_events(log.path)
    read = [next(reader)]
    shots(log, 2, 30)
    log._compressing.join()
    read += list(reader)
    assert [event["number"] for event in read if event["event"] == "shot"][:10] == list(range(10))


def test_readers_of_a_log_that_is_being_written_see_each_event_once_and_in_order(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", segment=20_000)
    ended = threading.Event()

    def read():
        seen = []
        while not ended.is_set():
            found = numbers(log.path)
            assert found == list(range(len(found)))
            seen.append(len(found))
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for i in range(3000):
            log.write(sample("shot", number=i))
        ended.set()
        assert all(reader.result() == sorted(reader.result()) for reader in readers)
    assert numbers(log.path) == list(range(3000))


def test_a_first_line_that_claims_files_without_end_is_not_believed(tmp_path):
    (tmp_path / "events.jsonl").write_text('{"event": "log", "segment": 1000000000000000000}\n{"event": "start"}\n')
    assert [event["event"] for event in read_events(tmp_path / "events.jsonl")] == ["log", "start"]


def test_a_hundred_thousand_shots_need_some_megabytes(tmp_path):
    """Of a line as workers tell it, compressed: what a run of that size adds for each evaluation."""
    log = EventLog(tmp_path / "events.jsonl", segment=1_000_000)
    for i in range(10_000):
        log.write(
            sample(
                "shot",
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
    EventLog(log.path).close()  # compresses what the first had left
    compressed = list(tmp_path.glob("*.gz"))
    assert len(compressed) >= 2
    assert sum(path.stat().st_size for path in compressed) / (10_000 - 4000) < 100


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
