"""A batch system that another package adds: its scheduler is a shell script that starts each job as processes of this host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcfwi.batch.base import BatchSystem, JobState, Queue, run_command


class Toy(BatchSystem):
    """What hpcfwi needs to know of ``toysub``, ``toystat`` and ``toydel``."""

    name = "Toy"
    commands = ("toysub", "toystat", "toydel")
    variables = {"job_id": "TOY_JOB"}  # noqa: RUF012
    job_prefixes = ("TOY_JOB",)
    site_keys = ((r"no such queue", "scheduler.queue"),)

    def states(self, jobs: Sequence[str]) -> dict[str, JobState]:
        answer = run_command("toystat", *jobs).output().split()
        words = dict(zip(answer[::2], answer[1::2], strict=True))
        return {
            job: JobState("running" if words.get(job) == "running" else "ended", words.get(job, "gone")) for job in jobs
        }

    def queues(self) -> list[Queue]:
        return [Queue("toys", True, True)]

    def cluster_class(self) -> Any:
        from dask_jobqueue.core import Job, JobQueueCluster

        class ToyJob(Job):
            config_name = "local"

            def __init__(self, *args: Any, queue: str | None = None, walltime: str = "", **options: Any) -> None:
                super().__init__(*args, **options)
                self.job_header = f"#TOY walltime {walltime}\n#TOY queue {queue or 'toys'}"

        class ToyCluster(JobQueueCluster):
            job_cls = ToyJob

        return ToyCluster

    def job_options(self, config: Any, cpus: int, megabytes: int, logs: Path) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def script_prologue(self, logs: Path) -> list[str]:
        return [f'exec >"{logs}/$TOY_JOB.log" 2>&1']
