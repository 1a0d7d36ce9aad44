"""dask-jobqueue, without the handlers of SIGINT and SIGTERM that its import sets (its ``runner`` module, in 0.9.0)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import dask
import yaml

from hpcfwi.process import keep_handlers

__all__ = ["Job", "JobQueueCluster", "PBSCluster", "PBSJob", "SLURMCluster", "SLURMJob", "own_settings"]

with keep_handlers():
    import dask_jobqueue
    from dask_jobqueue.core import Job, JobQueueCluster
    from dask_jobqueue.pbs import PBSJob
    from dask_jobqueue.slurm import SLURMJob


@contextmanager
def own_settings() -> Iterator[None]:
    """Leave out what a user has told Dask for other purposes (``~/.config/dask``, variables): the site file says it all."""
    defaults = yaml.safe_load(Path(dask_jobqueue.__file__).with_name("jobqueue.yaml").read_text())
    with dask.config.set(defaults):
        yield


class _FreshNames(JobQueueCluster):
    """No job has the name of an earlier one, whose worker may not have gone yet."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._numbers = count()
        super().__init__(*args, **options)

    def _new_worker_name(self, worker_number: int) -> str:
        del worker_number
        return f"{self.name}-{next(self._numbers)}"


class SLURMCluster(_FreshNames, dask_jobqueue.SLURMCluster):
    """Worker jobs of Slurm."""


class PBSCluster(_FreshNames, dask_jobqueue.PBSCluster):
    """Worker jobs of PBS."""
