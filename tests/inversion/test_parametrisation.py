"""The optimiser's vectors: there and back, bounds, and gradients by the chain rule."""

import numpy as np
import pytest

from hpcfwi.config.inversion import InversionSection
from hpcfwi.inversion.parametrisation import PARAMETRISATIONS, parametrisation_of
from hpcfwi.model.velocity import squared_slowness, velocity_from


@pytest.fixture(params=sorted(PARAMETRISATIONS))
def parametrisation(request):
    velocity = np.full((5, 4), 2.5)
    velocity[:, 0] = 1.5  # water, outside the bounds
    return PARAMETRISATIONS[request.param](squared_slowness(velocity), velocity < 2, (2.0, 4.0))


@pytest.fixture
def x(parametrisation):
    """A vector between the bounds."""
    low, high = parametrisation.bounds
    return low + np.random.default_rng(0).uniform(0.1, 0.9, low.size) * (high - low)


def test_a_vector_stands_for_one_model(parametrisation, x):
    assert x.shape == (20,)
    model = parametrisation.to_model(x)
    np.testing.assert_allclose(parametrisation.to_vector(model), x, rtol=1e-14)
    np.testing.assert_array_equal(model[:, 0], parametrisation.initial[:, 0])


@pytest.mark.parametrize(
    ("name", "value"), [("squared_slowness", 0.25), ("velocity", 2.0), ("log_velocity", np.log(2.0))]
)
def test_the_variable_of_two_kilometres_per_second(name, value):
    assert PARAMETRISATIONS[name].phi(np.array([0.25])) == pytest.approx(value)


def test_frozen_cells_are_held_outside_the_bounds_and_others_are_free_between_them(parametrisation):
    low, high = (velocity_from(parametrisation.to_model(limit)) for limit in parametrisation.bounds)
    slow, fast = np.minimum(low, high), np.maximum(low, high)
    np.testing.assert_array_equal(slow[:, 0], fast[:, 0])
    assert slow[:, 1:] == pytest.approx(2.0)
    assert fast[:, 1:] == pytest.approx(4.0)


def test_the_gradient_of_frozen_cells_is_zero_and_that_of_others_is_not(parametrisation, x):
    gradient = np.random.default_rng(1).normal(size=(5, 4))
    pulled = parametrisation.pull_back(x, gradient)
    assert not pulled.reshape(5, 4)[:, 0].any()
    assert pulled.reshape(5, 4)[:, 1:].all()


def test_the_pulled_gradient_is_that_of_a_misfit_as_a_function_of_the_vector(parametrisation, x):
    """Taylor's theorem: the error of a misfit predicted by the gradient falls with the square of the step."""
    target = squared_slowness(np.linspace(2.1, 3.9, 20).reshape(5, 4))

    def misfit(x):
        return 0.5 * np.square(parametrisation.to_model(x) - target).sum()

    gradient = parametrisation.pull_back(x, parametrisation.to_model(x) - target)
    direction = np.random.default_rng(2).normal(size=20)
    steps = 1e-2 * 0.5 ** np.arange(6)
    errors = [abs(misfit(x + h * direction) - misfit(x) - h * gradient @ direction) for h in steps]
    assert np.diff(np.log2(errors)) == pytest.approx(-2, abs=0.1)


def test_the_change_of_velocity_is_that_of_a_small_step(parametrisation, x):
    step = 1e-6 * np.random.default_rng(3).normal(size=20)
    free = ~parametrisation.frozen.ravel()
    change = velocity_from(parametrisation.to_model(x + step)) - velocity_from(parametrisation.to_model(x))
    assert parametrisation.velocity_change(x, step)[free] == pytest.approx(change.ravel()[free], rel=1e-4)


def test_every_name_of_the_configuration_has_a_parametrisation(make_problem):
    assert set(InversionSection.model_fields["parameter"].annotation.__args__) == set(PARAMETRISATIONS)
    chosen = parametrisation_of(make_problem("inversion.parameter=log_velocity"))
    assert type(chosen) is PARAMETRISATIONS["log_velocity"]
    assert type(parametrisation_of(make_problem("inversion.optimizer=adam"))) is PARAMETRISATIONS["velocity"]
