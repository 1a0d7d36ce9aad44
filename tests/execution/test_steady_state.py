"""After the first evaluation nothing is built, compiled or allocated for a shot, and nothing is read twice."""

from collections import Counter
from pathlib import Path

import devito.data.allocators
import numpy as np
import pytest
from devito import Operator
from devito.arch.compiler import Compiler

import hpcfwi.execution.shot_worker as shot_module
from hpcfwi.artifacts import stage
from hpcfwi.config.run import load_run_config
from hpcfwi.execution.shot_worker import ShotContext, ShotWorker
from hpcfwi.execution.tasks import observe_shot
from hpcfwi.io import make_private
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.problem import Problem
from hpcfwi.model.processing.sampling import RecordSampling
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.solver.operators import stage_solver
from hpcfwi.solver.spec import SolverSpec

CIRCLE = Path(__file__).parents[2] / "jobs" / "circle.toml"
SMALL = [
    "grid.shape=[31, 31]", "model.radius=60", "data.recording_time=300", "wavelet.peak_frequency=15",
    "acquisition.sources.count=3", "acquisition.sources.last=[20.0, 300.0]", "acquisition.receivers.count=21",
    "acquisition.receivers.first=[280.0, 0.0]", "acquisition.receivers.last=[280.0, 300.0]",
    "inversion.bounds=[2.0, 3.5]",
]  # fmt: skip


@pytest.fixture
def problem():
    return Problem.from_config(load_run_config(CIRCLE, SMALL))


@pytest.fixture
def context(problem, tmp_path):
    make_private(tmp_path)
    spec = SolverSpec.from_problem(problem)
    solver, built = stage_solver(tmp_path, spec)
    assert built
    return ShotContext(solver, spec, stage(tmp_path, "wavelet", problem.source_signal), None, problem.sampling, 10**8)


def stage_model(folder, velocity):
    return stage(folder, "model", squared_slowness(velocity))


def stage_shots(problem, context, folder):
    model, axis = stage_model(folder, problem.true_velocity), problem.time_axis(problem.true_velocity)
    source = ("", problem.recording, None, model, axis)
    return [observe_shot(context, shot, folder / "shots", *source) for shot in problem.survey.shots]


def evaluate(worker, problem, shots, velocity, folder):
    model, axis = stage_model(folder, velocity), problem.time_axis(velocity)
    names = [shot.name for shot in problem.survey.shots]
    return [worker.evaluate(name, model, shot, axis) for name, shot in zip(names, shots, strict=True)]


def test_the_second_evaluation_builds_compiles_allocates_and_reads_nothing(problem, context, tmp_path, monkeypatch):
    shots = stage_shots(problem, context, tmp_path)
    counts: Counter = Counter()

    def count(owner, name, what):
        original = getattr(owner, name)

        def counting(*args, **kwargs):
            counts[what] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    def count_classmethod(owner, name, what):
        original = owner.__dict__[name].__func__

        def counting(cls, *args, **kwargs):
            counts[what] += 1
            return original(cls, *args, **kwargs)

        monkeypatch.setattr(owner, name, classmethod(counting))

    count_classmethod(Operator, "_build", "operators built")
    count(Compiler, "jit_compile", "kernels compiled")
    for allocator in {a for a in vars(devito.data.allocators).values() if isinstance(a, type)}:
        if "alloc" in vars(allocator):
            count(allocator, "alloc", "buffers allocated")
    count(RecordSampling, "observed", "records sampled")
    count(shot_module, "load", "files unpickled")

    worker = ShotWorker(context)
    assert counts["buffers allocated"] > 0  # the counter counts
    counts.clear()
    evaluate(worker, problem, shots, problem.initial_velocity, tmp_path)
    assert counts["operators built"] == counts["kernels compiled"] == 0  # they came with the pickle
    assert counts["records sampled"] == len(shots)
    assert counts["files unpickled"] == len(shots) + 1
    assert counts["buffers allocated"] == 0
    counts.clear()
    for factor in (1.01, 1.02):
        evaluate(worker, problem, shots, factor * problem.initial_velocity, tmp_path)
    assert counts == {"files unpickled": 2}  # a model an evaluation


def test_the_counters_see_a_build(monkeypatch, problem):
    built = []
    original = Operator.__dict__["_build"].__func__
    monkeypatch.setattr(Operator, "_build", classmethod(lambda cls, *a, **k: built.append(1) or original(cls, *a, **k)))
    from hpcfwi.solver.operators import Propagator

    made = Propagator(SolverSpec.from_problem(problem))
    assert built == []
    assert made.forward.operator.name != made.gradient.operator.name
    assert len(built) == 2


def test_kept_shots_stay_within_the_memory_budget(problem, context, tmp_path):
    shots = stage_shots(problem, context, tmp_path)
    worker = ShotWorker(context)
    axis = problem.time_axis(problem.initial_velocity)
    one = worker.observed("0", shots[0], axis).gather.nbytes
    worker.context = ShotContext(context.solver, context.spec, context.wavelet, None, context.sampling, int(2.5 * one))
    for shot in shots:
        worker.observed("0", shot, axis)
    assert sum(kept.gather.nbytes for kept in worker._shots.values()) <= 2.5 * one
    assert len(worker._shots) == 2


def test_misfit_and_gradient_do_not_depend_on_earlier_tasks_of_the_worker(problem, context, tmp_path):
    shots = stage_shots(problem, context, tmp_path)
    worker = ShotWorker(context)
    first = evaluate(worker, problem, shots, problem.initial_velocity, tmp_path)
    evaluate(worker, problem, shots[::-1], problem.true_velocity, tmp_path)
    again = evaluate(worker, problem, shots, problem.initial_velocity, tmp_path)
    assert [a.f for a in first] == [b.f for b in again]
    assert all(np.array_equal(a.g, b.g) for a, b in zip(first, again, strict=True))


def test_misfit_and_gradient_do_not_depend_on_the_time_axis_before(problem, context, tmp_path):
    shots = stage_shots(problem, context, tmp_path)
    model, axis = stage_model(tmp_path, problem.initial_velocity), problem.time_axis(problem.initial_velocity)
    other = TimeAxis(0.9 * axis.step, axis.samples - 7)
    used = ShotWorker(context)
    first = used.evaluate("0", model, shots[0], axis)
    there, here = (worker.evaluate("0", model, shots[0], other) for worker in (used, ShotWorker(context)))
    assert there.f == here.f != first.f
    assert np.array_equal(there.g, here.g)
    back = used.evaluate("0", model, shots[0], axis)
    assert back.f == first.f
    assert np.array_equal(back.g, first.g)
