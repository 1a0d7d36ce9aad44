"""Where sources and receivers are: lines, grids, CSV files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcfwi.config.run import Positions
from hpcfwi.errors import InputError
from hpcfwi.model.survey import build_survey, read_geometry

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
    assert survey.max_receivers == 2


def test_a_table_of_traces_gives_shots_in_the_order_in_which_they_appear(csv):
    survey = read_geometry(csv(TRACES), XZ)
    assert [shot.name for shot in survey.shots] == ["b", "a"]
    np.testing.assert_array_equal(survey.shots[0].receivers, [[1.0, 2.0], [5.0, 6.0]])


def test_a_byte_order_mark_and_an_empty_last_column_do_no_harm(csv):
    survey = build_survey(Positions(file=csv("\ufeffx,z,,\n1,2,,\n")), LINE, XZ)
    np.testing.assert_array_equal(survey.shots[0].source, [1.0, 2.0])


def refused(call, path) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert str(path) in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "FILE: has no rows below its header, so the survey would be empty"),
        ("x,z\n# nothing\n\n", "FILE: has no rows below its header, so the survey would be empty"),
        ("x,depth\n1,2\n", "FILE: has no column 'z'; its header names the columns x, depth, and x, z are needed"),
        (
            "20.0,0.0\n20.0,100.0\n",
            "FILE: has no column 'x'; its header names the columns 20.0, 0.0, and x, z are needed",
        ),
        ("x,z\n1,2\n\n3\n", "FILE, line 4: has 1 columns, the header has 2 (x, z)"),
        ("x,z\n1,2,3\n", "FILE, line 2: has 3 columns, the header has 2 (x, z)"),
        ("x,z\n1,2\n3,west\n", "FILE, line 3: z is 'west'; it should be a number, in m"),
        ("x,z\n1,nan\n", "FILE, line 2: z is 'nan'; it should be a number, in m"),
        ("x,z\n,1\n", "FILE, line 2: x is ''; it should be a number, in m"),
        ("x,z,x\n1,2,3\n", "FILE, line 1: has the column 'x' more than once"),
        ("shot,x,z\na,1,2\nb,1,2\na,3,4\n", "FILE, line 4: shot 'a' is there a second time"),
        (
            "shot,x,z\na/b,1,2\n",
            "FILE, line 2: 'a/b' is no name for a shot; letters, digits, '_', '-' and '.' may be in it",
        ),
        (
            "shot,x,z\n..,1,2\n",
            "FILE, line 2: '..' is no name for a shot; letters, digits, '_', '-' and '.' may be in it",
        ),
    ],
)
def test_mistakes_in_a_csv_are_told_with_file_and_line(csv, text, told):
    path = csv(text)
    assert refused(lambda: build_survey(Positions(file=path), LINE, XZ), path) == f"acquisition.sources.file: {told}"


def test_receivers_of_a_shot_that_does_not_exist_are_refused(csv):
    path = csv("shot,x,z\n0,1,1\n1,1,1\n2,1,1\n7,1,1\n")
    told = refused(lambda: build_survey(LINE, Positions(file=path), XZ), path)
    assert told == (
        "acquisition.receivers.file: FILE, line 5: has a receiver of shot '7', which is none of the 3 shots ('0' to '2')"
    )


def test_a_shot_without_receivers_is_refused(csv):
    path = csv("shot,x,z\n1,1,1\n")
    told = refused(lambda: build_survey(LINE, Positions(file=path), XZ), path)
    assert told == "acquisition.receivers.file: FILE: has no receivers of shot '0' (nor of 1 more shots)"


def test_a_source_does_not_move_during_its_shot(csv):
    path = csv(TRACES + "a,21,0,3,4\n")
    told = refused(lambda: read_geometry(path, XZ), path)
    assert told == "data.geometry: FILE, line 5: the source of shot 'a' is not where it is on line 3"


def test_a_table_of_traces_needs_its_columns(csv):
    path = csv("shot,source_x,source_z,x,z\na,1,1,1,1\n")
    assert "has no column 'receiver_x'" in refused(lambda: read_geometry(path, XZ), path)
    path = csv(TRACES.replace("shot,", "name,"))
    assert "has no column 'shot'" in refused(lambda: read_geometry(path, XZ), path)


def test_missing_and_unreadable_files_are_told(tmp_path):
    for path, told in ((tmp_path / "none.csv", "no such file"), (tmp_path, "is no readable CSV file (Is a directory)")):
        assert refused(lambda path=path: read_geometry(path, XZ), path) == f"data.geometry: FILE: {told}"


CELLS = st.sampled_from(
    ["x", "z", "shot", "source_x", "receiver_z", "1", "nan", "1e999", "", '"', "'", "#", "a/b", "\0"]
)
TABLES = st.lists(st.lists(CELLS, max_size=6).map(",".join), max_size=6).map("\n".join)


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
            told = str(error)
        else:
            told = ""
        assert not told or str(path) in told
