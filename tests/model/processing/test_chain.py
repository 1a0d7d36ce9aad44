"""The steps of a run: what happens to predicted, recorded and modelled gathers, and in which order."""

import numpy as np
import pytest

from hpcfwi.errors import DataError
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.chain import Processing
from hpcfwi.model.processing.filters import BandPass, Resample, SpectralFilter
from hpcfwi.model.processing.gains import LineSource, Normalise, TimeGain
from hpcfwi.model.processing.mutes import BottomMute, Moveout, OffsetWindow, TimeWindow, TopMute
from hpcfwi.model.processing.operators import Weights
from hpcfwi.model.survey import Shot

AXIS = TimeAxis(4.0, 251)
SHOT = Shot("17", np.array([0.0, 0.0]), np.stack([np.linspace(100.0, 1000.0, 7), np.zeros(7)], axis=1))
BAND, CAUSAL = BandPass(0.003, 0.02), BandPass(None, 0.02, phase="causal")
MUTE = TopMute(Moveout(2.5, 50.0), 40.0)
EVERY = (
    BAND,
    MUTE,
    BottomMute(Moveout(0.9, 100.0), 30.0),
    OffsetWindow(150.0, 900.0, 100.0),
    TimeWindow(20.0, 980.0, 50.0),
    TimeGain(1.0),
    Resample(8.0),
    BandPass(0.005, None, phase="causal"),
    Normalise(),
)


def kinds(chain):
    return [type(transform) for transform in chain.transforms]


def test_recorded_gathers_are_filtered_and_modelled_ones_have_the_filtered_wavelet():
    recorded = Processing((BAND, MUTE)).for_shot(SHOT, AXIS, "float64")
    assert kinds(recorded.predicted) == [Weights]  # end taper and mute
    assert kinds(recorded.observed) == [SpectralFilter, Weights]
    modelled = Processing((BAND, MUTE), applied=1).for_shot(SHOT, AXIS, "float64")
    assert kinds(modelled.predicted) == kinds(modelled.observed) == [Weights]
    np.testing.assert_array_equal(modelled.predicted.transforms[0].values, recorded.predicted.transforms[0].values)


def test_only_band_passes_before_other_steps_are_those_of_the_wavelet():
    assert Processing((BAND, CAUSAL, MUTE, BAND)).wavelet_bands == (BAND, CAUSAL)
    assert Processing((MUTE, BAND)).wavelet_bands == ()
    late = Processing((MUTE, BAND)).for_shot(SHOT, AXIS, "float64")
    assert kinds(late.predicted) == kinds(late.observed) == [Weights, SpectralFilter]


def test_a_step_of_observed_gathers_alone_leaves_band_passes_with_the_wavelet():
    steps = Processing((LineSource(2.0), CAUSAL, MUTE))
    chains = steps.for_shot(SHOT, AXIS, "float64")
    assert steps.wavelet_bands == (CAUSAL,)
    assert len(chains.observed.transforms) == 3
    assert kinds(chains.predicted) == [Weights]


def test_the_end_is_tapered_if_band_passes_are_the_only_steps():
    chains = Processing((BAND,)).for_shot(SHOT, AXIS, "float64")
    assert chains.predicted.transforms[0].values[-1] == 0
    assert not Processing((CAUSAL,)).for_shot(SHOT, AXIS, "float64").predicted.transforms


def test_resampling_changes_the_axis_of_the_steps_after_it():
    processing = Processing((TimeGain(1.0), Resample(8.0), TimeGain(1.0)))
    chains = processing.for_shot(SHOT, AXIS, "float64")
    assert chains.axis == processing.axis_after(AXIS) == TimeAxis(8.0, 126)
    assert chains.predicted.transforms[-1].values.shape == (126, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_derivative_of_all_steps_passes_the_dot_product_test_in_the_precision_of_the_gather(dtype):
    chains = Processing(EVERY).for_shot(SHOT, AXIS, dtype)
    rng = np.random.default_rng(6)
    gather, x = rng.standard_normal((2, 251, 7)).astype(dtype)
    value, derivative = chains.predicted.linearise(gather)
    y = rng.standard_normal(value.shape).astype(dtype)
    assert value.shape == (chains.axis.samples, 7)
    assert {value.dtype, derivative.apply(x).dtype, derivative.transpose(y).dtype} == {np.dtype(dtype)}
    left, right = (
        np.vdot(*pair).astype("float64") for pair in ((derivative.apply(x), y), (x, derivative.transpose(y)))
    )
    assert left == pytest.approx(right, rel=1e-12 if dtype == "float64" else 1e-4)


@pytest.mark.parametrize(
    ("steps", "step"),
    [
        ((BAND, OffsetWindow(2000.0, None, 0.0)), r"processing\[2\] \(offset_window\)"),
        ((TimeWindow(900.0, None, 0.0), BottomMute(Moveout(None, 500.0), 0.0)), r"processing\[2\] \(bottom_mute\)"),
    ],
)
def test_steps_that_leave_nothing_of_a_shot_are_an_error_of_the_shot(steps, step):
    message = (
        f"shot 17: {step} leaves nothing of its 7 traces, which have offsets from 100 to 1000 m and end at 1000 ms"
    )
    with pytest.raises(DataError, match=message):
        Processing(steps).for_shot(SHOT, AXIS, "float32")
