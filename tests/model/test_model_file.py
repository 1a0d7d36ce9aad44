"""Velocity models from files: what they hold, in which order and unit, and where; and everything that can be wrong."""

from __future__ import annotations

import os

import numpy as np
import pytest
import xarray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcfwi.config.models import FileModel
from hpcfwi.errors import InputError
from hpcfwi.formats.netcdf import write_netcdf
from hpcfwi.formats.rsf import write_rsf
from hpcfwi.formats.segy_model import write_segy_model
from hpcfwi.model.grid import Domain
from hpcfwi.model.model_file import open_model_file
from hpcfwi.model.velocity import build_model

VELOCITY = np.linspace(1.5, 4.5, 6 * 5).reshape(6, 5)
SPACING = (10.0, 20.0, 10.0)


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
    return build_model(section, Domain(shape, SPACING[: len(shape)], (0.0,) * len(shape)), name)


def grid_shape(section, spacing=SPACING[:2]):
    return open_model_file(section, "model", spacing, None).grid_shape()


def from_npy(path, **keys):
    return FileModel(kind="file", file=path, **keys)


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
    assert grid_shape(section) == (3, 3)
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
        ((5, 6), 'it looks transposed: set model.axes = "zx"'),
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
    assert (
        message
        == "model.file: FILE has values that are NaN or infinite (2 of 30), the first at sample (2, 3) along x, z"
    )


@pytest.mark.parametrize("value", [0.0, -1.5])
def test_velocities_are_positive_and_clipping_does_not_hide_it(npy, value):
    velocity = VELOCITY.copy()
    velocity[2, 3] = value
    message = refused(from_npy(npy(velocity), clip=(1.0, 5.0)))
    assert (
        message
        == f"model.file: FILE has a velocity of {value:g} km/s at sample (2, 3) along x, z; it should be positive"
    )


def test_metres_per_second_in_place_of_kilometres_are_recognised(npy):
    message = refused(from_npy(npy(1000 * VELOCITY), clip=(1.0, 5.0)))
    assert message == (
        "model.file: FILE has values from 1500 to 4500, which are unlikely in km/s; they look like m/s (1.5 to 4.5 km/s): if "
        'so, set model.unit = "m/s"'
    )


def test_the_advised_unit_helps(npy):
    np.testing.assert_allclose(build(from_npy(npy(1000 * VELOCITY), unit="m/s")), VELOCITY)
    np.testing.assert_allclose(build(from_npy(npy(VELOCITY), unit="km/s")), VELOCITY)


def test_kilometres_per_second_in_place_of_metres_are_recognised(npy):
    assert 'look like km/s (1.5 to 4.5 km/s): if so, set model.unit = "km/s"' in refused(
        from_npy(npy(VELOCITY), unit="m/s")
    )


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
    for action in (lambda: build(from_npy(path)), lambda: grid_shape(from_npy(path))):
        try:
            action()
        except InputError as error:
            message = str(error)
        else:
            message = ""
        assert not message or str(path) in message


# Order of axes, place and unit


def stored_npy(npy, axes, **keys):
    """A section for VELOCITY, or a volume with its lines, saved with axes in this order."""
    volume = VELOCITY if len(axes) == 2 else VELOCITY[:, None] + 0.1 * np.arange(4)[None, :, None]
    letters = "xz" if len(axes) == 2 else "xyz"
    return volume, from_npy(npy(volume.transpose([letters.index(letter) for letter in axes])), axes=axes, **keys)


@pytest.mark.parametrize("axes", ["xz", "zx", "xyz", "xzy", "yxz", "yzx", "zxy", "zyx"])
def test_axes_in_any_order_are_put_into_the_grids(npy, axes):
    volume, section = stored_npy(npy, axes)
    np.testing.assert_array_equal(build(section, volume.shape), volume)
    assert build(section, volume.shape).flags.c_contiguous


def test_decimation_spacing_and_origin_are_in_the_order_of_the_grid(npy):
    _, section = stored_npy(npy, "zyx", decimate=(2, 1, 3), spacing=(10.0, 20.0, 30.0), origin=(100.0, 0.0, 5.0))
    axes = open_model_file(section, "model", SPACING, None).samples
    assert [(a.count, a.spacing, a.origin) for a in axes] == [(3, 20.0, 100.0), (4, 20.0, 0.0), (2, 90.0, 5.0)]


def test_a_file_on_the_grid_keeps_its_bytes_wherever_the_grid_is_in_it(npy):
    section = from_npy(npy(VELOCITY), spacing=(10.0, 20.0), origin=(-20.0, -20.0))
    np.testing.assert_array_equal(build(section, (4, 3)), VELOCITY[2:, 1:4])
    assert grid_shape(section) == (4, 4)


