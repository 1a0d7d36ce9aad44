"""The wave operators against solutions that others made: Devito's examples, an analytic one, an image source."""

from pathlib import Path

import devito
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import hankel2

from hpcfwi.config.run import load_run_config
from hpcfwi.inversion.gradient_check import dot_product_error
from hpcfwi.inversion.misfits.least_squares import LeastSquares
from hpcfwi.model.grid import Domain, TimeAxis, safe_step
from hpcfwi.model.problem import Problem
from hpcfwi.model.processing.sampling import Tail
from hpcfwi.model.survey import Shot
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.model.wavelet import RickerWavelet, SampledWavelet
from hpcfwi.solver.boundary import Cpml, Sponge
from hpcfwi.solver.engine import DevitoEngine
from hpcfwi.solver.equations import AcousticEquation
from hpcfwi.solver.operators import Propagator
from hpcfwi.solver.spec import SolverSpec

CIRCLE = Path(__file__).parents[2] / "jobs" / "circle.toml"
FIFTEEN_HZ = RickerWavelet(0.015, 70.0)
AXIS = TimeAxis(1.2, 200)


def make_engine(
    boundary,
    wavelet,
    order=8,
    dtype="float64",
    samples=200,
    every=1,
    receivers=21,
    folded=False,
    edges=None,
    points=2,
):
    spec = SolverSpec(boundary, order, dtype, samples, every, receivers, folded, points)
    return DevitoEngine(Propagator(spec), wavelet, edges)


def least_squares(observed, axis):
    return lambda predicted: LeastSquares().evaluate(predicted, observed, axis)


def random_velocity(shape, seed=0, spread=0.3):
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2)
    return 2.2 + spread * noise / np.abs(noise).max()


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def line_of_receivers(domain, count=21, depth=25.0):
    ends = np.array([domain.origin, domain.last])
    ends[:, -1] = depth
    return np.linspace(*ends, count)


def test_a_problem_plans_with_the_stable_step_of_its_equation():
    critical = Problem.from_config(load_run_config(CIRCLE, ["solver.time_step=critical"]))
    equation = AcousticEquation(SolverSpec.from_problem(critical))
    low, high = critical.config.inversion.bounds
    assert critical.time_steps == (equation.stable_step(high), equation.stable_step(low))
    assert critical.time_axis(np.full(critical.domain.shape, 2.7)).step == equation.stable_step(2.7)


@pytest.mark.parametrize(
    ("shape", "order"), [((51, 41), 4), pytest.param((51, 41), 8, marks=pytest.mark.slow), ((25, 23, 21), 4)]
)
def test_record_gradient_and_born_are_those_of_devitos_examples(shape, order):
    seismic = pytest.importorskip("examples.seismic")
    acoustic = pytest.importorskip("examples.seismic.acoustic")
    ndim = len(shape)
    domain = Domain(shape, (10.0,) * ndim, (0.0,) * ndim)
    sponge = Sponge(domain, 10)
    velocity = random_velocity(shape)
    model = seismic.Model(
        vp=velocity, origin=domain.origin, shape=shape, spacing=domain.spacing, nbl=10, space_order=order, bcs="damp",
        dtype=np.float64,
    )  # fmt: skip
    receivers = line_of_receivers(domain)
    source = np.array([[*(0.45 * n for n in domain.last[:-1]), 33.0]])
    geometry = seismic.AcquisitionGeometry(model, receivers, source, 0.0, 300.0, f0=0.015, src_type="Ricker")
    # Devito's loop does not inject the first sample; ours injects all
    wavelet = np.array(geometry.src.data[:, 0])
    wavelet[0] = 0
    theirs = acoustic.AcousticWaveSolver(model, geometry, space_order=order)
    record, u, _ = theirs.forward(save=True)
    residual = np.array(record.data) * np.linspace(0.5, 1.5, len(receivers))
    residual[-1] = 0
    geometry_residual = geometry.rec
    geometry_residual.data[:] = residual
    gradient = np.array(theirs.gradient(geometry_residual, u)[0].data)
    direction = np.random.default_rng(5).standard_normal(shape)
    change = devito.Function(name="dm", grid=model.grid, space_order=0)
    change.data[sponge.interior] = direction
    scattered = np.array(theirs.jacobian(change)[0].data)

    axis = TimeAxis(float(model.critical_dt), geometry.nt)
    ours = make_engine(sponge, SampledWavelet(tuple(wavelet), axis.step), order, samples=axis.samples)
    ours.set_model(squared_slowness(velocity))
    shot = Shot("0", source[0], receivers)
    assert relative(ours.record(shot, axis)[:-1], np.array(record.data)[:-1]) < 1e-5
    found = ours.misfit_and_gradient(shot, axis, lambda _: (0.0, residual))[1]
    assert relative(found, gradient[sponge.interior]) < 1e-5
    assert relative(ours.born(shot, axis, direction)[:-1], scattered[:-1]) < 1e-5


