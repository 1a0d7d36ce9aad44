"""A scaling study from beginning to end: what is to be run, the ladder, the results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from hpcfwi.cluster.environment import restore_environment, silence_dask
from hpcfwi.config.run import load_run_config
from hpcfwi.config.site import Site, load_site
from hpcfwi.errors import InputError
from hpcfwi.inversion.misfit import BLOCK
from hpcfwi.model.problem import Problem
from hpcfwi.reporting.formatting import counted
from hpcfwi.scaling.figures import draw_scaling
from hpcfwi.scaling.output import forecast_lines, levels_table, parts_table, validation_lines, write_results
from hpcfwi.scaling.results import Scaling, evaluate_study
from hpcfwi.scaling.runs import Study, StudyRuns
from hpcfwi.solver.engine import SleepingShots

__all__ = ["ScaleOptions", "StudyResult", "run_study"]

# What --set writes before a key of the site.
SITE = "site."


@dataclass(frozen=True)
class ScaleOptions:
    """What is studied.

    Parameters
    ----------
    site
        Name or path of a site file.
    way
        ``"local"``, ``"jobs"``, ``"allocation"``, or None: as site and place suggest.
    nodes
        Node counts; on this machine, worker processes.
    weak
        Whether the shots grow with the nodes.
    repeat, iterations
        Runs of each node count, and iterations of each run.
    stand_in
        Shots that sleep in place of the kernels: ``SECONDS[:SPREAD]``.
    settings
        Changes of configuration and site, as they are typed.
    """

    site: str = "workstation"
    way: str | None = None
    nodes: tuple[int, ...] = (1, 2, 4, 8)
    weak: bool = False
    repeat: int = 3
    iterations: int = 3
    stand_in: str | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyResult:
    """What came of it: the numbers, and the files that have them."""

    scaling: Scaling
    paths: list[Path]


@restore_environment()
def run_study(config: Path, options: ScaleOptions, folder: Path, console: Console | None = None) -> StudyResult:
    """Run a scaling study, or go on with the one that is in ``folder``.

    Parameters
    ----------
    config
        The configuration's file.
    options
        What is studied.
    folder
        Where the runs and the results are.
    console
        Where to tell how it goes.

    Returns
    -------
    StudyResult
        The results.

    Raises
    ------
    InputError
        If something is wrong with the input, or the folder holds another study.
    RunError
        If a run has failed.
    Interrupted
        If it is stopped; the same call goes on.
    """
    silence_dask()  # before Dask is imported by what follows
    screen = console or Console(quiet=True)
    problem, study = _prepare(config, options)
    names = [shot.name for shot in problem.survey.shots]
    ladder = StudyRuns(folder, study, config, names, partial(_say, screen))
    kind = "weak" if options.weak else "strong"
    rungs = f"{counted(len(options.nodes), 'rung')}, {counted(options.repeat, 'time')}"
    _say(screen, f"{kind} scaling of {config.stem} in {folder}: {rungs}")
    if options.stand_in:
        _say(screen, f"{SleepingShots.parse(options.stand_in)} stand in for the kernels")
    if study.way == "local":
        _say(screen, "all on this machine: a node stands for a worker process")
    for found in ladder.climb(options.nodes, options.repeat):
        account = found.account
        _say(
            screen,
            f"{found.rung}: evaluation {account.evaluation_seconds:.3g} s, whole job {account.wall:.3g} s, "
            f"{100 * account.parts['unexplained'] / account.wall:.1f} % unexplained, {account.core_hours:.3g} core-hours",
        )
    handling = ladder.handling()
    told = (
        f"{1000 * handling.alone:.2g} ms for a shot, whatever it is, and {1000 * handling.bundled:.2g} ms where {BLOCK}"
    )
    _say(screen, f"the driver and its scheduler need {told} are a task")
    scaling = evaluate_study(ladder.done, options.weak, handling, problem.config.inversion.iterations)
    paths = [*write_results(folder, study, scaling), *draw_scaling(folder, scaling)]
    screen.print(levels_table(scaling))
    screen.print(parts_table(scaling))
    for line in _told(scaling):
        _say(screen, line)
    return StudyResult(scaling, paths)


def _told(scaling: Scaling) -> Iterator[str]:
    yield from validation_lines(scaling)
    for forecast in scaling.forecasts:
        yield from forecast_lines(forecast)


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _prepare(config: Path, options: ScaleOptions) -> tuple[Problem, Study]:
    """See that all rungs can be run before the first is."""
    theirs = [setting for setting in options.settings if setting.lstrip().startswith(SITE)]
    ours = [setting for setting in options.settings if setting not in theirs]
    problem = Problem.from_config(load_run_config(config, ours))
    site = load_site(options.site, [setting.lstrip().removeprefix(SITE) for setting in theirs])
    if options.stand_in is not None:
        SleepingShots.parse(options.stand_in)
    most, shots = max(options.nodes), len(problem.survey)
    if shots < most:
        raise InputError(
            f"--nodes {most}: the survey of {config} has {counted(shots, 'shot')}, so that not every node would get one; take "
            "fewer nodes, or more sources"
        )
    way = _way(site, options, most)
    stand_in = options.stand_in or ""
    return problem, Study(
        problem.digest, options.site, way, most if options.weak else 0, options.iterations, stand_in, options.settings
    )


def _way(site: Site, options: ScaleOptions, most: int) -> str:
    """How workers are started; whether there are enough nodes for that."""
    from hpcfwi.cluster.pool import choose_launch_mode

    way, _ = choose_launch_mode(site, options.way)
    if way == "jobs":
        limit = site.config.scheduler.max_jobs
        if limit is not None and most > limit:
            raise InputError(f"--nodes {most}: {site.name} allows {limit} jobs at a time (scheduler.max_jobs)")
    elif way == "allocation":
        from hpcfwi.cluster.allocation import allocated_nodes

        batch, nodes = allocated_nodes()
        if most > len(nodes):
            raise InputError(
                f"--nodes {most}: job {batch.job_id} has {counted(len(nodes), 'node')}; take at most that "
                "many, or a larger allocation"
            )
    return way
