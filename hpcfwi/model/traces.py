"""Which traces of a shot the misfit uses: traces that cannot be used get the weight 0, and are listed with the reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpcfwi.artifacts import digest
from hpcfwi.errors import DataError
from hpcfwi.io import format_ranges
from hpcfwi.model.gathers import Recording, RecordingReader, check_shape
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.chain import Processing, ShotProcessing
from hpcfwi.model.processing.operators import Chain, Weights
from hpcfwi.model.survey import Shot

if TYPE_CHECKING:
    from hpcfwi.config.data import TracesSection

# The square of a larger amplitude overflows single precision; a trace with one counts as not finite.
LARGEST_AMPLITUDE = 1e18
# Delays that differ from a sample by less than this share of the interval count as whole samples.
WHOLE_SAMPLE = 1e-6
# A spike is larger than all samples from two to so many away from it.
SPIKE_REACH = 8
REASONS = ("outside", "killed", "not finite", "dead", "duplicated", "spiky")


@dataclass(frozen=True)
class TracePolicy:
    """What happens to traces that look broken (``[data.traces]``)."""

    dead: Literal["refuse", "drop", "keep"] = "drop"
    not_finite: Literal["refuse", "drop"] = "drop"
    duplicated: Literal["refuse", "drop", "keep"] = "drop"
    spikes: float | None = None  # times the median
    minimum: float = 0.5  # share of a shot's traces that must be usable

    @classmethod
    def from_config(cls, section: TracesSection) -> TracePolicy:
        """That of a run."""
        return cls(section.dead, section.not_finite, section.duplicated, section.spikes, section.minimum)


@dataclass(frozen=True, eq=False)
class ObservedGather:
    """The observed gather of a shot on the recording's time axis, ready to be compared.

    Parameters
    ----------
    record
        Shape (samples, receivers), finite; zero where there are no data.
    weights
        Weight of each trace's squared residuals, shape (receivers,); 0 for traces that are not used.
    first, last
        Index of the first and after the last sample with data of each trace, shape (receivers,).
    left_out
        Numbers from 1, in the stored gather, of the traces that are not used, by reason.
    """

    record: NDArray
    weights: NDArray[np.float32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    left_out: dict[str, tuple[int, ...]]

    def partial(self, samples: int) -> dict[str, NDArray]:
        """``weights``, ``first`` and ``last``, unless they stand for whole traces of weight 1."""
        whole = not self.first.any() and bool((self.last == samples).all())
        coverage = {} if whole else {"first": self.first, "last": self.last}
        return coverage if (self.weights == 1).all() else {**coverage, "weights": self.weights}


@dataclass(frozen=True, eq=False)
class ShotData:
    """Everything that a worker needs to read the observed gather of a shot."""

    reader: RecordingReader
    policy: TracePolicy = TracePolicy()
    kept: NDArray[np.bool_] | None = None  # which of the stored traces are receivers of the shot; None: all
    left_out: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # why the others are not, by number from 1
    weights: NDArray[np.float32] | None = None  # of the shot's receivers; None: 1
    in_place: bool = False  # whether the gather stays where it is (data.staging)

    def read(self, shot: Shot, recording: TimeAxis) -> ObservedGather:
        """Read the gather, and find the traces that can be used.

        Raises
        ------
        DataError
            If it cannot be read, has another shape, or too few of its traces can be used.
        """
        total = len(shot.receivers) if self.kept is None else len(self.kept)
        stored = self.reader.read(total)
        if not stored.starts.any():
            check_shape(shot, stored.values.shape, recording, total)
        numbers = np.arange(1, total + 1)
        if self.kept is not None:
            stored = Recording(stored.values[:, self.kept], stored.interval, stored.starts[self.kept])
            numbers = numbers[self.kept]
        record, first, last = on_time_axis(stored, recording)
        broken = find_broken(record, shot, self.policy, first, last, numbers)
        weights = np.ones(len(numbers), np.float32) if self.weights is None else self.weights.copy()
        left_out = {reason: tuple(traces) for reason, traces in self.left_out.items()}
        for reason, traces in broken.items():
            left_out[reason] = tuple(sorted({*left_out.get(reason, ()), *numbers[traces].tolist()}))
            weights[traces] = 0
            record[:, traces] = 0
        usable = int(np.count_nonzero(weights))
        if usable < max(1, math.ceil(self.policy.minimum * len(numbers) - 1e-9)):
            chosen = f"its {total}" if len(numbers) == total else f"the {len(numbers)} chosen ones of its {total}"
            raise DataError(
                shot.name,
                f"only {usable} of {chosen} traces can be used ({describe(left_out)}), and data.traces.minimum asks for "
                f"{self.policy.minimum:g} of them",
            )
        return ObservedGather(record, weights, first, last, left_out)

    def read_again(self, shot: Shot, staged: Mapping[str, Any]) -> NDArray:
        """Read the record of a shot that was staged in place; raises DataError if it has changed since."""
        record = self.read(shot, staged["recording"]).record
        if digest(np.ascontiguousarray(record).data) != staged["digest"]:
            raise DataError(shot.name, "its gather in data.file has changed since the run began; start a new one")
        return record


def staged_record(shot: Shot, staged: Mapping[str, Any]) -> NDArray:
    """The record of a staged shot, which may have stayed where it is; raises DataError if it has changed there."""
    found: NDArray = staged["record"] if "record" in staged else staged["data"].read_again(shot, staged)
    return found


def on_time_axis(stored: Recording, recording: TimeAxis) -> tuple[NDArray, NDArray[np.int64], NDArray[np.int64]]:
    """Put recorded traces onto the recording's time axis; zero where nothing was recorded.

    Returns
    -------
    record, first, last
        The gather, shape (samples, traces), a copy; and index of the first and after the last sample with data.
    """
    samples, traces = recording.samples, stored.values.shape[1]
    count = len(stored.values)
    if not stored.starts.any():
        return stored.values[:samples].copy(), np.zeros(traces, np.int64), np.full(traces, min(samples, count))
    delays = stored.starts / recording.step
    whole = np.floor(delays + WHOLE_SAMPLE).astype(np.int64)
    rest = delays - whole
    values = stored.values
    low, high = values.min(axis=0), values.max(axis=0)
    sound = (low < high) & (low >= -LARGEST_AMPLITUDE) & (high <= LARGEST_AMPLITUDE)
    late = np.flatnonzero((rest > WHOLE_SAMPLE) & sound)  # the others are left out later
    if len(late):
        values = values.copy()
        values[:, late] = _shift(values[:, late], rest[late])
    record = np.zeros((samples, traces), values.dtype)
    first, last = np.clip(whole, 0, samples), np.clip(whole + count, 0, samples)
    for start in np.unique(whole):
        own = np.flatnonzero(whole == start)
        begin, end = first[own[0]], last[own[0]]
        record[begin:end, own] = values[begin - start : end - start, own]
    return record, first, last


def _shift(values: NDArray, fractions: NDArray[np.float64]) -> NDArray:
    """Delay traces by fractions of a sample, by a phase shift."""
    from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

    count = next_fast_len(2 * len(values), real=True)
    phases = np.exp(-2j * np.pi * rfftfreq(count)[:, None] * fractions)
    shifted = irfft(rfft(values, count, axis=0) * phases, count, axis=0)[: len(values)]
    return np.asarray(shifted, dtype=values.dtype)


def find_broken(
    record: NDArray,
    shot: Shot,
    policy: TracePolicy,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    numbers: NDArray[np.int64],
) -> dict[str, NDArray[np.int64]]:
    """Traces of a gather that cannot be used, by reason; each trace has one reason.

    Parameters
    ----------
    record, shot
        The gather, shape (samples, receivers), and the shot with these receivers.
    policy
        What to look for.
    first, last
        Index of the first and after the last sample with data of each trace.
    numbers
        Numbers of the traces, for messages.

    Raises
    ------
    DataError
        If the policy refuses such traces.
    """
    sizes = np.abs(record)
    largest = sizes.max(axis=0)
    finite = largest <= LARGEST_AMPLITUDE
    if first.any() or (last != len(record)).any():
        within = _covered(record, first, last)
        low, high = np.where(within, record, np.inf).min(axis=0), np.where(within, record, -np.inf).max(axis=0)
    else:
        low, high = record.min(axis=0), record.max(axis=0)
    usable = finite & (low < high)
    found = {"not finite": np.flatnonzero(~finite), "dead": np.flatnonzero(finite & ~usable)}
    found["duplicated"] = _copies(record, shot.receivers, np.flatnonzero(usable))
    usable[found["duplicated"]] = False
    if policy.spikes is not None:
        left = np.flatnonzero(usable)
        found["spiky"] = left[(sizes[:, left] > policy.spikes * _largest_around(sizes[:, left])).any(axis=0)]
    policies = {"not finite": policy.not_finite, "dead": policy.dead, "duplicated": policy.duplicated, "spiky": "drop"}
    for reason, traces in found.items():
        if len(traces) and policies[reason] == "refuse":
            key = reason.replace(" ", "_")
            raise DataError(
                shot.name,
                f"{len(traces)} of its {record.shape[1]} traces are {reason}, the first is trace {numbers[traces[0]]}; leave "
                f"them out with --set data.traces.{key}=drop",
            )
    return {reason: traces for reason, traces in found.items() if len(traces) and policies[reason] == "drop"}


def _largest_around(sizes: NDArray) -> NDArray:
    """The largest of the samples that are two to eight samples away from each one: a wave has several samples in a period."""
    from scipy.ndimage import maximum_filter

    places = np.abs(np.arange(-SPIKE_REACH, SPIKE_REACH + 1))
    return np.asarray(maximum_filter(sizes, footprint=(places > 1)[:, None], mode="constant"))


def _copies(record: NDArray, receivers: NDArray[np.float64], traces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of the traces have the receiver position and the samples of an earlier one."""
    _, place, counts = np.unique(receivers[traces], axis=0, return_inverse=True, return_counts=True)
    place = place.reshape(-1)
    known: set[tuple[int, bytes]] = set()
    copies = []
    for i in np.flatnonzero(counts[place] > 1):
        content = int(place[i]), record[:, traces[i]].tobytes()
        if content in known:
            copies.append(int(traces[i]))
        known.add(content)
    return np.array(copies, dtype=np.int64)


