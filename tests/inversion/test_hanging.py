"""A shot that hangs is computed elsewhere, and its worker is not relied on any more."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, get_worker

from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.local import LocalWorkers
from hpcfwi.cluster.overtime import Overtime
from hpcfwi.cluster.silence import Silence
from hpcfwi.inversion.functional import FunctionalGradient
from hpcfwi.inversion.tasks import ShotTasks, key_of

TOPIC = "hanging"
SHOTS = 12


def shot(number, folder, how):
    """One of them hangs, the first time that it is tried."""
    hung = Path(folder) / "hung"
    if number == 5 and not hung.exists():
        hung.write_text(get_worker().address)
        time.sleep(0.2)  # until what was done before has been told
        if how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        while (Path(folder) / "no-answer").exists():
            time.sleep(0.1)  # as a file system that does not answer; heartbeats go on
    time.sleep(0.05)
    return FunctionalGradient(0.1 * number, np.array([0.3 / (number + 1)]))


@pytest.fixture
def tasks(tmp_path):
    """Two workers, and tasks that are told what is overdue after two seconds."""
    retries = []
    workers = LocalWorkers(Layout(2, 1, 2 * 10**9))
    (tmp_path / "no-answer").touch()
    with workers, Client(workers.cluster(), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        tasks = ShotTasks(client, on_retry=lambda *facts: retries.append(facts))
        tasks.retries = retries
        client.subscribe_topic(TOPIC, lambda event: "key" in event[1] and tasks.overdue(event[1]["key"]))
        client.register_plugin(Overtime(TOPIC, "shot-", shortest=2))
        yield tasks


def stop_when_done(number, folder, wanted):
    """The worker of one of them is stopped when this is done, before anybody has had its result."""
    if number == wanted and not (Path(folder) / "hung").exists():
        (Path(folder) / "hung").write_text(get_worker().address)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGSTOP)).start()
    if number != wanted:
        time.sleep(1.5)
    return FunctionalGradient(0.1 * number, np.array([0.3 / (number + 1)]))


@pytest.mark.parametrize("small", [True, False])
def test_a_worker_that_hangs_with_what_it_has_finished_is_started_anew(tasks, tmp_path, small):
    """What was fetched from it, by the driver or by who adds, is computed elsewhere; meanwhile the driver goes on looking."""
    tasks.client.register_plugin(Silence(TOPIC, limit=4))
    looked, fetch = [], tasks._fetch

    def fetch_late(future):
        time.sleep(1)
        return fetch(future)

    tasks._fetch = fetch_late
    tasks.pressing = lambda _: looked.append(time.monotonic())
    names = ["0", "1"]
    arguments = [(i, str(tmp_path), 0) for i in range(2)]
    found = tasks.sum(stop_when_done, names, arguments, [key_of(tmp_path, name) for name in names], small=small)
    assert found.f == 0.0 + 0.1
    assert found.g.tobytes() == np.array([0.3 / 1 + 0.3 / 2]).tobytes()
    assert max(np.diff(looked)) < 3
    culprit = (tmp_path / "hung").read_text()
    assert culprit not in tasks.workers()
    told = [(event["event"], event["worker"]) for _, event in tasks.client.get_events(TOPIC)]
    assert told == [("worker silent", culprit), ("worker put out", culprit)]


@pytest.mark.parametrize("how", ["stopped", "without an answer"])
def test_a_shot_that_hangs_is_computed_elsewhere_and_its_worker_started_anew(tasks, tmp_path, how):
    names = [str(i) for i in range(SHOTS)]
    arguments = [(i, str(tmp_path), how) for i in range(SHOTS)]
    before = set(tasks.workers())
    found = tasks.sum(shot, names, arguments, [key_of(tmp_path, name) for name in names])
    expected = tasks.sum(shot, names, arguments, [key_of(tmp_path, "again", name) for name in names])
    assert (found.f, found.g.tobytes()) == (expected.f, expected.g.tobytes())
    culprit = (tmp_path / "hung").read_text()
    ((_, worker, _),) = [told for told in tasks.retries if "longer" in told[2]][:1]
    assert worker == culprit
    # and perhaps those before it, if the worker was stopped before it could say that they were done
    assert "5" in [told[0] for told in tasks.retries]
    for _ in range(600):
        if culprit not in tasks.workers() and len(tasks.workers()) == 2:
            break
        time.sleep(0.05)
    assert culprit in before - set(tasks.workers())
    assert len(tasks.workers()) == 2
