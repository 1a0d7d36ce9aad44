"""A driver whose own job is about to end stops in time, and goes on to the same bytes."""

from __future__ import annotations

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


@pytest.mark.slow
def test_an_inversion_longer_than_its_job_ends_with_the_same_bytes_without_a_hand(lab, on_login):
    run_dir, count = on_login.folder / "run", "inversion.iterations=110"
    script = [ROOT / "jobs" / "fwi.sh", "fwi.toml", "--site", "generic-slurm", "--run-dir", "run"]
    place = ["-t", "1", "-N1", "--cpus-per-task=2", f"--export=ALL,HPCFWI_ROOT={ROOT}"]
    output = lab.submit(on_login.folder, *place, *script, *words(count), seconds=400)
    assert f"{run_dir} holds:" in output, output
    told = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    starts = [event for event in told if event["event"] == "start"]
    assert len(starts) >= 2
    stops = [event for event in told if event["event"] == "interrupted"]
    assert len(stops) == len(starts) - 1 == output.count("is back in the queue and goes on where it was")
    for begun, stopped in zip(starts, stops, strict=False):
        assert stopped["reason"].startswith("the batch job ends in ")
        # it has made use of its minute
        assert stopped["time"] - begun["time"] > 20
    # and nothing was killed, or computed twice
    assert not [event for event in told if event["event"] in ("worker died", "retry")]
    # (the optimiser may ask for the same model twice)
    answers = {event["evaluation"] for event in told if event["event"] == "evaluation" and not event["replayed"]}
    assert sum(event["event"] == "shot" for event in told) == SHOTS * len(answers)
    on_login.run("undisturbed", *PROBLEM, count)
    assert (run_dir / "model.npy").read_bytes() == (on_login.folder / "undisturbed" / "model.npy").read_bytes()


def test_a_job_that_is_not_to_be_put_back_stops(lab, on_login):
    script = [ROOT / "jobs" / "fwi.sh", "fwi.toml", "--site", "generic-slurm", "--run-dir", "run"]
    place = ["-t", "1", "-N1", "--cpus-per-task=2", f"--export=ALL,HPCFWI_ROOT={ROOT},HPCFWI_REQUEUE=0"]
    output = lab.submit(on_login.folder, *place, "--signal=B:USR1@50", *script, *words("inversion.iterations=1000"))
    assert "hpcfwi: stopped: SIGUSR1 was received; the same command goes on where it was" in output, output
