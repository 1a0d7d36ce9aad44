"""``report.html``: everything about a run on one page that needs nothing but a browser, whatever state the run is in."""

from __future__ import annotations

import base64
import functools
import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpcfwi.errors import HpcfwiError, InputError, RunError
from hpcfwi.events.lease import Liveness
from hpcfwi.events.log import read_events
from hpcfwi.inversion.history import Row
from hpcfwi.io import printable, require_regular_file, shortened, write_atomic
from hpcfwi.model.problem import Problem
from hpcfwi.reporting.formatting import counted, date_time, duration, hours, number
from hpcfwi.reporting.report.charts import convergence_charts, data_uri, shot_charts
from hpcfwi.reporting.report.data import ReportData, RunModels, read_history
from hpcfwi.reporting.report.gantt import draw_gantt
from hpcfwi.reporting.report.models import FIRST_GRADIENT, gradient_group, model_history, models_group
from hpcfwi.reporting.status import Condition, judge, read_result
from hpcfwi.reporting.status_text import STAGES
from hpcfwi.version import __version__

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"
TEMPLATES = Path(__file__).with_name("template")
# Bytes of an embedded figure, characters of a configuration, rows of the table of iterations and of other tables.
MAX_FIGURE, MAX_CONFIG, MAX_ROWS = 2_000_000, 100_000, 200
PNG, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
# Figures of figures/ with title and alternative text. Gathers need workers; the others replace what cannot be drawn anew.
GATHER = (
    "gather",
    "One shot's gathers",
    "Records of one shot over receivers and time: observed, predicted by the final model, and their differences",
)
MODELS = ("models", "Models", "True (where known), initial and final P-wave velocity model, with sources and receivers")
DIFFERENCE = (
    "difference",
    "Errors of the models",
    "Differences of the initial and the final model to the true one, or to each other",
)
GRADIENT = ("gradient", "First gradient", FIRST_GRADIENT)


def write_report(run_dir: Path | str, problem: Problem | None = None) -> Path:
    """Write ``report.html`` into a run folder, whatever state the run is in, and change nothing else there.

    Parameters
    ----------
    run_dir
        The run folder.
    problem
        What the run inverts; by default what its ``config.toml`` says.

    Returns
    -------
    Path
        The file: one HTML page that holds all its pictures and loads nothing.

    Raises
    ------
    InputError
        If it is not a run folder.
    RunError
        If the file cannot be written.
    """
    run = Path(run_dir).absolute()
    _check_folder(run)
    text = _render(run, problem)
    path = run / REPORT
    write_atomic(path, lambda file: file.write(text.encode("utf-8", "replace")))
    return path


def _check_folder(run: Path) -> None:
    try:
        problem = "is not a folder"
        if run.is_dir():
            known = any((run / name).is_file() for name in ("problem.json", "events.jsonl"))
            problem = "" if known else "is not a run folder: it has neither problem.json nor events.jsonl"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    if problem:
        raise InputError(
            f"{printable(str(run))}: {problem}; name the folder that hpcfwi run prints first, runs/<name of CONFIG>"
        )


def _render(run: Path, problem: Problem | None) -> str:
    from markupsafe import Markup

    script, style = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(script=Markup(script), style=Markup(style), allowed=allowed, **_content(run, problem))


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "number": number,
        "duration": duration,
        "short": lambda text: shortened(str(text)),
        "visible": lambda text: printable(str(text)),
    }
    return environment.get_template("report.html.j2")


