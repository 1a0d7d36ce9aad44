"""The survey of a configuration with field data: where it lies in the model, and what is used of it.

Advice of messages is followed here, word for word.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from field_files import VIKING, advised, line, load_field, survey_fields, take, write_segy

from hpcfwi.errors import DataError, InputError
from hpcfwi.formats.segy import file_stamp

SOURCES = [(100.0, 0.0, 20.0), (200.0, 0.0, 20.0), (300.0, 0.0, 20.0)]
RECEIVERS = [line(5)] * 3
FIELDS = survey_fields(SOURCES, RECEIVERS)
VALUES = np.random.default_rng(0).normal(size=(15, 151))
CUBE = ("grid.shape=[31,31,31]", "grid.spacing=[20,20,20]")


@pytest.fixture
def problem(tmp_path):
    """Makes the problem of a survey with these header fields."""

    def make(*settings, fields=FIELDS, **options):
        write_segy(tmp_path / "a.sgy", VALUES, fields, **options)
        return load_field(tmp_path, *settings)

    return make


def rotated(fields, azimuth, origin, beside=0.0):
    """Fields of the same survey along a line in another direction, scaled to centimetres."""
    angle, out = np.radians(azimuth), dict(fields) | {"SourceGroupScalar": -100}
    for end in ("Source", "Group"):
        x, y = np.asarray(fields[f"{end}X"], float), np.asarray(fields[f"{end}Y"], float) + beside
        out[f"{end}X"] = np.rint(100 * (origin[0] + x * np.sin(angle) - y * np.cos(angle))).astype(int)
        out[f"{end}Y"] = np.rint(100 * (origin[1] + x * np.cos(angle) + y * np.sin(angle))).astype(int)
    return out


def test_survey_interval_and_length_of_the_records_are_those_of_the_file(problem):
    found = problem()
    assert found.survey.names == ("1", "2", "3")
    assert (found.config.data.recording_time, found.config.data.sample_interval) == (300.0, 2.0)
    assert found.recording.samples == 151
    shot = found.survey.shots[1]
    np.testing.assert_array_equal(shot.source, [200, 20])
    np.testing.assert_array_equal(shot.receivers, line(5)[:, [0, 2]])
    assert found.observations.notes == (
        "3 shots, grouped by the position of the source and named by FieldRecord (byte 9)",
    )


def test_a_shorter_recording_time_cuts_the_records_and_a_longer_one_is_refused(problem):
    assert problem("data.recording_time=200").recording.samples == 101
    with pytest.raises(
        InputError, match=r"data\.recording_time: is 400 ms, but the records .* end at 300 ms \(151 samples of 2 ms"
    ):
        problem("data.recording_time=400")


def test_delays_make_records_begin_later(problem):
    assert problem(fields=FIELDS | {"DelayRecordingTime": 100}).config.data.recording_time == 400
    assert problem(fields=FIELDS | {"DelayRecordingTime": [100, 50, *[200] * 13]}).config.data.recording_time == 350
    assert problem("data.headers.delay=0", fields=FIELDS | {"DelayRecordingTime": 100}).recording.samples == 151


# Where the survey lies
@pytest.mark.parametrize("azimuth", [90, 270, 30])
def test_a_2d_line_in_millions_with_a_model_of_its_own_size(problem, azimuth):
    """The first message is about the section, and what it advises puts the survey into the model."""
    fields = rotated(FIELDS, azimuth, (431_000, 6_780_000))
    with pytest.raises(InputError, match=r"data\.transform: the survey lies up to .* beside the section") as caught:
        problem(fields=fields)
    settings = advised(str(caught.value))
    found = problem(*settings, fields=fields)
    assert ["azimuth" in setting for setting in settings] == ([False] if azimuth == 90 else [False, True])
    shots = found.survey.shots
    np.testing.assert_allclose(shots[2].source[0] - shots[0].source[0], 200, atol=0.1)
    assert 0.9 <= min(shot.receivers[:, 0].min() for shot in shots) <= 2.1


def test_a_crooked_line_is_projected_as_far_as_the_user_allows(problem):
    fields = FIELDS | {"SourceY": np.repeat([0, 170, 0], 5)}
    with pytest.raises(InputError, match=r"at most 100 m are allowed") as caught:
        problem(fields=fields)
    settings = advised(str(caught.value))
    assert settings[-1].startswith("data.transform.max_distance=")
    assert "if it may be projected that far" in str(caught.value)
    found = problem(*settings, fields=fields)
    assert re.match(r"positions lie up to 1\d\d\.?\d* m beside the section", found.observations.notes[-1])


@pytest.mark.parametrize("settings", [(), CUBE], ids=["2D", "3D"])
@pytest.mark.parametrize("azimuth", [90, 60])
def test_coordinates_in_millions_are_refused_and_the_advice_moves_them_into_the_model(problem, settings, azimuth):
    if not settings and azimuth != 90:
        settings = ("data.transform.azimuth=60", "data.transform.max_distance=1e8")
    fields = (
        rotated(FIELDS, azimuth, (4_310_000, 0)) if azimuth == 90 else rotated(FIELDS, azimuth, (431_000, 6_780_000))
    )
    given = (*settings, f"data.transform.azimuth={azimuth}") if settings else ()
    with pytest.raises(
        InputError, match=r"data\.file: 3 of 3 sources and 15 of 15 receivers lie outside the model"
    ) as caught:
        problem(*given, fields=fields)
    assert "The survey covers x " in str(caught.value)
    found = problem(*given, *advised(str(caught.value)), fields=fields)
    low = min(min(shot.receivers[:, 0].min(), shot.source[0]) for shot in found.survey.shots)
    high = max(max(shot.receivers[:, 0].max(), shot.source[0]) for shot in found.survey.shots)
    assert low == pytest.approx(600 - high, abs=0.2)  # in the middle
    assert high - low == pytest.approx(200, abs=0.2)


def test_a_model_that_is_too_small_is_refused_with_the_shape_that_it_needs(problem):
    fields = FIELDS | {"GroupX": np.tile([0, 1000, 2000, 3000, 4000], 3)}
    with pytest.raises(
        InputError,
        match=r"12 of 15 receivers lie outside .*x 0 to 600 m, z 0 to 600 m\. The survey covers x 0 to 4000 m",
    ) as caught:
        problem(fields=fields)
    size = int(re.search(r"larger grid\.shape\[0\], at least (\d+)", str(caught.value))[1])
    assert problem(f"grid.shape=[{size},31]", fields=fields).survey.receiver_counts.sum() == 15
    (drop,) = advised(str(caught.value))
    assert problem(drop, fields=fields).survey.receiver_counts.sum() == 3


def test_land_above_the_datum_is_refused_and_the_advice_is_a_datum(problem):
    fields = FIELDS | {"SourceSurfaceElevation": 310, "ReceiverGroupElevation": 300}
    with pytest.raises(
        InputError, match=r"z lies above the model: set data\.headers\.datum to the elevation"
    ) as caught:
        problem(fields=fields)
    datum = float(re.search(r"\((\S+) m more than it is\)", str(caught.value))[1])
    assert datum == 300
    assert problem(f"data.headers.datum={datum}", fields=fields).survey.shots[0].source[1] == 10
    (moved,) = advised(str(caught.value))
    assert problem(moved, fields=fields).survey.shots[0].source[1] == 0


def test_depths_that_are_called_elevations_are_refused_by_the_sign(problem):
    fields = FIELDS | {"ReceiverGroupElevation": 20}
    with pytest.raises(InputError, match="z lies above the model"):
        problem(fields=fields)
    assert problem('data.headers.elevations="down"', fields=fields).survey.shots[0].receivers[0, 1] == 20
    with pytest.raises(
        InputError, match=r"z lies below the model: do data\.headers\.elevations and datum have the right sign"
    ):
        problem(fields=FIELDS | {"ReceiverGroupElevation": -5000, "SourceDepth": 4900})


def test_a_free_surface_needs_positions_below_it(problem):
    fields = FIELDS | {"ReceiverGroupElevation": 0}
    with pytest.raises(DataError, match=r"shot 1: receiver 1 \(and 4 more\) is on the free surface") as caught:
        problem("solver.free_surface=true", fields=fields)
    found = problem("solver.free_surface=true", *advised(str(caught.value)), fields=fields)
    assert found.survey.shots[0].receivers[0, 1] == 10
    assert any(
        warning == "acquisition.minimum_depth: moved receivers of 3 shots (1, 2, 3) down to 10 m"
        for warning in found.warnings
    )


# What is used
OUTSIDE = FIELDS | {"GroupX": np.concatenate([np.tile(line(5)[:, 0], 2), [100, 150, 700, 800, 900]]).astype(int)}


def test_traces_outside_are_refused_dropped_or_dropped_up_to_a_share(problem):
    with pytest.raises(InputError, match=r"0 of 3 sources and 3 of 15 receivers lie outside the model") as caught:
        problem(fields=OUTSIDE)
    (drop,) = advised(str(caught.value).partition("leave such traces out")[2])
    found = problem(drop, fields=OUTSIDE)
    assert found.survey.receiver_counts.tolist() == [5, 5, 2]
    assert found.observations.selection.left_out == {"3": {"outside": (3, 4, 5)}}
    assert "data.traces: 3 of 15 traces are left out: they are outside the model" in found.warnings
    assert problem("data.traces.outside=0.2", fields=OUTSIDE).survey.names == ("1", "2", "3")
    with pytest.raises(
        InputError, match=r"3 of 15 traces are outside the model, a share of 0\.2, but 0\.19 is allowed"
    ):
        problem("data.traces.outside=0.19", fields=OUTSIDE)


def test_a_shot_whose_source_is_outside_is_left_out(problem):
    gone = problem("data.traces.outside=drop", fields=FIELDS | {"SourceX": np.repeat([100, 200, -50], 5)})
    assert gone.survey.names == ("1", "2")
    assert gone.observations.selection.left_out == {"3": {"outside": (1, 2, 3, 4, 5)}}
    assert any("1 of 3 shots are left out (3): their source or all their receivers" in w for w in gone.warnings)


def test_if_everything_is_outside_no_shot_is_left_and_the_advice_helps(problem):
    fields = FIELDS | {"SourceX": FIELDS["SourceX"] + 10**6, "GroupX": FIELDS["GroupX"] + 10**6}
    with pytest.raises(InputError, match=r"no shot of the 3 is left: 15 of 15 traces are outside the model") as caught:
        problem("data.traces.outside=drop", fields=fields)
    assert len(problem("data.traces.outside=drop", *advised(str(caught.value)), fields=fields).survey) == 3


def test_killed_traces_are_counted_and_a_list_that_kills_all_says_so(problem):
    found = problem('data.traces.kill=["FieldRecord == 2 and TraceNumber in [1, 5]", "abs(offset) > 1e6"]')
    assert found.survey.receiver_counts.tolist() == [5, 3, 5]
    assert found.observations.selection.left_out == {"2": {"killed": (1, 5)}}
    np.testing.assert_array_equal(found.survey.shots[1].receivers[:, 0], [150, 200, 250])
    with pytest.raises(
        InputError, match=r"no shot of the 3 is left: 0 of 15 traces are outside the model, and 15 are on your list"
    ) as caught:
        problem('data.traces.kill=["TraceNumber > 0"]')
    assert "origin" not in str(caught.value)


def test_weights_of_excluded_shots_do_no_harm(problem, tmp_path):
    (tmp_path / "w.csv").write_text("shot,trace,weight\n1,2,0\n2,1,0.25\n3,1,0\n")
    settings = (f"data.traces.weights={tmp_path}/w.csv", 'data.exclude=["3"]')
    found = problem(*settings)
    assert found.survey.receiver_counts.tolist() == [4, 5]
    data = found.observations.shot_data("2")
    assert data.weights.tolist() == [0.25, 1, 1, 1, 1]
    assert found.observations.shot_data("1").kept.tolist() == [True, False, True, True, True]


def test_other_weights_are_another_problem(problem, tmp_path):
    digests = set()
    for text in ("shot,trace,weight\n1,2,0.5\n", "shot,trace,weight\n1,2,0.25\n", "shot,trace,weight\n1,3,0.25\n"):
        (tmp_path / "w.csv").write_text(text)
        digests.add(problem(f"data.traces.weights={tmp_path}/w.csv").digest)
    assert len(digests) == 3


def test_a_survey_of_several_files_has_an_identity_by_their_names(problem, tmp_path):
    for name, rows in (("b.sgy", range(5)), ("c.sgy", range(5, 15))):
        write_segy(tmp_path / name, VALUES[rows], take(FIELDS, rows))
    found = problem(f'data.file=["{tmp_path}/b.sgy", "{tmp_path}/c.sgy"]')
    assert found.identity["data"]["file"] == ["b.sgy", "c.sgy"]
    assert found.observations.stamp() == (file_stamp(tmp_path / "b.sgy"), file_stamp(tmp_path / "c.sgy"))
    pattern = problem(f"data.file={tmp_path}/[bc].sgy")
    assert pattern.survey.names == found.survey.names
    assert pattern.identity["digests"] == found.identity["digests"]


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("data.transform.azimuth=0", "data.transform"),
        ('data.traces.kill=["FieldRecord == 1"]', "data.traces.kill"),
        ("data.headers.datum=3", "data.headers"),
    ],
)
def test_keys_about_headers_are_refused_without_headers(make_problem, tmp_path, setting, key):
    with pytest.raises(InputError, match=rf"{key}: goes with trace headers, but data\.file is not SEG-Y"):
        make_problem(f"data.file={tmp_path}", setting)


def test_folders_of_arrays_have_their_traces_selected_too(make_problem, tmp_path):
    (tmp_path / "w.csv").write_text("shot,trace\n1,20\n1,19\n")
    (tmp_path / "gathers").mkdir()
    for shot in range(3):
        np.save(tmp_path / "gathers" / f"{shot}.npy", np.random.default_rng(shot).normal(size=(76, 20)))
    found = make_problem(f"data.file={tmp_path}/gathers", f"data.traces.weights={tmp_path}/w.csv")
    assert found.survey.receiver_counts.tolist() == [20, 18, 20]
    np.save(tmp_path / "gathers" / "0.npy", np.zeros((76, 18)))
    with pytest.raises(DataError, match=r"shot 0: .*\(76, 18\), but \(samples, receivers\) should be \(76, 20\)"):
        make_problem(f"data.file={tmp_path}/gathers")


def test_a_shot_that_is_left_out_needs_no_gather(make_problem, tmp_path):
    (tmp_path / "w.csv").write_text("shot,trace\n" + "".join(f"1,{trace}\n" for trace in range(1, 21)))
    (tmp_path / "gathers").mkdir()
    for shot in (0, 2):
        np.save(tmp_path / "gathers" / f"{shot}.npy", np.zeros((76, 20)))
    assert make_problem(f"data.file={tmp_path}/gathers", f"data.traces.weights={tmp_path}/w.csv").survey.names == (
        "0",
        "2",
    )


@pytest.mark.skipif(not VIKING.exists(), reason="needs ../shared/data")
def test_real_records_lie_in_a_model_of_their_size(tmp_path):
    found = load_field(tmp_path, f"data.file={VIKING}", "grid.shape=[290,101]", "grid.spacing=[12.5,12.5]")
    assert found.survey.names == ("3", "4", "5", "6")
    assert found.recording.samples == 600
    shot = found.survey.shots[0]
    assert shot.source.tolist() == [3237, 6]
    np.testing.assert_array_equal(shot.receivers[[0, -1]], [[0, 10], [2975, 10]])
