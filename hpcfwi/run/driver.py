"""What the commands ``run`` and ``model`` do: from a configuration to a velocity model, or to observed data."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from traceback import format_exc
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from hpcfwi.artifacts import load
from hpcfwi.config.run import RunConfig
from hpcfwi.config.site import LaunchOptions, Site
from hpcfwi.errors import DataError, HpcfwiError, InputError, Interrupted, RunError, ShotFailed
from hpcfwi.events.types import EvaluationDone, Figures, IterationDone, Optimised, Report, RunDone, RunWarning
from hpcfwi.inversion.history import History, Row
from hpcfwi.inversion.misfit import load_misfit
from hpcfwi.model.problem import Problem
from hpcfwi.model.velocity import read_array, squared_slowness, velocity_from
from hpcfwi.run.folder import RunFolder
from hpcfwi.run.requeue import Requeue
from hpcfwi.run.session import Session, session
from hpcfwi.run.shot_exclusion import ShotExclusion
from hpcfwi.solver.engine import SleepingShots

__all__ = ["RunResult", "model_data", "run_inversion"]


@dataclass(frozen=True)
class RunResult:
    """What a run ended with.

    Parameters
    ----------
    folder
        The run folder.
    velocity
        Final model, km/s, float32.
    iterations, evaluations
        How many there were.
    misfit, initial_misfit
        Last and first.
    model_error
        ``norm(vp - vp_true) / norm(vp_true)``, or None.
    message
        Why the optimiser stopped.
    left_out
        Of which shots it knows nothing, in words; empty where all were used.
    irreproducible
        Why another run of the same problem may give other last bits, in words; empty where it gives the same bytes.
    core_hours
        Cores of workers times the hours for which they were held until the model was there, all starts together.
    """

    folder: Path
    velocity: NDArray[np.float32]
    iterations: int
    evaluations: int
    misfit: float
    initial_misfit: float
    model_error: float | None
    message: str
    left_out: str = ""
    irreproducible: str = ""
    core_hours: float = 0.0

    @property
    def sensible(self) -> bool:
        """Whether its numbers are numbers and its texts texts, as those read from a file may not be."""
        counts, numbers = (
            (self.iterations, self.evaluations),
            (self.misfit, self.initial_misfit, self.model_error or 0.0, self.core_hours),
        )
        return (
            all(isinstance(count, int) for count in counts)
            and all(isinstance(number, float) for number in numbers)
            and all(isinstance(text, str) for text in (self.message, self.left_out, self.irreproducible))
        )


def run_inversion(
    config: RunConfig,
    site: Site | None = None,
    run_dir: Path | str = "run",
    console: Console | None = None,
    options: LaunchOptions = LaunchOptions(),  # noqa: B008 - immutable
    accept_versions: bool = False,
    requeue: int = 0,
    stand_in: SleepingShots | None = None,
) -> RunResult:
    """Run an inversion, or continue the one that is in ``run_dir``.

    Parameters
    ----------
    config
        What is inverted.
    site
        Where it runs; this machine by default.
    run_dir
        The run folder.
    console
        Where to tell how it goes.
    options
        How workers are started.
    accept_versions
        Whether a run that other versions of hpcfwi or Devito began is continued.
    requeue
        The batch job that this process is goes back into the queue when its time is up, until so many of its starts have
        finished nothing; 0: never.
    stand_in
        What is done in place of the kernels, in studies of everything around them.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        If something is wrong with the input, or the folder holds a run of another problem.
    RunError
        If a shot cannot be computed anywhere.
    Interrupted
        On Ctrl-C, or when the batch job's time is up; the same call continues.
    """
    console = console or Console(quiet=True)
    problem = Problem.from_config(config)
    load_misfit(config.inversion.misfit)  # a wrong name must not cost a start of workers
    with RunFolder(
        Path(run_dir), lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
    ) as folder:
        claimed = problem.identity | ({} if stand_in is None else {"stand-in": str(stand_in)})
        folder.claim(claimed, config, accept_versions)
        finished = _finished(folder, problem)
        if finished is not None:
            told = f"{folder.path}: this run is done already; its results:"
            console.print(told, highlight=False, markup=False, soft_wrap=True)
            return finished
        folder.reopen()
        requeueing, quorum = Requeue(folder, requeue), ShotExclusion(folder, problem)
        try:
            with session(quorum.problem, site or Site(), options, folder, console, stand_in) as ready:
                while True:
                    try:
                        return _Inversion(ready).run()
                    except (DataError, ShotFailed) as error:
                        folder.verify()
                        ready.begin_anew(quorum.go_on_without(error), error)
        except Interrupted as stopped:
            raise requeueing.after(stopped) from None
        except (DataError, RunError):
            _report_failure(folder, quorum.problem)
            raise


def model_data(
    config: RunConfig,
    site: Site | None = None,
    run_dir: Path | str = "run",
    console: Console | None = None,
    options: LaunchOptions = LaunchOptions(),  # noqa: B008 - immutable
) -> list[Path]:
    """Make the observed data only: model them (or read them from ``data.file``) and stage them in ``run_dir``.

    Parameters are those of :func:`run_inversion`.

    Returns
    -------
    list of Path
        One .npy gather (samples, receivers) per shot, in ``run_dir/data``.
    """
    console = console or Console(quiet=True)
    problem = Problem.from_config(config)
    with RunFolder(
        Path(run_dir), lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
    ) as folder:
        folder.claim(problem.identity, config)
        with session(problem, site or Site(), options, folder, console) as ready:
            return _export_data(ready)


def _limits(config: RunConfig) -> dict[str, float]:
    """What may change from one start to the next: a run that ended at its old limits goes on to the new ones."""
    section = config.inversion
    return {name: getattr(section, name) for name in ("iterations", "evaluations", "ftol", "gtol")}


def _finished(folder: RunFolder, problem: Problem) -> RunResult | None:
    """The result of a run that is done; what is not as it was written is made again from the journal."""
    try:
        result = folder.read_result()
        if result is None or result.get("limits") != _limits(problem.config):
            return None
        velocity = np.array(read_array(folder.model, "the final model"))
        found = RunResult(folder=folder.path, velocity=velocity, **result["summary"])
    except (InputError, KeyError, TypeError):
        return None
    if problem.config.output.figures and not any(folder.figures.glob("*.png")):
        return None
    return found if velocity.shape == problem.domain.shape and velocity.dtype == np.float32 and found.sensible else None


def _report_failure(folder: RunFolder, problem: Problem) -> None:
    """Show on a page why a run has failed, unless another driver has the folder by now; only the run's error is told."""
    if not problem.config.output.report:
        return
    with suppress(Exception):
        from hpcfwi.reporting.report.page import write_report

        folder.verify()
        write_report(folder.path, problem)


