"""A worker whose disk is slow, and processes that are killed amid a file: nothing waits, nothing is lost."""

from __future__ import annotations

import csv
import json
import signal
from collections import Counter

import pytest

SHOTS = 24
SETTINGS = (
    "site.worker.threads=1",
    "site.worker.processes=2",
    f"acquisition.sources.count={SHOTS}",
    "journal.block=1",
    "inversion.ftol=0",
)
COMMAND = ("run", "fwi.toml", "--run-dir", "run", *(word for setting in SETTINGS for word in ("--set", setting)))


@pytest.fixture(scope="module")
def undisturbed(first_run, tmp_path_factory):
    shell = type(first_run[0])(tmp_path_factory.mktemp("undisturbed"))
    shell.run("run", *SETTINGS)
    return shell.folder / "run"


def events(run_dir, kind):
    told = (json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines())
    return [event for event in told if event["event"] == kind]


def assert_same(run_dir, undisturbed):
    assert (run_dir / "model.npy").read_bytes() == (undisturbed / "model.npy").read_bytes()
    rows = []
    for folder in (run_dir, undisturbed):
        with (folder / "history.csv").open() as file:
            rows.append([(row["iteration"], row["evaluations"], row["misfit"]) for row in csv.DictReader(file)])
    assert rows[0] == rows[1]
    assert not list(run_dir.rglob("*.part"))
    assert not list(run_dir.glob("journal/partial-*"))


@pytest.mark.slow
def test_work_moves_away_from_a_worker_whose_disk_is_slow(hpcfwi, meddle, undisturbed):
    run_dir, once = hpcfwi.folder / "run", hpcfwi.folder / "once"
    usual = max(event["seconds"] for event in events(undisturbed, "shot"))
    meddle("slow_disk", seconds=10 * usual, once=once)
    done = hpcfwi(*COMMAND)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert_same(run_dir, undisturbed)
    # of the first evaluation, before which no worker has ever computed a shot
    count = Counter(event["pid"] for event in events(run_dir, "shot") if event["evaluation"] == 1)
    slow = int(once.read_text())
    assert sum(count.values()) == SHOTS
    assert count[slow] <= SHOTS / 4
    assert not events(run_dir, "retry")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["amid", "before its name"])
def test_a_driver_that_is_killed_while_it_writes_to_the_journal(hpcfwi, meddle, undisturbed, where):
    run_dir = hpcfwi.folder / "run"
    meddle("tear", folder="run/journal", at=2, where=where, once=hpcfwi.folder / "once")
    done = hpcfwi(*COMMAND)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = (run_dir / "journal").glob(".*.part")
    (whole,) = (run_dir / "journal").glob("*.bin")
    sizes = left.stat().st_size, whole.stat().st_size
    assert (sizes[0] == sizes[1]) == (where != "amid")
    assert len(list((run_dir / "journal").glob("partial-*/*.bin"))) == SHOTS
    done = hpcfwi(*COMMAND)
    assert done.returncode == 0, done.stderr
    (found,) = events(run_dir, "sums found")
    assert found["shots"] == SHOTS
    assert_same(run_dir, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["amid", "before its name"])
def test_a_worker_that_is_killed_while_it_keeps_a_sum(hpcfwi, meddle, undisturbed, where):
    run_dir = hpcfwi.folder / "run"
    meddle("tear", folder="run/journal/partial-*", at=3, where=where, once=hpcfwi.folder / "once")
    done = hpcfwi(*COMMAND)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert [event["pid"] for event in events(run_dir, "worker died")] == [int((hpcfwi.folder / "once").read_text())]
    assert_same(run_dir, undisturbed)
