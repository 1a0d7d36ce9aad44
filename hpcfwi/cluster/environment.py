"""The environment that compiled kernels see: OpenMP, Devito, and quiet libraries; and what nested jobs must not inherit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from hpcfwi.config.site import SiteConfig
from hpcfwi.solver.devito_internals import TARGET

__all__ = [
    "JOB_STARTED_VARIABLE",
    "PROCESSES_VARIABLE",
    "THREADS_VARIABLE",
    "apply_environment",
    "quiet_libraries",
    "restore_environment",
    "silence_dask",
    "worker_environment",
]

# Variables that a job sets for its worker processes: how many there are on the node, the OpenMP threads of each, and the time
# (s since 1970) at which the job script started.
PROCESSES_VARIABLE, THREADS_VARIABLE = "HPCFWI_PROCESSES", "HPCFWI_THREADS"
JOB_STARTED_VARIABLE = "HPCFWI_JOB_BEGAN"

# Dask's own way to set the level of its loggers.
LOG_LEVEL = "DASK_LOGGING__DISTRIBUTED"
BLAS_THREADS = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def worker_environment(threads: int, site: SiteConfig | None = None) -> dict[str, str]:
    """Variables of a worker process that runs one shot with ``threads`` OpenMP threads.

    ``openmp.variables`` are left out: where they name other variables, those are the node's, and its shell's business.
    """
    chosen = {
        **_devito(site, threads),
        "OMP_NUM_THREADS": str(threads),
        **dict.fromkeys(BLAS_THREADS, "1"),
        LOG_LEVEL: os.environ.get(LOG_LEVEL, "critical"),
    }
    if site is not None and site.openmp.places is not None:
        chosen["OMP_PLACES"] = site.openmp.places
    if site is not None and site.openmp.bind is not None:
        chosen["OMP_PROC_BIND"] = site.openmp.bind
    return chosen


def apply_environment(site: SiteConfig | None = None, threads: int | None = None) -> None:
    """Make this process generate the code of workers that have ``threads`` threads at most; before Devito is imported.

    Without ``threads`` it is this process that runs the kernels, on all cores that it has. Workers that are started
    afterwards generate the same code, however many threads they have: they take what is set here.
    """
    silence_dask()
    os.environ.update(_devito(site, threads))


def silence_dask() -> None:
    """Keep Dask quiet unless it was asked to speak; before it is imported."""
    os.environ.setdefault(LOG_LEVEL, "critical")


@contextmanager
def restore_environment() -> Iterator[None]:
    """Take back what is set inside: by us, and by Dask, whose nannies set what is for their workers here, too."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _devito(site: SiteConfig | None, threads: int | None) -> dict[str, str]:
    """Devito's settings: the user's own where they are set, then the site's."""
    section = (site or SiteConfig()).devito
    language = section.language
    if language == "auto":
        language = "C" if threads == 1 else "openmp"
    chosen = {"DEVITO_LANGUAGE": language, "DEVITO_LOGGING": "ERROR"}
    # Devito takes gcc; where only another of its compilers is there, that one
    present = next((name for name in ("gcc", "clang", "icx") if shutil.which(name)), "gcc")
    if section.arch is not None or present != "gcc":
        chosen["DEVITO_ARCH"] = section.arch or present
    if section.platform is not None:
        chosen["DEVITO_PLATFORM"] = section.platform
    if section.autotuning != "off":
        chosen["DEVITO_AUTOTUNING"] = section.autotuning
    if section.target is not None:
        chosen[TARGET] = section.target
    return {**chosen, **{k: v for k, v in os.environ.items() if k.startswith("DEVITO_")}}


def quiet_libraries(verbose: bool) -> None:
    """Let libraries speak only where ``verbose``: what the user has to know we say ourselves.

    To be called before dask and devito are imported, since they read these variables then; worker processes inherit them.
    """
    os.environ["DEVITO_LOGGING"] = "INFO" if verbose else "ERROR"
    os.environ[LOG_LEVEL] = "info" if verbose else "critical"
