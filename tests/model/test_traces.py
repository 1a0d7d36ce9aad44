"""Which traces of a gather are used: broken ones are found, counted and left out, and too few are an error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hpcfwi.errors import DataError
from hpcfwi.model.gathers import Recording
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.survey import Shot
from hpcfwi.model.traces import ShotData, TracePolicy, UsableTraces, describe

TRACES, RECORDING = 10, TimeAxis(2.0, 50)
SOUND = np.random.default_rng(3).normal(size=(50, TRACES)).astype("f4")
SHOT = Shot("a", np.zeros(2), np.stack([np.arange(TRACES), np.zeros(TRACES)], axis=1))


@dataclass(frozen=True)
class Stored:
    """A gather in memory."""

    values: np.ndarray
    starts: np.ndarray | float = 0.0

    def read(self, traces: int) -> Recording:  # noqa: ARG002
        return Recording(self.values, 2.0, np.broadcast_to(np.float64(self.starts), self.values.shape[1]))


def read(values=SOUND, starts=0.0, policy=TracePolicy(), shot=SHOT, **options):  # noqa: B008 - immutable
    return ShotData(Stored(values, starts), policy, **options).read(shot, RECORDING)


def changed(trace, value, samples=slice(None)):
    """The sound gather with other samples in a trace, counted from 1."""
    values = SOUND.copy()
    values[samples, trace - 1] = value
    return values


def test_a_sound_gather_is_used_as_it_is():
    found = read()
    np.testing.assert_array_equal(found.record, SOUND)
    assert not np.shares_memory(found.record, SOUND)
    assert found.left_out == {}
    assert found.partial(50) == {}
    assert found.record.dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_one_bad_sample_loses_its_trace_and_not_the_shot(value):
    found = read(changed(4, value, 7))
    assert found.left_out == {"not finite": (4,)}
    assert found.weights.tolist() == [1, 1, 1, 0, 1, 1, 1, 1, 1, 1]
    assert not found.record[:, 3].any()
    others = np.arange(TRACES) != 3
    np.testing.assert_array_equal(found.record[:, others], SOUND[:, others])


@pytest.mark.parametrize("value", [0.0, -0.0, 7.25])
def test_traces_of_one_value_are_dead(value):
    assert read(changed(2, value)).left_out == {"dead": (2,)}
    assert read(changed(2, value), policy=TracePolicy(dead="keep")).left_out == {}


def test_a_copy_of_a_trace_at_the_same_place_is_left_out_and_the_first_stays():
    values = changed(6, SOUND[:, 1])
    assert read(values).left_out == {}  # another receiver may have recorded the same
    places = SHOT.receivers.copy()
    places[5] = places[1]
    shot = Shot("a", SHOT.source, places)
    assert read(values, shot=shot).left_out == {"duplicated": (6,)}
    assert read(shot=shot).left_out == {}  # two components at one place
    values[:, 9], places[9] = SOUND[:, 1], places[1]
    assert read(values, shot=Shot("a", SHOT.source, places)).left_out == {"duplicated": (6, 10)}
    assert read(values, policy=TracePolicy(duplicated="keep"), shot=shot).left_out == {}


def test_spikes_are_found_if_the_user_asks():
    values = changed(3, 60.0, 20)
    assert read(values).left_out == {}
    assert read(values, policy=TracePolicy(spikes=10.0)).left_out == {"spiky": (3,)}
    assert read(values, policy=TracePolicy(spikes=300.0)).left_out == {}
    quiet = changed(3, 0.0, slice(0, 45))  # a first arrival is no spike
    assert read(quiet, policy=TracePolicy(spikes=10.0)).left_out == {}


def test_a_trace_has_one_reason():
    values = changed(1, np.nan)
    values[:, 1] = 0
    found = read(values, policy=TracePolicy(spikes=50.0))
    assert found.left_out == {"not finite": (1,), "dead": (2,)}


@pytest.mark.parametrize(("reason", "value"), [("not_finite", np.nan), ("dead", 0.0)])
def test_what_is_refused_names_the_first_trace_and_the_way_out(reason, value):
    policy = TracePolicy(**{reason: "refuse"})
    with pytest.raises(
        DataError, match=rf"shot a: 1 of its 10 traces are .*trace 5; .* --set data\.traces\.{reason}=drop"
    ):
        read(changed(5, value), policy=policy)
    kept = np.arange(TRACES) != 1  # numbers are those in the file
    shot = Shot("a", SHOT.source, SHOT.receivers[kept])
    with pytest.raises(DataError, match="the first is trace 5;"):
        read(changed(5, value), policy=policy, shot=shot, kept=kept)


def test_too_few_usable_traces_are_an_error_with_what_was_wrong():
    values = SOUND.copy()
    values[:, :4], values[0, 4:6] = 0, np.nan
    with pytest.raises(DataError) as caught:
        read(values)
    assert str(caught.value) == (
        "shot a: only 4 of its 10 traces can be used (not finite: 5-6; dead: 1-4), and data.traces.minimum asks for 0.5 of them"
    )
    assert read(values, policy=TracePolicy(minimum=0.4)).weights.sum() == 4
    with pytest.raises(DataError, match="only 0 of its 10 traces can be used"):
        read(np.zeros_like(SOUND), policy=TracePolicy(minimum=0.01))


def test_traces_that_are_left_out_before_keep_their_reasons_and_numbers():
    kept = np.ones(TRACES, bool)
    kept[[0, 2]] = False
    shot = Shot("a", SHOT.source, SHOT.receivers[kept])
    found = read(changed(5, 0.0), shot=shot, kept=kept, left_out={"killed": (1,), "outside": (3,)})
    assert found.left_out == {"killed": (1,), "outside": (3,), "dead": (5,)}
    assert found.record.shape == (50, 8)
    np.testing.assert_array_equal(found.record[:, 0], SOUND[:, 1])
    assert describe(found.left_out) == "outside: 3; killed: 1; dead: 5"


def test_weights_of_the_user_stay_and_those_of_broken_traces_are_zero():
    weights = np.linspace(0.1, 1, TRACES).astype("f4")
    found = read(changed(5, 0.0), weights=weights)
    assert found.weights[4] == 0
    np.testing.assert_array_equal(np.delete(found.weights, 4), np.delete(weights, 4))
    assert weights[4] != 0


@pytest.mark.parametrize("dtype", ["i2", "i4", "u1", "f8"])
def test_samples_of_any_type_are_looked_at(dtype):
    values = np.random.default_rng(0).integers(0, 100, (50, TRACES)).astype(dtype)
    values[:, 0] = 0
    assert read(values).left_out == {"dead": (1,)}
    if dtype == "i2":
        values[3, 1] = -32768
        assert read(values, policy=TracePolicy(spikes=1000.0)).left_out == {"dead": (1,)}


@pytest.mark.parametrize("shape", [(49, 10), (50, 9), (50, 11), (10, 50)])
def test_another_shape_is_refused(shape):
    with pytest.raises(DataError, match=r"shot a: its gather in data\.file"):
        read(np.ones(shape))


# Delays
def test_a_delay_of_whole_samples_moves_the_trace():
    found = read(starts=np.full(TRACES, 8.0))
    np.testing.assert_array_equal(found.record[4:], SOUND[:-4])
    assert not found.record[:4].any()
    assert set(found.partial(50)) == {"first", "last"}
    assert found.first.tolist() == [4] * TRACES
    assert found.last.tolist() == [50] * TRACES


def test_a_negative_delay_cuts_what_comes_before_the_shot():
    found = read(starts=np.full(TRACES, -8.0))
    np.testing.assert_array_equal(found.record[:-4], SOUND[4:])
    assert not found.record[-4:].any()
    assert (found.first[0], found.last[0]) == (0, 46)


def test_delays_may_differ_within_a_gather():
    starts = 2.0 * np.arange(TRACES)
    found = read(starts=starts)
    for trace in range(TRACES):
        np.testing.assert_array_equal(found.record[trace:, trace], SOUND[: 50 - trace, trace])
        assert found.first[trace] == trace


@pytest.mark.parametrize("fraction", [0.5, 1.25])
def test_a_delay_of_fractions_of_a_sample_shifts_the_wave(fraction):
    times = RECORDING.times

    def pulse(t):
        return np.exp(-(((t - 50) / 8) ** 2))

    values = np.repeat(pulse(times)[:, None], TRACES, axis=1) * np.arange(1, TRACES + 1)
    found = read(values, starts=np.full(TRACES, 2 * fraction))
    whole = int(fraction)
    expected = pulse(times - 2 * fraction)[whole:, None] * np.arange(1, TRACES + 1)
    np.testing.assert_allclose(found.record[whole:], expected, atol=1e-4 * TRACES)
    assert found.first[0] == whole


def test_a_delay_that_is_a_sample_but_for_rounding_is_one():
    np.testing.assert_array_equal(read(starts=np.full(TRACES, 3 * 2.0 * (1 - 1e-12))).record[3:], SOUND[:-3])


def test_traces_that_begin_after_the_record_are_dead():
    found = read(starts=np.array([0.0] * 6 + [1000.0] * 4))
    assert found.left_out == {"dead": (7, 8, 9, 10)}
    with pytest.raises(DataError, match="only 0 of its 10 traces"):
        read(starts=np.full(TRACES, -1e6))


def test_a_dead_trace_with_a_delay_is_dead():
    assert read(changed(2, 5.0), starts=np.full(TRACES, 8.0)).left_out == {"dead": (2,)}
    assert read(changed(2, 5.0), starts=np.full(TRACES, 7.0)).left_out == {"dead": (2,)}
    assert read(changed(2, np.inf, 9), starts=np.full(TRACES, 7.0)).left_out == {"not finite": (2,)}
    assert read(changed(2, np.nan, 9), starts=np.full(TRACES, 7.0)).left_out == {"not finite": (2,)}


# What the misfit compares
def test_traces_of_weight_zero_are_not_computed_and_cost_nothing():
    found = read(changed(4, np.nan))
    usable = UsableTraces.of(SHOT, {"record": found.record, **found.partial(50)})
    others = np.arange(TRACES) != 3
    np.testing.assert_array_equal(usable.shot.receivers, SHOT.receivers[others])
    np.testing.assert_array_equal(usable.record, SOUND[:, others])
    assert usable.coverage == usable.weights == ()


def test_weights_are_of_squared_residuals_and_missing_samples_count_nothing():
    weights = np.linspace(0, 1, TRACES).astype("f4")
    found = read(starts=np.full(TRACES, 8.0), weights=weights)
    usable = UsableTraces.of(SHOT, {"record": found.record, **found.partial(50)})
    assert usable.record.shape == (50, TRACES - 1)
    (coverage,), (roots,) = usable.coverage, usable.weights
    np.testing.assert_allclose(roots.values[0] ** 2, weights[1:], rtol=1e-6)
    np.testing.assert_array_equal(coverage.values, (np.arange(50) >= 4)[:, None] & np.ones(TRACES - 1, bool))


def test_a_whole_gather_needs_no_weights():
    usable = UsableTraces.of(SHOT, {"record": SOUND})
    assert usable.shot is SHOT
    assert usable.record is SOUND


# In place
def test_a_gather_that_has_changed_is_an_error_of_the_shot():
    values = SOUND.copy()
    data = ShotData(Stored(values), in_place=True)
    from hpcfwi.artifacts import digest

    staged = {"recording": RECORDING, "digest": digest(np.ascontiguousarray(data.read(SHOT, RECORDING).record).data)}
    np.testing.assert_array_equal(data.read_again(SHOT, staged), SOUND)
    values[3, 3] += 1
    with pytest.raises(
        DataError, match=r"shot a: its gather in data\.file has changed since the run began; start a new one"
    ):
        data.read_again(SHOT, staged)
