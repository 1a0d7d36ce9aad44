"""The processing of a run, and the chains of a shot that it makes of the steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import DataError
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.filters import BandPass, Resample, end_effect, end_taper
from hpcfwi.model.processing.gains import LineSource, Normalise, TimeGain
from hpcfwi.model.processing.mutes import BottomMute, Moveout, OffsetWindow, TimeWindow, TopMute, offsets
from hpcfwi.model.processing.operators import Chain, Step, Transform, Weights
from hpcfwi.model.processing.picks import Picks, read_picks
from hpcfwi.model.survey import Shot, Survey
from hpcfwi.model.wavelet import BandPassedWavelet, Wavelet, highest_frequency, peak_amplitude

if TYPE_CHECKING:  # workers import this module without pydantic
    from hpcfwi.config.processing import MuteSection, StepSection
    from hpcfwi.config.run import RunConfig


# Share of a gather that the end taper of band-passes may take without a warning.
MAX_END_TAPER = 0.3
# Share of the wavelet's peak amplitude that band-passes may leave without a warning.
MIN_BAND_PASSED = 0.01


@dataclass(frozen=True)
class ShotProcessing:
    """The processing of one shot's gathers."""

    predicted: Chain
    observed: Chain
    axis: TimeAxis  # after it


@dataclass(frozen=True)
class Processing:
    """The steps of a run, in their order.

    The band-passes before the first other step are applied to the wavelet in place of predicted gathers, so that grid and time
    step need not carry more than the band. Observed gathers that are modelled have the same wavelet and are not filtered
    again; recorded ones are filtered. Filters of zero phase need what comes after the end of a record, which only predicted
    gathers have, so the end of all gathers is tapered (:func:`~hpcfwi.model.processing.filters.end_taper`).
    """

    steps: tuple[Step, ...] = ()
    applied: int = 0  # leading steps that observed gathers already have, because they are modelled with this wavelet

    @classmethod
    def from_config(cls, config: RunConfig) -> Processing:
        """The processing of a run; raises InputError if a file of picks cannot be read."""
        found = cls(tuple(build_step(section, number) for number, section in enumerate(config.processing, 1)))
        return replace(found, applied=found.leading) if config.data.file is None else found

    @property
    def names(self) -> str:
        """The steps, in words."""
        return ", ".join(step.kind for step in self.steps) or "none"

    @property
    def leading(self) -> int:
        """Number of steps before the first one that is done to both gathers."""
        return len(list(takewhile(lambda step: step.observed_only or isinstance(step, BandPass), self.steps)))

    @property
    def leading_part(self) -> Processing:
        """The steps before the first one that is done to both gathers."""
        return replace(self, steps=self.steps[: self.leading])

    @property
    def wavelet_bands(self) -> tuple[BandPass, ...]:
        """The band-passes of the wavelet."""
        return tuple(step for step in self.steps[: self.leading] if isinstance(step, BandPass))

    def axis_after(self, axis: TimeAxis) -> TimeAxis:
        """Time axis after all steps."""
        for step in self.steps:
            axis = step.axis_after(axis)
        return axis

    def check(self, survey: Survey, wavelet: Wavelet, recording: TimeAxis) -> tuple[str, ...]:
        """Warnings about likely mistakes, and about steps that are done to observed gathers only.

        Raises InputError if a step does not fit the survey, the wavelet or the time axis of the recorded gathers.
        """
        warnings, axis, highest = list[str](), recording, highest_frequency(wavelet)
        for number, step in enumerate(self.steps, 1):
            warnings += step.check(f"processing[{number}]", axis, survey, highest)
            if step.observed_only:
                warnings.append(
                    f"processing[{number}]: {step.kind} changes the observed gathers, not the predicted ones"
                )
            axis = step.axis_after(axis)
        if isinstance(wavelet, BandPassedWavelet):
            share = peak_amplitude(wavelet) / peak_amplitude(wavelet.raw)
            if share < MIN_BAND_PASSED:
                warnings.append(
                    f"processing: the band-passes leave {100 * share:.2g} % of the wavelet's peak amplitude"
                )
        tapered, duration = end_effect(self.wavelet_bands), recording.times[-1]
        if tapered > MAX_END_TAPER * duration:
            warnings.append(
                f"processing: band-passes of zero phase reach {tapered:.3g} ms beyond a sample, so that much of the end of "
                f'each gather, of {duration:g} ms, is tapered; a lower order, or phase = "causal", would need less'
            )
        return tuple(warnings)

    def for_shot(self, shot: Shot, axis: TimeAxis, dtype: str) -> ShotProcessing:
        """Make the chains of a shot's gathers on a time axis; raises DataError if they leave nothing of it."""
        taper = end_taper(self.wavelet_bands, axis)
        predicted: list[Transform] = [] if taper is None else [taper]
        first = self.steps[self.applied : self.leading]
        observed: list[Transform] = [*(step.build(shot, axis) for step in first), *predicted]
        kept: NDArray = np.ones((1, 1))  # product of the weights since the axis changed
        for number, step in enumerate(self.steps[self.leading :], self.leading + 1):
            built, after = step.build(shot, axis), step.axis_after(axis)
            observed.append(built)
            if not step.observed_only:
                predicted.append(built)
            if isinstance(built, Weights):
                kept = kept * built.values
                if not kept.any():
                    raise _nothing_left(shot, axis, f"processing[{number}] ({step.kind})")
            elif after != axis:
                axis, kept = after, np.ones((1, 1))
        return ShotProcessing(_chain(predicted, dtype), _chain(observed, dtype), axis)


def _chain(transforms: Iterable[Transform], dtype: str) -> Chain:
    """A chain in a precision, in which neighbouring weights are multiplied."""
    joined: list[Any] = []
    for transform in transforms:
        if isinstance(transform, Weights) and joined and isinstance(joined[-1], Weights):
            joined[-1] = Weights(joined[-1].values * transform.values)
        else:
            joined.append(transform)
    return Chain(tuple(Weights(each.values.astype(dtype)) if isinstance(each, Weights) else each for each in joined))


def _nothing_left(shot: Shot, axis: TimeAxis, step: str) -> DataError:
    along = offsets(shot)
    return DataError(
        shot.name,
        f"{step} leaves nothing of its {len(along)} traces, which have offsets from {along.min():.6g} to {along.max():.6g} m "
        f"and end at {axis.times[-1]:.6g} ms; change the step, or leave the shot out (data.exclude)",
    )


def build_step(section: StepSection, number: int) -> Step:
    """Make the step that a section describes; ``number`` is its place in the list, from 1 on."""
    match section.kind:
        case "bandpass":
            low, high = (None if corner is None else corner / 1000 for corner in (section.low, section.high))
            return BandPass(low, high, section.order, section.phase)
        case "resample":
            return Resample(section.sample_interval)
        case "top_mute":
            return TopMute(_curve(section, number), section.taper)
        case "bottom_mute":
            return BottomMute(_curve(section, number), section.taper)
        case "offset_window":
            return OffsetWindow(section.minimum, section.maximum, section.taper)
        case "time_window":
            return TimeWindow(section.start, section.end, section.taper)
        case "time_gain":
            return TimeGain(section.power)
        case "normalise":
            return Normalise()
        case "line_source":
            return LineSource(section.velocity, section.delay)


def _curve(section: MuteSection, number: int) -> Moveout | Picks:
    if section.picks is not None:
        return read_picks(section.picks, f"processing[{number}].picks")
    return Moveout(section.velocity, section.time or 0.0)
