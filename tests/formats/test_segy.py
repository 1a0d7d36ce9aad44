"""SEG-Y and Seismic Unix files, written by segyio and ObsPy and read as they read them."""

from __future__ import annotations

import os
import re
import struct
import warnings
from dataclasses import replace

import numpy as np
import pytest
import segyio
from field_files import SMALL_SU, VIKING, patch, write_segy, write_su

from hpcfwi.errors import InputError
from hpcfwi.formats.segy import SAMPLE_TYPES
from hpcfwi.formats.segy_layout import Overrides, open_segy

TRACES, SAMPLES = 7, 33
ALL, NOTHING = np.arange(TRACES), Overrides()
WIDTHS = {code: np.dtype(kind).itemsize for code, kind in SAMPLE_TYPES.items()}


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(1).uniform(1, 120, (TRACES, SAMPLES))


def read(path, overrides=NOTHING):
    file = open_segy(path, overrides)
    return file.read_traces(np.arange(file.traces))


def read_by_segyio(path, endian="big") -> np.ndarray:
    with segyio.open(str(path), ignore_geometry=True, endian=endian) as file:
        return np.ascontiguousarray(file.trace.raw[:].T)


@pytest.mark.parametrize("endian", ["big", "little"])
@pytest.mark.parametrize("extended", [0, 2])
@pytest.mark.parametrize("code", [*SAMPLE_TYPES])
def test_every_sample_format_of_segyio_is_read_to_the_bit(tmp_path, values, code, endian, extended):
    path = write_segy(tmp_path / "a.sgy", values, code=code, endian=endian, extended=extended)
    file = open_segy(path)
    assert (file.byte_order, file.sample_code, file.samples, file.traces) == (endian, code, SAMPLES, TRACES)
    assert file.interval_us == 2000
    assert file.notes == ()
    expected = read_by_segyio(path, endian)
    found = file.read_traces(ALL)
    assert found.dtype == np.float64 if WIDTHS[code] == 8 else found.dtype.kind == "f"
    np.testing.assert_array_equal(found, expected)


def test_ibm_floats_of_any_size_are_read_to_the_bit(tmp_path):
    values = np.concatenate([s * 10.0 ** np.linspace(-36, 37, 500) for s in (1, -1)])[None].astype(np.float32)
    path = write_segy(tmp_path / "a.sgy", values, code=1)
    np.testing.assert_array_equal(read(path), read_by_segyio(path))


def obspy_stream(values: np.ndarray, dtype: str):
    from obspy import Stream, Trace

    stream = Stream([Trace(trace.astype(dtype), {"delta": 0.002}) for trace in values])
    for trace in stream:
        trace.stats.starttime += 1e9  # it cannot write 1970
    return stream


@pytest.mark.parametrize("order", ["big", "little"])
@pytest.mark.parametrize(("code", "dtype"), [(1, "f4"), (2, "i4"), (3, "i2"), (5, "f4")])
def test_files_of_obspy_are_read_as_it_reads_them(tmp_path, values, code, dtype, order):
    import obspy

    path = tmp_path / "a.segy"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stream = obspy_stream(values, dtype)
        stream.write(str(path), format="SEGY", data_encoding=code, byteorder=">" if order == "big" else "<")
        expected = np.stack([trace.data for trace in obspy.read(str(path), format="SEGY", unpack_trace_headers=True)])
    file = open_segy(path)
    assert (file.byte_order, file.sample_code, file.traces) == (order, code, TRACES)
    np.testing.assert_array_equal(file.read_traces(ALL), expected.T)


@pytest.mark.parametrize("order", ["big", "little"])
def test_seismic_unix_of_obspy_is_read_as_it_reads_it(tmp_path, values, order):
    path = tmp_path / "a.su"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        obspy_stream(values, "f4").write(str(path), format="SU", byteorder=">" if order == "big" else "<")
    file = open_segy(path)
    assert (file.byte_order, file.samples, file.traces, file.interval_us) == (order, SAMPLES, TRACES, 2000)
    np.testing.assert_array_equal(file.read_traces(ALL), values.astype("f4").T)


