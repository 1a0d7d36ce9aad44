"""The journal: every evaluation, on disk before the optimiser sees it, and the partial sums of the current one.

An interrupted run replays the journal: the optimiser asks for the same vectors again and gets what was recorded.
"""

import math
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.artifacts import digest, read_container, read_header, write_container
from hpcfwi.errors import RunError, StagingError
from hpcfwi.inversion.functional_gradient import BLOCK, FunctionalGradient

KIND, PARTIAL_KIND = "evaluation", "partial sum"
# Version of an entry's content; other versions are ignored.
FORMAT = 3
# Another kind of processor rounds x differently; up to this relative difference x counts as the same.
MAX_DRIFT = 1e-12
ADVICE = "\n  Remove it and start the same command again: it will be computed anew."
# An evaluation that is killed loses its unfinished blocks; by default, a block has at most this share of the shots.
MAX_LOSS = 1 / 32

Vector = NDArray[np.float64]


def subset_digest(shots: Sequence[int] | None) -> str:
    """A digest of the indices of some shots; empty for all (None)."""
    return "" if shots is None else digest(np.array(shots, dtype="<i8").tobytes())


class Journal:
    """The evaluations (misfit and gradient) of one problem, by the digest of x and by the number of the evaluation.

    An evaluation of some shots (``shots``, indices in survey order) has a name of its own; None stands for all shots.

    Entries of other problems in the folder are ignored. ``problem`` is a digest; ``verify`` is called before each write, and
    raises if another driver has taken over the run. Unless ``by_number``, evaluations may be asked for in any order, and are
    found by the bytes of x alone.
    """

    def __init__(
        self, folder: Path, problem: str, verify: Callable[[], None] = lambda: None, by_number: bool = True
    ) -> None:
        self.folder, self.problem, self.verify = folder, f"{problem}, format {FORMAT}", verify
        self.by_number = by_number
        # entries by number and digest of the shots; read when an x is not found by its digest
        self._numbers: dict[tuple[int, str], Path] | None = None
        # by the file name of an x: the entry whose vector differs from x in the last bits, and the drift
        self._drifted: dict[str, tuple[Path, float]] = {}

    def write(self, x: Vector, pair: FunctionalGradient, number: int, shots: Sequence[int] | None = None) -> None:
        """Write an evaluation, and return when it is on disk."""
        self.verify()
        path, subset = self._path(x, shots), subset_digest(shots)
        facts = {"shots": subset} if subset else {}
        _write(path, KIND, pair, x, sync=True, problem=self.problem, number=number, **facts)
        if self._numbers is not None:
            self._numbers[number, subset] = path

    def read(
        self, x: Vector, number: int, shots: Sequence[int] | None = None
    ) -> tuple[FunctionalGradient, float] | None:
        """Look up misfit and gradient at x, the vector of evaluation ``number``.

        Returns them and the drift ``max |x - recorded| / max |recorded|``, or None if the journal does not have them. Raises
        StagingError if the entry is damaged, since a lost evaluation is never replaced silently; and RunError if the journal
        has another x for this number.
        """
        path = self._path(x, shots)
        if _exists(path):
            return _read_entry(path, x.size)[0], 0.0
        if not self.by_number:
            return None
        if path.stem in self._drifted:
            other, drift = self._drifted[path.stem]
            return _read_entry(other, x.size)[0], drift
        if self._numbers is None:
            self._numbers = self._find_numbers()
        recorded = self._numbers.get((number, subset_digest(shots)))
        if recorded is None:
            return None
        pair, there = _read_entry(recorded, x.size)
        with np.errstate(all="ignore"):  # the values of a file can be anything
            drift = float(np.abs(x - there).max() / np.abs(there).max())
        if not drift <= MAX_DRIFT:
            raise RunError(self._drift_message(recorded, number, drift))
        self._drifted[path.stem] = recorded, drift
        return pair, drift

    def _path(self, x: Vector, shots: Sequence[int] | None = None) -> Path:
        return self.folder / f"{digest(x.tobytes(), self.problem.encode(), subset_digest(shots).encode())}.bin"

    def _drift_message(self, recorded: Path, number: int, drift: float) -> str:
        return (
            f"{recorded}: the journal has another model for evaluation {number}; the largest difference is {drift:.1e} of the "
            "largest value. The run began on another kind of processor or with other versions of numpy or scipy, which round "
            "differently; or an earlier evaluation was removed and computed anew by several threads or another processor.\n"
            "  Start the same command where the run began, or start over with --fresh, or compute everything from here on "
            "anew:\n"
            f"  find {shlex.quote(str(self.folder))} -name '*.bin' -newer {shlex.quote(str(recorded))} -delete; "
            f"rm {shlex.quote(str(recorded))}"
        )

    def _find_numbers(self) -> dict[tuple[int, str], Path]:
        """Entries of this problem by the numbers and the digests of the shots in their headers."""
        found: dict[tuple[int, str], Path] = {}
        for path in sorted(self.folder.glob("*.bin")):
            header = read_header(path)
            if header is not None and header.get("problem", self.problem) != self.problem:
                continue
            number = (header or {}).get("number")
            if type(number) is not int:
                raise StagingError(f"{path}: is damaged: its header has no number of an evaluation{ADVICE}")
            place = number, str((header or {}).get("shots", ""))
            if place in found:
                raise StagingError(
                    f"{path}: is damaged: its header says evaluation {number}, as does {found[place].name}{ADVICE}"
                )
            found[place] = path
        return found


