"""The status of a run, read from its folder without changing or locking anything; ``hpcfwi status`` shows it."""

from __future__ import annotations

import difflib
import math
import os
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from hpcfwi.errors import InputError
from hpcfwi.events.lease import HEARTBEAT_INTERVAL_S, Liveness
from hpcfwi.events.log import Follower
from hpcfwi.events.state import ENDED, RunState, one_line
from hpcfwi.io import parse_json, require_regular_file, shortened
from hpcfwi.reporting.formatting import natural_order

# A single reading waits this long for a heartbeat.
HEARTBEAT_TIMEOUT_S = HEARTBEAT_INTERVAL_S + 1
# Files are read again this often before a run counts as ended, because its last events may not be visible yet.
MAX_REREADS = 3
# A folder with one of these files is a run folder.
RUN_FILES = ("problem.json", "events.jsonl", "driver.json", "result.json")
# Default folder of runs, and the number of runs that a message names.
RUNS, MAX_NAMED_RUNS = Path("runs"), 5
MAX_TEXT_LENGTH = 1000


@dataclass(frozen=True)
class WorkerStatus:
    """A connected worker process."""

    host: Annotated[str, "host that it runs on"]
    name: Annotated[str, "Dask's name for it"]
    shots: Annotated[int, "shots that it has done"]
    seconds: Annotated[float, "time that these took, s"]


@dataclass(frozen=True)
class HostStatus:
    """A host that has workers, or has done shots."""

    host: Annotated[str, "name"]
    workers: Annotated[int, "connected workers"]
    shots: Annotated[int, "shots done on it, in all starts"]


@dataclass(frozen=True)
class MessageCount:
    """A message, and how often it was logged."""

    message: Annotated[str, "what happened, in one line"]
    count: Annotated[int, "how often"]


@dataclass(frozen=True)
class RunStatus:
    """The status of a run; None is unknown."""

    state: Annotated[
        str,
        "`new` (nothing has run there), `running`, `done`, `stopped` (can be continued), `failed`, `killed` (its driver died "
        "without logging why), or `unresponsive` (its driver, on another host, sends no heartbeat, but may be alive)",
    ]
    phase: Annotated[
        str | None,
        "the phase that it is in, or was in when it was killed: `starting`, `waiting` (for the first worker), `data`, "
        "`inverting` or `finishing`; else null",
    ]
    reason: Annotated[str, "why it is done, stopped or failed; else empty"]
    resume_command: Annotated[
        str | None, "the command that continues it; null if it runs, is done, or is an open objective"
    ]
    since: Annotated[float | None, "when it entered its state or phase, s since 1970"]
    started: Annotated[float | None, "when the last driver began, s since 1970"]
    starts: Annotated[int, "how many drivers have begun"]
    folder: Annotated[str, "the run folder"]
    site: Annotated[str | None, "name of the site"]
    launch: Annotated[str | None, "how workers are started: `local`, `jobs` or `allocation`"]
    layout: Annotated[str | None, "how a node is divided among worker processes, in words"]
    host: Annotated[str | None, "host of the driver"]
    pid: Annotated[int | None, "process of the driver"]
    job: Annotated[str | None, "batch job of the driver"]
    heartbeat_age: Annotated[float | None, "seconds since the driver's last heartbeat; null without a driver"]
    stage: Annotated[str | None, "number and name of the inversion's stage; null without stages"]
    stages: Annotated[int, "how many stages the inversion has"]
    iteration: Annotated[int | None, "last finished iteration; 0 is the initial model"]
    iterations: Annotated[int | None, "limit of iterations"]
    evaluations: Annotated[int, "finished evaluations of misfit and gradient"]
    misfit: Annotated[float | None, "misfit after the last iteration"]
    initial_misfit: Annotated[float | None, "misfit of the initial model, or of the first one of the stage"]
    model_error: Annotated[float | None, "norm(vp - vp_true) / norm(vp_true) after the last iteration"]
    shots_done: Annotated[int, "finished shots of the current evaluation, or of the observed data"]
    shots_total: Annotated[int, "shots of the current evaluation, or of the observed data"]
    workers: Annotated[list[WorkerStatus], "connected workers: `host`, `name`, `shots`, `seconds` of each"]
    workers_planned: Annotated[int | None, "planned worker processes"]
    hosts: Annotated[list[HostStatus], "hosts with workers or finished shots: `host`, `workers`, `shots` of each"]
    jobs: Annotated[dict[str, str], "state of each unfinished worker job, with the scheduler's reason, by job number"]
    failures: Annotated[list[MessageCount], "what went wrong, each with `message` and `count`; the most frequent first"]
    warnings: Annotated[list[MessageCount], "the same for warnings"]
    time_left: Annotated[
        float | None, "seconds to the limit of iterations, or that of the stage, at the pace of the last ones"
    ]
    core_hours: Annotated[float, "cores of the workers times the hours for which they were held, in all starts"]
    figure: Annotated[str | None, "path of the newest figure"]
    figure_time: Annotated[float | None, "when it was drawn, s since 1970"]
    report: Annotated[str | None, "path of the report"]
    dashboard: Annotated[str | None, "address of Dask's dashboard, while the driver is alive"]
    dashboard_command: Annotated[str | None, "command that makes the dashboard reachable from another machine"]

    @property
    def ended(self) -> bool:
        """Whether it has ended; no driver works on it."""
        return self.state in (*ENDED, "killed")


