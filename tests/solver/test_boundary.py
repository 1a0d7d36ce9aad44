"""The sponge, how often the forward wavefield is kept, and how much memory a shot needs."""

from pathlib import Path

import numpy as np
import pytest

from hpcfwi.config.run import load_run_config
from hpcfwi.model.grid import Domain, courant_limit
from hpcfwi.model.problem import Problem
from hpcfwi.solver.boundary import Sponge
from hpcfwi.solver.spec import SolverSpec, snapshot_interval

CIRCLE = Path(__file__).parents[2] / "jobs" / "circle.toml"
PLANE, BALL = Domain((7, 5), (10.0, 20.0), (0.0, 100.0)), Domain((4, 6, 5), (10.0, 10.0, 5.0), (0.0, 0.0, 0.0))
SPONGES = [Sponge(PLANE, 3), Sponge(PLANE, 3, free_surface=True), Sponge(BALL, 2), Sponge(BALL, 2, free_surface=True)]


@pytest.mark.parametrize("sponge", SPONGES)
def test_extension_repeats_the_edges_as_numpy_pads(sponge):
    values = np.random.default_rng(0).standard_normal(sponge.domain.shape)
    np.testing.assert_array_equal(sponge.extend(values), np.pad(values, sponge.widths, mode="edge"))


@pytest.mark.parametrize("sponge", SPONGES)
def test_transpose_of_the_extension_passes_the_dot_product_test(sponge):
    rng = np.random.default_rng(1)
    inner, outer = rng.standard_normal(sponge.domain.shape), rng.standard_normal(sponge.padded_shape)
    left = (sponge.extend(inner) * outer).sum()
    assert left == pytest.approx((inner * sponge.extend_transpose(outer)).sum(), rel=1e-13)


@pytest.mark.parametrize("sponge", SPONGES)
def test_the_interior_of_an_extended_model_is_the_model(sponge):
    values = np.random.default_rng(2).standard_normal(sponge.domain.shape)
    np.testing.assert_array_equal(sponge.extend(values)[sponge.interior], values)


@pytest.mark.parametrize("free_surface", [False, True])
def test_damping_is_that_of_devitos_examples(free_surface):
    seismic = pytest.importorskip("examples.seismic")
    domain = Domain((21, 31), (10.0, 10.0), (0.0, 0.0))
    theirs = seismic.Model(
        vp=np.full(domain.shape, 2.0),
        origin=domain.origin,
        shape=domain.shape,
        spacing=domain.spacing,
        nbl=12,
        space_order=4,
        bcs="damp",
        fs=free_surface,
        dtype=np.float64,
    )
    found = Sponge(domain, 12, free_surface).damping()
    np.testing.assert_allclose(found, theirs.damp.data, rtol=1e-12, atol=1e-15)


def problem(*settings):
    return Problem.from_config(load_run_config(CIRCLE, settings))


def spec(*settings):
    return SolverSpec.from_problem(problem(*settings))


def test_wavefield_is_kept_more_often_for_higher_frequencies():
    every = [spec(f"wavelet.peak_frequency={f}").snapshot_every for f in (3, 5, 10, 20)]
    assert every == sorted(every, reverse=True)
    assert len(set(every)) == 4


def test_shorter_time_steps_keep_the_wavefield_less_often():
    every = [spec(f"solver.time_step={step}").snapshot_every for step in (0.25, 0.5, 1.0)]
    assert every == sorted(every, reverse=True)
    assert len(set(every)) == 3


@pytest.mark.parametrize("frequency", [3, 7, 11, 20])
@pytest.mark.parametrize("step", [0.3, 0.8, 1.5])
def test_the_highest_frequency_is_sampled_with_the_requested_margin(frequency, step):
    made = problem(f"wavelet.peak_frequency={frequency}", f"solver.time_step={step}", "data.recording_time=4000")
    highest = 2.76 * frequency / 1000
    k = SolverSpec.from_problem(made).snapshot_every
    assert 1 / (2 * highest * k * step) >= 2.5 * 0.999
    assert 1 / (2 * highest * (k + 1) * step) < 2.5 * 1.001


def test_a_larger_margin_keeps_more_and_full_keeps_every_step():
    assert spec("solver.sampling_margin=1").snapshot_every > spec().snapshot_every > 1
    assert SolverSpec.from_problem(problem(), every_step=True).snapshot_every == 1


def test_a_step_that_follows_the_model_is_sampled_for_its_longest():
    critical = problem("solver.time_step=critical")
    slowest = 0.5 * courant_limit(critical.domain, 4, 1.4)
    assert critical.fixed_step is None
    assert 1 / (2 * 0.0276 * SolverSpec.from_problem(critical).snapshot_every * 2 * slowest) >= 2.4


def test_snapshots_follow_frequency_and_step():
    assert snapshot_interval(1.752, 0.0138, 2.5) == 8
    assert snapshot_interval(1.752, 0.0276, 2.5) == 4
    assert snapshot_interval(3.504, 0.0138, 2.5) == 4
    assert snapshot_interval(10.0, 0.1, 2.5) == 1
