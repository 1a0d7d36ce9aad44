"""What the user sees while it runs: a live display on a terminal, plain lines elsewhere; all of it from the run's events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from hpcfwi.events.state import RunState
from hpcfwi.events.types import (
    DataStaged,
    EvaluationDone,
    EvaluationStarted,
    Event,
    IterationDone,
    ShotDone,
    ShotExcluded,
    ShotStaged,
    StagingData,
    SumsFound,
)
from hpcfwi.reporting.formatting import counted, duration

__all__ = ["Progress"]

SHOWN_ROWS = 12


class Progress:
    """Shows stages, shots and iterations; a context manager.

    Parameters
    ----------
    console
        Where to; a live display if it is a terminal.
    state
        How the run stands, to which an event is applied before it is shown.
    """

    def __init__(self, console: Console, state: RunState) -> None:
        self.console, self.state = console, state
        # events of iterations
        self.rows: list[IterationDone] = []
        self.last_evaluation: EvaluationDone | None = None
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._bars = Bars(
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
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            StagingData: lambda _: self._begin_shots("modelling or reading data"),
            ShotStaged: lambda _: self._show_shots(),
            DataStaged: lambda _: self._show_shots(),
            EvaluationStarted: lambda _: self._begin_shots("shots"),
            SumsFound: lambda _: self._show_shots(),
            ShotDone: lambda _: self._show_shots(),
            EvaluationDone: self._evaluated,
            IterationDone: self._iterated,
            ShotExcluded: lambda _: self._begin_anew(),
        }

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.update(self._shots_bar, visible=False)
        if self._live:
            self._live.stop()

    def print_line(self, text: str) -> None:
        """A line that stays."""
        self.console.print(f"[{self._clock()}] {text}", highlight=False, markup=False, soft_wrap=True)

    def on_event(self, event: Event) -> None:
        """Show what an event changes."""
        show = self._handlers.get(type(event))
        if show is not None:
            show(event)

    def _begin_anew(self) -> None:
        """All iterations so far are void."""
        with self._lock:
            self.rows.clear()
        self.last_evaluation = None
        self._bars.update(self._iterations_bar, completed=0, left="")

    def _begin_shots(self, what: str) -> None:
        state = self.state
        self._bars.reset(
            self._shots_bar,
            total=state.shots_total,
            completed=state.shots_done,
            description=what,
            visible=state.shots_done < state.shots_total,
        )

    def _show_shots(self) -> None:
        state = self.state
        self._bars.update(self._shots_bar, completed=state.shots_done, visible=state.shots_done < state.shots_total)

    def _evaluated(self, event: EvaluationDone) -> None:
        self.last_evaluation = event
        self._show_shots()

    def _iterated(self, row: IterationDone) -> None:
        with self._lock:
            self.rows.append(row)
        number, total, left = row.iteration, self.state.iterations, self._left()
        self._bars.update(self._iterations_bar, completed=number, total=total, visible=True, left=left)
        if not self._live:
            known = row.model_error
            error = "" if known is None else f", model error {100 * known:.3f} %"
            what = f"iteration {number}/{total}" if number else "initial model"
            self.print_line(
                f"{what}: misfit {row.misfit:.6g} ({self._relative(row):.4f} of the initial){error}, "
                f"{counted(row.evaluations, 'evaluation')}, {row.step_seconds:.2f} s{', ' + left if left else ''}"
            )

    def _relative(self, row: IterationDone) -> float:
        first = self.rows[0].misfit if self.rows else 0.0
        return row.misfit / first if first else 1.0

    def _left(self) -> str:
        """Estimated time left, from the last iterations."""
        seconds = self.state.time_left
        return f"at most {duration(seconds)} left" if seconds else ""

    def _clock(self) -> str:
        return duration(time.monotonic() - self._started)

    def _render(self) -> Group:
        with self._lock:
            rows = self.rows[-SHOWN_ROWS:]
        if not rows:
            return Group(self._bars)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in (
            "iteration",
            "evaluations",
            "misfit",
            "of initial",
            "|gradient|",
            "model error",
            "seconds",
        ):
            table.add_column(name, justify="right")
        for row in rows:
            error = row.model_error
            table.add_row(
                str(row.iteration),
                str(row.evaluations),
                f"{row.misfit:.6g}",
                f"{self._relative(row):.4f}",
                f"{row.gradient_norm:.3g}",
                "" if error is None else f"{100 * error:.3f} %",
                f"{row.step_seconds:.2f}",
            )
        last = self.last_evaluation
        told = f"last evaluation: number {last.evaluation}, misfit {last.misfit:.6g}" if last else ""
        return Group(table, Text(told), self._bars)
