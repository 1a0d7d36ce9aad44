"""The known batch systems, the one of a site, and the current job."""

import math
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points

from hpcfwi.batch.base import BatchSystem
from hpcfwi.batch.pbs import PBS
from hpcfwi.batch.slurm import Slurm
from hpcfwi.config.site import Site
from hpcfwi.errors import InputError, RunError

ENTRY_POINTS = "hpcfwi.batch_systems"
NO_BATCH_SYSTEM = "none"


@cache
def batch_systems() -> dict[str, type[BatchSystem]]:
    """Return the batch systems by their ``scheduler.kind``: hpcfwi's own, and those that other packages register.

    Raises InputError if one of them cannot be loaded.
    """
    known: dict[str, type[BatchSystem]] = {"slurm": Slurm, "pbs": PBS}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            system = entry.load()
            if not issubclass(system, BatchSystem):
                raise TypeError("it is not a subclass of hpcfwi.batch.base.BatchSystem")
        except Exception as error:
            package = entry.dist.name if entry.dist is not None else entry.value
            raise InputError(
                f"the batch system {entry.name} ({entry.value}, entry point of {package}) cannot be loaded: {error}; repair "
                f"or uninstall that package: pip uninstall {package}"
            ) from error
        known[entry.name] = system
    return known


def site_batch_system(site: Site) -> BatchSystem | None:
    """Return the batch system of a site, or None; raise InputError for an unknown kind or unsupported key."""
    section = site.config.scheduler
    if section.kind == NO_BATCH_SYSTEM:
        return None
    known, where = batch_systems(), f"{site.path or site.name}: one mistake\n  scheduler."
    if section.kind not in known:
        kinds = ", ".join(f'"{kind}"' for kind in (NO_BATCH_SYSTEM, *known))
        raise InputError(f'{where}kind: is "{section.kind}"; it should be one of {kinds}')
    system = known[section.kind]()
    for key in ("qos", "resources"):
        if getattr(section, key) is not None and key not in system.options:
            raise InputError(f"{where}{key}: {system.name} does not support it; use scheduler.directives")
    return system


def current_batch_system(environment: Mapping[str, str] = os.environ) -> BatchSystem | None:
    """Return the batch system of this process's job; None outside jobs."""
    systems = (system(environment) for system in batch_systems().values())
    return next((system for system in systems if system.job_id), None)


def batch_commands() -> bool:
    """Whether this host can submit jobs."""
    return any(shutil.which(command) for command in ("sbatch", "qsub"))


def current_start() -> tuple[str, int]:
    """Return the number of this process's job (empty outside jobs), and how often it has been restarted."""
    current = current_batch_system()
    return current.job_id if current is not None else "", max(system().restarts for system in batch_systems().values())


class CurrentJob:
    """The time limit of this process's job; infinite without a job, a limit or an answer."""

    def __init__(self) -> None:
        self._end = math.inf
        self.refresh()

    def refresh(self) -> float:
        """Ask the batch system again, since a limit may have changed; return the seconds left."""
        system, left_s = current_batch_system(), None
        if system is not None:
            with suppress(RunError):
                left_s = system.states([system.job_id])[system.job_id].left_s
        if left_s is not None:
            self._end = time.monotonic() + left_s
        return self.seconds_left()

    def seconds_left(self) -> float:
        """Return the seconds left, by the last answer."""
        return self._end - time.monotonic()