def test_a_homogeneous_medium_gives_the_analytic_solution():
    domain = Domain((121, 121), (10.0, 10.0), (0.0, 0.0))
    velocity, wavelet = 2.0, RickerWavelet(0.010, 120.0)
    axis = TimeAxis.covering(500.0, 0.5)
    source = np.array([400.0, 600.0])
    receivers = np.array([[700.0, 600.0], [800.0, 850.0], [1000.0, 500.0]])
    ours = make_engine(Cpml(domain, 10, velocity=velocity), wavelet, order=16, samples=axis.samples, receivers=3)
    ours.set_model(np.full(domain.shape, velocity**-2))
    found = ours.record(Shot("0", source, receivers), axis)
    # -i/4 H0(2)(kr) is the outgoing solution in 2-D; a source on a grid point stands for a cell, h^2
    count = 8 * axis.samples
    spectrum = np.fft.rfft(wavelet.sample(axis), count)
    omega = 2 * np.pi * np.fft.rfftfreq(count, axis.step)
    for i, receiver in enumerate(receivers):
        distance = np.linalg.norm(receiver - source)
        green = np.zeros_like(spectrum)
        # time in ms and distance in m make the velocity m/ms
        green[1:] = -0.25j * hankel2(0, omega[1:] * distance / velocity)
        exact = np.fft.irfft(spectrum * green, count)[: axis.samples] * 10.0**2
        assert relative(found[:, i], exact) < 0.01


