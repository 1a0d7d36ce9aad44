"""The pages of the reference, written from the code. MkDocs takes them from here (``hooks.py``).

``python docs/reference.py`` lists the pages, ``python docs/reference.py config`` prints one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from inspect import cleandoc
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
from pydantic.fields import FieldInfo

import hpcfwi
from hpcfwi import RunConfig, RunStatus, errors

# These modules may move; nothing else of the documentation names a module of the package.
from hpcfwi.cli.main import cli
from hpcfwi.config.inversion import OptimisationSection
from hpcfwi.config.messages import Section, is_list, kinds_of, sections_of
from hpcfwi.config.site import SiteConfig
from hpcfwi.config.stages import StageSection
from hpcfwi.events.types import EVENTS, SCHEMA, event_schema

__all__ = ["EXIT_CODES", "PAGES", "RUN_FILES"]

UNITS = ("km/s", "m", "ms", "Hz", "cells", "GB")
# A description may end in what is taken where the key is left out.
DEFAULT = "; default: "
# The description of a section may end in when the section is needed.
NEEDED = "; needed "
# Limits beyond this only catch typing errors; the tables leave them out.
FAR = 1e6

EXIT_CODES = {
    0: "Done. Of `hpcfwi status`: the run exists, whatever its state.",
    1: "A check failed: `hpcfwi check` or `hpcfwi site check` found a problem.",
    2: "The input is wrong. The message names the file, the key, its value and the values that are allowed. A second driver "
    "on a run folder and a record with too few usable traces are wrong input, too.",
    3: "The run failed. The message says why, and what to do.",
    75: "The run stopped early: a signal, Ctrl-C, or the end of its batch job. The same command continues it.",
}

# Path in the run folder: what it holds, and when it is there.
RUN_FILES = {
    "model.npy": ("The final velocity: km/s, float32, indexed `[x, z]` or `[x, y, z]`.", "when the run is done"),
    "model.vti": (
        "The final, the initial and, if it is known, the true velocity: a VTK image for ParaView and PyVista, km/s, at the "
        "coordinates of the configuration, m. z is the depth.",
        "when the run is done",
    ),
    "model-current.npy": ("The velocity after the last iteration, in the same format.", "until the run is done"),
    "models/": ("The velocity after each iteration, in the same format; `0000.npy` is the initial one.", "always"),
    "gradient.npy": (
        "The gradient of the misfit with respect to squared slowness at the initial model, float32.",
        "from the first evaluation on",
    ),
    "history.csv": (
        "A row for each iteration, the first one for the initial model: `iteration`, `evaluations`, `misfit`, "
        "`gradient_norm`, `model_error`, `m_error`, `step_seconds`, `elapsed_seconds`, `stage`, `batch`. The two errors are "
        "empty where the true model is not known, `batch` where the misfit is that of all shots, not an estimate from some.",
        "from the first evaluation on",
    ),
    "events.jsonl": (
        "The event log: a JSON object a line. See [Events](events.md). At 32 MB the file becomes `events-0001.jsonl.gz`, "
        "and a new one begins.",
        "always",
    ),
    "report.html": (
        "The report: one page with all its pictures in it.",
        "at the end (`output.report`), also after a failure",
    ),
    "figures/": (
        "`models.png`, `difference.png`, `convergence.png`, `gather.png` (one shot), `gradient.png` (the first one), "
        "in 3-D `depths.png`, maps at four depths, with `[[processing]]` `processing.png`, the first shot before and after it, "
        'and with `wavelet.kind = "estimate"` `wavelet.png`.',
        "at the end, unless `output.figures = false`",
    ),
    "wavelet.csv": (
        "The estimated wavelet: time in ms, its values before the estimate and after it, for the survey or for each shot.",
        'with `wavelet.kind = "estimate"`, from its estimate on',
    ),
    "config.toml": ("The configuration with every default and absolute paths. `hpcfwi run` takes it.", "always"),
    "result.json": ("State, limits and summary of a run that is done.", "when the run is done"),
    "data/": ("Observed data as `<shot>.npy`, (samples, receivers).", "after `hpcfwi model`"),
    "data.segy": ("Observed data of all shots in SEG-Y.", "after `hpcfwi model --to segy`"),
    "velocity.segy": (
        "The velocity for other programs; also `.nc`, `.vti`, `.rsf`, `.npy`, and `initial` or `true` in place of `velocity`.",
        "after `hpcfwi export`",
    ),
    "logs/": ("Job scripts, and the output of the workers.", "when workers run in jobs or in an allocation"),
    "staged/": ("The compiled solver and the shots, as the workers load them.", "always"),
    "journal/": (
        "A file for each evaluation: its model, misfit and gradient. See [Stopping and continuing]"
        "(../guide/stopping.md).",
        "always",
    ),
    "problem.json": ("What the results depend on, as digests. A run of another problem is refused.", "always"),
    "data.json": ("Digests of the observed data.", "with `data.file`"),
    "reproducibility.json": ("Kinds of machines so far, and reasons why the last bits may differ.", "always"),
    "excluded-shots.json": ("Shots that were left out, with the reason.", "after a shot was left out (`data.quorum`)"),
    "requeue.json": ("Starts of the batch job so far.", "after the batch job was requeued"),
    "driver.json": ("Host, process and heartbeat of the driver.", "while a driver is at work"),
    "tls/": ("Key and certificate of the run, for you alone.", "while workers are connected by TLS"),
    ".lock": ("Guards the folder against a second driver.", "always"),
}


# --- configuration files -------------------------------------------------------------------------------


def config_page() -> str:
    """Keys of ``fwi.toml``."""
    return _page(
        "Run configuration",
        "Every key of `fwi.toml`, with its unit, default and limits. Lengths are in m, times in ms, frequencies in Hz, "
        "velocities in km/s. Relative paths are relative to the file; after `--set`, to the current folder. See "
        "[Your own survey](../guide/survey.md) for examples.",
        config_tables(RunConfig),
    )


def site_page() -> str:
    """Keys of a site file."""
    return _page(
        "Site file",
        "Every key of a site file, with its unit, default and limits. Besides these sections, `description`, `source`, "
        "`read` and `tried` say which machine it is and where its facts come from. A variable such as `${PROJECT}` is "
        "replaced when the file is read; in `environment.commands`, `filesystem.scratch` and `openmp.variables` the node "
        "replaces it. See [Your own cluster](../guide/cluster.md) for examples.",
        config_tables(SiteConfig),
    )


def config_tables(whole: type[Section]) -> str:
    """A table of the sections, then one of keys for each; sections with the same keys share theirs."""
    overview = ["| Section | Meaning | Needed |", "|---|---|---|"]
    places: dict[type[Section], list[str]] = {}
    for path, field in _walk(whole):
        sections = sections_of(field.annotation)
        sections = sections if is_list(field) else [section for section in sections if _own_keys(section)]
        path = f"[{path}]" if is_list(field) else path
        for section in sections:
            places.setdefault(section, []).append(path)
        if sections:
            meaning, _, condition = (field.description or _summary(sections[0])).partition(NEEDED)
            needed = "**yes**" if field.is_required() else condition or "no"
            overview.append(_cells(f"`[{path}]`", _sentence(_escape(meaning)), needed))
    tables = (_keys_table(section, paths) for section, paths in places.items())
    return "\n\n".join(["\n".join(overview), *tables])


def _walk(section: type[Section], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """All sections below one, with their paths, as the fields that hold them."""
    for name, field in section.model_fields.items():
        inner = sections_of(field.annotation)
        if inner:
            below = f"{path}.{name}".lstrip(".")
            yield below, field
            for kind in inner:
                yield from _walk(kind, below)


def _own_keys(section: type[Section]) -> dict[str, FieldInfo]:
    """Keys with a value: a ``kind`` that chooses the section is in the heading, sections have tables of their own."""
    hidden = {"kind"} if len(kinds_of(section)) == 1 else set[str]()
    if section is StageSection:  # its description names them
        hidden |= OptimisationSection.model_fields.keys()
    fields = section.model_fields.items()
    return {name: field for name, field in fields if name not in hidden and not sections_of(field.annotation)}


def _keys_table(section: type[Section], paths: list[str]) -> str:
    kinds = kinds_of(section)
    heading = " or ".join(f"`[{path}]`" for path in paths) + (f', `kind = "{kinds[0]}"`' if len(kinds) == 1 else "")
    rows = [_key_row(name, field) for name, field in _own_keys(section).items()]
    if not rows:  # a step that needs no more than its name
        return "\n".join([f"## {heading}", "", _about(section)])
    head = ["| Key | Unit | Meaning | Default | Allowed |", "|---|---|---|---|---|"]
    return "\n".join([f"## {heading}", "", _about(section), "", *head, *rows])


def _about(section: type[Section]) -> str:
    return cleandoc(section.__doc__ or "").replace("``", "`")


def _summary(section: type[Section]) -> str:
    """The first paragraph of what a section is about, which fits into a table."""
    return " ".join(_about(section).partition("\n\n")[0].split())


def _key_row(name: str, field: FieldInfo) -> str:
    text, _, told = (field.description or "").partition(DEFAULT)
    unit, separator, meaning = text.partition("; ")
    if unit not in UNITS or not separator:
        unit, meaning = "", text
    default = "**needed**" if field.is_required() else told or _literal(field.default)
    return _cells(f"`{name}`", unit, _escape(meaning), default, _allowed(field.annotation, field.metadata))


def _literal(value: Any) -> str:
    """A value as one writes it in TOML."""
    match value:
        case None:
            return ""
        case bool():
            return f"`{str(value).lower()}`"
        case str():
            return f'`"{value}"`'
        case () | {}:
            return "none"
        case tuple():
            return f"`[{', '.join(_literal(item).strip('`') for item in value)}]`"
        case float():
            return f"`{value:.3g}`" if value < 1e-3 else f"`{value}`"
    return f"`{value}`"


def _allowed(annotation: Any, metadata: list[Any]) -> str:
    """What a value of this type, with these limits, may be."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _allowed(parts[0], [*metadata, *parts[1:]])
    if origin is Literal:
        return ", ".join(map(_literal, parts))
    if origin in (Union, UnionType):
        return "; or ".join(_allowed(part, metadata) for part in parts if part is not type(None))
    limits = _limits(metadata)
    if origin is tuple:
        least, most = (limits.get(name) for name in ("min_length", "max_length"))
        if parts[-1] is not Ellipsis:
            least = most = len(parts)
        count = f"{least} or {most} " if least != most and most else f"{least} " if most else ""
        kind, _, allowed = _allowed(parts[0], []).partition(", ")
        return f"{count}{kind}s" + (f", each {allowed}" if allowed else "")
    if annotation is bool:
        return "`true`, `false`"
    if origin is dict:
        return "a table of texts"
    if annotation in (str, Path):
        return "text" if annotation is str else "path"
    return ", ".join(filter(None, ("whole number" if annotation is int else "number", *_range(limits))))


