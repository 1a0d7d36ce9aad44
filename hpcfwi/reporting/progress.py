"""What the user sees while it runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from hpcfwi.reporting.history import Row

__all__ = ["Progress", "counted"]

SHOWN_ROWS = 12


class Progress:
    """Shows stages, shots and iterations; a context manager.

    Parameters
    ----------
    console
        Where to; a live display if it is a terminal.
    iterations
        Most iterations of the run.
    """

    def __init__(self, console: Console, iterations: int) -> None:
        self.console = console
        self.iterations = iterations
        self.rows: list[Row] = []
        self.misfits: list[float] = []
        self._started = time.monotonic()
        self._loop_started: float | None = None
        self._replayed = 0
        self._lock = threading.Lock()
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._iterations_bar = self._bars.add_task("iterations", total=iterations, visible=False, left="")
        self._shots_bar = self._bars.add_task("shots", total=1, visible=False, left="")
        self._live = (
            Live(console=console, refresh_per_second=8, get_renderable=self._render) if console.is_terminal else None
        )

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

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(f"[{self._clock()}] {text}", highlight=False, markup=False, soft_wrap=True)

    def begin_anew(self) -> None:
        """All iterations so far are void."""
        with self._lock:
            self.rows.clear()
        self.misfits.clear()
        self._loop_started, self._replayed = None, 0
        self._bars.update(self._iterations_bar, completed=0, left="")

    def shots(self, done: int, total: int, what: str = "shots") -> None:
        """How many shots of the present evaluation (or of the data) are done."""
        self._bars.update(self._shots_bar, completed=done, total=total, description=what, visible=done < total)
        if done == 0:
            self._bars.reset(self._shots_bar, total=total, description=what, visible=True)

    def evaluation(self, misfit: float, replayed: bool) -> None:
        """An evaluation was finished."""
        if self._loop_started is None and not replayed:
            self._loop_started = time.monotonic()
            self._replayed = len(self.rows)
        self.misfits.append(misfit)

    def iteration(self, row: Row) -> None:
        """An iteration was finished; row 0 is the initial model."""
        with self._lock:
            self.rows.append(row)
        self._bars.update(self._iterations_bar, completed=row.iteration, visible=True, left=self._left(row))
        if not self._live:
            error = "" if row.model_error is None else f", model error {100 * row.model_error:.3f} %"
            what = f"iteration {row.iteration}/{self.iterations}" if row.iteration else "initial model"
            left = self._left(row)
            self.say(
                f"{what}: misfit {row.misfit:.6g} ({self._relative(row):.4f} of the initial){error}, "
                f"{counted(row.evaluations, 'evaluation')}, {row.step_seconds:.2f} s{', ' + left if left else ''}"
            )

    def _relative(self, row: Row) -> float:
        return row.misfit / self.rows[0].misfit if self.rows and self.rows[0].misfit else 1.0

    def _left(self, row: Row) -> str:
        """Estimated time left, from the iterations that were computed now."""
        fresh = row.iteration - self._replayed
        if self._loop_started is None or fresh < 1 or row.iteration >= self.iterations:
            return ""
        seconds = (time.monotonic() - self._loop_started) / fresh * (self.iterations - row.iteration)
        return f"at most {_duration(seconds)} left"

    def _clock(self) -> str:
        return _duration(time.monotonic() - self._started)

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
            table.add_row(
                str(row.iteration),
                str(row.evaluations),
                f"{row.misfit:.6g}",
                f"{self._relative(row):.4f}",
                f"{row.gradient_norm:.3g}",
                "" if row.model_error is None else f"{100 * row.model_error:.3f} %",
                f"{row.step_seconds:.2f}",
            )
        last = Text(
            f"last evaluation: number {len(self.misfits)}, misfit {self.misfits[-1]:.6g}" if self.misfits else ""
        )
        return Group(table, last, self._bars)


def counted(number: int, noun: str) -> str:
    """``1 iteration``, ``2 iterations``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
