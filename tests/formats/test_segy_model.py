"""Models in SEG-Y that segyio writes, and what segyio reads of ours."""

from __future__ import annotations

import numpy as np
import pytest
import segyio
from segyio import BinField, TraceField

from hpcfwi.formats.segy_model import open_segy_model, write_segy_model
from hpcfwi.formats.stored_model import FormatError

VALUES = np.arange(1.0, 21.0, dtype="f4").reshape(5, 4)


@pytest.fixture
def segy(tmp_path):
    """Writes traces, shape (n, samples), with header fields: a number for all, or one for each; returns the path."""

    def write(traces, fields=None, *, bin_fields=None, endian="big", code=5):
        spec = segyio.spec()
        spec.tracecount, spec.samples, spec.format = len(traces), np.arange(traces.shape[1]), code
        spec.endian = endian
        path = tmp_path / "v.segy"
        with segyio.create(path, spec) as file:
            file.bin = {BinField.Interval: 10000} | (bin_fields or {})
            for i, trace in enumerate(traces):
                file.header[i] = {
                    key: int(np.broadcast_to(value, len(traces))[i]) for key, value in (fields or {}).items()
                }
                file.trace[i] = trace.astype(file.dtype)
        return path

    return write


def line(x, y=0, scalar=1):
    return {TraceField.CDP_X: x, TraceField.CDP_Y: y, TraceField.SourceGroupScalar: scalar}


def everything(stored):
    return stored.values[tuple(slice(None) for _ in stored.values.shape)]


NUMBERS = np.arange(5)


@pytest.mark.parametrize("endian", ["big", "little"])
@pytest.mark.parametrize("code", [1, 2, 3, 5])
def test_a_line_of_each_format_and_byte_order_is_read(segy, endian, code):
    stored = open_segy_model(segy(VALUES, line(1000 + 25 * NUMBERS), endian=endian, code=code))
    np.testing.assert_array_equal(everything(stored), VALUES)
    assert (stored.axes, stored.spacing, stored.origin) == ("xz", (25.0, 10.0), (1000.0, 0.0))


@pytest.mark.parametrize(
    ("fields", "spacing", "origin"),
    [
        (line(10000 + 125 * NUMBERS, scalar=-10), 12.5, 1000.0),
        (line(100 + 2 * NUMBERS, scalar=10), 20.0, 1000.0),
        (line(7, 50 * NUMBERS, scalar=0), 50.0, 0.0),
        (line(30 * NUMBERS, 40 * NUMBERS), 50.0, 0.0),
        (line(np.rint(12.5 * NUMBERS)), 12.5, 0.0),
        (line(100 - 25 * NUMBERS), -25.0, 100.0),
        ({TraceField.SourceX: 25 * NUMBERS}, 25.0, 0.0),
        ({}, None, None),
    ],
    ids=["divided", "multiplied", "along y", "oblique", "rounded", "backwards", "sources", "none"],
)
def test_positions_along_a_line_are_those_of_the_headers(segy, fields, spacing, origin):
    stored = open_segy_model(segy(VALUES, fields))
    assert (stored.spacing[0], stored.origin[0]) == (spacing, origin)


def test_feet_delay_and_an_unsigned_interval_are_applied(segy):
    fields = line(100 * NUMBERS) | {TraceField.DelayRecordingTime: 125, TraceField.ScalarTraceHeader: -10}
    stored = open_segy_model(segy(VALUES, fields, bin_fields={BinField.MeasurementSystem: 2, BinField.Interval: 40000}))
    np.testing.assert_allclose(stored.spacing, (30.48, 40 * 0.3048))
    np.testing.assert_allclose(stored.origin, (0.0, 12.5 * 0.3048))


def cube(lines, crosslines, x, y):
    places = {TraceField.INLINE_3D: lines, TraceField.CROSSLINE_3D: crosslines}
    return {key: np.ravel(value) for key, value in (places | line(x, y)).items() if np.ndim(value)}


J, I = np.meshgrid(np.arange(3), np.arange(4), indexing="ij")  # noqa: E741 - inline and crossline
TRACES = np.arange(1.0, 61.0, dtype="f4").reshape(12, 5)


def test_a_cube_is_ordered_by_inline_and_crossline_in_any_order_of_traces(segy):
    mixed = np.random.default_rng(0).permutation(12)
    fields = {key: value[mixed] for key, value in cube(J + 7, 2 * I, 1000 + 25 * I, 50 * J).items()}
    stored = open_segy_model(segy(TRACES[mixed], fields))
    assert (stored.axes, stored.spacing, stored.origin) == ("yxz", (50.0, 25.0, 10.0), (0.0, 1000.0, 0.0))
    np.testing.assert_array_equal(everything(stored), TRACES.reshape(3, 4, 5))
    np.testing.assert_array_equal(stored.values[1:2, ::-1, 1:4:2], TRACES.reshape(3, 4, 5)[1:2, ::-1, 1:4:2])


def test_a_line_may_cross_another_inline_and_crossline_at_each_trace(segy):
    fields = line(30 * NUMBERS, 40 * NUMBERS) | {
        TraceField.INLINE_3D: NUMBERS + 1,
        TraceField.CROSSLINE_3D: NUMBERS // 2,
    }
    stored = open_segy_model(segy(VALUES, fields))
    assert (stored.axes, stored.spacing[0]) == ("xz", 50.0)