def _limits(metadata: list[Any]) -> dict[str, Any]:
    """Limits by their names, wherever pydantic has put them."""
    found: dict[str, Any] = {}
    for item in metadata:
        if isinstance(item, FieldInfo):
            found |= _limits(item.metadata)
        for name in ("ge", "gt", "le", "lt", "min_length", "max_length", "multiple_of"):
            if getattr(item, name, None) is not None:
                found[name] = getattr(item, name)
    return found


def _range(limits: dict[str, Any]) -> Iterator[str]:
    """Limits in words."""
    low, high = (limits.get(name) for name in ("ge", "le"))
    low, high = (None if limit is None or abs(limit) >= FAR else f"{limit:g}" for limit in (low, high))
    if "gt" in limits:
        yield f"above {limits['gt']:g}" + ("" if high is None else f", at most {high}")
    if "lt" in limits:
        yield f"below {limits['lt']:g}"
    if low is not None:
        yield f"{low} or more" if high is None else f"{low} to {high}"
    if "multiple_of" in limits:
        yield f"a multiple of {limits['multiple_of']}"


# --- what a run writes ---------------------------------------------------------------------------------


def event_page() -> str:
    """Every event, and every field of one."""
    events = ["## Events", "", "| Event | Meaning | Fields (optional ones in brackets) |", "|---|---|---|"]
    fields = ["", "## Fields", "", "| Field | Type | Meaning |", "|---|---|---|"]
    meanings: dict[str, str] = {}
    known = {kind["title"]: kind for kind in event_schema()["$defs"].values()}
    for name in EVENTS:
        listed = []
        for key, described in known[name]["properties"].items():
            described = {**described.get("anyOf", [{}])[0], **described}
            meaning = _escape(described.get("description", "the kind of event"))
            meanings[key] = _cells(f"`{key}`", described["type"], _sentence(meaning))
            listed.append(f"`{key}`" if key in known[name]["required"] else f"[`{key}`]")
        events.append(_cells(f"`{name}`", known[name]["description"], ", ".join(listed[2:])))
    return _page(
        "Events",
        f"`events.jsonl` holds one JSON object a line, in schema version {SCHEMA}. Every object has `time` and `event`. A "
        "field has the same meaning in every event. The version changes when a field disappears or changes its meaning, not "
        "when one is added. See [Watching a run](../guide/watching.md#the-event-log) for how to read the log.",
        "\n".join([*events, *fields, *meanings.values()]),
    )


