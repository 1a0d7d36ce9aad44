"""L-BFGS on batches with a part in common."""

from itertools import pairwise

import numpy as np
import pytest
from analytic import Box, Quadratics, Recorded, rosenbrock, section

from hpcfwi.inversion.optimizers.adam import Adam
from hpcfwi.inversion.optimizers.lbfgs_batch import BatchLbfgs, Curvature

FREE = Box(np.full(6, -9.0), np.full(6, 9.0))


def minimise(objective, x0=None, box=FREE, **settings):
    x0 = np.zeros(len(box.bounds[0])) if x0 is None else x0
    rows = []
    chosen = section(**{"optimizer": "lbfgs-batch", "first_step": 0.1, **settings})
    return BatchLbfgs().minimise(objective, x0, box, chosen, rows.append), rows


def test_the_inverse_hessian_is_that_of_the_bfgs_formula():
    """Nocedal and Wright (2006), equation 6.17, with dense matrices."""
    rng = np.random.default_rng(0)
    hessian = np.diag(np.geomspace(1, 50, 7))
    curvature, pairs = Curvature(5), []
    for _ in range(4):
        s = rng.normal(size=7)
        pairs.append((s, hessian @ s))
        curvature.add(*pairs[-1])
    s, y = pairs[-1]
    dense = np.eye(7) * (s @ y) / (y @ y)
    for s, y in pairs:
        rho = 1 / (s @ y)
        left = np.eye(7) - rho * np.outer(s, y)
        dense = left @ dense @ left.T + rho * np.outer(s, s)
    g = rng.normal(size=7)
    np.testing.assert_allclose(curvature.multiply(g), dense @ g, rtol=1e-12)


def test_pairs_of_negative_curvature_are_damped():
    """Powell (1978): the curvature becomes 0.2 of the expected one, and directions still descend."""
    rng, curvature = np.random.default_rng(1), Curvature(5)
    curvature.add(np.ones(7), 3 * np.ones(7))
    s = rng.normal(size=7)
    curvature.add(s, -2 * s)
    kept, y = curvature.pairs[-1]
    np.testing.assert_array_equal(kept, s)
    assert s @ y == pytest.approx(0.2 * 3 * (s @ s))
    for _ in range(20):
        g = rng.normal(size=7)
        assert g @ curvature.multiply(g) > 0


def test_a_first_pair_of_negative_curvature_is_left_out():
    curvature = Curvature(5)
    curvature.add(np.ones(3), -np.ones(3))
    assert not curvature.pairs
    np.testing.assert_array_equal(curvature.multiply(np.arange(3.0)), np.arange(3.0))


def test_consecutive_batches_have_the_overlap_in_common():
    """The trial model is evaluated with the common shots, then the accepted one with the new shots."""
    objective = Recorded(Quadratics(12, 6, 0.05))
    minimise(objective, iterations=8, batch=6, overlap=2)
    at = {}
    for x, shots in objective.asked:
        at.setdefault(x.tobytes(), []).append(set(shots))
    batches = [set().union(*parts) for parts in at.values() if len(parts) > 1]
    assert len(batches) == 9
    assert all(sum(map(len, parts)) == len(set().union(*parts)) for parts in at.values()), "a shot came twice"
    assert len(batches[0]) == 4  # no shots of a batch before
    assert {len(batch) for batch in batches[1:]} == {6}
    assert all(len(first & second) >= 2 for first, second in pairwise(batches))


def test_by_default_a_batch_is_half_the_survey_and_half_of_it_stays():
    objective = Recorded(Quadratics(12, 6, 0.05))
    _, rows = minimise(objective, iterations=3)
    assert {len(shots) for _, shots in objective.asked} == {3}
    assert [row.shots for row in rows] == [3, 6, 6, 6]


