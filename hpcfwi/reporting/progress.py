"""Progress of a run on the console: a line for each iteration and, on a terminal, live bars below these lines."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBars

from hpcfwi.events import types as events
from hpcfwi.events.state import RunState
from hpcfwi.events.types import Event
from hpcfwi.reporting.formatting import counted, duration


class Progress:
    """Shows iterations and shots on a console; an event is applied to ``state`` before it is shown here."""

    def __init__(self, console: Console, state: RunState) -> None:
        self.console, self.state = console, state
        self._started = time.monotonic()
        note = TextColumn("{task.fields[note]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), note)
        self._bars = ProgressBars(*columns, console=console, disable=not console.is_terminal, refresh_per_second=8)
        self._iterations_bar = self._bars.add_task("iterations", total=1, visible=False, note="")
        self._shots_bar = self._bars.add_task("shots", total=1, visible=False, note="")

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.update(self._shots_bar, visible=False)
        self._bars.stop()

    def print_line(self, text: str) -> None:
        """Print a line that stays, with the time since the start."""
        elapsed = duration(time.monotonic() - self._started)
        self.console.print(f"[{elapsed}] {text}", highlight=False, markup=False, soft_wrap=True)

    def on_event(self, event: Event) -> None:
        """Show what an event changes."""
        match event:
            case events.StagingData():
                self._begin_shots("modelling or reading data")
            case events.EvaluationStarted():
                self._begin_shots("shots")
            case events.OperationStarted():
                self._begin_shots(event.operation)
            case (
                events.ShotDone()
                | events.ShotStaged()
                | events.DataStaged()
                | events.SumsFound()
                | events.OperationOnShot()
                | events.OperationDone()
            ):
                self._show_shots()
            case events.EvaluationDone():
                note = f"last evaluation: number {event.evaluation}, misfit {event.misfit:.6g}"
                self._bars.update(self._shots_bar, note=note)
                self._show_shots()
            case events.IterationDone():
                self._show_iteration(event)
            case events.ShotExcluded():  # without the shot, another inversion begins
                self._bars.update(self._shots_bar, note="")
                self._bars.update(self._iterations_bar, completed=0, note="")

    def _begin_shots(self, description: str) -> None:
        self._bars.reset(self._shots_bar, description=description, total=self.state.shots_total)
        self._show_shots()

    def _show_shots(self) -> None:
        done, total = self.state.shots_done, self.state.shots_total
        self._bars.update(self._shots_bar, completed=done, visible=done < total)

    def _show_iteration(self, row: events.IterationDone) -> None:
        total, seconds = self.state.iterations, self.state.time_left
        stages = self.state.stage is not None and self.state.stage.stages > 1
        left = f"at most {duration(seconds)} left{' of this stage' if stages else ''}" if seconds else ""
        self._bars.update(self._iterations_bar, completed=row.iteration, total=total, visible=True, note=left)
        share = row.misfit / self.state.initial_misfit if self.state.initial_misfit else 1.0
        batch = "" if row.batch is None else f" by {counted(row.batch, 'shot')}"
        error = "" if row.model_error is None else f", model error {100 * row.model_error:.3f} %"
        what = f"iteration {row.iteration}/{total}" if row.iteration else "initial model"
        self.print_line(
            f"{what}: misfit {row.misfit:.6g}{batch} ({share:.4f} of the {'first' if stages else 'initial'}){error}, "
            f"{counted(row.evaluations, 'evaluation')}, {row.step_seconds:.2f} s{', ' + left if left else ''}"
        )
