"""The commands ``hpcfwi site``: list, show, script and check."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import tomli_w
from rich.table import Table

from hpcfwi.batch.registry import site_batch_system
from hpcfwi.cli.console import console, find_config, settings_option
from hpcfwi.config.messages import validate
from hpcfwi.config.parsing import SITE_PREFIX, expand_variables, read_toml
from hpcfwi.config.run import load_run_config
from hpcfwi.config.site import EXPANDED_ON_NODE, Site, SiteConfig, known_sites, load_site
from hpcfwi.errors import InputError
from hpcfwi.io import printable, shortened

LONGEST_LINE = 10_000  # characters, without a terminal


@click.group()
def site() -> None:
    """List sites, show their files and job scripts, and check whether a run works there."""


def _load(name: str, settings: Sequence[str]) -> Any:
    # --set of hpcfwi run needs the prefix; here it is optional
    return load_site(name, [setting.lstrip().removeprefix(SITE_PREFIX) for setting in settings])


@site.command("list")
def list_sites() -> None:
    """List all sites and their files, and which of them cannot be used."""
    table = Table("name", "description", "scheduler", "tried", box=None, pad_edge=False)
    table.add_column("file", overflow="fold")
    problems = []
    for name, path in known_sites().items():
        cells, problem = _summary(path)
        table.add_row(name, *cells, str(path))
        if problem:
            problems.append(f"{name}: {problem}")
    screen = console()
    if not screen.is_terminal:
        screen.width = LONGEST_LINE  # a path stays in one piece
    screen.print(table, soft_wrap=not screen.is_terminal, markup=False, highlight=False)
    if problems:
        click.echo("\n  ".join(["\nThese sites cannot be used as they are:", *map(printable, problems)]))


def _summary(path: Path) -> tuple[tuple[str, str, str], str]:
    """Description, scheduler and "tried" of a site file, and in one line why it cannot be used."""
    content: dict[str, Any] = {}
    problem = ""
    try:
        content = read_toml(path, "site configuration")
        config = validate(SiteConfig, expand_variables(content, str(path), EXPANDED_ON_NODE), str(path))
        site_batch_system(Site(path.stem, config, path))
    except InputError as error:
        first, *mistakes = str(error).splitlines()
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        # hpcfwi site show prints the whole message
        line = mistakes[0].strip().partition("; type: ")[0] if mistakes else first.removeprefix(f"{path}: ")
        problem = line + more
    if not content:
        return ("", "", ""), problem
    scheduler = content.get("scheduler")
    kind = scheduler.get("kind", "none") if isinstance(scheduler, dict) else "none"
    tried = {"True": "yes", "False": "no"}.get(str(content.get("tried", True)), "")
    return (shortened(str(content.get("description", ""))), shortened(str(kind)), tried), problem


@site.command()
@click.argument("name")
@settings_option("the site")
def show(name: str, settings: tuple[str, ...]) -> None:
    """Print the site NAME with all its defaults, as a site file."""
    found = _load(name, settings)
    changed = f" with --set {', '.join(sorted(found.changed))}" if found.changed else ""
    click.echo(f"# {found.path}{changed}")
    click.echo(tomli_w.dumps(found.config.model_dump(mode="json", exclude_none=True)), nl=False)


@site.command()
@click.argument("name")
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--nodes", type=click.IntRange(min=1), help="Worker jobs [as in the file of the site].")
@settings_option("the site or of CONFIG")
def script(name: str, config: Path | None, nodes: int | None, settings: tuple[str, ...]) -> None:
    """Print the job script of a worker at the site NAME: for CONFIG, or without it for a whole node."""
    run_settings = [setting for setting in settings if config is not None and not _is_site_setting(setting)]
    found = _load(name, [setting for setting in settings if setting not in run_settings])
    from hpcfwi.cluster.jobs import JobContext, job_script, required_batch_system
    from hpcfwi.cluster.layout import WHOLE_NODES, jobs_layout
    from hpcfwi.cluster.network import security_of
    from hpcfwi.execution.affinity import PRELOAD_MODULES

    required_batch_system(found)  # before the layout of a node that it may not describe
    request = WHOLE_NODES
    if config is not None:
        from hpcfwi.model.stages import load_problem
        from hpcfwi.run.plan import resource_request

        request = resource_request(load_problem(load_run_config(find_config(config), run_settings)))
    layout, _ = jobs_layout(found, request, nodes)
    run_dir = (found.runs_folder / (config or Path("run")).stem).absolute()
    security = security_of(run_dir / "tls") if found.config.network.tls else None
    context = JobContext(run_dir.name, run_dir / "logs", security, PRELOAD_MODULES)
    click.echo(job_script(found, layout, context), nl=False)


def _is_site_setting(setting: str) -> bool:
    # sections of a site and of a configuration have different names
    return setting.lstrip().removeprefix(SITE_PREFIX).partition(".")[0].strip() in SiteConfig.model_fields


@site.command()
@click.argument("name", default="workstation")
@click.option("--job", is_flag=True, help="Also start a real worker job and test its node from inside.")
@click.option("--wait", type=click.FloatRange(min=0), default=10.0, help="Minutes to wait for that job [10].")
@settings_option("the site")
def check(name: str, job: bool, wait: float, settings: tuple[str, ...]) -> int:
    """Test everything that a run at the site NAME [workstation] relies on. The exit code is 1 if there is a problem."""
    from hpcfwi.sitecheck.driver_checks import check_site
    from hpcfwi.sitecheck.results import Section, findings_table, has_problem

    screen = console()
    sections: list[Section] = []
    for section in check_site(_load(name, settings), job, wait, lambda line: click.echo(line, err=True)):
        if sections:
            screen.print()
        screen.print(findings_table(section), soft_wrap=not screen.is_terminal, highlight=False)
        sections.append(section)
    return 1 if has_problem(sections) else 0
