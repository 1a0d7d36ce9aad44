"""Devito's tutorial 04_dask_pickling, reproduced; its numbers are those of its own script (benchmarks/tutorial_opponent.py)."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

MISFITS = [17247.70, 99734.27, 53516.28, 9223.84, 2246.03, 743.59, 349.88, 149.93]
ERRORS = [11.8686, 9.9972, 8.8524, 8.3412, 7.9558]


def test_misfits_iterations_and_errors_are_the_tutorials(tmp_path):
    job = Path(__file__).parents[2] / "jobs" / "tutorial.toml"
    command = [sys.executable, "-m", "hpcfwi", "run", str(job), "--run-dir", "run", "--set", "output.figures=false"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [e["misfit"] for e in events if e["event"] == "evaluation"] == pytest.approx(MISFITS, rel=1e-3)
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[-1]["evaluations"] == "8"
    assert [float(row["m_error"]) for row in rows[1:]] == pytest.approx(ERRORS, rel=1e-3)