def _covered(record: NDArray, first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which samples hold data, shape of the record."""
    places = np.arange(len(record))[:, None]
    return np.asarray((places >= first) & (places < last))


def describe(left_out: Mapping[str, tuple[int, ...]]) -> str:
    """Traces that are left out, in words: ``dead: 3, 17-20; outside: 1``."""
    return "; ".join(f"{reason}: {format_ranges(left_out[reason])}" for reason in REASONS if left_out.get(reason))


@dataclass(frozen=True, eq=False)
class UsableTraces:
    """The traces of an observed gather that the misfit compares; traces of weight 0 are left out and cost nothing."""

    shot: Shot
    record: NDArray  # shape (samples, receivers of the shot)
    coverage: tuple[Weights, ...]  # 0 where there are no data; comes before the processing
    weights: tuple[Weights, ...]  # roots of the weights of squared residuals; come after the processing

    @classmethod
    def of(cls, shot: Shot, content: Mapping[str, Any]) -> UsableTraces:
        """Those of a ``record`` with ``weights``, ``first`` and ``last`` as in :class:`ObservedGather`, if they are there."""
        record, weights = content["record"], content.get("weights")
        used = np.ones(record.shape[1], dtype=bool) if weights is None else weights > 0
        coverage: tuple[Weights, ...] = ()
        roots: tuple[Weights, ...] = ()
        if "first" in content:
            within = _covered(record, content["first"], content["last"])[:, used]
            coverage = (Weights(within),)
        if weights is not None and (weights[used] != 1).any():
            roots = (Weights(np.sqrt(weights[used], dtype=np.float64)[None]),)
        if not used.all():
            shot, record = Shot(shot.name, shot.source, shot.receivers[used]), record[:, used]
        return cls(shot, record, coverage, roots)

    def processing(self, processing: Processing, axis: TimeAxis, dtype: str) -> ShotProcessing:
        """The processing of the shot's gathers on a time axis, which begins with the coverage and ends with the weights."""
        found = processing.for_shot(self.shot, axis, dtype)
        predicted, observed = (
            Chain((*self.coverage, *chain.transforms, *self.weights)) for chain in (found.predicted, found.observed)
        )
        return ShotProcessing(predicted, observed, found.axis)