def test_inlines_may_run_along_y(segy):
    stored = open_segy_model(segy(TRACES, cube(J, I, 50 * J, 25 * I)))
    assert (stored.axes, stored.spacing) == ("xyz", (50.0, 25.0, 10.0))


@pytest.mark.parametrize(
    ("traces", "fields", "message"),
    [
        (
            TRACES[:11],
            {k: v[:11] for k, v in cube(J, I, I, J).items()},
            "is not a full cube: it has 11 traces on 3 inlines",
        ),
        (TRACES, cube(J, np.minimum(I, 2), I, J), "is not a full cube: it has 12 traces on 3 inlines and 3 crosslines"),
        (TRACES, cube(J, I, 30 * I + 40 * J, 40 * I - 30 * J), "not on a regular grid along x and y"),
        (VALUES, line([0, 25, 50, 80, 100]), "trace 4 of 5, at x 80 m and y 0 m, misses its place by 5 m"),
        (VALUES, line(25 * NUMBERS) | {TraceField.DelayRecordingTime: NUMBERS}, "begin at different depths"),
    ],
    ids=["incomplete", "doubled", "rotated", "uneven", "delays"],
)
def test_geometry_that_is_no_regular_grid_is_refused(segy, traces, fields, message):
    with pytest.raises(FormatError, match=message):
        open_segy_model(segy(traces, fields))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is not SEG-Y: it has 0 bytes, fewer than the headers \(3600\)"),
        (b"a text file" * 1000, r"is not SEG-Y: bytes 3225 and 3226, the format of the samples, are 32 and 116"),
    ],
    ids=["empty", "text"],
)
def test_other_files_are_refused_by_their_headers(tmp_path, content, message):
    (tmp_path / "v.segy").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        open_segy_model(tmp_path / "v.segy")


SPACING, ORIGIN = (12.5, 25.0, 7.25), (5000.5, -100.0, 12.75)


def written(tmp_path, shape, spacing=SPACING, origin=ORIGIN):
    values = np.random.default_rng(0).uniform(1.5, 4, shape).astype("f4")
    select = (0, 2) if len(shape) == 2 else (0, 1, 2)
    path = tmp_path / "v.segy"
    rounding = write_segy_model(path, values, [spacing[i] for i in select], [origin[i] for i in select], ["C test"])
    return path, values, rounding


def test_segyio_reads_a_line_with_its_geometry(tmp_path):
    path, values, rounding = written(tmp_path, (6, 4))
    assert rounding == 0
    with segyio.open(path, ignore_geometry=True) as file:
        np.testing.assert_array_equal(file.trace.raw[:], values)
        assert (file.bin[BinField.Interval], file.bin[BinField.SEGYRevision], int(file.format)) == (7250, 1, 5)
        for i, header in enumerate(file.header):
            scale = -header[TraceField.SourceGroupScalar]
            for name in (TraceField.CDP_X, TraceField.SourceX, TraceField.GroupX):
                assert header[name] / scale == 5000.5 + 12.5 * i
            assert header[TraceField.DelayRecordingTime] / -header[TraceField.ScalarTraceHeader] == 12.75
        assert file.text[0].decode().startswith("C 1 C test")
    stored = open_segy_model(path)
    assert (stored.axes, stored.spacing, stored.origin) == ("xz", (12.5, 7.25), (5000.5, 12.75))


def test_segyio_reads_a_cube_with_its_geometry(tmp_path):
    path, values, _ = written(tmp_path, (6, 3, 4))
    with segyio.open(path) as file:
        np.testing.assert_array_equal(file.ilines, [1, 2, 3])
        np.testing.assert_array_equal(segyio.tools.cube(file), values.transpose(1, 0, 2))
        np.testing.assert_array_equal(file.attributes(TraceField.CDP_Y)[::6] / 10, [-100.0, -75.0, -50.0])
    stored = open_segy_model(path)
    assert (stored.axes, stored.spacing, stored.origin) == ("yxz", (25.0, 12.5, 7.25), (-100.0, 5000.5, 12.75))
    np.testing.assert_array_equal(everything(stored), values.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("spacing", "origin", "message"),
    [
        (
            (10.0, 10.0, 40.0),
            ORIGIN,
            "the depth step of 40 m is kept in mm, but SEG-Y rev 1 has whole numbers from 1 to 32767",
        ),
        ((10.0, 10.0, 1 / 3), ORIGIN, "the depth step of 0.333333 m is kept in mm"),
        ((10.0, 10.0, 10.0), (3e9, 0.0, 0.0), "coordinates of up to 3000000050 m cannot be kept in 32-bit integers"),
        ((10.0, 10.0, 10.0), (0.0, 0.0, 40000.0), "the depth of the first sample, 40000 m, does not fit 16 bits"),
    ],
    ids=["coarse", "no whole mm", "far", "deep"],
)
def test_what_does_not_fit_its_header_field_is_refused(tmp_path, spacing, origin, message):
    with pytest.raises(FormatError) as caught:
        written(tmp_path, (6, 4), spacing, origin)
    assert message in str(caught.value)


def test_the_rounding_of_coordinates_is_told(tmp_path):
    _, _, rounding = written(tmp_path, (6, 4), (100 / 3, 10.0, 10.0))
    assert 3e-5 < rounding < 5e-5
