"""The commands ``run``, from a configuration to a velocity model, and ``model``, from a configuration to observed data."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from hpcfwi.artifacts import load
from hpcfwi.config.run import RunConfig
from hpcfwi.config.site import LaunchOptions, Site
from hpcfwi.errors import DataError, InputError, Interrupted, RunError, ShotFailed
from hpcfwi.events import types as events
from hpcfwi.inversion.misfits.registry import MisfitSpec, misfit_identity
from hpcfwi.model.arrays import read_array
from hpcfwi.model.problem import Problem
from hpcfwi.model.stages import load_problem, stages_of
from hpcfwi.model.traces import staged_record
from hpcfwi.run.data_staging import stage_data
from hpcfwi.run.folder import RunFolder
from hpcfwi.run.minimisation import Minimisation, RunResult
from hpcfwi.run.segy_data import SegyData
from hpcfwi.run.session import session
from hpcfwi.run.shot_exclusion import ShotExclusion
from hpcfwi.run.stopping import Requeue
from hpcfwi.solver.engine import SleepingShots


def run_inversion(
    config: RunConfig,
    site: Site | None = None,
    run_dir: Path | str = "run",
    console: Console | None = None,
    options: LaunchOptions = LaunchOptions(),
    accept_versions: bool = False,
    requeue: int = 0,
    stand_in: SleepingShots | None = None,
) -> RunResult:
    """Run an inversion, or continue the one in ``run_dir``.

    Parameters
    ----------
    config
        The problem.
    site
        Where it runs; this machine by default.
    run_dir
        The run folder.
    console
        Where to print progress; nowhere by default.
    options
        How workers are started.
    accept_versions
        Whether to continue a run that other versions of hpcfwi or Devito began.
    requeue
        Requeue this process's batch job when its time is up, until this many of its starts have made no progress; 0: never
        requeue it.
    stand_in
        What replaces the kernels, in scaling studies.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        If the input is wrong (DataError: that of a shot), or the folder holds a run of another problem.
    RunError
        If the run fails: a shot fails on every worker, workers do not start, the disk is full, or another driver takes over.
    Interrupted
        On Ctrl-C, or when the time of the batch job is up; the same call continues the run.
    """
    console = console or Console(quiet=True)
    problem = load_problem(config)
    # before the folder is created and workers start: the name of the misfit may be wrong
    identity = run_identity(problem)
    if stand_in is not None:
        identity["stand-in"] = str(stand_in)
    with RunFolder(Path(run_dir), line_printer(console)) as folder:
        folder.claim(identity, config, accept_versions)
        finished = _finished(folder, problem)
        if finished is not None:
            line_printer(console)(f"{folder.path}: this run is already done; its results:")
            return finished
        folder.reopen()
        requeueing, exclusion = Requeue(folder, requeue), ShotExclusion(folder, problem)
        try:
            with session(exclusion.problem, site or Site(), options, folder, console, stand_in) as current:
                while True:
                    try:
                        return Minimisation(current).run()
                    except (DataError, ShotFailed) as error:
                        folder.verify()
                        current.problem = exclusion.exclude(error)
                        current.tasks.window.forget_shot(error.shot)
                        current.log.write(events.ShotExcluded(shot=error.shot, reason=error.problem))
                        current.print_line(str(error))
                        current.print_line(f"the inversion starts over, {current.problem.exclusion_note}")
        except Interrupted as stopped:
            raise requeueing.after(stopped) from None
        except (DataError, RunError):
            _report_failure(folder, exclusion.problem)
            raise


def model_data(
    config: RunConfig,
    site: Site | None = None,
    run_dir: Path | str = "run",
    console: Console | None = None,
    options: LaunchOptions = LaunchOptions(),
    accept_versions: bool = False,
    to: str = "npy",
) -> list[Path]:
    """Only prepare the observed data: model them or read them from ``data.file``, and stage them in ``run_dir``.

    Parameters
    ----------
    config, site, run_dir, console, options, accept_versions
        As of :func:`run_inversion`.
    to
        ``"npy"``, or ``"segy"`` for one file with all shots.

    Returns
    -------
    list of Path
        One .npy gather (samples, receivers) per shot, in ``run_dir/data``; or ``run_dir/data.segy`` alone.

    Raises
    ------
    InputError, RunError, Interrupted
        As :func:`run_inversion`.
    """
    console = console or Console(quiet=True)
    problem = Problem.from_config(config)
    if problem.processing.applied:
        line_printer(console)(
            "warning: these gathers are modelled with a band-passed wavelet; a run that reads them (data.file) should model "
            "with the same one and not filter them again: model them without the band-pass, and let the run filter"
        )
    segy = SegyData(problem) if to == "segy" else None  # before the data are computed: it may be impossible
    with RunFolder(Path(run_dir), line_printer(console)) as folder:
        folder.claim(run_identity(problem), config, accept_versions)
        with session(problem, site or Site(), options, folder, console) as current:
            staged = zip(problem.survey.shots, stage_data(current), strict=True)
            records = (staged_record(shot, load(each, "shot")) for shot, each in staged)
            if segy is not None:
                segy.write(folder.path / "data.segy", records)
                for note in segy.notes:
                    current.warn(note)
                return [folder.path / "data.segy"]
            paths = []
            for shot, record in zip(problem.survey.shots, records, strict=True):
                path = folder.path / "data" / f"{shot.file_name}.npy"
                folder.write_array(path, record)
                paths.append(path)
            return paths


def line_printer(console: Console) -> Callable[[str], None]:
    """A function that prints a line as it is."""
    return lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)


def run_identity(problem: Problem) -> dict[str, Any]:
    """What the results depend on, with the code of misfits of other packages."""
    found = problem.identity
    for stage in stages_of(problem):
        code = misfit_identity(MisfitSpec.from_config(stage.optimisation.misfit))
        found |= {name if stage.section is None else f"{name}, {stage.key}": text for name, text in code.items()}
    return found


def _finished(folder: RunFolder, problem: Problem) -> RunResult | None:
    """The result of a finished run, else None; a damaged result is rebuilt from the journal."""
    try:
        content = folder.read_json(folder.result)
        if content is None or content.get("limits") != problem.config.limits:
            return None
        if events.parse_event(json.dumps({"time": 0, "event": "done", "seconds": 0, **content["summary"]})) is None:
            return None
        velocity = np.array(read_array(folder.model, "the final model"))
        result = RunResult(folder=folder.path, velocity=velocity, **content["summary"])
    except (InputError, KeyError, TypeError):
        return None
    if problem.config.output.figures and not any(folder.figures.glob("*.png")):
        return None
    return result if velocity.shape == problem.domain.shape and velocity.dtype == np.float32 else None


def _report_failure(folder: RunFolder, problem: Problem) -> None:
    """Write the report of a failed run, unless another driver has taken the folder; ignore errors of the report."""
    if problem.config.output.report:
        with suppress(Exception):
            from hpcfwi.reporting.report.page import write_report

            folder.verify()
            write_report(folder.path, problem)
