"""Changes of variables: exact transposes, smoothing of a known width, soft bounds, frozen cells to the byte."""

import numpy as np
import pytest

from hpcfwi.inversion.conditioning.change_of_variables import Conditioned, variables_of
from hpcfwi.inversion.conditioning.diffusion import Diffusion
from hpcfwi.inversion.conditioning.soft_bounds import SoftBounds
from hpcfwi.inversion.gradient_check import jacobian_error
from hpcfwi.inversion.parametrisation import SquaredSlowness
from hpcfwi.model.velocity import squared_slowness, velocity_from

SMOOTHING = "inversion.conditioning.smoothing.length"
SETTINGS = [
    (f"{SMOOTHING}=60",),
    (f"{SMOOTHING}=[100.0, 40.0]", "inversion.conditioning.taper=80", "inversion.frozen.depth_above=70"),
    (f"{SMOOTHING}=0.5", "inversion.conditioning.smoothing.unit=wavelengths"),
    ("inversion.conditioning.soft_bounds=0.1",),
    ("inversion.conditioning.max_change=0.2", f"{SMOOTHING}=60"),
    ("inversion.bounds=[2.4, 2.6]", "inversion.conditioning.soft_bounds=1.0"),
]


def lengths(axes=(40.0, 60.0)):
    """A length along x, and one along z that grows with x."""
    return [axes[0], axes[1] * np.linspace(0.5, 1.5, 21)[:, None]]


def holes():
    frozen = np.random.default_rng(3).random((21, 17)) < 0.2
    frozen[:, :2] = True
    return frozen


def test_the_transpose_is_exact_next_to_edges_and_frozen_cells():
    rng = np.random.default_rng(0)
    smoothing = Diffusion.of(lengths(), (10.0, 20.0), holes())
    a, b = rng.standard_normal((2, 21, 17))
    assert (smoothing.apply(a) * b).sum() == pytest.approx((a * smoothing.transpose(b)).sum(), rel=1e-13)
    assert smoothing.apply(a) != pytest.approx(smoothing.transpose(a))  # lengths vary: S is not symmetric


def test_the_transpose_is_exact_in_three_dimensions():
    rng = np.random.default_rng(2)
    smoothing = Diffusion.of(
        (40.0, 30.0, rng.uniform(10, 60, (7, 6, 5))), (10.0, 15.0, 20.0), rng.random((7, 6, 5)) < 0.2
    )
    a, b = rng.standard_normal((2, 7, 6, 5))
    assert (smoothing.apply(a) * b).sum() == pytest.approx((a * smoothing.transpose(b)).sum(), rel=1e-12)


def test_frozen_cells_neither_receive_nor_give_and_constants_stay():
    frozen = holes()
    smoothing = Diffusion.of(lengths(), (10.0, 20.0), frozen)
    values = np.random.default_rng(1).standard_normal(frozen.shape)
    np.testing.assert_array_equal(smoothing.apply(values)[frozen], values[frozen])
    np.testing.assert_array_equal(
        smoothing.apply(np.where(frozen, 1e9, values))[~frozen], smoothing.apply(values)[~frozen]
    )
    np.testing.assert_allclose(smoothing.apply(np.ones(frozen.shape)), 1.0, rtol=1e-13)
    free = np.where(frozen, 0.0, values)
    assert smoothing.apply(free).sum() == pytest.approx(free.sum())


def test_a_frozen_layer_separates_what_is_above_from_what_is_below():
    frozen = np.zeros((9, 11), dtype=bool)
    frozen[:, 5] = True
    above = np.zeros((9, 11))
    above[4, 2] = 1.0
    smoothed = Diffusion.of((50.0, 50.0), (10.0, 10.0), frozen).apply(above)
    assert (smoothed[:, :5] > 0).all()
    assert not smoothed[:, 5:].any()


