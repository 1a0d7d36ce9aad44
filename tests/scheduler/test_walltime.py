"""A driver whose own job is about to end stops in time, and goes on to the same bytes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOTS = 60
PROBLEM = [
    f"acquisition.sources.count={SHOTS}",
    "grid.shape=[101, 101]",
    "grid.spacing=[6.0, 6.0]",
    "inversion.ftol=0",
    "inversion.gtol=0",
]


def words(*settings):
    return [word for setting in (*PROBLEM, *settings) for word in ("--set", setting)]


def iterations(run_dir):
    with (run_dir / "history.csv").open() as file:
        return len(list(csv.DictReader(file))) - 1


@pytest.mark.slow
def test_a_job_of_one_minute_stops_before_its_end_and_its_run_goes_on_to_the_same_bytes(lab, on_login):
    run_dir = on_login.folder / "run"
    script = [ROOT / "jobs" / "fwi.sh", "fwi.toml", "--site", "generic-slurm", "--run-dir", "run"]
    place = ["-t", "1", "-N1", "--cpus-per-task=2", f"--export=ALL,HPCFWI_ROOT={ROOT}"]
    output = lab.submit(on_login.folder, *place, *script, *words("inversion.iterations=100000"))
    assert "hpcfwi: stopped: the batch job ends in " in output, output
    assert "the same command goes on where it was" in output
    told = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    (interrupted,) = [event for event in told if event["event"] == "interrupted"]
    assert interrupted["reason"].startswith("the batch job ends in ")
    # it has made use of its minute, and nothing was killed
    assert told[-1]["time"] - told[0]["time"] > 20
    assert not [event for event in told if event["event"] in ("worker died", "retry")]
    reached = iterations(run_dir)
    assert reached >= 1
    for folder in ("run", "undisturbed"):
        on_login.run(folder, *PROBLEM, f"inversion.iterations={reached + 1}")
    told = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    # the optimiser may ask for the same model twice
    answers = {event["evaluation"] for event in told if event["event"] == "evaluation" and not event["replayed"]}
    assert sum(event["event"] == "shot" for event in told) == SHOTS * len(answers)
    assert (run_dir / "model.npy").read_bytes() == (on_login.folder / "undisturbed" / "model.npy").read_bytes()
