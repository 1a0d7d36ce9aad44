"""``report.html``: everything about a run in any state, on one page that needs only a browser."""

from __future__ import annotations

import base64
import functools
import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpcfwi.errors import HpcfwiError, RunError
from hpcfwi.events.lease import Liveness
from hpcfwi.events.log import read_events
from hpcfwi.inversion.history import Row, first_evaluations
from hpcfwi.io import printable, require_regular_file, shortened, write_atomic
from hpcfwi.model.problem import Problem
from hpcfwi.reporting.formatting import counted, date_time, duration, number
from hpcfwi.reporting.report.charts import convergence_charts, data_uri, shot_misfits, some
from hpcfwi.reporting.report.data import ReportData, RunModels, read_history
from hpcfwi.reporting.report.gantt import draw_gantt
from hpcfwi.reporting.report.models import (
    FIRST_GRADIENT,
    depths_group,
    gradient_group,
    model_history,
    models_group,
    survey_map,
)
from hpcfwi.reporting.status import find_run, judge, read_result
from hpcfwi.reporting.status_text import describe
from hpcfwi.version import __version__

TEMPLATES = Path(__file__).with_name("template")
# Bytes of an embedded figure, characters of a configuration, rows of a table.
MAX_FIGURE, MAX_CONFIG, MAX_ROWS = 2_000_000, 100_000, 200
PNG, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
# Titles and alternative texts of figures that a report may embed: gathers, which need workers, and figures that it cannot draw
# because files are missing.
FIGURES = {
    "gather": (
        "One shot's gathers",
        "Records of a shot: observed, predicted by the final model, and their differences",
    ),
    "processing": (
        "Processing",
        "Records of the first shot, observed and predicted in the initial model, before and after the processing",
    ),
    "wavelet": ("Estimated wavelet", "The wavelet before and after the estimate, its amplitude spectrum and its phase"),
    "models": ("Models", "True (where known), initial and final P-wave velocity model, with sources and receivers"),
    "difference": ("Errors of the models", "Differences of the initial and the final model to the true model"),
    "gradient": ("First gradient", FIRST_GRADIENT),
}


def write_report(run_dir: Path | str, problem: Problem | None = None) -> Path:
    """Write ``report.html`` into the folder of a run in any state; nothing else there is changed.

    The file contains all its pictures and loads nothing.

    Parameters
    ----------
    run_dir
        The run folder, its name in ``runs``, or a configuration whose run is there.
    problem
        The problem of the run; by default that of its ``config.toml``.

    Returns
    -------
    Path
        ``report.html``.

    Raises
    ------
    InputError
        If there is no run.
    RunError
        If the file cannot be written.
    """
    run = find_run(Path(run_dir), "report").absolute()
    text = _template().render(_content(run, problem))
    path = run / "report.html"
    write_atomic(path, lambda file: file.write(text.encode("utf-8", "replace")))
    return path


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    texts = {"short": lambda text: shortened(str(text)), "visible": lambda text: printable(str(text))}
    environment.filters |= {"number": number, "duration": duration, **texts}
    script, style = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {"script": Markup(script), "style": Markup(style), "script_digest": digest}
    return environment.get_template("report.html.j2")


def _content(run: Path, problem: Problem | None) -> dict[str, Any]:
    """The variables of the template."""
    notes: list[str] = []
    try:
        data = ReportData(read_events(run / "events.jsonl"))
    except RunError as error:
        notes.append(f"The events cannot be read: {error}")
        data = ReportData()
    models = RunModels.read(run, data.excluded_shots, problem)
    rows, history_notes = read_history(run / "history.csv", data)
    history = model_history(run, rows, models)
    group = models_group(models)
    gradient = gradient_group(models, history.gradient)
    if not data.figures_current and (run / "figures").is_dir():
        notes.append("The pictures in figures/ are incomplete, or of an earlier end of this run, and are not shown.")
    elif not data.figures_current:
        notes.append("No gathers: records are drawn when a run is done (output.figures).")
    wanted = [
        "gather",
        "processing",
        "wavelet",
        *([] if group else ["models", "difference"]),
        *([] if gradient else ["gradient"]),
    ]
    return {
        "title": run.name,
        "folder": run,
        "written": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "version": __version__,
        "notes": [*notes, *models.notes, *history_notes],
        "headline": _headline(run, data),
        "summary": _summary(run, data, rows, models),
        "models": group,
        "depths": depths_group(models),
        "history": history,
        "charts": convergence_charts(rows, data.evaluations),
        "rows": [rows[i] for i in some(len(rows), MAX_ROWS)],
        "row_count": len(rows),
        "shots": shot_misfits(data.shot_misfits, models),
        "survey_map": survey_map(data.shot_misfits, models),
        "gradient": gradient,
        "pictures": _pictures(run / "figures", wanted) if data.figures_current else [],
        "gantt": draw_gantt(data.timeline),
        "data": data,
        "max_rows": MAX_ROWS,
        "config": _config(run / "config.toml"),
    }


