"""The journal: every answer that the optimiser got, on disk before it gets it, and the parts of the one that is being made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.data.staging import digest, read_container, write_container
from hpcfwi.errors import StagingError
from hpcfwi.inversion.functional import BLOCK, FunctionalGradient

__all__ = ["Journal", "Partials", "block_level", "read_partial", "write_partial"]

KIND = "evaluation"
PARTIAL = "partial sum"
# Of what is in an entry; those of another one are not found.
FORMAT = b"2"
# What a killed evaluation may lose with every block that was being computed: this part of its shots.
LOSS = 1 / 32


class Journal:
    """Evaluations of one problem, by the digest of x.

    Parameters
    ----------
    folder
        Where the entries are.
    problem
        Digest of the problem: entries of another one are errors.
    verify
        Called before an entry is written; raises where somebody else has the run by now.
    """

    def __init__(self, folder: Path, problem: str, verify: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self.problem = problem
        self.verify = verify

    def _path(self, x: NDArray[np.float64]) -> Path:
        return self.folder / f"{digest(x.tobytes(), self.problem.encode(), FORMAT)}.bin"

    def write(self, x: NDArray[np.float64], answer: FunctionalGradient) -> None:
        """Keep an answer."""
        self.verify()
        _write(self._path(x), KIND, answer, sync=True, problem=self.problem)

    def read(self, x: NDArray[np.float64]) -> FunctionalGradient | None:
        """Look an answer up.

        Raises
        ------
        StagingError
            If there is an entry but it is damaged: it is not computed again without the user's knowing.
        """
        path = self._path(x)
        if not path.exists():
            return None
        try:
            answer = _read(path, KIND)
            if answer.g.size != x.size:
                raise StagingError(f"{path}: is damaged: {answer.g.size} values of a gradient where {x.size} belong")
            return answer
        except StagingError as error:
            raise StagingError(
                f"{error}\n  Remove it and start the same command again: it will be computed anew."
            ) from None

    def __len__(self) -> int:
        return len(list(self.folder.glob("*.bin")))


class Partials:
    """Sums of consecutive shots, of the evaluation that is under way: what a restart need not compute again.

    They are named by what they depend on, and stay until the journal has the whole.

    Parameters
    ----------
    folder
        The journal's folder, in which each evaluation has one for them.
    block
        Shots in a sum: 1, 8, 64, ... as the sum's tree has them, 0 for no such files, None for about 3 % of all shots.
    """

    def __init__(self, folder: Path, block: int | None = None) -> None:
        self.folder = folder
        self.block = block
        self._current = folder

    def begin(self, evaluation: str) -> set[str]:
        """Names of the sums that there are of an evaluation; those of others will not be needed any more."""
        self._current = self.folder / f"partial-{evaluation}"
        for other in self.folder.glob("partial-*"):
            if other != self._current:
                shutil.rmtree(other, ignore_errors=True)
        return {path.stem for path in self._current.glob("*.bin")}

    def path(self, name: str) -> Path:
        """Where a sum is, or will be."""
        return self._current / f"{name}.bin"

    def end(self) -> None:
        """The journal has the whole: remove the parts."""
        if self._current != self.folder:
            shutil.rmtree(self._current, ignore_errors=True)

    def level(self, shots: int) -> int | None:
        """The level of the sum's tree that is kept; None for none."""
        return None if self.block == 0 else block_level(shots, self.block)

    def count(self, shots: int) -> int:
        """How many files there are at most."""
        level = self.level(shots)
        return 0 if level is None else -(-shots // BLOCK**level)


def block_level(shots: int, block: int | None) -> int:
    """Level of the tree whose sums are of ``block`` shots, or, for None, of at most a part ``LOSS`` of them where possible."""
    level = 0
    if block is None:
        while BLOCK ** (level + 1) <= LOSS * shots:
            level += 1
    else:
        while BLOCK ** (level + 1) <= block:
            level += 1
    return level


def write_partial(path: Path, part: FunctionalGradient) -> None:
    """Keep a sum; one that is lost is only computed again, so nobody waits for the disk."""
    _write(path, PARTIAL, part, sync=False)


def read_partial(path: Path) -> FunctionalGradient:
    """Read a sum.

    Raises
    ------
    StagingError
        If it is damaged.
    """
    return _read(path, PARTIAL)


def _write(path: Path, kind: str, answer: FunctionalGradient, sync: bool, **facts: str) -> None:
    # the misfit goes before the gradient, so that the digest is of both
    gradient = np.ascontiguousarray(answer.g, dtype="<f8").data.cast("B")
    payload = (np.array(answer.f, dtype="<f8").tobytes(), gradient)
    write_container(path, kind, payload, digest(*payload), sync, shape=list(answer.g.shape), **facts)


def _read(path: Path, kind: str) -> FunctionalGradient:
    header, payload = read_container(path, kind)
    try:
        values = np.frombuffer(payload, dtype="<f8")
        return FunctionalGradient(float(values[0]), values[1:].reshape(header["shape"]).copy())
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise StagingError(f"{path}: is damaged: its content is not of the shape in its header ({error})") from None
