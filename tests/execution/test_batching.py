"""Batches, several shots in one task: when they pay, the same bytes, and failures."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from distributed import get_worker
from executor_events import note_events

from hpcfwi.errors import DataError, ShotFailed
from hpcfwi.events.types import TaskFailed, parse_event
from hpcfwi.execution.executor import DaskExecutor
from hpcfwi.execution.tasks import EVENT_TOPIC, task
from hpcfwi.inversion.functional_gradient import BLOCK, FunctionalGradient
from hpcfwi.inversion.objective import task_key


@task
def shot(i, folder):
    """Notes where it was computed; does what a file of its name says."""
    folder = Path(folder)
    with (folder / "computed").open("a") as file:
        file.write(f"{i} {get_worker().get_current_task()} {get_worker().address}\n")
    order = folder / f"order-{i}"
    if order.exists():
        text = order.read_text()
        if text == "bad data":
            raise DataError(str(i), "its record is no record")
        if text == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "fail once":
            order.unlink()
            raise OSError("the file system is away")
    return FunctionalGradient(0.1 * i, np.array([0.1 * i, 0.3 / (i + 1)]))


class Sum:
    """A sum over shots, its retries and its progress."""

    def __init__(self, client, folder, shots):
        self.folder, self.shots = folder, shots
        self.retries, self.progress = [], []
        self.tasks = DaskExecutor(client, log_event=note_events(self.retries))

    def __call__(self, batched, small=False):
        names = [str(i) for i in range(self.shots)]
        (self.folder / "computed").write_text("")
        found = self.tasks.sum(
            shot,
            names,
            [(i, str(self.folder)) for i in range(self.shots)],
            [task_key(self.folder, batched, small, time.monotonic(), name) for name in names],
            lambda *counts: self.progress.append(counts),
            small=small,
            batched=batched,
        )
        return found.f.hex(), found.g.tobytes()

    @property
    def computed(self):
        """Shot, task and worker of each computation."""
        return [tuple(line.split()) for line in (self.folder / "computed").read_text().splitlines()]


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("shots", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, BLOCK**2 + 3])
def test_a_sum_in_batches_has_the_same_bytes(client, tmp_path, shots, small):
    whole = Sum(client, tmp_path, shots)
    alone = whole(batched=False, small=small)
    assert len({key for _, key, _ in whole.computed}) == shots
    whole.progress.clear()
    assert whole(batched=True, small=small) == alone
    assert sorted(int(i) for i, _, _ in whole.computed) == list(range(shots))
    assert len({key for _, key, _ in whole.computed}) == math.ceil(shots / BLOCK)
    assert whole.progress == sorted(whole.progress)
    assert whole.progress[-1] == (shots, shots)
    assert whole.tasks.shots_per_task == min(shots, BLOCK)


def test_the_shots_of_a_batch_that_fails_are_computed_one_by_one(client, tmp_path):
    whole = Sum(client, tmp_path, 3 * BLOCK)
    expected = whole(batched=False)
    (tmp_path / f"order-{BLOCK + 2}").write_text("fail once")
    assert whole(batched=True) == expected
    ((name, worker, reason),) = whole.retries
    assert name == str(BLOCK + 2)
    assert worker in {address for _, _, address in whole.computed}
    assert "the file system is away" in reason
    tasks = {}
    for i, key, _ in whole.computed:
        tasks.setdefault(int(i), []).append(key.partition("-")[0])
    assert tasks == {
        i: ["batch", "shot"] if BLOCK <= i <= BLOCK + 2 else ["shot"] if BLOCK + 2 < i < 2 * BLOCK else ["batch"]
        for i in range(3 * BLOCK)
    }


def test_the_shot_of_a_batch_that_failed_is_reported_once(client, tmp_path):
    whole = Sum(client, tmp_path, 2 * BLOCK)
    lines = []
    client.subscribe_topic(EVENT_TOPIC, lambda event: lines.append(event[1]))
    (tmp_path / "order-3").write_text("fail once")
    whole(batched=True)
    failures = [event for event in map(parse_event, lines) if isinstance(event, TaskFailed)]
    assert [event.task for event in failures] == ["shot"]
    assert [name for name, _, _ in whole.retries] == ["3"]
    client.unsubscribe_topic(EVENT_TOPIC)


def test_a_shot_that_cannot_be_used_stops_with_its_name(client, tmp_path):
    whole = Sum(client, tmp_path, 2 * BLOCK)
    (tmp_path / "order-3").write_text("bad data")
    with pytest.raises(DataError, match="shot 3: its record is no record"):
        whole(batched=True)
    assert not whole.retries


def test_of_a_batch_only_the_shot_that_kills_every_worker_is_named(client, tmp_path):
    whole = Sum(client, tmp_path, 2 * BLOCK)
    (tmp_path / "order-5").write_text("kill")
    with pytest.raises(ShotFailed, match="shot 5 failed 4 times"):
        whole(batched=True)


def test_a_batch_that_is_lost_with_its_worker_is_computed_again(client, tmp_path):
    """One of two batches is done when its worker dies; the other one waits for that."""
    count = 2 * BLOCK

    @task
    def slow(i, folder):
        held = Path(folder) / "held"
        if i == 0:
            (Path(folder) / "pid").write_text(str(os.getpid()))
        until = time.monotonic() + 30
        while i == BLOCK and not held.exists() and time.monotonic() < until:
            time.sleep(0.02)
        return shot(i, folder)

    def progress(done, _):
        if done == BLOCK and not (tmp_path / "held").exists():
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
            time.sleep(0.5)
            (tmp_path / "held").touch()

    whole = Sum(client, tmp_path, count)
    expected = whole(batched=False)
    (tmp_path / "computed").write_text("")
    names = [str(i) for i in range(count)]
    arguments = [(i, str(tmp_path)) for i in range(count)]
    keys = [task_key(tmp_path, "lost", name) for name in names]
    found = whole.tasks.sum(slow, names, arguments, keys, progress, batched=True)
    assert (found.f.hex(), found.g.tobytes()) == expected
    assert len(whole.computed) >= count + BLOCK


def test_shots_that_are_too_short_for_the_number_of_workers_go_in_batches(client, tmp_path):
    whole = Sum(client, tmp_path, 4 * BLOCK)
    alone = whole(batched=None)
    assert whole.tasks.shots_per_task == 1, "their duration is unknown"
    whole.tasks.seconds.extend([1e-5, 1e-5, 5.0])  # one of them had to load its solver
    assert whole(batched=None) == alone
    assert whole.tasks.shots_per_task == BLOCK
    whole.tasks.seconds.extend([1.0] * 10)
    assert whole(batched=None) == alone
    assert whole.tasks.shots_per_task == 1
