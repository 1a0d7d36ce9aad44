"""Processed gathers on a worker: the misfit vanishes at the true model, and band-passes do the same to wavelets and records."""

from dataclasses import replace

import numpy as np
import pytest

from hpcfwi.artifacts import stage
from hpcfwi.config.run import load_run_config
from hpcfwi.execution.shot_worker import ShotContext, ShotWorker
from hpcfwi.execution.tasks import observe_shot, predict_shot
from hpcfwi.io import make_private
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.problem import Problem
from hpcfwi.model.processing.filters import BandPass
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.solver.operators import stage_solver
from hpcfwi.solver.spec import SolverSpec

LEADING = 'kind = "bandpass"\nlow = 4\nhigh = 14'
STEPS = {
    "bandpass": 'kind = "bandpass"\nhigh = 14\norder = 2\nphase = "causal"',
    "top_mute": 'kind = "top_mute"\nvelocity = 3\ntaper = 20',
    "bottom_mute": 'kind = "bottom_mute"\nvelocity = 2\ntime = 250\ntaper = 20',
    "offset_window": 'kind = "offset_window"\nmaximum = 620\ntaper = 20',
    "time_window": 'kind = "time_window"\nstart = 50\nend = 380\ntaper = 30',
    "time_gain": 'kind = "time_gain"\npower = 1',
    "resample": 'kind = "resample"\nsample_interval = 6',
    "normalise": 'kind = "normalise"',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("processing")
    make_private(path)
    return path


@pytest.fixture
def make(fwi_toml):
    """Make the small problem with steps of processing and settings."""
    small = fwi_toml.read_text()

    def problem(steps=(), *settings):
        fwi_toml.write_text(small + "".join(f"\n[[processing]]\n{step}\n" for step in steps))
        return Problem.from_config(load_run_config(fwi_toml, ["data.recording_time=400", *settings]))

    return problem


@pytest.fixture
def open_worker(make, folder, one_thread):  # noqa: ARG001
    """Make a worker for a problem; all have one solver, whose time axis is long enough."""
    spec = SolverSpec.from_problem(make((LEADING,), "data.recording_time=1000"))

    def worker(problem):
        staged = stage(folder, "wavelet", problem.source_signal), None, problem.sampling, 10**8
        processing = stage(folder, "processing", problem.processing)
        return ShotWorker(ShotContext(stage_solver(folder, spec)[0], spec, *staged, processing=processing))

    return worker


def model(folder, velocity):
    return stage(folder, "model", squared_slowness(velocity))


def stage_record(folder, shot, record):
    return stage(folder, "shot", {"record": record, "source": shot.source, "receivers": shot.receivers})


def misfits(problem, worker, folder, staged, axis):
    """Misfits of a staged shot in the initial and in the true model."""
    models = (model(folder, velocity) for velocity in (problem.initial_velocity, problem.true_velocity))
    return [worker.evaluate("1", each, staged, axis).f for each in models]


@pytest.mark.parametrize("steps", [(step,) for step in (LEADING, *STEPS.values())] + [(LEADING, *STEPS.values())])
def test_the_misfit_is_zero_at_the_true_model(make, open_worker, folder, steps):
    problem = make(steps)
    worker, axis = open_worker(problem), problem.time_axis(problem.true_velocity)
    worker.use_model(model(folder, problem.true_velocity))
    shot = problem.survey.shots[1]
    initial, true = misfits(problem, worker, folder, stage_record(folder, shot, worker.synthetic(shot, axis)), axis)
    assert initial > 0
    assert true < 1e-12 * initial


@pytest.mark.parametrize("phase", ["zero", "causal"])
def test_a_band_pass_does_the_same_to_a_wavelet_and_to_recorded_data(make, open_worker, folder, tmp_path, phase):
    """The data are recorded with the whole wavelet, and for longer than the gathers that are compared."""
    band = f'{LEADING}\nphase = "{phase}"'
    raw, shot = make((), "data.recording_time=1000"), make().survey.shots[1]
    worker, axis = open_worker(raw), raw.time_axis(raw.true_velocity)
    worker.use_model(model(folder, raw.true_velocity))
    record = worker.synthetic(shot, axis)
    (tmp_path / "data").mkdir()
    for each in raw.survey.shots:
        np.save(tmp_path / "data" / f"{each.name}.npy", record)
    problem = make((band,), f"data.file={tmp_path / 'data'}", "data.recording_time=600")
    assert not problem.processing.applied
    worker, axis = open_worker(problem), problem.time_axis(problem.true_velocity)
    assert (problem.sampling.lead > 0) == (phase == "zero")
    # the whole record, filtered as an operator, is the record of the filtered wavelet
    filtered = BandPass(0.004, 0.014, 4, phase).build(shot, raw.recording).apply(record)[: problem.recording.samples]
    worker.use_model(model(folder, problem.true_velocity))
    modelled = worker.predict(shot, axis)
    assert np.linalg.norm(modelled - filtered) < 2e-3 * np.linalg.norm(filtered)
    # a run filters what is recorded in recording_time, and tapers the end
    data = problem.observations.shot_data(shot.name)
    staged = observe_shot(worker.context, shot, folder, "", problem.recording, data, None, None)
    initial, true = misfits(problem, worker, folder, staged, axis)
    assert true < 1e-4 * initial


def test_gathers_are_shown_before_and_after_the_processing(make, open_worker, folder):
    problem = make((LEADING, STEPS["top_mute"], STEPS["resample"]))
    worker, axis, shot = open_worker(problem), problem.time_axis(problem.true_velocity), problem.survey.shots[1]
    true = model(folder, problem.true_velocity)
    worker.use_model(true)
    staged = stage_record(folder, shot, worker.synthetic(shot, axis))
    for processed, axis_of_both in ((False, problem.recording), (True, problem.compared_axis(axis))):
        observed, predicted, _ = predict_shot(worker.context, "1", true, staged, axis, processed)
        assert len(observed) == axis_of_both.samples
        np.testing.assert_allclose(predicted, observed, rtol=0, atol=1e-6 * np.abs(observed).max())
    assert problem.compared_axis(axis) == TimeAxis(6.0, 67)


def test_weights_count_as_memory_of_cached_shots(make, open_worker, folder):
    problem = make((STEPS["top_mute"],))
    worker, axis, shot = open_worker(problem), problem.time_axis(problem.true_velocity), problem.survey.shots[1]
    record = np.zeros((problem.recording.samples, len(shot.receivers)), dtype=np.float32)
    staged = stage_record(folder, shot, record)
    cached = worker.observed("1", staged, axis)
    assert cached.nbytes == 2 * record.nbytes
    assert worker.observed("1", staged, replace(axis, samples=axis.samples - 1)) is cached
