"""The optimiser's vector: there and back, bounds, and the gradient by the chain rule."""

import numpy as np
import pytest

from hpcfwi.inversion.parametrisation import SquaredSlowness
from hpcfwi.model.velocity import squared_slowness, velocity_from


@pytest.fixture
def parametrisation():
    velocity = np.full((5, 4), 2.5)
    velocity[:, 0] = 1.5  # water, outside the bounds
    return SquaredSlowness(squared_slowness(velocity), velocity < 2, (2.0, 4.0))


def test_a_vector_stands_for_one_model(parametrisation):
    model = parametrisation.initial
    x = parametrisation.to_vector(model)
    assert x.shape == (20,)
    np.testing.assert_array_equal(parametrisation.to_model(x), model)


def test_frozen_cells_are_held_outside_the_bounds_and_others_are_free_between_them(parametrisation):
    low, high = map(parametrisation.to_model, parametrisation.bounds)
    np.testing.assert_array_equal(low[:, 0], parametrisation.initial[:, 0])
    np.testing.assert_array_equal(high[:, 0], parametrisation.initial[:, 0])
    assert velocity_from(high)[:, 1:] == pytest.approx(2.0)
    assert velocity_from(low)[:, 1:] == pytest.approx(4.0)


def test_the_gradient_of_frozen_cells_is_zero_and_that_of_others_is_pulled_back(parametrisation):
    rng = np.random.default_rng(0)
    gradient, step = rng.normal(size=(5, 4)), rng.normal(size=20)
    pulled = parametrisation.pull_back(gradient)
    assert not parametrisation.to_model(pulled)[:, 0].any()
    # <g, dm> = <(dm/dx)^T g, dx>
    change = np.where(parametrisation.frozen, 0, parametrisation.to_model(step))
    assert (gradient * change).sum() == pytest.approx((pulled * step).sum())


def test_the_change_of_velocity_is_that_of_a_small_step(parametrisation):
    x = parametrisation.to_vector(parametrisation.initial)
    step = 1e-6 * np.random.default_rng(1).normal(size=20)
    assert parametrisation.velocity_change(x, step) == pytest.approx(
        velocity_from(x + step) - velocity_from(x), rel=1e-4
    )
