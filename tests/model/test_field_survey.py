"""Traces of files become shots, in any order of traces and over several files; what cannot be one survey is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from field_files import VIKING, line, survey_fields, take, write_segy

from hpcfwi.config.data import DataSection
from hpcfwi.errors import InputError
from hpcfwi.model.field_survey import check_repeated, read_field_survey
from hpcfwi.model.header_expressions import HeaderExpression
from hpcfwi.model.recorded import SegyRecordings
from hpcfwi.model.selection import killed_traces

SOURCES = [(100.0, 0.0, 5.0), (150.0, 0.0, 5.0), (200.0, 0.0, 5.0)]
RECEIVERS = [line(4), line(4, first=150), line(4, first=200)]
FIELDS = survey_fields(SOURCES, RECEIVERS)
TRACES = 12
VALUES = np.arange(TRACES)[:, None] + np.linspace(0, 0.5, 6)


def write(path, order=slice(None), fields=FIELDS):
    return write_segy(path, VALUES[order], take(fields, order))


def read(path, **headers):
    return read_field_survey(DataSection(file=path, headers=headers))


def gathers(survey) -> dict:
    """Source, receivers and first samples of each shot, with its traces in the order of the survey."""
    recordings, found = SegyRecordings(survey), {}
    for shot, name in enumerate(survey.shots.names):
        receivers = survey.positions.receivers(survey.shots.traces(shot))
        order = np.argsort(receivers[:, 0])
        values = recordings.reader(name).read(len(receivers)).values
        found[name] = (survey.sources[shot].tolist(), receivers[order].tolist(), values[0, order].tolist())
    return found


@pytest.fixture
def expected(tmp_path):
    return gathers(read(write(tmp_path / "expected.sgy")))


def test_traces_of_one_source_position_are_a_shot_named_by_its_record(tmp_path, expected):
    survey = read(write(tmp_path / "a.sgy"))
    assert survey.note == "3 shots, grouped by the position of the source and named by FieldRecord (byte 9)"
    assert survey.shots.names == ("1", "2", "3")
    assert survey.shots.sizes.tolist() == [4, 4, 4]
    np.testing.assert_array_equal(survey.sources, SOURCES)
    assert expected["2"][1] == RECEIVERS[1].tolist()
    assert expected["2"][2] == [4, 5, 6, 7]


ORDERS = {
    "backwards": np.arange(TRACES)[::-1],
    "by receiver": np.argsort(FIELDS["GroupX"], kind="stable"),
    "by offset": np.argsort(FIELDS["GroupX"] - FIELDS["SourceX"], kind="stable"),
    "any": np.random.default_rng(4).permutation(TRACES),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_any_order_of_traces_gives_the_same_shots(tmp_path, expected, order):
    assert gathers(read(write(tmp_path / "a.sgy", order))) == expected


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_shots_may_be_spread_over_several_files(tmp_path, expected, order):
    for number, rows in enumerate(np.array_split(order, 3), start=9):
        write(tmp_path / f"line{number}.sgy", rows)
    survey = read(tmp_path / "line*.sgy")
    assert [file.path.name for file in survey.headers.files] == ["line9.sgy", "line10.sgy", "line11.sgy"]
    assert gathers(survey) == expected


def test_shots_come_in_the_order_in_which_they_appear(tmp_path):
    assert read(write(tmp_path / "a.sgy", ORDERS["backwards"])).shots.names == ("3", "2", "1")


def test_a_field_may_name_the_shots(tmp_path):
    fields = FIELDS | {"EnergySourcePoint": np.repeat([1001, 1005, 1009], 4)}
    survey = read(write(tmp_path / "a.sgy", fields=fields), shot="EnergySourcePoint")
    assert survey.shots.names == ("1001", "1005", "1009")
    assert survey.note == "3 shots, grouped by EnergySourcePoint (byte 17)"


def test_shots_are_numbered_if_their_records_do_not_tell_them_apart(tmp_path):
    survey = read(write(tmp_path / "a.sgy", fields=FIELDS | {"FieldRecord": 7}))
    assert survey.shots.names == ("0", "1", "2")
    assert survey.note == "3 shots, grouped by the position of the source and numbered from 0"


@pytest.mark.parametrize(
    ("kind", "values"), [("float32", [0.1, 0.2, 1e11]), ("float64", [1234567890.1, 1234567890.2, 5.0])]
)
def test_names_of_real_numbers_are_told_apart(tmp_path, kind, values):
    path = write(tmp_path / "a.sgy")
    stored = np.array(values, kind).astype(f">f{int(kind[5:]) // 8}")
    with path.open("r+b") as file:
        for trace in range(TRACES):
            file.seek(3600 + trace * 264 + 220)
            file.write(stored[trace // 4 :][:1].tobytes())
    names = read(path, shot=f"221:{kind}", datum=0.0).shots.names
    assert len(set(names)) == 3
    assert [float(np.array(name, kind)) for name in names] == stored.tolist()


def test_a_header_that_is_the_same_in_all_traces_does_not_name_shots(tmp_path):
    path = write(tmp_path / "a.sgy", fields=FIELDS | {"FieldRecord": 7})
    with pytest.raises(InputError) as caught:
        read(path, shot="FieldRecord")
    assert str(caught.value) == (
        "data.headers.shot: FieldRecord (byte 9) is 7 in all 12 traces, whose sources are at 3 positions: (100, 0, 5) m in "
        "a.sgy, trace 1, (200, 0, 5) m in a.sgy, trace 9. Name another field, or take data.headers.shot out to group traces by "
        "the position of the source"
    )
    assert len(read(path).shots) == 3  # the advice


def test_a_shot_has_one_source(tmp_path):
    moved = np.asarray(FIELDS["SourceX"]) + 30 * (np.arange(TRACES) == 6)
    path = write(tmp_path / "a.sgy", fields=FIELDS | {"SourceX": moved})
    with pytest.raises(
        InputError,
        match=r"the traces of shot 2 \(FieldRecord \(byte 9\)\) have sources at 2 positions: \(150, .*trace 5, ",
    ):
        read(path, shot="FieldRecord")


def test_sources_of_a_shot_may_differ_by_rounding(tmp_path):
    moved = np.asarray(FIELDS["SourceX"]) + (np.arange(TRACES) == 6)
    survey = read(write(tmp_path / "a.sgy", fields=FIELDS | {"SourceX": moved}), shot="FieldRecord")
    np.testing.assert_array_equal(survey.sources, SOURCES)


def test_sources_that_differ_by_rounding_are_told_with_the_field_that_groups_them(tmp_path):
    fields = (
        FIELDS | {name: 100 * np.asarray(FIELDS[name]) for name in ("SourceX", "GroupX")} | {"SourceGroupScalar": -100}
    )
    path = write(tmp_path / "a.sgy", fields=fields | {"SourceX": fields["SourceX"] + np.tile([0, 7, -9, 1], 3)})
    survey = read(path)
    assert len(survey.shots) == 12
    assert survey.contradictions == (
        "the sources of each FieldRecord (byte 9) differ by up to 0.16 m, which makes 12 shots of 3; set data.headers.shot = "
        '"FieldRecord" if these are the shots',
    )
    mended = read(path, shot="FieldRecord")
    assert (len(mended.shots), mended.contradictions) == (3, ())


def test_a_great_many_shots_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hpcfwi.model.field_survey.MAX_SHOTS", 2)
    with pytest.raises(
        InputError, match=r"data\.file: 3 shots, grouped by .*; at most 2 are possible\. Is that the right field"
    ):
        read(write(tmp_path / "a.sgy"))


@pytest.mark.parametrize("adjacent", [True, False])
def test_a_shot_that_is_there_twice_is_refused_with_both_places(tmp_path, adjacent):
    order = [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7] if adjacent else [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]
    again = 5 if adjacent else 9
    path = write(tmp_path / "a.sgy", np.array(order))
    for headers in ({}, {"shot": "FieldRecord"}):
        with pytest.raises(
            InputError, match=rf"shot 1 is there twice: 4 of its 4 .*a\.sgy, trace 1 and in a\.sgy, trace {again}"
        ):
            check_repeated(read(path, **headers), {})


def test_a_shot_in_two_files_is_refused_with_both(tmp_path):
    write(tmp_path / "a1.sgy")
    write(tmp_path / "a2.sgy", np.arange(4, 8))
    with pytest.raises(
        InputError, match=r"shot 2 is there twice: .* in a1\.sgy, trace 5 and in a2\.sgy, trace 1; remove one"
    ):
        check_repeated(read(tmp_path / "a*.sgy"), {})


def test_two_records_from_one_place_are_two_shots_if_the_user_says_so(tmp_path):
    fields = FIELDS | {"SourceX": 150, "GroupX": np.tile(RECEIVERS[0][:, 0].astype(int), 3)}
    path = write(tmp_path / "a.sgy", fields=fields)
    with pytest.raises(InputError, match="if these are different shots") as caught:
        check_repeated(read(path), {})
    key, value = re.search(r'set data\.headers\.(\w+) = "(\w+)"', str(caught.value)).groups()
    assert read(path, **{key: value}).shots.names == ("1", "2", "3")


def test_components_of_one_receiver_are_refused_until_one_is_chosen(tmp_path):
    order = np.repeat(np.arange(12), 2)
    codes = np.tile([11, 12], 12)
    fields = {name: np.broadcast_to(values, 12)[order] for name, values in FIELDS.items()}
    path = write_segy(tmp_path / "a.sgy", np.ones((24, 8), "f4"), fields | {"TraceIdentificationCode": codes})
    survey = read(path)
    with pytest.raises(InputError, match="they are different components, of which one is used") as caught:
        check_repeated(survey, {})
    expression = re.search(r'kill=\["(.*)"\]', str(caught.value))[1]
    assert expression == "TraceIdentificationCode != 11"
    check_repeated(survey, killed_traces(survey, (HeaderExpression(expression, "data.traces.kill"),)))


def test_a_few_receivers_that_come_again_are_no_second_shot(tmp_path):
    assert read(write(tmp_path / "a.sgy", np.array([0, 1, 2, 3, 0, 4, 5, 6, 7]))).shots.sizes.tolist() == [5, 4]


# Offsets in the headers
MANY = [line(12, first=350), line(12, first=400)]


@pytest.fixture
def offsets():
    fields = survey_fields(SOURCES[:2], MANY, scalar=-100)
    return fields | {
        "offset": np.concatenate([each[:, 0] - x for each, (x, _, _) in zip(MANY, SOURCES, strict=False)]).astype(int)
    }


def test_a_scalar_that_was_applied_twice_is_found_by_the_offsets_and_the_advice_mends_it(tmp_path, offsets):
    right = read(write_segy(tmp_path / "right.sgy", np.ones((24, 5)), offsets))
    # metres, and still the scalar of centimetres
    for name in ("SourceX", "SourceY", "GroupX", "GroupY"):
        offsets[name] = offsets[name] // 100
    path = write_segy(tmp_path / "a.sgy", np.ones((24, 5)), offsets)
    with pytest.raises(
        InputError, match=r"with SourceGroupScalar = -100, distances .* are 0\.01 times the offsets"
    ) as caught:
        read(path)
    mended = float(re.search(r"Set data\.headers\.coordinate_scalar = (\S+),", str(caught.value))[1])
    assert mended == 1
    np.testing.assert_array_equal(read(path, coordinate_scalar=mended).sources, right.sources)
    as_it_is = float(re.search(r"or (\S+) if the coordinates are right", str(caught.value))[1])
    assert read(path, coordinate_scalar=as_it_is).sources[0, 0] == 1.0


def test_offsets_in_feet_or_of_another_kind_are_no_contradiction(tmp_path, offsets):
    for changed in ({"offset": 0}, {"offset": 3 * offsets["offset"]}, {"offset": -offsets["offset"]}):
        read(write_segy(tmp_path / "a.sgy", np.ones((24, 5)), offsets | changed))
    read(write_segy(tmp_path / "a.sgy", np.ones((24, 5)), offsets, binary={3255: 2}))


@pytest.mark.skipif(not VIKING.exists(), reason="needs ../shared/data")
def test_real_records_are_four_shots():
    survey = read(VIKING)
    assert survey.shots.names == ("3", "4", "5", "6")
    assert survey.shots.sizes.tolist() == [120] * 4
    assert survey.sources[:, 0].tolist() == [3237, 3262, 3287, 3312]
    assert (survey.interval, survey.samples) == (4.0, 600)