def test_batches_that_agree_lead_to_the_minimum_faster_than_adam():
    objective = Recorded(Quadratics(16, 30, 0.0))
    box = Box(np.full(30, -9.0), np.full(30, 9.0))
    found, _ = minimise(objective, box=box, iterations=60, batch=8)
    np.testing.assert_allclose(found.x, objective.objective.minimum, atol=1e-4)
    shots = sum(len(shots) for _, shots in objective.asked)
    other = Adam().minimise(
        objective.objective,
        np.zeros(30),
        box,
        section(optimizer="adam", iterations=shots // 4, batch=4),
        lambda _: None,
    )
    wanted = objective.objective.minimum
    assert np.linalg.norm(found.x - wanted) < np.linalg.norm(other.x - wanted)


def test_batches_that_disagree_lead_near_the_minimum_of_the_sum():
    objective = Quadratics(32, 6, 0.1)
    found, _ = minimise(objective, iterations=80, batch=16)
    assert objective(found.x)[0] < 1.1 * objective(objective.minimum)[0]


def test_all_shots_are_evaluated_as_often_as_asked():
    objective = Quadratics(12, 6, 0.2)
    _, rows = minimise(objective, iterations=7, batch=4, full_misfit_every=3)
    assert [row.iteration for row in map(Numbered, range(8), rows) if row.shots is None] == [0, 3, 6, 7]
    for row in rows:
        if row.shots is None:
            f, g = objective(row.x)
            assert row.misfit == pytest.approx(f)
            np.testing.assert_allclose(row.gradient, g, rtol=1e-10, atol=1e-10)


class Numbered:
    def __init__(self, iteration, row):
        self.iteration, self.shots = iteration, row.shots


def test_bounds_hold_at_every_iterate_and_trial():
    box = Box(np.full(6, -0.1), np.full(6, 0.2))
    objective = Recorded(Quadratics(8, 6, 0.0))
    found, _ = minimise(objective, box=box, iterations=40, batch=4)
    assert all((box.bounds[0] <= x).all() and (x <= box.bounds[1]).all() for x, _ in objective.asked)
    np.testing.assert_allclose(found.x, np.clip(objective.objective.minimum, *box.bounds), atol=1e-4)


def test_it_finds_the_minimum_of_rosenbrock_within_bounds():
    box = Box([-2.0, -2.0], [0.8, 2.0])
    found, _ = minimise(rosenbrock, np.array([-1.2, 1.0]), box, iterations=200, batch=4, first_step=0.3)
    np.testing.assert_allclose(found.x, [0.8, 0.64], atol=1e-4)


@pytest.mark.parametrize("exponent", [-60, 60])
def test_the_unit_of_the_misfit_does_not_matter(exponent):
    expected, _ = minimise(Quadratics(8, 6, 0.2), iterations=10, batch=4)
    found, _ = minimise(Quadratics(8, 6, 0.2, factor=2.0**exponent), iterations=10, batch=4)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-9)


def test_the_same_answers_lead_to_the_same_questions():
    objective = Recorded(Quadratics(12, 6, 0.2))
    found, _ = minimise(objective, iterations=20, batch=5, overlap=2, seed=3)
    again, _ = minimise(objective.replay(), iterations=20, batch=5, overlap=2, seed=3)
    np.testing.assert_array_equal(found.x, again.x)


def test_a_line_search_without_a_better_point_ends_with_its_model_and_the_reason():
    class Wrong(Quadratics):
        def __call__(self, x, shots=None):
            f, g = super().__call__(x, shots)
            return f, -g

    objective = Recorded(Wrong(8, 6, 0.0))
    found, rows = minimise(objective, iterations=10, batch=4, line_search_steps=5)
    assert found.message.startswith("the line search found no better point")
    assert found.nit == len(rows) - 1 == 0
    np.testing.assert_array_equal(found.x, np.zeros(6))
    assert len(objective.asked) == 2 + 5 - 1


def test_it_stops_at_limits_and_for_a_reason():
    found, rows = minimise(Quadratics(8, 6, 0.2), iterations=3, batch=4)
    assert (found.nit, found.message, len(rows)) == (3, "inversion.iterations is reached", 4)
    found, _ = minimise(Quadratics(8, 6, 0.2), iterations=30, evaluations=5, batch=4)
    assert found.message == "inversion.evaluations is reached"
    chosen = section(optimizer="lbfgs-batch", batch=4)
    found = BatchLbfgs().minimise(Quadratics(8, 6, 0.2), np.zeros(6), FREE, chosen, lambda _: "enough")
    assert (found.nit, found.message) == (0, "enough")
