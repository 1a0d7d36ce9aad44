"""The commands ``hpcfwi site ...``: which machines are known, and what becomes of a site file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from hpcfwi.errors import InputError
from hpcfwi.io import printable, shortened

__all__ = ["site"]

# May stand before a key of the site, as it has to in ``hpcfwi run --set``.
PREFIX = "site."


@click.group()
def site() -> None:
    """The machines that are known: their files, their job scripts, and whether all is well there."""


def _settings_option(whose: str) -> Callable[..., Any]:
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help=f"Change a key of {whose}; may be repeated.",
    )


def _keys_of_site(settings: Sequence[str]) -> list[str]:
    return [setting.lstrip().removeprefix(PREFIX) for setting in settings]


@site.command("list")
def list_sites() -> None:
    """Say which sites there are."""
    from hpcfwi.cli.console import console
    from hpcfwi.config.site import known_sites

    table = Table("name", "description", "scheduler", "tried", box=None, pad_edge=False)
    table.add_column("file", overflow="fold")
    troubles = []
    for name, path in known_sites().items():
        content, trouble = _glance(path)
        if trouble:
            troubles.append(f"{name}: {trouble}")
        scheduler = content.get("scheduler")
        kind = scheduler.get("kind", "none") if isinstance(scheduler, dict) else "none"
        tried = {"True": "yes", "False": "no"}.get(str(content.get("tried", True)), "")
        known = (
            (shortened(str(content.get("description", ""))), shortened(str(kind)), tried) if content else ("", "", "")
        )
        table.add_row(name, *known, str(path))
    screen = console()
    screen.print(table, soft_wrap=not screen.is_terminal, markup=False, highlight=False)
    if troubles:
        click.echo("\nAs things are, these cannot be used:")
        for line in troubles:
            click.echo(f"  {printable(line)}")


def _glance(path: Path) -> tuple[dict[str, Any], str]:
    """A site file as it stands, empty where it cannot be read, and in one line why it cannot be used."""
    from hpcfwi.batch.registry import site_batch_system
    from hpcfwi.config.messages import validate
    from hpcfwi.config.parsing import expand_variables, read_toml
    from hpcfwi.config.site import EXPANDED_ON_NODE, Site, SiteConfig

    content: dict[str, Any] = {}
    try:
        content = read_toml(path, "site configuration")
        config = validate(SiteConfig, expand_variables(content, str(path), EXPANDED_ON_NODE), str(path))
        site_batch_system(Site(path.stem, config, path))
    except InputError as error:
        first, *mistakes = str(error).splitlines()
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        # what to type about it, hpcfwi site show says
        line = mistakes[0].strip().partition("; type: ")[0] if mistakes else first.removeprefix(f"{path}: ")
        return content, line + more
    return content, ""


@site.command()
@click.argument("name")
@_settings_option("the site")
def show(name: str, settings: tuple[str, ...]) -> None:
    """Print the site NAME with all its defaults, as a site file."""
    import tomli_w

    from hpcfwi.config.site import load_site

    found = load_site(name, _keys_of_site(settings))
    changed = f" with --set {', '.join(sorted(found.changed))}" if found.changed else ""
    click.echo(f"# {found.path}{changed}")
    click.echo(tomli_w.dumps(found.config.model_dump(mode="json", exclude_none=True)), nl=False)


@site.command()
@click.argument("name")
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--nodes", type=click.IntRange(min=1), help="Worker jobs [as many as the site says].")
@_settings_option("the site, or of CONFIG")
def script(name: str, config: Path | None, nodes: int | None, settings: tuple[str, ...]) -> None:
    """Print the script of a worker job of the site NAME, for the run of CONFIG or else for a whole node."""
    from hpcfwi.config.site import SiteConfig, load_site

    ours = [] if config is None else [setting for setting in settings if not _is_of_site(setting, SiteConfig)]
    where = load_site(name, _keys_of_site([setting for setting in settings if setting not in ours]))
    if where.config.scheduler.kind == "none":
        raise InputError(
            f"the site {where.name} has no batch system (scheduler.kind), so there is no job script; choose another, for "
            "instance generic-slurm (hpcfwi site list)"
        )
    from hpcfwi.cli.console import default_run_dir
    from hpcfwi.cluster.jobs import JobContext, job_script
    from hpcfwi.cluster.layout import ResourceRequest, node_layout
    from hpcfwi.execution.affinity import PRELOAD_MODULES

    jobs = nodes or where.config.scheduler.job_limit
    need = ResourceRequest(jobs * (where.config.node.cores or 1), 1) if config is None else _need(config, ours)
    layout = node_layout(where, need, jobs)
    run_dir = default_run_dir(where, config or Path("run")).absolute()
    security = _keys(run_dir / "tls") if where.config.network.tls else None
    click.echo(
        job_script(where, layout, JobContext(run_dir.name, run_dir / "logs", security, PRELOAD_MODULES)), nl=False
    )


def _is_of_site(setting: str, sections: Any) -> bool:
    """Whether a setting is the site's; it has no section that a configuration has, too."""
    return setting.lstrip().removeprefix(PREFIX).partition(".")[0].strip() in sections.model_fields


def _need(config: Path, settings: Sequence[str]) -> Any:
    """What the run of a configuration asks of its workers."""
    from hpcfwi.cli.console import find_config
    from hpcfwi.cluster.layout import ResourceRequest
    from hpcfwi.config.run import load_run_config
    from hpcfwi.model.problem import Problem
    from hpcfwi.run.plan import make_plan

    problem = Problem.from_config(load_run_config(find_config(config), settings))
    return ResourceRequest(
        len(problem.survey), make_plan(problem).shot_bytes, problem.config.solver.strategy == "sampled"
    )


@site.command("check")
@click.argument("name", default="workstation")
@click.option("--job", is_flag=True, help="Start a real worker job, and look at its node from inside, too.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="MINUTES",
    default=10.0,
    show_default=True,
    help="How long that job may take to start.",
)
@_settings_option("the site")
def check_site(name: str, job: bool, wait: float, settings: tuple[str, ...]) -> int:
    """Look at everything that a run at the site NAME [workstation] relies on; exit code 1 if there is a problem."""
    from hpcfwi.cli.console import console
    from hpcfwi.config.site import load_site
    from hpcfwi.sitecheck.driver_checks import check_site as look
    from hpcfwi.sitecheck.results import Section, bad, findings_table

    screen = console()
    sections: list[Section] = []
    for section in look(load_site(name, _keys_of_site(settings)), job, wait, lambda line: click.echo(line, err=True)):
        if sections:
            screen.print()
        screen.print(findings_table(section), soft_wrap=not screen.is_terminal, highlight=False)
        sections.append(section)
    return 1 if bad(sections) else 0


def _keys(folder: Path) -> Any:
    """Where a run would have its keys (:func:`hpcfwi.cluster.network.private_security`), without making any."""
    from distributed.security import Security

    key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
    return Security(require_encryption=True, tls_ca_file=certificate, tls_worker_key=key, tls_worker_cert=certificate)
