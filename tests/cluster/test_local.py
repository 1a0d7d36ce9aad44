"""How this machine is divided among workers, and where they keep what they need."""

from __future__ import annotations

import os
import time
from pathlib import Path

import dask
import pytest
from distributed import Client
from filelock import FileLock

import hpcfwi.cluster.local as local
from hpcfwi.cluster.layout import Layout, ResourceRequest
from hpcfwi.cluster.local import LocalWorkers, local_layout, scratch_folder
from hpcfwi.config.site import SiteConfig, WorkerSection
from hpcfwi.errors import InputError

GB = 10**9


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Eight cores and 16 GB."""
    monkeypatch.setattr(local, "CPUS", 8)
    monkeypatch.setattr(local, "MEMORY_BYTES", 16 * GB)


def divide(shots=100, shot_bytes=GB // 10, **settings):
    layout = local_layout(WorkerSection(**settings), ResourceRequest(shots, shot_bytes))
    return layout.processes, layout.threads


def test_a_worker_has_one_thread_unless_memory_or_few_shots_forbid_it():
    assert divide() == (8, 1)
    assert divide(shots=3) == (3, 2)
    assert divide(shots=1) == (1, 8)
    assert divide(shot_bytes=6 * GB) == (2, 4)
    assert divide(shot_bytes=13 * GB) == (1, 8)


def test_the_site_may_choose_processes_threads_and_memory():
    assert divide(processes=3) == (3, 2)
    assert divide(processes=3, threads=1) == (3, 1)
    assert divide(threads=4) == (2, 4)
    assert local_layout(WorkerSection(memory=2.0), ResourceRequest(100, GB)).memory == 2 * GB


@pytest.mark.parametrize(
    ("settings", "shot_bytes", "message"),
    [
        ({}, 20 * GB, "one shot needs 21.98 GB, this machine has 14.40 GB"),
        ({"memory": 1.0}, GB, "one shot needs 1.33 GB, site.worker.memory = 1 gives a worker on this machine 1.00 GB"),
        ({"processes": 6}, 4 * GB, "site.worker.processes: is 6; each needs 4.59 GB, .* take at most 3"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused_with_the_numbers(settings, shot_bytes, message):
    with pytest.raises(InputError, match=message):
        divide(shot_bytes=shot_bytes, **settings)


def make_old(folder):
    long_ago = time.time() - 3600
    os.utime(folder / local.LOCK_FILE, (long_ago, long_ago))


def test_a_scratch_folder_exists_while_it_is_needed(tmp_path):
    with scratch_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "x").write_text("")
    assert not list(tmp_path.iterdir())


def test_scratch_of_a_killed_driver_is_removed_and_that_of_a_running_one_stays(tmp_path):
    for name in ("dead", "alive", "young"):
        (tmp_path / f"hpcfwi-{name}").mkdir()
        (tmp_path / f"hpcfwi-{name}" / local.LOCK_FILE).touch()
    for name in ("dead", "alive"):
        make_old(tmp_path / f"hpcfwi-{name}")
    (tmp_path / "hpcfwi-thesis").mkdir()
    with FileLock(tmp_path / "hpcfwi-alive" / local.LOCK_FILE):
        make_old(tmp_path / "hpcfwi-alive")
        with scratch_folder(tmp_path):
            pass
    assert {path.name for path in tmp_path.iterdir()} == {"hpcfwi-alive", "hpcfwi-young", "hpcfwi-thesis"}


def test_the_site_says_where_temporary_files_go(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCFWI_TEST_LOCAL", str(tmp_path))
    site = SiteConfig.model_validate({"filesystem": {"scratch": "${HPCFWI_TEST_LOCAL}/mine"}})
    with (
        LocalWorkers(Layout(1, 1, GB), site=site) as workers,
        Client(workers.cluster(), set_as_default=False) as client,
    ):
        client.wait_for_workers(1)
        (temporary,) = client.run(lambda: os.environ["TMPDIR"]).values()
        (working,) = client.run(lambda dask_worker: dask_worker.local_directory).values()
    assert temporary == str(tmp_path / "mine")
    assert Path(working).is_relative_to(tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_scratch_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    site = SiteConfig.model_validate({"filesystem": {"scratch": str(tmp_path / "file" / "mine")}})
    with pytest.raises(InputError, match=r"site.filesystem.scratch: .*file/mine: cannot be created"):
        LocalWorkers(Layout(1, 1, GB), site=site).__enter__()


def test_the_scheduler_keeps_few_messages_to_a_worker():
    """They hold tasks with all their arguments, and there are as many as shots in a run."""
    before = dask.config.get("distributed.admin.low-level-log-length")
    workers = LocalWorkers(Layout(1, 1, GB))
    with workers, Client(workers.cluster(), set_as_default=False) as client:
        client.gather([client.submit(int, i, key=f"number-{i}") for i in range(50)])
        streams = workers.cluster().scheduler.stream_comms.values()
        assert [len(stream.recent_message_log) <= 10 for stream in streams] == [True]
    assert dask.config.get("distributed.admin.low-level-log-length") == before
