"""Adam against a transcription of its paper and against PyTorch, and what hpcfwi adds: bounds, batches, a schedule."""

import math
from itertools import pairwise
from unittest.mock import Mock

import numpy as np
import pytest
from analytic import Box, Quadratics, Recorded, rosenbrock, section

from hpcfwi.inversion.optimizers.adam import Adam, Moments

FREE = Box(np.full(6, -9.0), np.full(6, 9.0))


def minimise(objective, x0=None, box=FREE, **settings):
    x0 = np.zeros(len(box.bounds[0])) if x0 is None else x0
    rows = []
    found = Adam().minimise(objective, x0, box, section(optimizer="adam", **settings), rows.append)
    return found, rows


def algorithm_1(gradient, x, steps, alpha, epsilon):
    """Kingma and Ba (2015), Algorithm 1, with their names."""
    beta1, beta2 = 0.9, 0.999
    m = v = t = 0
    while t < steps:
        t = t + 1
        g = gradient(x)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        x = x - alpha * m_hat / (np.sqrt(v_hat) + epsilon(v_hat))
    return x


def test_the_iterates_are_those_of_the_paper():
    """The paper's small number is relative here."""
    objective = Quadratics(5, 6, 0.3)
    found, _ = minimise(objective, iterations=30, schedule="constant", batch=5, step=0.02)
    expected = algorithm_1(lambda x: objective(x)[1], np.zeros(6), 30, 0.02, lambda v_hat: 1e-8 * np.sqrt(v_hat).max())
    np.testing.assert_allclose(found.x, expected, rtol=1e-12)


def test_the_iterates_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    objective = Quadratics(5, 6, 0.3)
    x = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    optimizer = torch.optim.Adam([x], lr=0.02, eps=0.0)
    for _ in range(40):
        x.grad = torch.from_numpy(objective(x.detach().numpy())[1])
        optimizer.step()
    found, _ = minimise(objective, iterations=40, schedule="constant", batch=5, step=0.02, epsilon=1e-16)
    np.testing.assert_allclose(found.x, x.detach().numpy(), rtol=1e-10)


def test_a_large_epsilon_slows_down_entries_with_small_gradients():
    slopes = np.array([1.0, 1e-3])
    steps = [Moments(2, epsilon).direction(slopes) for epsilon in (1e-8, 0.1)]
    np.testing.assert_allclose(steps, [[1, 1], [1 / 1.1, 1e-3 / 0.101]], rtol=1e-4)


@pytest.mark.parametrize("size", [1e-3, 0.1])
def test_the_first_step_changes_nearly_every_entry_by_the_step(size):
    _, rows = minimise(Quadratics(5, 6, 0.3), iterations=1, batch=5, step=size)
    change = np.abs(rows[1].x - rows[0].x)
    assert (change <= size).all()
    assert np.median(change) > 0.9 * size


def test_the_step_grows_to_its_full_length():
    slope = Mock(return_value=(1.0, np.ones(6)), shot_count=5)
    _, rows = minimise(slope, iterations=6, schedule="constant", batch=5, step=0.1, warmup=3)
    steps = [float(before.x[0] - after.x[0]) for before, after in pairwise(rows)]
    np.testing.assert_allclose(steps, [0.025, 0.05, 0.075, 0.1, 0.1, 0.1], rtol=1e-6)


def test_a_cosine_ends_with_a_step_of_nearly_zero():
    objective = Recorded(Quadratics(5, 6, 0.0))
    minimise(objective, iterations=50, batch=5, step=0.01)
    moments, x = Moments(6, 1e-8), np.zeros(6)
    for k, (_, g) in enumerate(objective.answers[:-1]):
        x = x - 0.01 * (1 + math.cos(math.pi * k / 50)) / 2 * moments.direction(g)
        np.testing.assert_allclose(objective.asked[k + 1][0], x, rtol=1e-12)


