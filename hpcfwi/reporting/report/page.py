"""``report.html``: all that there is to know of a run in one file, which needs nothing but a browser.

Whatever a run folder holds - of a run that is done, was killed or goes on - is shown; what is missing is named.
"""

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
from hpcfwi.events.log import read_events
from hpcfwi.io import printable, require_regular_file, shortened, write_atomic
from hpcfwi.model.problem import Problem
from hpcfwi.reporting.formatting import counted, duration
from hpcfwi.reporting.report.charts import convergence_charts, number
from hpcfwi.reporting.report.data import ReportData, RunModels
from hpcfwi.reporting.report.gantt import make_gantt
from hpcfwi.reporting.report.model_history import make_model_history
from hpcfwi.reporting.report.models import data_uri, gradient_plate, models_plate
from hpcfwi.reporting.report.shot_map import make_shot_map
from hpcfwi.reporting.report.summary import headline, machines, read_rows, summary
from hpcfwi.version import __version__

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"
PAGE = Path(__file__).with_name("template")
# Bytes of a picture, and letters of a configuration, that are taken over.
LARGEST_PICTURE, LONGEST_TEXT = 2_000_000, 100_000
PNG, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
# Rows of the table of iterations.
MOST_ROWS = 200
# Pictures that are taken over: gathers need workers; the others where they cannot be drawn any more.
GATHER = (
    "gather",
    "One shot's gathers",
    "Records of one shot over receivers and time: observed, predicted by the final model, and their differences",
)
INSTEAD = (
    (
        "models",
        "Models",
        "True (where it is known), initial and final P-wave velocity model, with sources and receivers",
    ),
    (
        "difference",
        "Errors of the models",
        "Differences of the initial and of the final model to the true one, or to one another",
    ),
)
GRADIENT = (
    "gradient",
    "First gradient",
    "Gradient of the misfit with respect to squared slowness at the initial model",
)


def write_report(run_dir: Path | str, problem: Problem | None = None) -> Path:
    """Write ``report.html`` into a run folder, whatever state the run is in; nothing else in it is touched.

    Parameters
    ----------
    run_dir
        The run folder.
    problem
        What it inverts; by default what its ``config.toml`` says.

    Returns
    -------
    Path
        The file: one page of HTML with all its pictures in it, which loads nothing from anywhere.

    Raises
    ------
    InputError
        If it is no run folder.
    RunError
        If the file cannot be written.
    """
    run = Path(run_dir).absolute()
    _refuse_strangers(run)
    text = _render(run, problem)
    path = run / REPORT
    write_atomic(path, lambda file: file.write(text.encode("utf-8", "replace")))
    return path


def _refuse_strangers(run: Path) -> None:
    try:
        known = any((run / name).is_file() for name in ("problem.json", "events.jsonl"))
        what = (
            ""
            if known
            else "is no folder"
            if not run.is_dir()
            else "is no run folder: it has no problem.json and no events.jsonl"
        )
    except OSError as error:
        what = f"cannot be used ({error.strerror})"
    if what:
        raise InputError(
            f"{printable(str(run))}: {what}; give the folder that hpcfwi run names at its start (runs/<name of CONFIG>)"
        )


def _render(run: Path, problem: Problem | None) -> str:
    """The page."""
    from markupsafe import Markup

    script, style = ((PAGE / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(script=Markup(script), style=Markup(style), allowed=allowed, **_content(run, problem))


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "number": number,
        "duration": duration,
        "counted": counted,
        "short": lambda text: shortened(str(text)),
        "visible": lambda text: printable(str(text)),
    }
    return environment.get_template("report.html.j2")


def _content(run: Path, problem: Problem | None) -> dict[str, Any]:
    """All that the template needs."""
    notes: list[str] = []
    try:
        chronicle = ReportData.of(read_events(run / "events.jsonl"))
    except RunError as error:
        notes.append(f"What has happened is not known: {error}")
        chronicle = ReportData()
    scene = RunModels.of(run, chronicle.lost, problem)
    rows, told = read_rows(run, chronicle)
    album = make_model_history(run / "journal", rows, scene)
    plate = models_plate(scene)
    head = headline(run, chronicle)
    gradient = gradient_plate(scene, album.gradient) if album.gradient is not None else None
    if not chronicle.drawn and (run / "figures").is_dir():
        notes.append("The pictures in figures/ are of an earlier end of this run, and not shown.")
    elif not chronicle.drawn:
        notes.append("No gathers: pictures of records are drawn when a run is done (output.figures).")
    wanted = [GATHER, *(INSTEAD if plate is None else ()), *((GRADIENT,) if gradient is None else ())]
    step = max(1, -(-len(rows) // MOST_ROWS))
    return {
        "title": run.name,
        "folder": run,
        "written": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "version": __version__,
        "notes": [*notes, *scene.notes, *told],
        "head": head,
        "summary": summary(run, chronicle, rows, scene),
        "plate": plate,
        "album": album,
        "charts": convergence_charts(rows, chronicle.evaluations),
        "rows": [row for i, row in enumerate(rows) if i % step == 0 or i == len(rows) - 1],
        "shots": make_shot_map(chronicle.shots, scene),
        "gradient": gradient,
        "pictures": _pictures(run / "figures", wanted) if chronicle.drawn else [],
        "lanes": make_gantt(chronicle.timeline),
        "state": chronicle.state,
        "failures": list(chronicle.failures),
        "tracebacks": list(chronicle.tracebacks),
        "machines": machines(chronicle),
        "config": _text(run / "config.toml"),
    }


def _pictures(folder: Path, wanted: Sequence[tuple[str, str, str]]) -> list[dict[str, str]]:
    """Pictures of ``figures/`` that are there and whole."""
    found = []
    for name, title, alt in wanted:
        with suppress(OSError):
            content = require_regular_file(folder / f"{name}.png").read_bytes()
            if content.startswith(PNG) and content.endswith(PNG_END) and len(content) <= LARGEST_PICTURE:
                found.append({"title": title, "alt": alt, "uri": data_uri(content)})
    return found


def _text(path: Path) -> str:
    try:
        with require_regular_file(path).open("rb") as file:
            return printable(file.read(LONGEST_TEXT).decode("utf-8", "replace"))
    except (OSError, HpcfwiError) as error:
        return f"{path.name} cannot be read ({getattr(error, 'strerror', None) or error})"
