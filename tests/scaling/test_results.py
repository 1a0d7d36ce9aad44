"""Speed-up, efficiency and confidence intervals of runs whose times are known."""

from __future__ import annotations

import pytest

from hpcfwi.scaling.results import Estimate, evaluate_study, speedup
from hpcfwi.scaling.runs import MeasuredRun, RunPoint
from hpcfwi.scaling.time_breakdown import PARTS, EvaluationTimes, TimeBreakdown


def run(nodes, repeat, seconds, shots=16):
    """A run with two evaluations of so many seconds, and 10 s before and after them."""
    times = [EvaluationTimes(seconds, 0.0, 0.0, 0.0, {str(i): 1.0 for i in range(shots)})] * 2
    parts = dict.fromkeys(PARTS, 0.0) | {"worker_start": 10.0}
    breakdown = TimeBreakdown(2 * seconds + 10, nodes, nodes, nodes, shots, 2, parts, 0.1, times, [0.1], {})
    return MeasuredRun(RunPoint(nodes, repeat), breakdown)


def test_repetitions_give_an_interval_and_one_run_gives_none():
    assert Estimate.of([2.0]) == Estimate(2.0)
    found = Estimate.of([1.0, 2.0, 4.0])
    assert found.value == pytest.approx(2.0)
    # Student's t for two degrees of freedom is 4.303; the standard error of the logarithms is log(2) / sqrt(3)
    assert found.high == pytest.approx(2.0 * 2 ** (4.302653 / 3**0.5))
    assert found.low == pytest.approx(4.0 / found.high)


def test_a_run_is_compared_with_the_smallest_number_of_nodes_in_its_own_repetition():
    runs = [run(1, 1, 40.0), run(4, 1, 10.0), run(1, 2, 60.0), run(4, 2, 15.0), run(4, 3, 20.0)]
    assert [speedup(one, runs, "evaluation_seconds") for one in runs] == pytest.approx([1.0, 4.0, 1.0, 4.0, 2.0])
    assert speedup(runs[1], runs, "wall_seconds") == pytest.approx(90 / 30)
    assert speedup(runs[1], runs, "wall_seconds", per_node=True) == pytest.approx(90 / 30 / 4)
    scaling = evaluate_study(runs[:4], weak=False)
    assert [count.nodes for count in scaling.node_counts] == [1, 4]
    assert scaling.node_counts[1].efficiency.value == pytest.approx(1.0)
    assert scaling.validation.nodes == 4


def test_weak_scaling_counts_shots():
    runs = [run(nodes, 1, 20.0 + nodes, shots=16 * nodes) for nodes in (1, 2, 4)]
    scaling = evaluate_study(runs, weak=True)
    largest, ratio = scaling.node_counts[-1], 21.0 / 24.0
    assert largest.efficiency.value == pytest.approx(ratio)
    assert largest.speedup.value == pytest.approx(4 * ratio)
    assert scaling.forecasts[-1].weak


def test_one_number_of_nodes_is_enough_for_a_forecast_but_not_for_its_validation():
    scaling = evaluate_study([run(2, 1, 20.0)], weak=False, iterations=30)
    assert scaling.validation.evaluation_error is None
    assert [forecast.predictions[0].evaluations for forecast in scaling.forecasts] == [2, 2, 2, 39]
    assert all(forecast.efficiency(forecast.predictions[0], job=True) == 1.0 for forecast in scaling.forecasts)