@pytest.mark.parametrize("layer", [Sponge, Cpml])
@pytest.mark.parametrize("order", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_a_free_surface_is_an_image_source_of_opposite_sign(order, layer):
    rows = 40
    below = Domain((61, rows), (10.0, 10.0), (0.0, 0.0))
    whole = Domain((61, 2 * rows - 1), (10.0, 10.0), (0.0, -(rows - 1) * 10.0))
    velocity = random_velocity(below.shape)
    mirrored = np.concatenate([velocity[:, :0:-1], velocity], axis=1)
    axis = TimeAxis.covering(400.0, safe_step(below, order, 2.6))
    wavelet = RickerWavelet(0.012, 90.0)
    source, receivers = np.array([203.0, 47.0]), line_of_receivers(below, depth=31.0)
    surface = make_engine(layer(below, 30, free_surface=True), wavelet, order, samples=axis.samples)
    surface.set_model(velocity**-2.0)
    found = surface.record(Shot("0", source, receivers), axis)
    full = make_engine(layer(whole, 30), wavelet, order, samples=axis.samples)
    full.set_model(mirrored**-2.0)
    direct = full.record(Shot("0", source, receivers), axis).copy()
    image = full.record(Shot("image", source * [1, -1], receivers), axis)
    assert relative(found, direct - image) < 1e-10
    assert np.abs(found).max() > 0


@pytest.mark.parametrize("free_surface", [False, True])
@pytest.mark.parametrize("treatment", ["cpml", pytest.param("sponge", marks=pytest.mark.slow), "folded sponge"])
@pytest.mark.parametrize(
    ("shape", "order"),
    [((41, 35), 4), ((35, 41), 8), *(pytest.param((41, 35), n, marks=pytest.mark.slow) for n in (2, 6, 10, 12, 14, 16)),
     *(pytest.param(shape, n, marks=pytest.mark.slow) for n in (4, 8) for shape in ((19, 15, 17), (19, 17, 15)))],
)  # fmt: skip
def test_the_gradient_is_exact_up_to_the_edges(shape, order, free_surface, treatment):
    ndim = len(shape)
    domain = Domain(shape, (10.0, 9.0, 12.5)[3 - ndim :], (0.0,) * ndim)
    boundary = (Cpml if treatment == "cpml" else Sponge)(domain, 10, free_surface=free_surface)
    folded = treatment == "folded sponge"
    rng = np.random.default_rng(5)
    axis = TimeAxis.covering(350.0, safe_step(domain, order, 3.0))
    true, m = (random_velocity(shape, seed) ** -2.0 for seed in (1, 2))
    edges = None if folded else m  # else the layer follows the model, and so does its part of the gradient
    options = {"samples": axis.samples, "folded": folded, "edges": edges, "points": min(2 * order, 8)}
    engine = make_engine(boundary, FIFTEEN_HZ, order, **options)
    # between grid points, and next to the edges
    shot = Shot("0", np.array([*(0.4 * end for end in domain.last[:-1]), 13.0]), line_of_receivers(domain))
    direction = 0.1 * m * rng.standard_normal(shape)  # does not vanish anywhere
    engine.set_model(m)
    everything = Tail(axis.samples, axis.samples)
    assert dot_product_error(engine, shot, axis, everything, direction, rng) < 1e-12

    engine.set_model(true, own_edges=True)
    misfit = least_squares(engine.record(shot, axis).copy(), axis)
    engine.set_model(m)
    at_zero, gradient = engine.misfit_and_gradient(shot, axis, misfit)
    assert np.abs(gradient[0]).max() > 0

    def along(h):
        engine.set_model(m + h * direction)
        return misfit(engine.record(shot, axis))[0]

    slope, steps = float((gradient * direction).sum()), 0.02 * 0.5 ** np.arange(7)
    remainders = np.abs([along(h) - at_zero - h * slope for h in steps])
    assert np.log2(remainders[1:-1] / remainders[2:]) == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(
    ("shape", "cells"),
    [pytest.param((16, 15), 14, marks=pytest.mark.slow), pytest.param((9, 8), 6, marks=pytest.mark.slow), ((5, 3), 3)],
)
def test_layers_as_wide_as_the_model_do_not_disturb_each_other(shape, cells):
    domain = Domain(shape, (10.0, 10.0), (0.0, 0.0))
    axis = TimeAxis.covering(250.0, safe_step(domain, 8, 3.0))
    m = random_velocity(shape) ** -2.0
    engine = make_engine(Cpml(domain, cells, velocity=2.5), FIFTEEN_HZ, samples=axis.samples, edges=m)
    engine.set_model(m)
    rng = np.random.default_rng(7)
    direction = m * rng.standard_normal(shape)
    shot = Shot("0", np.array([20.0, 10.0]), line_of_receivers(domain, depth=10.0))
    assert dot_product_error(engine, shot, axis, Tail(axis.samples, axis.samples), direction, rng) < 1e-12


def test_single_precision_passes_the_dot_product_test_to_1e_4():
    domain = Domain((41, 35), (10.0, 10.0), (0.0, 0.0))
    axis = TimeAxis.covering(350.0, safe_step(domain, 4, 3.0))
    engine = make_engine(Cpml(domain, 10), FIFTEEN_HZ, 4, "float32", axis.samples)
    shot = Shot("0", np.array([203.0, 13.0]), line_of_receivers(domain))
    rng = np.random.default_rng(6)
    m = random_velocity(domain.shape) ** -2.0
    engine.set_model(m)
    direction = 0.1 * m * rng.standard_normal(m.shape)
    assert dot_product_error(engine, shot, axis, Tail(axis.samples, axis.samples), direction, rng) < 1e-4


@pytest.mark.slow
def test_a_sampled_wavefield_gives_nearly_the_full_gradient_and_less_so_with_fewer_samples():
    domain = Domain((61, 51), (10.0, 10.0), (0.0, 0.0))
    axis = TimeAxis.covering(500.0, safe_step(domain, 8, 3.0))
    true, m = (random_velocity(domain.shape, seed) ** -2.0 for seed in (1, 2))
    shot = Shot("0", np.array([103.0, 13.0]), line_of_receivers(domain))
    gradients = {}
    for every in (1, 4, 8, 24):
        engine = make_engine(
            Cpml(domain, 10, velocity=2.5), RickerWavelet(0.010, 100.0), samples=axis.samples, every=every
        )
        assert engine.propagator.storage.exact == (every == 1)
        engine.set_model(true)
        misfit = least_squares(engine.record(shot, axis).copy(), axis)
        engine.set_model(m)
        gradients[every] = engine.misfit_and_gradient(shot, axis, misfit)[1]
    # by the rule it would be every 4th step
    difference = {every: relative(gradient, gradients[1]) for every, gradient in gradients.items()}
    assert difference[4] < 3e-3 < difference[8] < difference[24]


@pytest.mark.parametrize("layer", [Cpml, Sponge])
def test_a_survey_far_from_the_origin_gives_the_same_bytes(layer):
    found = []
    for origin in (np.zeros(2), np.array([5_804_000.0, 640_000.0])):
        domain = Domain((41, 35), (12.5, 12.5), tuple(origin))
        engine = make_engine(layer(domain, 10), FIFTEEN_HZ, 4, "float32")
        engine.set_model(random_velocity(domain.shape) ** -2.0)
        line = np.linspace([20.5, 33.25], [480.75, 33.25], 21)
        shot = Shot("0", origin + np.array([203.5, 13.25]), origin + line)
        record = []
        gradient = engine.misfit_and_gradient(shot, AXIS, lambda d, kept=record: kept.append(d.copy()) or (0.0, d))[1]
        found.append((record[0].tobytes(), gradient.tobytes()))
    assert found[0] == found[1]


def test_sources_and_receivers_on_the_edge_of_the_model_are_recorded():
    domain = Domain((31, 31), (10.0, 10.0), (0.0, 0.0))
    axis = TimeAxis.covering(300.0, safe_step(domain, 4, 3.0))
    engine = make_engine(Cpml(domain, 10), FIFTEEN_HZ, 4, samples=axis.samples, receivers=2)
    engine.set_model(np.full(domain.shape, 0.2))
    corners = np.array([[0.0, 300.0], [300.0, 0.0]])
    record = engine.record(Shot("0", np.array([300.0, 300.0]), corners), axis)
    assert np.abs(record).max(axis=0).min() > 0
    np.testing.assert_allclose(record[:, 0], record[:, 1], rtol=1e-6, atol=1e-9 * np.abs(record).max())


def test_the_damping_term_is_the_documented_one_sided_difference():
    grid = devito.Grid(shape=(3, 3))
    u = devito.TimeFunction(name="u", grid=grid, time_order=2, space_order=2)
    assert str(u.dt.evaluate) == "-u(t, x, y)/dt + u(t + dt, x, y)/dt"
    assert str(u.dt.T.evaluate) == "-u(t, x, y)/dt + u(t - dt, x, y)/dt"
