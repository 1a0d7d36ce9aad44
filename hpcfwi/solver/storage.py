"""Storage of the forward wavefield, which the gradient needs in reverse order."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from devito import ConditionalDimension, Eq, Grid, SubDomain, TimeFunction

from hpcfwi.solver.spec import SolverSpec


class WavefieldStorage(Protocol):
    """Keeps the forward wavefield of a shot for the gradient ``-sum_t u v_tt``.

    :meth:`record` adds equations to the forward operator, :meth:`replay` is the ``u`` of the gradient operator.
    """

    @property
    def exact(self) -> bool:
        """Whether the gradient is exact up to rounding; False if the storage approximates the wavefield."""

    @property
    def nbytes(self) -> int:
        """Bytes that :meth:`allocate` takes."""

    def allocate(self) -> None:
        """Allocate, once for all shots."""

    def record(self, field: TimeFunction) -> list[Eq]:
        """Equations that keep ``field`` at each step of the forward operator."""

    def replay(self) -> Any:
        """The kept wavefield as a symbolic factor for each step of the gradient operator, with its weight in the sum."""


class SnapshotStorage:
    """Keeps a snapshot of the wavefield every k steps in memory.

    k times the sum over the snapshots equals the sum over all steps as long as no frequency of the product of the two
    wavefields is aliased to zero (:func:`hpcfwi.solver.spec.snapshot_interval`).
    """

    def __init__(self, kept: Grid | SubDomain, spec: SolverSpec) -> None:
        self.every, self.kept = spec.snapshot_every, kept
        axis: dict[str, Any] = {"save": spec.snapshots}
        if self.every > 1:
            axis["time_dim"] = ConditionalDimension(
                "every", parent=(kept.grid if isinstance(kept, SubDomain) else kept).time_dim, factor=self.every
            )
        self.snapshots = TimeFunction(name="snapshots", grid=kept, time_order=0, space_order=0, **axis)

    @property
    def exact(self) -> bool:
        """Whether every level is kept."""
        return self.every == 1

    @property
    def nbytes(self) -> int:
        """Memory of the kept levels, bytes."""
        return int(np.prod(self.snapshots.shape_allocated)) * np.dtype(self.snapshots.dtype).itemsize

    def allocate(self) -> None:
        """Allocate the kept levels."""
        _ = self.snapshots.data

    def record(self, field: TimeFunction) -> list[Eq]:
        """Copy the current level of ``field``."""
        return [Eq(self.snapshots, field, **where(self.kept))]

    def replay(self) -> Any:
        """The kept level, k times."""
        return self.every * self.snapshots


def where(kept: Grid | SubDomain) -> dict[str, SubDomain]:
    """The option of a Devito equation that restricts it to a part of the grid; none for the whole grid."""
    return {"subdomain": kept} if isinstance(kept, SubDomain) else {}


# By the name in a specification.
STORAGES: dict[str, Callable[[Grid | SubDomain, SolverSpec], WavefieldStorage]] = {"snapshots": SnapshotStorage}
