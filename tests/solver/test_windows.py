"""Shots in windows: the gradient of the whole model where it matters, at the cost of the window."""

from pathlib import Path

import numpy as np
import pytest

from hpcfwi.config.run import load_run_config
from hpcfwi.inversion.gradient_check import check_gradient
from hpcfwi.model.problem import Problem
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.model.windows import embed
from hpcfwi.run.plan import make_plan
from hpcfwi.solver.engine import DevitoEngine
from hpcfwi.solver.operators import Propagator
from hpcfwi.solver.spec import SolverSpec
from hpcfwi.solver.strategies import strategies

CIRCLE = Path(__file__).parents[2] / "jobs" / "circle.toml"
# A line of 3 km with receivers up to 300 m from each source.
LINE = ["grid.shape=[301, 61]", "grid.spacing=[10, 10]", "model.center=[1500, 300]", "model.radius=150",
        "data.recording_time=600", "wavelet.peak_frequency=15", "inversion.bounds=[2.0, 3.5]",
        "solver.space_order=8"]  # fmt: skip


@pytest.fixture
def streamer(tmp_path):
    """Settings of a survey with a short cable behind each of seven sources."""
    rows = ["shot,source_x,source_z,receiver_x,receiver_z"]
    for shot in range(7):
        x = 20 + 446 * shot
        rows += [
            f"{shot},{x},20,{x + offset if x + offset <= 3000 else x - offset},20" for offset in range(25, 301, 25)
        ]
    table = tmp_path / "geometry.csv"
    table.write_text("\n".join(rows))
    return [*LINE, f"data.geometry={table}"]


def make_problem(settings, *more):
    content = load_run_config(CIRCLE, [*settings, *more]) if not settings[-1].startswith("data.geometry") else None
    if content is None:
        text = CIRCLE.read_text(encoding="utf-8")
        without = text[: text.index("[acquisition.sources]")] + text[text.index("[data]") :]
        path = Path(settings[-1].partition("=")[2]).with_name("fwi.toml")
        path.write_text(without)
        content = load_run_config(path, [*settings, *more])
    return Problem.from_config(content)


def gradient(problem, shot):
    axis, m = problem.time_axis(problem.initial_velocity), squared_slowness(problem.initial_velocity)
    spec = SolverSpec.from_problem(problem)
    engine = DevitoEngine(Propagator(spec), problem.source_signal, m, problem.windows)
    engine.set_model(squared_slowness(problem.true_velocity), own_edges=True)
    observed = engine.record(shot, axis).copy()
    engine.set_model(m)
    residual = []
    f, g = engine.misfit_and_gradient(
        shot, axis, lambda d: residual.append(d - observed) or (0.5 * float((residual[0] ** 2).sum()), residual[0])
    )
    return f, embed(g, engine.window(shot), problem.domain.shape), spec


def test_a_window_that_holds_the_whole_model_gives_its_bytes(streamer):
    whole, windowed = make_problem(streamer), make_problem(streamer, "acquisition.aperture=5000")
    shot = whole.survey.shots[3]
    for found, expected in zip(gradient(windowed, shot), gradient(whole, shot), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_the_gradient_in_a_window_approaches_that_of_the_whole_model(streamer):
    whole = make_problem(streamer)
    errors = []
    for aperture in (50, 150, 300, 600):
        windowed = make_problem(streamer, f"acquisition.aperture={aperture}")
        shot = whole.survey.shots[3]
        g, expected = gradient(windowed, shot)[1], gradient(whole, shot)[1]
        errors.append(np.linalg.norm(g - expected) / np.linalg.norm(expected))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 < errors[0]


@pytest.mark.slow
def test_the_gradient_in_windows_is_exact_and_check_says_what_they_leave_out(streamer):
    report = check_gradient(make_problem(streamer, "acquisition.aperture=100"))
    assert report.passed
    assert 1e-4 < report.window < 0.5
    assert "the gradient in the shot's window of 52 x 61 points differs by" in report.text
    whole = check_gradient(make_problem(streamer, "acquisition.aperture=5000"))
    assert whole.window == 0
    assert check_gradient(make_problem(streamer)).window is None


def test_a_window_takes_the_memory_of_a_survey_of_its_size(streamer):
    windowed = make_problem(streamer, "acquisition.aperture=100")
    assert windowed.windows.shape == (52, 61)
    own = strategies(windowed)[0].spec
    alone = make_problem([*LINE, "grid.shape=[52, 61]", "model.center=[250, 300]", "acquisition.sources.last=[20, 600]",
                          "acquisition.receivers.first=[400, 0]", "acquisition.receivers.last=[400, 600]",
                          "acquisition.receivers.count=12"])  # fmt: skip
    assert own.nbytes <= 1.15 * strategies(alone)[0].spec.nbytes
    rows = dict(make_plan(windowed).rows)
    assert rows["grid"].startswith("301 x 61, in windows of 52 x 61 points, 72 x 81 with 10 cells of CPML")


def test_the_default_aperture_is_the_depth_of_the_model(streamer):
    windows = make_problem(streamer, "acquisition.aperture=auto").windows
    assert windows == make_problem(streamer, "acquisition.aperture=600").windows


def test_a_layer_that_is_wider_than_a_window_is_refused(streamer):
    from hpcfwi.errors import InputError

    with pytest.raises(
        InputError, match=r"solver\.layer: 60 cells are more than the 52 grid points of the window of a shot"
    ):
        make_problem(streamer, "acquisition.aperture=100", "solver.layer=60")
