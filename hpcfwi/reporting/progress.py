"""What the user sees of a run while it runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBars
from rich.table import Table
from rich.text import Text

from hpcfwi.events import types as events
from hpcfwi.events.state import RunState
from hpcfwi.events.types import Event
from hpcfwi.reporting.formatting import counted, duration

# Iterations in the table of the live display.
MAX_ROWS = 12
COLUMNS = ("iteration", "evaluations", "misfit", "of initial", "|gradient|", "model error", "seconds")


class Progress:
    """Shows iterations and shots; a context manager.

    Parameters
    ----------
    console
        Where to print; on a terminal there is a live display.
    state
        How the run stands; an event is applied to it before it is shown here.
    """

    def __init__(self, console: Console, state: RunState) -> None:
        self.console, self.state = console, state
        self._started = time.monotonic()
        self._rows: list[events.IterationDone] = []
        self._last_evaluation: events.EvaluationDone | None = None
        # events arrive in other threads than the one that draws
        self._lock = threading.Lock()
        self._bars = ProgressBars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._iterations_bar = self._bars.add_task("iterations", total=1, visible=False, left="")
        self._shots_bar = self._bars.add_task("shots", total=1, visible=False, left="")
        self._live = (
            Live(console=console, refresh_per_second=8, get_renderable=self._render) if console.is_terminal else None
        )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.update(self._shots_bar, visible=False)
        if self._live:
            self._live.stop()

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
            case events.ShotDone() | events.ShotStaged() | events.DataStaged() | events.SumsFound():
                self._show_shots()
            case events.EvaluationDone():
                self._last_evaluation = event
                self._show_shots()
            case events.IterationDone():
                self._show_iteration(event)
            case events.ShotExcluded():
                self._begin_anew()

    def _begin_shots(self, description: str) -> None:
        self._bars.reset(self._shots_bar, description=description, total=self.state.shots_total)
        self._show_shots()

    def _show_shots(self) -> None:
        done, total = self.state.shots_done, self.state.shots_total
        self._bars.update(self._shots_bar, completed=done, visible=done < total)

    def _begin_anew(self) -> None:
        """Drop the iterations so far: without a shot, they belong to another inversion."""
        with self._lock:
            self._rows.clear()
        self._last_evaluation = None
        self._bars.update(self._iterations_bar, completed=0, left="")

    def _show_iteration(self, row: events.IterationDone) -> None:
        with self._lock:
            self._rows.append(row)
        total, seconds = self.state.iterations, self.state.time_left
        left = f"at most {duration(seconds)} left" if seconds else ""
        self._bars.update(self._iterations_bar, completed=row.iteration, total=total, visible=True, left=left)
        if self._live:
            return
        error = "" if row.model_error is None else f", model error {100 * row.model_error:.3f} %"
        what = f"iteration {row.iteration}/{total}" if row.iteration else "initial model"
        self.print_line(
            f"{what}: misfit {row.misfit:.6g} ({self._share(row):.4f} of the initial){error}, "
            f"{counted(row.evaluations, 'evaluation')}, {row.step_seconds:.2f} s{', ' + left if left else ''}"
        )

    def _share(self, row: events.IterationDone) -> float:
        """Misfit relative to the first one."""
        first = self._rows[0].misfit if self._rows else 0.0
        return row.misfit / first if first else 1.0

    def _render(self) -> Group:
        """The live display."""
        with self._lock:
            rows = self._rows[-MAX_ROWS:]
        if not rows:
            return Group(self._bars)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in COLUMNS:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(
                str(row.iteration),
                str(row.evaluations),
                f"{row.misfit:.6g}",
                f"{self._share(row):.4f}",
                f"{row.gradient_norm:.3g}",
                "" if row.model_error is None else f"{100 * row.model_error:.3f} %",
                f"{row.step_seconds:.2f}",
            )
        last = self._last_evaluation
        text = f"last evaluation: number {last.evaluation}, misfit {last.misfit:.6g}" if last else ""
        return Group(table, Text(text), self._bars)
