"""``hpcfwi check`` says yes to a right gradient and no to a wrong one."""

from pathlib import Path

import numpy as np
import pytest
from devito import switchconfig

from hpcfwi.config.run import load_run_config
from hpcfwi.errors import DataError
from hpcfwi.inversion.conditioning.change_of_variables import Conditioned
from hpcfwi.inversion.gradient_check import check_gradient, extrapolate
from hpcfwi.inversion.misfits.least_squares import LeastSquares
from hpcfwi.inversion.misfits.registry import MISFITS
from hpcfwi.model.problem import Problem
from hpcfwi.solver.boundary import Sponge
from hpcfwi.solver.storage import SnapshotStorage

CIRCLE = Path(__file__).parents[2] / "jobs" / "circle.toml"
SMALL = ["grid.shape=[41, 41]", "data.recording_time=400", "wavelet.peak_frequency=15",
         "acquisition.sources.last=[20.0, 400.0]", "acquisition.receivers.first=[380.0, 0.0]",
         "acquisition.receivers.last=[380.0, 400.0]", "model.radius=80", "inversion.bounds=[2.0, 3.5]"]  # fmt: skip

SPONGE = ["solver.boundary=sponge", "solver.layer=15"]


def problem(*settings):
    return Problem.from_config(load_run_config(CIRCLE, [*SMALL, *settings]))


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("solver.free_surface=true", "solver.dtype=float64", "acquisition.minimum_depth=5"),
        (*SPONGE, "solver.boundary_gradient=exact"),
    ],
)
def test_a_right_gradient_passes_and_devito_is_quiet(settings, capfd, monkeypatch):
    monkeypatch.delenv("DEVITO_LOGGING", raising=False)
    with switchconfig(log_level="INFO"):  # Devito's own
        report = check_gradient(problem(*settings))
    assert capfd.readouterr() == ("", "")
    assert report.passed
    assert report.dot_product["float64"] < 1e-12
    assert report.dot_product.get("float32", 0) < 1e-4
    assert "verdict: the gradient is right" in report.text
    assert 0 < report.approximation < 0.01  # every k-th step is kept
    assert report.storage == report.approximation
    assert report.visible_below > 0


STEPS = """
[[processing]]
kind = "bandpass"
low = 4
high = 25
[[processing]]
kind = "top_mute"
velocity = 4
taper = 30
[[processing]]
kind = "bottom_mute"
velocity = 1.5
time = 150
taper = 30
[[processing]]
kind = "offset_window"
maximum = 450
taper = 60
[[processing]]
kind = "time_gain"
power = 1
[[processing]]
kind = "resample"
sample_interval = 6
[[processing]]
kind = "bandpass"
low = 6
phase = "causal"
[[processing]]
kind = "normalise"
"""


@pytest.mark.parametrize("wavelet", ["known", pytest.param("estimated", marks=pytest.mark.slow)])
def test_the_gradient_of_processed_gathers_is_right(tmp_path, wavelet):
    path, settings, told = tmp_path / "fwi.toml", [*SMALL], "a wavelet that is estimated from this shot"
    path.write_text(CIRCLE.read_text() + STEPS)
    if wavelet == "estimated":
        for shot in range(11):  # noise, which some wavelet explains in part
            np.save(tmp_path / f"{shot}.npy", np.random.default_rng(shot).standard_normal((101, 101)))
        settings += [f"data.file={tmp_path}", "wavelet.kind=estimate"]
    report = check_gradient(Problem.from_config(load_run_config(path, settings)))
    assert report.passed, report.text
    assert report.processing < 1e-12
    assert "dot product, processing" in report.text
    assert (told in report.text) == (wavelet == "estimated")


@pytest.mark.parametrize(
    "misfit",
    [pytest.param(kind, marks=() if kind == "correlation" else pytest.mark.slow) for kind in MISFITS if kind != "l2"],
)
def test_the_gradient_of_every_misfit_is_right_through_the_processing(tmp_path, misfit):
    path = tmp_path / "fwi.toml"
    path.write_text(CIRCLE.read_text() + STEPS.rpartition("[[processing]]")[0])
    report = check_gradient(Problem.from_config(load_run_config(path, [*SMALL, f"inversion.misfit={misfit}"])))
    assert report.passed, report.text
    assert report.derivative < 1e-8
    assert f"misfit {misfit}" in report.text


