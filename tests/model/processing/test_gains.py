"""Time gain, normalisation and its derivative, and line sources against Green's functions in 2-D and 3-D."""

import numpy as np
import pytest

from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.gains import LineSource, Normalise, TimeGain
from hpcfwi.model.survey import Shot
from hpcfwi.model.wavelet import RickerWavelet

AXIS = TimeAxis(4.0, 51)
SHOT = Shot("1", np.zeros(2), np.array([[100.0, 0.0], [200.0, 0.0], [300.0, 0.0]]))
RNG = np.random.default_rng(4)


def test_a_time_gain_is_relative_to_one_second():
    axis = TimeAxis(500.0, 5)
    np.testing.assert_allclose(TimeGain(2.0).build(SHOT, axis).values[:, 0], [0, 0.25, 1, 2.25, 4])


def test_normalised_traces_have_the_norm_one_or_zero_whatever_their_unit():
    gather = RNG.standard_normal((51, 3)) * [1.0, 1e-5, 0.0]
    for unit in (1e-30, 1.0, 1e15):
        for dtype in ("float32", "float64"):
            value, derivative = Normalise().linearise((unit * gather).astype(dtype))
            np.testing.assert_allclose(np.linalg.norm(value, axis=0), [1, 1, 0], rtol=1e-6)
            assert value.dtype == dtype
            assert not derivative.apply(gather)[:, 2].any()
    silent, _ = Normalise().linearise(np.zeros((51, 3)))
    assert not silent.any()
    rounding, _ = Normalise().linearise(gather * [1.0, 1e-4, 0.0])  # 1e-9 of the first trace
    np.testing.assert_allclose(np.linalg.norm(rounding, axis=0), [1, 0, 0])


def test_the_derivative_of_the_normalisation_is_that_of_finite_differences_and_symmetric():
    gather, direction, other = RNG.standard_normal((3, 51, 3))
    _, derivative = Normalise().linearise(gather)
    h = 1e-5
    ends = [Normalise().linearise(gather + sign * h * direction)[0] for sign in (1, -1)]
    np.testing.assert_allclose(derivative.apply(direction), (ends[0] - ends[1]) / (2 * h), atol=1e-10)
    left, right = (derivative.apply(direction) * other).sum(), (direction * derivative.transpose(other)).sum()
    assert left == pytest.approx(right, rel=1e-12)


def test_the_transposes_of_gains_pass_the_dot_product_test():
    for step in (TimeGain(1.5), LineSource(2.0, 30.0)):
        operator = step.build(SHOT, AXIS)
        x, y = RNG.standard_normal((2, 51, 3))
        assert (operator.apply(x) * y).sum() == pytest.approx((x * operator.transpose(y)).sum(), rel=1e-12)


@pytest.mark.parametrize("step", [1.0, 4.0])
@pytest.mark.parametrize(("wavelengths", "error"), [(4, 0.04), (10, 0.015), (20, 0.008)])
def test_a_corrected_record_of_a_point_source_is_that_of_a_line_source(step, wavelengths, error):
    """``delta(t - r/c) / (4 pi r)`` in 3-D, ``H(t - r/c) / (2 pi sqrt(t^2 - (r/c)^2))`` in 2-D, convolved with a Ricker."""
    velocity, wavelet = 2.0, RickerWavelet(0.015, 100.0)
    distance = wavelengths * velocity / wavelet.frequency
    travelled = distance / velocity
    axis = TimeAxis.covering(travelled + 400.0, step)
    point = RickerWavelet(wavelet.frequency, wavelet.delay + travelled).sample(axis) / (4 * np.pi * distance)
    # with t' = travelled + u^2 the integrand of the convolution is smooth
    u = np.linspace(0.0, 30.0, 6001)
    arrival = travelled + u**2
    r2 = (np.pi * wavelet.frequency * (axis.times[:, None] - arrival - wavelet.delay)) ** 2
    line = np.trapezoid((1 - 2 * r2) * np.exp(-r2) / np.sqrt(arrival + travelled), u, axis=1) / np.pi
    found = LineSource(velocity, wavelet.delay).build(SHOT, axis).apply(point[:, None])[:, 0]
    assert np.linalg.norm(found - line) < error * np.linalg.norm(line)
