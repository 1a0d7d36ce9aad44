"""A scaling study from the checks of its input to its results."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from hpcfwi.cluster.allocation import allocated_nodes
from hpcfwi.cluster.environment import restore_environment, silence_dask
from hpcfwi.cluster.pool import choose_launch_mode
from hpcfwi.config.parsing import split_settings
from hpcfwi.config.run import load_run_config
from hpcfwi.config.site import load_site
from hpcfwi.errors import InputError
from hpcfwi.inversion.functional_gradient import BLOCK
from hpcfwi.model.problem import Problem
from hpcfwi.reporting.formatting import counted
from hpcfwi.run.driver import line_printer
from hpcfwi.scaling.output import draw_scaling, parts_table, scaling_table, summary_lines, write_results
from hpcfwi.scaling.results import Scaling, evaluate_study
from hpcfwi.scaling.runs import Study, StudyRuns
from hpcfwi.solver.engine import SleepingShots


@dataclass(frozen=True)
class ScaleOptions:
    """Options of a study.

    Parameters
    ----------
    site
        Name or path of a site file.
    launch
        ``"local"``, ``"jobs"``, ``"allocation"``, or None: ``"local"`` without a batch system, ``"allocation"`` inside a job,
        else ``"jobs"``.
    nodes
        Numbers of nodes; with ``"local"``, of worker processes.
    weak
        Whether the number of shots grows with the number of nodes.
    repeats, iterations
        Runs on each number of nodes; iterations of each run.
    stand_in
        ``SECONDS[:SPREAD]``: shots sleep instead of running kernels.
    settings
        Changes of configuration and site, as in ``--set``.
    """

    site: str = "workstation"
    launch: str | None = None
    nodes: tuple[int, ...] = (1, 2, 4, 8)
    weak: bool = False
    repeats: int = 3
    iterations: int = 3
    stand_in: str | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyResult:
    """The results of a study.

    Parameters
    ----------
    scaling
        Speed-up, efficiency and parts of the time by number of nodes, and forecasts.
    paths
        Files of the results.
    """

    scaling: Scaling
    paths: list[Path]


@restore_environment()
def run_study(config: Path, options: ScaleOptions, folder: Path, console: Console | None = None) -> StudyResult:
    """Run a scaling study, or continue the one in ``folder``.

    Parameters
    ----------
    config
        The configuration file.
    options
        What to measure.
    folder
        Folder of the runs and results.
    console
        For progress and results; None: nothing is printed.

    Returns
    -------
    StudyResult

    Raises
    ------
    InputError
        If the input is wrong, or the folder holds another study.
    RunError
        If a run fails.
    Interrupted
        If the study is stopped; the same call continues it.
    """
    silence_dask()
    console = console or Console(quiet=True)
    print_line = line_printer(console)
    problem, study = _prepare(config, options)
    runs = StudyRuns(folder, study, config, list(problem.survey.names), print_line)
    kind, nodes = "weak" if options.weak else "strong", ", ".join(map(str, options.nodes))
    print_line(f"{kind} scaling of {config.stem} in {folder}; nodes: {nodes}; {counted(options.repeats, 'run')} each")
    if options.stand_in:
        print_line(f"the kernels are replaced by {SleepingShots.parse(options.stand_in)}")
    if study.launch == "local":
        print_line("all runs are on this machine; a node stands for a worker process")
    measured = []
    for run in runs.measure(options.nodes, options.repeats):
        times = run.times
        print_line(
            f"{run.point}: evaluation {times.evaluation_seconds:.3g} s, whole job {times.wall_seconds:.3g} s, "
            f"{100 * times.parts['unexplained'] / times.wall_seconds:.1f} % unexplained, {times.core_hours:.3g} core-hours"
        )
        measured.append(run)
    overhead = runs.overhead()
    alone, batched = (f"{1000 * seconds:.2g} ms" for seconds in (overhead.alone, overhead.batched))
    print_line(f"driver and scheduler need {alone} for a shot, and {batched} if a task computes {BLOCK} shots")
    scaling = evaluate_study(measured, options.weak, overhead, problem.config.inversion.iterations)
    paths = [*write_results(folder, study, scaling), *draw_scaling(folder, scaling)]
    console.print(scaling_table(scaling))
    console.print(parts_table(scaling))
    for line in summary_lines(scaling):
        print_line(line)
    return StudyResult(scaling, paths)


def _prepare(config: Path, options: ScaleOptions) -> tuple[Problem, Study]:
    """Check, before the first run, that all runs are possible."""
    run_settings, site_settings = split_settings(options.settings)
    problem = Problem.from_config(load_run_config(config, run_settings))
    if problem.config.stage:
        raise InputError(f"{config}: has stages ([[stage]]); a scaling study measures one problem: --set stage=[]")
    site = load_site(options.site, site_settings)
    if options.stand_in is not None:
        SleepingShots.parse(options.stand_in)
    optimizer = problem.config.inversion.optimizer
    if optimizer != "lbfgs":
        raise InputError(
            f'inversion.optimizer: is "{optimizer}", but a study measures evaluations of all shots; take a configuration with '
            '"lbfgs"'
        )
    most, shots = max(options.nodes), len(problem.survey)
    if most > shots:
        raise InputError(
            f"--nodes {most}: the survey of {config} has only {counted(shots, 'shot')}, so some nodes would have none; "
            f"give at most --nodes {shots}, or a survey with more sources"
        )
    mode, _ = choose_launch_mode(site, options.launch)
    if mode == "jobs":
        limit = site.config.scheduler.max_jobs
        if limit is not None and most > limit:
            raise InputError(f"--nodes {most}: {site.name} allows {limit} jobs at a time (scheduler.max_jobs)")
    elif mode == "allocation":
        batch, nodes = allocated_nodes()
        if most > len(nodes):
            raise InputError(
                f"--nodes {most}: job {batch.job_id} has {counted(len(nodes), 'node')}; give at most --nodes {len(nodes)}, or "
                "use a larger allocation"
            )
    settings = options.settings
    if mode == "local" and site.config.worker.threads == "auto":
        # otherwise a single process would use all cores, and the study would compare threads with processes
        settings = (*settings, "site.worker.threads=1")
    return problem, Study(
        problem=problem.digest,
        site=options.site,
        launch=mode,
        weak_nodes=most if options.weak else 0,
        iterations=options.iterations,
        stand_in=options.stand_in or "",
        settings=settings,
        excluded=tuple(problem.config.data.exclude),
    )
