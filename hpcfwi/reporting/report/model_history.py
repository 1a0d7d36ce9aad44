"""Every iteration's model, from the journal: pictures that are shown one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import StagingError
from hpcfwi.inversion.history import Row
from hpcfwi.inversion.journal import Entry, entries
from hpcfwi.inversion.misfit import FunctionalGradient
from hpcfwi.model.velocity import velocity_from
from hpcfwi.reporting.formatting import counted
from hpcfwi.reporting.report.charts import number
from hpcfwi.reporting.report.data import RunModels
from hpcfwi.reporting.report.models import ColourBar, Panel, panels_of, planes_of, scale_of, symmetric

__all__ = ["ModelFrame", "ModelHistory", "make_model_history"]

# Iterations that are shown; pixels of all pictures together; bytes of the journal that are read for them.
MOST_SLIDES, MOST_PIXELS, MOST_BYTES = 60, 4_000_000, 3_000_000_000


@dataclass(frozen=True)
class ModelFrame:
    """An iteration's pictures, in the order of the panels."""

    label: str
    panels: list[Panel]

    @property
    def script(self) -> dict[str, Any]:
        """What the page's script needs of it."""
        return {"label": self.label, "pictures": [[panel.picture, panel.alt] for panel in self.panels]}


@dataclass
class ModelHistory:
    """All slides.

    Parameters
    ----------
    slides
        In the order of the iterations.
    bars
        Colour bars of the models and of the differences.
    gradient
        The first one; None where the journal has it not.
    notes
        What is left out, and why.
    """

    slides: list[ModelFrame] = field(default_factory=list)
    bars: tuple[ColourBar, ...] = ()
    gradient: NDArray | None = None
    notes: list[str] = field(default_factory=list)


def make_model_history(journal: Path, rows: Sequence[Row], scene: RunModels) -> ModelHistory:
    """Look the iterations' models up in a journal and draw them; of long runs, and of large models, only some of them."""
    album = ModelHistory()
    if scene.domain is None or not rows:
        return album
    found, damaged = entries(journal)
    if not found:
        album.notes.append(f"There is no slider: the journal, which has the models, is empty or not there ({journal}).")
        return album
    most = int(np.clip(MOST_BYTES // max(entry.bytes for entry in found), 2, MOST_SLIDES))
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
    if len(chosen) < len(rows):
        album.notes.append(f"{len(chosen)} of {counted(len(rows), 'model')} are shown, the initial one included.")
    reader = _Reader(found, rows, scene.domain.shape, damaged)
    pixels = MOST_PIXELS // (2 * len(chosen))
    models = []
    for place in chosen:
        recorded = reader.read(int(place))
        if recorded is None:
            continue
        answer, x = recorded
        with np.errstate(all="ignore"):
            velocity = velocity_from(x.reshape(scene.domain.shape))
        # no more of it than is shown: there may be many
        models.append((rows[place], planes_of(scene.domain, velocity, pixels)))
        if place == 0 and answer.g.size == x.size:
            album.gradient = answer.g.reshape(scene.domain.shape)
    if reader.damaged:
        album.notes.append(f"{counted(reader.damaged, 'file')} of the journal cannot be used, and left out.")
    if reader.missing:
        told = f"{counted(reader.missing, 'iteration')} of those that would be shown" if models else "The iterations"
        album.notes.append(f"{told} cannot be found in the journal.")
    if models:
        _draw(album, models, scene, pixels)
    return album


class _Reader:
    """Finds an iteration's model: the optimiser accepts the last point of a line search, or, rarely, an earlier one."""

    def __init__(self, found: list[Entry], rows: Sequence[Row], shape: tuple[int, ...], damaged: int) -> None:
        self.rows, self.size, self.damaged, self.missing = rows, int(np.prod(shape)), damaged, 0
        self._found: dict[int, list[Entry]] = {}
        for entry in found:
            self._found.setdefault(entry.number, []).append(entry)

    def read(self, place: int) -> tuple[FunctionalGradient, NDArray] | None:
        row = self.rows[place]
        first = self.rows[place - 1].evaluations + 1 if place else 1
        # a row that somebody has made up may claim any number of evaluations
        for number_ in range(row.evaluations, max(first, row.evaluations - 100) - 1, -1):
            for entry in self._found.get(number_, []):
                try:
                    answer, x = entry.read(self.size)
                except StagingError:
                    self.damaged += 1
                    continue
                # one of another problem, as of that with a shot that was lost, has another misfit
                if answer.f == row.misfit:
                    return answer, x
        self.missing += 1
        return None


def _draw(album: ModelHistory, models: list[tuple[Row, list[NDArray]]], scene: RunModels, pixels: int) -> None:
    domain = scene.domain
    assert domain is not None
    known = [planes_of(domain, model, pixels) for model in (scene.true, scene.initial) if model is not None]
    (_, initial), (_, last) = models[0], models[-1]
    velocities = scale_of(*(plane for planes in known for plane in planes), last=_flat(last))
    bars = [ColourBar(velocities, "P-wave velocity (km/s)")]
    against = "initial" if scene.true is None else "true"
    if known:
        limits = symmetric(*(_flat(_minus(planes, known[0])) for planes in (initial, last)))
        bars.append(ColourBar(limits, f"Model − {against} model (km/s)"))
    album.bars = tuple(bars)
    for row, planes in models:
        told = f"iteration {row.iteration}" if row.iteration else "the initial model"
        panels = panels_of(domain, planes, velocities, "Model", f"P-wave velocity of {told}", "km/s")
        if known:
            about = f"Difference of {told} to the {against} model"
            panels += panels_of(
                domain, _minus(planes, known[0]), limits, f"Difference to the {against} model", about, "km/s"
            )
        album.slides.append(ModelFrame(_label(row, models[0][0].misfit), panels))


def _minus(planes: list[NDArray], others: list[NDArray]) -> list[NDArray]:
    return [plane - other for plane, other in zip(planes, others, strict=True)]


def _flat(planes: list[NDArray]) -> NDArray:
    return np.concatenate([plane.ravel() for plane in planes])


def _label(row: Row, first: float) -> str:
    name = f"Iteration {row.iteration}" if row.iteration else "Initial model (iteration 0)"
    share = f" ({number(100 * row.misfit / first, 3)} % of the initial one)" if row.iteration and first > 0 else ""
    error = "" if row.model_error is None else f", model error {number(100 * row.model_error, 3)} %"
    return f"{name}: misfit {number(row.misfit, 6)}{share}{error}"
