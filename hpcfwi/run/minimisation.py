"""The minimisation of a run: iterations with a session's workers, estimates of the wavelet, and the results."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from traceback import format_exc
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.artifacts import StagedFile
from hpcfwi.config.run import RunConfig
from hpcfwi.errors import HpcfwiError, Interrupted
from hpcfwi.events import types as events
from hpcfwi.inversion.history import History, Row
from hpcfwi.model.velocity import squared_slowness, velocity_from
from hpcfwi.model.vtk import vtk_image
from hpcfwi.run.data_staging import stage_data
from hpcfwi.run.session import Session
from hpcfwi.run.source_signature import check_source, estimate_source, with_source_of

if TYPE_CHECKING:  # imports scipy and Dask, which start while workers do
    from hpcfwi.inversion.objective import Objective
    from hpcfwi.model.source_estimate import SourceFilters


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


def limits(config: RunConfig) -> dict[str, float]:
    """The limits of the optimiser, which the user may change to continue a finished run."""
    return config.inversion.model_dump(include={"iterations", "evaluations", "ftol", "gtol"})


class Minimisation:
    """The minimisation with a session's workers, and the output of its results."""

    def __init__(self, session: Session) -> None:
        from hpcfwi.inversion.parametrisation import SquaredSlowness

        self.session, self.folder, self.log = session, session.folder, session.log
        self.problem = session.problem
        self.config = session.problem.config
        self.iteration = 0
        self.writing_seconds = self.source_seconds = 0.0
        self.shots = stage_data(session)
        self.history = History(self.folder.history)
        self.elapsed_before = self.history.rows[-1].elapsed_seconds if self.history.rows else 0.0
        self.parametrisation = SquaredSlowness.from_problem(session.problem)
        self.source: SourceFilters | None = None  # that predicted gathers have
        self.objective = self._objective(None, [])

    def _objective(self, source: StagedFile | None, evaluations: list[events.EvaluationDone]) -> Objective:
        """The objective with filters of predicted gathers, which goes on after some evaluations."""
        from hpcfwi.inversion.journal import Journal, Partials
        from hpcfwi.inversion.objective import Objective

        session, problem = self.session, self.problem
        identity = f"{problem.digest} {self.folder.began_with}" + (f" {source.digest}" if source else "")
        return Objective(
            problem,
            self.parametrisation,
            session.operations_with(source),
            session.tasks,
            self.shots,
            self.folder.staged,
            Journal(self.folder.journal, identity, self.folder.verify),
            Partials(self.folder.journal, self.config.journal.shots_per_sum),
            session.on_shots,
            lambda number: self.log.write(events.EvaluationStarted(evaluation=number, shots=len(problem.survey))),
            evaluations,
            self._on_evaluation,
        )

    def run(self) -> RunResult:
        """Minimise, and write the results."""
        from hpcfwi.inversion.optimizer import minimise

        x = self.parametrisation.to_vector(squared_slowness(self.problem.initial_velocity))
        section = self.config.inversion
        self.minimisation_began = self.step_began = time.perf_counter()
        for number, limit in enumerate(self._iteration_limits(), 1):
            predicts = self.session.stand_in is None  # shots that sleep in scaling studies predict nothing
            if predicts and self.config.wavelet.kind == "estimate":
                self._estimate_source(x, number)
            if predicts and number == 1 and self.config.data.file is not None and not self.history.rows:
                check_source(self.session, self.objective, self.problem.initial_velocity)
            before = self.iteration
            update = {"iterations": limit, "evaluations": section.evaluations - len(self.objective.evaluations)}
            result = minimise(
                self.objective, x, self.parametrisation, section.model_copy(update=update), self._on_iteration
            )
            x = result.x
            if self.iteration - before < limit or len(self.objective.evaluations) >= section.evaluations:
                break
        if self.objective.operations_in is not None:
            self._estimate_source(x, number + 1)  # for the figures
        seconds = time.perf_counter() - self.minimisation_began
        self.log.write(
            events.Optimised(
                seconds=seconds,
                optimiser_seconds=max(
                    0.0, seconds - self.objective.seconds - self.writing_seconds - self.source_seconds
                ),
                writing_seconds=self.writing_seconds,
                iterations=self.iteration,
                evaluations=len(self.objective.evaluations),
                message=str(result.message),
            )
        )
        return self._write_results(result)

    def _iteration_limits(self) -> Iterator[int]:
        """Iterations up to each new estimate of the wavelet, and up to the end."""
        left = self.config.inversion.iterations
        wavelet = self.config.wavelet
        every = wavelet.every if wavelet.kind == "estimate" and wavelet.every != "evaluation" else 0
        while True:
            yield min(every, left) if every else left
            left -= every
            if not every or left <= 0:
                return

    def _estimate_source(self, x: NDArray, number: int) -> None:
        """Estimate the wavelet at x; the objective goes on with it."""
        assert self.config.wavelet.kind == "estimate"
        began = time.perf_counter()
        velocity = velocity_from(self.parametrisation.to_model(x))
        seconds, evaluations = self.objective.seconds, self.objective.evaluations
        unfiltered = self._objective(None, evaluations)
        staged, self.source = estimate_source(self.session, unfiltered, velocity, number)
        self.objective = self._objective(staged, evaluations)
        self.objective.seconds = seconds
        if self.config.wavelet.every == "evaluation":
            self.objective.operations_in = partial(with_source_of, self.session, unfiltered)
        self.source_seconds += time.perf_counter() - began

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
        self.history.cut(self.iteration)
        if self.config.output.figures:
            self._draw_figures(final)
        self.folder.write_array(self.folder.model, final)
        self._write_image(final)
        summary: dict[str, Any] = {
            "iterations": self.iteration,
            "evaluations": len(self.objective.evaluations),
            "misfit": float(result.fun),
            "initial_misfit": self.objective.evaluations[0].misfit,
            "model_error": self.problem.velocity_error(velocity),
            "message": str(result.message),
            "left_out": self.problem.exclusion_note,
            "irreproducible": self.session.reproducibility.reasons,
            "core_hours": round(self.log.state.core_hours(time.time()), 6),
        }
        self.folder.write_json(self.folder.result, {"state": "done", "limits": limits(self.config), "summary": summary})
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
            models = velocity, self.first_gradient
            draw_run_figures(self.folder.figures, self.problem, self.objective, rows, *models, self.source)
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
