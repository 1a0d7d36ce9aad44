"""Header fields by name and byte, and their values for all traces, as segyio reads them."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import segyio
from field_files import VIKING, write_segy

import hpcfwi.formats.trace_headers as module
from hpcfwi.errors import InputError
from hpcfwi.formats.segy_layout import open_segy
from hpcfwi.formats.trace_headers import HeaderField, parse_field, read_columns, standard_fields

TRACES = 50


@pytest.fixture(params=["big", "little"])
def path(request, tmp_path):
    """A file with other numbers in each field of each trace."""
    random = np.random.default_rng(0)
    fields = {name: random.integers(0, 30_000, TRACES) for name in standard_fields()}
    fields |= {"SourceX": random.integers(-(2**31), 2**31, TRACES), "CDP": 7, "TRACE_SAMPLE_COUNT": 10}
    return write_segy(tmp_path / "a.sgy", np.ones((TRACES, 10)), fields, endian=request.param)


def by_segyio(path, name) -> np.ndarray:
    file = open_segy(path)
    with segyio.open(str(path), ignore_geometry=True, endian=file.byte_order) as opened:
        return opened.attributes(segyio.tracefield.keys[name])[:]


def test_every_standard_field_is_read_as_by_segyio(path):
    fields = {name: parse_field(name, "key") for name in standard_fields()}
    columns = read_columns(open_segy(path), list(fields.values()))
    for name, field in fields.items():
        np.testing.assert_array_equal(columns[field], by_segyio(path, name), err_msg=name)


@pytest.mark.skipif(not VIKING.exists(), reason="needs ../shared/data")
def test_fields_of_real_records_are_read_as_by_segyio():
    names = ("FieldRecord", "SourceX", "GroupX", "offset", "ReceiverGroupElevation", "MuteTimeEND")
    fields = {name: parse_field(name, "key") for name in names}
    columns = read_columns(open_segy(VIKING), list(fields.values()))
    for name, field in fields.items():
        np.testing.assert_array_equal(columns[field], by_segyio(VIKING, name))


def test_long_traces_are_skipped_between_their_headers(path, monkeypatch):
    field = parse_field("SourceX", "key")
    expected = read_columns(open_segy(path), [field])[field]
    monkeypatch.setattr(module, "MAX_READ_TRACE_BYTES", 250)
    monkeypatch.setattr(module, "BLOCK_BYTES", 1000)
    np.testing.assert_array_equal(read_columns(open_segy(path), [field])[field], expected)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("SourceX", ("SourceX", 73, "i4")),
        ("sourcex", ("SourceX", 73, "i4")),
        (73, ("SourceX", 73, "i4")),
        (" 73 ", ("SourceX", 73, "i4")),
        (71, ("SourceGroupScalar", 71, "i2")),
        ("73:float32", ("73:float32", 73, "f4")),
        ("233:float64", ("233:float64", 233, "f8")),
        (183, ("183", 183, "i4")),
        ("TRACE_SAMPLE_COUNT", ("TRACE_SAMPLE_COUNT", 115, "u2")),
    ],
)
def test_a_field_has_a_name_a_byte_or_a_byte_and_a_type(text, field):
    assert parse_field(text, "key") == HeaderField(*field)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SorceX", "data.headers.source_x: is 'SorceX'; it should be the name .* Did you mean \"SourceX\"?"),
        ("", "it should be the name of a header field"),
        ("73:float16", "with the type int16, uint16, int32, uint32, float32, float64"),
        ("-1", "it should be"),
        ("0", "is '0', 4 bytes from byte 0 on, but a trace header has the bytes 1 to 240"),
        (238, "is 238, 4 bytes from byte 238 on, but"),
        ("9" * 5000, "it should be the name"),
        ("٧٣", "it should be the name"),
    ],
)
def test_a_field_that_does_not_exist_is_refused_with_the_nearest_one(text, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_field(text, "data.headers.source_x")
    assert len(str(caught.value)) < 400


def test_bytes_of_other_types_are_read(tmp_path):
    path = write_segy(tmp_path / "a.sgy", np.ones((3, 4)))
    for trace, value in enumerate([1.5, -2.5e7, 0.0]):
        with path.open("r+b") as file:
            file.seek(3600 + trace * 256 + 180)
            file.write(np.array(value, ">f4").tobytes())
    field = parse_field("181:float32", "key")
    assert read_columns(open_segy(path), [field])[field].tolist() == [1.5, -2.5e7, 0.0]


# The cache of large files
@pytest.fixture
def large(path, monkeypatch):
    """A file that counts as large, and the number of times that its headers were read."""
    monkeypatch.setattr(module, "MIN_CACHED_TRACES", 10)
    read, fill = [], module._fill
    monkeypatch.setattr(module, "_fill", lambda *arguments: (read.append(1), fill(*arguments)))
    return path, read


FIELDS = [parse_field(name, "key") for name in ("SourceX", "FieldRecord", "CDP")]


def test_headers_of_a_large_file_are_read_once(large, tmp_path):
    path, read = large
    small = read_columns(open_segy(path), FIELDS[:1], tmp_path / "cache")
    for _ in range(2):
        columns = read_columns(open_segy(path), FIELDS, tmp_path / "cache")
        for field in FIELDS:
            np.testing.assert_array_equal(columns[field], by_segyio(path, field.name))
            assert not columns[field].flags.writeable
    assert len(read) == 2  # one field, and then the others
    np.testing.assert_array_equal(small[FIELDS[0]], columns[FIELDS[0]])
    assert columns[FIELDS[2]].strides == (0,)  # one value takes no memory
    names = {file.name for file in (tmp_path / "cache").glob("*/*")}
    assert names == {"source", "73-i4.npy", "9-i4.npy", "21-i4.npy"}


def test_a_file_that_has_changed_is_read_again_and_its_old_columns_are_removed(large, tmp_path):
    path, read = large
    read_columns(open_segy(path), FIELDS, tmp_path / "cache")
    os.utime(path, ns=(1, 1))
    read_columns(open_segy(path), FIELDS, tmp_path / "cache")
    assert len(read) == 2
    (left,) = (tmp_path / "cache").iterdir()
    assert json.loads((left / "source").read_text())[2] == 1


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"x" * 300])
def test_a_damaged_cache_is_made_anew(large, tmp_path, content):
    path, _ = large
    read_columns(open_segy(path), FIELDS, tmp_path / "cache")
    for column in (tmp_path / "cache").glob("*/*"):
        column.write_bytes(content)
    columns = read_columns(open_segy(path), FIELDS, tmp_path / "cache")
    np.testing.assert_array_equal(columns[FIELDS[0]], by_segyio(path, "SourceX"))


@pytest.mark.parametrize("name", ['it\'s "a".sgy', "Süd, (1).sgy", "new\nline.sgy"])
def test_files_of_any_name_have_a_cache(large, tmp_path, name):
    path, read = large
    path = path.rename(tmp_path / name)
    for _ in range(2):
        read_columns(open_segy(path), FIELDS, tmp_path / "cache")
    assert len(read) == 1


def test_without_a_folder_for_the_cache_the_columns_are_temporary(large, tmp_path):
    path, _ = large
    (tmp_path / "cache").write_text("not a folder")
    columns = read_columns(open_segy(path), FIELDS, tmp_path / "cache")
    for field in FIELDS:
        np.testing.assert_array_equal(columns[field], by_segyio(path, field.name))


def test_a_file_that_becomes_shorter_is_refused_and_leaves_nothing(large, tmp_path):
    path, _ = large
    file = open_segy(path)
    os.truncate(path, path.stat().st_size - 1000)
    with pytest.raises(InputError, match=r"data\.file: .*a\.sgy: cannot be read \(it has become shorter"):
        read_columns(file, FIELDS, tmp_path / "cache")
    assert not [*(tmp_path / "cache").glob("*/.*")]