def test_batches_that_agree_lead_to_the_minimum():
    objective = Quadratics(16, 6, 0.0)
    found, rows = minimise(objective, iterations=400, batch=4, step=0.02)
    np.testing.assert_allclose(found.x, objective.minimum, atol=1e-3)
    assert {row.shots for row in rows} == {4}


def test_batches_that_disagree_lead_near_the_minimum_of_the_sum():
    objective = Quadratics(16, 6, 0.2)
    found, _ = minimise(objective, iterations=600, batch=4, step=0.02)
    assert np.abs(found.x - objective.minimum).max() < 0.02


def test_bounds_hold_at_every_iterate():
    objective, box = Quadratics(8, 6, 0.0), Box(np.full(6, -0.1), np.full(6, 0.2))
    found, rows = minimise(objective, box=box, iterations=200, batch=2, step=0.02)
    assert all((box.bounds[0] <= row.x).all() and (row.x <= box.bounds[1]).all() for row in rows)
    np.testing.assert_allclose(found.x, np.clip(objective.minimum, *box.bounds), atol=1e-3)


def test_it_descends_the_valley_of_rosenbrock():
    box = Box([-2.0, -2.0], [0.8, 2.0])
    found, _ = minimise(rosenbrock, np.array([-1.2, 1.0]), box, iterations=3000, batch=4, step=0.05)
    np.testing.assert_allclose(found.x, [0.8, 0.64], atol=0.01)


@pytest.mark.parametrize("exponent", [-400, -100, 100, 400])
def test_the_unit_of_the_misfit_does_not_matter(exponent):
    expected, _ = minimise(Quadratics(8, 6, 0.2), iterations=20, batch=2)
    found, _ = minimise(Quadratics(8, 6, 0.2, factor=2.0**exponent), iterations=20, batch=2)
    np.testing.assert_array_equal(found.x, expected.x)


def test_a_gradient_of_zero_moves_nothing():
    objective = Quadratics(4, 6, 0.0)
    found, _ = minimise(objective, objective.centres[0], iterations=3, batch=2)
    np.testing.assert_array_equal(found.x, objective.centres[0])


def test_the_same_answers_lead_to_the_same_questions():
    objective = Recorded(Quadratics(12, 6, 0.2))
    found, _ = minimise(objective, iterations=25, batch=3, seed=5)
    again, _ = minimise(objective.replay(), iterations=25, batch=3, seed=5)
    np.testing.assert_array_equal(found.x, again.x)


def test_all_shots_are_evaluated_as_often_as_asked():
    objective = Recorded(Quadratics(12, 6, 0.2))
    _, rows = minimise(objective, iterations=10, batch=3, full_misfit_every=4)
    full = [k for k, (_, shots) in enumerate(objective.asked) if shots is None]
    assert full == [0, 4, 8, 10]
    assert [row.shots for row in rows] == [None if k in full else 3 for k in range(11)]


def test_more_iterations_of_a_constant_step_begin_with_the_same_ones():
    settings = {"batch": 3, "schedule": "constant", "full_misfit_every": 4}
    _, short = minimise(Quadratics(12, 6, 0.2), iterations=6, **settings)
    _, long = minimise(Quadratics(12, 6, 0.2), iterations=12, **settings)
    for one, other in zip(short, long, strict=False):
        np.testing.assert_array_equal(one.x, other.x)


def test_it_stops_at_limits_and_for_a_reason():
    found, rows = minimise(Quadratics(8, 6, 0.2), iterations=3, batch=2)
    assert (found.nit, found.message, len(rows)) == (3, "inversion.iterations is reached", 4)
    found, rows = minimise(Quadratics(8, 6, 0.2), iterations=30, evaluations=3, batch=2)
    assert (found.nit, found.message, len(rows)) == (2, "inversion.evaluations is reached", 3)
    options = section(optimizer="adam", batch=2)
    found = Adam().minimise(Quadratics(8, 6, 0.2), np.zeros(6), FREE, options, lambda _: "enough")
    assert (found.nit, found.message) == (0, "enough")