def _export_data(session: Session) -> list[Path]:
    """Observed data as plain arrays."""
    paths = []
    for shot, staged in zip(session.problem.survey.shots, session.observe(), strict=True):
        path = session.folder.path / "data" / f"{shot.file_name}.npy"
        session.folder.write_array(path, load(staged, "shot")["record"])
        paths.append(path)
    return paths


class _Inversion:
    """The optimisation on a session's workers, and what is written of it."""

    def __init__(self, session: Session) -> None:
        self.session, self.problem, self.folder, self.log = session, session.problem, session.folder, session.log
        self.config = session.problem.config
        self.iteration = 0

    def run(self) -> RunResult:
        """Minimise, and write the results."""
        from hpcfwi.inversion.journal import Journal, Partials
        from hpcfwi.inversion.objective import Objective
        from hpcfwi.inversion.optimizer import minimise
        from hpcfwi.inversion.parametrisation import SquaredSlowness

        session, problem = self.session, self.problem
        shots = session.observe()
        self.rows = History(self.folder.history)
        self.elapsed_before = self.rows.rows[-1].elapsed_seconds if self.rows.rows else 0.0
        self.parametrisation = SquaredSlowness.from_problem(problem)
        self.objective = Objective(
            problem,
            self.parametrisation,
            session.operations,
            session.tasks,
            shots,
            self.folder.staged,
            Journal(self.folder.journal, f"{problem.digest} {self.folder.began_with}", self.folder.verify),
            Partials(self.folder.journal, self.config.journal.shots_per_sum),
            session.on_shots,
            session.on_evaluating,
            self._on_evaluation,
        )
        x0 = self.parametrisation.to_vector(squared_slowness(problem.initial_velocity))
        self.loop_started = self.step_started = time.perf_counter()
        self.writing = 0.0
        result = minimise(self.objective, x0, self.parametrisation, self.config.inversion, self._on_iteration)
        seconds = time.perf_counter() - self.loop_started
        self.log.write(
            Optimised(
                seconds=seconds,
                optimiser_seconds=max(0.0, seconds - self.objective.seconds - self.writing),
                writing_seconds=self.writing,
                iterations=int(result.nit),
                evaluations=int(result.nfev),
                message=str(result.message),
            )
        )
        return self._finish(result)

    def _on_evaluation(self, evaluation: Any, x: NDArray, gradient: NDArray) -> None:
        facts = asdict(evaluation)
        facts["shots_per_task"] = facts.pop("in_one_task")
        self.log.write(EvaluationDone(**facts, evaluation=evaluation.number))
        if evaluation.drift:
            self.session.differs_because(
                "on another kind of processor, or with other versions of numpy or scipy, replayed models differ from the "
                "journal's in their last bits"
            )
        if evaluation.number == 1:
            self.first_gradient = gradient.reshape(self.problem.domain.shape)
            self._add_row(x, evaluation.misfit)

    def _on_iteration(self, x: NDArray, misfit: float) -> None:
        started = time.perf_counter()
        self.iteration += 1
        self._add_row(x, misfit)
        self.writing += time.perf_counter() - started

    def _add_row(self, x: NDArray, misfit: float) -> None:
        now = time.perf_counter()
        m = self.parametrisation.to_model(x)
        velocity = velocity_from(m)
        row = Row(
            self.iteration,
            len(self.objective.evaluations),
            misfit,
            float(np.linalg.norm(self.objective.gradient)),
            self.problem.velocity_error(velocity),
            self.problem.slowness_error(m),
            round(now - self.step_started, 4),
            round(self.elapsed_before + now - self.loop_started, 4),
        )
        self.step_started = now
        new = self.rows.add(row)
        if new:
            self.folder.write_array(self.folder.current_model, velocity.astype(np.float32))
        row = row if new else self.rows.rows[row.iteration]
        facts = {key: value for key, value in asdict(row).items() if value is not None and math.isfinite(value)}
        self.log.write(IterationDone(**facts, replayed=not new))

    def _finish(self, result: Any) -> RunResult:
        velocity = velocity_from(self.parametrisation.to_model(result.x)).astype(np.float32)
        self.rows.cut(int(result.nit))
        self._draw(velocity)
        self.folder.write_array(self.folder.model, velocity)
        summary: dict[str, Any] = {
            "iterations": int(result.nit),
            "evaluations": int(result.nfev),
            "misfit": float(result.fun),
            "initial_misfit": self.objective.evaluations[0].misfit,
            "model_error": self.problem.velocity_error(velocity_from(self.parametrisation.to_model(result.x))),
            "message": str(result.message),
            "left_out": self.problem.exclusion_note,
            "irreproducible": self.session.reproducibility.against,
            "core_hours": round(self.log.state.core_hours(time.time()), 6),
        }
        self.folder.write_result({"state": "done", "limits": _limits(self.config), "summary": summary})
        self.folder.current_model.unlink(missing_ok=True)
        self.log.write(RunDone(seconds=time.perf_counter() - self.session.started, **summary))
        self._report()
        return RunResult(folder=self.folder.path, velocity=velocity, **summary)

    def _draw(self, velocity: NDArray) -> None:
        if not self.config.output.figures:
            return
        from hpcfwi.reporting.figures import footnote
        from hpcfwi.reporting.gallery import draw_gallery

        started = time.perf_counter()
        try:
            with footnote(self.problem.exclusion_note):
                draw_gallery(self.folder, self.problem, self.objective, self.rows.rows, velocity, self.first_gradient)
        except HpcfwiError:
            raise
        except Exception as error:
            # pictures are no reason to lose the model that they show
            self.log.write(RunWarning(message=f"figures: {error}", traceback=format_exc()))
            self.session.progress.print_line(f"warning: the figures cannot be drawn ({type(error).__name__}: {error})")
            return
        self.log.write(Figures(seconds=time.perf_counter() - started))

    def _report(self) -> None:
        if not self.config.output.report:
            return
        started = time.perf_counter()
        try:
            from hpcfwi.reporting.report.page import write_report

            path = write_report(self.folder.path, self.problem)
        except Interrupted:
            raise
        except Exception as error:
            # the run is done, with or without it
            self.log.write(RunWarning(message=f"report: {error}", traceback=format_exc()))
            self.session.progress.print_line(f"warning: the report cannot be written ({type(error).__name__}: {error})")
            return
        self.log.write(Report(seconds=time.perf_counter() - started, file=path.name))
