"""The errors that a user sees, each with its exit code."""

__all__ = ["DataError", "HpcfwiError", "InputError", "Interrupted", "RunError", "ShotFailed", "StagingError"]


class HpcfwiError(Exception):
    """Base of all errors that the command line shows as one message, without a traceback."""

    exit_code = 3


class InputError(HpcfwiError):
    """The input is wrong; the message names the place, the value and the valid values."""

    exit_code = 2


class RunError(HpcfwiError):
    """The run failed; the message says what to do."""


class _ShotError(HpcfwiError):
    def __init__(self, shot: str, problem: str) -> None:
        super().__init__(shot, problem)
        self.shot, self.problem = shot, problem


class DataError(_ShotError, InputError):
    """The data or geometry of a shot cannot be used, on any worker."""

    def __str__(self) -> str:
        return f"shot {self.shot}: {self.problem}"


class ShotFailed(_ShotError, RunError):
    """All attempts to compute a shot failed; ``problem`` says where and why."""

    def __str__(self) -> str:
        return f"shot {self.shot} {self.problem}"


class StagingError(RunError):
    """A staged file is missing, damaged, untrusted or not the expected one."""


class Interrupted(HpcfwiError):
    """The run was stopped early and can be continued.

    Parameters
    ----------
    message
        The message to the user.
    reason
        Why it was stopped; empty if the user did it.
    time_is_up
        Whether the batch job ran out of time, so that the next start of the job can continue the run.
    """

    exit_code = 75

    def __init__(self, message: str, reason: str = "", time_is_up: bool = False) -> None:
        super().__init__(message)
        self.reason, self.time_is_up = reason, time_is_up