@pytest.mark.parametrize("endian", ["big", "little"])
@pytest.mark.parametrize("traces", [1, TRACES])
def test_the_byte_order_of_seismic_unix_is_recognised(tmp_path, values, endian, traces):
    path = write_su(tmp_path / "a.su", values[:traces], endian=endian)
    file = open_segy(path)
    assert (file.byte_order, file.samples, file.traces) == (endian, SAMPLES, traces)
    given = open_segy(path, Overrides(samples=SAMPLES))
    assert given == file
    assert file.description == f"Seismic Unix, {endian}-endian, 4-byte IEEE float"


def test_traces_are_read_in_the_order_that_is_asked_for(tmp_path, values):
    path = write_segy(tmp_path / "a.sgy", values)
    numbers = np.array([5, 6, 0, 3, 2, 3])
    np.testing.assert_array_equal(open_segy(path).read_traces(numbers), values[numbers].astype("f4").T)
    assert open_segy(path).read_traces(ALL[:0]).shape == (SAMPLES, 0)


@pytest.mark.skipif(not VIKING.exists(), reason="needs ../shared/data")
def test_real_records_are_read_as_by_segyio():
    file = open_segy(VIKING)
    assert (file.traces, file.samples, file.interval_us) == (480, 600, 4000)
    assert file.description == "SEG-Y rev 0, big-endian, 4-byte IBM float"
    assert file.notes == (
        "the binary header says 600 samples a trace, the first trace header 1500; the size of the file fits 600, which are "
        "used",
    )
    np.testing.assert_array_equal(read(VIKING), read_by_segyio(VIKING))


@pytest.mark.skipif(not SMALL_SU.exists(), reason="needs ../shared/data")
def test_a_real_file_of_seismic_unix_is_read_as_by_segyio():
    for endian in ("big", "little"):
        try:
            with segyio.su.open(str(SMALL_SU), ignore_geometry=True, endian=endian) as opened:
                expected = opened.trace.raw[:].T
        except (RuntimeError, OSError):
            continue
        file = open_segy(SMALL_SU)
        assert file.byte_order == endian
        np.testing.assert_array_equal(read(SMALL_SU), expected)
        return
    pytest.fail("segyio reads it in no byte order")


# Rev 2: fields that earlier revisions do not have
def rev2(path, values, endian="big", **options):
    write_segy(path, values, endian=endian, **options)
    order = ">" if endian == "big" else "<"
    patch(path, 3501, b"\x02\x00")
    patch(path, 3297, struct.pack(order + "I", 16909060))
    return path, order


@pytest.mark.parametrize("endian", ["big", "little"])
def test_rev_2_has_long_traces_and_fractional_intervals(tmp_path, endian):
    values = np.random.default_rng(2).normal(size=(2, 70_000))
    path, order = rev2(tmp_path / "a.sgy", values, endian)
    patch(path, 3269, struct.pack(order + "I", 70_000))
    patch(path, 3273, struct.pack(order + "d", 31.25))
    file = open_segy(path)
    assert (file.samples, file.interval_us, file.byte_order) == (70_000, 31.25, endian)
    assert file.revision == "2.0"
    np.testing.assert_array_equal(read(path), values.astype("f4").T)


def test_rev_2_says_its_byte_order_even_if_the_format_is_wrong(tmp_path, values):
    path, _ = rev2(tmp_path / "a.sgy", values, "little")
    patch(path, 3225, struct.pack("<H", 0x0500))
    with pytest.raises(
        InputError, match=r"a\.sgy: its binary header has the sample format 1280, .*data\.headers\.sample_format"
    ):
        open_segy(path)
    np.testing.assert_array_equal(read(path, Overrides(sample_format=5)), values.astype("f4").T)


def test_extra_trace_headers_and_a_trailer_of_rev_2_are_skipped(tmp_path, values):
    path, order = rev2(tmp_path / "a.sgy", values)
    content = path.read_bytes()
    size = 240 + 4 * SAMPLES
    traces = [content[3600 + i * size :][:size] for i in range(TRACES)]
    longer = b"".join(trace[:240] + b"\x01" * 480 + trace[240:] for trace in traces)
    path.write_bytes(content[:3600] + longer + b" " * 6400)
    patch(path, 3507, struct.pack(order + "I", 2))
    patch(path, 3529, struct.pack(order + "i", 2))
    file = open_segy(path)
    assert (file.header_bytes, file.traces) == (720, TRACES)
    np.testing.assert_array_equal(read(path), values.astype("f4").T)


