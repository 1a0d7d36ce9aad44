"""The command line: parse, call, print, exit code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from hpcfwi.cli.console import console, default_run_dir, find_config
from hpcfwi.cli.scale import scale as scale_command
from hpcfwi.cli.site import site as site_commands
from hpcfwi.cli.status import status as status_command
from hpcfwi.cluster.environment import apply_environment, quiet_libraries
from hpcfwi.config.site import LAUNCH_MODES, LaunchOptions
from hpcfwi.errors import HpcfwiError, Interrupted
from hpcfwi.io import printable
from hpcfwi.process import ignore_signals, interrupted
from hpcfwi.version import __version__

__all__ = ["command"]

# What --set writes before a key of the site.
SITE = "site."


def command(arguments: list[str] | None = None) -> int:
    """Run ``hpcfwi`` with its arguments and return the exit code; a mistake of the user's is one message, no traceback."""
    try:
        code = cli.main(arguments, prog_name="hpcfwi", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except click.ClickException as mistake:
        mistake.show()
        return 2
    except HpcfwiError as error:
        click.echo(f"hpcfwi: {printable(str(error))}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _stopped()
    except Exception as error:
        if interrupted():  # somebody's clean-up made another error of it
            return _stopped()
        if "--verbose" in (sys.argv if arguments is None else arguments):
            raise
        click.echo(
            f"hpcfwi: {type(error).__name__}: {printable(str(error))}\n  This was not foreseen; "
            "hpcfwi --verbose shows where it happened, and so does the run folder's events.jsonl. What was finished is kept.",
            err=True,
        )
        return 3
    return code if isinstance(code, int) else 0


def _stopped() -> int:
    ignore_signals()
    click.echo("hpcfwi: stopped", err=True)
    return 75


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hpcfwi")
@click.option("--verbose", is_flag=True, help="Let Devito and Dask speak too.")
def cli(verbose: bool) -> None:
    """Seismic full waveform inversion on supercomputers."""
    quiet_libraries(verbose)


cli.add_command(site_commands)
cli.add_command(scale_command)
cli.add_command(status_command)


def _problem_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in (
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Change a key of the configuration (or, with site. before it, of the site); may be repeated.",
        ),
        click.argument("config", type=click.Path(path_type=Path)),
    ):
        function = decorate(function)
    return function


def _place_options(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def called(*, way: str | None, nodes: int | None, wait: float | None, **rest: Any) -> Any:
        return function(options=LaunchOptions(way, nodes, wait), **rest)

    decorated: Callable[..., Any] = called
    for decorate in (
        click.option(
            "--run-dir",
            type=click.Path(path_type=Path),
            help="Run folder [runs/<name of CONFIG>, or where the site says].",
        ),
        click.option("--site", default="workstation", show_default=True, help="Name or path of a site file."),
        click.option(
            "--launch", "way", type=click.Choice(LAUNCH_MODES), help="How workers start [as site and place suggest]."
        ),
        click.option("--nodes", type=click.IntRange(min=1), help="Worker jobs, or nodes of the allocation [all]."),
        click.option("--wait", type=click.FloatRange(min=0), help="Minutes to wait for a worker, at most [no limit]."),
    ):
        decorated = decorate(decorated)
    return decorated


def _load(config: Path, settings: tuple[str, ...], site: str = "workstation") -> tuple[Any, Any]:
    """Configuration and site, with ``--set`` laid over the one or the other."""
    from hpcfwi.config.run import load_run_config
    from hpcfwi.config.site import load_site

    theirs = [setting for setting in settings if setting.lstrip().startswith(SITE)]
    ours = [setting for setting in settings if setting not in theirs]
    what = load_run_config(find_config(config), ours)
    return what, load_site(site, [setting.lstrip().removeprefix(SITE) for setting in theirs])


@cli.command()
@_problem_options
@_place_options
@click.option("--accept-versions", is_flag=True, help="Continue a run that other versions of hpcfwi or Devito began.")
@click.option(
    "--fresh", is_flag=True, help="Begin anew in a new folder, whose name is that of the run folder and a number."
)
@click.option("--stand-in", hidden=True, metavar="SECONDS[:SPREAD]", help="Sleep in place of the kernels, in a study.")
@click.option(
    "--requeue",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="A batch job whose time is up goes back into the queue, until N of its starts have finished nothing [0: never].",
)
def run(
    config: Path,
    settings: tuple[str, ...],
    run_dir: Path | None,
    site: str,
    options: LaunchOptions,
    fresh: bool,
    accept_versions: bool,
    requeue: int,
    stand_in: str | None,
) -> None:
    """Run the inversion that CONFIG describes, or continue it."""
    what, where = _load(config, settings, site)
    from hpcfwi.reporting.formatting import counted, hours
    from hpcfwi.run.driver import run_inversion
    from hpcfwi.run.folder import fresh_folder
    from hpcfwi.solver.engine import SleepingShots

    instead = None if stand_in is None else SleepingShots.parse(stand_in)
    folder = run_dir or default_run_dir(where, config)
    folder = fresh_folder(folder) if fresh else folder
    try:
        result = run_inversion(what, where, folder, console(), options, accept_versions, requeue, instead)
    except Interrupted as stopped:
        again = f"\n  Type it without --fresh, and with --run-dir {shlex.quote(str(folder))}"
        advice = again if fresh and "the same command" in str(stopped) else ""
        raise Interrupted(f"{stopped}{advice}", stopped.reason, stopped.time_is_up) from None
    pictures = "; figures/ has its pictures, and those of the data and the convergence"
    error = "" if result.model_error is None else f", model error {100 * result.model_error:.2f} %"
    ratio = result.misfit / result.initial_misfit if result.initial_misfit else 0.0
    for line in (
        f"{counted(result.iterations, 'iteration')}, {counted(result.evaluations, 'evaluation')}: misfit {result.misfit:.6g}, "
        f"{ratio:.4f} of the initial one{error}{f', {result.left_out}' if result.left_out else ''}",
        *([f"the last bits may differ from run to run: {result.irreproducible}"] if result.irreproducible else []),
        f"{hours(result.core_hours)} of the workers",
        f"{result.folder} holds:",
        *(
            ["  report.html    all of it on one page, for a browser"]
            if (result.folder / "report.html").is_file()
            else []
        ),
        f"  model.npy      the velocity, km/s{pictures if (result.folder / 'figures').is_dir() else ''}",
        "  history.csv    misfit, gradient and errors of each iteration; events.jsonl all that happened, shot by shot",
        "  config.toml    the configuration with every default; staged/ and journal/ let the run be continued",
    ):
        click.echo(line)


@cli.command()
@_problem_options
@_place_options
def model(
    config: Path,
    settings: tuple[str, ...],
    run_dir: Path | None,
    site: str,
    options: LaunchOptions,
) -> None:
    """Make the observed data of CONFIG, and nothing else."""
    what, where = _load(config, settings, site)
    from hpcfwi.run.driver import model_data

    paths = model_data(what, where, run_dir or default_run_dir(where, config), console(), options)
    click.echo(f"{len(paths)} gathers (samples, receivers), one .npy for each shot, in {paths[0].parent}")


@cli.command()
@_problem_options
@click.option("--site", help="Name or path of a site file: also say which workers fit on its nodes.")
@click.option("--nodes", type=click.IntRange(min=1), help="Nodes, or worker jobs, of the site [as its file says].")
def plan(config: Path, settings: tuple[str, ...], site: str | None, nodes: int | None) -> None:
    """Say what CONFIG will need: grid, steps, memory, disk, and workers of a site."""
    what, where = _load(config, settings, site or "workstation")
    from hpcfwi.model.problem import Problem
    from hpcfwi.run.plan import make_plan, plan_workers

    problem = Problem.from_config(what)
    needs = make_plan(problem)
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in [*needs.rows, *([plan_workers(problem, needs, where, nodes)] if site else [])]:
        table.add_row(*row)
    screen = console()
    screen.print(table, soft_wrap=not screen.is_terminal)
    for warning in problem.warnings:
        click.echo(f"warning: {warning}")


@cli.command()
@_problem_options
@click.option("--shot", help="Name of the shot to test with [the middle one].")
def check(config: Path, settings: tuple[str, ...], shot: str | None) -> int:
    """Test the gradient on this very problem: dot product and Taylor tests."""
    what, _ = _load(config, settings)
    apply_environment()
    from hpcfwi.inversion.gradient_check import check_gradient
    from hpcfwi.model.problem import Problem

    report = check_gradient(Problem.from_config(what), shot)
    click.echo(report.text)
    return 0 if report.passed else 1


@cli.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
def report(run_dir: Path) -> None:
    """Write RUN/report.html: everything of a run, done or not, in one file for a browser."""
    from hpcfwi.reporting.report.page import write_report

    click.echo(write_report(run_dir))
