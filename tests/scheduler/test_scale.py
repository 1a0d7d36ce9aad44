"""Scaling studies on a real Slurm: worker jobs, and parts of one allocation."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = ("fwi.toml", "--site", "generic-slurm", "--repeat", "1", "--iterations", "1", "--study-dir", "study")


def results(folder):
    with (folder / "study" / "scaling.csv").open() as file:
        return list(csv.DictReader(file)), json.loads((folder / "study" / "scaling.json").read_text())


@pytest.mark.slow
def test_a_study_runs_with_worker_jobs(on_login):
    done = on_login("scale", *WORDS, "--nodes", "1,2", "--stand-in", "0.2")
    assert done.returncode == 0, done.stdout + done.stderr
    rows, study = results(on_login.folder)
    assert [(row["nodes"], row["workers"]) for row in rows] == [("1", "1"), ("2", "2")]
    assert len(study["provenance"]["jobs"]) >= 3
    assert set(study["provenance"]["hosts"]) <= {"node1", "node2", "node3"}
    assert study["provenance"]["site"] == "generic-slurm"
    for row in rows:
        assert float(row["queue_wait_seconds"]) > 0
        assert float(row["worker_start_seconds"]) > 0
        assert abs(float(row["unexplained_seconds"])) < 0.03 * float(row["wall_seconds"])


@pytest.mark.slow
def test_a_weak_study_runs_on_parts_of_an_allocation(lab, on_login):
    words = [*WORDS, "--nodes", "1,3", "--weak", "--stand-in", "0.2"]
    export = f"--export=ALL,HPCFWI_ROOT={ROOT}"
    out = lab.submit(on_login.folder, "-N3", "--mem=2000M", export, ROOT / "jobs" / "scaling.sh", *words, seconds=180)
    rows, study = results(on_login.folder)
    assert [(row["nodes"], row["shots"], row["scaling"]) for row in rows] == [("1", "1", "weak"), ("3", "3", "weak")]
    assert study["provenance"]["launch"] == "allocation"
    assert len(study["provenance"]["hosts"]) == 3
    assert "weak scaling of fwi in study; nodes: 1, 3; 1 run each" in out


def test_more_nodes_than_the_allocation_has_are_refused_before_anything_runs(on_login):
    on_login.prefix += ["salloc", "--quiet", "-N2", "--mem=2000M"]
    done = on_login("scale", *WORDS, "--nodes", "1,3")
    assert done.returncode == 2
    assert "--nodes 3: job " in done.stderr
    assert "has 2 nodes; give at most --nodes 2" in done.stderr
    assert not (on_login.folder / "study").exists()
