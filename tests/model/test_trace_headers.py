"""Positions and times from trace headers: scalars, units, elevations, delays, and headers that contradict each other."""

from __future__ import annotations

import numpy as np
import pytest
from field_files import VIKING, line, survey_fields, take, write_segy

from hpcfwi.config.data import DataSection
from hpcfwi.errors import InputError
from hpcfwi.model.trace_headers import Positions, check_headers, find_files, read_headers, time_sampling

SOURCES, RECEIVERS = [(100.0, 20.0, 5.0), (150.0, 20.0, 5.0)], [line(3), line(3)]
FIELDS = survey_fields(SOURCES, RECEIVERS)
ALL = np.arange(6)


def written(folder, fields=FIELDS, name="a.sgy", samples=10, **options):
    return write_segy(folder / name, np.ones((6, samples)), fields, **options)


def positions(path, **headers) -> Positions:
    data = DataSection(file=path, headers=headers)
    return Positions.of(read_headers(data), data.headers)


@pytest.mark.parametrize("scalar", [0, 1, 10, -10, -100])
def test_scalars_of_the_standard_multiply_or_divide(tmp_path, scalar):
    """Positions are the same whatever scalar they were written with; 0 is 1."""
    sources, receivers = [(100.0, 20.0, 10.0), (150.0, 20.0, 10.0)], [line(3)] * 2
    found = positions(written(tmp_path, survey_fields(sources, receivers, scalar)))
    np.testing.assert_array_equal(found.sources(ALL), np.repeat(sources, 3, axis=0))
    np.testing.assert_array_equal(found.receivers(ALL), np.concatenate(receivers))


def test_hundredths_are_the_nearest_numbers(tmp_path):
    fields = FIELDS | {"SourceX": 123, "SourceGroupScalar": -100}
    assert positions(written(tmp_path, fields)).sources(ALL[:1])[0, 0] == 1.23


def test_scalars_may_differ_between_traces(tmp_path):
    fields = FIELDS | {"GroupX": [5, 50, 500, 5, 50, 500], "SourceGroupScalar": [100, 10, 1, 100, 10, 0]}
    assert positions(written(tmp_path, fields)).receivers(ALL)[:, 0].tolist() == [500.0] * 6


def test_given_scalars_replace_those_of_the_headers(tmp_path):
    found = positions(written(tmp_path), coordinate_scalar=0.5, elevation_scalar=2.0)
    np.testing.assert_array_equal(found.sources(ALL[:1]), [[50.0, 10.0, 10.0]])


@pytest.mark.parametrize(("unit", "metres"), [("m", 1.0), ("ft", 0.3048), ("us-ft", 1200 / 3937)])
def test_feet_become_metres(tmp_path, unit, metres):
    found = positions(written(tmp_path), unit=unit)
    np.testing.assert_allclose(found.sources(ALL[:1]), metres * np.array([[100.0, 20.0, 5.0]]), rtol=1e-15)


def test_the_binary_header_may_say_feet_but_the_user_knows_better(tmp_path):
    path = written(tmp_path, binary={3255: 2})
    assert positions(path).sources(ALL)[0, 0] == pytest.approx(30.48)
    assert positions(path, unit="m").sources(ALL)[0, 0] == 100.0


def test_files_of_one_survey_may_have_different_units(tmp_path):
    written(tmp_path, binary={3255: 1}, name="a1.sgy")
    written(tmp_path, binary={3255: 2}, name="a2.sgy")
    found = positions(tmp_path / "a*.sgy").sources(np.array([0, 6]))
    np.testing.assert_allclose(found[:, 0], [100.0, 30.48])


def test_elevations_grow_upwards_and_the_datum_is_the_elevation_of_z_0(tmp_path):
    fields = FIELDS | {"SourceSurfaceElevation": 300, "SourceDepth": 4, "ReceiverGroupElevation": 310}
    path = written(tmp_path, fields)
    found = positions(path, datum=350.0)
    assert found.sources(ALL)[0, 2] == 350 - 300 + 4
    assert found.receivers(ALL)[0, 2] == 350 - 310
    assert positions(path, elevations="down").receivers(ALL)[0, 2] == 310
    assert positions(path, receiver_depth="SourceDepth").receivers(ALL)[0, 2] == -310 + 4
    assert positions(path, receiver_elevation=None).receivers(ALL)[0, 2] == 0


def test_a_position_of_zero_has_no_sign(tmp_path):
    found = positions(written(tmp_path, FIELDS | {"ReceiverGroupElevation": 0})).receivers(ALL)
    assert not np.signbit(found).any()


