"""RSF: what Madagascar's guide says of headers and samples, read and written; an independent parser reads what is written."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hpcfwi.formats.rsf import open_rsf, write_rsf
from hpcfwi.formats.stored_model import FormatError

VALUES = np.arange(1.0, 13.0).reshape(4, 3)  # four columns (axis 2) of three depths (axis 1)
HEADER = 'sfmath\tfile\n\tn1=3 o1=5 d1=10 n2=4 o2=100 d2=25\n\tdata_format="{}" esize={} in="{}"\n'


@pytest.fixture
def rsf(tmp_path):
    """Writes a header, and samples unless they are None, and returns the header's path."""

    def write(header, samples=None, name="v.rsf@"):
        (tmp_path / "v.rsf").write_text(header)
        if samples is not None:
            (tmp_path / name).write_bytes(samples)
        return tmp_path / "v.rsf"

    return write


@pytest.mark.parametrize(
    ("data_format", "esize", "dtype"),
    [
        ("native_float", 4, "=f4"),
        ("native_float", 8, "=f8"),
        ("xdr_float", 4, ">f4"),
        ("native_int", 4, "=i4"),
        ("native_short", 2, "=i2"),
        ("native_double", 8, "=f8"),
    ],
)
def test_samples_of_each_format_are_read(rsf, data_format, esize, dtype):
    stored = open_rsf(rsf(HEADER.format(data_format, esize, "v.rsf@"), VALUES.astype(dtype).tobytes()))
    np.testing.assert_array_equal(stored.values[:], VALUES)
    assert (stored.axes, stored.spacing, stored.origin) == (None, (25.0, 10.0), (100.0, 5.0))


def test_samples_in_ascii_are_read(rsf):
    stored = open_rsf(
        rsf(HEADER.format("ascii_float", 4, "v.txt"), " ".join(map(str, VALUES.ravel())).encode(), "v.txt")
    )
    np.testing.assert_array_equal(stored.values[:], VALUES)


def test_the_last_value_of_a_parameter_counts_and_samples_may_follow_the_header(tmp_path):
    header = (
        HEADER.format("native_float", 4, "elsewhere") + 'sfput\n\to1=0 label1=Depth unit1=km label2="X" in="stdin"\n'
    )
    path = tmp_path / "v.rsf"
    path.write_bytes(header.encode() + b"\x0c\x0c\x04" + VALUES.astype("=f4").tobytes())
    stored = open_rsf(path)
    np.testing.assert_array_equal(stored.values[1:3], VALUES[1:3])
    assert (stored.spacing, stored.origin) == ((25.0, 10000.0), (100.0, 0.0))


def test_labels_say_the_order_of_axes_and_axes_of_one_sample_do_not_count(rsf):
    header = 'n1=4 n2=1 n3=3 n4=1 label1="x" label3="z" unit="m/s" in="v.rsf@"'
    stored = open_rsf(rsf(header, VALUES.astype("f4").tobytes()))
    assert (stored.axes, stored.values.shape, stored.unit) == ("zx", (3, 4), "m/s")
    assert stored.spacing == (None, None)


def test_without_labels_axis_2_is_x_and_axis_3_is_y(rsf):
    assert open_rsf(rsf('n1=3 n2=2 n3=2 in="v.rsf@"', VALUES.astype("f4").tobytes())).axes == "yxz"
    assert open_rsf(rsf('n1=3 n2=2 n3=2 label1="?" in="v.rsf@"', VALUES.astype("f4").tobytes())).axes is None


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "is not an RSF header: it has no n1="),
        ("hello\0there n1=3", "is not an RSF header (text of at most"),
        ("n1=3 n2=4", "is not a complete RSF header: it has no in="),
        ("n1=3 n2=-4 in=v.rsf@", "has n2=-4 in its header; it should be a whole number"),
        ("n1=99999999999999 in=v.rsf@", "has n1=99999999999999 in its header"),
        ("n1=3 n2=4 d1=ten in=v.rsf@", "has d1=ten in its header; it should be a number"),
        ("n1=3 n2=4 d1=0 in=v.rsf@", "has d1=0 in its header; it should be a number"),
        ("n1=3 n2=4 in=none", "has in=none, but "),
        ("n1=3 n2=4 in=.", "needs 48 bytes of samples"),
        ("n1=3 n2=4 in=stdin", 'has in="stdin", but no samples follow its header'),
        ("n1=3 n2=5 in=v.rsf@", "needs 60 bytes of samples by its header (3 x 5 of 4 bytes), but "),
        ("n1=3 n2=4 data_format=native_complex in=v.rsf@", "has data_format=native_complex with esize=4, which cannot"),
        ("n1=3 n2=4 esize=3 in=v.rsf@", "has data_format=native_float with esize=3, which cannot be read"),
        ("n1=3 n2=4 data_format=ascii_float in=v.txt", "needs 12 numbers by its header, but "),
        ("n1=2 n2=1 data_format=ascii_float in=v.txt", "that are not numbers"),
    ],
    ids=lambda text: text[:30],
)
def test_what_cannot_be_read_is_refused_with_the_parameter(rsf, tmp_path, header, message):
    (tmp_path / "v.txt").write_text("1 x")
    with pytest.raises(FormatError) as caught:
        open_rsf(rsf(header, VALUES.astype("f4").tobytes()))
    assert message in str(caught.value)


def test_what_is_written_is_read_by_an_independent_parser_and_again(tmp_path):
    values = np.random.default_rng(0).uniform(1.5, 4, (4, 3, 5)).astype("f4")
    spacing, origin = (25.0, 12.5, 1 / 3), (500000.25, -10.0, 0.1)
    path = tmp_path / "v.rsf"
    with path.open("wb") as file:
        write_rsf(file, values, "xyz", spacing, origin, "km/s")
    text, samples = path.read_bytes().split(b"\x0c\x0c\x04", 1)
    header = dict(re.findall(r'(\w+)="?([^"\s]*)', text.decode()))
    counts = [int(header[f"n{axis}"]) for axis in (1, 2, 3)]
    assert (counts, header["data_format"], header["in"], header["unit"]) == ([5, 3, 4], "xdr_float", "stdin", "km/s")
    assert [float(header[f"d{axis}"]) for axis in (3, 2, 1)] == list(spacing)
    assert [float(header[f"o{axis}"]) for axis in (3, 2, 1)] == list(origin)
    np.testing.assert_array_equal(np.frombuffer(samples, ">f4").reshape(4, 3, 5), values)
    stored = open_rsf(path)
    assert (stored.axes, stored.spacing, stored.origin, stored.unit) == ("xyz", spacing, origin, "km/s")
    np.testing.assert_array_equal(stored.values[:], values)
