"""Velocity models: built-in ones, smoothing, slowness, frozen cells."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from hpcfwi.config.models import CircleModel, ConstantModel, DomeModel, GradientModel, LayersModel
from hpcfwi.errors import InputError
from hpcfwi.model.grid import Domain
from hpcfwi.model.masks import read_mask
from hpcfwi.model.velocity import build_model, smooth_model, squared_slowness, velocity_from

VELOCITY = np.linspace(1.5, 4.5, 6 * 5).reshape(6, 5)


@pytest.fixture
def npy(tmp_path):
    """Writes an array to a .npy file and returns its path."""

    def write(array, name="v.npy"):
        np.save(tmp_path / name, array)
        return tmp_path / name

    return write


def build(section, shape=(6, 5), name="model"):
    return build_model(section, Domain(shape, (10.0, 20.0, 10.0)[: len(shape)], (0.0,) * len(shape)), name)


def test_constant_is_the_same_everywhere():
    assert (build(ConstantModel(kind="constant", velocity=2.0)) == 2.0).all()


def test_layers_begin_at_their_interfaces():
    layers = LayersModel(kind="layers", velocities=(1.5, 2.0, 3.0), interfaces=(20.0, 50.0))
    np.testing.assert_array_equal(build(layers), np.broadcast_to([1.5, 2.0, 2.0, 3.0, 3.0], (6, 5)))


def test_an_interface_at_a_grid_point_is_found_in_spite_of_rounding():
    assert 3 * 0.7 < 2.1
    layers = LayersModel(kind="layers", velocities=(1.5, 2.0), interfaces=(2.1,))
    velocity = build_model(layers, Domain((3, 5), (0.7, 0.7), (0.0, 0.0)), "model")
    np.testing.assert_array_equal(velocity[0], [1.5, 1.5, 1.5, 2.0, 2.0])


def test_depth_of_layers_counts_from_the_origin_of_the_coordinates():
    layers = LayersModel(kind="layers", velocities=(1.5, 2.0), interfaces=(20.0,))
    assert (build_model(layers, Domain((6, 5), (10.0, 20.0), (0.0, 20.0)), "model") == 2.0).all()


def test_a_circle_is_round_in_metres_and_by_default_in_the_middle():
    velocity = build(CircleModel(kind="circle", radius=20.0), (7, 5))
    x, z = np.meshgrid(10.0 * np.arange(7) - 30.0, 20.0 * np.arange(5) - 40.0, indexing="ij")
    np.testing.assert_array_equal(velocity, np.where(np.hypot(x, z) <= 20.0, 3.0, 2.5))


def test_ball_is_a_circle_in_three_dimensions():
    cube = Domain((5, 5, 5), (10.0, 10.0, 10.0), (0.0, 0.0, 0.0))
    velocity = build_model(CircleModel(kind="circle", radius=10.0, center=(20.0, 20.0, 20.0)), cube, "model")
    assert (velocity == 3.0).sum() == 7


def test_a_centre_needs_a_coordinate_for_each_axis():
    with pytest.raises(InputError, match=r"initial\.center: has 3 coordinates, but the grid has 2 axes"):
        build(CircleModel(kind="circle", center=(1.0, 2.0, 3.0)), name="initial")


def test_smoothing_leaves_a_constant_as_it_is():
    np.testing.assert_allclose(smooth_model(np.full((9, 9), 15.0), 3.0), 15.0, rtol=1e-12)


def test_slowness_and_velocity_convert_into_each_other():
    assert squared_slowness(2.0) == 0.25
    np.testing.assert_allclose(velocity_from(squared_slowness(VELOCITY)), VELOCITY, rtol=1e-15)


@pytest.mark.parametrize("sigma", [0.3, 1, 5.5, 13.7])
def test_smoothing_is_that_of_scipy(sigma):
    noise = np.random.default_rng(0).uniform(1.5, 4.0, (20, 22, 24))
    np.testing.assert_allclose(smooth_model(noise, sigma), gaussian_filter(noise, sigma, mode="reflect"), rtol=1e-14)


SMOOTHED = """
import numpy as np
from hpcfwi.model.velocity import smooth_model
noise = np.random.default_rng(0).uniform(1.5, 4.0, (60, 50))
print(*(smooth_model(noise, sigma).tobytes().hex() for sigma in (5.5, 8.0, 13.7)))
"""


def test_smoothing_has_the_same_bytes_on_a_processor_of_fewer_instructions():
    def smoothed(**without):
        words = [sys.executable, "-W", "ignore", "-c", SMOOTHED]
        return subprocess.run(words, env={**os.environ, **without}, capture_output=True, text=True, check=True).stdout

    fewer = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4"
    assert smoothed() == smoothed(NPY_DISABLE_CPU_FEATURES=fewer)


def test_a_mask_has_the_shape_of_the_grid(npy):
    mask = VELOCITY > 2
    np.testing.assert_array_equal(read_mask(npy(mask), (6, 5)), mask)
    with pytest.raises(InputError, match=r"mask_file: .* has shape \(6, 5\), but the grid has \(5, 5\) points"):
        read_mask(npy(mask), (5, 5))


LAYERS = {"kind": "dome", "velocities": (2.0, 2.5, 3.0), "interfaces": (100.0, 200.0)}
VOLUME = Domain((41, 41, 31), (10.0, 10.0, 10.0), (0.0, 0.0, 0.0))


def tops(values):
    """Depth of the first cell that is faster than 2 km/s, cells."""
    return (values > 2.0).argmax(axis=-1)


def test_a_dome_lifts_layers_in_its_middle_and_not_far_away():
    made = build_model(DomeModel(**LAYERS, height=60.0, radius=80.0), VOLUME, "model")
    assert tops(made)[20, 20] == 4
    assert tops(made)[20, 28] == tops(made)[12, 20] == 9  # a quarter of the height at the radius: 85 m
    assert tops(made)[0, 0] == 10
    basin = build_model(DomeModel(**LAYERS, height=-60.0, radius=80.0, center=(0.0, 0.0)), VOLUME, "model")
    assert tops(basin)[0, 0] == 16


def test_a_fault_throws_layers_down_beyond_its_dipping_plane():
    made = build_model(DomeModel(**LAYERS, fault=150.0, dip=45.0, throw=50.0), VOLUME, "model")
    assert set(tops(made)[:25].ravel()) == {10}  # the plane is at x = 250 m at the depth of the layer
    assert set(tops(made)[32:].ravel()) == {15}
    plane = build_model(
        DomeModel(**LAYERS, fault=155.0, dip=90.0, throw=50.0), Domain((41, 31), (10.0, 10.0), (0.0, 0.0)), "x"
    )
    assert tops(plane)[15] == 10
    assert tops(plane)[16] == 15


def test_a_dome_without_height_and_fault_is_horizontal_layers():
    layers = build_model(LayersModel(**{**LAYERS, "kind": "layers"}), VOLUME, "model")
    np.testing.assert_array_equal(build_model(DomeModel(**LAYERS), VOLUME, "model"), layers)


def test_the_centre_of_a_dome_has_as_many_coordinates_as_the_grid_without_depth():
    with pytest.raises(InputError, match=r"model\.center: has 1 coordinates, but the grid has 2 besides z"):
        build_model(DomeModel(**LAYERS, center=(0.0,)), VOLUME, "model")


def test_a_throw_without_a_fault_is_refused():
    with pytest.raises(ValidationError, match="throw is 50 m, but there is no fault"):
        DomeModel.model_validate({**LAYERS, "throw": 50.0})


def gradient(shape=(4, 6), name="model", **keys):
    section = GradientModel.model_validate({"kind": "gradient", "velocity": 1.6, **keys}, strict=False)
    return build(section, shape, name)


def test_a_gradient_begins_at_the_top_of_the_grid_or_at_the_sea_floor():
    z = 20.0 * np.arange(6) / 1000
    np.testing.assert_allclose(gradient(gradient=2.0), np.broadcast_to(1.6 + 2.0 * z, (4, 6)))
    below = gradient(gradient=2.0, water={"bathymetry": 40.0})
    np.testing.assert_allclose(below, np.broadcast_to([1.5, 1.5, 1.6, 1.64, 1.68, 1.72], (4, 6)))


def test_a_gradient_goes_through_two_velocities_whatever_the_depth_of_the_water():
    found = gradient(top=0.0, bottom=3000.0, bottom_velocity=4.2, water={"bathymetry": 30.0})
    expected = 1.6 + 2.6 * 20.0 * np.arange(6) / 3000
    np.testing.assert_allclose(found[0], np.where(np.arange(6) < 2, 1.5, expected))


def test_a_gradient_follows_the_sea_floor(tmp_path):
    path = tmp_path / "floor.csv"
    path.write_text("x,depth\n0,20\n30,80\n")
    found = gradient(gradient=1.0, water={"bathymetry": str(path), "velocity": 1.48})
    # 20, 40, 60, 80 m
    np.testing.assert_allclose(found[1], [1.48, 1.48, 1.6, 1.62, 1.64, 1.66])
    np.testing.assert_allclose(found[3], [1.48, 1.48, 1.48, 1.48, 1.6, 1.62])
    found = gradient(bottom=100.0, bottom_velocity=2.0, water={"bathymetry": str(path)})
    np.testing.assert_allclose(found[:, -1], 2.0)


@pytest.mark.parametrize("keys", [{}, {"gradient": 1.0, "bottom": 1.0, "bottom_velocity": 2.0}, {"bottom": 1000.0}])
def test_a_gradient_needs_one_slope(keys):
    with pytest.raises(ValidationError, match="needs either gradient, or bottom_velocity and bottom"):
        gradient(**keys)


def test_a_gradient_must_end_below_its_top():
    with pytest.raises(InputError, match=r"initial.bottom: is 20 m; it should be below the top of the gradient, 40 m"):
        gradient(top=40.0, bottom=20.0, bottom_velocity=2.0, name="initial")