def run_status(path: Path | str) -> RunStatus:
    """Read the status of a run from its folder, on any host that sees it, without changing anything.

    Parameters
    ----------
    path
        The run folder, its name in ``runs``, or a configuration whose run is there.

    Returns
    -------
    RunStatus

    Raises
    ------
    InputError
        If there is no run, or it cannot be read.
    """
    return StatusReader(find_run(Path(path))).read(HEARTBEAT_TIMEOUT_S)


@dataclass(frozen=True)
class Condition:
    """State, phase and reason of a run, as in :class:`RunStatus`."""

    state: str
    phase: str | None = None
    reason: str = ""


def read_result(folder: Path) -> dict[str, Any]:
    """The content of ``result.json``; empty if it is missing or malformed."""
    with suppress(OSError, ValueError):
        content = parse_json(require_regular_file(folder / "result.json").read_bytes())
        return content if isinstance(content, dict) else {}
    return {}


def judge(state: RunState, liveness: Liveness, result: dict[str, Any]) -> Condition:
    """Find the condition; a killed driver logs no end, and one that closes its workers still holds its lease."""
    done, ended, holder, start = result.get("state") == "done", state.state in ENDED, liveness.holder, state.start
    # after it has logged its end, a driver only closes its workers
    closing = ended and (holder is None or (start is not None and (holder.pid, holder.host) == (start.pid, start.host)))
    alive = False if closing else liveness.alive
    if alive and not (ended and done):
        return Condition("running", "starting" if ended or state.state == "new" else state.state)
    if done:
        summary = result.get("summary")
        message = summary.get("message") if isinstance(summary, dict) else None
        return Condition("done", None, message if isinstance(message, str) else state.reason)
    if state.state == "done":
        return Condition("stopped", None, "the finished run was started again")
    if ended or state.state == "new":
        return Condition(state.state, None, state.reason.strip())
    return Condition("killed" if alive is False else "unresponsive", state.state)


