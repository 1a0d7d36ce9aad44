"""The timeline: what it keeps of the events, and how it is laid out."""

from __future__ import annotations

import pytest
from sample_events import sample

from hpcfwi.reporting.report import gantt as module
from hpcfwi.reporting.report.gantt import BINS, Timeline, draw_gantt


def timeline_of(*events):
    line = Timeline()
    for event in events:
        line.apply(sample(**event))
    line.close()
    return line


def start(time, began=None):
    return {"kind": "start", "time": time, "command_start": time if began is None else began}


def joined(time, worker="a", host="node1"):
    return {"kind": "worker joined", "time": time, "worker": worker, "host": host, "name": worker}


def shot(time, seconds, worker="a", evaluation=1, name="7"):
    facts = {"worker": worker, "host": "node1", "evaluation": evaluation, "shot": name}
    return {"kind": "shot", "time": time, "seconds": seconds, **facts}


def at(time, event, **facts):
    return {"kind": event, "time": time, **facts}


def test_a_shot_spans_its_seconds_up_to_the_time_of_its_event():
    line = timeline_of(start(1000.0), joined(1001.0), shot(1005.0, 2.0), shot(1006.0, 1.0, evaluation=2))
    first, second = line.shots
    assert (first.begin, first.end, first.evaluation, first.name) == (3.0, 5.0, 1, "7")
    assert (second.begin, second.end, second.evaluation) == (5.0, 6.0, 2)
    (worker,) = line.workers
    assert (worker.joined, worker.left, worker.shots, worker.seconds) == (1.0, None, 2, 3.0)


def test_time_starts_with_the_driver_process_and_omits_pauses_between_drivers():
    line = timeline_of(
        start(1000.0, 998.0), joined(1001.0), shot(1010.0, 1.0), start(5000.0, 4999.0), shot(5003.0, 1.0)
    )
    assert line.now == pytest.approx(16.0)  # 12 s, then 4 s
    assert line.starts == [(0.0, 0.0), (12.0, 3989.0)]
    assert [worker.left for worker in line.workers] == [12.0, None]


def test_stages_follow_each_other_without_gaps():
    line = timeline_of(
        start(0.0 + 1000),
        at(1004.0, "staging data"),
        at(1005.0, "data staged"),
        at(1009.0, "optimised"),
        at(1011.0, "done"),
        at(1012.0, "closed"),
    )
    assert [(phase.name, phase.begin, phase.end) for phase in line.phases] == [
        ("start", 0.0, 4.0),
        ("data", 4.0, 5.0),
        ("inversion", 5.0, 9.0),
        ("results", 9.0, 11.0),
    ]


def test_bins_double_with_time_and_keep_the_sum(monkeypatch):
    monkeypatch.setattr(module, "MAX_SHOTS", 10)
    events = [start(1000.0), joined(1000.0)]
    events += [shot(1000.0 + 7 * i, 3.0 + (i % 4)) for i in range(1, 2000)]
    line = timeline_of(*events)
    assert line.crowded
    assert line.shots == []
    (worker,) = line.workers
    assert sum(worker.busy) == pytest.approx(worker.seconds)
    assert line.width * BINS > line.now >= line.width * BINS / 2
    # the last bin is begun only
    assert all(busy <= line.width * (1 + 1e-9) for busy in worker.busy)


def test_an_unknown_worker_joins_with_its_first_shot():
    line = timeline_of(start(1000.0), shot(1010.0, 4.0, worker="tcp://1"))
    assert [(worker.host, worker.joined) for worker in line.workers] == [("node1", 6.0)]


def test_a_death_is_marked_in_the_worker_s_row_after_the_worker_has_left():
    line = timeline_of(
        start(1000.0),
        joined(1000.0, "a"),
        joined(1000.0, "b"),
        at(1003.0, "worker left", worker="b"),
        at(1004.0, "worker died", worker="b", host="node1"),
        at(1005.0, "retry", shot="9", worker="b", reason="r"),
    )
    assert [(worker, time) for worker, time, _ in line.marks] == [(1, 4.0), (1, 5.0)]
    assert "9" in line.marks[1][2]
    assert line.workers[1].end == "died"


@pytest.mark.parametrize(("workers", "hosts", "unit"), [(60, 3, "worker"), (61, 3, "host"), (700, 61, "hosts")])
def test_rows_are_workers_hosts_or_groups_of_hosts_and_fit_on_a_page(workers, hosts, unit):
    events = [start(1000.0)]
    events += [joined(1001.0, f"w{i}", f"node{i % hosts}") for i in range(workers)]
    events += [shot(1004.0, 2.0, f"w{i}") for i in range(workers)]
    gantt = draw_gantt(timeline_of(*events))
    assert gantt.unit == unit
    assert 1 <= len(gantt.rows) <= 60
    assert sorted(i for row in gantt.rows for i in row.workers) == list(range(workers))
    assert len(gantt.shots) == (workers if unit == "worker" else 0)
    assert bool(gantt.shades) == (unit != "worker")
    assert f"{workers} workers on {hosts} hosts" in gantt.summary


def test_hosts_are_sorted_by_their_numbers():
    gantt = draw_gantt(timeline_of(start(1000.0), *(joined(1001.0, str(i), f"node{i}") for i in (10, 9, 2))))
    assert [row.label for row in gantt.rows] == ["node2 · 2", "node9 · 9", "node10 · 10"]


def test_a_busy_host_is_darker_than_an_idle_one(monkeypatch):
    monkeypatch.setattr(module, "MAX_SHOTS", 0)
    events = [start(1000.0), joined(1000.0, "a"), joined(1000.0, "b", "node2")]
    events += [e for i in range(1, 101) for e in (shot(1000.0 + i, 1.0, "a"), shot(1000.0 + i, 0.3, "b"))]
    gantt = draw_gantt(timeline_of(*events))
    shades = {}
    for level, path in gantt.shades:
        for rectangle in path.split("M")[1:]:
            begin, rest = rectangle.split(" ", 1)
            row, end = rest.split("v")[0].split("H")
            lane = int(float(row))
            shades[lane] = shades.get(lane, 0) + level * (float(end) - float(begin))
    assert shades[0] == pytest.approx(10_000, rel=0.01)
    assert shades[0] / 3.6 < shades[1] < shades[0] / 2  # shades are rounded up


def test_an_empty_timeline_has_no_drawing():
    assert draw_gantt(timeline_of()) is None
    assert draw_gantt(timeline_of(start(1000.0))) is None