def test_a_shot_without_signal_has_no_normalised_misfit(tmp_path):
    for shot in range(11):
        np.save(tmp_path / f"{shot}.npy", np.zeros((101, 101)))
    settings = f"data.file={tmp_path}", "data.traces.dead=keep", "inversion.misfit=awi"
    with pytest.raises(DataError, match="shot 5: the misfit awi is undefined for it: the observed gather is zero"):
        check_gradient(problem(*settings))


def test_cropping_is_reported_as_an_approximation_on_a_fixed_axis_on_which_the_data_are_stable():
    settings = "solver.boundary_gradient=crop", "solver.time_step=critical", "solver.wavefield=full"
    report = check_gradient(problem(*SPONGE, *settings, "inversion.misfit=correlation"))
    assert report.passed
    assert report.approximation > 0.01
    assert "the layer's part dropped" in report.text
    assert "fixed for the test" in report.text


def test_a_wrong_gradient_fails(monkeypatch):
    transpose = Sponge.extend_transpose
    monkeypatch.setattr(Sponge, "extend_transpose", lambda self, g: transpose(self, np.asarray(g)) * 1.01)
    report = check_gradient(problem(*SPONGE, "solver.boundary_gradient=exact"))
    assert not report.passed
    assert "FAILED" in report.text


@pytest.mark.parametrize("error", [pytest.param(1e-2, marks=pytest.mark.slow), 1e-4])
def test_an_adjoint_source_that_is_wrong_by_little_fails(monkeypatch, error):
    evaluate = LeastSquares.evaluate

    def wrong(self, predicted, observed, axis):
        value, source = evaluate(self, predicted, observed, axis)
        return value, source * (1 + error)

    monkeypatch.setattr(LeastSquares, "evaluate", wrong)
    report = check_gradient(problem())
    assert not report.passed
    assert report.derivative == pytest.approx(error, rel=0.01)


def test_a_wavefield_storage_that_replays_too_much_fails(monkeypatch):
    replay = SnapshotStorage.replay
    monkeypatch.setattr(SnapshotStorage, "replay", lambda self: 1.001 * replay(self))
    report = check_gradient(problem("solver.wavefield=full"))
    assert not report.passed
    assert report.derivative == pytest.approx(1e-3, rel=0.01)


@pytest.mark.slow
def test_a_wavefield_storage_that_is_wrong_only_where_it_leaves_steps_out_fails(monkeypatch):
    replay = SnapshotStorage.replay
    monkeypatch.setattr(SnapshotStorage, "replay", lambda self: replay(self) / self.every)  # each snapshot counts once
    report = check_gradient(problem())
    assert not report.passed
    assert report.derivative < 1e-5
    assert report.storage > 0.5


CONDITIONED = (
    "inversion.conditioning.smoothing.length=[60.0, 30.0]",
    "inversion.conditioning.taper=50",
    "inversion.frozen.depth_above=50",
    "inversion.regularisation.total_variation.weight=0.1",
    "inversion.regularisation.tikhonov.weight=0.1",
)


@pytest.mark.slow
def test_a_conditioned_gradient_passes_and_one_that_is_not_pulled_back_exactly_fails(monkeypatch):
    report = check_gradient(problem(*CONDITIONED))
    assert report.passed, report.text
    assert report.jacobian < 1e-12
    pull_back = Conditioned.pull_back
    monkeypatch.setattr(Conditioned, "pull_back", lambda self, x, g: 1.0001 * pull_back(self, x, g))
    report = check_gradient(problem(*CONDITIONED))
    assert not report.passed
    assert report.derivative < 1e-5
    assert report.vector_derivative == pytest.approx(1e-4, rel=0.01)


def test_extrapolation_finds_the_limit_in_spite_of_rounding():
    steps = 0.02 * 0.5 ** np.arange(11)
    rounding = 1e-15 * np.random.default_rng(1).standard_normal(11) / steps
    assert extrapolate(0.25 + np.expm1(steps) + rounding) == pytest.approx(0.25, rel=1e-9)
