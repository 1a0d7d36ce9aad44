"""What all misfits have in common: the adjoint source is the derivative, and traces of zeros do no harm."""

import numpy as np
import pytest
from gathers import arrivals

from hpcfwi.inversion.gradient_check import extrapolate
from hpcfwi.inversion.misfits.base import UndefinedMisfit
from hpcfwi.inversion.misfits.registry import MISFITS, MisfitSpec, load_misfit
from hpcfwi.model.grid import TimeAxis

SPECS = [
    *map(MisfitSpec, MISFITS),
    MisfitSpec("huber", (("threshold", 0.1),)),
    MisfitSpec("correlation", (("amplitude_power", 2.0),)),
    MisfitSpec("envelope", (("power", 2),)),
    MisfitSpec("normalised_envelope", (("power", 2), ("amplitude_power", 1.0))),
    MisfitSpec("awi", (("max_lag", 150.0), ("damping", 0.1), ("amplitude_power", 1.0))),
    MisfitSpec("gsot", (("max_shift", 50.0), ("sample_interval", 4.0), ("amplitude_power", 2.0))),
]
NORMALISING = {"correlation", "normalised_envelope", "awi"}
each_spec = pytest.mark.parametrize("spec", SPECS, ids=str)


def pair(samples=180, noise=0.02):
    """Predicted and observed gather, which differ in times and amplitudes, and the time axis."""
    axis = TimeAxis(4.0, samples)
    rng = np.random.default_rng(3)
    observed = arrivals(axis) + noise * rng.standard_normal((samples, 5))
    return 1.3 * arrivals(axis, 15.0, 12.0), observed, axis


@each_spec
@pytest.mark.parametrize("samples", [180, 181])
def test_the_adjoint_source_is_the_derivative(spec, samples):
    misfit = load_misfit(spec)
    predicted, observed, axis = pair(samples)
    # as large as the trace and with its band, so that the misfit is smooth over the steps
    change = arrivals(axis, 40.0, 9.0) * np.random.default_rng(5).uniform(0.5, 1.5, 5)
    _, source = misfit.evaluate(predicted, observed, axis)

    def central(step):
        ends = [misfit.evaluate(predicted + sign * step * change, observed, axis)[0] for sign in (1, -1)]
        return (ends[0] - ends[1]) / (2 * step)

    expected = extrapolate(np.array([central(1e-3 * 0.5**k) for k in range(8)]))
    assert (source * change).sum() == pytest.approx(expected, rel=1e-8)


@each_spec
def test_equal_gathers_have_the_smallest_misfit_zero_and_no_adjoint_source(spec):
    _, observed, axis = pair()
    value, source = load_misfit(spec).evaluate(observed, observed, axis)
    assert 0 <= value < 1e-25
    assert np.abs(source).max() < 1e-12


@each_spec
def test_the_adjoint_source_has_the_precision_of_the_gather_and_the_arguments_stay(spec):
    predicted, observed, axis = pair()
    single = [gather.astype(np.float32) for gather in (predicted, observed)]
    kept = [gather.copy() for gather in single]
    value, source = load_misfit(spec).evaluate(*single, axis)
    assert (source.dtype, source.shape) == (np.float32, predicted.shape)
    assert all(np.array_equal(a, b) for a, b in zip(single, kept, strict=True))
    in_double = load_misfit(spec).evaluate(predicted, observed, axis)
    assert value == pytest.approx(in_double[0], rel=1e-5)
    assert np.abs(source - in_double[1]).max() < 1e-4 * np.abs(in_double[1]).max()


@each_spec
def test_traces_that_are_zero_in_both_gathers_change_nothing(spec):
    predicted, observed, axis = pair(noise=0.0)
    value, source = load_misfit(spec).evaluate(predicted, observed, axis)
    wider = [np.insert(gather, [0, 3, 3], 0.0, axis=1) for gather in (predicted, observed)]
    found, wider_source = load_misfit(spec).evaluate(*wider, axis)
    assert found == pytest.approx(value, rel=1e-12)
    assert not wider_source[:, [0, 4, 5]].any()
    np.testing.assert_allclose(np.delete(wider_source, [0, 4, 5], axis=1), source, rtol=1e-9, atol=1e-14)


@each_spec
@pytest.mark.parametrize("missing", ["predicted", "observed"])
def test_a_trace_that_one_gather_lacks_has_a_finite_misfit(spec, missing):
    predicted, observed, axis = pair()
    (predicted if missing == "predicted" else observed)[:, 2] = 0
    value, source = load_misfit(spec).evaluate(predicted, observed, axis)
    assert np.isfinite(value)
    assert np.isfinite(source).all()
    others = [np.delete(gather, 2, axis=1) for gather in (predicted, observed)]
    without, source_without = load_misfit(spec).evaluate(*others, axis)
    if spec.kind in NORMALISING:
        assert not source[:, 2].any()
        weightless = "amplitude_power" not in dict(spec.parameters)
        if missing == "observed":
            assert value == pytest.approx(without, rel=1e-12)
        elif weightless and spec.kind != "awi":
            assert value == pytest.approx(without + 1, rel=1e-9)
    elif spec.kind == "gsot" and missing == "observed":
        assert not source[:, 2].any()
        assert np.abs(np.delete(source, 2, axis=1)).max() == pytest.approx(np.abs(source_without).max(), rel=0.3)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.kind not in ("l2", "envelope")], ids=str)
def test_a_misfit_without_a_scale_says_so(spec):
    predicted, observed, axis = pair()
    with pytest.raises(UndefinedMisfit, match="the observed gather is zero"):
        load_misfit(spec).evaluate(predicted, 0 * observed, axis)
    if spec.kind in NORMALISING:
        with pytest.raises(UndefinedMisfit, match="no trace is both predicted and observed"):
            load_misfit(spec).evaluate(0 * predicted, observed, axis)


@each_spec
def test_a_misfit_does_not_depend_on_the_unit_of_the_gathers(spec):
    predicted, observed, axis = pair()
    value, source = load_misfit(spec).evaluate(predicted, observed, axis)
    scaled, scaled_source = load_misfit(spec).evaluate(1e4 * predicted, 1e4 * observed, axis)
    squares = {"l2": 1, "huber": 1, "envelope": dict(spec.parameters).get("power", 1)}.get(spec.kind, 0)
    assert scaled == pytest.approx(1e8**squares * value, rel=1e-9)
    np.testing.assert_allclose(scaled_source, 1e8**squares / 1e4 * source, atol=1e-9 * np.abs(scaled_source).max())
