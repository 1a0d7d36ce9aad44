"""The command ``hpcfwi`` and its exit code, and the commands run, model, plan, check, report and scale."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from hpcfwi.cli.console import console, find_config, launch_options, problem_options
from hpcfwi.cli.data import data as data_commands
from hpcfwi.cli.export import export as export_command
from hpcfwi.cli.site import site as site_commands
from hpcfwi.cli.status import status as status_command
from hpcfwi.cluster.environment import apply_environment, quiet_libraries
from hpcfwi.config.parsing import split_settings
from hpcfwi.config.run import RunConfig, load_run_config
from hpcfwi.config.site import LaunchOptions, Site, load_site
from hpcfwi.errors import HpcfwiError, InputError, Interrupted, RunError
from hpcfwi.io import printable
from hpcfwi.process import ignore_signals, interrupted
from hpcfwi.version import __version__

if TYPE_CHECKING:
    from hpcfwi.run.driver import RunResult

POSITIVE = click.IntRange(min=1)


def command(arguments: list[str] | None = None) -> int:
    """Run ``hpcfwi`` and return the exit code; a user's mistake is one message without a traceback."""
    try:
        code = cli.main(arguments, prog_name="hpcfwi", standalone_mode=False)
    except click.ClickException as mistake:
        mistake.show()
        return 2
    except HpcfwiError as error:
        message = "\n  ".join([str(error), *getattr(error, "__notes__", ())])
        click.echo(f"hpcfwi: {printable(message)}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _stopped()
    except Exception as error:
        if interrupted():  # some clean-up code turned the interrupt into another error
            return _stopped()
        if "--verbose" in (sys.argv if arguments is None else arguments):
            raise
        click.echo(
            f"hpcfwi: {type(error).__name__}: {printable(str(error))}\n  Unexpected error; hpcfwi --verbose shows where it "
            "happened, and so does events.jsonl in the folder of a run. Finished work is kept.",
            err=True,
        )
        return RunError.exit_code
    return code if isinstance(code, int) else 0


def _stopped() -> int:
    ignore_signals()
    click.echo("hpcfwi: stopped", err=True)
    return Interrupted.exit_code


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hpcfwi")
@click.option("--verbose", is_flag=True, help="Show messages of Devito and Dask, and tracebacks of unexpected errors.")
def cli(verbose: bool) -> None:
    """Seismic full waveform inversion on supercomputers."""
    quiet_libraries(verbose)


cli.add_command(data_commands)
cli.add_command(export_command)
cli.add_command(site_commands)
cli.add_command(status_command)


def _run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options on where and with which workers to run; the command gets the site, the run folder and its other options."""

    @launch_options
    @click.option("--nodes", type=POSITIVE, help="Worker jobs, or nodes of the allocation [all].")
    @click.option("--wait", type=click.FloatRange(min=0), help="Minutes to wait for a worker [jobs: no limit].")
    @click.option(
        "--run-dir", type=click.Path(path_type=Path), help="Run folder [runs/CONFIG, or in filesystem.runs of a site]."
    )
    @click.option("--accept-versions", is_flag=True, help="Continue a run of another version of hpcfwi or Devito.")
    @click.option(
        "--fresh", is_flag=True, help="Start a new run in a new folder, named like the run folder with a number."
    )
    @wraps(function)
    def with_folder(
        config: Path, settings: tuple[str, ...], site: str, run_dir: Path | None, fresh: bool, **others: Any
    ) -> None:
        run_config, site_config = _load(config, settings, site)
        from hpcfwi.run.folder import fresh_folder

        folder = run_dir or site_config.runs_folder / config.stem
        folder = fresh_folder(folder) if fresh else folder
        options = LaunchOptions(others.pop("launch"), others.pop("nodes"), others.pop("wait"))
        try:
            function(run_config, site_config, folder, options, **others)
        except HpcfwiError as error:
            if fresh and "the same command" in str(error) and folder.exists():
                error.add_note(f"Type it without --fresh, and with --run-dir {shlex.quote(str(folder))}")
            raise

    return with_folder


def _load(config: Path, settings: tuple[str, ...], site: str = "workstation") -> tuple[RunConfig, Site]:
    """Load the configuration and the site, with ``--set`` applied to both."""
    run_settings, site_settings = split_settings(settings)
    return load_run_config(find_config(config), run_settings), load_site(site, site_settings)


@cli.command()
@problem_options
@_run_options
@click.option("--stand-in", hidden=True, metavar="SECONDS[:SPREAD]", help="Let shots sleep, for a scaling study.")
@click.option(
    "--requeue",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Requeue the batch job at its time limit; give up after N starts that keep no result [0: never requeue].",
)
def run(
    config: RunConfig, site: Site, folder: Path, options: LaunchOptions, stand_in: str | None, **others: Any
) -> None:
    """Run the inversion that CONFIG describes, or continue it."""
    from hpcfwi.run.driver import run_inversion
    from hpcfwi.solver.engine import SleepingShots

    shots = None if stand_in is None else SleepingShots.parse(stand_in)
    result = run_inversion(config, site, folder, console(), options, stand_in=shots, **others)
    for line in _result_lines(result):
        click.echo(line)


def _result_lines(result: RunResult) -> Iterator[str]:
    from hpcfwi.reporting.formatting import counted

    ratio = result.misfit / result.initial_misfit if result.initial_misfit else 0.0
    error = "" if result.model_error is None else f", model error {100 * result.model_error:.2f} %"
    left_out = f", {result.left_out}" if result.left_out else ""
    counts = f"{counted(result.iterations, 'iteration')}, {counted(result.evaluations, 'evaluation')}"
    of = "the first one of its stage" if result.stages > 1 else "the initial one"
    yield f"{counts}: misfit {result.misfit:.6g}, {ratio:.4f} of {of}{error}{left_out}"
    yield f"stopped because {result.message}"
    if result.irreproducible:
        yield f"the last bits may differ from run to run: {result.irreproducible}"
    yield f"{result.core_hours:.3g} core-hours of the workers"
    yield f"{result.folder} holds:"
    if (result.folder / "report.html").is_file():
        yield "  report.html    everything on one page, for a browser"
    yield "  model.npy      the velocity, km/s; model.vti for ParaView, with the initial and, if known, the true one"
    if (result.folder / "wavelet.csv").is_file():
        yield "  wavelet.csv    the estimated wavelet"
    if (result.folder / "figures").is_dir():
        yield "  figures/       the model, the data, the convergence"
    yield "  models/        the velocity after each iteration"
    yield "  history.csv    misfit, gradient and errors of each iteration; events.jsonl has every event, shot by shot"
    yield "  config.toml    the configuration with all defaults; staged/ and journal/ let the run be continued"


@cli.command()
@problem_options
@_run_options
@click.option(
    "--to", type=click.Choice(["npy", "segy"]), default="npy", help="One .npy for each shot, or data.segy [npy]."
)
def model(config: RunConfig, site: Site, folder: Path, options: LaunchOptions, accept_versions: bool, to: str) -> None:
    """Compute the observed data of CONFIG, and nothing else."""
    from hpcfwi.run.driver import model_data

    paths = model_data(config, site, folder, console(), options, accept_versions, to)
    if to == "segy":
        click.echo(paths[0])
    else:
        click.echo(f"{len(paths)} gathers (samples, receivers), one .npy for each shot, in {paths[0].parent}")


@cli.command()
@problem_options
@click.option("--site", help="Name or path of a site file: plan for its nodes [this machine].")
@click.option("--nodes", type=POSITIVE, help="Nodes, or worker jobs, of the site [as in its file].")
@click.option(
    "--measure/--no-measure",
    default=True,
    help="Run the kernels for some seconds to predict times, if the site file does not state a throughput.",
)
def plan(config: Path, settings: tuple[str, ...], site: str | None, nodes: int | None, measure: bool) -> None:
    """Show what CONFIG needs: grid, time steps, memory, disk, workers, time and core-hours."""
    run_config, site_config = _load(config, settings, site or "workstation")
    from hpcfwi.model.stages import load_problem
    from hpcfwi.run.plan import COST_LEGEND, COST_TITLES, cost_rows, make_plan

    problem, screen = load_problem(run_config), console()
    found = make_plan(problem, site_config, nodes, run_kernels=measure, must_fit=bool(site or nodes))
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in found.rows:
        table.add_row(*row)
    screen.print(table, soft_wrap=not screen.is_terminal)
    costs = Table(*COST_TITLES, box=None, pad_edge=False, header_style="")
    for column in costs.columns:
        column.no_wrap, column.justify = True, "left" if column is costs.columns[0] else "right"
    for cost in cost_rows(found):
        costs.add_row(*cost)
    screen.print()
    screen.print(costs, soft_wrap=not screen.is_terminal)
    screen.print(COST_LEGEND, style="dim", soft_wrap=not screen.is_terminal)
    for note in problem.observations.notes:
        click.echo(f"data: {note}")
    for warning in problem.warnings:
        click.echo(f"warning: {warning}")


@cli.command()
@problem_options
@click.option("--shot", help="Shot to test with [the middle one].")
@click.option(
    "--stage", type=click.IntRange(min=1), metavar="N", help="Stage to test, in its grid and band [the first]."
)
def check(config: Path, settings: tuple[str, ...], shot: str | None, stage: int | None) -> int:
    """Test the gradient of CONFIG: dot product and Taylor tests. The exit code is 1 if a test fails."""
    run_config, _ = _load(config, settings)
    apply_environment()
    from hpcfwi.inversion.gradient_check import check_gradient
    from hpcfwi.model.stages import load_problem, stages_of

    problem = load_problem(run_config)
    stages = stages_of(problem)
    if (stage or 1) > len(stages):
        raise InputError(f"--stage {stage}: there is no such stage; {config} has {len(run_config.stage) or 'none'}")
    chosen = stages[(stage or 1) - 1]
    if run_config.stage:
        click.echo(f"stage {chosen.number} of {len(stages)}, {chosen.name}")
    outcome = check_gradient(chosen.first, shot)
    click.echo(outcome.text)
    return 0 if outcome.passed else 1


@cli.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
def report(run_dir: Path) -> None:
    """Write RUN/report.html: everything about a run, finished or not, on one page for a browser."""
    from hpcfwi.reporting.report.page import write_report

    click.echo(write_report(run_dir))


def _node_counts(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        counts = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        counts = ()
    if not counts or counts[0] < 1:
        raise InputError(f"--nodes {text}: should be whole numbers, 1 or more, for example --nodes 1,2,4")
    return counts


@cli.command()
@problem_options
@launch_options
@click.option(
    "--nodes",
    default="1,2,4,8",
    callback=_node_counts,
    metavar="N,N,...",
    help="Numbers of worker jobs, of nodes of the allocation, or of worker processes on this machine [1,2,4,8].",
)
@click.option("--weak", is_flag=True, help="Let the number of shots grow with the nodes; the largest number runs all.")
@click.option("--repeat", "repeats", type=POSITIVE, default=3, help="Runs on each number of nodes [3].")
@click.option("--iterations", type=POSITIVE, default=3, help="Iterations of each run [3].")
@click.option("--stand-in", metavar="SECONDS[:SPREAD]", help="Let shots sleep; SPREAD: relative standard deviation.")
@click.option("--study-dir", type=click.Path(path_type=Path), help="Folder of the study [scaling/CONFIG-SITE[-weak]].")
def scale(config: Path, study_dir: Path | None, **options: Any) -> None:
    """Measure how CONFIG scales with the number of nodes, and predict runs on more nodes.

    The command runs CONFIG on each number of nodes, shows where the time goes, and fits a cost model. After a stop, type the
    same command again: it keeps the measured runs and continues the study.
    """
    from hpcfwi.scaling.study import ScaleOptions, run_study

    study = ScaleOptions(**options)
    name = f"{config.stem}-{Path(study.site).stem}{'-weak' if study.weak else ''}"
    for path in run_study(find_config(config), study, study_dir or Path("scaling", name), console()).paths:
        click.echo(path)
