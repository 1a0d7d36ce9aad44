"""The report's words: how a run stands, its summary, and where it ran."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hpcfwi.errors import HpcfwiError
from hpcfwi.events.lease import Liveness
from hpcfwi.inversion.history import History, Row
from hpcfwi.io import parse_json, require_regular_file, shortened
from hpcfwi.reporting.formatting import counted, duration, hours
from hpcfwi.reporting.report.charts import number
from hpcfwi.reporting.report.data import ReportData, RunModels

__all__ = ["Headline", "headline", "machines", "read_rows", "summary"]

STATES = {
    "new": "Nothing has happened yet",
    "starting": "Starting",
    "waiting": "Waiting for workers",
    "data": "Making or reading the data",
    "inverting": "Inverting",
    "finishing": "Drawing pictures",
    "done": "Done",
    "stopped": "Stopped early; the same command continues it",
    "failed": "Failed",
}
AT_WORK = ("starting", "waiting", "data", "inverting", "finishing")
# Workers and lines of other tables.
MOST = 200


@dataclass(frozen=True)
class Headline:
    """The first line: a class for its colour (``good``, ``bad``, ``open``), the state, and why."""

    look: str
    state: str
    reason: str


def headline(run: Path, chronicle: ReportData) -> Headline:
    """How the run stands. Of a driver that was killed the events cannot tell, but its lease does."""
    state, result = chronicle.state, _json(run / "result.json")
    if result.get("state") == "done":
        return Headline("good", STATES["done"], str(_inside(result, "summary").get("message", state.reason)))
    look = {"done": "good", "failed": "bad"}.get(state.state, "open")
    if state.state in AT_WORK:
        pulse = Liveness(run / "driver.json")
        pulse.check()
        driver, alive = pulse.holder or "its driver", pulse.alive
        if not pulse.exists:
            return Headline("bad", "Ended without a word", "no driver is at work on it; the same command continues it")
        if alive is False:
            why = f"{driver} is gone, without a word: killed, or its host was; the same command continues the run"
            return Headline("bad", "Driver gone", why)
        return Headline("open", STATES[state.state], f"{driver} is at work on it" if alive else f"of {driver}")
    return Headline(look, STATES[state.state], state.reason)


def read_rows(run: Path, chronicle: ReportData) -> tuple[list[Row], list[str]]:
    """The iterations, from the history or, where that is not there, from the events; and what is wrong with it."""
    notes = []
    try:
        rows = History(run / "history.csv").rows
        if rows or not chronicle.iterations:
            return rows, []
    except HpcfwiError as error:
        notes.append(f"{error} The iterations are shown as the events have them.")
    rows = []
    names = [field.name for field in fields(Row)]
    for event in (chronicle.iterations.get(i) for i in range(len(chronicle.iterations))):
        if event is None:
            break
        rows.append(Row(*(getattr(event, name) for name in names)))
    return rows, notes


def summary(run: Path, chronicle: ReportData, rows: Sequence[Row], scene: RunModels) -> list[tuple[str, str]]:
    """What one wants to know first: names and values."""
    state, start, result = chronicle.state, chronicle.state.start, _inside(_json(run / "result.json"), "summary")
    told = [("Iterations", _of(rows[-1].iteration if rows else state.iteration, state.iterations))]
    evaluations = max([len(chronicle.evaluations), rows[-1].evaluations if rows else 0])
    told.append(("Evaluations", str(evaluations)))
    if rows:
        last, first = rows[-1], rows[0]
        share = f", {number(100 * last.misfit / first.misfit, 3)} % of the initial one" if first.misfit > 0 else ""
        told.append(("Misfit", f"{number(last.misfit, 6)}{share}"))
        if last.model_error is not None and first.model_error is not None:
            percent = [f"{number(100 * row.model_error, 3)} %" for row in (first, last) if row.model_error is not None]
            told.append(("Model error", " → ".join(percent)))
    grid = scene.domain
    if grid is not None:
        points, spacing = " × ".join(map(str, grid.shape)), " × ".join(f"{h:g}" for h in grid.spacing)
        told.append(("Grid", f"{points} points, {spacing} m"))
    told.append(("Shots", number(len(scene.shots) or (start and start.shots), 8)))
    workers = chronicle.timeline.workers
    told.append(("Workers", f"{chronicle.timeline.came} on {counted(len({w.host for w in workers}), 'host')}"))
    if start:
        told.append(("Layout", shortened(start.layout)))
        told.append(("Site", shortened(f"{start.site} ({start.launch})")))
    if chronicle.ended > chronicle.began:
        paused = sum(pause for _, pause in chronicle.timeline.starts)
        took = duration(min(chronicle.timeline.now, 1e12))
        told.append(("Wall time", took + (f", pauses of {duration(paused)} not counted" if paused >= 1 else "")))
        told.append(("Cost", hours(state.core_hours(chronicle.ended))))
        told.append(("Begun", _day(chronicle.began)))
        told.append(("Last event", _day(chronicle.ended)))
    told.append(("Driver starts", str(state.starts)))
    if result:
        why = result.get("irreproducible")
        told.append(("Reproducible", f"last bits may differ: {shortened(str(why))}" if why else "to the byte"))
    left_out = str(result.get("left_out") or "")
    if left_out or chronicle.lost:
        told.append(("Left out", shortened(left_out or f"shots that failed: {', '.join(chronicle.lost)}")))
    return told


def machines(chronicle: ReportData) -> dict[str, Any]:
    """Versions, hosts, workers and jobs."""
    timeline, start = chronicle.timeline, chronicle.state.start
    rows = []
    for worker in timeline.workers[:MOST]:
        begin, end = timeline.present(worker)
        busy = min(1.0, worker.seconds / (end - begin)) if end > begin else 0.0
        rows.append(
            {
                "host": worker.host,
                "name": worker.name,
                "shots": worker.shots,
                "mean": worker.seconds / worker.shots if worker.shots else None,
                "busy": 100 * busy,
                "there": duration(min(end - begin, 1e12)),
                "end": worker.end or ("there" if worker.left is None else ""),
            }
        )
    versions = {"hpcfwi": start.version, **(start.versions or {})} if start else {}
    return {
        "versions": [(shortened(str(name)), shortened(str(what))) for name, what in list(versions.items())[:MOST]],
        "hosts": list(chronicle.hosts.items())[:MOST],
        "more_hosts": max(0, len(chronicle.hosts) - MOST),
        "driver": shortened(f"{start.host}, process {start.pid}") if start else "",
        "job": shortened((start and start.job) or ""),
        "workers": rows,
        "more": max(0, timeline.came - MOST),
        "jobs": list(chronicle.state.jobs.items())[:MOST],
    }


def _json(path: Path) -> dict[str, Any]:
    """A small file of facts; nothing where there is none that can be read."""
    with suppress(OSError, ValueError):
        content = parse_json(require_regular_file(path).read_bytes())
        return content if isinstance(content, dict) else {}
    return {}


def _inside(facts: Mapping[str, Any], key: str) -> dict[str, Any]:
    inner = facts.get(key)
    return inner if isinstance(inner, dict) else {}


def _of(number_: int | None, total: int) -> str:
    return (
        "none yet"
        if number_ is None
        else f"{number(number_, 9)} of at most {number(total, 9)}"
        if total
        else number(number_, 9)
    )


def _day(when: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    except (OverflowError, ValueError, OSError):
        return "–"