class StatusReader:
    """Reads the status of the run in a folder repeatedly."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._follower = Follower(folder / "events.jsonl")
        self._liveness = Liveness(folder / "driver.json")

    def read(self, wait_s: float = 0.0, on_wait: Callable[[], None] = lambda: None) -> RunStatus:
        """Read the status; raises InputError if the folder cannot be read.

        If only a heartbeat can show whether the driver is alive, wait for one for ``wait_s``, after calling ``on_wait``.
        """
        try:
            self.folder.stat()
            return self._status(self._condition(wait_s, on_wait))
        except OSError as error:
            raise InputError(
                f"{error.filename or self.folder}: cannot be read ({error.strerror or error}); hpcfwi status needs permission "
                "to read the run folder"
            ) from None

    def _condition(self, wait_s: float, on_wait: Callable[[], None]) -> Condition:
        found, _ = self._judge()
        if found.state == "unresponsive" and wait_s > 0:
            on_wait()
            self._liveness.watch(wait_s)
            found, _ = self._judge()
        for _ in range(MAX_REREADS):
            if found.state not in ("killed", "stopped"):
                break
            found, new = self._judge()
            if not new:
                break
        return found

    def _judge(self) -> tuple[Condition, bool]:
        """Read the files; returns the condition, and whether there were new events."""
        new = self._follower.read()
        self._liveness.check()
        return judge(self._follower.state, self._liveness, read_result(self.folder)), new

    def _status(self, found: Condition) -> RunStatus:
        state, liveness = self._follower.state, self._liveness
        start, running, interrupted = state.start, found.state == "running", found.state in ("killed", "unresponsive")
        # a driver that has just begun has a lease before it has events
        driver = liveness.holder or start
        # the workers of a killed driver end soon after it
        present = running or found.state == "unresponsive"
        workers = [WorkerStatus(w.host, w.name, w.shots, w.seconds) for w in state.workers.values()] if present else []
        workers.sort(key=lambda worker: (natural_order(worker.host), natural_order(worker.name)))
        on_hosts = Counter(worker.host for worker in workers)
        hosts = sorted({*on_hosts, *state.shots_on}, key=natural_order)
        figure_time, figure = max(self._figures(), default=(None, None))
        report = self.folder / "report.html"
        dashboard = state.dashboard if running else None
        return RunStatus(
            state=found.state,
            phase=found.phase,
            reason=shortened(found.reason, 2 * MAX_TEXT_LENGTH),
            resume_command=self._resume_command() if interrupted or found.state in ("stopped", "failed") else None,
            since=state.last if interrupted else state.since,
            started=start.time if start else None,
            starts=state.starts,
            folder=str(self.folder),
            site=_short(start.site) if start else None,
            launch=_short(start.launch) if start else None,
            layout=_short(start.layout) if start else None,
            host=_short(driver.host) if driver else None,
            pid=driver.pid if driver else None,
            job=_short(driver.job) if driver else None,
            heartbeat_age=round(max(0.0, liveness.heartbeat_age), 3) if liveness.exists else None,
            stage=f"{state.stage.stage}, {_short(state.stage.title)}" if state.stage else None,
            stages=state.stage.stages if state.stage else 1,
            iteration=state.iteration,
            iterations=state.iterations or None,
            evaluations=state.evaluation,
            misfit=state.misfit,
            initial_misfit=state.initial_misfit,
            model_error=state.model_error,
            shots_done=state.shots_done,
            shots_total=state.shots_total,
            workers=workers,
            workers_planned=start.workers_planned if start else None,
            hosts=[HostStatus(host, on_hosts[host], state.shots_on[host]) for host in hosts],
            jobs=dict(state.jobs) if present else {},
            failures=_most_frequent_first(state.failures),
            warnings=_most_frequent_first(state.warnings),
            time_left=_finite(state.time_left) if running else None,
            core_hours=_finite(round(state.core_hours(time.time() if running else state.last), 6)) or 0.0,
            figure=figure,
            figure_time=figure_time,
            report=str(report) if report.is_file() else None,
            dashboard=_short(dashboard.address) if dashboard else None,
            dashboard_command=_short(dashboard.command) if dashboard else None,
        )

    def _figures(self) -> Iterator[tuple[float, str]]:
        """Times and paths of the figures."""
        for path in (self.folder / "figures").glob("*.png"):
            with suppress(OSError):  # it may be replaced at this moment
                yield round(path.stat().st_mtime, 3), str(path)

    def _resume_command(self) -> str | None:
        """The command that continues the run with the configuration in its folder."""
        config, start = self.folder / "config.toml", self._follower.state.start
        if not config.is_file() or self._follower.state.opened:  # only that program knows how to go on
            return None
        words = ["hpcfwi", "run", str(config), "--run-dir", str(self.folder)]
        if start is not None:
            words += ["--site", start.site] if start.site not in ("", "workstation") else []
            words += start.options or []
        return shlex.join(map(one_line, words))


def find_run(path: Path, command: str = "status") -> Path:
    """The run folder at a path, with a name in ``runs``, or of a configuration.

    If there is none, an InputError names other runs, and what to type for ``command`` of hpcfwi.
    """
    named = shortened(str(path))
    try:
        folders = [RUNS / path.name] if path.name == str(path) else []
        if path.is_file() or path.suffix == ".toml":  # a configuration, perhaps that in a run folder
            folders += [RUNS / path.stem, path.parent]
        for folder in [path] if path.is_dir() else folders:
            if _is_run_folder(folder):
                return folder
        problem = "is not a run folder" if path.is_dir() else "no such run folder"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{named}: cannot be read ({reason}); name a run folder that you may read") from None
    raise InputError(f"{named}: {problem}{_alternatives(path, command)}")


def _is_run_folder(path: Path) -> bool:
    return path.is_dir() and any((path / name).exists() for name in RUN_FILES)


def _alternatives(path: Path, command: str) -> str:
    """The end of a message: runs with similar names, and what to type."""
    runs = _runs_in(path) or _runs_in(RUNS) or _runs_in(path.parent)
    if not runs:
        where = "runs/<name of the configuration>, in filesystem.runs of a site, or the folder that --run-dir names"
        return f"; hpcfwi run makes one: {where}"
    alike = difflib.get_close_matches(path.name, [run.name for run in runs], MAX_NAMED_RUNS, 0.5)
    runs.sort(key=lambda run: alike.index(run.name) if run.name in alike else MAX_NAMED_RUNS)
    more = f", and {len(runs) - MAX_NAMED_RUNS} more in {runs[0].parent}" if len(runs) > MAX_NAMED_RUNS else ""
    names = ", ".join(map(str, runs[:MAX_NAMED_RUNS]))
    return f"; there are {names}{more}\n  Type: {shlex.join(['hpcfwi', command, str(runs[0])])}"


def _runs_in(folder: Path) -> list[Path]:
    """The run folders in a folder, the newest first."""
    found = []
    with suppress(OSError, ValueError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if _is_run_folder(folder / entry.name):
                    found.append((entry.stat().st_mtime, folder / entry.name))
    return [path for _, path in sorted(found, reverse=True)]


def _most_frequent_first(counts: Counter[str]) -> list[MessageCount]:
    """The most frequent first, then the latest."""
    latest_first = Counter(dict(reversed(counts.items())))
    return [MessageCount(*each) for each in latest_first.most_common()]


def _short(text: str | None) -> str | None:
    return shortened(text, MAX_TEXT_LENGTH) if text else None


def _finite(value: float | None) -> float | None:
    # with the numbers of a damaged log, sums and products overflow
    return value if value is not None and math.isfinite(value) else None
