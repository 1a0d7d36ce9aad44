"""Kill -9 at random moments of a run in stages, with batches, an estimated wavelet, processing and conditioning."""

from __future__ import annotations

import random
import signal
import time

import pytest
from watching import history, logged_events, options, wait_until

KILLS = 20
STAGES = """
[[processing]]
kind = "bandpass"
high = 25.0

[[stage]]
name = "coarse"
high = 6.0
spacing = [40.0, 40.0]
optimizer = "adam"
batch = 3
iterations = 8
full_misfit_every = 4
misfit = "huber"
conditioning.smoothing.length = 30.0

[[stage]]
name = "batches"
optimizer = "lbfgs-batch"
iterations = 4
regularisation.total_variation.weight = 0.01

[[stage.processing]]
kind = "bottom_mute"
velocity = 2.0
taper = 40.0

[[stage]]
name = "all"
misfit = "normalised_envelope"
iterations = 3
"""
SETTINGS = ("site.worker.threads=1", "site.worker.processes=2", "wavelet.peak_frequency=9")


@pytest.fixture
def command(hpcfwi):
    """A run of recorded data, whose wavelet is estimated."""
    config, sources = hpcfwi.folder / "fwi.toml", "acquisition.sources.count=12"
    done = hpcfwi("model", "fwi.toml", "--run-dir", "true", *options(sources))
    assert done.returncode == 0, done.stderr
    text = config.read_text().replace('"ricker"', '"estimate"').replace("[data]", '[data]\nfile = "true/data"')
    config.write_text(text + STAGES)
    return "run", "fwi.toml", *options(sources, *SETTINGS), "--run-dir"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_that_is_killed_at_twenty_random_moments_ends_with_the_same_bytes(hpcfwi, command):
    done = hpcfwi(*command, "whole")
    assert done.returncode == 0, done.stderr
    whole, run_dir, generator = hpcfwi.folder / "whole", hpcfwi.folder / "killed", random.Random(7)
    work = logged_events(whole)
    assert len([event for event in work if event["event"] == "source estimated"]) == 3
    (start,), shots = logged_events(whole, "start"), logged_events(whole, "shot")
    start_up_s, work_s = shots[0]["time"] - start["command_start"], work[-1]["time"] - shots[0]["time"]
    after = []  # the last event before each kill
    while len(after) < KILLS:
        known, process = len(logged_events(run_dir)), hpcfwi.start(*command, "killed")
        if len(after) % 4:
            # amid a batch, an estimate of the wavelet or the change to the next stage
            wait_until(lambda: fresh(run_dir, known) or process.poll() is not None, every=0.005)  # noqa: B023
            time.sleep(generator.uniform(0, 1.2 * work_s / KILLS))
        else:
            time.sleep(generator.uniform(0.1, start_up_s))
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        after.append((logged_events(run_dir) or [{"event": "nothing"}])[-1]["event"])
    print("killed after", after)
    assert len(after) >= KILLS // 2, after
    done = hpcfwi(*command, "killed")
    assert done.returncode == 0, done.stderr
    assert history(run_dir) == history(whole)
    names = sorted(path.relative_to(whole) for path in (whole / "models").iterdir())
    for name in (*names, "model.npy"):
        assert (run_dir / name).read_bytes() == (whole / name).read_bytes(), name


def fresh(run_dir, known):
    """Whether the last start has computed a shot."""
    return any(event["event"] == "shot" for event in logged_events(run_dir)[known:])
