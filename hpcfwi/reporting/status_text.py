"""The status of a run as text: a table for a terminal, lines for a pipe."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpcfwi.io import printable
from hpcfwi.reporting.formatting import ago, counted, date_time, duration
from hpcfwi.reporting.status import Condition, HostStatus, MessageCount, RunStatus

# Rows of hosts, failures and warnings; characters of a progress bar.
MAX_LISTED, BAR_WIDTH = 8, 30
PHASES = {
    "starting": "starting",
    "waiting": "waiting for workers",
    "data": "modelling or reading the observed data",
    "inverting": "inverting",
    "finishing": "writing results",
}


def status_lines(status: RunStatus) -> list[str]:
    """The status as lines for a pipe, each with the name and the value of an item."""
    return [f"{name:<12} {printable(text)}".rstrip() for name, text in _rows(status)]


def status_table(status: RunStatus) -> Group:
    """The status as a table for a terminal."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(status):
        # folded, not wrapped: users copy commands and paths from here
        shown: Any = Text(printable(text), style="bold" if name == "state" else "", overflow="fold")
        if name == "shots":
            shown = Table.grid(padding=(0, 2))
            total = status.shots_total or 1
            shown.add_row(ProgressBar(total, min(status.shots_done, total), BAR_WIDTH), Text(_shots(status)))
        table.add_row(name, shown)
    return Group(table)


def summary_line(status: RunStatus) -> str:
    """State, iteration, evaluations, misfit and workers in one line."""
    parts = [
        describe(status) if status.state == "unresponsive" else _state(status),
        f"stage {status.stage} (of {status.stages})" if status.stage else "",
        f"iteration {_iteration(status)}" if status.iteration is not None else "",
        counted(status.evaluations, "evaluation") if status.evaluations else "",
        f"misfit {_misfit(status)}" if status.misfit is not None else "",
        _workers(status) if status.state == "running" else "",
        f"at most {duration(status.time_left)} left{_of_stage(status)}" if status.time_left else "",
    ]
    return printable(", ".join(filter(None, parts)))


def status_changes(before: RunStatus | None, now: RunStatus) -> list[str]:
    """Lines for the changes between two readings, except those of shots."""
    lines = [] if before is not None and summary_line(before) == summary_line(now) else [summary_line(now)]
    for kind in ("failures", "warnings"):
        known = {each.message: each.count for each in getattr(before, kind, [])}
        new = [each for each in getattr(now, kind) if each.count > known.get(each.message, 0)]
        lines += [f"{kind[:-1]}: {printable(_with_count(each))}" for each in new[:MAX_LISTED]]
    return lines


def _rows(status: RunStatus) -> list[tuple[str, str]]:
    """Names and values of the known items."""
    now, present = time.time(), status.state in ("running", "unresponsive")
    jobs = Counter(status.jobs.values()).most_common()
    left = duration(status.time_left) if status.time_left else None
    evaluating = status.phase == "inverting" and status.shots_done < status.shots_total
    under_way = f", number {status.evaluations + 1} is running" if evaluating else ""
    rows: list[tuple[str, str | list[str] | None]] = [
        ("state", _state(status)),
        ("since", f"{date_time(status.since)} ({ago(now - status.since)})" if status.since else None),
        ("resume with", status.resume_command),
        ("run folder", status.folder),
        ("site", ", ".join(filter(None, (status.site, status.launch, status.layout)))),
        ("driver", _driver(status)),
        ("stage", f"{status.stage}; of {status.stages}" if status.stage else None),
        ("iteration", _iteration(status)),
        ("evaluations", f"{status.evaluations} done{under_way}"),
        ("shots", f"{_bar(status)} {_shots(status)}" if status.shots_total and status.state != "done" else None),
        ("misfit", _misfit(status)),
        ("model error", f"{100 * status.model_error:.2f} %" if status.model_error is not None else None),
        ("workers", _workers(status) if present else None),
        ("" if present else "hosts", _hosts(status)),
        ("jobs", ", ".join(f"{count} {state}" for state, count in jobs)),
        ("failures", _messages(status.failures)),
        ("warnings", _messages(status.warnings)),
        ("time left", left and f"at most {left}{_of_stage(status)}, at the pace of the last iterations"),
        ("core-hours", f"{status.core_hours:.3g}"),
        ("last figure", status.figure and f"{status.figure} ({ago(now - (status.figure_time or now))})"),
        ("report", status.report),
        ("dashboard", status.dashboard),
        ("", status.dashboard_command),
    ]
    items = ((name, text if isinstance(text, list) else [text or ""]) for name, text in rows)
    return [("" if i else name, line) for name, lines in items for i, line in enumerate(lines) if line]


