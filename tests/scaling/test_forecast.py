"""The model of the cost, fitted to runs whose costs are known since the simulator made them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hpcfwi.errors import InputError
from hpcfwi.execution.batching import TaskOverhead
from hpcfwi.execution.window import queue_depth
from hpcfwi.inversion.misfit import BLOCK
from hpcfwi.scaling.forecast import CostModel, fit, replay
from hpcfwi.scaling.results import Estimate, evaluate_study, validate
from hpcfwi.scaling.runs import MeasuredRun, RunPoint
from hpcfwi.scaling.simulator import simulate, tree_depth
from hpcfwi.scaling.time_breakdown import PARTS, EvaluationTimes, TimeBreakdown

GAP, PER_SHOT, LEVEL, BETWEEN, OBSERVING = 0.02, 0.001, 0.05, 0.3, 0.1
HANDLING = TaskOverhead(PER_SHOT, 0.0002)


def measured(nodes, shots=64, evaluations=4, seed=0, noise=0.0):
    """A run as it would be with the costs above."""
    lengths = np.random.default_rng(seed).lognormal(0.7, 0.3, shots)
    shake = np.random.default_rng([seed, nodes]).normal(1.0, noise, 50) if noise else np.ones(50)
    here = [0.0] * nodes
    times = []
    for number in range(evaluations):
        schedule = simulate(lengths, here, GAP, PER_SHOT, queue_depth(2.0, nodes))
        times.append(
            EvaluationTimes(
                schedule.seconds * shake[number],
                LEVEL * tree_depth(shots),
                BETWEEN,
                PER_SHOT * shots,
                {str(i): length * shake[number] for i, length in enumerate(lengths)},
                GAP,
            )
        )
    parts = dict.fromkeys(PARTS, 0.0)
    parts |= {
        "driver_start": 1.0,
        "queue_wait": 2.0,
        "worker_start": 3.0,
        "solver": 0.5,
        "results": 0.1,
        "closing": 0.4,
    }
    parts["observed_data"] = simulate([OBSERVING] * shots, here, GAP, PER_SHOT).seconds
    wall = sum(parts.values()) + sum(t.shots_seconds + t.sum_seconds + t.between_seconds for t in times)
    facts = {"jobs": [], "hosts": []}
    account = TimeBreakdown(
        wall, nodes, nodes, nodes, shots, evaluations, parts, 0.1, times, [OBSERVING] * shots, facts
    )
    return MeasuredRun(RunPoint(nodes, 1), account)


def test_the_costs_are_found_again():
    model = fit([measured(nodes).account for nodes in (1, 2, 4)], HANDLING)
    assert model.gap == pytest.approx(GAP)
    assert model.level == pytest.approx(LEVEL)
    assert model.between == pytest.approx(BETWEEN)
    assert model.worker_start == pytest.approx((3.0, 0.0))


def test_the_rung_that_was_left_out_is_predicted_and_runs_are_replayed():
    runs = [measured(nodes) for nodes in (1, 2, 4, 8)]
    found = validate(runs, HANDLING)
    assert found.nodes == 8
    assert abs(found.evaluation_error) < 0.01
    assert abs(found.wall_error) < 0.02
    assert all(abs(error) < 0.01 for error in found.replay_errors.values())
    assert replay(runs[0].account, HANDLING) == pytest.approx(runs[0].account.wall, rel=0.01)


def test_a_prediction_that_is_wrong_is_told_as_wrong():
    """Where shots wait for one another in a way that no schedule explains."""
    runs = [measured(nodes) for nodes in (1, 2, 4)]
    slow = runs[-1].account
    times = [replace(times, shots_seconds=4 * times.shots_seconds) for times in slow.times]
    more = sum(times.shots_seconds for times in times) - sum(times.shots_seconds for times in slow.times)
    runs[-1] = MeasuredRun(runs[-1].rung, replace(slow, times=times, wall=slow.wall + more))
    found = validate(runs, HANDLING)
    assert found.evaluation_error < -0.5
    assert found.wall_error < -0.5
    assert found.replay_errors["n0004-r1"] < -0.5
    assert abs(found.replay_errors["n0002-r1"]) < 0.01


def test_start_that_grows_with_the_nodes_is_predicted_to_go_on_growing():
    runs = [measured(nodes).account for nodes in (1, 2, 4)]
    for run in runs:
        run.parts["worker_start"] = 2.0 + 0.5 * run.nodes
    model = fit(runs)
    assert model.worker_start == pytest.approx((2.0, 0.5))
    assert model.predict(100, 64, 4).losses["start_and_end"] > 12.0


def model(**changes):
    costs = {
        "lengths": (10.0,) * 8,
        "first": 1.0,
        "workers_per_node": 1.0,
        "gap": 0.0,
        "handling": HANDLING,
        "level": 0.0,
        "between": 0.0,
        "driver_start": 0.0,
        "queue_wait": 0.0,
        "solver": 0.0,
        "observing": 0.0,
        "results": 0.0,
        "worker_start": (0.0, 0.0),
        "closing": (0.0, 0.0),
    }
    return CostModel(**costs | changes)


def test_the_scheduler_takes_over_where_workers_want_shots_faster_than_it_deals_them():
    """10 s on n nodes are n / 10 shots a second; at 1 ms a shot there is an end at 10,000 nodes."""
    few, many = model().predict(1000, 100_000, 1), model().predict(40_000, 400_000, 1)
    assert few.losses["scheduler"] < 0.02 * few.evaluation_seconds
    assert many.bottleneck == "scheduler"
    assert many.evaluation_seconds == pytest.approx(400.0, rel=0.05)


def test_shots_that_are_too_short_for_the_scheduler_are_predicted_in_bundles():
    """100,000 shots of 1 s on 4,096 nodes: 100 s of the scheduler one by one; four bundles of eight for the busiest worker."""
    short = model(lengths=(1.0,) * 8, handling=HANDLING)
    found = short.predict(4096, 100_000, 1)
    assert found.in_one_task == BLOCK
    assert found.evaluation_seconds == pytest.approx(4 * BLOCK, rel=0.2)
    assert found.bottleneck == "imbalance"
    # the observed data, and the first evaluation, before whose end nobody knows how long shots are
    assert found.wall == pytest.approx(2 * 100.0, rel=0.1)
    assert short.predict(100, 100_000, 1).in_one_task == 1


def test_a_run_with_bundles_is_replayed_with_bundles():
    run, lengths = measured(2, shots=512).account, np.random.default_rng(2).lognormal(-6.0, 0.3, 512)
    bundles = [sum(lengths[i : i + BLOCK]) for i in range(0, 512, BLOCK)]
    seconds = simulate(bundles, [0.0] * 2, GAP, BLOCK * HANDLING.bundled).seconds
    named = {str(i): length for i, length in enumerate(lengths)}
    times = [
        replace(time, shots_seconds=seconds, lengths=named, dispatch=GAP / BLOCK, in_one_task=BLOCK)
        for time in run.times
    ]
    run = replace(run, times=times, wall=run.wall + 4 * (seconds - run.times[0].shots_seconds))
    assert replay(run, HANDLING) == pytest.approx(run.wall, rel=0.01)


def test_every_loss_is_a_part_of_the_evaluation():
    costs = model(lengths=tuple(np.random.default_rng(1).lognormal(2, 0.5, 50)), gap=0.1, level=0.3, between=2.0)
    for nodes, shots in ((1, 50), (7, 50), (32, 777), (256, 300)):
        found = costs.predict(nodes, shots, 5)
        inside = sum(seconds for name, seconds in found.losses.items() if name != "start_and_end")
        assert found.work + inside == pytest.approx(found.evaluation_seconds, rel=0.02)
        assert found.wall == pytest.approx(5 * (found.evaluation_seconds + found.losses["start_and_end"]))


def test_repetitions_give_an_interval_and_one_run_gives_none():
    assert Estimate.of([2.0]) == Estimate(2.0)
    found = Estimate.of([1.0, 2.0, 4.0])
    assert found.value == pytest.approx(2.0)
    # Student's t for two degrees of freedom is 4.303; the logarithms' standard error is log(2) / sqrt(3)
    assert found.high == pytest.approx(2.0 * 2 ** (4.302653 / 3**0.5))
    assert found.low == pytest.approx(4.0 / found.high)


def test_weak_scaling_counts_shots():
    runs = [measured(nodes, shots=16 * nodes) for nodes in (1, 2, 4)]
    scaling = evaluate_study(runs, weak=True)
    level = scaling.levels[-1]
    ratio = runs[0].account.evaluation_seconds / runs[-1].account.evaluation_seconds
    assert level.efficiency.value == pytest.approx(ratio)
    assert level.speedup.value == pytest.approx(4 * ratio)
    assert scaling.forecasts[-1].weak


def test_without_an_evaluation_there_is_no_model():
    with pytest.raises(InputError, match="at least one evaluation"):
        fit([])
