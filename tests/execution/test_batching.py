"""Several shots in one task: when that pays, that the sum stays the same to the byte, and what becomes of one that fails."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from distributed import get_worker

from hpcfwi.errors import DataError, ShotFailed
from hpcfwi.events.types import TaskFailed, parse_event
from hpcfwi.execution.batching import MAX_BATCH_S, should_batch
from hpcfwi.execution.executor import DaskExecutor
from hpcfwi.execution.tasks import EVENT_TOPIC, task
from hpcfwi.inversion.misfit import BLOCK, FunctionalGradient
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
    """A sum over shots, and what is told meanwhile."""

    def __init__(self, client, folder, shots):
        self.folder, self.shots = folder, shots
        self.retries, self.progress = [], []
        self.tasks = DaskExecutor(client, on_retry=lambda *told: self.retries.append(told))

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
def test_the_sum_has_the_same_bytes(client, tmp_path, shots, small):
    whole = Sum(client, tmp_path, shots)
    alone = whole(batched=False, small=small)
    assert len({key for _, key, _ in whole.computed}) == shots
    whole.progress.clear()
    assert whole(batched=True, small=small) == alone
    assert sorted(int(i) for i, _, _ in whole.computed) == list(range(shots))
    assert len({key for _, key, _ in whole.computed}) == math.ceil(shots / BLOCK)
    assert whole.progress == sorted(whole.progress)
    assert whole.progress[-1] == (shots, shots)
    assert whole.tasks.in_one_task == min(shots, BLOCK)


def test_a_bundle_that_fails_is_computed_shot_by_shot(client, tmp_path):
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


def test_which_of_them_failed_is_reported_once(client, tmp_path):
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


def test_a_shot_that_ends_every_worker_is_named_and_no_other_one(client, tmp_path):
    whole = Sum(client, tmp_path, 2 * BLOCK)
    (tmp_path / "order-5").write_text("kill")
    with pytest.raises(ShotFailed, match="shot 5 failed 4 times"):
        whole(batched=True)


def test_what_is_lost_with_its_worker_before_its_sum_is_computed_again(client, tmp_path):
    """One of two bundles is done when its worker dies; the other one waits until that is so."""
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


def test_shots_are_bundled_where_they_are_too_short_for_so_many_workers(client, tmp_path):
    whole = Sum(client, tmp_path, 4 * BLOCK)
    alone = whole(batched=None)
    assert whole.tasks.in_one_task == 1, "nobody knows yet how long they are"
    whole.tasks.seconds.extend([1e-5, 1e-5, 5.0])  # one of them had to load its solver
    assert whole(batched=None) == alone
    assert whole.tasks.in_one_task == BLOCK
    whole.tasks.seconds.extend([1.0] * 10)
    assert whole(batched=None) == alone
    assert whole.tasks.in_one_task == 1


@pytest.mark.parametrize(
    ("shots", "workers", "seconds", "wanted"),
    [
        (100_000, 4096, 1.0, True),  # 120 s of the scheduler's for 25 s of work
        (100_000, 4096, MAX_BATCH_S / BLOCK + 0.01, False),  # too long for the time after a signal
        (100_000, 100, 1.0, False),  # 83 shots a second are no trouble
        (100_000, 500, 0.1, True),
        (5_000, 500, 0.5, False),  # two bundles a worker at most: some would have one, others two
        (5_000, 4096, 0.5, True),  # one bundle for some, but 6 s to hand out all
        (100, 4096, 0.001, True),
        (1, 1, 0.0, True),
        (100, 2, 0.02, False),
        (100, 0, 0.02, False),
        (100, 2, math.nan, False),
    ],
)
def test_whether_it_pays(shots, workers, seconds, wanted):
    assert should_batch(shots, workers, seconds) is wanted
