"""A run with smoothed updates and regularisation, whole and continued."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from watching import logged_events

from hpcfwi import load_run_config
from hpcfwi.inversion.history import History
from hpcfwi.model.problem import Problem
from hpcfwi.reporting.report.data import RunModels
from hpcfwi.reporting.report.models import model_history

CONDITIONED = (
    "inversion.conditioning.smoothing.length=[60.0, 40.0]",
    "inversion.conditioning.taper=60",
    "inversion.regularisation.total_variation.weight=0.02",
    "inversion.frozen.depth_above=60",
)


def rows(run_dir):
    with (run_dir / "history.csv").open() as file:
        return [(row["iteration"], row["misfit"], row["gradient_norm"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_conditioned_run_continues_to_the_same_bytes_and_its_report_has_its_models(hpcfwi):
    whole, run_dir = hpcfwi.folder / "whole", hpcfwi.folder / "run"
    hpcfwi.run("whole", *CONDITIONED, "inversion.iterations=3")
    hpcfwi.run("run", *CONDITIONED, "inversion.iterations=1")
    hpcfwi.run("run", *CONDITIONED, "inversion.iterations=3")
    assert (run_dir / "model.npy").read_bytes() == (whole / "model.npy").read_bytes()
    assert rows(run_dir) == rows(whole)
    assert float(rows(whole)[-1][1]) < 0.5 * float(rows(whole)[0][1])

    evaluations = logged_events(whole, "evaluation")
    assert evaluations[0]["objective"] == evaluations[0]["misfit"]  # the initial model is constant
    assert evaluations[-1]["objective"] > evaluations[-1]["misfit"]

    model, problem = np.load(whole / "model.npy"), Problem.from_config(load_run_config(whole / "config.toml"))
    np.testing.assert_array_equal(model[:, :4], np.float32(2.5))
    # three cells below the mask the update is still tapered
    assert np.abs(model[:, 4] - 2.5).max() < 0.3 * np.abs(model - 2.5).max()
    shown = model_history(whole, History(whole / "history.csv").rows, RunModels.read(whole, (), problem))
    assert len(shown.frames) == 4
    assert not shown.notes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("inversion.conditioning.smoothing.length=-1",), "inversion.conditioning.smoothing.length"),
        (("inversion.conditioning.smoothing.length=[1.0, 2.0, 3.0]",), "has 3 values, but the grid has 2 axes"),
        (("inversion.conditioning.smoothing.unit=km", "inversion.conditioning.smoothing.length=1"), '"wavelengths"'),
    ],
)
def test_mistakes_are_named(hpcfwi, settings, message):
    done = hpcfwi("run", "fwi.toml", *(word for setting in settings for word in ("--set", setting)))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
