"""Engines: what they take, what they give, and what they leave for the next shot."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hpcfwi.errors import InputError, RunError
from hpcfwi.model.grid import Domain, TimeAxis
from hpcfwi.model.survey import Shot
from hpcfwi.model.wavelet import RickerWavelet
from hpcfwi.solver.boundary import Cpml, Sponge
from hpcfwi.solver.engine import DevitoEngine, SleepingEngine, SleepingShots, open_engine
from hpcfwi.solver.operators import Propagator
from hpcfwi.solver.spec import SolverSpec

AXIS, WAVELET = TimeAxis(1.0, 300), RickerWavelet(0.015, 70.0)
SHOT = Shot("7", np.array([100.0, 20.0]), np.array([[300.0, 20.0], [400.0, 30.0]]))


DOMAIN = Domain((61, 51), (10.0, 10.0), (0.0, 0.0))


@pytest.fixture(scope="module")
def propagator():
    return Propagator(SolverSpec(Cpml(DOMAIN, 10), 8, "float64", 300, 4, 21))


@pytest.fixture(scope="module")
def engine(propagator):
    engine = DevitoEngine(propagator, WAVELET)
    engine.set_model(np.full((61, 51), 0.25))
    return engine


@pytest.mark.parametrize(("make", "layer_gradient"), [(Cpml, False), (Sponge, False), (Sponge, True)])
@pytest.mark.parametrize("shape", [(61, 51), (31, 23, 27)])
def test_the_estimated_memory_is_what_the_arrays_take(shape, make, layer_gradient):
    boundary = make(Domain(shape, (10.0,) * len(shape), (0.0,) * len(shape)), 12)
    spec = SolverSpec(boundary, 8, "float32", 300, 4, 21, layer_gradient)
    propagator = Propagator(spec)
    extended = boundary.extend(np.zeros(shape, dtype="float32"))
    taken = propagator.equation.nbytes + propagator.storage.nbytes + extended.nbytes
    assert spec.nbytes == pytest.approx(taken, rel=0.02)
    _ = propagator.born
    scattered = [each for pair in getattr(propagator.equation.time_step, "_scattered", ()) for each in pair]
    taken += sum(int(np.prod(each.shape_allocated)) for each in scattered) * spec.itemsize
    assert replace(spec, born=True).nbytes == pytest.approx(taken, rel=0.02)


def test_the_layer_has_the_edge_values_of_the_model_or_of_another(engine):
    rng = np.random.default_rng(3)
    m, other = (0.2 + 0.1 * rng.random((61, 51)) for _ in range(2))
    try:
        engine.set_model(m)
        medium = engine.equation.time_step.squared_velocity.data
        order = engine.boundary.memory_order
        np.testing.assert_allclose(1 / medium, engine.boundary.extend(m).transpose(order), rtol=1e-12)
    finally:
        engine.set_model(np.full((61, 51), 0.25))
    frozen = DevitoEngine(engine.propagator, WAVELET, other)
    for model in (0 * m + 0.1, m):
        frozen.set_model(model)
    expected = engine.boundary.extend(other)
    expected[engine.boundary.interior] = m
    np.testing.assert_allclose(1 / medium, expected.transpose(order), rtol=1e-12)
    frozen.set_model(m, own_edges=True)
    np.testing.assert_allclose(1 / medium, engine.boundary.extend(m).transpose(order), rtol=1e-12)
    engine.set_model(np.full((61, 51), 0.25))


def test_the_misfit_sees_the_record_and_its_adjoint_source_gives_the_gradient(engine):
    record = engine.record(SHOT, AXIS).copy()
    seen = []

    def compare(predicted):
        seen.append(predicted.copy())
        return 3.0, predicted / 2

    value, half = engine.misfit_and_gradient(SHOT, AXIS, compare)
    np.testing.assert_array_equal(seen[0], record)
    assert value == 3.0
    whole = engine.misfit_and_gradient(SHOT, AXIS, lambda predicted: (0.0, predicted))[1]
    assert half.shape == (61, 51)
    np.testing.assert_allclose(whole, 2 * half, rtol=1e-10)


def test_the_layers_gradient_is_folded_onto_the_edge_or_dropped():
    gradients = []
    for folded in (True, False):
        spec = SolverSpec(Sponge(DOMAIN, 20), 8, "float64", 300, 4, 21, folded)
        engine = DevitoEngine(Propagator(spec), WAVELET)
        engine.set_model(np.full((61, 51), 0.25))
        gradients.append(engine.misfit_and_gradient(SHOT, AXIS, lambda d: (0.0, d))[1])
    exact, cropped = gradients
    np.testing.assert_allclose(exact[1:-1, 1:-1], cropped[1:-1, 1:-1], rtol=1e-12, atol=1e-12 * np.abs(exact).max())
    assert not np.allclose(exact[0], cropped[0])


def test_the_gradient_in_a_layer_of_cpml_is_refused():
    with pytest.raises(ValueError, match="CPML"):
        SolverSpec(Cpml(DOMAIN, 10), 8, "float64", 300, 4, 21, True)


def test_kernels_are_timed(engine):
    before = engine.kernel_seconds
    engine.record(SHOT, AXIS)
    assert engine.kernel_seconds > before


def test_a_sleeping_engine_sleeps_as_long_as_it_says_and_has_a_gradient_of_the_right_size(propagator):
    sleeping = open_engine(propagator, WAVELET, None, None, SleepingShots(0.05))
    assert isinstance(sleeping, SleepingEngine)
    sleeping.set_model(np.full((61, 51), 0.5))
    value, gradient = sleeping.misfit_and_gradient(SHOT, AXIS, lambda _: (math.nan, np.empty(0)))
    assert sleeping.kernel_seconds >= 0.05
    assert value > 0
    assert gradient.shape == (61, 51)
    assert sleeping.record(SHOT, AXIS).shape == (300, 2)


def test_durations_of_sleeping_shots_have_the_requested_mean_and_spread():
    shots = SleepingShots.parse("2:0.25")
    durations = np.array([shots.duration(str(i)) for i in range(4000)])
    assert durations.mean() == pytest.approx(2.0, rel=0.01)
    assert durations.std() == pytest.approx(0.5, rel=0.05)
    assert shots.duration("7") == durations[7]
    assert SleepingShots.parse("2").duration("7") == 2.0


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "1:11", "1:-1", "1:2:3"])
def test_impossible_durations_are_refused(text):
    with pytest.raises(InputError, match=r"--stand-in 2 or --stand-in 2:0\.25"):
        SleepingShots.parse(text)


def test_a_kernel_that_fails_is_an_error(engine, monkeypatch):
    kernel = engine.propagator.forward
    monkeypatch.setattr(type(kernel.operator), "cfunction", lambda *_: 200)
    with pytest.raises(RunError, match="the kernel Forward ended with error 200"):
        engine.record(SHOT, AXIS)
