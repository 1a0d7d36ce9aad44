"""Processing of gathers in a run configuration: ``[[processing]]``, one section for each step, in their order."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from hpcfwi.config.messages import Section
from hpcfwi.config.quantities import FilePath, Milliseconds, Velocity

Frequency = Annotated[float, Field(ge=1e-3, le=1e9)]
Offset = Annotated[float, Field(ge=0, le=1e8)]
Time = Annotated[float, Field(ge=-1e8, le=1e8)]
Length = Annotated[float, Field(ge=0, le=1e8)]


class BandPassSection(Section):
    """A Butterworth filter. The first steps of this kind are applied to the wavelet instead of predicted gathers."""

    kind: Literal["bandpass"]
    low: Frequency | None = Field(
        None, description="Hz; corner below which amplitudes fall; default: low frequencies pass"
    )
    high: Frequency | None = Field(
        None, description="Hz; corner above which amplitudes fall; default: high frequencies pass"
    )
    order: int = Field(4, ge=2, le=16, multiple_of=2, description="order of the filter at each corner")
    phase: Literal["zero", "causal"] = Field(
        "zero", description='"zero": arrivals stay where they are; "causal": minimum phase, nothing comes earlier'
    )

    @model_validator(mode="after")
    def _corners(self) -> BandPassSection:
        if self.low is None and self.high is None:
            raise ValueError("needs low, high or both, in Hz")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low: is {self.low:g} Hz; it should be below high, which is {self.high:g} Hz")
        return self


class ResampleSection(Section):
    """Another sample interval, after a low-pass against aliases."""

    kind: Literal["resample"]
    sample_interval: Milliseconds = Field(description="ms; sample interval from here on")


class MuteSection(Section):
    """A time for each offset: ``time + offset / velocity``, or picks."""

    velocity: Velocity | None = Field(
        None, description="km/s; apparent velocity; default: the same time at all offsets"
    )
    time: Time | None = Field(None, description="ms; time at offset 0; default: 0, where there is a velocity")
    picks: FilePath | None = Field(
        None,
        description="CSV with the columns offset (m), time (ms) and, if picks differ from shot to shot, shot; linear between "
        "offsets, constant beyond them; in place of velocity and time",
    )
    taper: Length = Field(0.0, description="ms; length of the cosine taper, inside of what is kept")

    @model_validator(mode="after")
    def _one_curve(self) -> MuteSection:
        by_formula = self.velocity is not None or self.time is not None
        if by_formula == (self.picks is not None):
            raise ValueError("needs either velocity, time or both, or picks (a CSV)")
        return self


class TopMuteSection(MuteSection):
    """Remove what comes before ``time + offset / velocity``, or before picks."""

    kind: Literal["top_mute"]


class BottomMuteSection(MuteSection):
    """Remove what comes after ``time + offset / velocity``, or after picks."""

    kind: Literal["bottom_mute"]


class OffsetWindowSection(Section):
    """Remove traces outside a range of offsets: distances between source and receiver."""

    kind: Literal["offset_window"]
    minimum: Offset | None = Field(None, description="m; smallest offset; default: no limit")
    maximum: Offset | None = Field(None, description="m; largest offset; default: no limit")
    taper: Length = Field(0.0, description="m; length of the cosine taper at each limit, inside of what is kept")

    @model_validator(mode="after")
    def _ascending(self) -> OffsetWindowSection:
        _check_window(self.minimum, self.maximum, "minimum", "maximum", "m")
        return self


class TimeWindowSection(Section):
    """Remove samples outside a range of times."""

    kind: Literal["time_window"]
    start: Time | None = Field(None, description="ms; first time; default: the start of the record")
    end: Time | None = Field(None, description="ms; last time; default: the end of the record")
    taper: Length = Field(0.0, description="ms; length of the cosine taper at each limit, inside of what is kept")

    @model_validator(mode="after")
    def _ascending(self) -> TimeWindowSection:
        _check_window(self.start, self.end, "start", "end", "ms")
        return self


def _check_window(first: float | None, last: float | None, low: str, high: str, unit: str) -> None:
    if first is None and last is None:
        raise ValueError(f"needs {low}, {high} or both, in {unit}")
    if first is not None and last is not None and first >= last:
        raise ValueError(f"{low}: is {first:g} {unit}; it should be below {high}, which is {last:g} {unit}")


class TimeGainSection(Section):
    """Multiply by ``(t / 1 s)^power``."""

    kind: Literal["time_gain"]
    power: float = Field(gt=0, le=10, description="exponent of the time; 1 makes up for the spreading of body waves")


class NormaliseSection(Section):
    """Divide each trace by its L2 norm."""

    kind: Literal["normalise"]


class LineSourceSection(Section):
    """Point source to line source, for observed gathers of a 2-D run: times ``v sqrt(2 t)``, convolved with ``1/sqrt(t)``."""

    kind: Literal["line_source"]
    velocity: Velocity = Field(description="km/s; v, an average of the model down to where the waves turn")
    delay: Length = Field(0.0, description="ms; time of the wavelet's peak in the records, from which t counts")


def _no_agc(content: Any) -> Any:
    if isinstance(content, dict) and content.get("kind") == "agc":
        raise ValueError(
            'kind: is "agc", which is not offered: its gain follows each gather, so that predicted and observed ones get '
            'different gains, and the gradient would need the derivative of the gain; "normalise" balances traces, and '
            '"time_gain" late arrivals'
        )
    return content


StepSection = (
    BandPassSection
    | ResampleSection
    | TopMuteSection
    | BottomMuteSection
    | OffsetWindowSection
    | TimeWindowSection
    | TimeGainSection
    | NormaliseSection
    | LineSourceSection
)
ProcessingSteps = tuple[Annotated[StepSection, Field(discriminator="kind"), BeforeValidator(_no_agc)], ...]
