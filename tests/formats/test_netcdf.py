"""NetCDF and HDF5 that xarray and h5py write, and what xarray reads of ours."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import xarray

from hpcfwi.formats.netcdf import open_netcdf, write_netcdf
from hpcfwi.formats.stored_model import FormatError

VALUES = np.arange(1.0, 13.0).reshape(4, 3)
X, Z = 100 + 25.0 * np.arange(4), 10.0 * np.arange(3)


@pytest.fixture
def saved(tmp_path):
    """Writes arrays, as of xarray.Dataset, and returns the path."""

    def write(arrays, coordinates=None, **options):
        path = tmp_path / "v.nc"
        xarray.Dataset(arrays, coordinates).to_netcdf(path, **{"engine": "h5netcdf"} | options)
        return path

    return write


def everything(stored):
    return np.asarray(stored.values[tuple(slice(None) for _ in stored.values.shape)])


@pytest.mark.parametrize("options", [{}, {"engine": "scipy"}, {"engine": "scipy", "format": "NETCDF3_64BIT"}], ids=str)
def test_values_coordinates_and_unit_are_read(saved, options):
    path = saved({"vp": (("x", "z"), VALUES, {"units": "m s-1"})}, {"x": X, "z": Z}, **options)
    stored = open_netcdf(path)
    np.testing.assert_array_equal(everything(stored), VALUES)
    assert (stored.axes, stored.spacing, stored.origin, stored.unit) == ("xz", (25.0, 10.0), (100.0, 0.0), "m/s")


def test_a_part_is_read_in_any_direction(saved):
    stored = open_netcdf(saved({"vp": (("x", "z"), VALUES)}))
    np.testing.assert_array_equal(np.asarray(stored.values[1:3, 2::-1]), VALUES[1:3, 2::-1])


def test_coordinates_may_be_in_km_point_up_and_have_other_names(saved):
    up = ("level", -Z / 1000, {"units": "km", "positive": "up", "axis": "Z"})
    stored = open_netcdf(saved({"vp": (("level", "easting"), VALUES.T)}, {"easting": X, "level": up}))
    assert (stored.axes, stored.spacing, stored.origin) == ("zx", (10.0, 25.0), (0.0, 100.0))


def test_single_precision_coordinates_far_from_zero_are_equidistant(saved):
    far = (5_804_000 + 25.0 * np.arange(4)).astype("f4")
    assert open_netcdf(saved({"vp": (("x", "z"), VALUES)}, {"x": far})).spacing == (25.0, None)


def test_missing_values_are_nan_and_scales_apply(saved):
    encoding = {"vp": {"dtype": "i2", "scale_factor": 0.5, "add_offset": 1.0, "_FillValue": -1}}
    values = np.where(VALUES == 5, np.nan, VALUES)
    stored = open_netcdf(saved({"vp": (("x", "z"), values)}, encoding=encoding))
    np.testing.assert_array_equal(everything(stored), values)


def test_one_of_several_arrays_is_chosen_by_name(saved):
    path = saved({"vp": (("x", "z"), VALUES), "vs": (("x", "z"), VALUES / 2), "trace": ("x", X)})
    with pytest.raises(FormatError, match=r'has 2 arrays with two or three axes \(vp, vs\); name one with "variable"'):
        open_netcdf(path)
    np.testing.assert_array_equal(everything(open_netcdf(path, "vs")), VALUES / 2)
    with pytest.raises(FormatError, match="has no array 'v'; the arrays with two or three axes are: vp, vs"):
        open_netcdf(path, "v")


def test_plain_hdf5_has_no_coordinates_and_may_have_groups(tmp_path):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["models/vp"] = VALUES[:, None]
    with pytest.raises(FormatError, match=r"has 0 arrays .*one in a group has the name group/array"):
        open_netcdf(tmp_path / "v.h5")
    stored = open_netcdf(tmp_path / "v.h5", "models/vp")
    np.testing.assert_array_equal(everything(stored), VALUES)
    assert (stored.axes, stored.spacing) == (None, (None, None))


@pytest.mark.parametrize(
    ("coordinate", "message"),
    [
        ([0.0, 10.0, 30.0], r"coordinates z that are not equidistant: number 2 of 3 is 10, but .* give 15"),
        ([0.0, np.nan, 30.0], "coordinates z that are NaN"),
        ([5.0, 5.0, 5.0], "not equidistant"),
        (["a", "b", "c"], "coordinates z of type"),
    ],
    ids=["uneven", "NaN", "equal", "text"],
)
def test_coordinates_that_are_no_regular_axis_are_refused(saved, coordinate, message):
    with pytest.raises(FormatError, match=message):
        open_netcdf(saved({"vp": (("x", "z"), VALUES)}, {"z": coordinate}))


def test_other_files_are_refused_by_their_first_bytes(tmp_path):
    (tmp_path / "v.nc").write_text("x,z,v\n")
    with pytest.raises(FormatError, match="is neither NetCDF nor HDF5"):
        open_netcdf(tmp_path / "v.nc")


@pytest.mark.parametrize("axes", ["xz", "xyz"])
def test_xarray_reads_what_is_written_with_its_geometry(tmp_path, axes):
    values = np.random.default_rng(0).uniform(1.5, 4, (4, 3, 5)[-len(axes) :]).astype("f4")
    spacing, origin = (25.0, 12.5, 1 / 3)[-len(axes) :], (500000.25, -10.0, 0.1)[-len(axes) :]
    write_netcdf(tmp_path / "v.nc", values, axes, spacing, origin, "km/s")
    with xarray.open_dataset(tmp_path / "v.nc") as found:
        assert found.velocity.dims == tuple(axes)
        assert found.velocity.attrs["units"] == "km/s"
        assert found.z.attrs["positive"] == "down"
        np.testing.assert_array_equal(found.velocity.values, values)
        for letter, n, h, o in zip(axes, values.shape, spacing, origin, strict=True):
            np.testing.assert_array_equal(found[letter].values, o + h * np.arange(n))
    stored = open_netcdf(tmp_path / "v.nc")
    assert (stored.axes, stored.unit) == (axes, "km/s")
    np.testing.assert_allclose(stored.spacing, spacing, rtol=1e-12)
    np.testing.assert_array_equal(everything(stored), values)
