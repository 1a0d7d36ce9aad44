"""Traces that are left out before any sample is read, and the weights of the others."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfwi.config.data import TracesSection
from hpcfwi.config.run import load_run_config
from hpcfwi.errors import InputError
from hpcfwi.model.checks import check_weights
from hpcfwi.model.grid import Domain
from hpcfwi.model.selection import Selection, read_weights, select_traces
from hpcfwi.model.survey import Shot, Survey

DOMAIN = Domain((11, 11), (10.0, 10.0), (0.0, 0.0))
SPREAD = np.array([[x, 10.0] for x in (10.0, 30.0, 50.0, 70.0, 130.0)])
SURVEY = Survey((Shot("a", np.array([5.0, 5.0]), SPREAD), Shot("b", np.array([500.0, 5.0]), SPREAD[:4])))


def select(section, weights=None, killed=None):
    return select_traces(SURVEY, DOMAIN, section, weights or {}, killed or {})


def test_a_survey_is_as_it_was_if_nothing_is_asked_for():
    survey, selection, warnings = select(TracesSection())
    assert survey is SURVEY
    assert selection == Selection() or not selection.kept
    assert warnings == ()


def test_a_trace_may_be_outside_and_killed_and_counts_for_both():
    killed = {"a": np.array([True, False, False, False, True])}
    survey, selection, warnings = select(TracesSection(outside="drop"), killed=killed)
    assert survey.names == ("a",)
    np.testing.assert_array_equal(survey.shots[0].receivers, SPREAD[1:4])
    assert selection.left_out == {"a": {"outside": (5,), "killed": (1, 5)}, "b": {"outside": (1, 2, 3, 4)}}
    assert selection.kept["a"].tolist() == [False, True, True, True, False]
    assert selection.shots == ("b",)
    assert [warning.split(":")[1] for warning in warnings] == [
        " 5 of 9 traces are left out",
        " 2 of 9 traces are left out",
        " 1 of 2 shots are left out (b)",
    ]


def test_weights_of_used_traces_reach_the_shot_and_zero_kills():
    weights = {"a": np.array([0.5, 0, 1, 2, 1], "f4")}
    _, selection, _ = select(TracesSection(outside="drop"), weights=weights)
    assert selection.weights["a"].tolist() == [0.5, 1, 2]
    assert selection.left_out["a"] == {"outside": (5,), "killed": (2,)}
    survey, selection, _ = select(TracesSection(), weights={"a": np.full(5, 0.5, "f4")})
    assert selection.weights["a"].tolist() == [0.5] * 5
    assert survey.receiver_counts.tolist() == [5, 4]


def test_a_shot_is_left_out_if_none_of_its_traces_is_chosen():
    killed = {"a": np.array([True, True, True, True, False])}
    assert select(TracesSection(minimum=0.9), killed=killed)[0].names == ("a", "b")
    assert select(TracesSection(), killed={"a": np.ones(5, dtype=bool)})[0].names == ("b",)


# The CSV file
def weights(tmp_path, text):
    (tmp_path / "w.csv").write_text(text)
    return {name: values.tolist() for name, values in read_weights(tmp_path / "w.csv", SURVEY).items()}


def test_weights_are_read_by_shot_and_trace(tmp_path):
    found = weights(tmp_path, "shot,trace,weight\nb,4,0.5\na,1,0\na,5,2\n")
    assert found == {"b": [1, 1, 1, 0.5], "a": [0, 1, 1, 1, 2]}
    assert weights(tmp_path, "shot;trace\nb;2\n") == {"b": [1, 0, 1, 1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shot,trace\nc,1\n", "line 2: there is no shot 'c'; the shots are a, b"),
        ("shot,trace\nb,5\n", "line 2: trace is 5; shot 'b' has the traces 1 to 4"),
        ("shot,trace\nb,0\n", "line 2: trace is 0; shot 'b'"),
        ("shot,trace\nb,1.5\n", "line 2: trace is '1.5'; it should be a whole number"),
        ("shot,trace\nb,nan\n", "line 2: trace is 'nan'; it should be a whole number"),
        ("shot,trace\nb,1\nb,1e400\n", "line 3: trace is '1e400'; it should be a whole number"),
        ("shot,trace,weight\nb,1,-1\n", "line 2: weight is -1; it should be 0, or between 1e-6 and 1e6"),
        ("shot,trace,weight\nb,1,x\n", "line 2: weight is 'x'; it should be a number"),
        ("shot,trace,weight\nb,1,1e7\n", "weight is 1e+07; it should be 0, or between 1e-6 and 1e6"),
        ("trace\n1\n", "has no column 'shot'"),
        ("shot,number\nb,1\n", "has no column 'trace'"),
        ("", "has no rows below its header"),
        ("shot,trace,weight\na,1,1e-60\n", "weight is 1e-60; it should be 0, or between 1e-6 and 1e6"),
        ("shot,trace,weight\na,1,0.5\na,1,0\n", "line 3: trace 1 of shot 'a' is there twice"),
    ],
)
def test_a_malformed_file_is_refused_with_the_line(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        weights(tmp_path, text)
    assert str(caught.value).startswith(f"data.traces.weights: {tmp_path}/w.csv")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("misfit", "weights", "told"),
    [
        ("awi", [1, 0.5], True),
        ("awi", [1, 0], False),
        ('{kind="awi", amplitude_power=2}', [1, 0.5], False),
        ("huber", [1, 0.5], False),
    ],
)
def test_a_warning_says_that_the_misfit_does_not_see_weights(fwi_toml, misfit, weights, told):
    config = load_run_config(fwi_toml, [f"inversion.misfit={misfit}"])
    warnings = check_weights(config, {"0": np.array(weights, np.float32)})
    assert ["amplitude_power = 2 they count as in l2" in warning for warning in warnings] == [True] * told
