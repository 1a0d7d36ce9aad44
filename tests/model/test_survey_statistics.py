"""Numbers of a survey: what a person would count by hand, and the broken traces that were put in."""

from __future__ import annotations

import numpy as np
import pytest
from field_files import line

from hpcfwi.model.gathers import Recording
from hpcfwi.model.survey import Shot, Survey
from hpcfwi.model.survey_statistics import MAX_FOLD_CELLS, gather_statistics, survey_statistics


def survey(sources, receivers) -> Survey:
    pairs = zip(sources, receivers, strict=True)
    return Survey(
        tuple(
            Shot(str(i), np.array(source, float), np.array(spread, float))
            for i, (source, spread) in enumerate(pairs, 1)
        )
    )


def recorded(values: np.ndarray, interval: float = 4.0) -> Recording:
    return Recording(values, interval, np.zeros(values.shape[1]))


def shot(traces: int, shift: float = 0.0) -> Shot:
    return Shot("7", np.zeros(3), line(traces, first=shift))


def noise(traces: int = 6, samples: int = 251) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(samples, traces))


def test_extents_intervals_offsets_and_sizes_are_those_of_the_positions():
    sources = [(100.0, 0.0, 5.0), (125.0, 0.0, 5.0), (150.0, 0.0, 5.0)]
    found = survey_statistics(survey(sources, [line(5), line(5), line(7, step=60)]))
    assert (found.traces, found.per_shot) == (17, (5, 7))
    assert found.sources.tolist() == [[100, 0, 5], [150, 0, 5]]
    assert found.receivers.tolist() == [[100, 0, 20], [460, 0, 20]]
    assert (found.source_interval, found.receiver_interval) == (25, 50)
    assert found.offsets == (0, 310)
    assert found.offset_counts.sum() == 17
    assert found.offset_edges[-1] == 400


def test_offsets_are_counted_as_numpy_counts_them():
    rng = np.random.default_rng(1)
    sources, receivers = rng.uniform(0, 900, (4, 3)), rng.uniform(0, 900, (4, 30, 3))
    found = survey_statistics(survey(sources, receivers))
    distances = np.linalg.norm((receivers - sources[:, None])[..., :2], axis=-1)
    assert found.offset_counts.tolist() == np.histogram(distances, found.offset_edges)[0].tolist()
    assert found.offsets == (pytest.approx(distances.min()), pytest.approx(distances.max()))


def test_the_fold_of_a_line_is_that_of_the_common_midpoint_method():
    receivers = line(9, first=0, step=50)
    sources = [(50.0 * i, 0.0, 20.0) for i in range(9)]
    found = survey_statistics(survey(sources, [receivers] * 9)).fold
    assert found.cell == 25
    assert found.counts.tolist() == [*range(1, 10), *range(8, 0, -1)]
    assert (found.largest, found.median, found.origin) == (9, 5, (0.0,))


def test_in_3d_the_fold_has_both_horizontal_axes():
    spread = [(100.0 * i, 100.0 * j, 0.0) for i in range(4) for j in range(3)]
    found = survey_statistics(survey([(0.0, 0.0, 0.0), (300.0, 200.0, 0.0)], [spread] * 2)).fold
    assert found.counts.shape == (7, 5)
    assert found.counts.sum() == 24


def test_a_line_along_y_has_a_fold_along_y():
    spread = line(5)[:, [1, 0, 2]]
    found = survey_statistics(survey([(0.0, 100.0, 20.0)], [spread])).fold
    assert found.counts.ndim == 1
    assert found.origin == (100.0,)


@pytest.mark.parametrize("ndim", [2, 3])
def test_one_source_at_one_receiver_is_a_survey(ndim):
    place = [5.0] * ndim
    found = survey_statistics(survey([place], [[place]]))
    assert found.source_interval is found.receiver_interval is None
    assert (found.offsets, found.offset_edges[-1]) == ((0, 0), 1)
    assert found.fold.counts.tolist() == [1]


def test_two_receivers_far_from_each_other_do_not_fill_the_memory():
    spread = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (2.0, 0.0, 0.0), (1e7, 1e7, 0.0)]
    found = survey_statistics(survey([(0.0, 0.0, 0.0)], [spread])).fold
    assert found.counts.size <= MAX_FOLD_CELLS
    assert found.counts.sum() == 4


def test_amplitude_and_frequency_are_those_of_a_sine():
    times = np.arange(251)[:, None] * 0.004
    values = 5.0 * np.sin(2 * np.pi * 20 * times + np.arange(6))
    found = gather_statistics(shot(6), recorded(values))
    assert (found.name, found.traces, found.broken) == ("7", 6, {})
    assert found.rms == pytest.approx(5 / np.sqrt(2), rel=0.01)
    assert found.peak == np.abs(values).max()
    assert found.frequency == pytest.approx(20, abs=1)
    assert found.band[0] <= found.frequency <= found.band[1]
    assert found.band[1] < 30


def test_broken_traces_are_found_and_do_not_change_the_amplitudes():
    values = noise(6)
    whole = gather_statistics(shot(4), recorded(values[:, 2:]))
    values[:, 0], values[7, 1] = 3.0, np.nan
    found = gather_statistics(shot(6), recorded(values))
    assert {reason: traces.tolist() for reason, traces in found.broken.items()} == {"dead": [0], "not finite": [1]}
    assert (found.rms, found.peak) == (pytest.approx(whole.rms), whole.peak)


def test_spiky_and_clipped_and_duplicated_traces_are_counted():
    values = noise(6)
    values[50, 1] = 900
    values[100:108, 3] = np.abs(values[:, 3]).max()
    values[:, 5] = values[:, 4]
    places = shot(6).receivers
    places[5] = places[4]
    found = gather_statistics(Shot("7", np.zeros(3), places), recorded(values))
    assert {reason: traces.tolist() for reason, traces in found.broken.items()} == {
        "spiky": [1],
        "clipped": [3],
        "duplicated": [5],
    }


def test_the_limit_of_spikes_is_the_users():
    values = noise(6)
    values[50, 1] = 20 * np.abs(values).max()
    assert not gather_statistics(shot(6), recorded(values), spikes=1000.0).broken
    assert list(gather_statistics(shot(6), recorded(values), spikes=10.0).broken) == ["spiky"]


def test_a_gather_without_a_usable_trace_has_no_amplitude():
    values = np.zeros((251, 3))
    values[:, 1] = np.inf
    found = gather_statistics(shot(3), recorded(values))
    assert (found.rms, found.peak, found.frequency, found.band) == (0, 0, 0, (0, 0))
    assert {reason: traces.tolist() for reason, traces in found.broken.items()} == {"dead": [0, 2], "not finite": [1]}


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_short_records_are_described(samples):
    assert gather_statistics(shot(3), recorded(noise(3, samples))).peak > 0