def test_other_fields_may_hold_the_coordinates(tmp_path):
    path = written(tmp_path, FIELDS | {"CDP_X": np.arange(6)})
    assert positions(path, receiver_x=181).receivers(ALL)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_delays_have_a_scalar_of_their_own_or_are_given(tmp_path):
    path = written(tmp_path, FIELDS | {"DelayRecordingTime": [100, -50, 0, 8, 9, 10], "ScalarTraceHeader": -10})
    assert positions(path).delays(ALL).tolist() == [10, -5, 0, 0.8, 0.9, 1.0]
    assert positions(path, delay=2.5).delays(ALL).tolist() == [2.5] * 6


# What headers contradict
def notes(path, **headers):
    return check_headers(positions(path, **headers))


def test_headers_without_positions_are_refused_with_the_keys(tmp_path):
    nowhere = dict.fromkeys(("SourceX", "SourceY", "GroupX", "GroupY"), 0)
    with pytest.raises(InputError, match=r"SourceX \(byte 73\), .* are 0 in all 6 traces: .*data\.headers\.source_x"):
        notes(written(tmp_path, FIELDS | nowhere))
    for end in ("Source", "Group"):
        path = written(tmp_path, FIELDS | {f"{end}X": 0, f"{end}Y": 0})
        what = "source" if end == "Source" else "receiver"
        with pytest.raises(
            InputError, match=rf"no positions of {what}s.* data\.headers\.{what}_x and data\.headers\.{what}_y"
        ):
            notes(path)


def test_seconds_of_arc_are_refused_with_the_way_out(tmp_path):
    arc = {"SourceX": 36_000, "SourceY": 180_000, "GroupX": 36_010, "GroupY": 180_010, "CoordinateUnits": 2}
    path = written(tmp_path, FIELDS | arc)
    with pytest.raises(
        InputError, match=r"CoordinateUnits \(byte 89\) is 2 \(seconds of arc\), x goes up to 36010 and y to"
    ) as told:
        notes(path)
    assert 'data.headers.unit = "m"' in str(told.value)
    assert notes(path, unit="m") == ()


def test_lengths_whose_unit_is_said_to_be_degrees_are_told(tmp_path):
    path = written(tmp_path, FIELDS | {"CoordinateUnits": 3, "GroupX": 3312})
    (note,) = notes(path)
    assert note == (
        "CoordinateUnits (byte 89) is 3 (degrees), x goes up to 3312 and y to 20; they are taken as lengths in m "
        "(data.headers.unit)"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_fields_of_another_type_than_was_said_are_refused(tmp_path, value):
    path = written(tmp_path)
    with path.open("r+b") as file:
        file.seek(3600 + 2 * 280 + 180)
        file.write(np.array(value, ">f4").tobytes())
    for key in ("source_x", "receiver_y", "source_depth"):
        with pytest.raises(InputError, match=rf"byte 181:float32 holds numbers that are NaN.*\(data\.headers\.{key}\)"):
            notes(path, **{key: "181:float32"})


def sampling(path, **data):
    section = DataSection(file=path, **data)
    return time_sampling(read_headers(section), section)


def test_the_interval_of_the_trace_headers_comes_before_that_of_the_binary_header(tmp_path):
    assert sampling(written(tmp_path)) == (2.0, 10, ())
    interval, _, (note,) = sampling(written(tmp_path, FIELDS | {"TRACE_SAMPLE_INTERVAL": 4000}))
    assert interval == 4.0
    assert note == (
        "sample interval: the trace headers say 4000 µs, the binary header 2000 µs; 4 ms are used. Set data.sample_interval if "
        "that is wrong"
    )


@pytest.mark.parametrize("in_traces", [0, [2000, 4000, 2000, 2000, 2000, 2000]])
def test_trace_headers_that_say_nothing_or_disagree_leave_it_to_the_binary_header(tmp_path, in_traces):
    interval, _, told = sampling(written(tmp_path, FIELDS | {"TRACE_SAMPLE_INTERVAL": in_traces}))
    assert interval == 2.0
    assert [note[:60] for note in told] == ["sample interval: the trace headers say 2000 to 4000 µs, the b"[:60]][
        : len(told)
    ]
    assert bool(told) == (in_traces != 0)


def test_no_interval_at_all_and_several_are_refused_and_the_user_may_know_one(tmp_path):
    none = written(tmp_path, FIELDS | {"TRACE_SAMPLE_INTERVAL": 0}, binary={3217: 0})
    with pytest.raises(
        InputError, match=r"the trace headers say nothing, the binary header nothing\. If .*set data\.sample_int"
    ):
        sampling(none)
    assert sampling(none, sample_interval=1.5) == (1.5, 10, ())
    written(tmp_path, name="b1.sgy")
    written(tmp_path, name="b2.sgy", interval_us=4000)
    with pytest.raises(InputError, match=r"2000 to 4000 µs, .*several intervals cannot be read together"):
        sampling(tmp_path / "b*.sgy")


@pytest.mark.parametrize(("microseconds", "asked"), [(2300, 2.3), (1100, 1.1), (2000, 2.0)])
def test_a_given_interval_that_is_also_in_the_headers_needs_no_word(tmp_path, microseconds, asked):
    assert sampling(written(tmp_path, interval_us=microseconds), sample_interval=asked)[2] == ()
    path = written(tmp_path, interval_us=microseconds)
    _, _, (note,) = sampling(path, sample_interval=7.0)
    assert note.endswith("7 ms are used (data.sample_interval)")


def test_files_of_different_lengths_are_read_as_far_as_the_shortest(tmp_path):
    written(tmp_path, name="a1.sgy", samples=10)
    written(tmp_path, name="a2.sgy", samples=12)
    _, samples, told = sampling(tmp_path / "a*.sgy")
    assert samples == 10
    assert "a2.sgy has 12 samples a trace; 10, as in the shortest file, are used" in told


def test_trace_headers_with_several_counts_are_told(tmp_path):
    counts = [10, 10, 9, 10, 10, 10]
    _, samples, (note,) = sampling(written(tmp_path, FIELDS | {"TRACE_SAMPLE_COUNT": counts}))
    assert samples == 10
    assert note.startswith("the trace headers count from 9 to 10 samples a trace; all are read as 10")


# Files and patterns
def test_a_pattern_gives_files_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 9, 1, 100):
        written(tmp_path, name=f"line{number}.sgy")
    (tmp_path / "line2.txt").write_text("no")
    found = find_files([tmp_path / "line*.sgy"])
    assert [path.name for path in found] == ["line1.sgy", "line9.sgy", "line10.sgy", "line100.sgy"]
    assert [path.name for path in find_files([tmp_path / "line[19].s*"])] == ["line1.sgy", "line9.sgy"]


