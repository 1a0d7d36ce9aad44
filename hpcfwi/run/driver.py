"""The commands ``run``, from a configuration to a velocity model, and ``model``, from a configuration to observed data."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
from hpcfwi.events import types as events
from hpcfwi.inversion.history import History, Row
from hpcfwi.inversion.misfit import misfit_identity
from hpcfwi.model.problem import Problem
from hpcfwi.model.velocity import read_array, squared_slowness, velocity_from
from hpcfwi.model.vtk import vtk_image
from hpcfwi.run.folder import RunFolder
from hpcfwi.run.session import Session, session
from hpcfwi.run.shot_exclusion import ShotExclusion
from hpcfwi.run.stopping import Requeue
from hpcfwi.solver.engine import SleepingShots


@dataclass(frozen=True)
class RunResult:
    """The result of an inversion.

    Parameters
    ----------
    folder
        The run folder.
    velocity
        Final model, km/s, float32, shape ``domain.shape``.
    iterations, evaluations
        Number of each.
    misfit, initial_misfit
        Misfit of the final and of the initial model.
    model_error
        ``norm(vp - vp_true) / norm(vp_true)``; None if no true model is known.
    message
        Why the optimiser stopped.
    left_out
        Which shots were left out of the sums, in words; empty if none were.
    irreproducible
        Why another run of the same problem may differ in the last bits, in words; empty if it gives the same bytes.
    core_hours
        Cores of the workers times the hours for which they were held until the model was ready, over all starts.
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
    problem = Problem.from_config(config)
    # before the folder is created and workers start: the name of the misfit may be wrong
    identity = problem.identity | misfit_identity(config.inversion.misfit)
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
                        return _Inversion(current).run()
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
) -> list[Path]:
    """Only prepare the observed data: model them or read them from ``data.file``, and stage them in ``run_dir``.

    Parameters
    ----------
    config, site, run_dir, console, options, accept_versions
        As of :func:`run_inversion`.

    Returns
    -------
    list of Path
        One .npy gather (samples, receivers) per shot, in ``run_dir/data``.

    Raises
    ------
    InputError, RunError, Interrupted
        As :func:`run_inversion`.
    """
    console = console or Console(quiet=True)
    problem = Problem.from_config(config)
    with RunFolder(Path(run_dir), line_printer(console)) as folder:
        folder.claim(problem.identity | misfit_identity(config.inversion.misfit), config, accept_versions)
        with session(problem, site or Site(), options, folder, console) as current:
            paths = []
            for shot, staged in zip(problem.survey.shots, current.stage_data(), strict=True):
                path = folder.path / "data" / f"{shot.file_name}.npy"
                folder.write_array(path, load(staged, "shot")["record"])
                paths.append(path)
            return paths


def line_printer(console: Console) -> Callable[[str], None]:
    """A function that prints a line as it is."""
    return lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)


def _limits(config: RunConfig) -> dict[str, float]:
    """The limits of the optimiser, which the user may change to continue a finished run."""
    return config.inversion.model_dump(include={"iterations", "evaluations", "ftol", "gtol"})


def _finished(folder: RunFolder, problem: Problem) -> RunResult | None:
    """The result of a finished run, else None; a damaged result is rebuilt from the journal."""
    try:
        content = folder.read_json(folder.result)
        if content is None or content.get("limits") != _limits(problem.config):
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