def status_page() -> str:
    """Every field of ``hpcfwi status --json``."""
    kinds = {str: "text", int: "whole number", float: "number", dict: "object", list: "list of objects"}
    lines = ["| Field | Type | Meaning |", "|---|---|---|"]
    for name, hint in get_type_hints(RunStatus, include_extras=True).items():
        kind, *null = get_args(hint.__origin__) if isinstance(hint.__origin__, UnionType) else [hint.__origin__]
        described = kinds[get_origin(kind) or kind] + (" or null" if null else "")
        lines.append(_cells(f"`{name}`", described, _sentence(_escape(hint.__metadata__[0]))))
    return _page(
        "Status fields",
        "`hpcfwi status RUN --json` prints an object with these fields; `hpcfwi.run_status(path)` returns them as a "
        "`RunStatus`. Unknown values are null. See [Watching a run](../guide/watching.md).",
        "\n".join(lines),
    )


def exit_code_page() -> str:
    """Exit codes, and the exceptions of Python that go with them."""
    named = {getattr(errors, name) for name in errors.__all__} - {errors.HpcfwiError}
    lines = ["| Code | Meaning | Exceptions in Python |", "|---|---|---|"]
    for code, meaning in EXIT_CODES.items():
        raised = sorted(error.__name__ for error in named if error.exit_code == code)
        lines.append(_cells(f"`{code}`", meaning, ", ".join(f"`{name}`" for name in raised)))
    return _page(
        "Exit codes",
        "Every command and every job script ends with one of these codes. An error is one message on stderr, without a "
        "traceback; `hpcfwi --verbose` adds the traceback of an unexpected one.",
        "\n".join(lines),
    )


