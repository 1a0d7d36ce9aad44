"""Another package adds a batch system, and a whole inversion runs in its worker jobs: no file of hpcfwi knows of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "toy_batch"
SITE = """
[scheduler]
kind = "toy"
jobs = 2
{scheduler}

[worker]
processes = 1
threads = 1
memory = 2.0
"""


@pytest.fixture
def shell(hpcfwi, tmp_path):
    """A shell in which the package is installed, and its scheduler runs."""
    packages, queue = tmp_path / "packages", tmp_path / "queue"
    shutil.copytree(PACKAGE, packages)
    queue.mkdir()
    metadata = packages / "toy_batch-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-batch\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[hpcfwi.batch_systems]\ntoy = toy_batch:Toy\n")
    hpcfwi.environment |= {
        "PYTHONPATH": f"{packages}:{hpcfwi.environment.get('PYTHONPATH', '')}",
        "PATH": f"{packages}:{hpcfwi.environment['PATH']}",
        "TOY_FOLDER": str(queue),
    }
    return hpcfwi


def write_site(shell, scheduler=""):
    (shell.folder / "toy.toml").write_text(SITE.format(scheduler=scheduler))


def test_an_inversion_runs_in_worker_jobs_of_a_batch_system_that_another_package_adds(shell, first_run):
    write_site(shell)
    done = shell("run", "fwi.toml", "--site", "./toy.toml", "--run-dir", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"workers in 2 jobs of Toy ({shell.folder / 'toy.toml'}), each 1 process of 1 thread" in done.stdout
    run = shell.folder / "run"
    assert (run / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    jobs = {event["job"] for event in events if event["event"] == "job"}
    assert jobs >= {"1", "2"}
    ask = [PACKAGE / "toystat", *sorted(jobs)]
    deadline = time.monotonic() + 20
    while "running" in subprocess.run(ask, env=shell.environment, capture_output=True, text=True, check=True).stdout:
        assert time.monotonic() < deadline, "a job outlives the run"
        time.sleep(0.2)


def test_the_site_file_is_checked_against_what_the_batch_system_has(shell):
    write_site(shell, 'qos = "high"')
    done = shell("site", "script", "./toy.toml")
    assert done.returncode == 2
    assert "scheduler.qos: Toy does not support it" in done.stderr
    write_site(shell)
    script = shell("site", "script", "./toy.toml").stdout
    assert "#TOY queue toys" in script
    assert "distributed.cli.dask_worker" in script


def test_a_rejected_job_names_the_line_of_the_site_file(shell):
    write_site(shell, 'queue = "trains"')
    done = shell("run", "fwi.toml", "--site", "./toy.toml", "--run-dir", "run")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Toy rejected a worker job:" in done.stderr
    assert "toysub: no such queue" in done.stderr
    assert 'toy.toml, line 5: queue = "trains"' in done.stderr
