"""The words of ``hpcfwi data info``: counts and units that a person can check."""

from __future__ import annotations

import numpy as np
import pytest
from field_files import line, survey_fields, write_segy

from hpcfwi.config.data import DataSection
from hpcfwi.model.field_survey import read_field_survey
from hpcfwi.model.grid import Domain
from hpcfwi.model.survey import Shot, Survey
from hpcfwi.model.survey_statistics import GatherStatistics, survey_statistics
from hpcfwi.reporting.survey_text import file_rows, gather_rows, model_rows, survey_rows, time_rows

DOMAIN = Domain((31, 21), (20.0, 20.0), (0.0, 0.0))  # 600 m x 400 m
CUBE = Domain((31, 11, 21), (20.0, 20.0, 20.0), (0.0, 0.0, 0.0))


def flat(*shots) -> Survey:
    """Shots with a source and receivers in x and z."""
    return Survey(
        tuple(
            Shot(str(i), np.array(source, float), np.array(spread, float)) for i, (source, spread) in enumerate(shots)
        )
    )


def test_a_survey_inside_the_model_needs_two_lines():
    rows = list(model_rows(flat(((0, 0), [(600, 400), (20, 20)])), DOMAIN))
    assert rows == [("model", "x 0 to 600 m, z 0 to 400 m"), ("", "2 traces, all inside")]


def test_each_side_of_the_model_counts_its_sources_and_receivers():
    survey = flat(((10, 10), [(-5, 10), (700, 10), (700, 500)]), ((10, -20), [(20, 20), (30, 20)]))
    rows = [text for _, text in model_rows(survey, DOMAIN)]
    assert rows[1] == "5 of 5 traces outside:"
    assert rows[2:] == [
        "  x below 0 m: 1 receiver",
        "  z below 0 m: 1 source",
        "  x above 600 m: 2 receivers",
        "  z above 400 m: 1 receiver",
    ]


def test_rounding_at_the_edge_is_inside_as_in_a_run():
    survey = flat(((-1e-6, 0), [(600 + 1e-6, 400)]))
    assert list(model_rows(survey, DOMAIN))[1] == ("", "1 trace, all inside")


def test_a_3d_model_has_three_axes():
    shots = (Shot("1", np.array([0.0, 300.0, 0.0]), line(3)),)
    rows = [text for _, text in model_rows(Survey(shots), CUBE)]
    assert rows == [
        "x 0 to 600 m, y 0 to 200 m, z 0 to 400 m",
        "3 of 3 traces outside:",
        "  y above 200 m: 1 source",
    ]


def test_traces_outside_are_those_that_a_run_leaves_out():
    rng = np.random.default_rng(0)
    survey = flat(*((rng.uniform(-50, 650, 2), rng.uniform(-50, 650, (40, 2))) for _ in range(5)))
    expected = sum(
        int((~(DOMAIN.contains(shot.receivers) & DOMAIN.contains(shot.source[None])[0])).sum()) for shot in survey.shots
    )
    assert f"{expected} of 200 traces outside:" in [text for _, text in model_rows(survey, DOMAIN)]


def test_a_crooked_survey_has_no_line_and_a_straight_one_says_how_to_project_it():
    def rows(sources):
        survey = Survey(tuple(Shot(str(i), np.array(p, float), line(5)) for i, p in enumerate(sources)))
        return dict(survey_rows(survey_statistics(survey), np.array(sources, float)))

    straight = rows([(100 * i, 100 * i, 5) for i in range(5)])
    assert "of a straight line: --set data.transform" in straight["line"]
    assert "line" not in rows([(0, 0, 5), (100, 300, 5), (200, 0, 5)])
    assert "line" not in rows([(0, 0, 5)])


def test_extents_have_one_number_where_nothing_varies():
    survey = flat(((10, 5), [(0, 5), (50, 5), (100, 5)]))
    rows = dict(survey_rows(survey_statistics(survey), np.array([[10.0, 5.0]])))
    assert rows["traces"] == "3, 3 a shot"
    assert rows["sources"] == "x 10 m, z 5 m"
    assert rows["receivers"] == "x 0 to 100 m, z 5 m; 50 m apart"
    assert rows["offsets"] == "10 to 90 m"
    assert rows["fold"] == "1 in the middle, 1 at most, in cells of 25 m"


def test_the_longest_bar_belongs_to_the_most_traces():
    survey = flat(((0, 0), [(i, 0) for i in (1, 2, 3, 95)]))
    bars = {name.strip(): text for name, text in survey_rows(survey_statistics(survey), np.zeros((1, 2)))}
    assert bars["0 to 10 m"] == "█" * 24 + " 3"
    assert bars["90 to 100 m"] == "█" * 8 + " 1"
    assert bars["10 to 20 m"].strip() == "0"


@pytest.fixture
def survey(tmp_path):
    """Makes the survey of some files of three shots each."""

    def make(files: int = 1):
        for number in range(files):
            sources = [(100.0 + 1000 * number, 0.0, 20.0), (200.0 + 1000 * number, 0.0, 20.0)]
            fields = survey_fields(sources, [line(5)] * 2)
            fields["FieldRecord"] = fields["FieldRecord"] + 10 * number
            values = np.random.default_rng(number).normal(size=(10, 151))
            write_segy(tmp_path / f"a{number}.sgy", values, fields)
        return read_field_survey(DataSection(file=tmp_path / "a*.sgy"))

    return make


def test_a_file_is_told_with_its_format_and_size(survey):
    rows = list(file_rows(survey()))
    assert rows[0][0] == "a0.sgy"
    assert "10 traces of 151 samples, 0.01204 MB" in rows[0][1]
    assert rows[-1][0] == "shots"


def test_of_many_files_five_are_told(survey):
    rows = list(file_rows(survey(7)))
    assert [name for name, _ in rows] == [*(f"a{i}.sgy" for i in range(5)), "and 2 more", "shots"]
    assert rows[5][1].startswith("70 traces, ")


def test_the_time_of_the_first_sample_is_told_unless_it_is_zero(survey):
    ((_, plain),) = time_rows(survey(), (0.0, 0.0))
    assert plain == "151 samples every 2 ms: 300 ms, up to 250 Hz"
    ((_, late),) = time_rows(survey(), (-4.0, 8.0))
    assert late == plain + "; the first at -4 to 8 ms after the shot"


def test_broken_traces_have_numbers_from_1():
    broken = {"dead": np.array([0, 1, 2]), "spiky": np.array([7])}
    (row,) = gather_rows([GatherStatistics("9", 1.5, 20.0, 12.5, (3.0, 40.0), 10, broken)])
    assert row == ("9", "10", "1.5", "20", "12.5 Hz", "3 to 40 Hz", "dead: 1-3; spiky: 8")
    (sound,) = gather_rows([GatherStatistics("9", 1.5, 20.0, 12.5, (3.0, 40.0), 10, {})])
    assert sound[-1] == "none"
