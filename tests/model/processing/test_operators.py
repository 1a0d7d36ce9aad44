"""Weights, compositions and chains of transforms."""

import numpy as np
import pytest

from hpcfwi.model.processing.gains import Normalise
from hpcfwi.model.processing.operators import Chain, Composition, Weights, ramp

RNG = np.random.default_rng(11)
SAMPLES, TRACES = Weights(RNG.uniform(size=(20, 1))), Weights(RNG.uniform(size=(1, 4)))


@pytest.mark.parametrize("operator", [SAMPLES, TRACES, Composition((SAMPLES, TRACES))])
def test_a_transpose_passes_the_dot_product_test_and_changes_no_argument(operator):
    x, y = RNG.standard_normal((2, 20, 4))
    before = x.copy(), y.copy()
    forward, backward = operator.apply(x), operator.transpose(y)
    assert (forward * y).sum() == pytest.approx((x * backward).sum(), rel=1e-12)
    np.testing.assert_array_equal((x, y), before)


def test_weights_keep_the_precision_of_a_gather():
    assert SAMPLES.apply(np.ones((20, 4), dtype=np.float32)).dtype == np.float32


def test_a_chain_has_the_derivative_of_the_whole():
    chain = Chain((SAMPLES, Normalise(), TRACES))
    gather, direction = RNG.standard_normal((2, 20, 4))
    value, derivative = chain.linearise(gather)
    np.testing.assert_array_equal(value, chain.apply(gather))
    h = 1e-5
    difference = (chain.apply(gather + h * direction) - chain.apply(gather - h * direction)) / (2 * h)
    np.testing.assert_allclose(derivative.apply(direction), difference, atol=1e-9)


def test_an_empty_chain_changes_nothing():
    gather = RNG.standard_normal((20, 4))
    value, derivative = Chain().linearise(gather)
    np.testing.assert_array_equal(value, gather)
    np.testing.assert_array_equal(derivative.transpose(gather), gather)


def test_a_ramp_is_a_cosine_or_a_step():
    np.testing.assert_allclose(
        ramp(np.array([-1.0, 0.0, 1.0, 2.0, 4.0, 5.0]), 4.0), [0, 0, 0.146447, 0.5, 1, 1], atol=1e-6
    )
    np.testing.assert_array_equal(ramp(np.array([-1.0, 0.0, 1.0]), 0.0), [0, 1, 1])
