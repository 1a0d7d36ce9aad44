"""The minimisation of a run: iterations with a session's workers, estimates of the wavelet, and the results."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from traceback import format_exc
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import HpcfwiError, Interrupted
from hpcfwi.events import types as events
from hpcfwi.inversion.history import History, Row
from hpcfwi.inversion.optimizers.convergence import Budget
from hpcfwi.model.stages import Stage, interpolate, stages_of
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.model.vtk import vtk_image
from hpcfwi.reporting.formatting import counted
from hpcfwi.run.data_staging import stage_data
from hpcfwi.run.session import Session

if TYPE_CHECKING:  # imports scipy and Dask, which start while workers do
    from hpcfwi.inversion.optimizers.base import Iterate
    from hpcfwi.run.stage_run import StageRun


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
        Misfit of the final and of the initial model; with stages, of the first model of the last stage.
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
    stages
        Number of stages.
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
    stages: int = 1


class Minimisation:
    """The minimisation with a session's workers, stage after stage, and the output of its results."""

    def __init__(self, session: Session) -> None:
        self.session, self.folder, self.log = session, session.folder, session.log
        self.problem = session.problem
        self.config = session.problem.config
        self.iteration = -1  # the last one; 0 is the initial model
        self.evaluations: list[events.EvaluationDone] = []
        self.stage_starts: dict[int, str] = {}  # names of the stages by the number of their first evaluation
        self.writing_seconds = self.objective_seconds = self.source_seconds = 0.0
        self.shots = dict(zip(session.problem.survey.names, stage_data(session), strict=True))
        self.history = History(self.folder.history)
        self.elapsed_before = self.history.rows[-1].elapsed_seconds if self.history.rows else 0.0
        self.recorded = len(self.history.rows) - 1  # the last iteration of earlier starts
        self.budget = Budget(self.config.inversion.budget_hours, self.config.inversion.budget_core_hours)

    stage: StageRun  # the current one

    def run(self) -> RunResult:
        """Minimise, and write the results."""
        from hpcfwi.run.stage_run import StageRun

        velocity = self.problem.initial_velocity
        self.minimisation_began = self.step_began = time.perf_counter()
        for stage in stages_of(self.problem):
            recorded = [row for row in self.history.rows if row.stage == stage.number and row.iteration]
            self.stage = StageRun(
                self.session, stage, velocity, self.shots, self.evaluations, self._on_evaluation, recorded
            )
            if stage.section is not None:
                self._begin(stage)
                self.stage_starts[len(self.evaluations) + 1] = stage.name
            known = self.config.data.file is None or bool(self.history.rows)
            result = self.stage.minimise(self._on_iteration, check=stage.number == 1 and not known)
            velocity = self.stage.model(result.x)
            self.objective_seconds += self.stage.objective.seconds
            self.source_seconds += self.stage.source_seconds
            if stage.section is not None:
                self._end(stage, result)
            if self.budget.spent:
                break
        seconds = time.perf_counter() - self.minimisation_began
        others = self.objective_seconds + self.writing_seconds + self.source_seconds
        self.log.write(
            events.Optimised(
                seconds=seconds,
                optimiser_seconds=max(0.0, seconds - others),
                writing_seconds=self.writing_seconds,
                iterations=self.iteration,
                evaluations=len(self.evaluations),
                message=str(result.message),
            )
        )
        return self._write_results(result, velocity)

    def _begin(self, stage: Stage) -> None:
        from hpcfwi.run.stage_run import stage_started

        problem = self.stage.problem
        event = stage_started(stage, problem, problem.config.inversion.iterations)
        self.log.write(event)
        self.session.print_line(
            f"stage {stage.number} of {event.stages}, {stage.name}: {event.grid}, {counted(event.shots, 'shot')}, misfit "
            f"{problem.config.inversion.misfit.kind}, at most {counted(event.iterations, 'iteration')}"
        )

    def _end(self, stage: Stage, result: Any) -> None:
        self.log.write(
            events.StageDone(
                stage=stage.number,
                iterations=result.nit,
                evaluations=len(self.evaluations) - self.stage.first_evaluation,
                initial_misfit=self.stage.initial_misfit,
                misfit=float(result.fun),
                message=str(result.message),
            )
        )

    def _on_evaluation(self, evaluation: events.EvaluationDone) -> None:
        self.log.write(evaluation)
        if evaluation.drift:
            reason = (
                "on another kind of processor, or with other versions of numpy or scipy, replayed models differ from the "
                "journal in their last bits"
            )
            self.session.reproducibility.add_reason(reason, reason)
        gradient = self.stage.objective.first_gradient
        if evaluation.number == 1 and gradient is not None:
            whole = interpolate(gradient, self.stage.problem.domain, self.problem.domain)
            self.folder.write_gradient(np.where(self.problem.frozen, 0.0, whole))

    def _on_iteration(self, iterate: Iterate, velocity: NDArray, first: bool) -> str:
        """Write a row of the history, unless the model is the first one of a later stage.

        Returns why the run has to stop, or nothing.
        """
        if first and self.iteration >= 0:
            return ""
        began = time.perf_counter()
        self.iteration += 1
        self._add_row(iterate, velocity)
        self.writing_seconds += time.perf_counter() - began
        if self.iteration < self.recorded:  # that iteration was within the budgets
            return ""
        elapsed = self.elapsed_before + time.perf_counter() - self.minimisation_began
        return self.budget.reason(elapsed / 3600, self.log.state.core_hours(time.time()))

    def _add_row(self, iterate: Iterate, velocity: NDArray) -> None:
        now = time.perf_counter()
        row = Row(
            self.iteration,
            len(self.evaluations),
            iterate.misfit,
            float(np.linalg.norm(iterate.gradient)),
            self.problem.velocity_error(velocity),
            self.problem.slowness_error(squared_slowness(velocity)),
            round(now - self.step_began, 4),
            round(self.elapsed_before + now - self.minimisation_began, 4),
            self.stage.stage.number,
            iterate.shots,
        )
        self.step_began = now
        if not self.history.has(row):  # first the model: after a kill in between, both are written again
            self.folder.write_model(row.iteration, velocity)
        new = self.history.add(row)
        row = row if new else self.history.rows[row.iteration]
        facts = {name: value for name, value in asdict(row).items() if value is not None and math.isfinite(value)}
        self.log.write(events.IterationDone(**facts, replayed=not new))

    def _write_results(self, result: Any, velocity: NDArray) -> RunResult:
        final = velocity.astype(np.float32)
        self.history.cut(self.iteration)
        self.folder.cut_models(self.iteration)
        if self.config.output.figures:
            self._draw_figures(final)
        self.folder.write_array(self.folder.model, final)
        self._write_image(final)
        summary: dict[str, Any] = {
            "iterations": self.iteration,
            "evaluations": len(self.evaluations),
            "misfit": float(result.fun),
            "initial_misfit": self.stage.initial_misfit,
            "model_error": self.problem.velocity_error(velocity),
            "message": str(result.message),
            "left_out": self.problem.exclusion_note,
            "irreproducible": self.session.reproducibility.reasons,
            "stages": len(stages_of(self.problem)),
            "core_hours": round(self.log.state.core_hours(time.time()), 6),
        }
        self.folder.write_json(self.folder.result, {"state": "done", "limits": self.config.limits, "summary": summary})
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
            stage = self.stage
            draw_run_figures(
                self.folder.figures,
                self.problem,
                stage.objective,
                rows,
                velocity,
                self.folder.read_gradient(),
                stage.on_grid,
                stage.source,
                self.stage_starts,
            )
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
