"""Observed gathers and wavelets from files."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcfwi.errors import DataError, InputError
from hpcfwi.model.gathers import check_gather, check_gathers, gather_shape, read_gather, read_wavelet

RECORD = np.arange(12.0, dtype="f4").reshape(4, 3)
WAVELET = [0.0, 1.0, -2.0, 1.0, 0.0]


@pytest.fixture(params=["folder of .npy", "HDF5"])
def gathers(request, tmp_path):
    """Gathers of the shots a and b, as the program reads them."""
    if request.param == "HDF5":
        path = tmp_path / "gathers.h5"
        with h5py.File(path, "w") as file:
            file["a"], file["b"] = RECORD, 2 * RECORD
            file.create_group("group")
        return path
    path = tmp_path / "gathers"
    path.mkdir()
    np.save(path / "a.npy", RECORD)
    np.save(path / "b.npy", 2 * RECORD)
    return path


def test_each_shot_has_its_gather(gathers):
    check_gathers(gathers, ["b", "a"])
    np.testing.assert_array_equal(read_gather(gathers, "b"), 2 * RECORD)
    assert gather_shape(gathers, "b") == (4, 3)


def test_missing_gathers_are_counted_and_the_first_is_named(gathers):
    with pytest.raises(
        InputError, match=r"data\.file: .*gathers.* has no .*c.* \(nor those of 1 more shots\); every shot"
    ):
        check_gathers(gathers, ["a", "c", "d"])
    with pytest.raises(DataError, match=r"shot c: data\.file: .*gathers"):
        read_gather(gathers, "c")


def test_a_group_is_no_gather(tmp_path):
    with h5py.File(tmp_path / "g.h5", "w") as file:
        file.create_group("a")
    with pytest.raises(InputError, match=r"has no dataset 'a'"):
        check_gathers(tmp_path / "g.h5", ["a"])


def test_what_is_neither_folder_nor_hdf5_is_refused(tmp_path):
    (tmp_path / "gathers.sgy").write_bytes(b"not HDF5")
    with pytest.raises(
        InputError, match=r"data\.file: .*gathers\.sgy: is no folder of gathers and no readable HDF5 file"
    ):
        check_gathers(tmp_path / "gathers.sgy", ["a"])
    with pytest.raises(InputError, match=r"data\.file: .*none: no such file or folder"):
        check_gathers(tmp_path / "none", ["a"])
    with pytest.raises(InputError, match="File name too long"):
        check_gathers(tmp_path / ("x" * 300), ["a"])


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "i2", "u1"])
def test_records_of_real_numbers_are_good(dtype):
    check_gather("a", RECORD.astype(dtype), 4, 3)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (
            RECORD.T,
            r"has shape \(3, 4\), but 4 samples .* of 3 receivers, \(4, 3\), are expected; it looks transposed$",
        ),
        (RECORD[:3], r"has shape \(3, 3\), but 4 samples .* of 3 receivers, \(4, 3\), are expected$"),
        (RECORD.ravel(), r"has shape \(12,\), but 4 samples"),
        (RECORD.astype(complex), "holds complex128, not real numbers"),
        (RECORD.astype("U4"), "holds <U4, not real numbers"),
    ],
)
def test_records_of_another_shape_or_kind_are_refused_with_the_shot(record, told):
    with pytest.raises(DataError, match=rf"^shot a: its record in data\.file {told}"):
        check_gather("a", record, 4, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e30])
def test_broken_samples_are_counted_and_the_first_is_located(value):
    record = RECORD.copy()
    record[1, 2] = record[3, 0] = value
    with pytest.raises(
        DataError,
        match=r"has values that are NaN, infinite or beyond 1e\+18 \(2 of 12\), .*at sample 2 of receiver 3",
    ):
        check_gather("a", record, 4, 3)


@pytest.fixture
def wavelet(tmp_path):
    def write(content, name="w.txt"):
        path = tmp_path / name
        if isinstance(content, (str, bytes)):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        else:
            np.save(path, content)
        return path

    return write


def test_wavelets_are_read_from_text_and_npy(wavelet):
    text = "# a comment\n0\n1.0\n\n-2  # the trough\n1e0\n0.0\n"
    assert read_wavelet(wavelet(text)) == tuple(WAVELET)
    assert read_wavelet(wavelet(np.array(WAVELET), "w.npy")) == tuple(WAVELET)
    assert read_wavelet(wavelet(np.array(WAVELET, dtype=">f4")[:, None], "w.npy")) == tuple(WAVELET)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("0\n1\nx\n0\n", ", line 3: is 'x'; it should be one number a line"),
        ("0.0 1.0\n4.0 2.0\n", ", line 1: is '0.0 1.0'; it should be one number a line"),
        (b"\xff\xfe\x00", ": cannot be read ("),
        ("1\n2\n3\n", ": has shape (3,); a wavelet has one axis of at least 4 samples"),
        ("", ": has shape (0,); a wavelet has one axis"),
        ("0\n1\nnan\n0\n", ": sample 3 is nan, not a finite number"),
        ("0\n0\n0\n0\n", ": its largest amplitude is 0; it should lie between 1e-18 and 1e+18"),
        ("0\n1e300\n0\n0\n", ": its largest amplitude is 1e+300; it should lie between 1e-18 and 1e+18"),
        (np.ones((4, 2)), ": has shape (4, 2); a wavelet has one axis"),
    ],
)
def test_unreadable_wavelets_are_told_with_file_and_line(wavelet, content, told):
    path = wavelet(content, "w.npy" if isinstance(content, np.ndarray) else "w.txt")
    with pytest.raises(InputError) as caught:
        read_wavelet(path)
    assert str(caught.value).startswith(f"wavelet.file: {path}{told}")


def test_a_wavelet_that_is_not_there_is_told(tmp_path):
    for name in ("none.txt", "none.npy"):
        with pytest.raises(InputError, match=rf"wavelet\.file: .*{name}.*(n|N)o such file"):
            read_wavelet(tmp_path / name)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=100)
    | st.lists(st.floats(allow_subnormal=False).map(str), max_size=8).map("\n".join).map(str.encode)
)
def test_any_bytes_are_a_wavelet_or_refused_with_their_name(tmp_path, content):
    for name in ("w.txt", "w.npy"):
        path = tmp_path / name
        path.write_bytes(content)
        try:
            values = read_wavelet(path)
        except InputError as error:
            told = str(error)
        else:
            told = str(path)
            assert np.isfinite(values).all()
            assert len(values) >= 4
        assert str(path) in told