def run_folder_page() -> str:
    """Files of a run folder."""
    lines = ["| Path | Content | Present |", "|---|---|---|"]
    lines += [_cells(f"`{path}`", content, present) for path, (content, present) in RUN_FILES.items()]
    return _page(
        "Run folder",
        "A run writes everything into one folder: the one that `--run-dir` names, or `<filesystem.runs>/<name of CONFIG>` with "
        "the `filesystem.runs` of the site, `runs/` by default. Other programs may rely on the names and formats of the first "
        "eight. Files are written under another name and renamed, so a reader never sees half of one; only `events.jsonl` is "
        "appended to, line by line.",
        "\n".join(lines),
    )


# --- command line and Python ---------------------------------------------------------------------------


def command_page() -> str:
    """Every command with its arguments and options."""
    return _page(
        "Command line",
        "In a checkout the command is `.venv/bin/hpcfwi`. `-h` after any command prints its help. See "
        "[Exit codes](exit-codes.md).",
        "\n\n".join(_command(cli, "hpcfwi", None)),
    )


def _command(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    usage = " ".join(command.collect_usage_pieces(context))
    about = cleandoc(command.help or "").replace("\b\n", "")
    yield f"## {context.command_path}\n\n```\n{context.command_path} {usage}\n```\n\n{_escape(about)}"
    options = (option for option in command.params if isinstance(option, click.Option))
    records = [record for option in options if (record := option.get_help_record(context))]
    if records:
        rows = [_cells(f"`{flags.replace('|', '&#124;')}`", _escape(text)) for flags, text in records]
        yield "\n".join(["| Option | Meaning |", "|---|---|", *(_pipes(row) for row in rows)])
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            below = command.get_command(context, inner)
            assert below is not None
            yield from _command(below, inner, context)


def _pipes(row: str) -> str:
    """A bar inside code of a table's cell."""
    return re.sub(r"`([^`]*&#124;[^`]*)`", lambda code: f"<code>{_escape(code[1])}</code>", row)


def python_page() -> str:
    """Everything that ``from hpcfwi import ...`` offers."""
    names = [name for name in hpcfwi.__all__ if not name.startswith("__")]
    return _page(
        "Python",
        "Everything that the command line does is here, too. Import from `hpcfwi` itself; its modules may move. See "
        "[From Python](../guide/python.md) for examples.",
        "\n\n".join(f"::: hpcfwi.{name}" for name in names),
    )


def _page(title: str, about: str, body: str) -> str:
    return f"# {title}\n\n{about}\n\n{body}\n"


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "\\|")


def _sentence(text: str) -> str:
    """A description as a sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ")")) else ".")


PAGES: dict[str, Callable[[], str]] = {
    "reference/config.md": config_page,
    "reference/site.md": site_page,
    "reference/commands.md": command_page,
    "reference/exit-codes.md": exit_code_page,
    "reference/run-folder.md": run_folder_page,
    "reference/status.md": status_page,
    "reference/events.md": event_page,
    "reference/python.md": python_page,
}


if __name__ == "__main__":
    wanted = PAGES.get(f"reference/{''.join(sys.argv[1:])}.md")
    print(wanted() if wanted is not None else "\n".join(Path(path).stem for path in PAGES))
