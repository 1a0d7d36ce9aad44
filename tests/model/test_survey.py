"""Surveys from lines, grids and CSV files."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcfwi.config.run import Positions
from hpcfwi.errors import InputError
from hpcfwi.model.survey import Shot, build_survey, list_names, read_geometry

XZ, XYZ = ("x", "z"), ("x", "y", "z")
LINE = Positions(first=(0.0, 5.0), last=(100.0, 5.0), count=3)
TRACES = """shot,source_x,source_z,receiver_x,receiver_z
b,10,0,1,2
a,20,0,3,4
b,10,0,5,6
"""


@pytest.fixture
def csv(tmp_path):
    """Writes a CSV file and returns its path."""

    def write(text, name="positions.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_line_has_equal_distances_and_its_shots_are_numbered():
    survey = build_survey(LINE, LINE, XZ)
    assert [shot.name for shot in survey.shots] == ["0", "1", "2"]
    np.testing.assert_array_equal(survey.shots[1].source, [50.0, 5.0])
    np.testing.assert_array_equal(survey.shots[1].receivers, [[0.0, 5.0], [50.0, 5.0], [100.0, 5.0]])


def test_a_point_is_a_line_of_one():
    survey = build_survey(Positions(first=(1.0, 2.0)), LINE, XZ)
    assert len(survey) == 1
    np.testing.assert_array_equal(survey.shots[0].source, [1.0, 2.0])


def test_a_grid_runs_along_its_last_axis_first():
    grid = Positions(first=(0.0, 0.0, 5.0), last=(10.0, 20.0, 5.0), count=(2, 3, 1))
    (shot,) = build_survey(Positions(first=(1.0, 1.0, 1.0)), grid, XYZ).shots
    expected = [[x, y, 5.0] for x in (0.0, 10.0) for y in (0.0, 10.0, 20.0)]
    np.testing.assert_array_equal(shot.receivers, expected)


def test_csv_gives_names_and_positions(csv):
    sources = Positions(file=csv("shot, X ,z\n# a comment\nnorth, 1, 2\n\nsouth, 3.5, 1e2\n"))
    survey = build_survey(sources, LINE, XZ)
    assert [shot.name for shot in survey.shots] == ["north", "south"]
    np.testing.assert_array_equal(survey.shots[1].source, [3.5, 100.0])


def test_without_names_the_shots_of_a_csv_are_numbered(csv):
    survey = build_survey(Positions(file=csv("z,x\n1,2\n3,4\n")), LINE, XZ)
    assert [shot.name for shot in survey.shots] == ["0", "1"]
    np.testing.assert_array_equal(survey.shots[0].source, [2.0, 1.0])


def test_receivers_and_their_number_may_differ_from_shot_to_shot(csv):
    receivers = Positions(file=csv("shot,x,z\n2,1,1\n0,2,2\n1,3,3\n2,4,4\n"))
    survey = build_survey(LINE, receivers, XZ)
    assert [len(shot.receivers) for shot in survey.shots] == [1, 1, 2]
    np.testing.assert_array_equal(survey.shots[2].receivers, [[1.0, 1.0], [4.0, 4.0]])


def test_a_table_of_traces_gives_shots_in_the_order_in_which_they_appear(csv):
    survey = read_geometry(csv(TRACES), XZ)
    assert [shot.name for shot in survey.shots] == ["b", "a"]
    np.testing.assert_array_equal(survey.shots[0].receivers, [[1.0, 2.0], [5.0, 6.0]])


def test_a_byte_order_mark_and_an_empty_last_column_do_no_harm(csv):
    survey = build_survey(Positions(file=csv("\ufeffx,z,,\n1,2,,\n")), LINE, XZ)
    np.testing.assert_array_equal(survey.shots[0].source, [1.0, 2.0])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_spreadsheets_may_choose_separator_encoding_and_line_end(tmp_path, delimiter, encoding, end):
    path = tmp_path / "positions.csv"
    lines = ["# a; comment, of\tall", "shot,x,z", '"Süd 1",10,20.5', "", "Nord/2,30,1e1"]
    text = end.join(lines[:1] + [line.replace(",", delimiter) for line in lines[1:]]) + end
    path.write_bytes(text.encode(encoding))
    survey = build_survey(Positions(file=path), LINE, XZ)
    assert [shot.name for shot in survey.shots] == ["Süd 1", "Nord/2"]
    np.testing.assert_array_equal([shot.source for shot in survey.shots], [[10.0, 20.5], [30.0, 10.0]])


def test_between_semicolons_a_comma_is_a_decimal_comma(csv):
    text = "\ufeffsep=;\r\nShot;Source_X;Source_Z;Receiver_X;Receiver_Z\r\n1;10,5;0;1;2,25\r\n1;10,5;0;3.5;-1,5e1\r\n"
    (shot,) = read_geometry(csv(text), XZ).shots
    np.testing.assert_array_equal(shot.source, [10.5, 0.0])
    np.testing.assert_array_equal(shot.receivers, [[1.0, 2.25], [3.5, -15.0]])


def test_text_of_a_spreadsheet_with_tabs_may_have_decimal_commas(tmp_path):
    path = tmp_path / "unicode text.txt"
    path.write_text("Shot\tSource_X\tSource_Z\tReceiver_X\tReceiver_Z\n1\t10,5\t0\t1\t2,25\n", encoding="utf-16")
    (shot,) = read_geometry(path, XZ).shots
    np.testing.assert_array_equal(shot.source, [10.5, 0.0])
    np.testing.assert_array_equal(shot.receivers, [[1.0, 2.25]])


def test_text_in_another_encoding_is_refused_with_advice_on_saving_it(tmp_path):
    path = tmp_path / "positions.csv"
    path.write_bytes("shot,x,z\nSüd,1,2\n".encode("latin-1"))
    assert "is not UTF-8 text" in refused(lambda: build_survey(Positions(file=path), LINE, XZ), path)
    path.write_text(path.read_text(encoding="latin-1"), encoding="utf-8")  # the advice
    assert build_survey(Positions(file=path), LINE, XZ).shots[0].name == "Süd"


NAMES = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=100)


def file_name(name: str) -> str:
    return Shot(name, np.zeros(2), np.zeros((1, 2))).file_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("12", "12"),
        ("north_1.5-b", "north_1.5-b"),
        ("A/1", "A%2F1"),
        ("Line 3", "Line%203"),
        ("Süd", "S%C3%BCd"),
        ("..", "%2E."),
        ("-rf", "%2Drf"),
    ],
)
def test_a_file_name_is_the_name_of_the_shot_percent_encoded(name, expected):
    assert file_name(name) == expected


@settings(max_examples=500, deadline=None)
@given(st.sets(NAMES, min_size=2, max_size=4))
def test_file_names_are_safe_and_as_different_as_the_names(names):
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(names)
    for file in files:
        assert re.fullmatch(r"[A-Za-z0-9_~%][A-Za-z0-9_.~%-]*", file)
        assert len(file) <= 200


def test_long_names_that_differ_at_the_end_have_different_files():
    assert file_name("ü" * 99 + "a") != file_name("ü" * 99 + "b")


def test_shots_are_excluded_by_their_own_names(csv):
    sources = Positions(file=csv("shot,x,z\nA/1,1,2\nSüd 2,3,4\n"))
    survey = build_survey(sources, LINE, XZ)
    assert [shot.name for shot in survey.without(["A/1"]).shots] == ["Süd 2"]
    with pytest.raises(InputError, match=r"data\.exclude: there is no shot 'A%2F1'; the shots are A/1, Süd 2"):
        survey.without(["A%2F1"])
    with pytest.raises(InputError, match="leaves no shot of the survey"):
        survey.without(["A/1", "Süd 2"])


def test_a_message_about_many_names_has_the_first_ones_and_their_number():
    assert list_names(list("abcdef")) == "a, b, c, d, e, f"
    assert list_names(list("abcdefg")) == "a, b, c, d, e and 2 more"


def refused(call, path) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert str(path) in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "FILE: has no rows below its header, so the survey would be empty"),
        ("x,z\n# nothing\n\n", "FILE: has no rows below its header, so the survey would be empty"),
        ("x,depth\n1,2\n", "FILE: has no column 'z'; its header names the columns x, depth, but x, z are needed"),
        (
            "20.0,0.0\n20.0,100.0\n",
            "FILE: has no column 'x'; its header names the columns 20.0, 0.0, but x, z are needed",
        ),
        ("x,z\n1,2\n\n3\n", "FILE, line 4: has 1 columns, but the header has 2 (x, z)"),
        ("# note\n\nx,z\n1,2,3\n", "FILE, line 4: has 3 columns, but the header has 2 (x, z)"),
        ("x;z\n1,5;2,x\n", "FILE, line 2: z is '2,x'; it should be a number, in m"),
        ("x\tz\n1\t2,5,1\n", "FILE, line 2: z is '2,5,1'; it should be a number, in m"),
        ("x,z\n1,2\n3,west\n", "FILE, line 3: z is 'west'; it should be a number, in m"),
        ("x,z\n1,nan\n", "FILE, line 2: z is 'nan'; it should be a number, in m"),
        ("x,z\n,1\n", "FILE, line 2: x is ''; it should be a number, in m"),
        ("x,z,x\n1,2,3\n", "FILE, line 1: has the column 'x' more than once"),
        (
            "shot,x,z\na,1,2\nb,1,2\na,3,4\n",
            "FILE, line 4: shot 'a' already has a source; every source is a shot of its own",
        ),
        ("shot,x,z\n,1,2\n", "FILE, line 2: the shot name '' is empty"),
        ('shot,x,z\n"a\nb",1,2\n', "FILE, line 3: the shot name 'a\\nb' has control characters; use printable ones"),
        (
            "shot,x,z\n\x1b[2J,1,2\n",
            "FILE, line 2: the shot name '\\x1b[2J' has control characters; use printable ones",
        ),
        (
            f"shot,x,z\n{'a' * 101},1,2\n",
            f"FILE, line 2: the shot name '{'a' * 37}...' has 101 characters; at most 100 are possible",
        ),
    ],
)
def test_mistakes_in_a_csv_are_refused_with_file_and_line(csv, text, message):
    path = csv(text)
    assert refused(lambda: build_survey(Positions(file=path), LINE, XZ), path) == f"acquisition.sources.file: {message}"


def test_receivers_of_a_shot_that_does_not_exist_are_refused(csv):
    path = csv("shot,x,z\n0,1,1\n1,1,1\n2,1,1\n7,1,1\n")
    message = refused(lambda: build_survey(LINE, Positions(file=path), XZ), path)
    assert message == (
        "acquisition.receivers.file: FILE, line 5: has a receiver of shot '7', but the survey has no such shot; its 3 shots "
        "are 0, 1, 2"
    )


def test_a_shot_without_receivers_is_refused(csv):
    path = csv("shot,x,z\n1,1,1\n")
    message = refused(lambda: build_survey(LINE, Positions(file=path), XZ), path)
    assert message == "acquisition.receivers.file: FILE: has no receivers of shot '0' (nor of 1 more shots)"


def test_a_source_does_not_move_during_its_shot(csv):
    path = csv(TRACES + "a,21,0,3,4\n")
    message = refused(lambda: read_geometry(path, XZ), path)
    assert message == (
        "data.geometry: FILE, line 5: shot 'a' has another source position than on line 3; give every source its own shot name"
    )


def test_a_table_of_traces_needs_its_columns(csv):
    path = csv("shot,source_x,source_z,x,z\na,1,1,1,1\n")
    assert "has no column 'receiver_x'" in refused(lambda: read_geometry(path, XZ), path)
    path = csv(TRACES.replace("shot,", "name,"))
    assert "has no column 'shot'" in refused(lambda: read_geometry(path, XZ), path)


def test_missing_and_unreadable_files_are_refused(tmp_path):
    for path, message in (
        (tmp_path / "none.csv", "no such file"),
        (tmp_path, "is not a readable CSV file (Is a directory)"),
    ):
        assert refused(lambda path=path: read_geometry(path, XZ), path) == f"data.geometry: FILE: {message}"


CELLS = st.sampled_from(
    ["x", "z", "shot", "source_x", "receiver_z", "1", "nan", "1e999", "", '"', "'", "#", "a/b", "\0", "1,5"]
)
TABLES = st.builds(
    lambda rows, delimiter: "\n".join(delimiter.join(row) for row in rows),
    st.lists(st.lists(CELLS, max_size=6), max_size=6),
    st.sampled_from(",;\t"),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | TABLES.map(str.encode) | TABLES.map(lambda text: b"shot,x,z\n" + text.encode()))
def test_any_bytes_are_a_table_or_refused_with_their_name(tmp_path, content):
    path = tmp_path / "positions.csv"
    path.write_bytes(content)
    for call in (
        lambda: read_geometry(path, XZ),
        lambda: build_survey(Positions(file=path), LINE, XZ),
        lambda: build_survey(LINE, Positions(file=path), XZ),
    ):
        try:
            call()
        except InputError as error:
            message = str(error)
        else:
            message = ""
        assert not message or str(path) in message
