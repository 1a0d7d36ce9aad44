"""Opens the objective of a survey for a user's own optimiser, in a run folder and with workers of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from hpcfwi.artifacts import StagedFile
from hpcfwi.config.run import RunConfig
from hpcfwi.config.site import LaunchOptions, Site
from hpcfwi.errors import DataError, InputError, ShotFailed
from hpcfwi.events import types as events
from hpcfwi.inversion.journal import Journal, Partials
from hpcfwi.inversion.parametrisation import SquaredSlowness
from hpcfwi.model.problem import Problem
from hpcfwi.model.stages import Stage, load_problem, stages_of
from hpcfwi.reporting.formatting import counted
from hpcfwi.run.data_staging import stage_data
from hpcfwi.run.driver import line_printer, run_identity
from hpcfwi.run.folder import OPENED, RunFolder
from hpcfwi.run.session import Session, session
from hpcfwi.run.survey_objective import SurveyObjective


@contextmanager
def open_objective(
    config: RunConfig,
    site: Site | None = None,
    run_dir: Path | str = "run",
    console: Console | None = None,
    options: LaunchOptions = LaunchOptions(),
    stage: int | None = None,
    accept_versions: bool = False,
) -> Iterator[SurveyObjective]:
    """Start workers, and open the objective of a survey for your own optimiser.

    The workers, the observed data and the checks of them are those of :func:`run_inversion`, and so are retries, time limits
    and the journal. The objective is the misfit alone: optimiser, parameter, conditioning and regularisation of the
    configuration do not count, and no shot is left out for ``data.quorum``. BLAS has one thread in the context, so that an
    optimiser asks for the same models when it starts again.

    Parameters
    ----------
    config
        The problem.
    site
        Where it runs; this machine by default.
    run_dir
        The run folder, for open objectives of this problem alone; its stages may share it.
    console
        Where to print progress; nowhere by default.
    options
        How workers are started.
    stage
        Number of the stage, from 1, whose grid, shots, processing and misfit count; needed if the configuration has stages.
    accept_versions
        Whether to use answers that other versions of hpcfwi or Devito have computed.

    Yields
    ------
    SurveyObjective

    Raises
    ------
    InputError
        If the input is wrong (DataError: that of a shot), or the folder holds a run or another problem.
    RunError
        If a shot fails on every worker, workers do not start, the disk is full, or another driver takes over.
    Interrupted
        On Ctrl-C, or when the time of the batch job is up; the same program continues.
    """
    from threadpoolctl import threadpool_limits

    console = console or Console(quiet=True)
    problem = replace(load_problem(config), linearised=True)
    chosen = _stage(problem, stage)
    identity = {**run_identity(problem), OPENED: True}
    with RunFolder(Path(run_dir), line_printer(console)) as folder:
        folder.claim(identity, config, accept_versions)
        with session(problem, site or Site(), options, folder, console) as current:
            try:
                with threadpool_limits(limits=1, user_api="blas"):
                    objective = _objective(current, chosen)
                    try:
                        yield objective
                    finally:
                        count = counted(objective.evaluations, "evaluation")
                        objective.close()
            except (DataError, ShotFailed) as error:
                advice = (
                    "Fix the cause and start the program again: what is finished is kept. Or leave the shot out "
                    "(data.exclude), in another folder (run_dir)."
                )
                raise type(error)(error.shot, f"{error.problem}\n  {advice}") from None
            current.print_line(f"objective closed after {count}")


def _stage(problem: Problem, number: int | None) -> Stage:
    """The stage of a number; raises InputError if there is no such one, or it has to be chosen."""
    stages, defined = stages_of(problem), len(problem.config.stage)
    if number is None and defined:
        has = counted(defined, "stage")
        raise InputError(f"stage: the configuration has {has}; choose one with stage=1 to stage={defined}")
    if number is not None and number not in range(1, len(stages) + 1):
        has = f"stages 1 to {defined}" if defined else "no stages"
        raise InputError(f"stage: is {number!r}, but the configuration has {has}")
    return stages[int(number or 1) - 1]


def _objective(session: Session, stage: Stage) -> SurveyObjective:
    """The objective of a stage with a session's workers; its wavelet is estimated at the initial model, if at all."""
    from hpcfwi.execution.linearised_tasks import linearised_operations
    from hpcfwi.execution.tasks import with_source
    from hpcfwi.inversion.forward_map import ForwardMap
    from hpcfwi.inversion.objective import Objective
    from hpcfwi.run.source_signature import check_source, estimate_source
    from hpcfwi.run.stage_run import stage_started, suffix_of

    folder, base = session.folder, session.problem
    problem, known = stage.problem(base.initial_velocity), any(folder.journal.glob("*.bin"))
    staged = dict(zip(base.survey.names, stage_data(session), strict=True))
    shots = [staged[name] for name in problem.survey.names]
    operations = session.prepare(problem, suffix_of(stage))
    partials = Partials(folder.journal, problem.config.journal.shots_per_sum)
    wavelet = problem.config.wavelet

    def journal(source: StagedFile | None, operation: str = "") -> Journal:
        parts = (problem.digest, folder.began_with, source.digest if source else "", operation)
        return Journal(folder.journal, " ".join(parts), folder.verify, by_number=False)

    def with_wavelet(source: StagedFile | None) -> Objective:
        return Objective(
            problem,
            SquaredSlowness.from_problem(problem),
            with_source(operations, source),
            session.tasks,
            shots,
            folder.staged,
            journal(source),
            partials,
            session.on_shots,
            lambda number, count: session.log.write(events.EvaluationStarted(evaluation=number, shots=count)),
            on_evaluation=session.log.write,
            scaled=False,
        )

    if stage.section is not None:
        session.log.write(stage_started(stage, problem, iterations=0))
    source, objective = None, with_wavelet(None)
    if wavelet.kind == "estimate":
        if wavelet.every:
            session.warn("wavelet.every: is left out of account; the wavelet is estimated once, in the initial model")
        name = f"source{suffix_of(stage)}-1.pkl"
        source, _ = estimate_source(session, objective, problem.initial_velocity, 1, name)
        objective = with_wavelet(source)
    if problem.config.data.file is not None and not known:
        check_source(session, objective, problem.initial_velocity)
    forward = ForwardMap(
        problem,
        linearised_operations(objective.operations),
        session.tasks,
        shots,
        folder.staged,
        lambda operation: journal(source, operation),
        partials,
        session.on_shots,
        session.log.write,
    )
    return SurveyObjective(stage, problem, objective, forward)