def _headline(run: Path, data: ReportData) -> dict[str, str]:
    """The state of the run, its phase or reason, and the class of its colour in the style sheet."""
    liveness = Liveness(run / "driver.json")
    liveness.check()
    found = judge(data.state, liveness, read_result(run))
    state, _, text = describe(found).partition(": ")
    if liveness.holder is not None and found.phase is not None:
        text = f"{text} ({liveness.holder})"
    if found.state in ("killed", "stopped") and not data.state.opened:  # else no command, but a program
        text = "; ".join(filter(None, (text, "the same command continues the run")))
    colour = {"done": "good", "failed": "bad", "killed": "bad"}.get(state, "open")
    return {"colour": colour, "state": state.capitalize(), "text": text}


def _summary(run: Path, data: ReportData, rows: Sequence[Row], models: RunModels) -> list[tuple[str, str]]:
    """The items of the summary: names and values."""
    state, start, timeline, domain = data.state, data.state.start, data.timeline, models.domain
    result = read_result(run).get("summary")
    result = result if isinstance(result, dict) else {}
    iteration, evaluations = state.iteration, len(data.evaluations)
    limit = f" of at most {state.iterations}" if state.iterations else ""
    misfit = error = grid = wall_time = reproducible = ""
    if rows:
        first, last = rows[0], rows[-1]
        iteration, evaluations = last.iteration, max(evaluations, last.evaluations)
        number_one = first_evaluations(rows)[last.stage]
        before = first.misfit if number_one == 1 else data.evaluations.get(number_one, 0.0)
        of = "the initial misfit" if number_one == 1 else f"the first one of stage {last.stage}"
        share = f", {number(100 * last.misfit / before, 3)} % of {of}" if before > 0 else ""
        misfit = f"{number(last.misfit, 6)}{share}"
        if first.model_error is not None and last.model_error is not None:
            error = " → ".join(f"{number(100 * e, 3)} %" for e in (first.model_error, last.model_error))
    if domain is not None:
        grid = f"{' × '.join(map(str, domain.shape))} points, {' × '.join(f'{h:g}' for h in domain.spacing)} m"
    if data.ended > data.began:
        pauses = sum(pause for _, pause in timeline.starts)
        without = f", without pauses of {duration(pauses)}" if pauses >= 1 else ""
        wall_time = f"{duration(timeline.now)}{without}"
    if result:
        why = result.get("irreproducible")
        reproducible = f"last bits may differ: {why}" if why else "to the byte"
    excluded = f"shots that failed: {', '.join(data.excluded_shots)}" if data.excluded_shots else ""
    items = {
        "Iterations": "none yet" if iteration is None else f"{iteration}{limit}",
        "Evaluations": str(evaluations),
        "Misfit": misfit,
        "Model error": error,
        "Grid": grid,
        "Shots": str(len(models.shots) or (start.shots if start else 0) or "–"),
        "Workers": f"{timeline.joined} on {counted(len({worker.host for worker in timeline.workers}), 'host')}",
        "Layout": start.layout if start else "",
        "Site": f"{start.site} ({start.launch})" if start else "",
        "Wall time": wall_time,
        "Cost": f"{state.core_hours(data.ended):.3g} core-hours" if wall_time else "",
        "Begun": date_time(data.began) if wall_time else "",
        "Last event": date_time(data.ended) if wall_time else "",
        "Driver starts": str(state.starts),
        "Reproducible": reproducible,
        "Left out": str(result.get("left_out", excluded)),
        "Traces left out": ", ".join(f"{count} {reason}" for reason, count in state.traces_left_out.items()),
    }
    return [(name, shortened(text)) for name, text in items.items() if text]


def _pictures(folder: Path, names: Sequence[str]) -> list[dict[str, str]]:
    """The complete ones of these figures."""
    found = []
    for name in names:
        title, alt = FIGURES[name]
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