@pytest.mark.parametrize("spacing", [(10.0, 10.0), (20.0, 5.0)])
def test_the_first_update_is_smoothed_by_a_gaussian_of_the_length_on_any_grid(spacing):
    shape = tuple(round(2000 / h) + 1 for h in spacing)
    smoothing = Diffusion.of((100.0, 50.0), spacing, np.zeros(shape, dtype=bool))
    spike = np.zeros(shape)
    spike[shape[0] // 2, shape[1] // 2] = 1.0
    kernel = smoothing.apply(smoothing.transpose(spike))
    for axis, length in enumerate((100.0, 50.0)):
        profile = kernel.sum(axis=1 - axis)
        place = spacing[axis] * (np.arange(shape[axis]) - shape[axis] // 2)
        assert profile.sum() == pytest.approx(1.0)
        assert np.sqrt((profile * place**2).sum()) == pytest.approx(length, rel=1e-3)
        excess = (profile * place**4).sum() / length**4 - 3
        assert 0.3 < excess < 0.5  # a Gaussian has 0


@pytest.fixture
def soft():
    return SoftBounds(*(np.full(400, value) for value in (1.5, 4.5, 0.02, 0.05)))


def test_soft_bounds_map_all_numbers_between_the_bounds_and_change_little_in_the_middle(soft):
    w = np.linspace(-100, 100, 400)
    u = soft.apply(w)
    assert (u > 1.5).all()
    assert (u < 4.5).all()
    assert (np.diff(u) > 0).all()
    w = np.linspace(1.8, 4.0, 400)
    assert soft.apply(w) == pytest.approx(w, abs=0.005)
    assert soft.derivative(w) == pytest.approx(1.0, abs=0.02)


def test_soft_bounds_have_half_the_slope_at_their_width(soft):
    for u, slope in ((1.52, 0.5), (4.45, 0.5), (1.5 + 0.06, 0.9)):
        w = soft.inverse(np.full(400, u))
        assert soft.derivative(w) == pytest.approx(slope, abs=0.01)


def test_soft_bounds_are_inverted_and_differentiated(soft):
    u = np.linspace(1.503, 4.494, 400)
    w = soft.inverse(u)
    np.testing.assert_allclose(soft.apply(w), u, rtol=1e-13)
    h = 1e-5
    np.testing.assert_allclose((soft.apply(w + h) - soft.apply(w - h)) / (2 * h), soft.derivative(w), rtol=1e-4)


def test_a_model_on_a_bound_starts_a_tenth_of_the_width_away_and_can_move(soft):
    w = soft.inverse(np.linspace(1.0, 1.5, 400))
    assert soft.apply(w) == pytest.approx(1.502)
    assert soft.derivative(w) == pytest.approx(0.01, rel=0.02)


def test_without_conditioning_the_variables_are_plain(make_problem):
    assert isinstance(variables_of(make_problem()), SquaredSlowness)


@pytest.mark.parametrize("settings", SETTINGS)
def test_gradients_are_pulled_back_by_the_transpose_of_the_jacobian(make_problem, settings):
    problem = make_problem(*settings)
    variables = variables_of(problem)
    assert isinstance(variables, Conditioned)
    rng = np.random.default_rng(5)
    m = squared_slowness(rng.uniform(2.05, 3.4, problem.domain.shape))
    m = np.where(problem.frozen, squared_slowness(problem.initial_velocity), m)
    assert jacobian_error(variables, variables.to_vector(m), rng) < 1e-12


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_remainder_of_the_change_of_variables_falls_with_the_square_of_the_step(make_problem, settings):
    problem = make_problem(*settings)
    variables, rng = variables_of(problem), np.random.default_rng(6)
    x = variables.to_vector(squared_slowness(problem.initial_velocity))
    weights, step = rng.standard_normal(problem.domain.shape), rng.standard_normal(x.shape)
    step = np.where(problem.frozen.ravel(), 0.0, 0.0005 * step)

    def value(y):
        return float((weights * velocity_from(variables.to_model(y))).sum())

    # dv/dm = -v^3 / 2
    slope = variables.pull_back(x, -0.5 * weights * problem.initial_velocity**3) @ step
    remainders = [abs(value(x + h * step) - value(x) - h * slope) for h in 0.5 ** np.arange(3, 8)]
    assert np.log2(np.divide(remainders[:-1], remainders[1:])) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("settings", SETTINGS)
def test_models_stay_within_bounds_and_frozen_cells_keep_their_bytes(make_problem, settings):
    problem = make_problem(*settings)
    variables = variables_of(problem)
    initial = squared_slowness(problem.initial_velocity)
    x = variables.to_vector(initial)
    np.testing.assert_allclose(variables.to_model(x), initial, rtol=1e-13)
    low, high = variables.bounds
    np.testing.assert_array_equal(low == high, problem.frozen.ravel())
    wild = np.clip(x + np.random.default_rng(7).normal(0, 5, x.shape), low, high)
    model = variables.to_model(wild)
    np.testing.assert_array_equal(model[problem.frozen], initial[problem.frozen])
    velocity = velocity_from(model[~problem.frozen])
    low, high = problem.config.inversion.bounds
    change = problem.config.inversion.conditioning.max_change or 10.0
    assert velocity.min() == pytest.approx(max(low, 2.5 - change), abs=0.05)
    assert velocity.max() == pytest.approx(min(high, 2.5 + change), abs=0.05)
    assert velocity.min() >= max(low, 2.5 - change) * (1 - 1e-12)
    assert velocity.max() <= min(high, 2.5 + change) * (1 + 1e-12)
    assert not variables.pull_back(x, np.ones(initial.shape))[problem.frozen.ravel()].any()


def test_wavelengths_are_those_of_the_initial_model_at_the_peak_frequency(make_problem):
    settings = ("inversion.conditioning.smoothing.unit=wavelengths", f"{SMOOTHING}=0.5")
    spike = np.zeros((31, 31))
    spike[15, 15] = 1.0
    # 2.5 km/s at 10 Hz: 250 m
    found = [
        variables_of(make_problem(*each)).smoothing.apply(spike)
        for each in (settings, ("inversion.conditioning.smoothing.unit=m", f"{SMOOTHING}=125"))
    ]
    np.testing.assert_allclose(*found, rtol=0.02)


def test_a_taper_scales_the_first_update_smoothly_with_the_distance_from_frozen_cells(make_problem):
    problem = make_problem("inversion.conditioning.taper=100", "inversion.frozen.depth_above=90")
    variables = variables_of(problem)
    x = variables.to_vector(squared_slowness(problem.initial_velocity))
    update = variables.velocity_change(x, variables.pull_back(x, np.ones(problem.domain.shape)))
    column = update.reshape(31, 31)[7] / update.reshape(31, 31)[7, -1]
    # frozen down to 80 m; 20 m a cell
    r = np.clip((20.0 * np.arange(31) - 80.0) / 100.0, 0, 1)
    assert column == pytest.approx(3 * r**2 - 2 * r**3, rel=1e-6, abs=1e-12)
