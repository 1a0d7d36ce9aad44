"""Shots that fail for good: the run stops with the ways out, or begins anew without them (``data.quorum``)."""

from __future__ import annotations

import json
import math
import shlex

from hpcfwi.errors import DataError, InputError, ShotFailed
from hpcfwi.model.problem import Problem
from hpcfwi.run.folder import RunFolder

__all__ = ["ShotExclusion"]

FILE = "lost-shots.json"


class ShotExclusion:
    """Keeps account of the shots that a run has lost, in ``lost-shots.json``.

    A misfit is the sum over the same shots from the first iteration to the last: a run that loses one begins anew, and ends
    with the bytes of one that never had it.

    Parameters
    ----------
    folder
        The run folder, claimed.
    problem
        The problem with all shots.

    Raises
    ------
    InputError
        If the shots that earlier starts have lost are more than ``data.quorum`` allows.
    """

    def __init__(self, folder: RunFolder, problem: Problem) -> None:
        self.folder, self.whole = folder, problem
        self.path = folder.path / FILE
        self.lost = self._read()
        self.problem = problem.without(tuple(self.lost)) if self.lost else problem
        if self.lost and not self._enough(len(self.problem.survey)):
            raise InputError(
                f"data.quorum: {self._part(len(self.problem.survey))}, since {', '.join(self.lost)} failed earlier; allow "
                f"for that ({self._advice(len(self.problem.survey))}), or mend the cause and remove {self.path}"
            )

    def _read(self) -> dict[str, str]:
        """Reasons, by shot."""
        told = (self.folder.read_json(self.path) or {}).get("shots")
        names = {shot.name for shot in self.whole.survey.shots}
        if not isinstance(told, dict) or not names.issuperset(told) or len(told) == len(names):
            return {}
        return {name: str(reason) for name, reason in told.items()}

    def _enough(self, used: int) -> bool:
        return used > 0 and used >= self.whole.config.data.quorum * len(self.whole.survey) - 1e-9

    def _part(self, used: int) -> str:
        return f"{used} of {len(self.whole.survey)} shots can be used, {self.whole.config.data.quorum:g} is asked for"

    def _advice(self, used: int) -> str:
        return f"--set data.quorum={math.floor(1000 * used / len(self.whole.survey)) / 1000:g}"

    def go_on_without(self, error: DataError | ShotFailed) -> Problem:
        """The problem without a shot that has failed.

        Raises
        ------
        DataError or ShotFailed
            If the others are too few; with what can be done.
        """
        used = len(self.problem.survey) - 1
        if not self._enough(used):
            raise type(error)(error.shot, f"{error.problem}\n{self._ways_out(error.shot, used)}") from None
        self.lost[error.shot] = error.problem.partition("\n")[0]
        # in this order: what is written of iterations over more shots must not be left beside those over fewer
        self.folder.begin_anew()
        self.folder.write_json(self.path, {"shots": self.lost})
        self.problem = self.whole.without(tuple(self.lost))
        return self.problem

    def _ways_out(self, shot: str, used: int) -> str:
        without = shlex.join(
            ["--fresh", "--set", f"data.exclude={json.dumps([*self.problem.config.data.exclude, shot])}"]
        )
        ways = [
            "The run cannot go on without it. Mend the cause and start the same command again; what was finished is kept.",
            *([f"Or let it go on without shots that fail: {self._advice(used)}"] if used else []),
            *([f"Or begin anew without it: {without}"] if used else []),
        ]
        return "\n".join(f"  {way}" for way in ways)
