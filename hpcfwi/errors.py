"""The errors that a user can meet, each with its exit code."""

from __future__ import annotations

__all__ = ["DataError", "HpcfwiError", "InputError", "Interrupted", "RunError", "ShotFailed", "StagingError"]


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


class ShotFailed(RunError):
    """A shot failed wherever it was tried; ``problem`` tells where, and why."""

    def __init__(self, shot: str, problem: str) -> None:
        super().__init__(shot, problem)
        self.shot = shot
        self.problem = problem

    def __str__(self) -> str:
        return f"shot {self.shot} {self.problem}"


class StagingError(RunError):
    """A staged file is missing, truncated, foreign or not the one that was meant."""


class Interrupted(HpcfwiError):
    """The run was stopped early and can be continued.

    Parameters
    ----------
    message
        What is told.
    reason
        Why, if it was not the user who stopped it.
    time_is_up
        Whether that was for want of time: what is left may be done by another start of the same batch job.
    """

    exit_code = 75

    def __init__(self, message: str, reason: str = "", time_is_up: bool = False) -> None:
        super().__init__(message)
        self.reason, self.time_is_up = reason, time_is_up
