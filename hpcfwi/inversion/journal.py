"""The journal: every answer that the optimiser got, on disk before it gets it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.data.staging import digest, read_container, write_container
from hpcfwi.errors import StagingError
from hpcfwi.inversion.functional import FunctionalGradient

__all__ = ["Journal"]

KIND = "evaluation"


class Journal:
    """Evaluations of one problem, by the digest of x.

    Parameters
    ----------
    folder
        Where the entries are.
    problem
        Digest of the problem: entries of another one are errors.
    """

    def __init__(self, folder: Path, problem: str) -> None:
        self.folder = folder
        self.problem = problem

    def _path(self, x: NDArray[np.float64]) -> Path:
        return self.folder / f"{digest(x.tobytes(), self.problem.encode())}.bin"

    def write(self, x: NDArray[np.float64], answer: FunctionalGradient) -> None:
        """Keep an answer."""
        payload = np.ascontiguousarray(answer.g, dtype="<f8").tobytes()
        facts = {"f": float(answer.f).hex(), "problem": self.problem, "shape": list(answer.g.shape)}
        write_container(self._path(x), KIND, payload, digest(payload), **facts)

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
            header, payload = read_container(path, KIND)
        except StagingError as error:
            raise StagingError(
                f"{error}\n  Remove it and start the same command again: it will be computed anew."
            ) from None
        return FunctionalGradient(
            float.fromhex(header["f"]), np.frombuffer(payload, dtype="<f8").reshape(header["shape"]).copy()
        )

    def __len__(self) -> int:
        return len(list(self.folder.glob("*.bin")))
