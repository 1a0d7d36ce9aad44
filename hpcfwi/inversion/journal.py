"""The journal: every answer that the optimiser got, on disk before it gets it, and the parts of the one that is being made."""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.artifacts import digest, read_container, read_header, write_container
from hpcfwi.errors import RunError, StagingError
from hpcfwi.inversion.misfit import BLOCK, FunctionalGradient

__all__ = [
    "AGREEMENT",
    "Entry",
    "Journal",
    "Partials",
    "Recorded",
    "block_level",
    "entries",
    "read_partial",
    "write_partial",
]

KIND = "evaluation"
PARTIAL = "partial sum"
# Of what is in an entry; those of another one are not found.
FORMAT = b"3"
# Other kinds of processors round x differently: up to this relative difference it is the x of the entry.
AGREEMENT = 1e-12
ANEW = "\n  Remove it and start the same command again: it will be computed anew."
# What a killed evaluation may lose with every block that was being computed: this part of its shots.
LOSS = 1 / 32


@dataclass(frozen=True, eq=False)
class Recorded:
    """What the journal has for an x.

    Parameters
    ----------
    answer
        Misfit and gradient.
    drift
        The largest relative difference between x and that of the entry; 0 where they are the same bytes.
    """

    answer: FunctionalGradient
    drift: float = 0.0


@dataclass(frozen=True)
class Entry:
    """A file of the journal, for those who only look at it.

    Parameters
    ----------
    path
        The file.
    number
        Of the evaluation.
    bytes
        Its size.
    """

    path: Path
    number: int
    bytes: int

    def read(self, size: int) -> tuple[FunctionalGradient, NDArray[np.float64]]:
        """The answer, and the squared slowness, flat, that it is to; both of ``size`` values.

        Raises
        ------
        StagingError
            If it is damaged.
        """
        return _entry(self.path, size)


def entries(folder: Path) -> tuple[list[Entry], int]:
    """The files of a journal by their numbers, and how many others cannot be used; only their headers are read.

    A number may be there twice: a run that goes on without a shot begins anew in the same folder.
    """
    found, damaged = [], 0
    for path in sorted(folder.glob("*.bin")):
        number = (read_header(path) or {}).get("number")
        try:
            if type(number) is not int:
                raise ValueError
            found.append(Entry(path, number, path.stat().st_size))
        except (OSError, ValueError):
            damaged += 1
    return sorted(found, key=lambda entry: entry.number), damaged


class Journal:
    """Evaluations of one problem: their answers by the digest of x, and x, by their numbers.

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
        # files by the number of the evaluation that they are of; looked for when an x is not found
        self._numbers: dict[int, Path] | None = None
        # files whose x is another one's but for the last bits, by the digest of that
        self._close: dict[str, tuple[Path, float]] = {}

    def _path(self, x: NDArray[np.float64]) -> Path:
        return self.folder / f"{digest(x.tobytes(), self.problem.encode(), FORMAT)}.bin"

    def write(self, x: NDArray[np.float64], answer: FunctionalGradient, number: int) -> None:
        """Keep the answer of the evaluation of this number."""
        self.verify()
        path = self._path(x)
        _write(path, KIND, answer, x, sync=True, problem=self.problem, number=number)
        if self._numbers is not None:
            self._numbers[number] = path

    def read(self, x: NDArray[np.float64], number: int) -> Recorded | None:
        """Look an answer up.

        Parameters
        ----------
        x
            Where the objective is asked for.
        number
            How many times it was asked, this time included.

        Raises
        ------
        StagingError
            If there is an entry but it is damaged: it is not computed again without the user's knowing.
        RunError
            If the evaluation of this number was of another x.
        """
        path = self._path(x)
        if _exists(path):
            return Recorded(_entry(path, x.size)[0])
        if path.stem in self._close:
            other, drift = self._close[path.stem]
            return Recorded(_entry(other, x.size)[0], drift)
        if self._numbers is None:
            self._numbers = self._by_number()
        recorded = self._numbers.get(number)
        if recorded is None:
            return None
        answer, there = _entry(recorded, x.size)
        with np.errstate(all="ignore"):  # who wrote it may have written anything
            drift = float(np.abs(x - there).max() / np.abs(there).max())
        if not drift <= AGREEMENT:
            raise RunError(
                f"{recorded}: evaluation {number} was of another model than the one that is asked for here; the largest "
                f"difference is {drift:.1e} of the largest value. The run began on another kind of processor, or with "
                "other versions of numpy or scipy, which round differently; or an answer before this one was removed, and "
                "computed anew by several threads or another kind of worker.\n"
                "  Start the same command where the run began, or begin anew with --fresh, or let everything from here on be "
                "computed anew:\n"
                f"  find {shlex.quote(str(self.folder))} -name '*.bin' -newer {shlex.quote(str(recorded))} -delete; "
                f"rm {shlex.quote(str(recorded))}"
            )
        self._close[path.stem] = recorded, drift
        return Recorded(answer, drift)

    def _by_number(self) -> dict[int, Path]:
        """Files of this problem by the numbers in their headers."""
        found: dict[int, Path] = {}
        for path in sorted(self.folder.glob("*.bin")):
            header = read_header(path)
            if header is not None and header.get("problem", self.problem) != self.problem:
                continue
            number = (header or {}).get("number")
            if type(number) is not int:
                raise StagingError(f"{path}: is damaged: it does not say of which evaluation it is{ANEW}")
            if number in found:
                raise StagingError(
                    f"{path}: is damaged: it is of evaluation {number}, as is {found[number].name}{ANEW}"
                )
            found[number] = path
        return found

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
    _write(path, PARTIAL, part, np.empty(0), sync=False)


def read_partial(path: Path) -> FunctionalGradient:
    """Read a sum.

    Raises
    ------
    StagingError
        If it is damaged.
    """
    part, rest = _read(path, PARTIAL)
    if rest.size:
        raise StagingError(f"{path}: is damaged: {rest.size} values after its gradient")
    return part


def _entry(path: Path, size: int) -> tuple[FunctionalGradient, NDArray[np.float64]]:
    """An answer of the journal, and its x."""
    try:
        answer, x = _read(path, KIND)
        for what, found in (("a gradient", answer.g.size), ("a model", x.size)):
            if found != size:
                raise StagingError(f"{path}: is damaged: {found} values of {what} where {size} belong")
    except StagingError as error:
        raise StagingError(f"{error}{ANEW}") from None
    return answer, x


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise StagingError(f"{path}: cannot be read ({error.strerror or error})") from None


def _write(
    path: Path, kind: str, answer: FunctionalGradient, x: NDArray[np.float64], sync: bool, **facts: str | int
) -> None:
    # all of it is content, so that the digest is of all
    values = (np.array([answer.f]), answer.g, x)
    payload = [np.ascontiguousarray(part, dtype="<f8").data.cast("B") for part in values if part.size]
    write_container(path, kind, payload, digest(*payload), sync, shape=list(answer.g.shape), **facts)


def _read(path: Path, kind: str) -> tuple[FunctionalGradient, NDArray[np.float64]]:
    """Misfit and gradient, and the values after them."""
    header, payload = read_container(path, kind)
    try:
        values = np.frombuffer(payload, dtype="<f8")
        shape = header["shape"]
        size = 1 + math.prod(shape)
        return FunctionalGradient(float(values[0]), values[1:size].reshape(shape).copy()), values[size:]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise StagingError(f"{path}: is damaged: its content is not of the shape in its header ({error})") from None
