"""Penalties: gradients, values that are known, and independence of the grid."""

import numpy as np
import pytest

from hpcfwi.config.conditioning import TikhonovSection, TotalVariationSection
from hpcfwi.inversion.conditioning.change_of_variables import variables_of
from hpcfwi.inversion.conditioning.regularisation import Penalty, Regularisation, Slopes
from hpcfwi.inversion.functional_gradient import FunctionalGradient
from hpcfwi.model.velocity import squared_slowness

NOTHING = FunctionalGradient(0.0, np.zeros(31 * 31))


def penalty(velocity, spacing, corner=None, frozen=None, axes=None, reference=0.0):
    frozen = np.zeros(velocity.shape, dtype=bool) if frozen is None else frozen
    return Penalty(1.0, Slopes.of(frozen, spacing, axes), reference, corner)


def grid(h, size=1000.0):
    places = np.arange(round(size / h) + 1) * h
    return np.meshgrid(places, places, indexing="ij")


@pytest.mark.parametrize("corner", [None, 0.5])
@pytest.mark.parametrize("shape", [(12, 9), (7, 6, 5)])
def test_the_gradient_is_that_of_the_penalty(corner, shape):
    rng = np.random.default_rng(0)
    velocity, step = rng.uniform(2, 3, shape), rng.standard_normal(shape)
    made = penalty(velocity, (10.0, 15.0, 20.0)[: len(shape)], corner, rng.random(shape) < 0.2)
    at_zero = made.evaluate(velocity)
    hs = 1e-3 * 0.5 ** np.arange(6)
    remainders = [abs(made.evaluate(velocity + h * step).f - at_zero.f - h * (at_zero.g * step).sum()) for h in hs]
    assert np.log2(np.divide(remainders[:-1], remainders[1:])) == pytest.approx(2.0, abs=0.01)


def test_differences_have_an_exact_transpose():
    rng = np.random.default_rng(1)
    frozen = rng.random((12, 9)) < 0.2
    slopes = Slopes.of(frozen, (10.0, 20.0), (1.0, 0.5))
    velocity, weights = rng.standard_normal((12, 9)), list(rng.standard_normal((2, 12, 9)))
    left = sum((a * b).sum() for a, b in zip(slopes.apply(velocity), weights, strict=True))
    assert left == pytest.approx((velocity * slopes.transpose(weights)).sum(), rel=1e-13)


@pytest.mark.parametrize("corner", [None, 1e-3])
def test_a_slope_of_1_km_s_per_km_costs_1(corner):
    z = grid(10.0)[1]
    velocity = 1.5 + z / 1000
    assert penalty(velocity, (10.0, 10.0), corner).evaluate(velocity).f == pytest.approx(1.0, rel=0.002)
    assert penalty(velocity, (10.0, 10.0), corner, reference=velocity).evaluate(velocity).f == 0
    weighted = penalty(velocity, (10.0, 10.0), corner, axes=(1.0, 0.5)).evaluate(velocity).f
    assert weighted == pytest.approx(0.25 if corner is None else 0.5, rel=0.005)


@pytest.mark.parametrize("corner", [None, 0.3])
def test_penalties_do_not_depend_on_the_spacing(corner):
    found = []
    for h in (10.0, 20.0):
        x, z = grid(h)
        velocity = 2.0 + 0.3 * np.sin(x / 150) * np.cos(z / 200) + z / 2000
        found.append(penalty(velocity, (h, h), corner).evaluate(velocity).f)
    assert found[0] == pytest.approx(found[1], rel=0.01)


def test_the_total_variation_of_a_step_is_its_height_times_its_length():
    x, _ = grid(10.0)
    velocity = np.where(x < 400, 2.0, 2.5)
    # 0.5 km/s over 1 km of interface in 1 km^2: a mean slope of 0.5 km/s per km, however sharp the step
    found = penalty(velocity, (10.0, 10.0), 1e-3).evaluate(velocity).f
    assert found == pytest.approx(0.5, rel=0.01)
    smooth = 2.25 + 0.25 * np.tanh((x - 400) / 60)
    assert penalty(smooth, (10.0, 10.0), 1e-3).evaluate(smooth).f == pytest.approx(found, rel=0.01)
    # while the mean square does depend on it
    squares = [penalty(v, (10.0, 10.0)).evaluate(v).f for v in (velocity, smooth)]
    assert squares[0] > 5 * squares[1]


def test_a_jump_to_frozen_cells_costs_nothing_and_they_have_no_gradient():
    velocity = np.full((20, 20), 2.5)
    velocity[:, :6] = 1.5
    for corner in (None, 1.0):
        found = penalty(velocity, (10.0, 10.0), corner, velocity < 2).evaluate(velocity)
        assert found.f == 0
        assert not found.g.any()
        open_sea = penalty(velocity, (10.0, 10.0), corner).evaluate(velocity)
        assert open_sea.f > 1


def test_the_weight_is_a_share_of_the_first_misfit(make_problem):
    settings = ("inversion.regularisation.total_variation.weight=0.25", "inversion.regularisation.tikhonov.weight=0.5")
    problem = make_problem(*settings)
    variables, made = variables_of(problem), Regularisation.from_problem(problem)
    sloping = problem.initial_velocity + 0.02 * np.arange(31)  # 1 km/s per km
    added = made.add(NOTHING, variables, squared_slowness(sloping).ravel(), 40.0)
    # the total variation has a corner of 1/s
    assert added.f == pytest.approx(40 * (0.5 + 0.25 * (np.sqrt(2) - 1)), rel=0.02)


@pytest.mark.parametrize("settings", [(), ("inversion.conditioning.smoothing.length=60",)])
def test_the_gradient_with_respect_to_the_vector_is_right(make_problem, settings):
    problem = make_problem("inversion.regularisation.tikhonov.weight=1", "inversion.frozen.depth_above=50",
                           "inversion.regularisation.total_variation.weight=1", *settings)  # fmt: skip
    variables, made = variables_of(problem), Regularisation.from_problem(problem)
    rng = np.random.default_rng(2)
    free = ~problem.frozen.ravel()
    x = variables.to_vector(squared_slowness(problem.initial_velocity)) + 0.005 * free * rng.standard_normal(961)
    step = 0.001 * free * rng.standard_normal(961)
    at_x = made.add(NOTHING, variables, x, 3.0)
    remainders = [
        abs(made.add(NOTHING, variables, x + h * step, 3.0).f - at_x.f - h * (at_x.g @ step))
        for h in 0.5 ** np.arange(6)
    ]
    assert np.log2(np.divide(remainders[:-1], remainders[1:])) == pytest.approx(2.0, abs=0.1)


def test_without_penalties_the_misfit_is_as_it_was(make_problem):
    problem = make_problem()
    pair = FunctionalGradient(1.0, np.ones(961))
    assert Regularisation.from_problem(problem).add(pair, variables_of(problem), np.ones(961), 1.0) is pair


def test_sections_choose_what_is_penalised(make_problem):
    problem = make_problem()
    change = Penalty.of(TikhonovSection(weight=1), problem)
    assert change.evaluate(problem.initial_velocity).f == 0
    np.testing.assert_array_equal(change.reference, problem.initial_velocity)
    assert Penalty.of(TotalVariationSection(weight=1), problem).reference == 0
