"""When a driver stops early, on a signal or before its batch job ends, and whether that job is requeued."""

import math
from contextlib import closing, suppress

from hpcfwi.batch.registry import CurrentJob, current_batch_system, current_start
from hpcfwi.errors import InputError, Interrupted, RunError
from hpcfwi.events.log import EventLog
from hpcfwi.events.types import Requeued
from hpcfwi.process import ignore_signals, received_signal, stop_requested
from hpcfwi.run.folder import RunFolder

# Time to finish running shots after a signal (batch systems kill after 30 s by default), and to end workers and driver.
LAST_SHOTS_S, CLOSING_S = 20.0, 10.0
# A SIGTERM this close to the job's time limit comes from the batch system; an earlier one, from the user's scancel or qdel.
LIMIT_MARGIN_S = 60.0
# After this many starts in a row without progress, the job is not requeued.
MAX_FRUITLESS_STARTS = 3


class StopConditions:
    """Signals, and the time limit of the driver's batch job."""

    def __init__(self) -> None:
        self._job = CurrentJob()

    def check(self, needed_s: float) -> tuple[str, float] | None:
        """Return None, or why no more shots may start and the seconds left for running ones, which may need ``needed_s``."""
        left = self._job.seconds_left()
        if stop_requested():
            return signal_reason(), finishing_time(received_signal(), left)
        # the limit may have been extended
        if left < needed_s + CLOSING_S and (left := self._job.refresh()) < needed_s + CLOSING_S:
            return f"the batch job ends in {left:.0f} s", max(0.0, left - CLOSING_S)
        return None

    @property
    def time_is_up(self) -> bool:
        """Whether the time limit, not the user, stops the run: without a signal, by SIGUSR1, or by a SIGTERM near the limit."""
        signal = received_signal()
        return signal in ("", "SIGUSR1") or (signal == "SIGTERM" and self._job.seconds_left() < LIMIT_MARGIN_S)


def signal_reason() -> str:
    """Which signal stops the run; empty for Ctrl-C, which needs no explanation."""
    return "" if received_signal() in ("", "SIGINT") else f"{received_signal()} was received"


def finishing_time(signal: str, left_s: float) -> float:
    """Seconds to finish the running shots after a signal, in a batch job with ``left_s`` seconds left.

    After the warning signal, shots may run until the time limit; after other signals, the process is killed soon.
    """
    until_the_end = max(0.0, left_s - CLOSING_S)
    return until_the_end if signal == "SIGUSR1" and math.isfinite(left_s) else min(LAST_SHOTS_S, until_the_end)


class Requeue:
    """Requeues the driver's batch job when its time is up.

    Only starts without progress are limited, so a run of weeks may have any number of useful starts. They are counted in
    ``requeue.json`` since the first start of the batch job. With a limit of 0, the job is never requeued.
    """

    def __init__(self, folder: RunFolder, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.path = folder.path / "requeue.json"
        self.progress_before = folder.progress() if limit else (0, 0, 0)
        self.starts = self.fruitless = self.fruitless_in_a_row = 0
        if current_start()[1]:
            with suppress(InputError, ValueError, KeyError, TypeError, OverflowError):  # then counting starts over
                counts = folder.read_json(self.path) or {}
                self.starts, self.fruitless, self.fruitless_in_a_row = (
                    max(0, int(counts[name])) for name in ("starts", "fruitless", "fruitless_in_a_row")
                )

    def after(self, stopped: Interrupted) -> Interrupted:
        """Requeue the batch job if its time is up, and return the error that explains what happens next."""
        batch = current_batch_system()
        if not self.limit or not stopped.time_is_up or batch is None:
            return stopped
        self.starts += 1
        progress = self.folder.progress() > self.progress_before
        self.fruitless_in_a_row = 0 if progress else self.fruitless_in_a_row + 1
        self.fruitless += not progress
        why = f"stopped: {stopped.reason}"
        command = f"the same command continues the run ({self.folder.path})"
        if not progress and (self.fruitless_in_a_row >= MAX_FRUITLESS_STARTS or self.fruitless >= self.limit):
            starts = f"{self.fruitless} start{'s' if self.fruitless > 1 else ''} (--requeue {self.limit})"
            if self.fruitless_in_a_row >= MAX_FRUITLESS_STARTS:
                starts = f"{self.fruitless_in_a_row} starts in a row"
            problem = f"{why}; the job is not put back into the queue: {starts} without a kept result"
            advice = f"It needs more time: {batch.longer_limit}, or more workers"
            return self._interrupted(stopped, f"{problem}\n  {advice}. Then {command}")
        counts = {name: getattr(self, name) for name in ("starts", "fruitless", "fruitless_in_a_row")}
        self.folder.write_json(self.path, counts)
        ignore_signals()  # Slurm signals the job at once, before the message is printed
        try:
            outcome = batch.requeue(self.starts)
        except RunError as error:
            problem = f"{why}; the job cannot be put back into the queue: {error}"
            return self._interrupted(stopped, f"{problem}\n  Then {command}")
        return self._interrupted(stopped, f"{why}; {outcome} and continues the run ({self.folder.path})")

    def _interrupted(self, stopped: Interrupted, message: str) -> Interrupted:
        with suppress(RunError), closing(EventLog(self.folder.events)) as log:  # the disk may be full
            log.write(Requeued(starts=self.starts, fruitless_starts=self.fruitless, message=message))
        return Interrupted(message, stopped.reason, stopped.time_is_up)
