"""Snapshots of the wavefield on the node's scratch disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from devito import Grid, SubDomain

from hpcfwi.solver.checkpoints import CheckpointedStorage
from hpcfwi.solver.spec import SolverSpec
from hpcfwi.solver.storage import TimeLoop


class DiskStorage(CheckpointedStorage):
    """Writes the snapshots of each segment to a file while the next one is computed, and reads them the same way.

    The file has no name, so that it vanishes with the process. Its blocks are reserved when it is opened, before the first
    shot. If that fails, or the disk does later, shots are computed from ``spec.checkpoints`` in memory: slower, but to the same
    bytes.
    """

    def __init__(self, kept: Grid | SubDomain, spec: SolverSpec) -> None:
        super().__init__(kept, spec)
        self._file: Any = None
        self._thread: ThreadPoolExecutor | None = None
        self._lost = False  # whether the disk has failed

    @property
    def nbytes(self) -> int:
        """Memory of the buffer, of the segment that is being written or read, and of the checkpoints, bytes."""
        return super().nbytes + int(np.prod(self.buffer.shape_allocated)) * self.spec.itemsize

    def allocate(self) -> None:
        """Allocate the buffers, and reserve the disk space."""
        super().allocate()
        buffer = np.asarray(self.buffer.data)
        self._other = np.empty_like(buffer)
        self._thread = ThreadPoolExecutor(1)
        try:
            self._file = tempfile.TemporaryFile(dir=tempfile.gettempdir())  # noqa: SIM115
            os.posix_fallocate(self._file.fileno(), 0, self.spec.segments * buffer.nbytes)
        except OSError as error:
            self._lose(error)

    def forward(self, loop: TimeLoop) -> None:
        """Write each segment but the last while the next one is computed."""
        if not self._lost:
            try:
                self._write(loop)
            except OSError as error:
                self._lose(error)
                loop.restart()
        if self._lost:
            self._first(loop, loop.segments, self.spec.checkpoints)

    def backward(self, loop: TimeLoop) -> None:
        """Read each segment while the one after it is computed."""
        left = loop.segments
        if not self._lost:
            try:
                while left > 0:
                    read = self._start(os.preadv, left - 2) if left > 1 else None
                    loop.adjoint(left - 1)
                    left -= 1
                    if read is not None:
                        read.result()
                        self.buffer.data[:] = self._other
                return
            except OSError as error:
                self._lose(error)
                loop.restart()
                self._first(loop, left, self.spec.checkpoints)
        super().backward(loop)

    def _write(self, loop: TimeLoop) -> None:
        written: Future | None = None
        for segment in range(loop.segments):
            loop.forward(segment)
            if written is not None:
                written.result()
            if segment < loop.segments - 1:
                self._other[:] = self.buffer.data
                written = self._start(os.pwrite, segment)

    def _lose(self, error: OSError) -> None:
        """Give the disk up."""
        self._lost = True
        if self._file is not None:
            self._file.close()
        folder, size = tempfile.gettempdir(), self.spec.disk_bytes / 1e9
        self.trouble = (
            f"the scratch folder {folder} fails ({error.strerror or error}): wavefields of {size:.3g} GB are not kept there, "
            "but computed again, which takes longer. Free some space, or set filesystem.scratch of the site"
        )

    def _start(self, function: Callable[..., int], segment: int) -> Future:
        """Write or read the other buffer at the place of a segment, in the background."""
        assert self._thread is not None
        view = memoryview(self._other).cast("B")  # type: ignore[arg-type]
        return self._thread.submit(_transfer, function, self._file.fileno(), view, segment * len(view))


def _transfer(function: Callable[..., int], file: int, view: memoryview, offset: int) -> None:
    """Write or read all of a buffer; the system may stop after any part of it."""
    done = 0
    while done < len(view):
        part = view[done:]
        count = function(file, [part] if function is os.preadv else part, offset + done)
        if count == 0:
            raise OSError("the file of the wavefield is too short")
        done += count
