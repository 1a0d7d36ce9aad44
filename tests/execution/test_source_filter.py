"""Predicted gathers with source filters: what another wavelet would predict, and an exact gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hpcfwi.artifacts import stage
from hpcfwi.execution.shot_worker import ShotContext, ShotWorker
from hpcfwi.execution.tasks import observe_shot
from hpcfwi.io import make_private
from hpcfwi.model.source_estimate import (
    SourceFilter,
    SourceFilters,
    estimate_filter,
    transform_length,
)
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.solver.operators import stage_solver
from hpcfwi.solver.spec import SolverSpec

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "staged").mkdir()
    return make_private(tmp_path / "staged")


@pytest.fixture
def problem(fwi_toml, make_problem):
    """The small problem with random data, a wavelet to be estimated, and an exact gradient."""
    (fwi_toml.parent / "gathers").mkdir()
    for shot in range(3):
        values = np.random.default_rng(shot).normal(size=(151, 20))
        np.save(fwi_toml.parent / "gathers" / f"{shot}.npy", values)
    fwi_toml.write_text(fwi_toml.read_text().replace('"ricker"', '"estimate"'))
    exact = ("solver.dtype=float64", "solver.wavefield=full")
    return make_problem(f"data.file={fwi_toml.parent}/gathers", "data.recording_time=600", *exact)


@pytest.fixture
def worker(folder, problem):
    """Makes a worker with source filters."""
    spec = SolverSpec.from_problem(problem)
    solver, wavelet = stage_solver(folder, spec)[0], stage(folder, "wavelet", problem.source_signal)
    edges = stage(folder, "model", squared_slowness(problem.initial_velocity), name="edges.pkl")
    context = ShotContext(solver, spec, wavelet, edges, problem.sampling, 10**8)

    def make(filters: SourceFilters | None = None) -> ShotWorker:
        source = None if filters is None else stage(folder, "source", filters)
        return ShotWorker(replace(context, source=source))

    return make


@pytest.fixture
def staged(folder, problem, worker):
    """The staged middle shot."""
    shot, context = problem.survey.shots[1], worker().context
    data = problem.observations.shot_data(shot.name)
    return observe_shot(context, shot, folder, "a test", problem.recording, data, None, None)


def flat_filter(problem, factor: complex) -> SourceFilter:
    axis = problem.sampling.extended
    return SourceFilter(np.full(transform_length(axis) // 2 + 1, factor), axis, 1.0, 1.0)


def test_predictions_are_longer_than_records_by_a_period_of_the_wavelet(problem):
    sampling = problem.sampling
    assert sampling.extended.times[-1] == sampling.recording.times[-1] + 100
    axis = problem.time_axis(problem.initial_velocity)
    assert axis.times[-1] >= sampling.extended.times[-1] + sampling.margin(axis.step) - 1e-9


def test_a_filter_of_ones_changes_nothing_and_another_one_only_its_own_shot(problem, worker, folder):
    model = stage(folder, "model", squared_slowness(problem.initial_velocity))
    axis, shots = problem.time_axis(problem.initial_velocity), problem.survey.shots
    plain, same = worker(), worker(SourceFilters(flat_filter(problem, 1.0)))
    one = worker(SourceFilters(None, {shots[0].name: flat_filter(problem, -3.0)}))
    for each in (plain, same, one):
        each.use_model(model)
    expected = plain.predict(shots[0], axis)
    size = np.abs(expected).max()
    np.testing.assert_allclose(same.predict(shots[0], axis), expected, atol=1e-6 * size)
    np.testing.assert_allclose(one.predict(shots[0], axis), -3 * expected, atol=1e-6 * size)
    np.testing.assert_array_equal(one.predict(shots[1], axis), plain.predict(shots[1], axis))


def test_a_filter_that_advances_the_waves_shows_those_after_the_end_of_the_records(problem, worker, folder):
    advance = 80.0
    count = transform_length(problem.sampling.extended)
    response = np.exp(2j * np.pi * np.fft.rfftfreq(count, problem.recording.step) * advance)
    filters = SourceFilters(SourceFilter(response, problem.sampling.extended, 1.0, 1.0))
    model = stage(folder, "model", squared_slowness(problem.initial_velocity))
    axis, shot = problem.time_axis(problem.initial_velocity), problem.survey.shots[0]
    early, plain = worker(filters), worker()
    for each in (early, plain):
        each.use_model(model)
    longer = problem.sampling.extended_operator(axis, "float64").apply(plain.engine.record(shot, axis))
    samples = round(advance / problem.recording.step)
    expected = longer[samples : samples + problem.recording.samples]
    np.testing.assert_allclose(early.predict(shot, axis), expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["rotated", "estimated"])
def test_the_gradient_with_a_filter_is_that_of_the_misfit(problem, worker, folder, staged, kind):
    m, axis = squared_slowness(problem.initial_velocity), problem.time_axis(0.9 * problem.initial_velocity)
    name = problem.survey.names[1]
    found = flat_filter(problem, 1e5 * np.exp(0.5j * np.pi))
    if kind == "estimated":
        plain = worker()
        plain.use_model(stage(folder, "model", m))
        found = estimate_filter(plain.compare_unfiltered(name, staged, axis, None), 1e-4)
    at_work = worker(SourceFilters(found))
    rng = np.random.default_rng(4)
    direction = m * rng.normal(size=m.shape)

    def misfit(step: float):
        return at_work.evaluate(name, stage(folder, "model", m + step * direction), staged, axis)

    changes = misfit(0.0).g * direction
    differences = [(misfit(h).f - misfit(-h).f) / (2 * h) for h in (2e-4, 1e-4)]
    expected = (4 * differences[1] - differences[0]) / 3
    assert changes.sum() == pytest.approx(expected, abs=1e-6 * np.abs(changes).sum())