def describe(found: Condition | RunStatus) -> str:
    """The state of a run and, after a colon, its phase or reason."""
    phase = PHASES.get(found.phase or "", "working")
    match found.state:
        case "running":
            return f"running: {phase}"
        case "killed":
            return f"killed: its driver died while it was {phase}, without logging why"
        case "unresponsive":
            return f"unresponsive: while it was {phase}, its driver sent no heartbeat"
        case "new":
            return "new: no run has started here"
    return ": ".join(filter(None, (found.state, found.reason.partition("\n")[0])))


def _state(status: RunStatus) -> str:
    text = describe(status)
    if status.phase in ("data", "inverting") and status.state == "running" and not status.workers:
        text += ", but no worker is connected"
    if status.state == "unresponsive":
        text += f" for {duration(status.heartbeat_age or 0.0)}; --watch shows within 30 s if it is dead"
    return text


def _driver(status: RunStatus) -> str:
    if status.host is None:
        return ""
    job = f", job {status.job}" if status.job else ""
    start = f"; start {status.starts}" if status.starts > 1 else ""
    name = "last heartbeat" if status.ended else "heartbeat"
    beat = f"{name} {ago(status.heartbeat_age)}" if status.heartbeat_age is not None else "it has ended"
    return f"process {status.pid} on {status.host}{job}{start}; {beat}"


def _iteration(status: RunStatus) -> str:
    if status.iteration is None:
        return ""
    return f"{status.iteration}{f' of at most {status.iterations}' if status.iterations and not status.ended else ''}"


def _of_stage(status: RunStatus) -> str:
    return " of this stage" if status.stages > 1 else ""


def _bar(status: RunStatus) -> str:
    full = BAR_WIDTH * min(status.shots_done, status.shots_total) // status.shots_total
    return f"[{'#' * full}{'.' * (BAR_WIDTH - full)}]"


def _shots(status: RunStatus) -> str:
    of_what = "of the observed data" if status.phase == "data" else "of this evaluation"
    return f"{status.shots_done} of {status.shots_total}{f' {of_what}' if not status.ended else ''}"


def _misfit(status: RunStatus) -> str:
    if status.misfit is None or not status.initial_misfit:
        return f"{status.misfit:.6g}" if status.misfit is not None else ""
    of = "first" if status.stages > 1 else "initial"
    return f"{status.misfit:.6g}, {status.misfit / status.initial_misfit:.4g} of the {of} misfit"


def _workers(status: RunStatus) -> str:
    hosts = len({worker.host for worker in status.workers})
    on_hosts = f" on {counted(hosts, 'host')}" if hosts else ""
    planned = f"{len(status.workers)} of {counted(status.workers_planned, 'worker')}" if status.workers_planned else ""
    return f"{planned or counted(len(status.workers), 'worker')}{on_hosts}"


def _hosts(status: RunStatus) -> list[str]:
    """A line for each host, first those with workers; the last line sums up the rest."""
    hosts = sorted(status.hosts, key=lambda host: not host.workers)
    if len(hosts) > MAX_LISTED:
        rest = hosts[MAX_LISTED - 1 :]
        workers, shots = sum(host.workers for host in rest), sum(host.shots for host in rest)
        hosts[MAX_LISTED - 1 :] = [HostStatus(f"and {len(rest)} more hosts", workers, shots)]
    work = (f"{counted(host.workers, 'worker')}, " if host.workers else "" for host in hosts)
    return [f"{host.host}: {text}{counted(host.shots, 'shot')}" for host, text in zip(hosts, work, strict=True)]


def _messages(messages: list[MessageCount]) -> list[str]:
    more = len(messages) - MAX_LISTED
    rest = [f"and {more} more; --json and events.jsonl list them"] if more > 0 else []
    return [*map(_with_count, messages[:MAX_LISTED]), *rest]


def _with_count(each: MessageCount) -> str:
    return f"{each.message}{f' ({each.count} times)' if each.count > 1 else ''}"
