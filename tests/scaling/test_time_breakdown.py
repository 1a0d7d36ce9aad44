"""Where the time of a run went, from events that were written by hand and from those of a real run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sample_events import sample

from hpcfwi.errors import RunError
from hpcfwi.events.log import read_events
from hpcfwi.events.types import RunStarted
from hpcfwi.scaling.time_breakdown import PARTS, time_breakdown
from hpcfwi.solver.engine import SleepingShots


def events():
    """Two worker jobs, one of which starts late; one evaluation of three shots."""

    def shot(worker, end, seconds, kernels, **more):
        return {
            "time": end,
            "event": "shot",
            "worker": worker,
            "shot": f"{worker}{end}",
            "evaluation": 1,
            "seconds": seconds,
            "kernel_seconds": kernels,
            **more,
        }

    start = {"workers_planned": 2, "nodes_planned": 2, "shots": 3, "host": "login", "site": "s", "launch": "jobs"}
    came = {"event": "worker joined", "host": "n", "cores": 3}
    facts = [
        {"time": 2.0, "event": "start", **start},
        {"time": 3.0, "event": "job", "job": "7", "worker": "w-0", "state": "submitted"},
        {"time": 3.0, "event": "job", "job": "8", "worker": "w-1", "state": "submitted"},
        {"time": 6.0, "event": "solver", "source": "driver", "seconds": 4.0},
        {"time": 5.0, **came, "worker": "a", "name": "w-0", "job_start": 4.0},
        {"time": 7.0, "event": "staging data", "shots": 3},
        {"time": 9.0, "event": "shot staged", "worker": "a", "shot": "1", "seconds": 2.0, "solver_seconds": 0.5},
        {"time": 10.0, "event": "data staged", "shots": 3, "seconds": 3.0},
        {"time": 12.0, **came, "worker": "b", "name": "w-1", "job_start": 9.0},
        shot("a", 15.0, 3.5, 3.0, model_seconds=0.25),
        shot("a", 19.0, 3.0, 3.0),
        shot("b", 17.0, 4.0, 2.0, solver_seconds=1.0, data_seconds=0.5),
        {
            "time": 23.0,
            "event": "evaluation",
            "evaluation": 1,
            "replayed": False,
            "seconds": 13.0,
            "model_seconds": 1.0,
            "shots_seconds": 9.0,
            "sum_seconds": 2.0,
            "journal_seconds": 1.0,
            "cpu_seconds": 0.3,
        },
        {"time": 24.0, "event": "optimised", "optimiser_seconds": 0.5, "writing_seconds": 0.25},
        {"time": 26.0, "event": "done"},
        {"time": 29.0, "event": "closed", "core_hours": 0.03},
    ]
    return [sample(fact.pop("event"), **fact) for fact in facts]


def test_every_second_of_every_worker_is_in_exactly_one_part():
    found = time_breakdown(events(), 0.0, 30.0)
    twice = {name: 2 * seconds for name, seconds in found.parts.items() if seconds}
    assert twice == pytest.approx(
        {
            # two seconds until its first event, one until jobs are submitted, one in which a waits for it
            "driver_start": 4.0 + 2.0 + 1.0,
            "queue_wait": 1.0 + 6.0,
            "worker_start": 1.0 + 3.0,
            # a waits for the driver's, then loads its own; b loads it in its first shot
            "solver": 1.0 + 0.5 + 1.0,
            "observed_data": 3.0 - 0.5,
            "model_staging": 1.0 + 0.25,
            "kernels": 3.0 + 3.0 + 2.0,
            "shot_overhead": 0.25 + 0.0 + 1.0,
            # a begins half a second late and once waits for a second; b waits for one
            "dispatch": 0.5 + 1.0 + 1.0,
            # the last shot is there at 20
            "imbalance": 1.0 + 3.0,
            "sum": 4.0,
            "journal": 2.0,
            "optimiser_and_driver": 1.5,
            "results": 4.0,
            "closing": 6.0 + 2.0,
            # between two measurements the driver does something else
            "unexplained": 2 * 30 - 59.5,
        }
    )
    assert sum(found.parts.values()) == pytest.approx(found.wall_seconds)
    assert (found.workers, found.nodes, found.shots, found.evaluations) == (2, 2, 3, 1)
    assert found.facts["jobs"] == ["7", "8"]
    # without the second in which b loads its solver
    assert found.times[0].shot_seconds == {"a15.0": 3.5, "b17.0": 3.0, "a19.0": 3.0}


def test_the_shots_of_a_task_stay_together():
    log = events()
    log[-4] = replace(log[-4], shots_per_task=2)
    assert list(time_breakdown(log, 0.0, 30.0).times[0].shot_seconds) == ["a15.0", "a19.0", "b17.0"]


def test_a_lost_worker_is_counted_as_missing_from_its_exit_on():
    changed = [*events(), sample("worker left", time=27.0, worker="b")]
    found = time_breakdown(sorted(changed, key=lambda event: event.time), 0.0, 30.0)
    assert 2 * found.parts["missing_workers"] == pytest.approx(2.0)
    assert sum(found.parts.values()) == pytest.approx(30.0)


def test_the_parts_of_a_real_run_explain_its_time(first_run):
    _, _, run_dir = first_run
    log = list(read_events(run_dir / "events.jsonl"))
    began = next(event for event in log if isinstance(event, RunStarted)).command_start
    found = time_breakdown(log, began, log[-1].time)
    assert abs(found.parts["unexplained"]) < 0.03 * found.wall_seconds
    assert all(found.parts[name] >= -0.001 for name in PARTS)
    assert found.parts["kernels"] > 0
    assert found.core_hours == pytest.approx(found.cores * found.wall_seconds / 3600, rel=0.7)
    assert [len(times.shot_seconds) for times in found.times] == [found.shots] * found.evaluations


@pytest.mark.parametrize("missing", ["start", "closed", "data staged", "done"])
def test_an_incomplete_run_is_refused(missing):
    with pytest.raises(RunError, match=f'the run is not complete: its log has no event "{missing}"'):
        time_breakdown([event for event in events() if event.event != missing], 0.0, 30.0)


def test_a_run_with_two_starts_is_refused():
    log = events()
    with pytest.raises(RunError, match="one start"):
        time_breakdown([log[0], *log], 0.0, 30.0)


def test_sleeping_shots_have_the_requested_mean_and_spread():
    lengths = [SleepingShots(2.0, 0.25).duration(str(i)) for i in range(4000)]
    mean = sum(lengths) / len(lengths)
    deviation = (sum((length - mean) ** 2 for length in lengths) / len(lengths)) ** 0.5
    assert mean == pytest.approx(2.0, rel=0.01)
    assert deviation == pytest.approx(0.5, rel=0.05)
    assert SleepingShots(2.0, 0.25).duration("7") == lengths[7]
    assert SleepingShots(2.0).duration("7") == 2.0
