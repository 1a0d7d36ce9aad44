"""Runs with other misfits than least squares: workers make them, and a shot for which they are undefined is left out."""

import json

import numpy as np

SETTINGS = "output.report=false", "inversion.iterations=1", "acquisition.receivers.count=5"


def test_workers_make_a_misfit_with_parameters_which_belong_to_the_problem(hpcfwi):
    hpcfwi.run("run", *SETTINGS, "inversion.misfit.kind=huber", "inversion.misfit.threshold=0.3")
    again = "run", "fwi.toml", "--run-dir", "run", *(word for s in SETTINGS for word in ("--set", s))
    done = hpcfwi(*again, "--set", 'inversion.misfit={kind="huber", threshold=0.5}')
    assert done.returncode == 2, done.stderr
    assert "inversion.misfit.threshold" in done.stderr


def test_a_shot_for_which_the_misfit_is_undefined_is_left_out(hpcfwi):
    observed = np.random.default_rng(0).standard_normal((76, 5)).cumsum(axis=0)
    (hpcfwi.folder / "data").mkdir()
    for shot in range(3):
        np.save(hpcfwi.folder / "data" / f"{shot}.npy", observed * (shot != 1))
    given = *SETTINGS, "data.file=data", "data.traces.dead=keep", "data.mismatch=warn", "inversion.misfit=correlation"
    words = [word for setting in given for word in ("--set", setting)]
    refused = hpcfwi("run", "fwi.toml", "--run-dir", "refused", *words)
    assert refused.returncode == 2, refused.stderr
    assert "shot 1: the misfit correlation is undefined for it: the observed gather is zero" in refused.stderr
    assert "Traceback" not in refused.stderr
    hpcfwi.run("run", *given, "data.quorum=0.6")
    excluded = json.loads((hpcfwi.folder / "run" / "excluded-shots.json").read_text())
    assert "1" in str(excluded)
    assert "the misfit correlation is undefined" in str(excluded)
