"""The cost model, fitted to runs whose costs are known because a simulation made them, and its list scheduling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulator import Simulation, simulate

from hpcfwi.errors import InputError
from hpcfwi.execution.window import TaskOverhead, queue_depth
from hpcfwi.inversion.functional_gradient import BLOCK, blocks
from hpcfwi.scaling.forecast import CostModel, fit, makespan, replay, tree_depth
from hpcfwi.scaling.results import validate
from hpcfwi.scaling.runs import MeasuredRun, RunPoint
from hpcfwi.scaling.time_breakdown import PARTS, EvaluationTimes, TimeBreakdown

GAP, HANDLING, LEVEL, DRIVER, OBSERVED = 0.02, 0.001, 0.05, 0.3, 0.1
OVERHEAD = TaskOverhead(HANDLING, 0.0002)


def measured(nodes, shots=64, evaluations=4):
    """A run with the costs above."""
    durations = np.random.default_rng(0).lognormal(0.7, 0.3, shots)
    times = [
        EvaluationTimes(
            shots_seconds=simulate(durations, nodes, GAP, HANDLING, queue_depth(2.0, nodes)),
            sum_seconds=LEVEL * tree_depth(shots),
            driver_seconds=DRIVER,
            cpu_seconds=HANDLING * shots,
            shot_seconds={str(i): duration for i, duration in enumerate(durations)},
            dispatch_seconds=GAP,
        )
        for _ in range(evaluations)
    ]
    parts = dict.fromkeys(PARTS, 0.0) | {
        "driver_start": 1.0,
        "queue_wait": 2.0,
        "worker_start": 3.0,
        "solver": 0.5,
        "observed_data": simulate([OBSERVED] * shots, nodes, GAP, HANDLING),
        "results": 0.1,
        "closing": 0.4,
    }
    return MeasuredRun(
        RunPoint(nodes, 1),
        TimeBreakdown(
            wall_seconds=sum(parts.values()) + sum(one.seconds for one in times),
            workers=nodes,
            nodes=nodes,
            cores=nodes,
            shots=shots,
            evaluations=evaluations,
            parts=parts,
            core_hours=0.1,
            times=times,
            observed_seconds=[OBSERVED] * shots,
            facts={"jobs": [], "hosts": []},
        ),
    )


# list scheduling

tasks = st.lists(st.floats(0.01, 10.0), min_size=1, max_size=60)
costs = st.one_of(st.just(0.0), st.floats(0.001, 2.0))


@given(tasks, st.integers(1, 12), costs, costs, st.integers(1, 4))
def test_list_scheduling_agrees_with_a_simulation_of_every_message(durations, workers, gap, handling, depth):
    simulation = Simulation(durations, workers, gap, handling, depth)
    assert simulation.most_in_hand <= depth
    assert makespan(durations, workers, gap, handling, depth) == pytest.approx(simulation.seconds, rel=1e-9)


@pytest.mark.parametrize("schedule", [makespan, simulate])
def test_the_makespan_agrees_with_schedules_computed_by_hand(schedule):
    assert schedule([2.0] * 12, 4) == pytest.approx(6.0)
    assert schedule([1.0] * 10, 1, gap=0.1) == pytest.approx(10 * 1.1 + 0.1)
    # a task that waits in the hand of a busy worker is late
    assert schedule([4.0, 1.0, 1.0, 1.0], 2, depth=1) == pytest.approx(4.0)
    assert schedule([4.0, 1.0, 1.0, 1.0], 2, depth=2) == pytest.approx(5.0)
    # a scheduler that is slower than the workers sets the pace
    assert schedule([0.1] * 1000, 100, handling=0.01, depth=2) == pytest.approx(1000 * 0.01 + 0.1, rel=1e-6)


@given(tasks, st.integers(1, 12), st.integers(1, 4))
def test_no_schedule_is_shorter_than_the_work_or_longer_than_one_worker_needs(durations, workers, depth):
    seconds = makespan(durations, workers, depth=depth)
    assert max(sum(durations) / workers, *durations, 0.0) - 1e-9 <= seconds <= sum(durations) + 1e-9


@given(tasks, st.integers(1, 12))
def test_at_depth_1_the_schedule_obeys_grahams_bound(durations, workers):
    best = max(sum(durations) / workers, *durations, 0.0)
    assert makespan(durations, workers) <= (2 - 1 / workers) * best + 1e-9


@pytest.mark.parametrize("shots", [1, 2, 8, 9, 64, 65, 5000, 100_000])
def test_the_depth_is_that_of_the_tree_of_sums(shots):
    level, depth = list(range(shots)), 0
    while len(level) > 1:
        level, depth = list(blocks(level)), depth + 1
    assert tree_depth(shots) == depth


# the cost model


def test_the_costs_of_the_simulation_are_found():
    model = fit([measured(nodes).times for nodes in (1, 2, 4)], OVERHEAD)
    assert model.gap_seconds == pytest.approx(GAP)
    assert model.level_seconds == pytest.approx(LEVEL)
    assert model.driver_seconds == pytest.approx(DRIVER)
    assert model.start_and_end["worker_start"] == pytest.approx((3.0, 0.0))


def test_the_largest_number_of_nodes_is_predicted_and_all_runs_are_replayed():
    runs = [measured(nodes) for nodes in (1, 2, 4, 8)]
    checked = validate(runs, OVERHEAD)
    assert checked.nodes == 8
    assert abs(checked.evaluation_error) < 0.01
    assert abs(checked.wall_error) < 0.02
    assert all(abs(error) < 0.01 for error in checked.replay_errors.values())
    assert replay(runs[0].times, OVERHEAD) == pytest.approx(runs[0].times.wall_seconds, rel=0.01)


def test_the_error_of_a_wrong_prediction_is_reported():
    """Shots wait for one another, which no schedule explains."""
    runs = [measured(nodes) for nodes in (1, 2, 4)]
    run = runs[-1].times
    times = [replace(one, shots_seconds=4 * one.shots_seconds) for one in run.times]
    more = sum(one.shots_seconds for one in times) - sum(one.shots_seconds for one in run.times)
    runs[-1] = MeasuredRun(runs[-1].point, replace(run, times=times, wall_seconds=run.wall_seconds + more))
    checked = validate(runs, OVERHEAD)
    assert checked.evaluation_error < -0.5
    assert checked.wall_error < -0.5
    assert checked.replay_errors["n0004-r1"] < -0.5
    assert abs(checked.replay_errors["n0002-r1"]) < 0.01


def test_a_start_that_grows_with_the_nodes_keeps_growing():
    runs = [measured(nodes).times for nodes in (1, 2, 4)]
    for run in runs:
        run.parts["worker_start"] = 2.0 + 0.5 * run.nodes
    model = fit(runs)
    assert model.start_and_end["worker_start"] == pytest.approx((2.0, 0.5))
    assert model.predict(100, 64, 4).losses["start_and_end"] > 12.0


def model(**changes):
    """A cost model in which nothing but shots and scheduler takes time."""
    none = {
        "shot_seconds": (10.0,) * 8,
        "first_ratio": 1.0,
        "workers_per_node": 1.0,
        "gap_seconds": 0.0,
        "overhead": OVERHEAD,
        "level_seconds": 0.0,
        "driver_seconds": 0.0,
        "observed_seconds": 0.0,
        "start_and_end": {},
    }
    return CostModel(**none | changes)


def test_the_scheduler_is_the_bottleneck_when_workers_want_shots_faster_than_it_gives_them():
    """Shots of 10 s on n nodes are n / 10 a second; 1 ms for a shot is too slow from 10,000 nodes on."""
    few, many = model().predict(1000, 100_000, 1), model().predict(40_000, 400_000, 1)
    assert few.losses["scheduler"] < 0.02 * few.evaluation_seconds
    assert many.bottleneck == "scheduler"
    assert many.evaluation_seconds == pytest.approx(400.0, rel=0.05)


def test_shots_that_are_too_short_for_the_scheduler_are_predicted_in_batches():
    """100,000 shots of 1 s on 4,096 nodes: one by one, the scheduler takes 100 s; the busiest worker has four batches of 8."""
    short = model(shot_seconds=(1.0,) * 8)
    found = short.predict(4096, 100_000, 1)
    assert found.shots_per_task == BLOCK
    assert found.evaluation_seconds == pytest.approx(4 * BLOCK, rel=0.2)
    assert found.bottleneck == "imbalance"
    # the observed data and the first evaluation have no batches
    assert found.wall_seconds == pytest.approx(2 * 100.0, rel=0.1)
    assert short.predict(100, 100_000, 1).shots_per_task == 1


def test_a_run_with_batches_is_replayed_with_batches():
    run, durations = measured(2, shots=512).times, np.random.default_rng(2).lognormal(-6.0, 0.3, 512)
    batches = [sum(durations[i : i + BLOCK]) for i in range(0, 512, BLOCK)]
    depth = queue_depth(BLOCK * float(durations.mean()), 2)
    seconds = simulate(batches, 2, GAP, BLOCK * OVERHEAD.batched, depth)
    by_name = {str(i): duration for i, duration in enumerate(durations)}
    batched = {"shots_seconds": seconds, "shot_seconds": by_name}
    times = [replace(one, **batched, dispatch_seconds=GAP / BLOCK, shots_per_task=BLOCK) for one in run.times]
    wall = run.wall_seconds + 4 * (seconds - run.times[0].shots_seconds)
    assert replay(replace(run, times=times, wall_seconds=wall), OVERHEAD) == pytest.approx(wall, rel=0.01)


def test_the_losses_add_up_to_the_evaluation_and_the_run():
    shots = tuple(np.random.default_rng(1).lognormal(2, 0.5, 50))
    costs = model(shot_seconds=shots, gap_seconds=0.1, level_seconds=0.3, driver_seconds=2.0)
    for nodes, count in ((1, 50), (7, 50), (32, 777), (256, 300)):
        found = costs.predict(nodes, count, 5)
        within = sum(seconds for name, seconds in found.losses.items() if name != "start_and_end")
        assert found.work_seconds + within == pytest.approx(found.evaluation_seconds, rel=0.02)
        assert found.wall_seconds == pytest.approx(5 * (found.evaluation_seconds + found.losses["start_and_end"]))
        longer = costs.predict(nodes, count, 10)
        assert longer.wall_seconds == pytest.approx(found.wall_seconds + 5 * found.evaluation_seconds)


def test_a_log_without_the_observed_shots_is_fitted():
    assert fit([replace(measured(2).times, observed_seconds=[])]).observed_seconds == 0.0


def test_without_a_computed_evaluation_there_is_no_model():
    with pytest.raises(InputError, match="at least one computed evaluation"):
        fit([])
