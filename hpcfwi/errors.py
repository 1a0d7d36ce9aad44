"""The errors that a user can meet, each with its exit code."""

from __future__ import annotations

import json
import shlex

__all__ = ["DataError", "HpcfwiError", "InputError", "Interrupted", "RunError", "StagingError", "anew_without"]


def anew_without(shot: str) -> str:
    """What to type after the command to begin anew without a shot."""
    return shlex.join(["--fresh", "--set", f"data.exclude={json.dumps([shot])}"])


class HpcfwiError(Exception):
    """Base of all errors that are told as one message, without a traceback."""

    exit_code = 3


class InputError(HpcfwiError):
    """What the user gave is wrong: the message says where, what it is and what it may be."""

    exit_code = 2


class DataError(InputError):
    """A shot's own data or geometry cannot be used; trying again elsewhere would not help."""

    def __init__(self, shot: str, problem: str) -> None:
        super().__init__(shot, problem)
        self.shot = shot
        self.problem = problem

    def __str__(self) -> str:
        return f"shot {self.shot}: {self.problem}"


class RunError(HpcfwiError):
    """The run failed; the message says what to do."""

    exit_code = 3


class StagingError(RunError):
    """A staged file is missing, truncated, foreign or not the one that was meant."""


class Interrupted(HpcfwiError):
    """The run was stopped early and can be continued."""

    exit_code = 75