def test_a_finer_grid_gets_interpolated_velocities(npy):
    section = from_npy(npy(VELOCITY), spacing=(20.0, 40.0))
    assert grid_shape(section) == (11, 9)
    fine = build(section, (11, 9))
    np.testing.assert_allclose(fine[::2, ::2], VELOCITY, rtol=1e-15)
    np.testing.assert_allclose(fine[1::2, 1::2], (VELOCITY[1:, 1:] + VELOCITY[:-1, :-1]) / 2, rtol=1e-15)


def test_a_coarser_grid_gets_the_mean_slowness(npy):
    section = from_npy(npy(VELOCITY), spacing=(10.0, 5.0), origin=(0.0, -7.5))
    np.testing.assert_allclose(build(section, (6, 1))[:, 0], 1 / (1 / VELOCITY[:, :4]).mean(axis=1), rtol=1e-14)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"origin": (-50.0, 0.0)},
            "covers x from -50 to 0 m (6 samples, 10 m apart), but the grid goes from 0 to 50 m",
        ),
        (
            {"spacing": (10.0, 10.0)},
            "covers z from 0 to 40 m (5 samples, 10 m apart), but the grid goes from 0 to 80 m",
        ),
        ({"origin": (0.0, 5e5)}, "covers z from 500000 to 500080 m"),
    ],
)
def test_a_grid_that_reaches_beyond_the_file_is_refused_with_both_extents(npy, keys, message):
    assert message in refused(from_npy(npy(VELOCITY), **keys))


def test_a_file_that_covers_the_grid_only_if_transposed_is_recognised(npy):
    section = from_npy(npy(np.full((5, 21), 2.0)), spacing=(10.0, 10.0))
    assert 'the grid goes from 0 to 200 m; it looks transposed: set model.axes = "zx"; correct' in refused(
        section, (21, 3)
    )
    assert build(section.model_copy(update={"axes": "zx"}), (21, 3)).shape == (21, 3)
    assert "transposed" not in refused(section, (31, 3))


def test_the_origin_of_the_file_is_advised_if_the_grid_begins_elsewhere(npy):
    section = from_npy(npy(VELOCITY), origin=(430_000.5, 5_804_123.0))
    with pytest.raises(InputError) as caught:
        open_model_file(section, "model", SPACING[:2], None).check_origin()
    assert (
        "covers x from 430000.5 to 430050.5 m, but the grid begins at 0 m; set grid.origin = [430000.5, 5804123.0]"
        in str(caught.value)
    )
    assert open_model_file(section, "model", SPACING[:2], (430_000.5, 5_804_123.0)).grid_shape() == (6, 5)


def test_slowness_is_converted_and_asked_about(npy):
    path = npy(1 / VELOCITY**2)
    for keys in ({"quantity": "squared slowness"}, {"unit": "s2/km2"}):
        np.testing.assert_allclose(build(from_npy(path, **keys)), VELOCITY, rtol=1e-14)
    message = refused(from_npy(path))
    assert (
        's2/km2 (1.5 to 4.5 km/s): if so, set model.unit = "s2/km2"; if they are right, set model.unit = "km/s"'
        in message
    )


def test_water_down_one_side_but_not_along_the_top_is_refused(npy):
    depth = np.linspace(1.5, 3.0, 40)
    marine = np.broadcast_to(np.where(np.arange(40) < 5, 1.5, depth), (60, 40))
    np.testing.assert_array_equal(build(from_npy(npy(marine)), (60, 40)), marine)
    message = refused(from_npy(npy(marine.T)), (40, 60))
    assert 'are water (1.5 to 1.5 km/s), and its top is not; set model.axes = "zx", or "xz" if the model is' in message
    np.testing.assert_array_equal(build(from_npy(npy(marine.T), axes="zx"), (60, 40)), marine)
    np.testing.assert_array_equal(build(from_npy(npy(marine.T), axes="xz"), (40, 60)), marine.T)


def test_water_fills_the_model_above_the_sea_floor(npy):
    made = build(from_npy(npy(VELOCITY), water={"bathymetry": 30.0}))
    assert (made[:, :2] == 1.5).all()
    np.testing.assert_array_equal(made[:, 2:], VELOCITY[:, 2:])


def test_what_the_file_holds_in_the_water_does_not_matter(npy):
    marine = np.where(np.arange(5) < 2, np.nan, VELOCITY)
    for dry in (np.nan, 0.0, -9999.0):
        made = build(from_npy(npy(np.where(np.isnan(marine), dry, marine)), water={"bathymetry": 40.0}))
        np.testing.assert_array_equal(made, np.where(np.isnan(marine), 1.5, marine))
    section = from_npy(npy(marine), spacing=(10.0, 40.0), water={"bathymetry": 80.0, "velocity": 1.48})
    fine = build(section, (6, 9))
    assert (fine[:, :4] == 1.48).all()
    np.testing.assert_array_equal(fine[:, 4::2], VELOCITY[:, 2:])
    assert "NaN or infinite (6 of 30), the first at sample (0, 1)" in refused(
        from_npy(npy(marine), water={"bathymetry": 20.0})
    )
    assert "lies below the whole model" in refused(from_npy(npy(VELOCITY), water={"bathymetry": 900.0}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"axes": "xyz", "spacing": (1.0, 1.0)}, "axes and spacing should all have 2 axes, or all 3"),
        ({"unit": "s/km", "quantity": "velocity"}, 'unit: is "s/km", a unit of slowness; quantity is "velocity"'),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path, keys, message):
    with pytest.raises(ValueError, match=message):
        from_npy(tmp_path / "v.npy", **keys)


