"""The environment that compiled kernels see: OpenMP, Devito, and quiet libraries."""

from __future__ import annotations

import os
import shutil

__all__ = ["apply_environment", "quieten", "worker_environment"]

# Dask's own way to set the level of its loggers.
LOG_LEVEL = "DASK_LOGGING__DISTRIBUTED"
BLAS_THREADS = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def worker_environment(threads: int) -> dict[str, str]:
    """Variables of a worker process that runs one shot with ``threads`` OpenMP threads."""
    return {
        **_devito(),
        "OMP_NUM_THREADS": str(threads),
        **dict.fromkeys(BLAS_THREADS, "1"),
        LOG_LEVEL: os.environ.get(LOG_LEVEL, "critical"),
    }


def apply_environment() -> None:
    """Make this process generate the same code as the workers, and Dask as quiet; before they are imported."""
    for name, value in {**_devito(), LOG_LEVEL: "critical"}.items():
        os.environ.setdefault(name, value)


def _devito() -> dict[str, str]:
    """Devito's settings: the user's own where they are set."""
    chosen = {"DEVITO_LANGUAGE": "openmp", "DEVITO_LOGGING": "ERROR"}
    # Devito takes gcc; where only another of its compilers is there, that one
    present = next((name for name in ("gcc", "clang", "icx") if shutil.which(name)), "gcc")
    if present != "gcc":
        chosen["DEVITO_ARCH"] = present
    return {**chosen, **{k: v for k, v in os.environ.items() if k.startswith("DEVITO_")}}


def quieten(verbose: bool) -> None:
    """Let libraries speak only where ``verbose``: what the user has to know we say ourselves.

    To be called before dask and devito are imported, since they read these variables then; worker processes inherit them.
    """
    os.environ["DEVITO_LOGGING"] = "INFO" if verbose else "ERROR"
    os.environ[LOG_LEVEL] = "info" if verbose else "critical"
