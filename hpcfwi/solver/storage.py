"""Storages of the forward wavefield, which the gradient needs in reverse order."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from devito import ConditionalDimension, Eq, Grid, SubDomain, TimeFunction
from numpy.typing import NDArray

from hpcfwi.solver.devito_internals import Kernel
from hpcfwi.solver.spec import SolverSpec


class TimeLoop(Protocol):
    """The time steps of a shot, a segment at a time; the storage's buffer holds the snapshots of one segment."""

    kernel_seconds: float  # in compiled code, to which a storage adds its own

    @property
    def segments(self) -> int:
        """Number of segments; all but the last have ``spec.segment_steps`` steps."""

    def snapshots(self, segment: int) -> int:
        """Number of snapshots in a segment."""

    def forward(self, segment: int) -> None:
        """Step the forward wavefield through a segment, from where it is, and fill the buffer."""

    def adjoint(self, segment: int) -> None:
        """Step the adjoint wavefield back through a segment, and add the correlation with the buffer to the gradient."""

    def restart(self) -> None:
        """Set the forward wavefield back to the start of the shot."""

    def state(self) -> tuple[NDArray, ...]:
        """Arrays from which the next segment of the forward wavefield starts; writing to them sets it back."""


class WavefieldStorage(Protocol):
    """Keeps the forward wavefield of a shot for the gradient ``-sum_t u v_tt``.

    :meth:`record` adds equations to the forward operator, :meth:`replay` is the ``u`` of the gradient operator.
    """

    @property
    def exact(self) -> bool:
        """Whether the gradient is exact up to rounding; False if the storage approximates the wavefield."""

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Its own kernels, which are compiled and pickled with those of the equation."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory that :meth:`allocate` takes."""

    def allocate(self) -> None:
        """Allocate, once for all shots."""

    def record(self, field: TimeFunction) -> list[Eq]:
        """Equations that keep ``field`` at each step of the forward operator."""

    def replay(self) -> Any:
        """The kept wavefield as a symbolic factor for each step of the gradient operator, with its weight in the sum."""

    def forward(self, loop: TimeLoop) -> None:
        """Run all segments forward, and keep what :meth:`backward` needs."""

    def backward(self, loop: TimeLoop) -> None:
        """Run all segments back."""

    @property
    def trouble(self) -> str:
        """What went wrong that the gradient survived, for a warning; empty if nothing did."""


class SnapshotStorage:
    """Keeps a snapshot of the wavefield every k steps in memory; other storages have its buffer for one segment.

    k times the sum over the snapshots equals the sum over all steps as long as no frequency of the product of the two
    wavefields is aliased to zero (:func:`hpcfwi.solver.spec.snapshot_interval`).
    """

    trouble = ""

    def __init__(self, kept: Grid | SubDomain, spec: SolverSpec) -> None:
        self.spec, self.every, self.kept = spec, spec.snapshot_every, kept
        axis: dict[str, Any] = {"save": spec.buffer_snapshots}
        if self.every > 1:
            axis["time_dim"] = ConditionalDimension(
                "every", parent=(kept.grid if isinstance(kept, SubDomain) else kept).time_dim, factor=self.every
            )
        self.buffer = TimeFunction(name="snapshots", grid=kept, time_order=0, space_order=0, **axis)

    @property
    def exact(self) -> bool:
        """Whether every level is kept."""
        return self.every == 1

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """None."""
        return ()

    @property
    def nbytes(self) -> int:
        """Memory of the buffer, bytes."""
        return int(np.prod(self.buffer.shape_allocated)) * np.dtype(self.buffer.dtype).itemsize

    def allocate(self) -> None:
        """Allocate the buffer."""
        _ = self.buffer.data

    def record(self, field: TimeFunction) -> list[Eq]:
        """Copy the current level of ``field``."""
        return [Eq(self.buffer, field, **where(self.kept))]

    def replay(self) -> Any:
        """The kept level, k times."""
        return self.every * self.buffer

    def forward(self, loop: TimeLoop) -> None:
        """Run the only segment."""
        loop.forward(0)

    def backward(self, loop: TimeLoop) -> None:
        """Run it back."""
        loop.adjoint(0)


def where(kept: Grid | SubDomain) -> dict[str, SubDomain]:
    """The option of a Devito equation that restricts it to a part of the grid; none for the whole grid."""
    return {"subdomain": kept} if isinstance(kept, SubDomain) else {}