class Partials:
    """Sums of blocks of shots of the current evaluation, so that a restart does not compute them again.

    Their names are digests of what they depend on. Each evaluation has a subfolder of the journal for its sums, which is
    deleted once the evaluation is in the journal. ``block`` is the number of shots in a sum: 1, 8, 64, ... as in the summation
    tree; 0 keeps none, None chooses at most 3 % of the shots.
    """

    def __init__(self, folder: Path, block: int | None = None) -> None:
        self.folder, self.block = folder, block
        self._current = folder

    def begin(self, evaluation: str) -> set[str]:
        """Start an evaluation: return the names of its sums on disk, and remove those of others."""
        self._current = self.folder / f"partial-{evaluation}"
        for other in self.folder.glob("partial-*"):
            if other != self._current:
                shutil.rmtree(other, ignore_errors=True)
        return {path.stem for path in self._current.glob("*.bin")}

    def path(self, name: str) -> Path:
        """The file of a sum."""
        return self._current / f"{name}.bin"

    def end(self) -> None:
        """Remove the sums of a finished evaluation."""
        if self._current != self.folder:
            shutil.rmtree(self._current, ignore_errors=True)

    def level(self, shots: int) -> int | None:
        """The level of the summation tree that is kept, the highest with at most ``block`` shots in a sum; None for none."""
        if self.block == 0:
            return None
        largest, level = MAX_LOSS * shots if self.block is None else self.block, 0
        while BLOCK ** (level + 1) <= largest:
            level += 1
        return level

    def count(self, shots: int) -> int:
        """Largest number of files."""
        level = self.level(shots)
        return 0 if level is None else -(-shots // BLOCK**level)


def write_partial(path: Path, part: FunctionalGradient) -> None:
    """Write a sum without waiting for the disk: a lost one is only computed again."""
    _write(path, PARTIAL_KIND, part, np.empty(0), sync=False)


def read_partial(path: Path) -> FunctionalGradient:
    """Read a sum; StagingError if it is damaged."""
    pair, rest = _read(path, PARTIAL_KIND)
    if rest.size:
        raise StagingError(f"{path}: is damaged: {rest.size} values more than the shape in its header has")
    return pair


def _read_entry(path: Path, size: int) -> tuple[FunctionalGradient, Vector]:
    """An evaluation of the journal, and its x."""
    try:
        pair, x = _read(path, KIND)
        for what, found in (("a gradient", pair.g.size), ("a model", x.size)):
            if found != size:
                raise StagingError(f"{path}: is damaged: {found} values of {what} where {size} belong")
    except StagingError as error:
        raise StagingError(f"{error}{ADVICE}") from None
    return pair, x


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise StagingError(f"{path}: cannot be read ({error.strerror or error})") from None


def _write(path: Path, kind: str, pair: FunctionalGradient, x: Vector, sync: bool, **facts: str | int) -> None:
    # misfit, gradient and x are all payload, so that the digest covers them
    values = (np.array([pair.f]), pair.g, x)
    payload = [np.ascontiguousarray(part, dtype="<f8").data.cast("B") for part in values if part.size]
    write_container(
        path, kind, payload, digest(*payload), sync, shape=list(pair.g.shape), start=list(pair.start), **facts
    )


def _read(path: Path, kind: str) -> tuple[FunctionalGradient, Vector]:
    """Misfit and gradient, and the values after them."""
    header, payload = read_container(path, kind)
    try:
        values = np.frombuffer(payload, dtype="<f8")
        shape = header["shape"]
        size = 1 + math.prod(shape)
        g = values[1:size].reshape(shape).copy()
        return FunctionalGradient(float(values[0]), g, tuple(header.get("start", ()))), values[size:]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise StagingError(f"{path}: is damaged: its content does not have the shape in its header ({error})") from None
