"""How a run stands, from its files alone: what ``hpcfwi status`` shows. Nothing of a run folder is changed or locked."""

from __future__ import annotations

import difflib
import math
import os
import re
import shlex
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpcfwi.errors import InputError
from hpcfwi.events.lease import HEARTBEAT_INTERVAL_S, Liveness
from hpcfwi.events.log import Follower
from hpcfwi.events.state import ENDED
from hpcfwi.events.types import RunStarted
from hpcfwi.io import parse_json, require_regular_file, shortened
from hpcfwi.reporting.run_status import HostStatus, Often, RunStatus, WorkerStatus

__all__ = ["StatusReader", "_runs_in", "find_run", "is_run_folder", "run_status"]

# Larger ones are nobody's.
LARGEST = 2**62
# How often it is looked again before a run counts as killed.
LOOKS = 3


def run_status(path: Path | str) -> RunStatus:
    """Tell how a run stands, from its folder alone, on any host that sees it; nothing in it is changed.

    Parameters
    ----------
    path
        The run folder, or the name or path of a configuration whose run is in ``runs``.

    Returns
    -------
    RunStatus

    Raises
    ------
    InputError
        If there is no run, or it must not be read.
    """
    return StatusReader(find_run(Path(path))).read(HEARTBEAT_INTERVAL_S + 1)


