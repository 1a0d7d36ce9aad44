"""Memory, time and core-hours that ``hpcfwi plan`` predicts: against a run's peak memory, and as arithmetic."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from multiprocessing import get_context

import psutil
import pytest

from hpcfwi.cluster.layout import Choice, Layout, ShotTooLarge, worker_memory
from hpcfwi.config.run import load_run_config
from hpcfwi.config.site import Site, SiteConfig
from hpcfwi.errors import InputError, RunError
from hpcfwi.model.grid import Domain
from hpcfwi.model.problem import Problem
from hpcfwi.run.cost import (
    START_S,
    chosen_strategy,
    data_cache_bytes,
    gather_bytes,
    held_bytes,
    request_for,
    strategy_costs,
    worker_bytes,
)
from hpcfwi.run.plan import cost_rows, make_plan
from hpcfwi.run.throughput import MAX_POINTS, MIN_STEPS, Throughput, in_processes, measure, measured_spec, updates
from hpcfwi.solver.boundary import Cpml
from hpcfwi.solver.spec import SolverSpec
from hpcfwi.solver.strategies import STRATEGIES, strategies

TWO_AXES = """
[grid]
shape = [901, 401]
spacing = [10.0, 10.0]
[acquisition.sources]
first = [4000.0, 20.0]
last = [5000.0, 20.0]
count = 2
[acquisition.receivers]
first = [20.0, 20.0]
last = [8980.0, 20.0]
count = 400
[data]
recording_time = 1000.0
[wavelet]
kind = "ricker"
peak_frequency = 10.0
"""
THREE_AXES = """
[grid]
shape = [101, 91, 81]
spacing = [20.0, 20.0, 20.0]
[acquisition.sources]
first = [800.0, 800.0, 20.0]
last = [1200.0, 800.0, 20.0]
count = [2, 1, 1]
[acquisition.receivers]
first = [20.0, 20.0, 20.0]
last = [1980.0, 1780.0, 20.0]
count = [40, 30, 1]
[data]
recording_time = 250.0
[wavelet]
kind = "ricker"
peak_frequency = 8.0
"""
LAYERS = """
[model]
kind = "layers"
velocities = [2.0, 2.5, 3.0]
interfaces = [500.0, 1000.0]
[initial]
kind = "smooth"
sigma = 6.0
[inversion]
iterations = 1
bounds = [1.8, 3.6]
[output]
figures = false
report = false
"""
FAST = {("2-D", "sampled")}


@pytest.mark.parametrize(
    ("axes", "name"),
    [
        pytest.param(axes, name, marks=() if (axes, name) in FAST else pytest.mark.slow)
        for axes in ("2-D", "3-D")
        for name in STRATEGIES
    ],
)
def test_the_predicted_memory_of_a_worker_is_within_a_tenth_of_its_peak(hpcfwi, axes, name):
    text = (TWO_AXES if axes == "2-D" else THREE_AXES) + LAYERS
    (hpcfwi.folder / "fwi.toml").write_text(text)
    hpcfwi.run("run", f"solver.wavefield={name}", "site.worker.processes=1")
    logged = [json.loads(line) for line in (hpcfwi.folder / "run" / "events.jsonl").read_text().splitlines()]
    peak = max(event["peak_memory"] for event in logged if event["event"] == "shot")
    problem = Problem.from_config(load_run_config(hpcfwi.folder / "fwi.toml", [f"solver.wavefield={name}"]))
    plan = make_plan(problem, site(worker={"processes": 1, "threads": 1}))
    (found,) = [cost for cost in plan.costs if cost.strategy.name == name]
    assert found.memory_bytes == pytest.approx(peak, rel=0.1)


def one_place(processes, threads, nodes=1, memory=8e9):
    """A place whose nodes are divided in one way."""

    def place(request):
        return Layout(processes, threads, int(memory), request.choices[0]), nodes

    return place


def test_times_follow_from_a_throughput(make_problem):
    problem = make_problem()
    spec, samples = strategies(problem)[0].spec, problem.time_axis(problem.initial_velocity).samples
    four = Throughput(1e8, 4, 1, "stated")
    assert four.shot_seconds(spec, samples, threads=1) == pytest.approx(updates(spec, samples) / 0.25e8)
    # as in layouts: four threads are worth two processes
    assert four.shot_seconds(spec, samples, threads=4) == pytest.approx(updates(spec, samples) / 0.5e8)
    slow = Throughput(1e5, 4, 1, "stated", build_s=0)
    one, three = (strategy_costs(problem, one_place(1, 2, nodes), slow)[0] for nodes in (1, 3))
    assert one.workers == 1
    assert three.workers == 3
    # the problem has three shots
    assert one.evaluation_s == pytest.approx(3 * three.evaluation_s, rel=0.05)
    assert three.run_s < 0.4 * one.run_s + START_S
    assert one.core_hours(3600) == 2
    assert three.core_hours(3600) == 6


def test_a_step_that_follows_the_model_takes_the_time_of_the_initial_one(make_problem):
    fixed, critical = (
        make_problem(f"solver.time_step={rule}", "inversion.bounds=[2.0, 6.0]") for rule in (0.5, "critical")
    )
    costs = [strategy_costs(each, one_place(1, 1), Throughput(1e5, 1, 1, ""))[0] for each in (fixed, critical)]
    assert critical.time_axis(critical.initial_velocity).samples < 0.6 * critical.time_samples
    for problem, cost in zip((fixed, critical), costs, strict=True):
        samples = problem.time_axis(problem.initial_velocity).samples
        assert cost.shot_s == pytest.approx(updates(cost.strategy.spec, samples) / 1e5, rel=0.01)


def test_each_strategy_has_a_row(make_problem):
    plan = make_plan(make_problem("solver.wavefield=disk"))
    rows = {row[0]: row for row in cost_rows(plan)}
    assert list(rows) == ["sampled", "compressed", "disk*", "checkpointed", "full"]
    assert all(row[-4:] == ("–", "–", "–", "–") for row in rows.values())  # nothing is known about the speed
    assert rows["disk*"][2] != "-"
    assert rows["sampled"][2] == "-"


def site(**sections):
    return Site(config=SiteConfig.model_validate(sections))


def test_a_stated_throughput_is_that_of_all_cores_and_is_not_measured(make_problem, monkeypatch):
    monkeypatch.setattr("hpcfwi.cluster.dask_internals.CPUS", 8)
    stated = site(node={"throughput": 5200.0}, worker={"threads": 2})
    plan = make_plan(make_problem(), stated, run_kernels=True)
    speed = "5200 million grid points a second with 8 processes of 1 thread (workstation, node.throughput)"
    assert dict(plan.rows)["speed"] == speed
    assert all(math.isfinite(cost.run_s) for cost in plan.costs)


def test_a_plan_has_memory_even_if_this_machine_is_too_small(make_problem, monkeypatch):
    monkeypatch.setattr("hpcfwi.cluster.local.MEMORY_BYTES", 2e8)
    plan = make_plan(make_problem(), run_kernels=True, must_fit=False)
    assert "none: one shot needs 0.24 GB, this machine has 0.18 GB; --site" in dict(plan.rows)["workers"]
    assert {row[3] for row in cost_rows(plan)} == {"none fits"}
    with pytest.raises(ShotTooLarge, match="one shot needs"):
        make_plan(make_problem())


def test_other_mistakes_are_not_taken_for_a_lack_of_memory(make_problem):
    with pytest.raises(InputError, match="the workers are processes of this machine"):
        make_plan(make_problem(), nodes=3, must_fit=False)


def test_the_memory_of_a_layout_decides_how_many_checkpoints_there_are(tmp_path):
    (tmp_path / "fwi.toml").write_text(THREE_AXES + LAYERS)
    settings = ["solver.wavefield=checkpointed", "data.recording_time=1000"]
    problem = Problem.from_config(load_run_config(tmp_path / "fwi.toml", settings))
    request = request_for(problem, strategies(problem))
    smallest = Layout(1, 1, worker_memory(request.shot_bytes) + 10, request.choices[-1])
    larger = Layout(1, 1, int(8e9), request.choices[0])
    few, many = chosen_strategy(problem, smallest), chosen_strategy(problem, larger)
    assert few.spec.nbytes + held_bytes(problem) <= smallest.wavefield_bytes
    assert many.time < few.time
    assert worker_bytes(problem, many) > worker_bytes(problem, few)


def test_memory_counts_models_gradients_and_data_of_a_worker(make_problem):
    problem = make_problem()
    strategy, cells = strategies(problem)[0], 31 * 31
    gather = problem.recording.samples * 20 * 4
    assert gather_bytes(problem) == gather
    one, three, few = (worker_bytes(problem, strategy, *more) for more in ((1,), (3,), (3, 1000)))
    # two more gradients wait for their sum, and two more gathers are kept
    assert three - one == 2 * 8 * cells + 2 * gather
    assert few - one == 2 * 8 * cells + 1000
    # the model as read, the edge values, three gradients and their sum
    assert held_bytes(problem) == (8 + 4 + 4 * 8) * cells + 5 * gather
    assert Layout(1, 1, int(8e9), data_bytes=3 * gather).cache_bytes == 3 * gather
    assert Layout(1, 1, int(1e9), data_bytes=10**9).cache_bytes == 10**9 // 8
    # what a shot needs comes first
    tight = Layout(1, 1, int(1e9), Choice("x", int(0.65e9)), data_bytes=10**9)
    assert tight.cache_bytes == pytest.approx(0.05e9)
    # a worker keeps more data if it has the memory
    assert data_cache_bytes(problem, Layout(1, 1, int(8e9), data_bytes=gather), strategy) == 10**9


def test_this_machine_is_measured_by_running_the_kernels(make_problem):
    problem = make_problem()
    found = measure(problem, Site(), processes=2, threads=1)
    assert (found.processes, found.threads) == (2, 1)
    assert found.build_s > 0
    assert 1e6 < found.points_per_s < 1e11
    assert str(found).endswith("million grid points a second with 2 processes of 1 thread (measured here)")


def test_large_grids_are_cut_along_their_long_axes():
    layer = Cpml(Domain((2001, 801, 61), (10.0,) * 3, (0.0,) * 3), 10, velocity=3.0, frequency=0.01)
    spec = SolverSpec(layer, 8, "float32", 3000, 5, 100)
    cut = measured_spec(spec)
    assert cut.domain.shape[2] == 61
    assert cut.domain.shape[0] == cut.domain.shape[1]
    assert 0.9 * MAX_POINTS < math.prod(cut.boundary.padded_shape) <= MAX_POINTS
    assert cut.time_samples == MIN_STEPS
    small = replace(spec, boundary=replace(layer, domain=Domain((101, 101), (10.0,) * 2, (0.0,) * 2)))
    assert measured_spec(small).domain == small.domain


def test_kernels_that_cannot_run_leave_the_times_unknown(make_problem, monkeypatch):
    monkeypatch.setenv("DEVITO_ARCH", "no-such-compiler")
    plan = make_plan(make_problem("solver.space_order=6"), run_kernels=True)
    assert dict(plan.rows)["speed"].startswith("unknown: ")
    assert all(math.isnan(cost.run_s) for cost in plan.costs)


@pytest.mark.parametrize(("submits", "job", "processes"), [(True, None, 1), (True, object(), 4), (False, None, 4)])
def test_all_cores_are_measured_but_one_process_on_a_login_node(make_problem, monkeypatch, submits, job, processes):
    monkeypatch.setattr("hpcfwi.cluster.dask_internals.CPUS", 8)
    monkeypatch.setattr("hpcfwi.run.plan.batch_commands", lambda: submits)
    monkeypatch.setattr("hpcfwi.run.plan.current_batch_system", lambda: job)
    monkeypatch.setattr("hpcfwi.run.plan.measure", lambda _, __, *shape: Throughput(1e8, *shape, "measured here"))
    plan = make_plan(make_problem(), site(worker={"threads": 2}), run_kernels=True)
    assert f"with {processes} process" in dict(plan.rows)["speed"]


def fail(started):
    """One process fails before the others are ready, as one without memory would."""
    try:
        if started.n_waiting:
            raise MemoryError("no room")
        started.wait(60)
    except BaseException:
        started.abort()
        raise


def end(status):
    os._exit(status)


def test_the_cause_of_a_failure_is_told_and_no_process_stays():
    started = get_context("spawn").Barrier(3)
    with pytest.raises(RunError, match="MemoryError: no room"):
        in_processes(3, fail, started)
    with pytest.raises(RunError, match="ended with status 7"):
        in_processes(2, end, 7)
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
