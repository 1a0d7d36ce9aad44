"""What a worker does with a shot: any number of receivers, any time axis, and errors that say what is wrong."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hpcfwi.execution.shot_worker as shot_module
from hpcfwi.artifacts import load, read_header, stage
from hpcfwi.errors import DataError, RunError, StagingError
from hpcfwi.execution.shot_worker import ShotContext, ShotWorker
from hpcfwi.execution.tasks import TaskFailure, evaluate_shot, observe_shot
from hpcfwi.io import make_private
from hpcfwi.model.gathers import ArrayRecordings
from hpcfwi.model.survey import Shot
from hpcfwi.model.traces import ShotData, TracePolicy
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.solver.operators import stage_solver
from hpcfwi.solver.spec import SolverSpec

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_private(tmp_path_factory.mktemp("staged"))


@pytest.fixture
def problem(make_problem):
    return make_problem()


@pytest.fixture
def context(problem, folder):
    return ShotContext(
        stage_solver(folder, SolverSpec.from_problem(problem))[0],
        SolverSpec.from_problem(problem),
        stage(folder, "wavelet", problem.source_signal),
        None,
        problem.sampling,
        10**8,
    )


@pytest.fixture
def model(problem, folder):
    return stage(folder, "model", squared_slowness(problem.initial_velocity))


@pytest.fixture
def observe(problem, context, folder):
    """Stages the data of a shot in the true model."""
    true = stage(folder, "model", squared_slowness(problem.true_velocity))
    axis = problem.time_axis(problem.true_velocity)

    def stage_shot(shot, origin="a test"):
        return observe_shot(context, shot, folder / "shots", origin, problem.recording, None, true, axis)

    return stage_shot


def spread(name, source, *receivers):
    return Shot(name, np.array(source, dtype=float), np.array(receivers, dtype=float))


SHOTS = [
    spread("few", (20, 300), (580, 100), (580, 500)),
    spread("one", (300, 20), (310, 571)),
    spread("many", (20, 100), *((580, 20 + 30 * i) for i in range(19))),
    spread("few again", (20, 300), (580, 100), (580, 500)),
]


def test_shots_with_different_receivers_share_a_solver_and_give_what_each_gives_alone(
    problem, context, model, observe, folder
):
    axis = problem.time_axis(problem.initial_velocity)
    staged = [observe(shot) for shot in SHOTS]
    worker = ShotWorker(context)
    together = [worker.evaluate(shot.name, model, file, axis) for shot, file in zip(SHOTS, staged, strict=True)]
    assert len({result.f for result in together}) == 3
    assert together[0].f == together[3].f
    np.testing.assert_array_equal(together[0].g, together[3].g)
    for shot, file, result in zip(SHOTS, staged, together, strict=True):
        alone = ShotWorker(context).evaluate(shot.name, model, file, axis)
        assert alone.f == result.f
        np.testing.assert_array_equal(alone.g, result.g)
        # and what a solver gives that was built for just so many receivers
        spec = replace(SolverSpec.from_problem(problem), receivers=len(shot.receivers))
        fitted = replace(context, solver=stage_solver(folder, spec)[0], spec=spec)
        exact = ShotWorker(fitted).evaluate(shot.name, model, file, axis)
        assert exact.f == result.f
        np.testing.assert_array_equal(exact.g, result.g)


def test_misfit_and_gradient_of_a_spread_are_the_sums_over_its_parts(problem, context, model, observe):
    axis, worker = problem.time_axis(problem.initial_velocity), ShotWorker(context)
    whole = SHOTS[2]
    parts = [
        replace(whole, name=name, receivers=whole.receivers[cut])
        for name, cut in (("a", slice(7)), ("b", slice(7, None)))
    ]
    sums = [worker.evaluate(shot.name, model, observe(shot), axis) for shot in (whole, *parts)]
    assert sums[0].f == pytest.approx(sums[1].f + sums[2].f, rel=1e-5)
    np.testing.assert_allclose(sums[0].g, sums[1].g + sums[2].g, rtol=0, atol=1e-5 * np.abs(sums[0].g).max())


@pytest.mark.parametrize(("extrapolate", "expected"), [(False, 1), (True, 3)])
def test_only_extrapolated_data_are_made_anew_for_another_time_axis(
    problem, context, model, observe, monkeypatch, extrapolate, expected
):
    sampling = replace(problem.sampling, corrected=not extrapolate, extrapolate=extrapolate)
    staged, worker = observe(SHOTS[0]), ShotWorker(replace(context, sampling=sampling))
    calls = []
    original = shot_module.load
    monkeypatch.setattr(shot_module, "load", lambda file, kind: calls.append(kind) or original(file, kind))
    axis = problem.time_axis(problem.initial_velocity)
    shorter = type(axis).covering(300.0, 0.99 * axis.step)
    shorter = replace(shorter, samples=min(shorter.samples, problem.time_samples))
    for wanted in (axis, axis, shorter, shorter, axis):
        worker.evaluate("few", model, staged, wanted)
    assert calls.count("shot") == expected


def test_the_last_shot_is_kept_however_small_the_memory_budget(problem, context, observe):
    worker = ShotWorker(replace(context, cache_bytes=1))
    axis = problem.time_axis(problem.initial_velocity)
    staged = observe(SHOTS[2])
    assert worker.observed("many", staged, axis) is worker.observed("many", staged, axis)


def layer_and_model(worker):
    """Squared slowness in a corner of the padded grid, and in the middle of the model."""
    medium = 1 / np.asarray(worker.engine.equation.time_step.squared_velocity.data)
    return medium[0, 0], medium[medium.shape[0] // 2, medium.shape[1] // 2]


def test_the_layer_keeps_the_contexts_edges_unless_data_are_observed(problem, context, folder):
    edges, other = (stage(folder, "model", np.full(problem.domain.shape, m), name=f"{m}.pkl") for m in (0.16, 0.2))
    worker = ShotWorker(replace(context, edges=edges))
    worker.use_model(other)
    assert layer_and_model(worker) == pytest.approx((0.16, 0.2), rel=1e-5)
    worker.use_model(other, own_edges=True)
    assert layer_and_model(worker) == pytest.approx((0.2, 0.2), rel=1e-5)
    worker.use_model(other)
    assert layer_and_model(worker) == pytest.approx((0.16, 0.2), rel=1e-5)
    worker = ShotWorker(context)
    worker.use_model(other)
    assert layer_and_model(worker) == pytest.approx((0.2, 0.2), rel=1e-5)


def test_observed_data_are_modelled_with_the_edges_of_the_true_model(problem, context, folder):
    faster = np.full(problem.domain.shape, 3.0)
    true, axis = stage(folder, "model", squared_slowness(faster)), problem.time_axis(faster)
    edges = stage(folder, "model", squared_slowness(problem.initial_velocity), name="edges.pkl")
    records = []
    for known in (None, edges):
        observed = observe_shot(
            replace(context, edges=known),
            SHOTS[0],
            folder / f"shots{known is None}",
            "a test",
            problem.recording,
            None,
            true,
            axis,
        )
        records.append(load(observed, "shot")["record"])
    np.testing.assert_array_equal(*records)


def test_a_model_that_failed_to_load_is_loaded_again(problem, context, model, observe):
    axis, worker = problem.time_axis(problem.initial_velocity), ShotWorker(context)
    staged = observe(SHOTS[0])
    before = worker.evaluate("few", model, staged, axis)
    with pytest.raises(StagingError):
        worker.use_model(replace(model, digest="0" * 40))
    original, worker.engine.set_model = worker.engine.set_model, lambda m, *_: (original(0 * m + 1), 1 / 0)
    with pytest.raises(ZeroDivisionError):
        worker.use_model(stage(Path(model.path).parent, "model", squared_slowness(problem.true_velocity)))
    worker.engine.set_model = original
    after = worker.evaluate("few", model, staged, axis)
    assert after.f == before.f
    np.testing.assert_array_equal(after.g, before.g)


def test_a_wavefield_without_bounds_is_an_error_that_names_the_shot(problem, context, folder, observe):
    axis = problem.time_axis(problem.initial_velocity)
    much_too_fast = stage(folder, "model", squared_slowness(10 * problem.initial_velocity))
    with pytest.raises(
        RunError, match=r"shot few: the misfit is (inf|nan): the wavefield has grown .* solver\.time_step"
    ):
        ShotWorker(context).evaluate("few", much_too_fast, observe(SHOTS[0]), axis)


def test_traces_with_nan_are_left_out_and_a_shot_of_nothing_else_is_an_error(problem, context, tmp_path, folder):
    record = np.arange(2.0 * problem.recording.samples, dtype=np.float32).reshape(-1, 2)
    record[5, 1] = np.nan
    np.save(tmp_path / "few.npy", record)
    reader = ArrayRecordings(tmp_path, problem.recording.step, 300.0).reader("few")

    def observe(**policy):
        data = ShotData(reader, TracePolicy(**policy))
        return observe_shot(context, SHOTS[0], folder / "shots", "", problem.recording, data, None, None)

    assert read_header(Path(observe().path))["left_out"] == {"not finite": "2"}
    with pytest.raises(DataError, match=r"^shot few: only 1 of its 2 traces can be used \(not finite: 2\)"):
        observe(minimum=0.6)


def test_a_missing_file_is_a_failure_of_the_task_in_one_line_with_its_host(problem, context, model, observe):
    staged = observe(SHOTS[0])
    Path(staged.path).unlink()
    axis = problem.time_axis(problem.initial_velocity)
    with pytest.raises(TaskFailure) as caught:
        evaluate_shot(context, "few", model, staged, axis, 1)
    assert (
        str(caught.value)
        == f"on {socket.gethostname().partition(chr(46))[0]}: {staged.path}: cannot be read (No such file or directory)"
    )


def test_modelled_data_are_reused_unless_damaged_or_of_another_origin(observe, monkeypatch):
    modelled = []
    synthetic = ShotWorker.synthetic

    def counted(self, *arguments):
        modelled.append(1)
        return synthetic(self, *arguments)

    monkeypatch.setattr(ShotWorker, "synthetic", counted)
    first = observe(SHOTS[0])
    assert observe(SHOTS[0]) == first
    assert len(modelled) == 1
    path = Path(first.path)
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    assert observe(SHOTS[0]) == first
    assert len(modelled) == 2
    observe(SHOTS[0], "another problem")
    assert len(modelled) == 3
