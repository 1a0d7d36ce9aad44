"""Slurm: sbatch, squeue, scancel, scontrol, sinfo, srun and the variables SLURM_*."""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hpcfwi.batch.base import (
    BatchSystem,
    CommandResult,
    JobState,
    Node,
    Queue,
    State,
    clean_environment,
    duration_seconds,
    run_command,
)
from hpcfwi.config.site import SiteConfig
from hpcfwi.errors import RunError

PENDING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
RUNNING = {"RUNNING", "SIGNALING", "STAGE_OUT"}


class Slurm(BatchSystem):
    """Slurm."""

    name = "Slurm"
    commands = ("sbatch", "squeue", "scancel")
    variables: ClassVar = {
        "job_id": "SLURM_JOB_ID",
        "restarts": "SLURM_RESTART_COUNT",
        "submit_host": "SLURM_SUBMIT_HOST",
        "node_count": "SLURM_JOB_NUM_NODES",
        "node_list": "SLURM_JOB_NODELIST",
        "cpus_per_node": "SLURM_JOB_CPUS_PER_NODE",
        "memory_per_node": "SLURM_MEM_PER_NODE",
        "memory_per_cpu": "SLURM_MEM_PER_CPU",
    }
    job_prefixes = ("SLURM_", "SLURMD_", "SRUN_")
    system_variables = ("SLURM_CONF",)
    site_keys = (
        (r"PartitionTimeLimit|MaxWall", "scheduler.walltime"),
        (r"PartitionConfig|PartitionNodeLimit|BadConstraints|MaxCpu|MaxNode", "worker.processes"),
        (r"account", "scheduler.account"),
        (r"qos", "scheduler.qos"),
        (r"partition", "scheduler.queue"),
        (r"time limit|timelimit|walltime", "scheduler.walltime"),
        (r"memory", "worker.memory"),
        (r"cpu|node configuration|more processors", "worker.processes"),
        (r"option|invalid|unrecogni[sz]ed|constraint|feature", "scheduler.directives"),
    )
    never_starts = (
        r"^(PartitionConfig|PartitionNodeLimit|PartitionTimeLimit|BadConstraints|AccountNotAllowed|InvalidAccount|InvalidQOS|"
        r"QOSNotAllowed|AssocMax\w+PerJobLimit|QOSMax\w+PerJobLimit|QOSMax\w+PerNode|QOSMin\w+|Job's (account|QOS) not )"
    )
    options = frozenset({"qos"})
    longer_limit = "a longer limit (sbatch -t)"

    def states(self, jobs: Sequence[str]) -> dict[str, JobState]:
        if not jobs:
            return {}
        answer = run_command(
            "squeue", "--noheader", "--states=all", "--format=%A|%T|%r|%N|%L", f"--jobs={','.join(jobs)}"
        )
        if answer.code and "Invalid job id" not in answer.err:
            raise RunError(f"squeue does not answer: exit code {answer.code}: {answer.err.strip()}")
        found = {}
        for line in answer.out.splitlines():
            job, word, reason, nodes, left = (part.strip() for part in f"{line}||||".split("|")[:5])
            state: State = "pending" if word in PENDING else "running" if word in RUNNING else "ended"
            found[job] = JobState(state, word, "" if reason == "None" else reason, nodes, duration_seconds(left))
        return {job: found.get(job, JobState("ended", "gone")) for job in jobs}

    def queues(self) -> list[Queue]:
        lines = run_command("sinfo", "--noheader", "--format=%P|%a").output().split()
        names = [line.split("|") for line in lines]
        return [Queue(name.removesuffix("*"), state == "up", name.endswith("*")) for name, state in names]

    def queue_names(self, queue: str) -> list[str]:
        return queue.split(",")

    def test_submit(self, script: Path) -> CommandResult | None:
        return run_command("sbatch", "--test-only", str(script))

    def server_hosts(self) -> list[str]:
        text = run_command("scontrol", "show", "config").out
        return re.findall(r"^SlurmctldHost\[\d+\]\s*=\s*([^\s(]+)", text, re.MULTILINE)

    def cluster_class(self) -> Any:
        from dask_jobqueue import SLURMCluster

        return SLURMCluster

    def job_options(self, config: SiteConfig, cpus: int, megabytes: int, logs: Path) -> dict[str, Any]:
        qos = [f"--qos={config.scheduler.qos}"] if config.scheduler.qos else []
        return {
            "account": config.scheduler.account,
            "job_cpu": cpus,
            "job_mem": f"{megabytes}M",
            "job_directives_skip": [] if config.scheduler.request_memory else ["--mem="],
            "job_extra_directives": [
                "--nodes=1",
                *qos,
                f'--output="{str(logs).replace("%", "%%")}/%j.log"',
                # the job monitor replaces ended jobs: a requeued job would run beside its replacement
                "--no-requeue",
                *config.scheduler.directives,
            ],
        }

    def exclude_directives(self, nodes: Collection[str]) -> list[str]:
        return [f"--exclude={','.join(sorted(nodes))}"] if nodes else []

    def requeue(self, starts: int) -> str:  # noqa: ARG002 - Slurm counts them itself
        run_command("scontrol", "requeue", self.job_id).output()
        return f"job {self.job_id} is back in the queue"

    def nodes(self) -> list[Node]:
        names = run_command("scontrol", "show", "hostnames", self._required("node_list")).output().splitlines()
        # the shell of salloc may run on a login node, where SLURM_CPUS_ON_NODE is not set
        counts = [
            int(count)
            for count, _, times in re.findall(r"(\d+)(\(x(\d+)\))?", self._required("cpus_per_node"))
            for _ in range(int(times or 1))
        ]
        if len(names) != len(counts):
            raise RunError(f"job {self.job_id}: Slurm lists {len(names)} nodes, but the CPUs of {len(counts)}")
        return [Node(name, cpus, self._memory(cpus)) for name, cpus in zip(names, counts, strict=True)]

    def _required(self, meaning: str) -> str:
        if value := self.variable(meaning):
            return value
        name = self.variables[meaning]
        raise RunError(
            f"{name} is not set in job {self.job_id}, so its nodes are unknown; is this shell inside the job?"
        )

    def _memory(self, cpus: int) -> int | None:
        """Return the bytes of the job on a node: Slurm's unit is 2^20 bytes, per node or per CPU; 0 means all."""
        for meaning, times in (("memory_per_node", 1), ("memory_per_cpu", cpus)):
            if self.variable(meaning).isdigit() and int(self.variable(meaning)):
                return int(self.variable(meaning)) * times * 2**20
        return None

    def start_command(self, node: Node, script: Path) -> tuple[list[str], dict[str, str]]:
        command = [
            *("srun", f"--jobid={self.job_id}", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={node.name}"),
            # each worker process pins itself
            *(f"--cpus-per-task={node.cpus}", "--cpu-bind=none", "--input=none", "--quiet", "bash", str(script)),
        ]
        # variables of the batch script's request would size the step; only those that identify the job stay
        keep = {name: os.environ[name] for name in ("SLURM_JOB_ID", "SLURM_JOBID") if name in os.environ}
        return command, clean_environment(os.environ) | keep
