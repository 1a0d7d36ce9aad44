"""Whether another run of the same problem would give the same bytes, and every reason why not."""

from __future__ import annotations

import os
import platform
import socket
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING, Any

from hpcfwi.batch.registry import current_start
from hpcfwi.config.site import Site
from hpcfwi.events.types import RunStarted
from hpcfwi.model.problem import Problem
from hpcfwi.process import command_start
from hpcfwi.run.folder import RunFolder
from hpcfwi.solver.engine import SleepingShots
from hpcfwi.solver.operators import fingerprint_digest
from hpcfwi.version import __version__

if TYPE_CHECKING:  # imports Dask, for which the command line has no time
    from hpcfwi.cluster.pool import WorkerPool

__all__ = ["DRIVERS", "WORKERS", "Reproducibility", "start_event"]

FILE = "reproducibility.json"
DRIVERS, WORKERS = "drivers", "workers"


class Reproducibility:
    """Keeps account, over all starts of a run, of what speaks against the same bytes, in ``reproducibility.json``.

    The bytes of a result are those of every run of its problem where each shot is computed by one thread, and all drivers and
    all workers are machines of one kind: other processors, compilers and libraries round differently.

    Parameters
    ----------
    folder
        The run folder, claimed.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.path = folder, folder.path / FILE
        known = folder.read_json(self.path)
        told = known or {}
        reasons = told.get("reasons")
        self._reasons = [str(reason) for reason in reasons] if isinstance(reasons, list) else []
        # descriptions of kinds of machines, by their digests
        self._kinds = {role: _texts(told.get(role)) for role in (DRIVERS, WORKERS)}
        # workers tell in another thread
        self._lock = Lock()
        if known is None and folder.reached()[1]:
            self.because(f"{FILE}, which tells of earlier starts, is gone")

    @property
    def against(self) -> str:
        """Why the bytes may not be the same, in words; empty where they are."""
        return "; ".join(self._reasons)

    def because(self, reason: str) -> bool:
        """Note a reason; tell whether it is new."""
        with self._lock:
            return self._because(reason)

    def _because(self, reason: str) -> bool:
        if reason in self._reasons:
            return False
        self._reasons.append(reason)
        self._write()
        return True

    def machine(self, role: str, described: dict[str, str]) -> str:
        """Note that a driver or a worker is a machine of some kind; returns the reason against the same bytes if that is new.

        Parameters
        ----------
        role
            ``DRIVERS`` or ``WORKERS``.
        described
            As of :func:`~hpcfwi.solver.operators.result_fingerprint`.
        """
        with self._lock:
            known, kind = self._kinds[role], fingerprint_digest(described)
            if kind in known:
                return ""
            shown = {**described, "flags": ""}
            names = [f"{name} {value}" if value[:1].isdigit() else value for name, value in shown.items() if value]
            known[kind] = ", ".join(names)
            if len(known) == 1:
                self._write()
                return ""
            reason = f"its {role} were machines of several kinds"
            if not self._because(reason):
                self._write()
                return ""
            return f"{reason} ({'; '.join(dict.fromkeys(known.values()))})"

    def _write(self) -> None:
        self.folder.write_json(self.path, {"reasons": self._reasons, **self._kinds})


def _texts(told: Any) -> dict[str, str]:
    return {name: str(text) for name, text in told.items()} if isinstance(told, dict) else {}


# Libraries that a run's results and speed depend on.
LIBRARIES = ("dask", "dask-jobqueue", "devito", "distributed", "numpy", "scipy")


def start_event(
    problem: Problem, site: Site, workforce: WorkerPool, stand_in: SleepingShots | None = None
) -> RunStarted:
    """The event of a driver's start in this process."""
    layout = workforce.layout
    job, _ = current_start()
    return RunStarted(
        version=__version__,
        versions={name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        problem=problem.digest,
        site=site.name,
        launch=workforce.mode,
        layout=str(layout),
        threads=workforce.threads,
        cores=layout.cores,
        workers_planned=workforce.planned_workers,
        nodes_planned=workforce.planned_nodes,
        shots=len(problem.survey),
        iterations=problem.config.inversion.iterations,
        host=socket.gethostname().partition(".")[0],
        pid=os.getpid(),
        process_start=command_start(),
        job=job,
        stand_in=str(stand_in) if stand_in else None,
    )
