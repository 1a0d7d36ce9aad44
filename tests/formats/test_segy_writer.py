"""Shot gathers in SEG-Y, read by segyio and ObsPy."""

from __future__ import annotations

import numpy as np
import obspy
import pytest
import segyio
from segyio import BinField, TraceField

from hpcfwi.formats.segy_writer import Scaling, ShotGathers, check_samples, create_segy, text_header, whole_number
from hpcfwi.formats.stored_model import FormatError

SOURCES = np.array([[100.25, 0.0, 6.5], [150.25, 0.0, 6.5]])
RECEIVERS = [np.array([[120.0, 10.5, 8.0], [130.0, 10.5, -2.5], [1140.75, 0, 8.0]]), np.array([[170.0, 0.0, 9.0]])]
RECORDS = [np.arange(15, dtype="f4").reshape(5, 3), -np.arange(5, dtype="f8").reshape(5, 1)]


@pytest.fixture
def path(tmp_path):
    """Two shots, 17 and 23, of three receivers and of one."""
    plane = Scaling.of(np.concatenate([SOURCES, *RECEIVERS])[:, :2], "positions")
    depth = Scaling.of(np.concatenate([SOURCES, *RECEIVERS])[:, 2], "depths")
    with create_segy(tmp_path / "d.segy", 4, 5, 2500, ["a line"]) as file:
        gathers = ShotGathers(file, 2500, plane, depth)
        for i, name in enumerate((17, 23)):
            gathers.write(name, i + 1, SOURCES[i], RECEIVERS[i], RECORDS[i])
    return tmp_path / "d.segy"


def test_segyio_reads_samples_and_geometry(path):
    with segyio.open(path, ignore_geometry=True) as file:
        np.testing.assert_array_equal(file.trace.raw[:], np.concatenate([record.T for record in RECORDS]))
        headers = {name: file.attributes(name)[:] for name in (*EXPECTED, *POSITIONS)}
        assert segyio.dt(file) == 2500
        assert [file.bin[f] for f in (BinField.Samples, BinField.SEGYRevision, BinField.TraceFlag)] == [5, 1, 1]
    for name, expected in EXPECTED.items():
        np.testing.assert_array_equal(headers[name], expected, str(name))
    for name, (scalar, expected) in POSITIONS.items():
        np.testing.assert_array_equal(headers[name] / -headers[scalar], expected, str(name))


EXPECTED = {
    TraceField.FieldRecord: [17, 17, 17, 23],
    TraceField.EnergySourcePoint: [1, 1, 1, 2],
    TraceField.TraceNumber: [1, 2, 3, 1],
    TraceField.TRACE_SEQUENCE_FILE: [1, 2, 3, 4],
    TraceField.TRACE_SAMPLE_COUNT: [5] * 4,
    TraceField.TRACE_SAMPLE_INTERVAL: [2500] * 4,
    TraceField.TraceIdentificationCode: [1] * 4,
    TraceField.CoordinateUnits: [1] * 4,
    TraceField.offset: [22, 32, 1040, 20],
    TraceField.SourceGroupScalar: [-100] * 4,
    TraceField.ElevationScalar: [-10] * 4,
}
IN_PLANE, IN_DEPTH = TraceField.SourceGroupScalar, TraceField.ElevationScalar
POSITIONS = {
    TraceField.SourceX: (IN_PLANE, [100.25] * 3 + [150.25]),
    TraceField.SourceY: (IN_PLANE, [0.0] * 4),
    TraceField.GroupX: (IN_PLANE, [120.0, 130.0, 1140.75, 170.0]),
    TraceField.GroupY: (IN_PLANE, [10.5, 10.5, 0.0, 0.0]),
    TraceField.SourceDepth: (IN_DEPTH, [6.5] * 4),
    TraceField.ReceiverGroupElevation: (IN_DEPTH, [-8.0, 2.5, -8.0, -9.0]),
}


def test_obspy_reads_samples_and_geometry(path):
    stream = obspy.read(path, format="SEGY", unpack_trace_headers=True)
    np.testing.assert_array_equal([trace.data for trace in stream], np.concatenate([record.T for record in RECORDS]))
    assert {trace.stats.delta for trace in stream} == {0.0025}
    headers = [trace.stats.segy.trace_header for trace in stream]
    scales = [-header.scalar_to_be_applied_to_all_coordinates for header in headers]
    assert [h.group_coordinate_x / s for h, s in zip(headers, scales, strict=True)] == POSITIONS[TraceField.GroupX][1]
    assert [h.original_field_record_number for h in headers] == EXPECTED[TraceField.FieldRecord]
    depths = [h.source_depth_below_surface / -h.scalar_to_be_applied_to_all_elevations_and_depths for h in headers]
    assert depths == [6.5] * 4
    assert "a line" in stream.stats.textual_file_header.decode("latin-1")


@pytest.mark.parametrize(
    ("coordinates", "scalar", "error"),
    [
        ([0.0, 25.0, 1e8], 1, 0),
        ([0.0, 12.5], -10, 0),
        ([0.1 + 0.2, 5_804_000.25], -100, 0),  # 0.1 + 0.2 is not quite 0.3
        ([0.0, 1.0625], -10000, 0),
        ([0.0, 100 / 3], -10000, 3.3e-5),
        ([0.0, 1e6 / 3], -1000, 3.4e-4),
    ],
)
def test_the_scalar_keeps_coordinates_if_one_can(coordinates, scalar, error):
    found = Scaling.of(np.array(coordinates), "positions")
    assert found.scalar == scalar
    assert found.error == pytest.approx(error, abs=1e-6, rel=0.05)
    kept = found.integers(np.array(coordinates)) / abs(scalar)
    np.testing.assert_allclose(kept, coordinates, atol=found.error + 1e-9, rtol=0)


def test_coordinates_too_large_for_their_field_are_refused():
    with pytest.raises(FormatError, match=r"positions of up to 300000000\.3 m"):
        Scaling.of(np.array([3e8 + 0.3]), "positions")


@pytest.mark.parametrize(("value", "number"), [(4000.0, 4000), (0.1 * 3 * 10000, 3000), (32767.0, 32767)])
def test_a_whole_number_of_16_bits_is_kept(value, number):
    assert whole_number(value, "it") == number


@pytest.mark.parametrize("value", [333.3, 32768.0, 0.2, 0.0])
def test_any_other_number_is_refused(value):
    with pytest.raises(FormatError, match="it, but SEG-Y rev 1 has whole numbers from 1 to 32767"):
        whole_number(value, "it")


def test_traces_that_are_too_long_are_refused():
    check_samples(32767, "it has 32767")
    with pytest.raises(FormatError, match="it has 32768, but SEG-Y rev 1 has at most 32767 in a trace"):
        check_samples(32768, "it has 32768")


def test_a_text_header_has_40_lines_of_80_characters():
    text = text_header(["ä" * 100] * 50)
    assert len(text) == 3200
    assert [text[i : i + 4] for i in (0, 80, 3120)] == ["C 1 ", "C 2 ", "C40 "]
    assert text[4:80] == "?" * 76
    assert "SEG Y REV1" in text[3040:3120]
