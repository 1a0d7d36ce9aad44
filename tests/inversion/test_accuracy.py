"""The error budget of a record against errors that were measured otherwise."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hpcfwi.config.run import load_run_config
from hpcfwi.inversion.accuracy import error_budget
from hpcfwi.model.problem import Problem
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.solver.engine import DevitoEngine
from hpcfwi.solver.operators import Propagator
from hpcfwi.solver.spec import SolverSpec

CIRCLE = Path(__file__).parents[2] / "jobs" / "circle.toml"
# one source, and receivers on a line as far from it as its waves travel in the recording time
SMALL = ["grid.shape=[121, 41]", "grid.spacing=[10, 10]", "data.recording_time=700", "wavelet.peak_frequency=15",
         "model.center=[600, 150]", "model.radius=10", "model.inside=2.0", "model.background=2.0", "initial.velocity=2.0",
         "acquisition.sources.first=[50, 150]", "acquisition.sources.last=[50, 150]", "acquisition.sources.count=1",
         "acquisition.receivers.first=[1140, 140]", "acquisition.receivers.last=[1150, 150]",
         "acquisition.receivers.count=2", "data.sample_interval=2", "inversion.bounds=[1.9, 3.0]"]  # fmt: skip


def make_problem(*settings):
    return Problem.from_config(load_run_config(CIRCLE, [*SMALL, *settings]))


@cache
def budget(*settings):
    problem = make_problem(*settings)
    return error_budget(problem, problem.survey.shots[0], problem.time_axis(problem.initial_velocity))


@cache
def record(*settings):
    problem = make_problem(*settings)
    axis, spec = problem.time_axis(problem.initial_velocity), SolverSpec.from_problem(problem)
    engine = DevitoEngine(Propagator(spec), problem.source_signal)
    engine.set_model(squared_slowness(problem.initial_velocity))
    return problem.sampling.synthetic(engine.record(problem.survey.shots[0], axis), axis, "float64")


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.slow
def test_the_errors_of_space_and_time_are_those_of_a_finer_grid_and_a_shorter_step():
    fine = record("grid.shape=[361, 121]", "grid.spacing=[3.333333333, 3.333333333]", "solver.layer=30")
    space = relative(record("solver.layer=20"), fine)
    assert 0.4 * budget().space < space < budget().space
    assert budget("solver.space_order=12").space < 0.5 * budget().space
    assert budget().time < 1e-4
    kept = relative(record("solver.layer=20", "solver.time_dispersion=kept"), record("solver.layer=20"))
    assert budget("solver.time_dispersion=kept").time == pytest.approx(kept, rel=0.3)


def test_a_thin_layer_has_a_larger_error_of_the_edges():
    wide, thin = budget("solver.layer=12").edges, budget("solver.layer=4").edges
    assert 0 < wide < 0.002 < thin
    sponge = budget("solver.boundary=sponge")
    assert sponge.edges > 0.01
    assert "40 cells of sponge, measured against 30 of CPML" in sponge.text


@pytest.mark.slow
def test_positions_between_grid_points_have_an_error_of_interpolation():
    off = ("acquisition.receivers.first=[1144, 143]", "acquisition.receivers.last=[1146, 147]")
    assert budget().interpolation < 1e-9
    assert "all positions are grid points" in budget().text
    sinc, linear = budget(*off).interpolation, budget(*off, "solver.interpolation=linear").interpolation
    assert 1e-6 < sinc < 0.005 < linear
    measured = relative(record(*off, "solver.interpolation=linear"), record(*off))
    assert linear == pytest.approx(measured, rel=0.6)
    surface = ("solver.free_surface=true", "acquisition.sources.first=[55, 13]", "acquisition.sources.last=[55, 13]")
    assert budget(*off, *surface).interpolation < 0.01