class StatusReader:
    """Tells again and again how a run stands.

    Parameters
    ----------
    folder
        The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._follower = Follower(folder / "events.jsonl")
        self._pulse = Liveness(folder / "driver.json")

    def read(self, patience: float = 0.0, watching: Callable[[], None] = lambda: None) -> RunStatus:
        """How it stands now.

        Parameters
        ----------
        patience
            Seconds for which a heartbeat is waited for where else it cannot be told whether the driver is alive.
        watching
            Called before that.

        Raises
        ------
        InputError
            If the folder is gone, or must not be read.
        """
        try:
            self.folder.stat()
            return self._read(patience, watching)
        except OSError as error:
            raise InputError(
                f"{error.filename or self.folder}: cannot be read ({error.strerror or error}); hpcfwi status needs a run "
                "folder that it may read, and nothing else"
            ) from None

    def _read(self, patience: float, watching: Callable[[], None]) -> RunStatus:
        self._look()
        state, stage, reason = self._judge()
        if state == "perhaps dead" and patience > 0:
            watching()
            self._pulse.watch(patience)
            self._look()
            state, stage, reason = self._judge()
        # what a driver has told at its end may have come between the two looks, or another one
        for _ in range(LOOKS):
            if state not in ("killed", "stopped"):
                break
            news = self._look()
            state, stage, reason = self._judge()
            if not news:
                break
        return self._status(state, stage, reason)

    def _look(self) -> bool:
        news = self._follower.read()
        self._pulse.check()
        return news

    def _judge(self) -> tuple[str, str | None, str]:
        """State, stage and reason."""
        told, pulse = self._follower.state, self._pulse
        result = self._result()
        done = result is not None and result.get("state") == "done"
        ended = told.state in ENDED
        alive = False if ended and (pulse.holder is None or self._is_of(told.start)) else pulse.alive
        if alive and not (ended and done):
            return "running", "starting" if ended or told.state == "new" else told.state, ""
        if done:
            summary = result.get("summary") if result is not None else None
            return "done", None, _text(summary.get("message") if isinstance(summary, dict) else "") or ""
        if told.state == "done":
            return "stopped", None, "it was begun again after it was done"
        if ended or told.state == "new":
            return told.state, None, told.reason.strip()
        return "killed" if alive is False else "perhaps dead", told.state, ""

    def _is_of(self, start: RunStarted | None) -> bool:
        """Whether the lease is that of the driver that began last."""
        holder = self._pulse.holder
        return holder is not None and start is not None and (holder.pid, holder.host) == (start.pid, start.host)

    def _result(self) -> dict[str, Any] | None:
        try:
            content = parse_json(require_regular_file(self.folder / "result.json").read_bytes())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def _status(self, state: str, stage: str | None, reason: str) -> RunStatus:
        told, pulse = self._follower.state, self._pulse
        start, running = told.start, state == "running"
        # a driver that has only just begun has not told of itself
        holder = pulse.holder
        driver = holder or start
        figure = self._figure()
        # workers of a driver that was killed are gone soon after it
        workers = list(told.workers.values()) if running or state == "perhaps dead" else []
        now = time.time() if running else told.last
        return RunStatus(
            state=state,
            stage=stage,
            reason=shortened(reason, 2000),
            go_on=self._command(start) if state in ("stopped", "failed", "killed", "perhaps dead") else None,
            # of a driver that has said nothing of its end its last word is known
            since=_number(told.last if state in ("killed", "perhaps dead") else told.since),
            started=_number(start and start.time),
            starts=_whole(told.starts) or 0,
            folder=str(self.folder),
            site=_text(start and start.site),
            launch=_text(start and start.launch),
            layout=_text(start and start.layout),
            host=_text(driver and driver.host),
            pid=_whole(driver and driver.pid),
            job=_text(driver and driver.job),
            heartbeat_age=round(max(0.0, pulse.heartbeat_age), 3) if pulse.exists else None,
            iteration=_whole(told.iteration),
            iterations=_whole(told.iterations) or None,
            evaluations=_whole(told.evaluation) or 0,
            misfit=_number(told.misfit),
            initial_misfit=_number(told.initial_misfit),
            model_error=_number(told.model_error),
            shots_done=_whole(told.shots_done) or 0,
            shots_total=_whole(told.shots_total) or 0,
            workers=sorted(
                (WorkerStatus(w.host, w.name, _whole(w.shots) or 0, _number(w.seconds) or 0.0) for w in workers),
                key=lambda worker: (_in_order(worker.host), _in_order(worker.name)),
            ),
            workers_planned=_whole(start and start.workers_planned),
            hosts=_hosts(Counter(worker.host for worker in workers), told.shots_on),
            jobs=dict(told.jobs) if running or state == "perhaps dead" else {},
            failures=_often(told.failures),
            warnings=_often(told.warnings),
            time_left=_number(_computed(lambda: told.time_left)) if running else None,
            core_hours=_number(_computed(lambda: round(told.core_hours(now), 6))) or 0.0,
            figure=str(figure[1]) if figure else None,
            figure_time=round(figure[0], 3) if figure else None,
            report=str(self.folder / "report.html") if (self.folder / "report.html").is_file() else None,
            dashboard=_text(told.dashboard.address) if running and told.dashboard else None,
            dashboard_command=_text(told.dashboard.command) if running and told.dashboard else None,
        )

    def _figure(self) -> tuple[float, Path] | None:
        """The newest picture, and when it was drawn."""
        found = []
        with suppress(OSError), os.scandir(self.folder / "figures") as entries:
            for entry in entries:
                if entry.name.endswith(".png"):
                    with suppress(OSError):  # it is just being replaced
                        found.append((entry.stat().st_mtime, self.folder / "figures" / entry.name))
        return max(found, default=None)

    def _command(self, start: RunStarted | None) -> str | None:
        """What continues the run, with the configuration that it has kept."""
        config, site = self.folder / "config.toml", _text(start and start.site)
        if not config.is_file():
            return None
        words = ["hpcfwi", "run", str(config), "--run-dir", str(self.folder)]
        return shlex.join([*words, *(["--site", site] if site not in (None, "", "workstation") else [])])


def _hosts(workers: Counter[str], shots: Counter[str]) -> list[HostStatus]:
    names = sorted({*workers, *shots}, key=_in_order)
    return [HostStatus(name, workers[name], _whole(shots[name]) or 0) for name in names]


def _in_order(name: str) -> list[tuple[int, str]]:
    """A key that puts node10 after node9."""
    return [
        (int(part[:18]), "") if part.isdigit() and part.isascii() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def _often(times: Counter[str]) -> list[Often]:
    """The most frequent first, and of those that are as frequent the last."""
    last_first = reversed([Often(what, _whole(count) or 0) for what, count in times.items()])
    return sorted(last_first, key=lambda one: -one.times)


def _whole(value: Any) -> int | None:
    sound = isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST
    return value if sound else None


def _number(value: Any) -> float | None:
    sound = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST * 1e200
    return float(value) if sound and math.isfinite(value) else None


def _text(value: Any) -> str | None:
    return shortened(value, 1000) if isinstance(value, str) and value else None


def _computed(compute: Callable[[], float | None]) -> float | None:
    """A number that is computed from others, which may be of any size in a file that somebody has been at."""
    with suppress(OverflowError):
        return compute()
    return None


# One of them is there from the first moment on.
MARKS = ("problem.json", "events.jsonl", "driver.json", "result.json")
# Where runs are unless told otherwise, and how many are named.
RUNS, NAMED = Path("runs"), 5


def is_run_folder(path: Path) -> bool:
    """Whether a run is there, or was.

    Raises
    ------
    OSError
        If it must not be looked into.
    """
    return any((path / name).exists() for name in MARKS)


def _runs_in(folder: Path) -> list[Path]:
    """The run folders in a folder, the newest first."""
    found = []
    with suppress(OSError, ValueError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir() and is_run_folder(folder / entry.name):
                    found.append((entry.stat().st_mtime, folder / entry.name))
    return [path for _, path in sorted(found, reverse=True)]


def find_run(path: Path) -> Path:
    """The run folder that is meant by its path, by its name in ``runs``, or by a configuration whose run is there.

    Raises
    ------
    InputError
        If there is none; with those that there are.
    """
    named = shortened(str(path))
    try:
        if path.is_dir():
            if is_run_folder(path):
                return path
        else:
            for folder in (RUNS / path.name, RUNS / path.stem, path.parent):
                if folder.is_dir() and is_run_folder(folder) and (folder != path.parent or path.is_file()):
                    return folder
        here = path.is_dir()
    except (OSError, ValueError) as error:  # no path at all, or one that may not be looked at
        raise InputError(
            f"{named}: cannot be read ({getattr(error, 'strerror', None) or error}); give a run folder that you may read"
        ) from None
    raise InputError(f"{named}: {'is no run folder' if here else 'there is no such run folder'}{_others(path)}")


def _others(path: Path) -> str:
    """What may have been meant."""
    runs = _runs_in(path) or _runs_in(RUNS) or _runs_in(path.parent)
    if not runs:
        return "; hpcfwi run makes one, runs/<name of its configuration> unless --run-dir says otherwise"
    alike = difflib.get_close_matches(path.name, [run.name for run in runs], NAMED, 0.5)
    named = sorted(runs, key=lambda run: alike.index(run.name) if run.name in alike else NAMED)[:NAMED]
    more = f", and {len(runs) - NAMED} more in {runs[0].parent}" if len(runs) > NAMED else ""
    return f"; there are {', '.join(map(str, named))}{more}\n  Type: {shlex.join(['hpcfwi', 'status', str(named[0])])}"
