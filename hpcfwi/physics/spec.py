"""What the generated code depends on, and what it will need: plain data, known before anything is built."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hpcfwi.physics.domain import Domain

__all__ = ["PropagatorSpec"]


@dataclass(frozen=True)
class PropagatorSpec:
    """All that the generated code depends on.

    Parameters
    ----------
    domain
        The grid and its sponge.
    space_order
        Order of the Laplacian's finite differences, even, 2 to 16.
    dtype
        ``"float32"`` or ``"float64"``.
    time_samples
        The most samples that a time axis of this problem has.
    snapshot_every
        The forward wavefield is kept at every k-th step (1: every step).
    receivers
        The most receivers that a shot of this survey has.
    """

    domain: Domain
    space_order: int
    dtype: str
    time_samples: int
    snapshot_every: int
    receivers: int

    @property
    def snapshots(self) -> int:
        """Kept steps of a time axis of full length."""
        return (self.time_samples - 1) // self.snapshot_every + 1

    @property
    def nbytes(self) -> int:
        """Memory of a worker's wavefields and traces, bytes."""
        halo = tuple(n + 2 * self.space_order for n in self.domain.padded_shape)
        # m and damp, three levels each of u and v; the gradient, the model's extension, the kept levels; the traces.
        fields = 8 * math.prod(halo) + (2 + self.snapshots) * self.domain.padded_points
        return (fields + self.time_samples * (self.receivers + 1)) * np.dtype(self.dtype).itemsize
