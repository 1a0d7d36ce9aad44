"""What there is to know of a start: whose it is, where, and with what; the facts of the event ``start``."""

from __future__ import annotations

import os
import platform
import socket
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import psutil

from hpcfwi.config.site import Site
from hpcfwi.inversion.problem import Problem
from hpcfwi.inversion.standin import StandIn
from hpcfwi.version import __version__

if TYPE_CHECKING:  # imports Dask, for which the command line has no time
    from hpcfwi.cluster.workforce import Workforce

__all__ = ["start_facts"]

# Libraries that a run's results and speed depend on.
LIBRARIES = ("dask", "dask-jobqueue", "devito", "distributed", "numpy", "scipy")


def start_facts(problem: Problem, site: Site, workforce: Workforce, stand_in: StandIn | None = None) -> dict[str, Any]:
    """The facts of a driver's start in this process (see :mod:`hpcfwi.reporting.schema`)."""
    layout = workforce.layout
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("PBS_JOBID")
    return {
        "version": __version__,
        "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "problem": problem.digest,
        "site": site.name,
        "launch": workforce.how,
        "layout": str(layout),
        "threads": workforce.threads,
        "cores": layout.cores,
        "planned": workforce.planned,
        "nodes_planned": workforce.nodes_planned,
        "shots": len(problem.survey),
        "iterations": problem.config.inversion.iterations,
        "host": socket.gethostname().partition(".")[0],
        "pid": os.getpid(),
        "began": round(psutil.Process().create_time(), 3),
        **({"job": job} if job else {}),
        **({"stand_in": str(stand_in)} if stand_in else {}),
    }
