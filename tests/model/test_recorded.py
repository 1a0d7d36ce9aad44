"""Shots of field data in the model's coordinates, and their gathers: each receiver with its own trace."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
from field_files import line, survey_fields, take, write_segy

from hpcfwi.config.data import DataSection
from hpcfwi.errors import DataError, InputError
from hpcfwi.model.coordinates import Transform
from hpcfwi.model.field_survey import read_field_survey
from hpcfwi.model.recorded import RecordedShots, SegyRecordings, check_section
from hpcfwi.model.survey import Survey

SOURCES = [(100.0, 3.0, 20.0), (200.0, 3.0, 5.0)]
RECEIVERS = [line(3), line(4)]
FIELDS = survey_fields(SOURCES, RECEIVERS)
VALUES = np.arange(7)[:, None] * 100.0 + np.arange(1, 6)
FLAT = Transform.from_config(None, 2)


@pytest.fixture
def field_survey(tmp_path):
    write_segy(tmp_path / "a1.sgy", VALUES[::2], take(FIELDS, slice(None, None, 2)))
    write_segy(tmp_path / "a2.sgy", VALUES[1::2], take(FIELDS, slice(1, None, 2)), code=3)
    return read_field_survey(DataSection(file=tmp_path / "a*.sgy"))


@pytest.fixture
def shots(field_survey) -> RecordedShots:
    return RecordedShots(field_survey, FLAT, np.arange(2))


def test_shots_are_a_sequence_made_on_demand(shots):
    assert len(shots) == 2
    assert shots.names == ("1", "2")
    assert shots.receiver_counts.tolist() == [3, 4]
    assert [shot.name for shot in shots] == ["1", "2"]
    assert [shot.name for shot in shots[::-1]] == ["2", "1"]
    assert shots[-1].source.tolist() == [200, 5]
    with pytest.raises(IndexError):
        shots[2]


def test_in_3d_positions_have_y(field_survey):
    shots = RecordedShots(field_survey, Transform.from_config(None, 3), np.arange(2))
    assert shots[0].source.tolist() == [100, 3, 20]
    assert shots[0].receivers.shape == (3, 3)


def test_each_receiver_has_its_own_trace_in_whichever_file_it_is(shots, field_survey):
    first = {tuple(place): value for place, value in zip(RECEIVERS[1][:, [0, 2]].tolist(), VALUES[3:, 0], strict=True)}
    recording = SegyRecordings(field_survey).reader("2").read(4)
    assert recording.values.shape == (5, 4)
    assert (recording.interval, recording.starts.tolist()) == (2.0, [0] * 4)
    for receiver, trace in zip(shots[1].receivers, recording.values.T, strict=True):
        assert trace[0] == first[tuple(receiver)]


def test_chosen_shots_keep_chosen_receivers_also_twice(shots):
    survey = Survey(shots).keep({"2": np.array([True, False, True, True])})
    again = survey.keep({"2": np.array([False, True, True])}).without(["1"])
    whole = shots[1].receivers
    np.testing.assert_array_equal(survey.shots[1].receivers, whole[[0, 2, 3]])
    np.testing.assert_array_equal(again.shots[0].receivers, whole[[2, 3]])
    assert again.names == ("2",)
    assert again.receiver_counts.tolist() == [2]
    assert survey.shots[0].receivers.shape == (3, 2)


def test_positions_above_a_depth_are_moved_down_and_named(shots):
    assert shots.above(10.0) == (["2"], [])
    assert shots.above(30.0) == (["1", "2"], ["1", "2"])
    moved = replace(shots, minimum_depth=10.0)
    assert (moved[0].source[1], moved[1].source[1]) == (20, 10)
    assert moved[0].receivers[:, 1].tolist() == [20] * 3


def test_a_reader_goes_to_workers_without_the_headers(field_survey):
    reader = SegyRecordings(field_survey).reader("1")
    copy = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(copy.read(3).values, reader.read(3).values)
    assert len(pickle.dumps(reader)) < 3000


def test_another_number_of_traces_than_receivers_is_refused(field_survey):
    with pytest.raises(DataError, match=r"shot 1: has 3 traces in data\.file, but 4 are expected"):
        SegyRecordings(field_survey).reader("1").read(4)


def test_delays_are_those_of_the_traces(tmp_path):
    write_segy(tmp_path / "a.sgy", VALUES, FIELDS | {"DelayRecordingTime": [10, 20, 30, 40, 40, 40, 40]})
    recordings = SegyRecordings(read_field_survey(DataSection(file=tmp_path / "a.sgy")))
    assert recordings.reader("1").read(3).starts.tolist() == [10, 20, 30]
    assert recordings.reader("2").delays == 40.0
    assert recordings.reader("2").read(4).starts.tolist() == [40] * 4


def test_traces_of_files_with_different_lengths_end_with_the_shortest(tmp_path):
    write_segy(tmp_path / "a1.sgy", VALUES[:2], take(FIELDS, slice(2)))
    write_segy(tmp_path / "a2.sgy", VALUES[2:, :4], take(FIELDS, slice(2, None)))
    recordings = SegyRecordings(read_field_survey(DataSection(file=tmp_path / "a*.sgy")))
    assert recordings.reader("1").read(3).values.shape == (4, 3)


def test_a_file_that_is_gone_or_shorter_is_an_error_of_the_shot(field_survey):
    reader = SegyRecordings(field_survey).reader("2")
    path = field_survey.headers.files[1].path
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(DataError, match=r"shot 2: .*a2\.sgy: cannot be read \(it ends before trace 3\)"):
        reader.read(4)
    path.unlink()
    with pytest.raises(DataError, match=r"shot 2: .*a2\.sgy: cannot be read \(No such file"):
        reader.read(4)


def test_the_largest_distance_from_the_section_is_told_or_refused(field_survey):
    assert check_section(field_survey, FLAT) == (
        "positions lie up to 3 m beside the section and are projected onto it",
    )
    assert check_section(field_survey, replace(FLAT, ndim=3)) == ()
    with pytest.raises(InputError, match=r"lies up to 3 m beside .* \(a1\.sgy, trace 1\); at most 2 m are allowed"):
        check_section(field_survey, replace(FLAT, max_distance=2.0))
