"""Velocity models: built-in, from .npy and raw binary, and everything that can be wrong with them."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from hpcfwi.config.models import CircleModel, ConstantModel, DomeModel, FileModel, LayersModel
from hpcfwi.errors import InputError
from hpcfwi.model.grid import Domain
from hpcfwi.model.velocity import build_model, file_grid_shape, read_mask, smooth_model, squared_slowness, velocity_from

VELOCITY = np.linspace(1.5, 4.5, 6 * 5).reshape(6, 5)


@pytest.fixture
def npy(tmp_path):
    """Writes an array to a .npy file and returns its path."""

    def write(array, name="v.npy"):
        np.save(tmp_path / name, array)
        return tmp_path / name

    return write


@pytest.fixture
def raw(tmp_path):
    """Writes an array as raw binary and returns the section that describes it."""

    def write(array, dtype="<f4", **keys):
        path = tmp_path / "v.bin"
        path.write_bytes(np.asarray(array).astype(dtype).tobytes())
        return FileModel(kind="file", file=path, dtype=dtype, **{"shape": np.shape(array)} | keys)

    return write


def build(section, shape=(6, 5), name="model"):
    return build_model(section, Domain(shape, (10.0, 20.0, 10.0)[: len(shape)], (0.0,) * len(shape)), name)


def from_npy(path, **keys):
    return FileModel(kind="file", file=path, **keys)


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


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
def test_raw_binary_is_read_in_c_order(raw, dtype):
    np.testing.assert_allclose(build(raw(VELOCITY, dtype)), VELOCITY, rtol=1e-7)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4"])
def test_npy_of_any_order_and_type_is_read(npy, order, dtype):
    path = npy(np.asarray(VELOCITY, dtype=dtype, order=order))
    np.testing.assert_allclose(build(from_npy(path)), VELOCITY, rtol=1e-7)


def test_decimation_keeps_every_nth_sample(raw):
    section = raw(VELOCITY, decimate=2)
    assert file_grid_shape(section, "model") == (3, 3)
    np.testing.assert_allclose(build(section, (3, 3)), VELOCITY[::2, ::2], rtol=1e-7)
    np.testing.assert_allclose(build(raw(VELOCITY, decimate=(1, 2)), (6, 3)), VELOCITY[:, ::2], rtol=1e-7)


def test_metres_per_second_are_converted_and_clipping_comes_after(npy):
    section = from_npy(npy((1000 * VELOCITY).astype("i2")), unit="m/s", clip=(2.0, 4.0))
    np.testing.assert_allclose(build(section), np.clip(VELOCITY, 2.0, 4.0), atol=1e-3)


def refused(section, shape=(6, 5)) -> str:
    with pytest.raises(InputError) as caught:
        build(section, shape)
    assert str(section.file) in str(caught.value)
    return str(caught.value).replace(str(section.file), "FILE")


def test_a_missing_file_is_refused_with_advice(tmp_path):
    for name in ("none.npy", "none.bin"):
        message = refused(FileModel(kind="file", file=tmp_path / name, shape=(6, 5)))
        assert message == "model.file: FILE: no such file; give another path with --set model.file=PATH"


def test_raw_binary_needs_a_shape(tmp_path):
    assert "model.shape: is missing; raw binary (FILE) needs" in refused(from_npy(tmp_path / "v.bin"))


def test_raw_binary_of_another_size_is_refused_with_both_sizes(raw):
    message = refused(raw(VELOCITY, shape=(6, 6)), (6, 6))
    assert message.startswith("model.shape: (6, 6) samples of <f4 are 144 bytes, but FILE has 120 bytes")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 5), "model.file: FILE gives a grid of (6, 5) points, but the grid has (5, 5)"),
        ((5, 6), "it looks transposed: z is the last axis"),
    ],
)
def test_another_grid_than_the_files_is_refused(npy, shape, message):
    assert message in refused(from_npy(npy(VELOCITY)), shape)


def test_a_shape_that_contradicts_the_npy_is_refused(npy):
    assert "model.shape: is (5, 6), but FILE has shape (6, 5)" in refused(from_npy(npy(VELOCITY), shape=(5, 6)))


def test_decimate_has_a_number_for_each_axis(npy):
    message = refused(from_npy(npy(VELOCITY), decimate=(1, 1, 1)))
    assert message == "model.decimate: has 3 numbers, but FILE has 2 axes"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_broken_values_are_counted_and_the_first_is_located(npy, value):
    velocity = VELOCITY.copy()
    velocity[2, 3] = velocity[4, 1] = value
    message = refused(from_npy(npy(velocity), clip=(1.0, 5.0)))
    assert message == "model.file: FILE has values that are NaN or infinite (2 of 30), the first at grid point (2, 3)"


@pytest.mark.parametrize("value", [0.0, -1.5])
def test_velocities_are_positive_and_clipping_does_not_hide_it(npy, value):
    velocity = VELOCITY.copy()
    velocity[2, 3] = value
    message = refused(from_npy(npy(velocity), clip=(1.0, 5.0)))
    assert message == f"model.file: FILE has a velocity of {value:g} km/s at grid point (2, 3); velocities are positive"


def test_metres_per_second_in_place_of_kilometres_are_recognised(npy):
    message = refused(from_npy(npy(1000 * VELOCITY), clip=(1.0, 5.0)))
    assert message == (
        'model.file: FILE has velocities of 1500 to 4500 km/s, which looks like m/s; if so, set model.unit = "m/s"'
    )


def test_the_advised_unit_helps(npy):
    np.testing.assert_allclose(build(from_npy(npy(1000 * VELOCITY), unit="m/s")), VELOCITY)
    np.testing.assert_allclose(build(from_npy(npy(VELOCITY), unit="km/s")), VELOCITY)


def test_kilometres_per_second_in_place_of_metres_are_recognised(npy):
    assert 'if the file has km/s, set model.unit = "km/s"' in refused(from_npy(npy(VELOCITY), unit="m/s"))


def test_a_wrong_byte_order_is_reported_with_its_key(raw):
    section = raw(VELOCITY, "<f4")
    assert "model.dtype is wrong" in refused(section.model_copy(update={"dtype": ">f4"}))


def test_a_few_impossible_samples_may_be_clipped(npy):
    velocity = VELOCITY.copy()
    velocity[0, 0] = 40.0
    assert build(from_npy(npy(velocity), clip=(1.0, 5.0))).max() == 5.0
    message = refused(from_npy(npy(velocity)))
    assert message == (
        "model.file: FILE has velocities of 1.60345 to 40 km/s; they should lie between 0.1 and 15 km/s: correct the file, or "
        "limit them with model.clip"
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (VELOCITY.astype(complex), "holds complex128, not real numbers"),
        (VELOCITY.astype("U8"), "holds <U8, not real numbers"),
        (
            VELOCITY.astype(object),
            "is not a readable .npy file (Array can't be memory-mapped: Python objects in dtype.)",
        ),
    ],
)
def test_a_model_holds_real_numbers(npy, array, message):
    assert message in refused(from_npy(npy(array)))


def test_an_npz_archive_is_refused(tmp_path):
    with (tmp_path / "v.npy").open("wb") as file:
        np.savez(file, VELOCITY)
    assert "is not a readable .npy file" in refused(from_npy(tmp_path / "v.npy"))


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


HEADERS = st.builds(
    "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}".format,
    st.sampled_from(["'<f4'", "'|O'", "'<U3'", "[('a', '<f4')]", "'x'", "3", "'<f8'"]),
    st.sampled_from(["False", "True", "0", "None"]),
    st.sampled_from(
        [
            "(6, 5)",
            "()",
            "(0, 3)",
            "(-1, 3)",
            "(1000000000, 1000000000, 1000000000)",
            "(4611686018427387904, 8)",
            "3",
            "(6L, 5L)",
            "(1.5,)",
        ]
    ),
)


def with_header(text: str, version: int, tail: bytes) -> bytes:
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode() + tail


@pytest.mark.filterwarnings("ignore:Reading .* additional header parsing", "ignore:overflow")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300)
    | st.builds(with_header, HEADERS | st.text(max_size=50), st.integers(0, 4), st.binary(max_size=300))
)
def test_any_bytes_are_a_model_or_refused_with_their_name(tmp_path, content):
    path = tmp_path / "v.npy"
    path.write_bytes(content)
    for action in (lambda: build(from_npy(path)), lambda: file_grid_shape(from_npy(path), "model")):
        try:
            action()
        except InputError as error:
            message = str(error)
        else:
            message = ""
        assert not message or str(path) in message


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
