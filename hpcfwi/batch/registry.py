"""Which batch systems there are, and which of them this process runs in a job of."""

import math
import os
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
    """Return the batch systems by their ``scheduler.kind``: those of hpcfwi and those that other packages register.

    An InputError says which of them cannot be loaded.
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
                f"the batch system {entry.name} ({entry.value}, entry point of {package}) cannot be loaded: {error}; mend or "
                f"uninstall that package: pip uninstall {package}"
            ) from error
        known[entry.name] = system
    return known


def site_batch_system(site: Site) -> BatchSystem | None:
    """Return the batch system of a site, or None; an InputError says what is unknown to it, or to hpcfwi."""
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
            raise InputError(f"{where}{key}: {system.name} does not have it; use scheduler.directives")
    return system


def current_batch_system(environment: Mapping[str, str] = os.environ) -> BatchSystem | None:
    """Return the batch system that runs this process in a job; None outside of jobs."""
    systems = (system(environment) for system in batch_systems().values())
    return next((system for system in systems if system.job_id), None)


def current_start() -> tuple[str, int]:
    """Return the number of the job that this process runs in (empty outside of jobs), and how often it was started before."""
    current = current_batch_system()
    return current.job_id if current is not None else "", max(system().restarts for system in batch_systems().values())


class CurrentJob:
    """The time limit of the job that this process runs in; infinitely far away without a job, a limit or an answer."""

    def __init__(self) -> None:
        self._end = math.inf
        self.refresh()

    def refresh(self) -> float:
        """Ask the batch system again, since a limit can be moved; return the seconds that are left."""
        system, left_s = current_batch_system(), None
        if system is not None:
            with suppress(RunError):
                left_s = system.states([system.job_id])[system.job_id].left_s
        if left_s is not None:
            self._end = time.monotonic() + left_s
        return self.seconds_left()

    def seconds_left(self) -> float:
        """Return the seconds that are left, by the last answer."""
        return self._end - time.monotonic()
