"""The wall time of a run divided into parts, from its events.

At any time, each planned worker is absent, computes a shot, or waits. A part is the mean over the workers, so the parts add up
to the wall time; the time that no measurement explains is a part, too.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hpcfwi.errors import RunError
from hpcfwi.events import types as events

# Parts in the order of a run, with their labels in figures and tables.
PARTS = {
    "driver_start": "driver start",
    "queue_wait": "queue wait",
    "worker_start": "worker start",
    "solver": "solver load or JIT",
    "observed_data": "observed data",
    "model_staging": "model staging",
    "kernels": "kernels",
    "shot_overhead": "shot overhead",
    "dispatch": "wait for the next shot",
    "imbalance": "imbalance",
    "sum": "sum of gradients",
    "journal": "journal",
    "optimiser_and_driver": "optimiser and driver",
    "results": "results",
    "closing": "closing",
    "missing_workers": "missing workers",
    "unexplained": "unexplained",
}
# A complete run has all of these events.
REQUIRED_EVENTS = (
    events.RunStarted,
    events.StagingData,
    events.DataStaged,
    events.Optimised,
    events.RunDone,
    events.RunClosed,
)
START_FACTS = ("version", "versions", "site", "launch", "layout", "host", "job", "stand_in")


@dataclass
class EvaluationTimes:
    """Durations in one evaluation; those of shots exclude loading a solver."""

    shots_seconds: float  # until the last shot is done
    sum_seconds: float  # from the last shot to the sum
    driver_seconds: float  # of the driver since the previous evaluation
    cpu_seconds: float  # CPU time of driver and scheduler for shots and sum
    shot_seconds: dict[str, float] = field(default_factory=dict)  # by name, in the order in which tasks began
    dispatch_seconds: float = 0.0  # mean wait of a worker between two shots
    shots_per_task: int = 1  # shots that a task computes

    @property
    def seconds(self) -> float:
        """Wall time, from the end of the previous evaluation to the end of this one."""
        return self.shots_seconds + self.sum_seconds + self.driver_seconds


@dataclass
class TimeBreakdown:
    """The wall time of a run divided into parts.

    Parameters
    ----------
    wall_seconds
        Duration of the command.
    workers, nodes, cores
        Planned worker processes and nodes, and the cores of all workers.
    shots, evaluations
        Shots of an evaluation, and evaluations that were computed, not replayed.
    parts
        Seconds of the wall time by part, means over the workers.
    core_hours
        Cores of the workers times the hours for which they were held.
    times
        Times of each evaluation.
    observed_seconds
        Seconds of each shot of the observed data.
    facts
        Versions, site, jobs and hosts.
    """

    wall_seconds: float
    workers: int
    nodes: int
    cores: int
    shots: int
    evaluations: int
    parts: dict[str, float]
    core_hours: float
    times: list[EvaluationTimes]
    observed_seconds: list[float]
    facts: dict[str, Any]

    @property
    def typical_times(self) -> list[EvaluationTimes]:
        """All evaluations except the first, in which workers load solver and data; the first if it is the only one."""
        return self.times[1:] or self.times

    @property
    def evaluation_seconds(self) -> float:
        """Mean wall time of a typical evaluation, s."""
        return sum(times.seconds for times in self.typical_times) / len(self.typical_times)


def time_breakdown(log: Iterable[events.Event], began: float, ended: float) -> TimeBreakdown:
    """Divide the wall time of a run into parts.

    Parameters
    ----------
    log
        All events of a complete run with one start.
    began, ended
        Start and end of the command, s since 1970, by the clock of the driver's host.

    Returns
    -------
    TimeBreakdown

    Raises
    ------
    RunError
        If the run is incomplete or was continued.
    """
    by_kind: dict[type[events.Event], list[Any]] = defaultdict(list)
    for event in log:
        by_kind[type(event)].append(event)
    missing = [f'"{kind.event}"' for kind in REQUIRED_EVENTS if not by_kind[kind]]
    if missing:
        raise RunError(f"the run is not complete: its log has no event {' and no event '.join(missing)}")
    if len(by_kind[events.RunStarted]) > 1 or not by_kind[events.RunStarted][0].workers_planned:
        raise RunError("a time breakdown needs a run with one start and at least one planned worker")
    return _Accounting(by_kind, began, ended).breakdown()


class _Accounting:
    """Adds up the seconds of all workers by part."""

    def __init__(self, log: dict[type[events.Event], list[Any]], began: float, ended: float) -> None:
        self.log, self.began, self.ended = log, began, ended
        self.start: events.RunStarted = log[events.RunStarted][0]
        self.data_began, self.data_staged = log[events.StagingData][0].time, log[events.DataStaged][-1].time
        self.closed: events.RunClosed = log[events.RunClosed][-1]
        self.workers: dict[str, events.WorkerJoined] = {event.worker: event for event in log[events.WorkerJoined]}
        left = {event.worker: event.time for event in log[events.WorkerLeft]}
        self.left = {address: left.get(address, self.closed.time) for address in self.workers}
        self.shots: dict[tuple[int, str], list[events.ShotDone]] = defaultdict(list)
        for shot in sorted(log[events.ShotDone], key=lambda shot: shot.time):
            self.shots[shot.evaluation, shot.worker].append(shot)
        self.parts = dict.fromkeys(PARTS, 0.0)

    def breakdown(self) -> TimeBreakdown:
        start, planned = self.start, self.start.workers_planned
        self._count_start()
        self._count_observed_data()
        times, since = [], self.data_staged
        for evaluation in self.log[events.EvaluationDone]:
            if not evaluation.replayed:
                times.append(self._count_evaluation(evaluation, since))
                since = evaluation.time
        self._count_end(since)
        wall = self.ended - self.began
        parts = {name: seconds / planned for name, seconds in self.parts.items()}
        parts["unexplained"] = wall - sum(parts.values())
        facts = {name: value for name in START_FACTS if (value := getattr(start, name)) is not None}
        facts["jobs"] = sorted({event.job for event in self.log[events.JobStateChanged]})
        facts["hosts"] = sorted({event.host for event in self.log[events.WorkerJoined]})
        return TimeBreakdown(
            wall_seconds=wall,
            workers=planned,
            nodes=start.nodes_planned or 1,
            cores=sum(event.cores or 1 for event in self.log[events.WorkerJoined][:planned]),
            shots=start.shots,
            evaluations=len(times),
            parts=parts,
            core_hours=self.closed.core_hours,
            times=times,
            observed_seconds=[event.seconds - event.solver_seconds for event in self.log[events.ShotStaged]],
            facts=facts,
        )

    def _add_all(self, part: str, since: float, until: float) -> None:
        """Add a period of all planned workers, present or not."""
        self.parts[part] += self.start.workers_planned * (until - since)

    def _add_present(self, part: str, since: float, until: float) -> None:
        """Add a period of the workers that were present."""
        for address, worker in self.workers.items():
            self.parts[part] += max(0.0, min(until, self.left[address]) - max(since, worker.time))

    def _count_start(self) -> None:
        """The time to the observed data: start of the driver; queue wait and start of each worker."""
        started = self.start.time
        self._add_all("driver_start", self.began, started)
        submitted = {
            event.worker: event.time for event in self.log[events.JobStateChanged] if event.state == "submitted"
        }
        missing = self.start.workers_planned * (self.closed.time - started)
        for address, worker in self.workers.items():
            missing -= self.left[address] - started
            # one of several processes of a job has the name of the job and a number
            names = (worker.name, worker.name.rpartition("-")[0])
            submission = next((submitted[name] for name in names if name in submitted), None)
            if submission is None or worker.job_start is None:
                self.parts["worker_start"] += worker.time - started
            else:
                self.parts["driver_start"] += submission - started
                self.parts["queue_wait"] += worker.job_start - submission
                self.parts["worker_start"] += worker.time - worker.job_start
        self.parts["missing_workers"] += missing
        built = max((event.time for event in self.log[events.Solver] if event.source == "driver"), default=started)
        self._add_present("solver", started, min(built, self.data_began))
        self._add_present("driver_start", min(built, self.data_began), self.data_began)

    def _count_observed_data(self) -> None:
        """The observed data; each worker loads its solver for its first shot."""
        loading = sum(event.solver_seconds for event in self.log[events.ShotStaged])
        self._add_present("observed_data", self.data_began, self.data_staged)
        self.parts["observed_data"] -= loading
        self.parts["solver"] += loading

    def _count_evaluation(self, event: events.EvaluationDone, since: float) -> EvaluationTimes:
        """One evaluation: the model, the shots, the sum, the journal."""
        summed = event.time - event.journal_seconds
        last = summed - event.sum_seconds
        first = last - event.shots_seconds
        self._add_present("model_staging", first - event.model_seconds, first)
        self._add_present("sum", last, summed)
        self._add_present("journal", summed, event.time)
        begun: list[tuple[float, float, str, float]] = []  # start of task and of shot, name, seconds
        waits: list[float] = []
        for address, worker in self.workers.items():
            free = task_began = max(first, worker.time)
            for number, shot in enumerate(self.shots[event.evaluation, address]):
                shot_began = shot.time - shot.seconds
                if number % event.shots_per_task == 0:
                    task_began = shot_began
                waits.append(max(0.0, shot_began - free))
                free = shot.time
                begun.append((task_began, shot_began, shot.shot, shot.seconds - shot.solver_seconds))
                self.parts["kernels"] += shot.kernel_seconds
                self.parts["solver"] += shot.solver_seconds
                self.parts["model_staging"] += shot.model_seconds
                accounted = shot.kernel_seconds + shot.solver_seconds + shot.model_seconds
                self.parts["shot_overhead"] += shot.seconds - accounted
            self.parts["imbalance"] += max(0.0, min(last, self.left[address]) - free)
        self.parts["dispatch"] += sum(waits)
        return EvaluationTimes(
            shots_seconds=event.shots_seconds,
            sum_seconds=event.sum_seconds,
            driver_seconds=first - since + event.journal_seconds,
            cpu_seconds=event.cpu_seconds,
            shot_seconds={name: seconds for *_, name, seconds in sorted(begun)},
            dispatch_seconds=sum(waits) / len(waits) if waits else 0.0,
            shots_per_task=event.shots_per_task,
        )

    def _count_end(self, since: float) -> None:
        """After the last evaluation: optimiser, results, end of the workers and of the command."""
        optimised, done = self.log[events.Optimised][-1], self.log[events.RunDone][-1].time
        for seconds in (optimised.optimiser_seconds, optimised.writing_seconds):
            self._add_present("optimiser_and_driver", since, since + seconds)
        self._add_present("results", optimised.time, done)
        self._add_present("closing", done, self.closed.time)
        self._add_all("closing", self.closed.time, self.ended)
