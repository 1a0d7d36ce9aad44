"""What ``hpcfwi status`` tells of a run: the fields of its JSON, whose meanings the reference takes from here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hpcfwi.reporting.state import ENDED

__all__ = ["HostStatus", "Often", "RunStatus", "WorkerStatus"]


@dataclass(frozen=True)
class WorkerStatus:
    """A worker process that is there: its host, Dask's name for it, the shots it has done and the time it took for them, s."""

    host: str
    name: str
    shots: int
    seconds: float


@dataclass(frozen=True)
class HostStatus:
    """A host: how many workers are there, and how many shots were done on it in all starts."""

    host: str
    workers: int
    shots: int


@dataclass(frozen=True)
class Often:
    """Something that has happened, in a line, and how often."""

    what: str
    times: int


@dataclass(frozen=True)
class RunStatus:
    """The state of a run. Unknown values are None.

    Attributes
    ----------
    state
        `new` (nothing has run yet), `running`, `done`, `stopped` (can be continued), `failed`, `killed` (the driver
        ended without recording why) or `perhaps dead` (the driver is on another host, and its heartbeat is late)
    stage
        `starting`, `waiting` (for the first worker), `data`, `inverting` or `finishing`; of a killed run, its last
        stage; else null
    reason
        why the run is done, has stopped or failed; else empty
    go_on
        command that continues the run; null if there is nothing to continue, or a driver is at work
    since
        start of the present stage or state, s since 1970
    started
        start of the last driver, s since 1970
    starts
        number of drivers so far
    folder
        the run folder
    site
        name of the site
    launch
        how workers start: `local`, `jobs` or `allocation`
    layout
        processes, threads and memory on a node, in words
    host
        host of the driver
    pid
        process number of the driver
    job
        batch job of the driver
    heartbeat_age
        seconds since the last heartbeat of the driver, which sends one every five; null without a driver
    iteration
        last iteration that is done; 0 is the initial model
    iterations
        maximum number of iterations
    evaluations
        evaluations of misfit and gradient that are done
    misfit
        misfit after the last iteration
    initial_misfit
        misfit of the initial model
    model_error
        norm(vp - vp_true) / norm(vp_true) after the last iteration
    shots_done
        shots that are done of the present evaluation, or of the observed data
    shots_total
        number of all these shots
    workers
        present workers, each with `host`, `name`, `shots` and `seconds`
    workers_planned
        number of workers that the run wants
    hosts
        hosts with workers or with finished shots, each with `host`, `workers` and `shots`
    jobs
        state of each worker job that has not ended, with the scheduler's reason, by job number
    failures
        what went wrong, each with `what` (one line) and `times`; the most frequent first
    warnings
        warnings, in the same form
    time_left
        seconds until the maximum number of iterations, at the pace of the last ones
    core_hours
        cores of the workers times the hours for which they were held, over all starts
    figure
        path of the newest picture
    figure_time
        time of that picture, s since 1970
    report
        path of the report
    dashboard
        address of Dask's dashboard, while the driver is alive
    dashboard_command
        command that makes this address work on another machine
    """

    state: str
    stage: str | None
    reason: str
    go_on: str | None
    since: float | None
    started: float | None
    starts: int
    folder: str
    site: str | None
    launch: str | None
    layout: str | None
    host: str | None
    pid: int | None
    job: str | None
    heartbeat_age: float | None
    iteration: int | None
    iterations: int | None
    evaluations: int
    misfit: float | None
    initial_misfit: float | None
    model_error: float | None
    shots_done: int
    shots_total: int
    workers: list[WorkerStatus]
    workers_planned: int | None
    hosts: list[HostStatus]
    jobs: dict[str, str]
    failures: list[Often]
    warnings: list[Often]
    time_left: float | None
    core_hours: float
    figure: str | None
    figure_time: float | None
    report: str | None
    dashboard: str | None
    dashboard_command: str | None

    @property
    def over(self) -> bool:
        """Whether nobody is at work on it any more."""
        return self.state in (*ENDED, "killed")

    def as_json(self) -> dict[str, Any]:
        """All of it in the types of JSON."""
        return asdict(self)