class _Inversion:
    """The minimisation with a session's workers, and the output of its results."""

    def __init__(self, session: Session) -> None:
        from hpcfwi.inversion.journal import Journal, Partials
        from hpcfwi.inversion.objective import Objective
        from hpcfwi.inversion.parametrisation import SquaredSlowness

        self.session, self.folder, self.log = session, session.folder, session.log
        self.problem = problem = session.problem
        self.config = problem.config
        self.iteration = 0
        self.writing_seconds = 0.0
        shots = session.stage_data()
        self.history = History(self.folder.history)
        self.elapsed_before = self.history.rows[-1].elapsed_seconds if self.history.rows else 0.0
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
            lambda number: self.log.write(events.EvaluationStarted(evaluation=number, shots=len(problem.survey))),
            self._on_evaluation,
        )

    def run(self) -> RunResult:
        """Minimise, and write the results."""
        from hpcfwi.inversion.optimizer import minimise

        x0 = self.parametrisation.to_vector(squared_slowness(self.problem.initial_velocity))
        self.minimisation_began = self.step_began = time.perf_counter()
        result = minimise(self.objective, x0, self.parametrisation, self.config.inversion, self._on_iteration)
        seconds = time.perf_counter() - self.minimisation_began
        self.log.write(
            events.Optimised(
                seconds=seconds,
                optimiser_seconds=max(0.0, seconds - self.objective.seconds - self.writing_seconds),
                writing_seconds=self.writing_seconds,
                iterations=int(result.nit),
                evaluations=int(result.nfev),
                message=str(result.message),
            )
        )
        return self._write_results(result)

    def _on_evaluation(self, evaluation: events.EvaluationDone, x: NDArray, gradient: NDArray) -> None:
        self.log.write(evaluation)
        if evaluation.drift:
            reason = (
                "on another kind of processor, or with other versions of numpy or scipy, replayed models differ from the "
                "journal in their last bits"
            )
            self.session.reproducibility.add_reason(reason, reason)
        if evaluation.number == 1:
            self.first_gradient = gradient.reshape(self.problem.domain.shape)
            self._add_row(x, evaluation.misfit)

    def _on_iteration(self, x: NDArray, misfit: float) -> None:
        began = time.perf_counter()
        self.iteration += 1
        self._add_row(x, misfit)
        self.writing_seconds += time.perf_counter() - began

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
            round(now - self.step_began, 4),
            round(self.elapsed_before + now - self.minimisation_began, 4),
        )
        self.step_began = now
        new = self.history.add(row)
        if new:
            self.folder.write_array(self.folder.current_model, velocity.astype(np.float32))
        row = row if new else self.history.rows[row.iteration]
        facts = {name: value for name, value in asdict(row).items() if value is not None and math.isfinite(value)}
        self.log.write(events.IterationDone(**facts, replayed=not new))

    def _write_results(self, result: Any) -> RunResult:
        velocity = velocity_from(self.parametrisation.to_model(result.x))
        final = velocity.astype(np.float32)
        self.history.cut(int(result.nit))
        if self.config.output.figures:
            self._draw_figures(final)
        self.folder.write_array(self.folder.model, final)
        self._write_image(final)
        summary: dict[str, Any] = {
            "iterations": int(result.nit),
            "evaluations": int(result.nfev),
            "misfit": float(result.fun),
            "initial_misfit": self.objective.evaluations[0].misfit,
            "model_error": self.problem.velocity_error(velocity),
            "message": str(result.message),
            "left_out": self.problem.exclusion_note,
            "irreproducible": self.session.reproducibility.reasons,
            "core_hours": round(self.log.state.core_hours(time.time()), 6),
        }
        self.folder.write_json(
            self.folder.result, {"state": "done", "limits": _limits(self.config), "summary": summary}
        )
        self.folder.current_model.unlink(missing_ok=True)
        self.log.write(events.RunDone(seconds=time.perf_counter() - self.session.started, **summary))
        if self.config.output.report:
            self._write_report()
        return RunResult(folder=self.folder.path, velocity=final, **summary)

    def _write_image(self, velocity: NDArray) -> None:
        models = {"velocity": velocity, "initial": self.problem.initial_velocity}
        if self.problem.true_velocity is not None:
            models["true"] = self.problem.true_velocity
        # it is made in a folder for temporary files, which may be full
        with self._only_warning("model.vti cannot be written", unless=HpcfwiError):
            self.folder.write_bytes(self.folder.image, vtk_image(self.problem.domain, models))

    def _draw_figures(self, velocity: NDArray) -> None:
        from hpcfwi.reporting.figures import draw_run_figures

        began, rows = time.perf_counter(), self.history.rows
        # the model matters more than its figures
        with self._only_warning("the figures cannot be drawn", unless=HpcfwiError):
            draw_run_figures(self.folder.figures, self.problem, self.objective, rows, velocity, self.first_gradient)
            self.log.write(events.Figures(seconds=time.perf_counter() - began))

    def _write_report(self) -> None:
        began = time.perf_counter()
        # the run is done even without its report
        with self._only_warning("the report cannot be written", unless=Interrupted):
            from hpcfwi.reporting.report.page import write_report

            path = write_report(self.folder.path, self.problem)
            self.log.write(events.Report(seconds=time.perf_counter() - began, file=path.name))

    @contextmanager
    def _only_warning(self, what: str, unless: type[Exception]) -> Iterator[None]:
        """Turn an error, unless it is of this type, into a warning that says ``what`` failed."""
        try:
            yield
        except unless:
            raise
        except Exception as error:
            self.session.warn(f"{what} ({type(error).__name__}: {error})", format_exc())
