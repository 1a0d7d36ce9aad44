"""Shots of SEG-Y and Seismic Unix files in the model's coordinates, and the readers of their gathers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import DataError, InputError
from hpcfwi.formats.segy import SegyFile
from hpcfwi.model.coordinates import Transform, fit_line
from hpcfwi.model.field_survey import FieldSurvey
from hpcfwi.model.gathers import Recording
from hpcfwi.model.survey import LazyShots, Shot

# Smaller distances from the section of a 2-D model are rounding.
MENTIONED_DISTANCE_M = 0.01


@dataclass(frozen=True, eq=False)
class RecordedShots(LazyShots):
    """The shots of a field survey, made from mapped headers."""

    field_survey: FieldSurvey
    transform: Transform
    numbers: NDArray[np.int64]  # of the shots in the field survey
    minimum_depth: float | None = None  # m; sources and receivers above it are moved down
    kept: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)  # receivers, of shots that have lost some

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the shots."""
        return tuple(self.field_survey.shots.names[number] for number in self.numbers)

    @cached_property
    def receiver_counts(self) -> NDArray[np.int64]:
        """Number of receivers of each shot."""
        counts = self.field_survey.shots.sizes[self.numbers].copy()
        for place, name in enumerate(self.names):
            if name in self.kept:
                counts[place] = self.kept[name].sum()
        return counts

    def select(self, shots: Sequence[int]) -> RecordedShots:
        """Some of the shots, by their numbers from 0."""
        return replace(self, numbers=self.numbers[np.asarray(shots, dtype=np.int64)])

    def keep(self, receivers: Mapping[str, NDArray[np.bool_]]) -> RecordedShots:
        """The shots, of which some keep only some of their receivers."""
        kept = dict(self.kept)
        for name, mask in receivers.items():
            if name in kept:
                combined = kept[name].copy()
                combined[combined] = mask
                mask = combined
            kept[name] = mask
        return replace(self, kept=kept)

    def make(self, number: int) -> Shot:
        """Make a shot."""
        survey, shot = self.field_survey, int(self.numbers[number])
        name = survey.shots.names[shot]
        receivers = self.transform.apply(survey.positions.receivers(survey.shots.traces(shot)))
        source = self.transform.apply(survey.sources[shot][None])[0]
        if name in self.kept:
            receivers = receivers[self.kept[name]]
        if self.minimum_depth is not None:
            source[-1] = max(source[-1], self.minimum_depth)
            np.maximum(receivers[:, -1], self.minimum_depth, out=receivers[:, -1])
        return Shot(name, source, receivers)

    def above(self, depth: float) -> tuple[list[str], list[str]]:
        """Names of the shots whose source lies above ``depth``, m, and of those with such receivers."""
        survey = self.field_survey
        sources, receivers = [], []
        for number, name in zip(self.numbers, self.names, strict=True):
            if survey.sources[number, 2] < depth:
                sources.append(name)
            if (survey.positions.receivers(survey.shots.traces(int(number)))[:, 2] < depth).any():
                receivers.append(name)
        return sources, receivers


@dataclass(frozen=True, eq=False)
class SegyRecording:
    """Where the traces of a shot lie in SEG-Y or Seismic Unix files."""

    name: str
    files: tuple[SegyFile, ...]
    runs: tuple[tuple[int, int, int], ...]  # file, first trace in it, number of traces
    delays: tuple[float, ...] | float  # of each trace, or of all: time of the first sample, ms
    interval: float  # ms

    def read(self, traces: int) -> Recording:
        """Read the gather.

        Raises DataError if a file cannot be read, or there are other than ``traces`` traces.
        """
        found = sum(count for _, _, count in self.runs)
        if found != traces:
            raise DataError(self.name, f"has {found} traces in data.file, but {traces} are expected")
        pieces = []
        for file, runs in groupby(self.runs, key=itemgetter(0)):  # which are in the order of the files
            numbers = np.concatenate([np.arange(first, first + count) for _, first, count in runs])
            try:
                pieces.append(self.files[file].read_traces(numbers))
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise DataError(self.name, f"{self.files[file].path}: cannot be read ({reason})") from None
        samples = min(len(piece) for piece in pieces)
        values = np.concatenate([piece[:samples] for piece in pieces], axis=1)
        return Recording(values, self.interval, np.broadcast_to(self.delays, values.shape[1]))


@dataclass(frozen=True, eq=False)
class SegyRecordings:
    """The gathers of a field survey."""

    field_survey: FieldSurvey

    def reader(self, name: str) -> SegyRecording:
        """The reader of a shot's gather, which workers get."""
        survey = self.field_survey
        shot = self._numbers[name]
        starts = survey.headers.starts
        runs, used = [], []
        for first, count in survey.shots.runs(shot):
            owner = int(np.searchsorted(starts, first, side="right")) - 1
            if owner not in used:
                used.append(owner)
            runs.append((used.index(owner), first - int(starts[owner]), count))
        delays = survey.positions.delays(survey.shots.traces(shot))
        same = bool((delays == delays[0]).all())
        return SegyRecording(
            name,
            tuple(survey.headers.files[owner] for owner in used),
            tuple(runs),
            float(delays[0]) if same else tuple(delays.tolist()),
            survey.interval,
        )

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.field_survey.shots.names)}


def check_section(survey: FieldSurvey, transform: Transform, start: float = 0.0) -> tuple[str, ...]:
    """Check the distances of positions from the section of a 2-D model, whose x begins at ``start``, m; tell the largest.

    Raises InputError if one is larger than ``data.transform.max_distance``.
    """
    if transform.ndim == 3:
        return ()
    largest, where = 0.0, 0
    for chunk in survey.headers.chunks():
        for points in (survey.positions.sources(chunk), survey.positions.receivers(chunk)):
            distances = np.abs(transform.distances(points))
            worst = int(np.argmax(distances))
            if distances[worst] > largest:
                largest, where = float(distances[worst]), int(chunk[worst])
    if largest <= transform.max_distance:
        if largest < MENTIONED_DISTANCE_M:
            return ()
        return (f"positions lie up to {largest:.4g} m beside the section and are projected onto it",)
    raise InputError(
        f"data.transform: the survey lies up to {largest:.6g} m beside the section of the 2-D model "
        f"({survey.headers.place(where)}); at most {transform.max_distance:g} m are allowed (data.transform.max_distance). "
        + _advice_on_section(survey, transform, start)
    )


def _advice_on_section(survey: FieldSurvey, transform: Transform, start: float) -> str:
    """What to type for a straight section along the survey that begins at ``start``, m."""
    along_sources = bool((survey.sources[:, :2] != survey.sources[0, :2]).any())
    section = fit_line(survey.sources if along_sources else survey.positions.receivers(survey.shots.traces(0)))
    first, distance = np.inf, 0.0
    for chunk in survey.headers.chunks():
        for points in (survey.positions.sources(chunk), survey.positions.receivers(chunk)):
            first = min(first, float(section.apply(points)[:, 0].min()))
            distance = max(distance, float(np.abs(section.distances(points)).max()))
    section = section.moved([np.ceil(start - first) + 1])  # a metre of room for rounding
    allowed = ""
    if distance > transform.max_distance:
        allowed = f" --set data.transform.max_distance={np.ceil(distance):.0f}, if it may be projected that far"
    return (
        f"A straight section through the {'sources' if along_sources else 'receivers'} leaves them up to {distance:.3g} m "
        f"beside it, and begins with x = {start:g} m: {section.settings}{allowed}"
    )
