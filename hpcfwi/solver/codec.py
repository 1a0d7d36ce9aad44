"""Snapshots of the wavefield with 8 bits a value."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from functools import cached_property, reduce
from typing import Any

import numpy as np
from devito import Abs, Constant, Dimension, Eq, Function, Grid, Max, Operator, SubDomain, TimeFunction, floor
from devito.types import Symbol

from hpcfwi.solver.devito_internals import Kernel, operator_name, set_instruction_set
from hpcfwi.solver.equations import Interior
from hpcfwi.solver.spec import SolverSpec
from hpcfwi.solver.storage import SnapshotStorage, TimeLoop, where

# Snapshots that are transformed together.
GROUP = 4
# Largest integer of each coefficient, from the mean of a group to its fastest change: 11, 10, 6 and 5 bits with the sign.
LEVELS = (1023, 511, 31, 15)
# Two coefficients share an integer of 16 bits: the first one times its factor plus the second one.
PAIRS = ((0, 3, 32), (1, 2, 64))


class CompressedStorage(SnapshotStorage):
    """Keeps the snapshots of all segments compressed."""

    def __init__(self, kept: Grid | SubDomain, spec: SolverSpec) -> None:
        super().__init__(kept, spec)
        self.codec = Codec(self.buffer, kept, spec.segments)

    @property
    def exact(self) -> bool:
        """It is not."""
        return False

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Those of the codec."""
        return self.codec.kernels

    @property
    def nbytes(self) -> int:
        """Memory of the buffer and of the compressed snapshots, bytes."""
        return super().nbytes + self.codec.nbytes

    def allocate(self) -> None:
        """Allocate the buffer and the compressed snapshots."""
        super().allocate()
        self.codec.allocate()

    def forward(self, loop: TimeLoop) -> None:
        """Compress each segment."""
        for segment in range(loop.segments):
            loop.forward(segment)
            loop.kernel_seconds += self.codec.encode(segment, loop.snapshots(segment))

    def backward(self, loop: TimeLoop) -> None:
        """Decompress each segment."""
        for segment in reversed(range(loop.segments)):
            loop.kernel_seconds += self.codec.decode(segment, loop.snapshots(segment))
            loop.adjoint(segment)


