"""Misfits by name: those of this package, entry points of others, and ``module:name``."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcfwi.errors import InputError
from hpcfwi.inversion.misfits.adaptive import AdaptiveWaveform
from hpcfwi.inversion.misfits.base import Misfit
from hpcfwi.inversion.misfits.correlation import Correlation
from hpcfwi.inversion.misfits.envelope import Envelope, normalised_envelope
from hpcfwi.inversion.misfits.least_squares import Huber, LeastSquares
from hpcfwi.inversion.misfits.transport import GraphTransport

if TYPE_CHECKING:
    from hpcfwi.config.misfits import MisfitSection

# Group of entry points with the misfits of other packages.
ENTRY_POINTS = "hpcfwi.misfits"

# What makes a misfit from its parameters, by ``inversion.misfit.kind``; other packages register an entry point.
MISFITS: dict[str, Callable[..., Misfit]] = {
    "l2": LeastSquares,
    "huber": Huber,
    "correlation": Correlation,
    "envelope": Envelope,
    "normalised_envelope": normalised_envelope,
    "awi": AdaptiveWaveform,
    "gsot": GraphTransport,
}


@dataclass(frozen=True)
class MisfitSpec:
    """The misfit of a run, as plain values that are sent to workers."""

    kind: str = "l2"  # in MISFITS, an entry point of the group ``hpcfwi.misfits``, or ``module:name``
    parameters: tuple[tuple[str, Any], ...] = ()  # name and value

    @classmethod
    def from_config(cls, section: MisfitSection) -> MisfitSpec:
        """That of a run's configuration."""
        return cls(section.kind, tuple(section.model_dump(mode="json", exclude={"kind"}, exclude_none=True).items()))

    def __str__(self) -> str:
        values = ", ".join(f"{name} = {value}" for name, value in self.parameters)
        return f"{self.kind} ({values})" if values else self.kind


def load_misfit(spec: MisfitSpec) -> Misfit:
    """Make the misfit that ``inversion.misfit`` describes.

    An entry point or ``module:name`` is a class or a function that takes the parameters as keywords and makes a misfit. Raises
    InputError if there is no such misfit, it cannot be imported, or does not take the parameters.
    """
    kind, point = spec.kind, _entry_point(spec.kind)
    try:
        factory: Callable[..., Any] | None = MISFITS.get(kind) or (point.load() if point is not None else None)
    except Exception as error:  # a foreign module can raise anything
        raise InputError(
            f'inversion.misfit: "{kind}" cannot be loaded ({type(error).__name__}: {error}); is its module installed in this '
            "environment, or on PYTHONPATH?"
        ) from error
    if factory is None:
        known = ", ".join(f'"{known}"' for known in [*MISFITS, *sorted(entry_points(group=ENTRY_POINTS).names)])
        raise InputError(f'inversion.misfit: is "{kind}"; it should be one of {known}, or "module:name"')
    try:
        misfit = factory(**dict(spec.parameters))
    except Exception as error:
        given = "no parameters" if not spec.parameters else ", ".join(f"{k} = {v!r}" for k, v in spec.parameters)
        raise InputError(
            f'inversion.misfit: "{kind}" cannot be made with {given} ({type(error).__name__}: {error})'
        ) from error
    if not hasattr(misfit, "evaluate"):
        raise InputError(f'inversion.misfit: "{kind}" makes a {type(misfit).__name__}, which has no method evaluate')
    return misfit


def misfit_identity(spec: MisfitSpec) -> dict[str, str]:
    """What identifies the code of another package's misfit: package, version, and digest of the package's Python files.

    Raises InputError as :func:`load_misfit` does.
    """
    load_misfit(spec)
    point = _entry_point(spec.kind)
    if spec.kind in MISFITS or point is None:
        return {}
    package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.module
    module = import_module(point.module)
    parent = sys.modules.get((module.__package__ or "").partition(".")[0])
    files = [Path(module.__file__)] if module.__file__ is not None else []
    if parent is not None and parent.__file__ is not None:  # else a plain folder, which may hold anything
        files = sorted(file for file in Path(parent.__file__).parent.rglob("*.py") if file.is_file())
    digest = hashlib.blake2b(b"".join(file.read_bytes() for file in files), digest_size=10)
    return {"misfit code": f"{package}, {digest.hexdigest()}"}


def _entry_point(name: str) -> EntryPoint | None:
    """Find the entry point with this name; for ``module:name``, make one. None if it is neither."""
    points = entry_points(group=ENTRY_POINTS)
    if name in points.names:
        return points[name]
    return EntryPoint(name, name, ENTRY_POINTS) if ":" in name else None
