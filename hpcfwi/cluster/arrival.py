"""What a worker tells of itself when it registers, and who asks the scheduler for it."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

import psutil

from hpcfwi.cluster.pinning import THREADS

__all__ = ["BEGAN", "announce", "described"]

# Variable with the time, s since 1970, at which the script of a worker job began.
BEGAN = "HPCFWI_JOB_BEGAN"
# Under which Dask's registration has it.
NAME = "hpcfwi"


def announce(worker: Any) -> None:
    """Let a Dask worker tell of itself when it registers; to be called before it does."""
    worker.startup_information[NAME] = _itself


def _itself(_: Any) -> dict[str, Any]:
    threads = os.environ.get(THREADS) or os.environ.get("OMP_NUM_THREADS", "")
    told: dict[str, Any] = {"host": socket.gethostname().partition(".")[0], "pid": os.getpid()}
    if threads.isdigit():
        told |= {"threads": int(threads), "cores": int(threads)}
    with suppress(psutil.Error):
        told["began"] = round(psutil.Process().create_time(), 3)
    with suppress(KeyError, ValueError):
        told["job_began"] = round(float(os.environ[BEGAN]), 3)
    return told


def described(worker: Any) -> dict[str, Any]:
    """What is known of a worker, as the scheduler has it: host, name, and what it told of itself."""
    told = worker.extra.get(NAME) if isinstance(worker.extra, dict) else None
    known = {"host": worker.host, "name": str(worker.name)}
    return known | told if isinstance(told, dict) else known
