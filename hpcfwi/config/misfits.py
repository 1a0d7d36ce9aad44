"""``inversion.misfit``: the misfit and its parameters; a plain text is short for a section with this ``kind``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from hpcfwi.config.messages import Section, kinds_of, sections_of
from hpcfwi.config.quantities import Milliseconds

AmplitudePower = Annotated[
    float,
    Field(
        ge=0,
        le=2,
        description="traces count as this power of their observed norm: with 2 as in l2, with 0 all the same, so that "
        "data.traces.weights only leave traces out",
    ),
]


class LeastSquaresSection(Section):
    """Half the sum of squared differences."""

    kind: Literal["l2"]


class HuberSection(Section):
    """Quadratic for small differences, linear for large ones, which outliers dominate less."""

    kind: Literal["huber"]
    threshold: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="where it becomes linear, as a share of the observed gather's rms (without zeros)",
    )


class CorrelationSection(Section):
    """Global correlation: traces are divided by their norms, so that amplitudes do not matter."""

    kind: Literal["correlation"]
    amplitude_power: AmplitudePower = 0.0


class EnvelopeSection(Section):
    """Half the sum of squared differences of envelopes."""

    kind: Literal["envelope"]
    power: Literal[1, 2] = Field(1, description="compare envelopes (1) or squared ones (2)")


class NormalisedEnvelopeSection(Section):
    """Global correlation of envelopes."""

    kind: Literal["normalised_envelope"]
    power: Literal[1, 2] = Field(1, description="compare envelopes (1) or squared ones (2)")
    amplitude_power: AmplitudePower = 0.0


class AdaptiveSection(Section):
    """Adaptive waveform inversion: the lags in the filter that turns observed into predicted traces."""

    kind: Literal["awi"]
    max_lag: Milliseconds | None = Field(
        None,
        description="ms; lag from which on the penalty does not grow; default: four mean periods of the observed traces",
    )
    damping: float = Field(
        0.01,
        gt=0,
        le=1,
        description="share of the largest observed power that is added to it, which keeps the filter small",
    )
    amplitude_power: AmplitudePower = 0.0


class TransportSection(Section):
    """Graph-space optimal transport: the cost of moving the points (time, amplitude) of one trace to those of the other."""

    kind: Literal["gsot"]
    max_shift: Milliseconds | None = Field(
        None,
        description="ms; shift that costs as much as the largest amplitude; default: two mean periods of the observed gather",
    )
    sample_interval: Milliseconds | None = Field(
        None,
        description="ms; sample interval of the traces that are moved; default: a quarter of the shortest period in the "
        "observed gather",
    )
    amplitude_power: AmplitudePower = 0.0


class OwnMisfitSection(Section):
    """A misfit of another package; it gets all other keys as keyword arguments."""

    model_config = ConfigDict(extra="allow")

    kind: str = Field(description='name of an entry point of the group hpcfwi.misfits, or "module:name"')


OWN = "own"  # tag of the last one; the others have their kind


def _section(content: Any) -> Any:
    return {"kind": content} if isinstance(content, str) else content


def _tag(content: Any) -> str | None:
    if isinstance(content, dict) and "kind" not in content:
        return None
    kind = content["kind"] if isinstance(content, dict) else getattr(content, "kind", None)
    return kind if isinstance(kind, str) and kind in BUILT_IN else OWN


MisfitSection = Annotated[
    Annotated[LeastSquaresSection, Tag("l2")]
    | Annotated[HuberSection, Tag("huber")]
    | Annotated[CorrelationSection, Tag("correlation")]
    | Annotated[EnvelopeSection, Tag("envelope")]
    | Annotated[NormalisedEnvelopeSection, Tag("normalised_envelope")]
    | Annotated[AdaptiveSection, Tag("awi")]
    | Annotated[TransportSection, Tag("gsot")]
    | Annotated[OwnMisfitSection, Tag(OWN)],
    Discriminator(_tag),
    BeforeValidator(_section),
]
BUILT_IN = frozenset(kind for section in sections_of(MisfitSection) for kind in kinds_of(section))
