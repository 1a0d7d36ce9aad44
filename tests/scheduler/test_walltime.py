"""A driver whose own job is about to end stops in time, and goes on to the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from watching import logged_events, options

ROOT = Path(__file__).parents[2]


def assert_no_shot_was_computed_twice(run_dir, undisturbed):
    assert (run_dir / "model.npy").read_bytes() == (undisturbed / "model.npy").read_bytes()
    # the optimiser may ask for the same model twice
    evaluations = {event["evaluation"] for event in logged_events(run_dir, "evaluation") if not event["replayed"]}
    shots = logged_events(run_dir, "start")[0]["shots"]
    assert len(logged_events(run_dir, "shot")) == shots * len(evaluations)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_inversion_longer_than_its_job_requeues_itself_and_ends_with_the_same_bytes(
    lab, on_login, longer_than_a_minute
):
    settings, undisturbed = longer_than_a_minute
    run_dir = on_login.folder / "run"
    script = [ROOT / "jobs" / "fwi.sh", "fwi.toml", "--site", "generic-slurm", "--run-dir", "run"]
    place = ["-t", "1", "-N1", "--cpus-per-task=2", f"--export=ALL,HPCFWI_ROOT={ROOT}"]
    output = lab.submit(on_login.folder, *place, *script, *options(*settings), seconds=1500)
    assert f"{run_dir} holds:" in output, output
    starts = logged_events(run_dir, "start")
    assert len(starts) >= 2
    stops = logged_events(run_dir, "interrupted")
    assert len(stops) == len(starts) - 1 == output.count("is back in the queue and continues the run")
    for begun, stopped in zip(starts, stops, strict=False):
        assert stopped["reason"].startswith("the batch job ends in ")
        # it has made use of its minute
        assert stopped["time"] - begun["time"] > 20
    assert not logged_events(run_dir, "worker died", "retry")
    assert_no_shot_was_computed_twice(run_dir, undisturbed)


@pytest.mark.slow
def test_a_job_that_must_not_be_requeued_stops(lab, on_login):
    script = [ROOT / "jobs" / "fwi.sh", "fwi.toml", "--site", "generic-slurm", "--run-dir", "run"]
    # Slurm looks every half minute whether it is time for a signal
    place = ["-t", "2", "-N1", "--cpus-per-task=2", f"--export=ALL,HPCFWI_ROOT={ROOT},HPCFWI_REQUEUE=0"]
    problem = ("acquisition.sources.count=60", "grid.shape=[101, 101]", "grid.spacing=[6.0, 6.0]")
    endless = options(*problem, "inversion.iterations=5000", "inversion.ftol=0", "inversion.gtol=0")
    output = lab.submit(on_login.folder, *place, "--signal=B:USR1@110", *script, *endless)
    assert "hpcfwi: stopped: SIGUSR1 was received; the same command continues the run" in output, output


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_worker_jobs_of_one_minute_finish_their_shots_and_are_replaced_before_the_limit(on_login, longer_than_a_minute):
    """None of them is killed with a shot in hand, and no shot is computed twice."""
    settings, undisturbed = longer_than_a_minute
    words = options(*settings, "site.scheduler.walltime=00:01:00", "site.worker.processes=1")
    done = on_login("run", "fwi.toml", "--site", "generic-slurm", "--nodes", "2", "--run-dir", "run", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    run_dir = on_login.folder / "run"
    draining = logged_events(run_dir, "job draining")
    assert len(draining) >= 2, done.stdout
    assert all(0 < event["seconds_left"] < 20 for event in draining)
    drained = {event["job"] for event in logged_events(run_dir, "job drained")}
    assert drained >= {event["job"] for event in draining[:2]}
    ended = {event["job"] for event in logged_events(run_dir, "job") if event["state"] == "ended"}
    assert ended >= {event["job"] for event in draining[:2]}  # else the status would count them for ever
    assert "it gets no more shots, and another job replaces it" in done.stdout
    assert not logged_events(run_dir, "worker died", "retry", "job lost")
    assert_no_shot_was_computed_twice(run_dir, undisturbed)
