"""Shots that fail everywhere: the run stops and says what to do, or begins anew without them (``data.quorum``)."""

import json
import math
import shlex

from hpcfwi.errors import DataError, InputError, ShotFailed
from hpcfwi.model.problem import Problem
from hpcfwi.run.folder import RunFolder

FILE = "excluded-shots.json"


class ShotExclusion:
    """Records in ``excluded-shots.json`` which shots a run does without since they fail.

    A misfit sums the same shots from the first iteration to the last: a run that excludes a shot begins anew, and ends with the
    bytes of a run that never had the shot. ``problem`` is the problem without the excluded shots. Raises InputError if earlier
    starts have excluded more shots than ``data.quorum`` allows now.
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
                f"{', '.join(self.excluded)} failed earlier; allow that with {self._lower_quorum(used)}, or mend the cause and "
                f"remove {self.path}"
            )

    def _read(self) -> dict[str, str]:
        """Reasons by shot; none if the file was not written for this survey."""
        reasons = (self.folder.read_json(self.path) or {}).get("shots")
        names = {shot.name for shot in self.full_problem.survey.shots}
        if not isinstance(reasons, dict) or not names.issuperset(reasons) or len(reasons) == len(names):
            return {}
        return {name: str(reason) for name, reason in reasons.items()}

    def _enough(self, used: int) -> bool:
        return used > 0 and used >= self.full_problem.config.data.quorum * len(self.full_problem.survey) - 1e-9

    def _lower_quorum(self, used: int) -> str:
        return f"--set data.quorum={math.floor(1000 * used / len(self.full_problem.survey)) / 1000:g}"

    def exclude(self, error: DataError | ShotFailed) -> Problem:
        """Exclude the shot of an error, and return the problem without it; if too few are left, raise what the user can do."""
        used = len(self.problem.survey) - 1
        if not self._enough(used):
            raise type(error)(error.shot, f"{error.problem}\n{self._advice(error.shot, used)}") from None
        self.excluded[error.shot] = error.problem.partition("\n")[0]
        # in this order: iterations over more shots must not be left beside those over fewer
        self.folder.discard_iterations()
        self.folder.write_json(self.path, {"shots": self.excluded})
        self.problem = self.full_problem.without(tuple(self.excluded))
        return self.problem

    def _advice(self, shot: str, used: int) -> str:
        exclude = json.dumps([*self.problem.config.data.exclude, shot], ensure_ascii=False)
        without = shlex.join(["--fresh", "--set", f"data.exclude={exclude}"])
        ways = ["The run needs this shot. Mend the cause and type the same command again; finished shots are kept."]
        if used:
            ways.append(f"Or continue without shots that fail: {self._lower_quorum(used)}")
            ways.append(f"Or begin anew without it: {without}")
        return "\n".join(f"  {way}" for way in ways)
