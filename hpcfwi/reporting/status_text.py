"""A run's status in words: rows for a terminal, lines for a pipe."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpcfwi.io import printable
from hpcfwi.reporting.formatting import ago, counted, duration, hours, moment
from hpcfwi.reporting.run_status import Often, RunStatus

__all__ = ["changes", "one_line", "status_lines", "status_table_view"]

# Hosts, failures and warnings that are shown; cells of a bar.
MOST, BAR = 8, 30
STAGES = {
    "starting": "starting",
    "waiting": "waiting for workers",
    "data": "making or reading the observed data",
    "inverting": "inverting",
    "finishing": "writing results",
}
Row = tuple[str, str]


def status_lines(status: RunStatus, now: float | None = None) -> list[str]:
    """Plain lines, a name and what there is to say of it in each."""
    rows = _rows(status, time.time() if now is None else now)
    return [f"{name:<12} {printable(text)}".rstrip() for name, text in rows]


def status_table_view(status: RunStatus) -> Group:
    """The same for a terminal."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(status, time.time()):
        # what can be copied has to stay as it is
        shown: Any = Text(printable(text), style="bold" if name == "state" else "", overflow="fold")
        if name == "shots":
            shown = Table.grid(padding=(0, 2))
            bar = ProgressBar(status.shots_total or 1, min(status.shots_done, status.shots_total or 1), BAR)
            shown.add_row(bar, Text(_shots(status)))
        table.add_row(name, shown)
    return Group(table)


def one_line(status: RunStatus) -> str:
    """How it stands, as short as can be."""
    told = [_state(status)]
    if status.iteration is not None:
        told.append(f"iteration {_iteration(status)}")
    if status.evaluations:
        told.append(counted(status.evaluations, "evaluation"))
    if status.misfit is not None:
        told.append(f"misfit {_misfit(status)}")
    if status.state == "running":
        told.append(_workers(status))
    if status.time_left:
        told.append(f"at most {duration(status.time_left)} left")
    return printable(", ".join(told))


def changes(before: RunStatus | None, now: RunStatus) -> list[str]:
    """Lines for what has changed between two looks, shots left out; empty where nothing has."""
    lines = [] if before is not None and one_line(before) == one_line(now) else [one_line(now)]
    for name in ("failures", "warnings"):
        known = {one.what: one.times for one in getattr(before, name, [])}
        new = [one for one in getattr(now, name) if one.times > known.get(one.what, 0)]
        lines += [f"{name[:-1]}: {printable(_often(one))}" for one in new[:MOST]]
    return lines


def _rows(status: RunStatus, now: float) -> list[Row]:
    rows: list[Row | None] = [
        ("state", _state(status)),
        _some("since", status.since, lambda when: f"{moment(when)} ({ago(now - when)})"),
        _some("go on with", status.go_on, str),
        ("run folder", status.folder),
        _some("site", ", ".join(filter(None, (status.site, status.launch, status.layout))), str),
        _some("driver", _driver(status), str),
        _some("iteration", status.iteration, lambda _: _iteration(status)),
        _some("evaluations", _evaluations(status), str),
        ("shots", f"{_bar(status)} {_shots(status)}") if status.shots_total and status.state != "done" else None,
        _some("misfit", status.misfit, lambda _: _misfit(status)),
        _some("model error", status.model_error, lambda error: f"{100 * error:.2f} %"),
        ("workers", _workers(status)) if not _gone(status) else None,
        *((("hosts" if _gone(status) and not number else ""), line) for number, line in enumerate(_hosts(status))),
        _some("jobs", ", ".join(f"{times} {what}" for what, times in Counter(status.jobs.values()).most_common()), str),
        *_listed("failures", status.failures),
        *_listed("warnings", status.warnings),
        _some(
            "time left", status.time_left, lambda left: f"at most {duration(left)}, at the pace of the last iterations"
        ),
        ("core-hours", hours(status.core_hours).partition(" ")[0]),
        _some("last figure", status.figure, lambda path: f"{path} ({ago(now - (status.figure_time or now))})"),
        _some("report", status.report, str),
        _some("dashboard", status.dashboard, str),
        _some("", status.dashboard_command, str),
    ]
    return [row for row in rows if row is not None]