def _content(run: Path, problem: Problem | None) -> dict[str, Any]:
    """The variables of the template."""
    notes: list[str] = []
    try:
        data = ReportData.from_events(read_events(run / "events.jsonl"))
    except RunError as error:
        notes.append(f"What happened is unknown: {error}")
        data = ReportData()
    models = RunModels.read(run, data.excluded_shots, problem)
    rows, history_notes = read_history(run / "history.csv", data)
    history = model_history(run / "journal", rows, models)
    group = models_group(models)
    gradient = gradient_group(models, history.gradient) if history.gradient is not None else None
    if not data.figures_current and (run / "figures").is_dir():
        notes.append("The pictures in figures/ belong to an earlier end of this run and are not shown.")
    elif not data.figures_current:
        notes.append("No gathers: records are drawn when a run is done (output.figures).")
    wanted = [GATHER, *(() if group else (MODELS, DIFFERENCE)), *(() if gradient else (GRADIENT,))]
    step = max(1, -(-len(rows) // MAX_ROWS))
    return {
        "title": run.name,
        "folder": run,
        "written": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "version": __version__,
        "notes": [*notes, *models.notes, *history_notes],
        "headline": _headline(run, data),
        "summary": _summary(run, data, rows, models),
        "models": group,
        "history": history,
        "charts": convergence_charts(rows, data.evaluations),
        "rows": [row for i, row in enumerate(rows) if i % step == 0 or i == len(rows) - 1],
        "shots": shot_charts(data.shot_misfits, models),
        "gradient": gradient,
        "pictures": _pictures(run / "figures", wanted) if data.figures_current else [],
        "gantt": draw_gantt(data.timeline),
        "state": data.state,
        "failures": list(data.failures),
        "tracebacks": list(data.tracebacks),
        "machines": _machines(data),
        "config": _config(run / "config.toml"),
    }


def _headline(run: Path, data: ReportData) -> dict[str, str]:
    """The state of the run, why it is in it, and a class of the style sheet for its colour."""
    liveness = Liveness(run / "driver.json")
    liveness.check()
    found = judge(data.state, liveness, read_result(run))
    driver = str(liveness.holder or "its driver")
    state, reason = _state_text(found, driver)
    colour = {"done": "good", "failed": "bad", "killed": "bad"}.get(found.state, "open")
    return {"colour": colour, "state": state, "reason": reason}


def _state_text(found: Condition, driver: str) -> tuple[str, str]:
    resume = "the same command continues the run"
    match found.state:
        case "running":
            return STAGES.get(found.stage or "", "running").capitalize(), f"{driver} is running"
        case "killed":
            return "Killed", f"{driver} died without logging why; {resume}"
        case "unresponsive":
            return "Unresponsive", f"{driver} sends no heartbeat; if it is dead, {resume}"
        case "stopped":
            return "Stopped", f"{found.reason}; {resume}" if found.reason else resume
        case "new":
            return "New", "nothing has run here yet"
    return found.state.capitalize(), found.reason


def _summary(run: Path, data: ReportData, rows: Sequence[Row], models: RunModels) -> list[tuple[str, str]]:
    """The first things to know, as names and values."""
    state, start, timeline, domain = data.state, data.state.start, data.timeline, models.domain
    result = read_result(run).get("summary")
    result = result if isinstance(result, dict) else {}
    iteration = rows[-1].iteration if rows else state.iteration
    limit = f" of at most {state.iterations}" if state.iterations else ""
    items = [
        ("Iterations", "none yet" if iteration is None else f"{iteration}{limit}"),
        ("Evaluations", str(max(len(data.evaluations), rows[-1].evaluations if rows else 0))),
    ]
    if rows:
        first, last = rows[0], rows[-1]
        share = f", {number(100 * last.misfit / first.misfit, 3)} % of the initial misfit" if first.misfit > 0 else ""
        items.append(("Misfit", f"{number(last.misfit, 6)}{share}"))
        if first.model_error is not None and last.model_error is not None:
            errors = (f"{number(100 * error, 3)} %" for error in (first.model_error, last.model_error))
            items.append(("Model error", " → ".join(errors)))
    if domain is not None:
        points, spacing = " × ".join(map(str, domain.shape)), " × ".join(f"{h:g}" for h in domain.spacing)
        items.append(("Grid", f"{points} points, {spacing} m"))
    shots = len(models.shots) or (start.shots if start else 0)
    items.append(("Shots", str(shots) if shots else "–"))
    hosts = len({worker.host for worker in timeline.workers})
    items.append(("Workers", f"{timeline.joined} on {counted(hosts, 'host')}"))
    if start:
        items += [("Layout", shortened(start.layout)), ("Site", shortened(f"{start.site} ({start.launch})"))]
    if data.ended > data.began:
        pauses = sum(pause for _, pause in timeline.starts)
        without = f", without pauses of {duration(pauses)}" if pauses >= 1 else ""
        items += [
            ("Wall time", f"{duration(timeline.now)}{without}"),
            ("Cost", hours(state.core_hours(data.ended))),
            ("Begun", date_time(data.began)),
            ("Last event", date_time(data.ended)),
        ]
    items.append(("Driver starts", str(state.starts)))
    if result:
        why = result.get("irreproducible")
        items.append(("Reproducible", f"last bits may differ: {shortened(str(why))}" if why else "to the byte"))
    excluded = f"shots that failed: {', '.join(data.excluded_shots)}" if data.excluded_shots else ""
    left_out = str(result.get("left_out") or excluded)
    if left_out:
        items.append(("Left out", shortened(left_out)))
    return items


def _machines(data: ReportData) -> dict[str, Any]:
    """Versions, hosts, workers and jobs."""
    timeline, start = data.timeline, data.state.start
    workers = []
    for worker in timeline.workers[:MAX_ROWS]:
        begin, end = timeline.presence(worker)
        workers.append(
            {
                "host": worker.host,
                "name": worker.name,
                "shots": worker.shots,
                "mean": worker.seconds / worker.shots if worker.shots else None,
                "busy": 100 * min(1.0, worker.seconds / (end - begin)) if end > begin else 0.0,
                "connected": duration(end - begin),
                "end": worker.end or ("connected" if worker.left is None else ""),
            }
        )
    hosts = data.state.shots_on
    return {
        "versions": [*({"hpcfwi": start.version, **(start.versions or {})} if start else {}).items()][:MAX_ROWS],
        "hosts": list(hosts.items())[:MAX_ROWS],
        "more_hosts": max(0, len(hosts) - MAX_ROWS),
        "driver": f"{start.host}, process {start.pid}" if start else "",
        "job": (start.job if start else None) or "",
        "workers": workers,
        "more_workers": max(0, timeline.joined - MAX_ROWS),
        "jobs": list(data.state.jobs.items())[:MAX_ROWS],
    }


def _pictures(folder: Path, wanted: Sequence[tuple[str, str, str]]) -> list[dict[str, str]]:
    """Those of the figures that are there and whole."""
    found = []
    for name, title, alt in wanted:
        with suppress(OSError):
            content = require_regular_file(folder / f"{name}.png").read_bytes()
            if content.startswith(PNG) and content.endswith(PNG_END) and len(content) <= MAX_FIGURE:
                found.append({"title": title, "alt": alt, "uri": data_uri(content, "png")})
    return found


def _config(path: Path) -> str:
    try:
        with require_regular_file(path).open("rb") as file:
            return printable(file.read(MAX_CONFIG).decode("utf-8", "replace"))
    except (OSError, HpcfwiError) as error:
        return f"{path.name} cannot be read ({getattr(error, 'strerror', None) or error})"
