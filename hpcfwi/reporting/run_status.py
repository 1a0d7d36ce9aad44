"""What ``hpcfwi status`` tells of a run: the fields of its JSON.

``python -m hpcfwi.reporting.run_status`` prints the table of them that README has.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hpcfwi.events.state import ENDED

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
    """How a run stands; None is what is not known.

    Attributes
    ----------
    state
        `running`, `done`, `stopped` (can be continued), `failed`, `killed` (its driver is gone without a word), `perhaps dead`
        (its driver, on another host, has no heartbeat, but not for long enough), or `new` (nothing has run there)
    stage
        what it is at: `starting`, `waiting` (for the first worker), `data`, `inverting` or `finishing`; of a run that was
        killed, what it was at; else null
    reason
        why it is done, has stopped or failed; else empty
    go_on
        the command that continues it; null where there is nothing to continue, or somebody is at it
    since
        when it came into its stage or state, s since 1970
    started
        when the last driver began, s since 1970
    starts
        how many drivers have begun
    folder
        the run folder
    site
        name of the site
    launch
        how workers are started: `local`, `jobs` or `allocation`
    layout
        how a node is divided, in words
    host
        host of the driver
    pid
        its process
    job
        the batch job that it is in
    heartbeat_age
        seconds since its last sign of life, which it gives every five; null where there is no driver
    iteration
        the last one that is done; 0 is the initial model
    iterations
        how many there are at most
    evaluations
        evaluations of misfit and gradient that are done
    misfit
        that of the last iteration
    initial_misfit
        that of the initial model
    model_error
        norm(vp - vp_true) / norm(vp_true) after the last iteration
    shots_done
        shots of the evaluation, or of the data, that is under way
    shots_total
        of how many
    workers
        those that are there: `host`, `name`, `shots`, `seconds` of each
    workers_planned
        how many are wanted
    hosts
        where workers are or shots were done: `host`, `workers`, `shots` of each
    jobs
        state of each worker job that has not ended, with the scheduler's reason, by its number
    failures
        what went wrong, each with `what` (a line) and `times`; the most frequent first
    warnings
        the same of warnings
    time_left
        seconds until the last iteration, at most, at the pace of the last ones
    core_hours
        cores of workers times the hours for which they were held, all starts together
    figure
        the newest picture
    figure_time
        when it was drawn, s since 1970
    report
        the report
    dashboard
        address of Dask's dashboard, while the driver is alive
    dashboard_command
        what makes that address lead there from another machine
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
