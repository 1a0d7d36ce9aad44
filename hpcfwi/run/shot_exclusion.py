"""Shots whose attempts all fail: the run stops with advice, or starts over without them (``data.quorum``)."""

import json
import math
import shlex

from hpcfwi.errors import DataError, InputError, ShotFailed
from hpcfwi.model.problem import Problem
from hpcfwi.run.folder import RunFolder

FILE = "excluded-shots.json"


class ShotExclusion:
    """Records in ``excluded-shots.json`` the shots that a run excludes because they fail.

    The misfit must sum the same shots in all iterations, so a run that excludes a shot starts over, and gives the same bytes as
    a run that never had the shot. ``problem`` is the problem without the excluded shots. Raises InputError if earlier starts
    have excluded more shots than ``data.quorum`` allows now.
    """

    def __init__(self, folder: RunFolder, problem: Problem) -> None:
        self.folder, self.full_problem = folder, problem
        self.path = folder.path / FILE
        self.excluded = self._read()
        self.problem = problem.without(tuple(self.excluded)) if self.excluded else problem
        used = len(self.problem.survey)
        if self.excluded and not self._enough(used):
            raise InputError(
                f"data.quorum: is {problem.config.data.quorum:g}, but {used} of {len(problem.survey)} shots can be used, since "
                f"{', '.join(self.excluded)} failed earlier; allow that with {self._lower_quorum(used)}, or fix the cause and "
                f"remove {self.path}"
            )

    def _read(self) -> dict[str, str]:
        """The reason of each excluded shot; empty if the file belongs to another survey."""
        reasons = (self.folder.read_json(self.path) or {}).get("shots")
        names = set(self.full_problem.survey.names)
        if not isinstance(reasons, dict) or not names.issuperset(reasons) or len(reasons) == len(names):
            return {}
        return {name: str(reason) for name, reason in reasons.items()}

    def _enough(self, used: int) -> bool:
        return used > 0 and used >= self.full_problem.config.data.quorum * len(self.full_problem.survey) - 1e-9

    def _lower_quorum(self, used: int) -> str:
        share = used / len(self.full_problem.survey)
        return f"--set data.quorum={math.floor(1000 * share) / 1000 or math.floor(1e6 * share) / 1e6:g}"

    def exclude(self, error: DataError | ShotFailed) -> Problem:
        """Exclude a failed shot, and return the problem without it; if too few are left, raise the error with advice."""
        used = len(self.problem.survey) - 1
        if not self._enough(used):
            raise type(error)(error.shot, f"{error.problem}\n{self._advice(error.shot, used)}") from None
        self.excluded[error.shot] = error.problem.partition("\n")[0]
        # first discard the iterations: those with and without the shot must not mix
        self.folder.discard_iterations()
        self.folder.write_json(self.path, {"shots": self.excluded})
        self.problem = self.full_problem.without(tuple(self.excluded))
        return self.problem

    def _advice(self, shot: str, used: int) -> str:
        exclude = json.dumps([*self.problem.config.data.exclude, shot], ensure_ascii=False)
        without = shlex.join(["--fresh", "--set", f"data.exclude={exclude}"])
        ways = ["The run needs this shot. Fix the cause and type the same command again; what is finished is kept."]
        if used:
            ways.append(f"Or continue without shots that fail: {self._lower_quorum(used)}")
            ways.append(f"Or start over without it: {without}")
        return "\n".join(f"  {way}" for way in ways)