def test_rev_2_may_say_where_its_first_trace_is(tmp_path, values):
    path, order = rev2(tmp_path / "a.sgy", values)
    content = path.read_bytes()
    path.write_bytes(content[:3600] + b"\xff" * 1000 + content[3600:])
    patch(path, 3521, struct.pack(order + "Q", 4600))
    np.testing.assert_array_equal(read(path), values.astype("f4").T)
    patch(path, 3521, struct.pack(order + "Q", 2**64 - 1))
    with pytest.raises(InputError, match="puts the first trace after 18446744073709551615 bytes, but the file has"):
        open_segy(path)


@pytest.mark.parametrize("encoding", ["ascii", "cp037"])
def test_extended_text_headers_without_a_number_end_with_the_one_that_says_so(tmp_path, values, encoding):
    path = write_segy(tmp_path / "a.sgy", values)
    content = path.read_bytes()
    blocks = ["((SEG: Layout))".ljust(3200), "more".ljust(3200), "((SEG: EndText))".ljust(3200)]
    path.write_bytes(content[:3600] + b"".join(block.encode(encoding) for block in blocks) + content[3600:])
    patch(path, 3501, b"\x01\x00")
    patch(path, 3505, b"\xff\xff")
    assert open_segy(path).first_trace == 3600 + 3 * 3200
    np.testing.assert_array_equal(read(path), values.astype("f4").T)
    path.write_bytes(path.read_bytes().replace("EndText".encode(encoding), "endless".encode(encoding)))
    with pytest.raises(
        InputError, match=r"extended text headers without a number, and none of the first 1000 is the last"
    ):
        open_segy(path)


@pytest.mark.parametrize("revision", [b"\x01\x00", b"\x00\x01"])
def test_a_revision_in_either_order_of_bytes_is_understood(tmp_path, values, revision):
    path = patch(write_segy(tmp_path / "a.sgy", values, extended=1), 3501, revision)
    assert open_segy(path).revision == "1.0"
    np.testing.assert_array_equal(read(path), values.astype("f4").T)


def test_bytes_that_rev_0_does_not_define_do_not_matter(tmp_path, values):
    path = write_segy(tmp_path / "a.sgy", values)
    for revision, count in ((b"\x00\x00", 1), (b"\x00\x00", 30_000), (b"\x40\x40", 16448), (b"\x00\x00", -1)):
        patch(patch(path, 3501, revision), 3505, struct.pack(">h", count))
        assert open_segy(path).revision == "0"
        np.testing.assert_array_equal(read(path), values.astype("f4").T)


@pytest.mark.parametrize(("stored", "unit"), [(0, None), (1, "m"), (2, "ft"), (9, None)])
def test_the_unit_of_lengths_is_that_of_the_binary_header(tmp_path, values, stored, unit):
    assert open_segy(write_segy(tmp_path / "a.sgy", values, binary={3255: stored})).unit == unit


# Numbers of samples
def test_the_size_of_the_file_decides_which_number_of_samples_is_right(tmp_path, values):
    path = write_segy(tmp_path / "a.sgy", values, {"TRACE_SAMPLE_COUNT": 1500})
    (note,) = open_segy(path).notes
    assert note == (
        f"the binary header says {SAMPLES} samples a trace, the first trace header 1500; the size of the file fits {SAMPLES}, "
        "which are used"
    )
    path = write_segy(tmp_path / "b.sgy", values)
    for wrong in (0, 1500):
        patch(path, 3221, struct.pack(">H", wrong))
        (note,) = open_segy(path).notes
        assert f"the binary header says {wrong} samples a trace, the first trace header {SAMPLES}; the size" in note
        assert f"fits {SAMPLES}, which are used" in note
        np.testing.assert_array_equal(read(path), values.astype("f4").T)


def test_a_user_may_know_better_than_the_headers(tmp_path, values):
    path = write_segy(tmp_path / "a.sgy", values, {"TRACE_SAMPLE_COUNT": 0})
    patch(path, 3221, b"\0\0")
    patch(path, 3225, b"\0\0")
    known = Overrides(SAMPLES, "big", 5)
    np.testing.assert_array_equal(read(path, known), values.astype("f4").T)
    with pytest.raises(
        InputError, match=rf"data\.headers\.samples: 32 samples do not fit .*a\.sgy.* {TRACES} traces and"
    ):
        open_segy(path, replace(known, samples=32))
    with pytest.raises(
        InputError, match=r"data\.headers\.sample_format: is 4, which is not read here; it should be one of 1 "
    ):
        open_segy(path, replace(known, sample_format=4))


