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
    "inversion.iterations=1000",
]
# More than a minute's work for two workers.
LONG = "inversion.evaluations=240"


def words(*settings):
    return [word for setting in (*PROBLEM, *settings) for word in ("--set", setting)]


def events(run_dir):
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def shots_computed(logged):
    return sum(event["event"] == "shot" for event in logged)


def models(logged):
    """How many were asked for; the optimiser may ask for the same one twice."""
    return len({event["evaluation"] for event in logged if event["event"] == "evaluation" and not event["replayed"]})


@pytest.mark.slow
def test_an_inversion_longer_than_its_job_requeues_itself_and_ends_with_the_same_bytes(lab, on_login):
    run_dir = on_login.folder / "run"
    script = [ROOT / "jobs" / "fwi.sh", "fwi.toml", "--site", "generic-slurm", "--run-dir", "run"]
    place = ["-t", "1", "-N1", "--cpus-per-task=2", f"--export=ALL,HPCFWI_ROOT={ROOT}"]
    output = lab.submit(on_login.folder, *place, *script, *words(LONG), seconds=900)
    assert f"{run_dir} holds:" in output, output
    logged = events(run_dir)
    starts = [event for event in logged if event["event"] == "start"]
    assert len(starts) >= 2
    stops = [event for event in logged if event["event"] == "interrupted"]
    assert len(stops) == len(starts) - 1 == output.count("is back in the queue and continues the run")
    for begun, stopped in zip(starts, stops, strict=False):
        assert stopped["reason"].startswith("the batch job ends in ")
        # it has made use of its minute
        assert stopped["time"] - begun["time"] > 20
    # and nothing was killed, or computed twice
    assert not [event for event in logged if event["event"] in ("worker died", "retry")]
    assert shots_computed(logged) == SHOTS * models(logged)
    on_login.run("undisturbed", *PROBLEM, LONG)
    assert (run_dir / "model.npy").read_bytes() == (on_login.folder / "undisturbed" / "model.npy").read_bytes()


def test_a_job_that_must_not_be_requeued_stops(lab, on_login):
    script = [ROOT / "jobs" / "fwi.sh", "fwi.toml", "--site", "generic-slurm", "--run-dir", "run"]
    # Slurm looks every half minute whether it is time for a signal
    place = ["-t", "2", "-N1", "--cpus-per-task=2", f"--export=ALL,HPCFWI_ROOT={ROOT},HPCFWI_REQUEUE=0"]
    output = lab.submit(on_login.folder, *place, "--signal=B:USR1@110", *script, *words("inversion.evaluations=15000"))
    assert "hpcfwi: stopped: SIGUSR1 was received; the same command continues the run" in output, output


@pytest.mark.slow
def test_worker_jobs_of_a_minute_hand_over_before_their_end(on_login):
    """None of them is killed with a shot in hand, and no shot is computed twice."""
    settings = (*PROBLEM, LONG, "site.scheduler.walltime=00:01:00", "site.worker.processes=1")
    words = [word for setting in settings for word in ("--set", setting)]
    done = on_login("run", "fwi.toml", "--site", "generic-slurm", "--nodes", "2", "--run-dir", "run", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    logged = events(on_login.folder / "run")
    draining = [event for event in logged if event["event"] == "job draining"]
    assert len(draining) >= 2, done.stdout
    assert all(0 < event["seconds_left"] < 20 for event in draining)
    assert {event["job"] for event in logged if event["event"] == "job drained"} >= {
        event["job"] for event in draining[:2]
    }
    assert "it gets no more shots, another one follows" in done.stdout
    assert not [event for event in logged if event["event"] in ("worker died", "retry", "job lost")]
    assert shots_computed(logged) == SHOTS * models(logged)
    on_login.run("undisturbed", *PROBLEM, LONG)
    same = [(on_login.folder / name / "model.npy").read_bytes() for name in ("run", "undisturbed")]
    assert same[0] == same[1]
