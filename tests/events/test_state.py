"""How a run stands, folded from its events."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from sample_events import a_run, sample

from hpcfwi.events.state import MAX_KINDS_OF_FAILURES, RunState


def after(*events):
    state = RunState()
    for event in events:
        state.apply(event)
    return state


@pytest.fixture
def state():
    state = RunState()
    a_run(state.apply)
    return state


def test_the_events_of_a_running_inversion_are_counted(state):
    assert (state.state, state.since, state.starts) == ("inverting", 98.0, 1)
    assert (state.shots_done, state.shots_total, state.evaluation, state.iteration) == (25, 40, 1, 1)
    assert state.workers["tcp://0"].shots == 20 + 13
    assert state.shots_on == {"a": 65}
    assert state.failures == {"shot s3 is retried: it was late": 1}
    assert state.core_hours(190.5) == pytest.approx((2 * 4 * 100 + 4 * 2) / 3600)
    assert state.time_left == pytest.approx(4 * 50.0)


def test_a_summary_restores_the_whole_state(state):
    state.apply(sample("log segment", segment=2))
    state.apply(sample("start", time=199.0))
    state.apply(sample("worker joined"))
    state.apply(sample("dashboard"))
    state.apply(sample("job", job="8"))
    state.apply(sample("interrupted", time=200.0, reason="SIGTERM was received"))
    state.apply(sample("stage started"))
    state.apply(sample("evaluation"))
    state.apply(sample("iteration", model_error=0.5))
    state.apply(sample("shot", evaluation=2))
    state.apply(sample("traces left out", reasons={"dead": "3,17-20"}))
    summary, unused = state.summary(), RunState().summary()
    assert set(summary) == {field.name for field in fields(RunState)}
    assert [name for name in summary if summary[name] == unused[name]] == []
    again = after(sample("summary", summary=json.loads(json.dumps(summary))))
    assert again == state
    assert {type(value) for value in vars(again).values()} == {type(value) for value in vars(state).values()}
    assert again.failures.most_common(1) == state.failures.most_common(1)


def test_a_summary_of_another_version_is_used_if_it_is_understood():
    state = after(sample("summary", summary={"iteration": 3, "of the future": [1]}))
    assert (state.iteration, state.state) == (3, "new")
    state.apply(sample("summary", summary={"iteration": 4, "workers": [1]}))
    assert state.iteration == 3


@pytest.mark.parametrize(
    ("kind", "facts", "expected"),
    [
        ("done", {"message": "converged"}, ("done", "converged")),
        ("failed", {"message": "shot 7 failed"}, ("failed", "shot 7 failed")),
        ("interrupted", {"reason": "SIGTERM was received"}, ("stopped", "SIGTERM was received")),
        ("closed", {}, ("stopped", "only the observed data were requested")),
    ],
)
def test_the_end_of_a_run_has_a_reason(state, kind, facts, expected):
    state.apply(sample(kind, **facts))
    assert (state.state, state.reason) == expected


def test_a_shot_that_was_computed_twice_counts_once_in_its_evaluation(state):
    for _ in range(2):
        state.apply(sample("shot", shot="s39", evaluation=2))
    state.apply(sample("shot", shot="s38", evaluation=1))  # late, by a worker that was given up
    assert state.shots_done == 26
    assert state.shots_on == {"a": 65, "x": 3}


def test_an_excluded_shot_voids_all_iterations(state):
    state.apply(sample("shot excluded", shot="s3", reason="its record is not finite"))
    assert (state.iteration, state.evaluation, state.misfit, state.step_seconds) == (None, 0, None, [])
    assert list(state.failures)[-1] == "shot s3 is left out: its record is not finite"


def test_the_next_driver_has_the_jobs_of_a_killed_one(state):
    assert state.jobs == {"7": "pending (Priority)"}
    state.apply(sample("start"))
    assert (state.jobs, state.left_over_jobs, state.workers) == ({}, ["7"], {})


def test_the_number_of_kinds_of_failures_is_limited():
    state = after(*(sample("retry", shot=f"s{i}") for i in range(MAX_KINDS_OF_FAILURES + 30)))
    assert len(state.failures) == MAX_KINDS_OF_FAILURES + 1
    assert state.failures["others"] == 30
