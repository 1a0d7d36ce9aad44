"""What is known of each misfit from outside: SciPy's functions, exhaustive search, and the misfit of shifted traces."""

from itertools import permutations

import numpy as np
import pytest
import scipy.special
from gathers import PERIOD, arrivals, ricker
from scipy.signal import hilbert as analytic_signal

from hpcfwi.inversion.misfits.adaptive import AdaptiveWaveform
from hpcfwi.inversion.misfits.correlation import Correlation
from hpcfwi.inversion.misfits.envelope import Envelope, hilbert, normalised_envelope
from hpcfwi.inversion.misfits.least_squares import Huber, LeastSquares
from hpcfwi.inversion.misfits.transport import GraphTransport
from hpcfwi.model.grid import TimeAxis

AXIS = TimeAxis(4.0, 250)


def value(misfit, predicted, observed, axis=AXIS):
    return misfit.evaluate(predicted, observed, axis)[0]


def shifted(misfit, shifts, moved):
    """The misfit of a trace that is later by each of the shifts, ms."""
    return np.array([value(misfit, moved(shift), moved(0.0)) for shift in shifts])


def one(shift):
    return ricker(AXIS.times - 500 - shift)[:, None]


def three(shift):
    return sum(a * ricker(AXIS.times - t - shift) for a, t in ((1, 350), (-0.7, 500), (0.5, 690)))[:, None]


@pytest.mark.parametrize("threshold", [0.05, 0.5, 2.0])
def test_huber_is_that_of_scipy(threshold):
    rng = np.random.default_rng(0)
    predicted, observed = rng.standard_normal((2, 250, 3))
    observed[:100] = 0  # muted: no part of the rms
    limit = threshold * np.sqrt(np.mean(observed[100:] ** 2))
    expected = scipy.special.huber(limit, predicted - observed).sum()
    assert value(Huber(threshold), predicted, observed) == pytest.approx(expected, rel=1e-12)


def test_huber_is_l2_for_small_residuals_and_clips_an_outlier():
    observed = arrivals(AXIS)
    predicted = observed + 1e-3 * arrivals(AXIS, 30.0)
    expected, source = LeastSquares().evaluate(predicted, observed, AXIS)
    assert value(Huber(), predicted, observed) == pytest.approx(expected, rel=1e-9)
    predicted[20, 1] = 50
    limit = np.sqrt(np.mean(observed**2))
    clipped = Huber().evaluate(predicted, observed, AXIS)[1]
    assert clipped[20, 1] == pytest.approx(limit)
    np.testing.assert_allclose(np.delete(clipped, 20, axis=0), np.delete(source, 20, axis=0), atol=1e-12)


def test_the_correlation_sees_neither_the_amplitude_of_a_trace_nor_that_of_its_observation():
    predicted, observed = arrivals(AXIS, 20.0, 12.0), arrivals(AXIS)
    expected = sum(1 - np.corrcoef(p, o)[0, 1] for p, o in zip(predicted.T - predicted.mean(0)[:, None],
                                                              observed.T - observed.mean(0)[:, None], strict=True))  # fmt: skip
    centred = predicted - predicted.mean(axis=0), observed - observed.mean(axis=0)
    assert value(Correlation(), *centred) == pytest.approx(expected, rel=1e-12)
    gains = np.array([1e-3, 0.1, 1.0, 7.0, 1e3])
    assert value(Correlation(), gains * centred[0], centred[1] / gains) == pytest.approx(expected, rel=1e-12)
    assert value(Correlation(), -observed, observed) == pytest.approx(2 * 5)


@pytest.mark.parametrize("misfit", [Correlation, lambda power: normalised_envelope(1, power),
                                    lambda power: AdaptiveWaveform(amplitude_power=power),
                                    lambda power: GraphTransport(amplitude_power=power)])  # fmt: skip
def test_traces_count_as_a_power_of_their_observed_norm(misfit):
    predicted, observed = arrivals(AXIS, 20.0, 12.0), arrivals(AXIS)
    alone = np.array([value(misfit(2.0), predicted[:, [r]], observed[:, [r]]) for r in range(5)])
    if isinstance(misfit(2.0), GraphTransport):
        alone = np.array(
            [value(GraphTransport(max_shift=150.0), predicted[:, [r]], observed[:, [r]]) for r in range(5)]
        )
        together = value(GraphTransport(max_shift=150.0, amplitude_power=2.0), predicted, observed)
    elif isinstance(misfit(2.0), AdaptiveWaveform):
        alone = np.array([value(AdaptiveWaveform(300.0), predicted[:, [r]], observed[:, [r]]) for r in range(5)])
        together = value(AdaptiveWaveform(300.0, amplitude_power=2.0), predicted, observed)
    else:
        together = value(misfit(2.0), predicted, observed)
    squares = np.square(observed).sum(axis=0)
    assert together == pytest.approx((squares / squares.mean() * alone).sum(), rel=1e-3)


@pytest.mark.parametrize("samples", [250, 251])
def test_the_hilbert_transform_is_that_of_scipy_and_antisymmetric(samples):
    rng = np.random.default_rng(0)
    gather, other = rng.standard_normal((2, samples, 3))
    for padded in (2 * samples, 2 * samples + 100):  # the wrap-around of both is different, where there is any
        expected = analytic_signal(gather, padded, axis=0).imag[:samples]
        assert np.abs(hilbert(gather) - expected).max() < 0.2
    np.testing.assert_allclose((other * hilbert(gather)).sum(), -(hilbert(other) * gather).sum(), rtol=1e-12)


