"""A node on which every shot fails: it gets no more of them, and new jobs avoid it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from watching import logged_events, options

MEDDLING = Path(__file__).parents[1] / "faults" / "meddling"
# Long enough for another job to be submitted, and for it to begin.
PROBLEM = (
    "acquisition.sources.count=24",
    "grid.shape=[201, 201]",
    "grid.spacing=[3.0, 3.0]",
    "inversion.iterations=7",
    "inversion.ftol=0",
)


@pytest.mark.slow
def test_a_node_on_which_shots_fail_is_excluded_and_replaced(on_login):
    path = [str(MEDDLING), *filter(None, [os.environ.get("PYTHONPATH")])]
    on_login.environment |= {
        "PYTHONPATH": os.pathsep.join(path),
        "MEDDLING": json.dumps(["fail_on", {"host": "node1"}]),
    }
    settings = (*PROBLEM, "site.worker.processes=1")
    # jobs that share no node
    words = options(*settings, 'site.scheduler.directives=["--exclusive"]')
    done = on_login("run", "fwi.toml", "--site", "generic-slurm", "--nodes", "2", "--run-dir", "run", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    run_dir = on_login.folder / "run"
    (excluded,) = logged_events(run_dir, "host excluded")
    assert len(excluded["failed_shots"]) >= 3
    (draining,) = logged_events(run_dir, "job draining")
    assert (draining["nodes"], draining["excluded"]) == ("node1", True)
    scripts = [path.read_text() for path in (run_dir / "logs").glob("*.sh")]
    assert sum("#SBATCH --exclude=node1\n" in f"{script}\n" for script in scripts) >= 1
    failed = logged_events(run_dir, "retry")
    assert all("on node1: OSError: libfftw3.so.3" in event["reason"] for event in failed)
    # none of them afterwards
    assert not [event for event in failed if event["time"] > draining["time"] + 5]
    end = done.stdout.partition("failures during the run")[2]
    assert "gets no more shots" in end, done.stdout
    on_login.run("undisturbed", *PROBLEM)
    assert (run_dir / "model.npy").read_bytes() == (on_login.folder / "undisturbed" / "model.npy").read_bytes()
