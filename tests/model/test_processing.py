"""Operators on gathers: resampling, the tail, and their transposes."""

import numpy as np
import pytest
from scipy.interpolate import splev, splrep

from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing import Operator, Tail, resample


def test_resampling_is_scipys_cubic_spline_trace_by_trace():
    rng = np.random.default_rng(3)
    record = rng.standard_normal((51, 4))
    axis = TimeAxis.covering(200.0, 1.7)
    resampled = resample(record, 4.0, axis, "float64")
    known = 4.0 * np.arange(51)
    times = axis.times[axis.times <= 200.0]
    expected = np.stack([splev(times, splrep(known, record[:, i], k=3)) for i in range(4)], axis=1)
    np.testing.assert_allclose(resampled, expected, rtol=1e-10, atol=1e-12)


def test_resampling_ends_with_the_record_unless_it_extrapolates():
    record = np.ones((11, 1))
    axis = TimeAxis(3.0, 20)
    assert len(resample(record, 4.0, axis, "float32")) == 14  # 0 to 39 ms of the record's 40
    assert len(resample(record, 4.0, axis, "float32", extrapolate=True)) == 20
    assert resample(record, 4.0, TimeAxis(4.0, 11), "float32") == pytest.approx(record)


@pytest.mark.parametrize("operator", [Tail(9, 7), Tail(9, 9), Tail(9, 9, zero_last=True), Tail(9, 7, zero_last=True)])
def test_a_transpose_passes_the_dot_product_test_and_changes_no_argument(operator: Operator):
    rng = np.random.default_rng(5)
    predicted, compared = rng.standard_normal((9, 3)), rng.standard_normal((operator.observed, 3))
    before = predicted.copy(), compared.copy()
    forward, backward = operator.apply(predicted), operator.transpose(compared)
    assert (forward * compared).sum() == pytest.approx((predicted * backward).sum(), rel=1e-12)
    np.testing.assert_array_equal(predicted, before[0])
    np.testing.assert_array_equal(compared, before[1])


def test_the_tail_of_an_observed_gather_is_the_gather_itself():
    observed = np.ones((7, 3))
    np.testing.assert_array_equal(Tail(9, 7).apply(observed), observed)


def test_a_last_step_that_is_not_modelled_counts_as_zero():
    tail = Tail(9, 9, zero_last=True)
    assert tail.apply(np.ones((9, 1)))[-1] == 0
    assert tail.transpose(np.ones((9, 1)))[-1] == 0
