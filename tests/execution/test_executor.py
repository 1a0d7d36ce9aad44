"""Tasks that fail in unusual ways, and what a name of a task stands for; the usual ways are in test_distributed.py."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, Thread

import numpy as np
import pytest
from distributed import Client, LocalCluster, get_worker
from executor_events import note_events

from hpcfwi.errors import DataError, RunError
from hpcfwi.execution import shots
from hpcfwi.execution.executor import DaskExecutor
from hpcfwi.execution.reduction import SumTree
from hpcfwi.execution.tasks import task
from hpcfwi.inversion.functional_gradient import BLOCK, FunctionalGradient
from hpcfwi.inversion.objective import task_key


def number(value, *_):
    return FunctionalGradient(float(value), np.array([float(value)]))


@task
def fail_on_the_first_workers(folder, failures):
    """Fail on the first workers, and note where."""
    seen = Path(folder) / "seen"
    with seen.open("a") as file:
        file.write(f"{get_worker().address}\n")
    if len(seen.read_text().split()) <= failures:
        raise OSError("this node has lost its file system")
    return number(1)


class Unpicklable(Exception):
    """Cannot be made again from its arguments, as many errors of libraries cannot."""

    def __init__(self, one, two):
        super().__init__("only one")
        self.lock = one
        self.other = two


@task
def fail_unpicklably(*_):
    raise Unpicklable(Lock(), None)


def fail_unpicklably_outside_of_a_task(*_):
    raise Unpicklable(None, None)


def kill_the_worker(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def note(value, folder):
    with (Path(folder) / "calls").open("a") as file:
        file.write("x")
    return number(value)


@contextmanager
def background(function):
    thread = Thread(target=function)
    thread.start()
    yield
    thread.join()


def test_a_shot_that_failed_twice_is_tried_on_a_third_worker(client, tmp_path):
    client.cluster.scale(3)
    client.wait_for_workers(3, timeout=300)
    try:
        tasks = DaskExecutor(client)
        found = tasks.sum(fail_on_the_first_workers, ["a"], [(str(tmp_path), 2)], [task_key(tmp_path)])
    finally:
        client.cluster.scale(2)
    assert found.f == 1
    tried = (tmp_path / "seen").read_text().split()
    assert len(set(tried)) == len(tried) == 3


@pytest.mark.parametrize("expected", [(1, 1), (2, 2)])
def test_with_one_worker_a_shot_is_tried_there_again_after_a_wait_if_more_are_expected(tmp_path, monkeypatch, expected):
    monkeypatch.setattr(shots, "NEW_HOST_TIMEOUT_S", 1.0 if expected == (2, 2) else 600.0)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        tasks, began = DaskExecutor(client, expected=lambda: expected), time.monotonic()
        assert tasks.sum(fail_on_the_first_workers, ["a"], [(str(tmp_path), 2)], [task_key(tmp_path)]).f == 1
        assert expected == (1, 1) or time.monotonic() - began > 2.0  # two waits


@pytest.mark.parametrize("function", [fail_unpicklably, fail_unpicklably_outside_of_a_task])
def test_an_error_that_cannot_be_pickled_is_reported(client, function, tmp_path):
    with pytest.raises(RunError, match=r"shot a failed 3 times") as caught:
        DaskExecutor(client).sum(function, ["a"], [(1,)], [task_key(tmp_path)])
    assert str(caught.value).count("\n  ") == str(caught.value).count("Unpicklable: only one") == 3


def test_a_shot_whose_error_cannot_be_pickled_is_tried_on_another_worker(client, tmp_path):
    retries = []
    tasks = DaskExecutor(client, log_event=note_events(retries))
    with pytest.raises(RunError):
        tasks.sum(fail_unpicklably, ["a"], [(1,)], [task_key(tmp_path)])
    (_, first, _), (_, second, _) = retries
    assert first.startswith("tcp://")
    assert second.startswith("tcp://")
    assert first != second


def test_a_shot_that_kills_every_worker_is_named(client, tmp_path):
    with pytest.raises(RunError, match="shot a failed 4 times") as caught:
        DaskExecutor(client, exit_reason=lambda worker: f"of {worker}").sum(
            kill_the_worker, ["a"], [(1,)], [task_key(tmp_path)]
        )
    lines = re.findall(r"^  its worker (tcp://\S+) died: of (tcp://\S+)$", str(caught.value), re.MULTILINE)
    assert len(lines) == 4
    assert all(worker == named for worker, named in lines)


def test_a_result_is_not_reused_for_files_of_another_content(client, tmp_path):
    """The same function, the same shots and arguments: only what their files hold has changed."""
    content = tmp_path / "content"

    def read(_):
        return number(float(content.read_text()))

    found = []
    for text in ("1", "2"):
        content.write_text(text)
        found.append(DaskExecutor(client).sum(read, ["a", "b"], [(0,), (0,)], [task_key(text, i) for i in range(2)]).f)
    assert found == [2.0, 4.0]


def test_a_result_that_is_still_there_is_reused_for_the_same_content(client, tmp_path):
    keys = [task_key(tmp_path, "same")]
    kept = client.submit(note, 5, str(tmp_path), key=f"note-a-{keys[0]}", pure=False)
    assert kept.result().f == 5
    assert DaskExecutor(client).sum(note, ["a"], [(5, str(tmp_path))], keys).f == 5
    assert (tmp_path / "calls").read_text() == "x"


@pytest.mark.parametrize("small", [False, True])
def test_each_of_several_identical_shots_counts(client, small):
    """Shots of equal content have equal digests: blocks of them must not become one task."""
    count = 3 * BLOCK
    names = [str(i) for i in range(count)]
    found = DaskExecutor(client).sum(number, names, [(1,)] * count, [task_key("equal", small)] * count, small=small)
    assert found.f == count


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("count", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK**2, BLOCK**2 + 1])
def test_sums_of_any_number_of_shots_are_whole(client, count, small, tmp_path):
    names = [str(i) for i in range(count)]
    keys = [task_key(tmp_path, i) for i in names]
    found = DaskExecutor(client).sum(number, names, [(i,) for i in range(count)], keys, small=small)
    assert found.f == found.g[0] == sum(range(count))


def test_the_last_sum_has_the_same_bytes_wherever_it_is_made(client, tmp_path):
    names = [str(i) for i in range(3 * BLOCK - 1)]
    arguments, sums = [(0.1 * i,) for i in range(len(names))], set()
    for small in (False, True):
        keys = [task_key(tmp_path, small, name) for name in names]
        found = DaskExecutor(client).sum(number, names, arguments, keys, small=small)
        sums.add((found.f, found.g.tobytes()))
    assert len(sums) == 1


def test_the_tree_has_a_level_for_each_power_of_its_block():
    keys = [str(i) for i in range(BLOCK**2 + 1)]
    assert [len(level) for level in SumTree(keys).keys] == [BLOCK**2 + 1, BLOCK + 1, 2, 1]


def test_a_gradient_that_is_lost_before_its_sum_and_turns_out_bad_names_its_shot(client, tmp_path):
    """A shot is computed anew where a worker took its gradient along; its own errors are its own then, too."""

    @task
    def shot(name, folder):
        first, go = Path(folder) / "first", Path(folder) / "go"
        if name == "b":
            while not go.exists():
                time.sleep(0.05)
        elif first.exists():
            raise DataError("a", "its record is not what it was")
        else:
            first.write_text(str(os.getpid()))
        return number(1)

    def kill_the_first():
        while not (tmp_path / "first").exists():
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(int((tmp_path / "first").read_text()), signal.SIGKILL)
        time.sleep(0.5)
        (tmp_path / "go").touch()

    arguments = [(name, str(tmp_path)) for name in "ab"]
    with background(kill_the_first), pytest.raises(DataError, match="shot a: its record is not what it was"):
        DaskExecutor(client).sum(shot, ["a", "b"], arguments, [task_key(tmp_path, name) for name in "ab"])


def test_a_run_that_has_lost_all_workers_stops_with_a_message(tmp_path):
    go = tmp_path / "go"

    def wait_for_ever(_):
        go.touch()
        time.sleep(600)

    def give_up(idle):
        if idle > 1:
            raise RunError(f"no worker for {idle} s")

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):

        def leave():
            while not go.exists():
                time.sleep(0.05)
            cluster.scale(0)

        with background(leave), pytest.raises(RunError, match="no worker for"):
            DaskExecutor(client, check_workers=give_up).sum(wait_for_ever, ["a"], [(0,)], [task_key(tmp_path)])


@task
def fail_at_once_on_one_worker(value, folder):
    """As a node does on which a library is missing; the others take their time."""
    bad = Path(folder) / "bad"
    with suppress(FileExistsError):
        bad.mkdir()
        (Path(folder) / "address").write_text(get_worker().address)
    while not (Path(folder) / "address").exists() or not (Path(folder) / "address").read_text():
        time.sleep(0.01)
    if get_worker().address == (Path(folder) / "address").read_text():
        raise OSError("a library is missing here")
    time.sleep(0.3)
    return number(value)


def test_a_worker_that_fails_at_once_gets_no_shot_twice(client, tmp_path):
    """It is idle while the other one works, and must not be helped to a shot that it has failed at."""
    retries = []
    tasks = DaskExecutor(client, log_event=note_events(retries))
    names = [str(i) for i in range(12)]
    arguments = [(i, str(tmp_path)) for i in range(12)]
    found = tasks.sum(fail_at_once_on_one_worker, names, arguments, [task_key(tmp_path, name) for name in names])
    assert found.f == sum(range(12))
    again = [name for name, _, _ in retries]
    assert len(again) >= 2
    assert len(set(again)) == len(again)
