"""Every undocumented part of dask-jobqueue that hpcfwi uses; ``tests/cluster/test_jobqueue_internals.py`` tests each."""

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import dask
from distributed.core import Status
from distributed.deploy.spec import ProcessInterface

from hpcfwi.batch.base import BatchSystem, CommandResult, SubmissionError
from hpcfwi.process import keep_handlers

with keep_handlers():  # importing dask-jobqueue 0.9.0 replaces the handlers of SIGINT and SIGTERM
    from dask_jobqueue import JobQueueCluster
    from dask_jobqueue.core import Job

# Many jobs are submitted and cancelled at the same time; if one command hangs, the others must not wait for it.
_threads = ThreadPoolExecutor(64, thread_name_prefix="hpcfwi-batch")


def jobqueue_defaults() -> Any:
    """Return a context in which dask-jobqueue ignores the user's Dask configuration, so that the site file decides."""
    defaults = [part.get("jobqueue", {}) for part in dask.config.defaults]
    return dask.config.set({"jobqueue": dask.config.merge(*defaults)})


class WorkerJob(Job):
    """A worker job that records why the batch system rejected it; in dask-jobqueue, a rejected job fails the whole cluster.

    Its script stays in the folder ``scripts``, where users can read and submit it. ``on_submit`` is called with the name of the
    worker and the number of the job; the job avoids the nodes in ``exclude``. Other arguments are those of Dask's job class.
    """

    def __init__(
        self,
        *args: Any,
        batch: BatchSystem,
        scripts: Path,
        on_submit: Callable[[str, str], None] = lambda *_: None,
        exclude: Collection[str] = (),
        security: Any = None,  # noqa: ARG002 - the script has it: hpcfwi.cluster.environment.script_lines()
        **options: Any,
    ) -> None:
        excluding = batch.exclude_directives(exclude)
        super().__init__(*args, job_extra_directives=[*options.pop("job_extra_directives", ()), *excluding], **options)
        self.excludes_nodes = bool(excluding)
        self.batch, self.scripts, self.on_submit = batch, scripts, on_submit
        self.rejection: CommandResult | None = None  # the answer of the batch system if it rejected the job

    async def start(self) -> None:
        script = self.scripts / f"{self.name}.sh"
        try:
            script.write_text(self.job_script())
            self.job_id = await asyncio.get_running_loop().run_in_executor(_threads, self.batch.submit, script)
        except SubmissionError as error:
            self.rejection = error.result
        except OSError as error:
            self.rejection = CommandResult(str(script), 1, err=str(error))
        else:
            self.on_submit(str(self.name), str(self.job_id))
        # the job monitor handles the rejection; to Dask this is a job without workers
        await ProcessInterface.start(self)

    async def close(self) -> None:
        if self.job_id and self.status != Status.closed:
            await asyncio.get_running_loop().run_in_executor(_threads, self.batch.cancel, [self.job_id])
        await ProcessInterface.close(self)


def worker_job_class(batch: BatchSystem) -> type[WorkerJob]:
    """Return the class of a batch system's worker jobs."""
    return type("WorkerJob", (WorkerJob, batch.cluster_class().job_cls), {})


def worker_cluster_class(batch: BatchSystem) -> type[JobQueueCluster]:
    """Return a class of clusters of worker jobs that never reuses a job's name.

    Dask reuses names although the worker of an ended job may still be connected.
    """
    numbers = count()

    def next_name(self: Any, worker_number: int) -> str:  # noqa: ARG001 - Dask's signature
        return f"{self.name}-{next(numbers)}"

    members = {"_new_worker_name": next_name, "job_cls": worker_job_class(batch)}
    return type("WorkerCluster", (batch.cluster_class(),), members)


def forget_job(cluster: JobQueueCluster, name: str) -> WorkerJob | None:
    """Remove a job from a cluster, so that Dask does not end it, and return it; ``scale()`` then submits another one."""
    cluster.worker_spec.pop(name, None)
    job: WorkerJob | None = cluster.workers.pop(name, None)
    return job