def _some(name: str, value: Any, told: Any) -> Row | None:
    return (name, told(value)) if value not in (None, "") else None


def _state(status: RunStatus) -> str:
    first = status.reason.partition("\n")[0]
    if status.state == "running":
        stage = STAGES.get(status.stage or "", status.stage or "")
        alone = not status.workers and status.stage in ("data", "inverting")
        return f"running: {stage}{', but no worker is there' if alone else ''}"
    if status.state == "killed":
        return f"killed: its driver has ended without a word while it was {_stage(status)}"
    if status.state == "perhaps dead":
        age = duration(status.heartbeat_age or 0.0)
        return f"perhaps dead: no heartbeat for {age} while it was {_stage(status)}; --watch knows in half a minute"
    if status.state == "new":
        return "new: nothing has run here yet"
    return f"{status.state}: {first}" if first else status.state


def _stage(status: RunStatus) -> str:
    return STAGES.get(status.stage or "", "at work")


def _gone(status: RunStatus) -> bool:
    """Whether there are no workers that one could speak of."""
    return status.state not in ("running", "perhaps dead")


def _driver(status: RunStatus) -> str:
    if status.host is None:
        return ""
    job = f", job {status.job}" if status.job else ""
    last = "last heartbeat" if status.over else "heartbeat"
    beat = f"; {last} {ago(status.heartbeat_age)}" if status.heartbeat_age is not None else "; it has ended"
    which = f"; start {status.starts}" if status.starts > 1 else ""
    return f"process {status.pid} on {status.host}{job}{which}{beat}"


def _iteration(status: RunStatus) -> str:
    most = f" of {status.iterations} at most" if status.iterations and not status.over else ""
    return f"{status.iteration}{most}"


def _evaluations(status: RunStatus) -> str:
    under_way = status.stage == "inverting" and status.shots_done < status.shots_total
    return f"{status.evaluations} done{f', {status.evaluations + 1} under way' if under_way else ''}"


def _bar(status: RunStatus) -> str:
    share = min(1.0, status.shots_done / status.shots_total) if status.shots_total else 0.0
    full = int(max(0.0, share) * BAR)
    return f"[{'#' * full}{'.' * (BAR - full)}]"


def _shots(status: RunStatus) -> str:
    what = "of the observed data" if status.stage == "data" else "of this evaluation"
    return f"{status.shots_done} of {status.shots_total}{f' {what}' if not status.over else ''}"


def _misfit(status: RunStatus) -> str:
    ratio = ""
    if status.misfit is not None and status.initial_misfit:
        ratio = f", {status.misfit / status.initial_misfit:.4g} of the initial one"
    return f"{status.misfit:.6g}{ratio}"


def _workers(status: RunStatus) -> str:
    planned, there = status.workers_planned, len({worker.host for worker in status.workers})
    hosts = f" on {counted(there, 'host')}" if there else ""
    if planned:
        return f"{len(status.workers)} of {counted(planned, 'worker')}{hosts}"
    return f"{counted(len(status.workers), 'worker')}{hosts}"


def _hosts(status: RunStatus) -> list[str]:
    """Those with workers first; what does not fit is summed up."""
    hosts = sorted(status.hosts, key=lambda host: not host.workers)
    shown = hosts if len(hosts) <= MOST else hosts[: MOST - 1]
    lines = [f"{host.host}: {_work(host.workers, host.shots)}" for host in shown]
    rest = hosts[len(shown) :]
    if rest:
        workers, shots = sum(host.workers for host in rest), sum(host.shots for host in rest)
        lines.append(f"and {len(rest)} more hosts: {_work(workers, shots)}")
    return lines


def _work(workers: int, shots: int) -> str:
    there = f"{counted(workers, 'worker')}, " if workers else ""
    return f"{there}{counted(shots, 'shot')}"


def _listed(name: str, things: list[Often]) -> list[Row]:
    rows = [(name if not number else "", _often(one)) for number, one in enumerate(things[:MOST])]
    more = len(things) - MOST
    return [*rows, ("", f"and {more} more; --json and events.jsonl have them")] if more > 0 else rows


def _often(one: Often) -> str:
    return f"{one.what}{f' ({one.times} times)' if one.times > 1 else ''}"