def test_a_truncated_copy_is_mended_by_the_command_that_the_message_names(tmp_path, values):
    path = write_segy(tmp_path / "a.sgy", values)
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(
        InputError, match=rf"are {TRACES - 1} traces and {240 + 4 * SAMPLES - 100} bytes\. The file is trunc"
    ) as caught:
        open_segy(path)
    size = int(re.search(r"truncate -s (\d+) COPY", str(caught.value))[1])
    os.truncate(path, size)
    np.testing.assert_array_equal(read(path), values[:-1].astype("f4").T)


def test_a_file_that_becomes_shorter_is_an_error_with_the_trace(tmp_path, values):
    file = open_segy(write_segy(tmp_path / "a.sgy", values))
    os.truncate(file.path, file.path.stat().st_size - 1)
    with pytest.raises(OSError, match=f"ends before trace {TRACES}"):
        file.read_traces(ALL)
    file.read_traces(ALL[:-1])


def binary(size: int) -> bytes:
    """The headers of a file that announces 100 samples of 4-byte IEEE floats."""
    return bytes(3200) + struct.pack(">16xHHHHH", 2000, 2000, 100, 100, 5) + bytes(size - 3226)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.sgy", b"", "has 0 bytes, but the headers of SEG-Y alone have 3600; it is truncated, or not SEG-Y"),
        ("a.sgy", b"x" * 3599, "has 3599 bytes"),
        ("a.sgy", b"# shot x z\n" * 1000, "but codes go from 1 to 16: it looks like text, not like SEG-Y"),
        ("a.sgy", bytes(5000), "the sample format in its binary header is 0 (big-endian) or 0 (little-endian)"),
        ("a.sgy", binary(3600), "has headers of 3600 bytes, but no traces"),
        ("a.sgy", binary(3700), "ends inside the header of its first trace"),
        ("a.sgy", binary(3840).replace(b"\0\x64\0\x64", bytes(4)), "without samples there are no data. If headers are wrong"),
        ("a.su", b"", "has 0 bytes, less than the header of a trace (240)"),
        ("a.su", bytes(1000), "its first trace header counts 0 (little-endian) or 0 (big-endian) samples"),
        ("a.su", b"x z\n" * 200, "counts 2682 (little-endian) or 31242 (big-endian) samples, and its 800 bytes are not"),
    ],
)  # fmt: skip
def test_what_is_not_such_a_file_is_refused_with_what_was_seen(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        open_segy(tmp_path / name)
    assert str(caught.value).startswith(f"data.file: {tmp_path / name}: ")
    assert message in str(caught.value)


def test_a_forced_byte_order_that_is_wrong_is_refused_with_the_right_format(tmp_path, values):
    path = write_segy(tmp_path / "a.sgy", values)
    with pytest.raises(
        InputError,
        match=r"is 1280 in the byte order of data\.headers\.byte_order, which is little, but 5 \(4-byte IEEE",
    ):
        open_segy(path, Overrides(byte_order="little"))
    with pytest.raises(InputError, match=rf"the first trace header says {SAMPLES << 8}.*data\.headers\.samples"):
        open_segy(write_su(tmp_path / "a.su", values), Overrides(byte_order="big"))


def test_damaged_counts_of_headers_are_refused(tmp_path, values):
    path, order = rev2(tmp_path / "a.sgy", values)
    patch(path, 3507, struct.pack(order + "I", 4_000_000_000))
    with pytest.raises(InputError, match="announces 4000000001 headers for each trace; it is damaged"):
        open_segy(path)
    patch(path, 3507, bytes(4))
    patch(path, 3505, struct.pack(order + "h", 20_000))
    with pytest.raises(InputError, match="announces 20000 extended text headers; it is damaged"):
        open_segy(path)


def test_folders_pipes_and_missing_files_are_refused(tmp_path):
    (tmp_path / "folder.sgy").mkdir()
    os.mkfifo(tmp_path / "pipe.sgy")
    for name, message in (("folder", "Is a directory"), ("pipe", "device or a pipe"), ("none", "No such file")):
        with pytest.raises(InputError, match=rf"data\.file: .*{name}\.sgy: cannot be read \(.*{message}"):
            open_segy(tmp_path / f"{name}.sgy")
