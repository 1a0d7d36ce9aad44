"""The time line: what is kept of a run's events, and how it is laid out."""

from __future__ import annotations

import pytest
from sample_events import sample

from hpcfwi.reporting.report import timeline as module
from hpcfwi.reporting.report.gantt import make_gantt
from hpcfwi.reporting.report.timeline import BINS, Timeline


def told(*events):
    line = Timeline()
    for event in events:
        line.apply(sample(**event))
    line.close()
    return line


def start(time, began=None):
    return {"kind": "start", "time": time, "process_start": time if began is None else began}


def came(time, worker="a", host="node1"):
    return {"kind": "worker joined", "time": time, "worker": worker, "host": host, "name": worker}


def shot(time, seconds, worker="a", evaluation=1, name="7"):
    facts = {"worker": worker, "host": "node1", "evaluation": evaluation, "shot": name}
    return {"kind": "shot", "time": time, "seconds": seconds, **facts}


def at(time, event, **facts):
    return {"kind": event, "time": time, **facts}


def test_shots_are_bars_from_their_begin_to_when_they_are_told():
    line = told(start(1000.0), came(1001.0), shot(1005.0, 2.0), shot(1006.0, 1.0, evaluation=2))
    first, second = line.bars
    assert (first.begin, first.end, first.evaluation, first.shot) == (3.0, 5.0, 1, "7")
    assert (second.begin, second.end, second.evaluation) == (5.0, 6.0, 2)
    (worker,) = line.workers
    assert (worker.came, worker.left, worker.shots, worker.seconds) == (1.0, None, 2, 3.0)


def test_time_begins_with_the_driver_s_process_and_leaves_out_when_there_was_none():
    line = told(start(1000.0, 998.0), came(1001.0), shot(1010.0, 1.0), start(5000.0, 4999.0), shot(5003.0, 1.0))
    assert line.now == pytest.approx(16.0)  # 12 s, then 4 s
    assert line.starts == [(0.0, 0.0), (12.0, 3989.0)]
    assert [worker.left for worker in line.workers] == [12.0, None]


def test_stages_follow_one_another():
    line = told(
        start(0.0 + 1000),
        at(1004.0, "staging data"),
        at(1005.0, "data staged"),
        at(1009.0, "optimised"),
        at(1011.0, "done"),
        at(1012.0, "closed"),
    )
    assert [(stage.name, stage.begin, stage.end) for stage in line.stages] == [
        ("start", 0.0, 4.0),
        ("data", 4.0, 5.0),
        ("inversion", 5.0, 9.0),
        ("pictures", 9.0, 11.0),
    ]


def test_bins_grow_with_time_and_lose_nothing(monkeypatch):
    monkeypatch.setattr(module, "MOST_BARS", 10)
    events = [start(1000.0), came(1000.0)]
    events += [shot(1000.0 + 7 * i, 3.0 + (i % 4)) for i in range(1, 2000)]
    line = told(*events)
    assert line.crowded
    assert line.bars == []
    (worker,) = line.workers
    assert sum(worker.busy) == pytest.approx(worker.seconds)
    assert line.width * BINS > line.now >= line.width * BINS / 2
    # the last bin is begun only
    assert all(busy <= line.width * (1 + 1e-9) for busy in worker.busy)


def test_a_worker_that_came_unseen_comes_with_its_first_shot():
    line = told(start(1000.0), shot(1010.0, 4.0, worker="tcp://1"))
    assert [(worker.address, worker.came) for worker in line.workers] == [("tcp://1", 6.0)]


def test_a_death_is_marked_where_it_happened_though_it_is_told_when_the_worker_has_left():
    line = told(
        start(1000.0),
        came(1000.0, "a"),
        came(1000.0, "b"),
        at(1003.0, "worker left", worker="b"),
        at(1004.0, "worker died", worker="b", host="node1"),
        at(1005.0, "retry", shot="9", worker="b", reason="r"),
    )
    assert [(mark.worker, mark.time) for mark in line.marks] == [(1, 4.0), (1, 5.0)]
    assert "9" in line.marks[1].text
    assert line.workers[1].end == "died"


@pytest.mark.parametrize(("workers", "hosts", "of"), [(60, 3, "worker"), (61, 3, "host"), (700, 61, "hosts")])
def test_lanes_are_workers_hosts_or_several_hosts_never_more_than_a_page(workers, hosts, of):
    events = [start(1000.0)]
    events += [came(1001.0, f"w{i}", f"node{i % hosts}") for i in range(workers)]
    events += [shot(1004.0, 2.0, f"w{i}") for i in range(workers)]
    lanes = make_gantt(told(*events))
    assert lanes.of == of
    assert 1 <= len(lanes.lanes) <= 60
    assert sorted(i for lane in lanes.lanes for i in lane.workers) == list(range(workers))
    assert len(lanes.blocks) == (workers if of == "worker" else 0)
    assert bool(lanes.shades) == (of != "worker")
    assert f"{workers} workers on {hosts} hosts" in lanes.summary


def test_hosts_are_in_the_order_of_their_numbers():
    lanes = make_gantt(told(start(1000.0), *(came(1001.0, str(i), f"node{i}") for i in (10, 9, 2))))
    assert [lane.label for lane in lanes.lanes] == ["node2 · 2", "node9 · 9", "node10 · 10"]


def test_a_busy_host_is_darker_than_an_idle_one(monkeypatch):
    monkeypatch.setattr(module, "MOST_BARS", 0)
    events = [start(1000.0), came(1000.0, "a"), came(1000.0, "b", "node2")]
    events += [e for i in range(1, 101) for e in (shot(1000.0 + i, 1.0, "a"), shot(1000.0 + i, 0.3, "b"))]
    lanes = make_gantt(told(*events))
    shades = {}
    for level, path in lanes.shades:
        for rectangle in path.split("M")[1:]:
            begin, rest = rectangle.split(" ", 1)
            row, end = rest.split("v")[0].split("H")
            lane = int(float(row))
            shades[lane] = shades.get(lane, 0) + level * (float(end) - float(begin))
    assert shades[0] == pytest.approx(10_000, rel=0.01)
    assert shades[0] / 3.6 < shades[1] < shades[0] / 2  # shades are rounded up


def test_nothing_is_drawn_of_nothing():
    assert make_gantt(told()) is None
    assert make_gantt(told(start(1000.0))) is None