class Codec:
    """Compresses a buffer of snapshots.

    Each group of four snapshots undergoes a discrete cosine transform in time. The coefficients become integers, relative to
    the largest absolute value in a row of the grid along the innermost axis. Wavefields change slowly between snapshots, so the
    first coefficients get most bits. Compiled kernels do this in one pass over the buffer.
    """

    def __init__(self, buffer: TimeFunction, kept: Grid | SubDomain, segments: int) -> None:
        if buffer.shape[0] % GROUP:
            raise ValueError(f"a segment of {buffer.shape[0]} snapshots is not whole groups of {GROUP}")
        self.buffer, self.kept = buffer, kept
        self.groups = buffer.shape[0] // GROUP  # of a segment
        self._time, *self._space = buffer.dimensions
        self._again = Dimension(name="again")  # the innermost axis once more, when its largest values are known
        # of a group: its first snapshot in the buffer, and its place in the store
        self._start, self._place = (Constant(name=name, dtype=np.int32) for name in ("start", "place"))
        store, count = Dimension(name="store"), segments * self.groups
        grid = kept.grid if isinstance(kept, SubDomain) else kept
        self._codes = [
            Function(
                name=f"codes{i}", grid=kept, shape=(count, *buffer.shape[1:]), dimensions=(store, *self._space),
                dtype=np.int16, space_order=0,
            )
            for i in range(len(PAIRS))
        ]  # fmt: skip
        # along an axis of a part of the grid, what is not defined on this part is indexed as in the whole grid
        self._scales = [
            Function(
                name=f"scales{i}", shape=(count, *grid.shape[:-1]), dimensions=(store, *self._space[:-1]),
                dtype=buffer.dtype, space_order=0,
            )
            for i in range(GROUP)
        ]  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes of the compressed snapshots."""
        return sum(math.prod(f.shape) * np.dtype(f.dtype).itemsize for f in (*self._codes, *self._scales))

    def allocate(self) -> None:
        """Allocate the compressed snapshots."""
        for function in (*self._codes, *self._scales):
            _ = function.data

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Both kernels."""
        return self._encoder, self._decoder

    def encode(self, segment: int, snapshots: int) -> float:
        """Compress the first snapshots of the buffer; returns the seconds in compiled code."""
        groups = math.ceil(snapshots / GROUP)
        # what follows the last snapshot must not depend on earlier shots
        self.buffer.data[snapshots : groups * GROUP] = self.buffer.data[snapshots - 1]
        # Devito shifts it as the axis of the part of the grid
        first = self.kept.widths[-1][0] if isinstance(self.kept, Interior) else 0
        bounds = {"again_m": first, "again_M": first + self.buffer.shape[-1] - 1}
        return sum(
            self._encoder(start=group * GROUP, place=segment * self.groups + group, **bounds) for group in range(groups)
        )

    def decode(self, segment: int, snapshots: int) -> float:
        """Fill the first snapshots of the buffer; returns the seconds in compiled code."""
        groups = range(math.ceil(snapshots / GROUP))
        return sum(self._decoder(start=group * GROUP, place=segment * self.groups + group) for group in groups)

    @cached_property
    def _encoder(self) -> Kernel:
        inner = self._space[-1]
        coefficients = [_total(w * self._snapshot(j) for j, w in enumerate(line)) for line in _transform()]
        largest = [Symbol(name=f"largest{i}", dtype=self.buffer.dtype) for i in range(GROUP)]
        rows, where_kept = tuple(self._space[:-1]), where(self.kept)
        smallest = np.finfo(self.buffer.dtype).tiny * 2**24
        equations = [Eq(symbol, smallest, implicit_dims=rows, **where_kept) for symbol in largest]
        equations += [
            Eq(symbol, Max(symbol, Abs(value)), implicit_dims=(*rows, inner), **where_kept)
            for symbol, value in zip(largest, coefficients, strict=True)
        ]
        equations += [Eq(self._at(s), symbol, **where_kept) for s, symbol in zip(self._scales, largest, strict=True)]
        whole = [
            floor(value.subs(inner, self._again) * (levels / self._at(scale)) + 0.5)
            for value, levels, scale in zip(coefficients, LEVELS, self._scales, strict=True)
        ]
        for codes, (high, low, factor) in zip(self._codes, PAIRS, strict=True):
            target = self._at(codes).subs(inner, self._again)
            equations.append(Eq(target, factor * whole[high] + whole[low], **where_kept))
        return _kernel(equations, "Encode")

    @cached_property
    def _decoder(self) -> Kernel:
        values = {}
        for codes, (high, low, factor) in zip(self._codes, PAIRS, strict=True):
            code = self._at(codes)
            first = floor((code + factor // 2) / factor)
            values[high], values[low] = first, code - factor * first
        scaled = [values[i] * (self._at(self._scales[i]) / LEVELS[i]) for i in range(GROUP)]
        equations = [
            Eq(self._snapshot(j), _total(w * each for w, each in zip(line, scaled, strict=True)), **where(self.kept))
            for j, line in enumerate(zip(*_transform(), strict=True))
        ]
        return _kernel(equations, "Decode")

    def _snapshot(self, number: int) -> Any:
        """A snapshot of the group."""
        return self.buffer.subs(self._time, self._start + number)

    def _at(self, function: Function) -> Any:
        """The group's values of a function in the store."""
        return function.subs(function.dimensions[0], self._place)


def _kernel(equations: list[Eq], name: str) -> Kernel:
    made = Operator(equations, name=operator_name(name))
    set_instruction_set(made)
    return Kernel(made)


def _transform() -> list[list[float]]:
    """The orthonormal discrete cosine transform of a group: a line for each coefficient."""
    lines = []
    for i in range(GROUP):
        norm = math.sqrt((1 if i == 0 else 2) / GROUP)
        lines.append([norm * math.cos(math.pi * (2 * j + 1) * i / (2 * GROUP)) for j in range(GROUP)])
    return lines


def _total(terms: Iterable[Any]) -> Any:
    """The sum of expressions; Devito's arrays and ``sum`` do not go together."""
    return reduce(operator.add, terms)
