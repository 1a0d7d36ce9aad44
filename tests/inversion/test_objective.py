"""The objective with an executor of a few lines: it needs no cluster, and sees vectors only."""

import numpy as np
import pytest

from hpcfwi.artifacts import StagedFile, load
from hpcfwi.errors import RunError
from hpcfwi.inversion.functional_gradient import FunctionalGradient
from hpcfwi.inversion.journal import Journal, Partials
from hpcfwi.inversion.objective import Objective, ShotOperations, observe
from hpcfwi.inversion.parametrisation import SquaredSlowness
from hpcfwi.io import make_private
from hpcfwi.model.velocity import squared_slowness


class SerialExecutor:
    """Runs one shot after the other in this process."""

    shots_per_task = 1

    def map(self, function, names, arguments, keys, progress=lambda *_: None):
        assert len(set(keys)) == len(names)
        results = [function(*each) for each in arguments]
        progress(len(names), len(names))
        return results

    def sum(self, function, names, arguments, keys, progress, **_):
        return sum(self.map(function, names, arguments, keys, progress))


def observe_shot(context, shot, folder, origin, recording, file, model, axis):  # noqa: ARG001
    assert context == "context"
    assert file is None
    assert folder.name == "shots"
    return StagedFile(shot.name, shot.name)


def evaluate_shot(context, name, model, shot, axis, number):  # noqa: ARG001
    """Half the squares of the model, times the number of the shot plus one."""
    m, weight = load(model, "model"), int(shot.path) + 1
    return FunctionalGradient(0.5 * weight * float((m**2).sum()), weight * m)


def broken_shot(context, name, model, shot, axis, number):  # noqa: ARG001
    return FunctionalGradient(1.0, np.full((31, 31), np.nan))


@pytest.fixture
def problem(make_problem):
    return make_problem("inversion.frozen.depth_above=50")


@pytest.fixture
def objective(problem, tmp_path):
    """Makes an objective on the same folder, as a later start does."""
    make_private(tmp_path)
    executor = SerialExecutor()

    def make(evaluate=evaluate_shot, **hooks):
        operations = ShotOperations(observe_shot, evaluate, lambda *_: (1, 2, 3), lambda *_: 4, "context", "key")
        shots = observe(problem, operations, executor, tmp_path)
        journal = Journal(tmp_path / "journal", problem.digest)
        parametrisation = SquaredSlowness.from_problem(problem)
        return Objective(
            problem, parametrisation, operations, executor, shots, tmp_path, journal, Partials(tmp_path), **hooks
        )

    return make


def test_the_misfit_is_the_sum_over_shots_with_the_gradient_of_the_vector(objective, problem):
    x = np.random.default_rng(0).uniform(0.1, 0.2, problem.domain.shape)
    f, g = objective()(x.ravel())
    m = np.where(problem.frozen, squared_slowness(problem.initial_velocity), x)
    assert f == pytest.approx(0.5 * 6 * (m**2).sum())
    np.testing.assert_allclose(g.reshape(x.shape), np.where(problem.frozen, 0, 6 * x))


def test_a_sum_over_some_shots_is_an_estimate_of_that_over_all(objective, problem):
    x = np.full(problem.domain.shape, 0.16).ravel()
    whole, each = objective(), objective()
    parts = [each(x, (shot,)) for shot in range(3)]
    f, g = whole(x)
    assert np.mean([f for f, _ in parts]) == pytest.approx(f)
    np.testing.assert_allclose(np.mean([g for _, g in parts], axis=0), g)
    assert [f for f, _ in parts] == pytest.approx([f / 2, f, 1.5 * f])  # shots of 1, 2 and 3 of 6 parts


def test_each_batch_has_its_own_entry_in_the_journal_and_all_shots_have_one(objective, problem, tmp_path):
    x = np.full(problem.domain.shape, 0.16).ravel()
    begun = []
    first = objective(on_begin=lambda *numbers: begun.append(numbers))
    answers = [first(x, shots) for shots in ((0, 1), (2,), (0, 1, 2), (1, 2))]
    assert begun == [(1, 2), (2, 1), (3, 3), (4, 2)]
    assert [one.batch for one in first.evaluations] == [2, 1, None, 2]
    assert len(list((tmp_path / "journal").glob("*.bin"))) == 4
    seen = []
    later = objective(broken_shot, on_evaluation=lambda evaluation, *_: seen.append(evaluation.replayed))
    for shots, (f, g) in zip(((0, 1), (2,), None, (1, 2)), answers, strict=True):
        again = later(x, shots)
        assert again[0] == f
        np.testing.assert_array_equal(again[1], g)
    assert seen == [True] * 4
    with pytest.raises(RunError, match="gradient of evaluation 5 has values that are NaN"):
        later(x, (0, 2))


def test_a_later_start_replays_evaluations_and_computes_only_new_ones(objective, problem):
    x = np.full(problem.domain.shape, 0.16).ravel()
    first = objective()(x)

    def not_again(*_):
        raise AssertionError("computed again")

    seen = []
    later = objective(not_again, on_evaluation=lambda evaluation, *_: seen.append(evaluation))
    f, g = later(x)
    assert f == first[0]
    np.testing.assert_array_equal(g, first[1])
    assert [(one.number, one.replayed, one.drift) for one in seen] == [(1, True, 0.0)]
    with pytest.raises(AssertionError, match="computed again"):
        later(1.1 * x)


def test_a_gradient_that_is_not_finite_stops_the_run_and_is_not_written(objective, problem, tmp_path):
    with pytest.raises(RunError, match="the gradient of evaluation 1 has values that are NaN or infinite"):
        objective(broken_shot)(np.full(problem.domain.shape, 0.16).ravel())
    assert not list((tmp_path / "journal").glob("*.bin"))
    assert not list(tmp_path.glob("model-*.pkl"))


def test_a_prediction_is_for_the_shot_and_the_time_axis_of_the_model(objective, problem):
    gathers = objective().predict(problem.initial_velocity, 1)
    assert gathers == (1, 2, problem.recording, 3)
