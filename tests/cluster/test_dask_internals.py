"""Of tasks that are taken back none begins afterwards, and of those that were begun none is."""

from __future__ import annotations

import time
from pathlib import Path

from hpcfwi.cluster.dask_internals import cancel_tasks, cancel_unstarted

SHOTS, BLOCK = 600, 4


def note(i, folder):
    (Path(folder) / str(i)).touch()
    return i


def hang(i, folder):
    note(i, folder)
    while Path(folder).exists():
        time.sleep(0.01)


def has(folder, count):
    """Return when there are so many files."""
    deadline = time.monotonic() + 20
    while len(list(folder.iterdir())) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def ended(client):
    """Return when no task is known to the scheduler any more."""
    deadline = time.monotonic() + 20
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nothing_is_done_of_what_was_taken_back(client, tmp_path):
    for turn in range(5):
        folder = tmp_path / str(turn)
        folder.mkdir()
        futures = client.map(note, range(SHOTS), folder=str(folder), key=[f"note-{turn}-{i}" for i in range(SHOTS)])
        has(folder, 20 * (turn + 1))
        cancel_unstarted(client, [futures[i : i + BLOCK] for i in range(0, SHOTS, BLOCK)])
        kept = [i for i, future in enumerate(futures) if future.status != "cancelled"]
        assert 0 < len(kept) < SHOTS, "too early or too late"
        assert all((i // BLOCK * BLOCK in kept) == (i in kept) for i in range(SHOTS))
        assert client.gather([futures[i] for i in kept]) == kept
        assert sorted(int(path.name) for path in folder.iterdir()) == kept
        futures.clear()
        ended(client)


def test_what_is_taken_back_while_it_is_at_work_or_done_is_let_go(client, tmp_path):
    done = client.submit(int, 1, key="done", pure=False)
    assert done.result() == 1
    folder = tmp_path / "at work"
    folder.mkdir()
    at_work = client.map(hang, range(2), folder=str(folder), key=["at-work-1", "at-work-2"], pure=False)
    has(folder, 2)
    behind = client.map(note, range(5), folder=str(tmp_path), key=[f"behind-{i}" for i in range(5)], pure=False)
    on_top = client.submit(sum, behind, key="on-top", pure=False)
    cancel_tasks(client, [done, *at_work, *behind, on_top])
    assert {future.status for future in (done, *at_work, *behind, on_top)} == {"cancelled"}
    ended(client)
    folder.rename(tmp_path / "over")
