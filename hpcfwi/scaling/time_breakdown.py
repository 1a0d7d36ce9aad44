"""Where the time of a run went: its wall time, as worker processes have spent it, in parts that are each measured.

Every second of the wall time is a second for each of the workers that were planned: it was not there yet, or at a shot, or
without one while the driver was at something. The parts are means over these workers, so that they add up to the wall time;
what no measurement explains is shown as such.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hpcfwi.errors import RunError
from hpcfwi.events.types import (
    DataStaged,
    EvaluationDone,
    Event,
    JobStateChanged,
    Optimised,
    RunClosed,
    RunDone,
    RunStarted,
    ShotDone,
    ShotStaged,
    Solver,
    StagingData,
    WorkerJoined,
    WorkerLeft,
)

__all__ = ["PARTS", "EvaluationTimes", "TimeBreakdown", "time_breakdown"]

# In the order of a run, with what they are called in pictures and tables.
PARTS = {
    "driver_start": "driver's start",
    "queue_wait": "queue wait",
    "worker_start": "worker start",
    "solver": "solver load or JIT",
    "observed_data": "observed data",
    "model_staging": "model staging",
    "kernels": "kernels",
    "shot_overhead": "shots' own overhead",
    "dispatch": "waiting for the next shot",
    "imbalance": "imbalance",
    "sum": "sum of gradients",
    "journal": "journal",
    "optimiser_and_driver": "optimiser and driver",
    "results": "results",
    "closing": "closing",
    "missing_workers": "missing workers",
    "unexplained": "unexplained",
}


@dataclass
class EvaluationTimes:
    """One evaluation, as the simulator and the model of the cost need it.

    Parameters
    ----------
    shots_seconds, sum_seconds, between_seconds
        Wall time of its shots, of the sum after them, and of all that the driver did since the last evaluation, staging
        the model and writing the answer included.
    cpu_seconds
        Of the driver's process, for shots and sum.
    lengths
        Seconds of each shot by its name, in the order in which their tasks began, without what it took to load a solver.
    dispatch
        Mean seconds that a worker waited between two shots.
    in_one_task
        Shots that a task computed.
    """

    shots_seconds: float
    sum_seconds: float
    between_seconds: float
    cpu_seconds: float
    lengths: dict[str, float] = field(default_factory=dict)
    dispatch: float = 0.0
    in_one_task: int = 1


@dataclass
class TimeBreakdown:
    """Where the time went.

    Parameters
    ----------
    wall
        From the command to its end, s.
    workers, nodes, cores
        Planned worker processes, nodes, and cores of all workers.
    shots, evaluations
        Of the survey, and how often they were computed.
    parts
        Seconds of the wall time by what was done, in the order of :data:`PARTS`; means over the workers.
    core_hours
        Cores of workers times the hours for which they were held.
    times
        Of the evaluations.
    observing
        Seconds of the observed data of each shot.
    facts
        Versions, site, jobs and hosts.
    """

    wall: float
    workers: int
    nodes: int
    cores: int
    shots: int
    evaluations: int
    parts: dict[str, float]
    core_hours: float
    times: list[EvaluationTimes]
    observing: list[float]
    facts: dict[str, Any]

    @property
    def evaluation_seconds(self) -> float:
        """Mean wall time of an evaluation, from one answer to the next; the first, in which workers get ready, is left out."""
        chosen = self.times[1:] or self.times
        return sum(t.shots_seconds + t.sum_seconds + t.between_seconds for t in chosen) / len(chosen)


@dataclass
class _Worker:
    """When a worker was there, s since 1970."""

    came: float
    left: float
    job_began: float | None
    name: str


def time_breakdown(events: Iterable[Event], began: float, ended: float) -> TimeBreakdown:
    """Take a run's events apart.

    Parameters
    ----------
    events
        Of a run with one start, that has come to its end.
    began, ended
        When its command was typed, and when it had ended, s since 1970, by the clock of the driver's host.

    Raises
    ------
    RunError
        If they are not those of such a run.
    """
    told: dict[type[Event], list[Any]] = defaultdict(list)
    for event in events:
        told[type(event)].append(event)
    try:
        return _Breakdown(told, began, ended).account()
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise RunError(f"these are not the events of a run from its start to its end ({error!r})") from None


class _Breakdown:
    """Puts the measured pieces together."""

    def __init__(self, told: dict[type[Event], list[Any]], began: float, ended: float) -> None:
        self.told, self.began, self.ended = told, began, ended
        (self.start,) = told[RunStarted]
        self.closed = told[RunClosed][-1].time
        self.count = int(self.start.workers_planned)
        self.workers = self._workers()
        self.parts = dict.fromkeys(PARTS, 0.0)
        self.by_worker: dict[tuple[int, str], list[ShotDone]] = defaultdict(list)
        for shot in told[ShotDone]:
            self.by_worker[shot.evaluation, shot.worker].append(shot)

    def _workers(self) -> dict[str, _Worker]:
        found: dict[str, _Worker] = {}
        for event in self.told[WorkerJoined]:
            found[event.worker] = _Worker(event.time, self.closed, event.job_start, event.name)
        for event in self.told[WorkerLeft]:
            if event.worker in found:
                found[event.worker].left = event.time
        return found

    def account(self) -> TimeBreakdown:
        """All parts, and what the cost model needs."""
        start, evaluated = self.start, [e for e in self.told[EvaluationDone] if not e.replayed]
        self._before_workers()
        observing = self._observed()
        times = []
        since = self.told[DataStaged][-1].time
        for event in evaluated:
            times.append(self._evaluation(event, since))
            since = event.time
        optimised, done = self.told[Optimised][-1], self.told[RunDone][-1].time
        for name in ("optimiser_seconds", "writing_seconds"):
            self._present("optimiser_and_driver", since, since + getattr(optimised, name))
        self._present("results", optimised.time, done)
        self._present("closing", done, self.closed)
        self._everybody("closing", self.closed, self.ended)
        wall = self.ended - self.began
        parts = {name: seconds / self.count for name, seconds in self.parts.items()}
        parts["unexplained"] = wall - sum(parts.values())
        return TimeBreakdown(
            wall,
            self.count,
            int(start.nodes_planned or 1),
            sum(int(e.cores or 1) for e in self.told[WorkerJoined][: self.count]),
            int(start.shots),
            len(evaluated),
            parts,
            float(self.told[RunClosed][-1].core_hours),
            times,
            observing,
            self._facts(),
        )

    def _facts(self) -> dict[str, Any]:
        kept = ("version", "versions", "site", "launch", "layout", "host", "job", "stand_in")
        return {name: value for name in kept if (value := getattr(self.start, name)) is not None} | {
            "jobs": sorted({str(e.job) for e in self.told[JobStateChanged]}),
            "hosts": sorted({str(e.host) for e in self.told[WorkerJoined]}),
        }

    def _everybody(self, part: str, since: float, until: float) -> None:
        """All workers that were planned spent this time on a part, there or not."""
        self.parts[part] += self.count * (until - since)

    def _present(self, part: str, since: float, until: float) -> None:
        """Those that were there did."""
        for worker in self.workers.values():
            self.parts[part] += max(0.0, min(until, worker.left) - max(since, worker.came))

    def _before_workers(self) -> None:
        """Until the observed data: what the driver did, and where each worker was."""
        started, observing = self.start.time, self.told[StagingData][0].time
        self._everybody("driver_start", self.began, started)
        submitted = {e.worker: e.time for e in self.told[JobStateChanged] if e.state == "submitted"}
        absent = self.count * (self.closed - started)
        for worker in self.workers.values():
            absent -= worker.left - worker.came
            absent -= worker.came - started
            # of several processes of a job each has its name and a number after it
            names = (worker.name, worker.name.rpartition("-")[0])
            asked = next((submitted[name] for name in names if name in submitted), None)
            if asked is None or worker.job_began is None:
                self.parts["worker_start"] += worker.came - started
            else:
                self.parts["driver_start"] += asked - started
                self.parts["queue_wait"] += worker.job_began - asked
                self.parts["worker_start"] += worker.came - worker.job_began
        self.parts["missing_workers"] += absent
        built = [e for e in self.told[Solver] if e.source == "driver"]
        ready = max((e.time for e in built), default=started)
        self._present("solver", started, min(ready, observing))
        self._present("driver_start", min(ready, observing), observing)

    def _observed(self) -> list[float]:
        """The observed data; workers load their solvers at the first."""
        since, until = self.told[StagingData][0].time, self.told[DataStaged][-1].time
        loading = sum(e.solver_seconds for e in self.told[ShotStaged])
        self._present("observed_data", since, until)
        self.parts["observed_data"] -= loading
        self.parts["solver"] += loading
        return [e.seconds - e.solver_seconds for e in self.told[ShotStaged]]

    def _evaluation(self, event: EvaluationDone, since: float) -> EvaluationTimes:
        """What the driver did since the last one, then the shots, the sum, the journal."""
        number, until = event.evaluation, event.time
        written = until - event.journal_seconds
        last = written - event.sum_seconds
        first = last - event.shots_seconds
        self._present("model_staging", first - event.model_seconds, first)
        self._present("sum", last, written)
        self._present("journal", written, until)
        lengths: list[tuple[float, float, str, float]] = []
        in_one_task = int(event.shots_per_task)
        waits: list[float] = []
        for address, worker in self.workers.items():
            shots = sorted(self.by_worker.get((number, address), []), key=lambda shot: shot.time)
            at = together = max(first, worker.came)
            for number_there, shot in enumerate(shots):
                begins = shot.time - shot.seconds
                if number_there % in_one_task == 0:
                    together = begins
                waits.append(max(0.0, begins - at))
                at = shot.time
                length = shot.seconds - shot.solver_seconds
                lengths.append((together, begins, str(shot.shot), length))
                self._shot(shot)
            self.parts["dispatch"] += sum(waits[-len(shots) :]) if shots else 0.0
            self.parts["imbalance"] += max(0.0, min(last, worker.left) - at)
        return EvaluationTimes(
            event.shots_seconds,
            event.sum_seconds,
            first - since + event.journal_seconds,
            event.cpu_seconds,
            {name: seconds for *_, name, seconds in sorted(lengths)},
            sum(waits) / len(waits) if waits else 0.0,
            in_one_task,
        )

    def _shot(self, shot: ShotDone) -> None:
        measured = {
            "kernels": shot.kernel_seconds,
            "solver": shot.solver_seconds,
            "model_staging": shot.model_seconds,
        }
        for part, seconds in measured.items():
            self.parts[part] += seconds
        self.parts["shot_overhead"] += shot.seconds - sum(measured.values())
