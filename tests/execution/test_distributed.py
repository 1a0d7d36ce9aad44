"""Shots on real workers: retried elsewhere, named where they fail for good, summed to the same bytes."""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster, get_worker
from executor_events import note_events

from hpcfwi.errors import DataError, RunError
from hpcfwi.execution.executor import DaskExecutor
from hpcfwi.execution.tasks import task
from hpcfwi.inversion.functional_gradient import FunctionalGradient, blocks, total
from hpcfwi.inversion.objective import task_key


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def gradient(seed):
    return FunctionalGradient(1.0 + seed, np.random.default_rng(seed).standard_normal(50))


def slow_shot(seed, _):
    time.sleep(random.random() * 0.05)
    return gradient(seed)


@task
def fail_once(seed, folder):
    """Fails at the first try, and notes where each try was."""
    with (Path(folder) / f"{seed}").open("a") as file:
        file.write(f"{get_worker().address}\n")
    if len((Path(folder) / f"{seed}").read_text().splitlines()) == 1 and seed == 3:
        raise OSError("the file system was away for a moment")
    return gradient(seed)


@task
def fail_always(seed, _):
    if seed == 2:
        raise ValueError("no way")
    return gradient(seed)


@task
def bad_data(seed, folder):
    if seed == 2:
        with (Path(folder) / "tries").open("a") as file:
            file.write("x")
        raise DataError("2", "its record has 1 values that are NaN")
    return gradient(seed)


def die_once(seed, folder):
    mark = Path(folder) / "died"
    if seed == 4 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return gradient(seed)


def add(client, function, folder, count=20, retries=None):
    tasks = DaskExecutor(client, log_event=note_events([] if retries is None else retries))
    names = [str(i) for i in range(count)]
    keys = [task_key(str(folder), function.__name__, time.monotonic_ns(), i) for i in range(count)]
    return tasks.sum(function, names, [(i, str(folder)) for i in range(count)], keys)


def expected(count=20):
    level = [gradient(i) for i in range(count)]
    while len(level) > 1:
        level = [total(block) for block in blocks(level)]
    return level[0]


def test_the_sum_has_the_same_bytes_whatever_finishes_first(client, tmp_path):
    for _ in range(3):
        found = add(client, slow_shot, tmp_path, count=70)
        assert found.f == expected(70).f
        assert found.g.tobytes() == expected(70).g.tobytes()


def test_nothing_stays_on_the_workers_after_the_sum(client, tmp_path):
    add(client, slow_shot, tmp_path)
    for _ in range(50):
        kept = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks))
        if not kept:
            break
        time.sleep(0.1)
    assert not kept


def test_a_failed_shot_is_tried_again_on_another_worker(client, tmp_path):
    retries = []
    found = add(client, fail_once, tmp_path, retries=retries)
    assert found.g.tobytes() == expected().g.tobytes()
    first, second = (tmp_path / "3").read_text().split()
    assert first != second
    ((shot, worker, reason),) = retries
    assert (shot, worker) == ("3", first)
    assert "the file system was away for a moment" in reason


def test_a_shot_that_always_fails_stops_the_run_with_its_name_and_every_try(client, tmp_path):
    with pytest.raises(RunError, match=r"shot 2 failed 3 times") as caught:
        add(client, fail_always, tmp_path)
    assert str(caught.value).count("ValueError: no way") == 3


def test_a_shot_with_bad_data_stops_the_run_at_once(client, tmp_path):
    with pytest.raises(DataError, match="shot 2: its record has 1 values that are NaN"):
        add(client, bad_data, tmp_path)
    assert (tmp_path / "tries").read_text() == "x"


def test_a_worker_that_dies_in_a_shot_does_not_change_the_sum(client, tmp_path):
    found = add(client, die_once, tmp_path)
    assert (tmp_path / "died").exists()
    assert found.g.tobytes() == expected().g.tobytes()


def test_keys_follow_the_content():
    assert task_key("solver", "model", 1) == task_key("solver", "model", 1)
    assert len({task_key("s", "m", 1), task_key("s", "m", 2), task_key("sm", 1), task_key("s", "m1")}) == 4