# Formats


def segy(path, values):
    write_segy_model(path, values, SPACING[:2], (0.0, 0.0), ["a model"])


def rsf(path, values):
    with path.open("wb") as file:
        write_rsf(file, values, "xz", SPACING[:2], (0.0, 0.0), "km/s")


def netcdf(path, values):
    write_netcdf(path, values, "xz", SPACING[:2], (0.0, 0.0), "km/s")


WRITERS = {"v.segy": segy, "v.sgy": segy, "v.nc": netcdf, "v.h5": netcdf, "v.rsf": rsf, "v.npy": np.save}


@pytest.mark.parametrize("name", WRITERS)
def test_the_suffix_tells_the_format(tmp_path, name):
    values = VELOCITY.astype("f4")
    WRITERS[name](tmp_path / name, values)
    np.testing.assert_array_equal(build(from_npy(tmp_path / name)), values)


def test_the_format_may_be_named(tmp_path):
    segy(tmp_path / "v.bin", VELOCITY.astype("f4"))
    np.testing.assert_array_equal(build(from_npy(tmp_path / "v.bin", format="segy")), VELOCITY.astype("f4"))


def test_falling_coordinates_are_turned_round_and_decimated_from_the_lowest(tmp_path):
    z = -20.0 * np.arange(5)
    array = xarray.DataArray(VELOCITY, {"z": ("z", z, {"positive": "up"}), "x": 10.0 * np.arange(6)[::-1]}, ("x", "z"))
    xarray.Dataset({"v": array}).to_netcdf(tmp_path / "v.nc", engine="h5netcdf")
    np.testing.assert_array_equal(build(from_npy(tmp_path / "v.nc")), VELOCITY[::-1])
    section = from_npy(tmp_path / "v.nc", decimate=(3, 1))
    np.testing.assert_array_equal(
        build_model(section, Domain((2, 5), (30.0, 20.0), (0.0, 0.0)), "model"), VELOCITY[::-3]
    )


def test_a_file_with_another_number_of_axes_than_the_grid_is_refused(npy):
    assert "has 3 axes, but grid.spacing has 2" in refused(from_npy(npy(VELOCITY[None])))
    assert 'model.axes: is "xyz", but FILE has 2 axes' in refused(from_npy(npy(VELOCITY), axes="xyz"))
    assert "model.variable: goes with NetCDF and HDF5, but FILE is read as npy" in refused(
        from_npy(npy(VELOCITY), variable="vp")
    )


@pytest.mark.parametrize("name", ["v.segy", "v.nc", "v.rsf", "v.npy", "v.bin"])
@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "pipe", "half"])
def test_a_file_that_cannot_be_read_is_refused_with_its_name(tmp_path, name, kind):
    path = tmp_path / name
    match kind:
        case "folder":
            path.mkdir()
        case "empty":
            path.touch()
        case "text":
            path.write_text("x z v\n" * 2000)
        case "pipe":
            os.mkfifo(path)
        case "half":
            WRITERS.get(name, lambda path, values: path.write_bytes(values.tobytes()))(path, VELOCITY.astype("f4"))
            path.write_bytes(path.read_bytes()[:-50])
    assert refused(FileModel(kind="file", file=path, shape=(6, 5))).startswith("model.")


def test_of_a_huge_file_only_what_the_grid_needs_is_read(tmp_path):
    shape = (100_000, 100_000)  # 40 GB, of which the disk has only what is written here
    with (tmp_path / "v.bin").open("wb") as file:
        file.truncate(4 * shape[0] * shape[1])
        for i in range(3):
            file.seek(4 * shape[1] * i)
            file.write(np.full(4, 2.0 + i, "<f4").tobytes())
    section = FileModel(kind="file", file=tmp_path / "v.bin", shape=shape, spacing=(10.0, 20.0))
    np.testing.assert_array_equal(build(section, (3, 3)), np.repeat([[2.0], [3.0], [4.0]], 3, axis=1))
    assert grid_shape(section) == shape
    everything = Domain((1000, 1000), (999.9, 1999.9), (0.0, 0.0))
    with pytest.raises(
        InputError, match=r"1e\+10 samples in the grid, for which 320 GB of memory .*; set model\.decimate"
    ):
        open_model_file(section, "model", everything.spacing, None).read(everything)
