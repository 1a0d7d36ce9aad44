"""Another start of a batch job whose time was too short: when, and how often."""

from __future__ import annotations

from contextlib import closing, suppress

from hpcfwi.batch.registry import current_batch_system, current_start
from hpcfwi.errors import InputError, Interrupted, RunError
from hpcfwi.events.log import EventLog
from hpcfwi.events.types import Requeued
from hpcfwi.process import ignore_signals
from hpcfwi.run.folder import RunFolder

__all__ = ["Requeue"]

# Starts in a row without any progress, after which there is no other.
MAX_FRUITLESS_STARTS = 3


class Requeue:
    """Puts the driver's batch job back into the queue.

    A start that has finished something does not count: one that ends a run of weeks is as good as the first. Those that
    have not are counted in ``requeue.json``, from the first start of the batch job on.

    Parameters
    ----------
    folder
        The run folder, claimed.
    limit
        Starts without progress after which there is no other; 0: none.
    """

    def __init__(self, folder: RunFolder, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.path = folder.path / "requeue.json"
        self.before = folder.reached() if limit else (0, 0, 0)
        self.starts = self.in_vain = self.in_a_row = 0
        if current_start()[1]:
            self._read()

    def _read(self) -> None:
        # at worst it begins to count anew
        with suppress(InputError, ValueError, KeyError, TypeError, OverflowError):
            told = self.folder.read_json(self.path) or {}
            self.starts, self.in_vain, self.in_a_row = (
                max(0, int(told[name])) for name in ("starts", "in_vain", "in_a_row")
            )

    def after(self, stopped: Interrupted) -> Interrupted:
        """What is told of a run that was stopped, after its batch job was put back into the queue if there is a point in it."""
        batch = current_batch_system()
        if not self.limit or not stopped.time_is_up or batch is None:
            return stopped
        self.starts += 1
        progress = self.folder.reached() > self.before
        self.in_a_row = 0 if progress else self.in_a_row + 1
        self.in_vain += not progress
        why = f"stopped: {stopped.reason}"
        command = f"the same command goes on where it was ({self.folder.path})"
        if not progress and (self.in_a_row >= MAX_FRUITLESS_STARTS or self.in_vain >= self.limit):
            return self._told(
                f"{why}; the job is not put back into the queue: {self._vain_starts()} without a finished shot\n"
                f"  It needs more time: a longer limit (sbatch -t, qsub -l walltime=), or more workers. Then {command}"
            )
        self.folder.write_json(self.path, {"starts": self.starts, "in_vain": self.in_vain, "in_a_row": self.in_a_row})
        ignore_signals()  # Slurm ends the job at once, and what is told now should be told
        try:
            told = batch.requeue(self.starts)
        except RunError as error:
            return self._told(f"{why}; the job cannot be put back into the queue: {error}\n  Start it again: {command}")
        return self._told(f"{why}; {told} and goes on where it was ({self.folder.path})")

    def _told(self, message: str) -> Interrupted:
        with suppress(RunError), closing(EventLog(self.folder.events)) as log:  # a full disk is no reason to stay here
            log.write(Requeued(starts=self.starts, fruitless_starts=self.in_vain, message=message))
        return Interrupted(message)

    def _vain_starts(self) -> str:
        if self.in_a_row >= MAX_FRUITLESS_STARTS:
            return f"{self.in_a_row} starts in a row"
        return f"{self.in_vain} start{'s' if self.in_vain > 1 else ''} (--requeue {self.limit})"