def test_a_file_whose_name_looks_like_a_pattern_is_found(tmp_path):
    path = written(tmp_path, name="line[1].sgy")
    assert find_files([path]) == (path,)


def test_a_file_named_twice_is_refused_by_whatever_names(tmp_path):
    path = written(tmp_path)
    (tmp_path / "same.sgy").symlink_to(path)
    for names in ([path, path], [path, tmp_path / "same.sgy"], [tmp_path / "*.sgy"], [path, tmp_path / "a*.sgy"]):
        with pytest.raises(InputError, match=r"data\.file: .*a\.sgy is there 2 times; name each file once"):
            find_files(names)


@pytest.mark.parametrize("pattern", ["b*.sgy", "none/a*.sgy", "[.sgy", "x?.su"])
def test_a_pattern_without_a_match_is_refused(tmp_path, pattern):
    written(tmp_path)
    with pytest.raises(InputError, match=r"data\.file: (no file matches )?.*/"):
        find_files([tmp_path / pattern])


def test_a_link_to_itself_is_refused_when_it_is_read(tmp_path):
    (tmp_path / "loop.sgy").symlink_to("loop.sgy")
    with pytest.raises(InputError, match=r"loop\.sgy: cannot be read"):
        read_headers(DataSection(file=tmp_path / "loop.sgy"))


def test_traces_are_numbered_over_all_files(tmp_path):
    for name, first in (("a1.sgy", 0), ("a2.sgy", 4)):
        rows = np.arange(first, min(first + 4, 6))
        write_segy(tmp_path / name, np.ones((len(rows), 10)), take(FIELDS, rows))
    headers = read_headers(DataSection(file=tmp_path / "a*.sgy"))
    assert len(headers) == 6
    field = headers.roles["receiver_x"]
    order = np.array([5, 0, 4, 1])
    assert headers.take(field, order).tolist() == np.asarray(FIELDS["GroupX"])[order].tolist()
    assert headers.take(field, order[:0]).shape == (0,)
    assert headers.place(4) == "a2.sgy, trace 1"
    assert headers.range(field) == (100.0, 200.0)
    assert [chunk.tolist() for chunk in headers.chunks()] == [[0, 1, 2, 3], [4, 5]]


@pytest.mark.skipif(not VIKING.exists(), reason="needs ../shared/data")
def test_the_oddities_of_real_records_are_told():
    told = notes(VIKING)
    assert "viking_small.segy: the binary header says 600 samples a trace, the first trace header 1500" in told[0]
    assert told[1].startswith(
        "CoordinateUnits (byte 89) is 3 (degrees), x goes up to 3312 and y to 0; they are taken as"
    )
    assert positions(VIKING).sources(np.arange(1)).tolist() == [[3237.0, 0.0, 6.0]]
