"""``history.csv``: a row for each iteration; the first is the initial model."""

from __future__ import annotations

import csv
import os
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from hpcfwi.errors import RunError

__all__ = ["History", "Row"]


@dataclass(frozen=True)
class Row:
    """One iteration.

    Parameters
    ----------
    iteration
        0 is the initial model.
    evaluations
        Evaluations of misfit and gradient since the start.
    misfit
        Sum over all shots.
    gradient_norm
        Two-norm of the gradient, frozen cells left out.
    model_error
        ``norm(vp - vp_true) / norm(vp_true)``; None where the truth is not known.
    m_error
        Norm of the element-wise relative error of the squared slowness.
    step_seconds
        Wall time of this iteration.
    elapsed_seconds
        Wall time of all iterations so far.
    """

    iteration: int
    evaluations: int
    misfit: float
    gradient_norm: float
    model_error: float | None
    m_error: float | None
    step_seconds: float
    elapsed_seconds: float


NAMES = [field.name for field in fields(Row)]


class History:
    """Rows on disk; rows that are there already are not written again.

    Parameters
    ----------
    path
        ``history.csv``; its rows are taken over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        if path.exists():
            self.rows = _read(path)

    def add(self, row: Row) -> bool:
        """Append a row and bring it to disk, unless the file has it; tell whether it was new."""
        if row.iteration < len(self.rows):
            return False
        self.rows.append(row)
        with self.path.open("w" if row.iteration == 0 else "a", newline="") as file:
            writer = csv.writer(file)
            if row.iteration == 0:
                writer.writerow(NAMES)
            writer.writerow(["" if value is None else repr(value) for value in astuple(row)])
            file.flush()
            os.fsync(file.fileno())
        return True


def _read(path: Path) -> list[Row]:
    rows = []
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            try:
                values = {name: float(line[name]) if line[name] else None for name in NAMES}
                rows.append(Row(int(line["iteration"]), int(line["evaluations"]), *list(values.values())[2:]))  # type: ignore[arg-type]
            except (TypeError, ValueError, KeyError):
                raise RunError(f"{path}: row {len(rows) + 1} cannot be read; it was changed by somebody else") from None
    return rows
