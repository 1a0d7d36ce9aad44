"""``history.csv``: one row for each iteration, the first for the initial model."""

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from hpcfwi.errors import RunError
from hpcfwi.io import require_regular_file, write_atomic


@dataclass(frozen=True)
class Row:
    """One iteration; 0 is the initial model."""

    iteration: int
    evaluations: int  # of misfit and gradient since the start
    misfit: float  # sum over all shots, or its estimate from a batch
    gradient_norm: float  # two-norm; frozen cells count as zero
    # norm(vp - vp_true) / norm(vp_true), and the norm of the element-wise relative error of the squared slowness; None
    # without a true model
    model_error: float | None
    m_error: float | None
    step_seconds: float  # wall time of this iteration
    elapsed_seconds: float  # wall time of all iterations so far
    stage: int = 1  # of the inversion
    batch: int | None = None  # number of shots that misfit and gradient are from; None: all


# The gradient at the initial model, in the run folder.
GRADIENT_FILE = "gradient.npy"
COLUMNS = [field.name for field in fields(Row)]
MAY_BE_EMPTY = ("model_error", "m_error", "batch")


def model_file(iteration: int) -> str:
    """The file of an iteration's model in the run folder."""
    return f"models/{iteration:04d}.npy"


def first_evaluations(rows: Sequence[Row]) -> dict[int, int]:
    """The number of each stage's first evaluation; the first model of a later stage has no row."""
    starts: dict[int, int] = {}
    before = 0
    for row in rows:
        starts.setdefault(row.stage, before + 1)
        before = row.evaluations
    return starts


class History:
    """The rows in ``history.csv``, which a continued run does not repeat; raises RunError if the file is malformed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = _read(path) if path.exists() else []

    def has(self, row: Row) -> bool:
        """Whether the file has this row already."""
        return row.iteration < len(self.rows) and row.misfit == self.rows[row.iteration].misfit

    def add(self, row: Row) -> bool:
        """Write a row unless the file has it already; returns whether it was new."""
        if self.has(row):
            return False
        # entries that were removed from the journal may have been computed anew, with other results
        self.rows[row.iteration :] = [row]
        self._write()
        return True

    def cut(self, iterations: int) -> None:
        """Remove the rows of an earlier start that made more iterations."""
        if len(self.rows) > iterations + 1:
            del self.rows[iterations + 1 :]
            self._write()

    def _write(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(["" if value is None else repr(value) for value in astuple(row)] for row in self.rows)
        write_atomic(self.path, lambda file: file.write(text.getvalue().encode()))


def _read(path: Path) -> list[Row]:
    rows: list[Row] = []
    try:
        with require_regular_file(path).open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                values = [
                    float(line[name]) if line[name] or name not in MAY_BE_EMPTY else None for name in COLUMNS[2:-2]
                ]
                iteration, evaluations, stage = (int(line[name]) for name in ("iteration", "evaluations", "stage"))
                batch = int(line["batch"]) if line["batch"] else None
                row = Row(iteration, evaluations, *values, stage, batch)  # type: ignore[arg-type,call-arg]
                if row.iteration != len(rows):
                    raise ValueError
                rows.append(row)
    except (OSError, TypeError, ValueError, KeyError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else f"row {len(rows) + 1} is malformed"
        raise RunError(
            f"{path}: cannot be read ({reason}); remove it and start the same command again: the journal has its content"
        ) from None
    return rows