@pytest.mark.parametrize("power", [1, 2])
def test_the_envelope_of_a_modulated_wave_is_its_modulation(power):
    times = AXIS.times[:, None]
    bells = [np.exp(-(((times - centre) / 80) ** 2)) for centre in (450, 520)]
    waves = [bell * np.cos(0.15 * times + phase) for bell, phase in zip(bells, (0.0, 1.0), strict=True)]
    expected = 0.5 * np.sum((bells[0] ** power - bells[1] ** power) ** 2)
    assert value(Envelope(power), *waves) == pytest.approx(expected, rel=2e-3)
    cosine = (bells[0] ** power * bells[1] ** power).sum() / np.prod([np.linalg.norm(bell**power) for bell in bells])
    assert value(normalised_envelope(power), 3 * waves[0], waves[1]) == pytest.approx(1 - cosine, rel=2e-3)


@pytest.mark.parametrize("misfit", [Envelope(), Envelope(2), normalised_envelope()])
def test_the_envelope_does_not_see_a_phase(misfit):
    turned = np.cos(1.0) * one(0.0) - np.sin(1.0) * hilbert(one(0.0))
    assert value(misfit, turned, one(0.0)) < 1e-4 * value(misfit, one(PERIOD), one(0.0))


def test_the_adaptive_misfit_grows_with_the_shift_over_several_periods():
    for moved, longest in ((one, 4 * PERIOD), (three, 2.4 * PERIOD)):  # then the record ends
        shifts = np.linspace(0, longest, 41)
        found = shifted(AdaptiveWaveform(max_lag=6 * PERIOD), shifts, moved)
        assert (np.diff(found) > 0).all()
        assert found[0] < 1e-30
        # W = exp(-i omega shift): lags are those of a spike at the shift, less those of a spike of this band at zero
        spread = np.sqrt(2 * found[-1]) - longest / (6 * PERIOD)
        assert -0.15 < spread < 0


def test_the_adaptive_misfit_is_that_of_warner_and_guasch_for_a_filter_that_is_known():
    rng = np.random.default_rng(1)
    observed = np.zeros((250, 1))
    observed[:100] = rng.standard_normal((100, 1))
    shift, gain = 25, -0.5  # samples
    predicted = observed + gain * np.roll(observed, shift, axis=0)
    lags = np.array([0.0, shift * AXIS.step / 200])
    expected = 0.5 * np.sum((lags * [1, gain]) ** 2) / (1 + gain**2)
    assert value(AdaptiveWaveform(200.0, damping=1e-9), predicted, observed) == pytest.approx(expected, rel=1e-3)


def test_the_assignment_of_graph_transport_is_the_best_of_all():
    rng = np.random.default_rng(2)
    axis = TimeAxis(4.0, 7)
    predicted, observed = rng.standard_normal((2, 7, 2))
    found, source = GraphTransport(max_shift=10.0, sample_interval=4.0).evaluate(predicted, observed, axis)
    expected, expected_source = 0.0, np.empty((7, 2))
    for r in range(2):
        scale = np.abs(observed[:, r]).max()
        costs = {
            order: np.sum((predicted[:, r] - observed[list(order), r]) ** 2) / scale**2
            + np.sum((axis.times - axis.times[list(order)]) ** 2) / 10.0**2
            for order in permutations(range(7))
        }
        best = min(costs, key=costs.__getitem__)
        expected += 0.5 * 0.4 * costs[best]
        expected_source[:, r] = 0.4 * (predicted[:, r] - observed[list(best), r]) / scale**2
    assert found == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(source, expected_source, rtol=1e-12)


def test_graph_transport_is_l2_where_no_sample_may_move():
    predicted, observed = one(60.0), one(0.0)
    found, source = GraphTransport(max_shift=1.0, sample_interval=4.0).evaluate(predicted, observed, AXIS)
    expected, residual = LeastSquares().evaluate(predicted, observed, AXIS)
    assert found == pytest.approx(4.0 * expected, rel=1e-12)
    np.testing.assert_allclose(source, 4.0 * residual, atol=1e-12)


@pytest.mark.parametrize("shift", [0.3, 0.7, 1.0])
def test_graph_transport_hardly_depends_on_the_sample_interval(shift):
    fine, coarse = (
        value(GraphTransport(2 * PERIOD, interval), three(shift * PERIOD), three(0.0)) for interval in (4.0, 8.0)
    )
    assert coarse == pytest.approx(fine, rel=0.15)


@pytest.mark.parametrize(
    ("misfit", "basin"),
    [
        (LeastSquares(), (0.35, 0.55)),
        (Huber(), (0.35, 0.6)),
        (Correlation(), (0.35, 0.55)),
        (Envelope(), (0.9, 1)),
        (Envelope(2), (0.8, 1)),
        (normalised_envelope(), (0.9, 1)),
        (AdaptiveWaveform(), (1, 1)),
        (GraphTransport(sample_interval=4.0), (1, 1)),
    ],
    ids=["l2", "huber", "correlation", "envelope", "squared envelope", "normalised envelope", "awi", "gsot"],
)
@pytest.mark.parametrize("moved", [one, three])
@pytest.mark.parametrize("sign", [1, -1])
def test_how_far_a_trace_may_be_shifted_before_the_misfit_falls_again(misfit, basin, moved, sign):
    # the figure of docs/pages/theory/misfits.md; ripples of 3 % come from the sample interval (gsot)
    shifts = np.linspace(0, 1, 26)
    found = shifted(misfit, sign * PERIOD * shifts, moved)
    highest = np.maximum.accumulate(found)
    falls = np.flatnonzero(highest - found > 0.03 * found.max())
    reached = shifts[found[: falls[0]].argmax()] if len(falls) else 1.0
    assert basin[0] <= reached <= basin[1]
    assert found.argmin() == 0
