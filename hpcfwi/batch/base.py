"""Batch systems as a driver sees them: which of my jobs wait, run or have ended, and why; and how to end them."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hpcfwi.errors import InputError, RunError

__all__ = [
    "PBS",
    "BatchSystem",
    "JobState",
    "Slurm",
    "SubmissionError",
    "batch_system",
    "clean_environment",
    "job_facts",
    "run_command",
    "seconds",
]
# What tells a job where and how large it is; a job that is submitted from within would take it for its own. The first are
# names of variables or their beginnings, the second exceptions: where the batch system itself is found.
JOB_VARIABLES = ("SLURM_", "SLURMD_", "SRUN_", "PBS_", "NCPUS", "OMP_", "GOMP_", "KMP_", "PMI_", "PMIX_", "OMPI_")
SYSTEM_VARIABLES = ("SLURM_CONF", "PBS_CONF_FILE", "PBS_EXEC", "PBS_SERVER", "PBS_DEFAULT", "PBS_ACCOUNT")


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what belongs to the job that we are in."""
    kept = {k: v for k, v in environment.items() if k in SYSTEM_VARIABLES or not k.startswith(JOB_VARIABLES)}
    if environment.get("PBS_JOBID") and (commands := _commands_of_pbs(environment)):
        kept["PATH"] = os.pathsep.join([commands, *([environment["PATH"]] if environment.get("PATH") else [])])
    return kept


def _commands_of_pbs(environment: Mapping[str, str]) -> str:
    """Where PBS has its commands: a job's PATH may lack them, or have Slurm's imitations of them before."""
    with suppress(OSError):
        text = Path(environment.get("PBS_CONF_FILE") or "/etc/pbs.conf").read_text(errors="replace")
        for line in text.splitlines():
            name, _, value = line.strip().partition("=")
            if name == "PBS_EXEC" and value and (Path(value) / "bin").is_dir():
                return str(Path(value) / "bin")
    return ""


# Seconds after which a scheduler that does not answer counts as not answering.
COMMAND_TIMEOUT_S = 20.0
State = Literal["pending", "running", "ended"]


@dataclass(frozen=True)
class JobState:
    """A job as the scheduler tells it.

    Parameters
    ----------
    state
        ``"pending"``, ``"running"`` or ``"ended"``.
    word
        The scheduler's own word for it, and for an ended one how it ended.
    reason
        Why it waits; empty where that is not told.
    nodes
        Where it runs.
    left
        Seconds until its time limit; None where there is none, or none is told. That it passes is no change of state.
    """

    state: State
    word: str
    reason: str = ""
    nodes: str = ""
    left: float | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.word} ({self.reason})" if self.reason else self.word


@dataclass(frozen=True)
class SubmissionError:
    """A command that the scheduler has not taken.

    Parameters
    ----------
    command
        What was called.
    code
        Its exit code.
    message
        What it said.
    """

    command: str
    code: int
    message: str

    def __str__(self) -> str:
        return f"{self.command}: exit code {self.code}: {' '.join(self.message.split())}"


async def run_command(*command: str) -> tuple[int, str, str]:
    """Exit code and both outputs of a scheduler's command."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environment(os.environ),
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), COMMAND_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        with suppress(TimeoutError):  # one that waits for a file system cannot even be killed
            await asyncio.wait_for(process.wait(), COMMAND_TIMEOUT_S)
        return 124, "", f"no answer within {COMMAND_TIMEOUT_S:g} s"
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")


class BatchSystem(ABC):
    """One batch system.

    Attributes
    ----------
    name
        As a person writes it.
    commands
        What has to be there.
    blame
        (pattern of a refusal's message, key of the site file that it is about), the first that fits counts.
    """

    name: str
    commands: tuple[str, ...]
    blame: tuple[tuple[str, str], ...]
    # reasons for waiting that no time will mend
    never: str

    def require(self) -> None:
        """Raise unless the batch system's commands are there."""
        missing = [command for command in self.commands if shutil.which(command) is None]
        if missing:
            raise InputError(
                f"{missing[0]}: there is no such command here, so no jobs of {self.name} can be submitted; log in where there "
                "is, or choose another site with --site (hpcfwi site list)"
            )

    def key_of(self, message: str) -> str | None:
        """The site file's key that a refusal is about, if its message tells."""
        return next((key for pattern, key in self.blame if re.search(pattern, message, re.IGNORECASE)), None)

    def hopeless(self, state: JobState) -> bool:
        """Whether a waiting job will never start as it is."""
        return state.state == "pending" and re.search(self.never, state.reason) is not None

    @abstractmethod
    async def states(self, jobs: Sequence[str]) -> dict[str, JobState]:
        """State of each job; those that the scheduler does not know (any more) have ended.

        Raises
        ------
        RunError
            If the scheduler does not answer.
        """

    @abstractmethod
    async def cancel(self, jobs: Iterable[str]) -> None:
        """End jobs, running or not; those that have ended already are no error."""


class Slurm(BatchSystem):
    """Slurm: squeue, scontrol, scancel."""

    name = "Slurm"
    commands = ("sbatch", "squeue", "scancel")
    blame = (
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
    never = (
        r"^(PartitionConfig|PartitionNodeLimit|PartitionTimeLimit|BadConstraints|AccountNotAllowed|InvalidAccount|InvalidQOS|"
        r"QOSNotAllowed|AssocMax\w+PerJobLimit|QOSMax\w+PerJobLimit|QOSMax\w+PerNode|QOSMin\w+|Job's (account|QOS) not )"
    )
    PENDING = frozenset(
        {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
    )
    RUNNING = frozenset({"RUNNING", "SIGNALING", "STAGE_OUT"})

    async def states(self, jobs: Sequence[str]) -> dict[str, JobState]:
        if not jobs:
            return {}
        code, out, err = await run_command(
            "squeue", "--noheader", "--states=all", "--format=%A|%T|%r|%N|%L", f"--jobs={','.join(jobs)}"
        )
        if code and "Invalid job id" not in err:
            raise RunError(f"squeue does not answer: exit code {code}: {err.strip()}")
        found = {}
        for line in out.splitlines():
            job, word, reason, nodes, left = (part.strip() for part in f"{line}||||".split("|")[:5])
            state: State = "pending" if word in self.PENDING else "running" if word in self.RUNNING else "ended"
            found[job] = JobState(state, word, "" if reason == "None" else reason, nodes, seconds(left))
        return {job: found.get(job, JobState("ended", "gone")) for job in jobs}

    async def cancel(self, jobs: Iterable[str]) -> None:
        wanted = list(jobs)
        if wanted:
            await run_command("scancel", *wanted)


class PBS(BatchSystem):
    """PBS (OpenPBS, PBS Pro, and what speaks like them): qstat, qdel."""

    name = "PBS"
    commands = ("qsub", "qstat", "qdel")
    blame = (
        (r"resource: mem", "worker.memory"),
        (r"resource: ncpus", "worker.processes"),
        (r"walltime", "scheduler.walltime"),
        (r"account|project|group", "scheduler.account"),
        (r"queue", "scheduler.queue"),
        (r"mem", "worker.memory"),
        (r"resource|ncpus", "scheduler.resources"),
        (r"option|directive", "scheduler.directives"),
    )
    never = r"Can Never Run"
    RUNNING = frozenset("RE")
    ENDED = frozenset("FCX")

    async def states(self, jobs: Sequence[str]) -> dict[str, JobState]:
        if not jobs:
            return {}
        code, out, err = await run_command("qstat", "-f", *jobs)
        # one job that has ended (35, 153) makes qstat fail, though it tells of the others
        if code and not out and not re.search(r"finished|unknown job|does not exist", err, re.IGNORECASE):
            raise RunError(f"qstat does not answer: exit code {code}: {err.strip()}")
        found = {}
        for text in re.split(r"^Job Id:\s*", out, flags=re.MULTILINE)[1:]:
            job, _, body = text.partition("\n")
            facts = job_facts(body)
            word = facts.get("job_state", "?")
            state: State = "running" if word in self.RUNNING else "ended" if word in self.ENDED else "pending"
            nodes = "+".join(dict.fromkeys(re.findall(r"([^+/*]+)/", facts.get("exec_host", ""))))
            found[job.strip().split(".")[0]] = JobState(state, word, facts.get("comment", ""), nodes, _left(facts))
        return {job: found.get(job.split(".")[0], JobState("ended", "gone")) for job in jobs}

    async def cancel(self, jobs: Iterable[str]) -> None:
        wanted = list(jobs)
        if wanted:
            await run_command("qdel", *wanted)


def seconds(text: str) -> float | None:
    """``days-hours:minutes:seconds``, of which the first two may be missing; None for a word like UNLIMITED."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if found is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + rest)


def _left(facts: Mapping[str, str]) -> float | None:
    """What is left of the time that a job of PBS has asked for; what it has used is told only every few minutes."""
    limit = seconds(facts.get("Resource_List.walltime", ""))
    if limit is None:
        return None
    left = limit - (seconds(facts.get("resources_used.walltime", "")) or 0.0)
    with suppress(ValueError, OverflowError):
        left = min(left, time.mktime(time.strptime(facts.get("stime", ""))) + limit - time.time())
    return left


def job_facts(text: str) -> dict[str, str]:
    """``name = value`` of each line that qstat indents; a long value goes on in the next line, after a tab."""
    facts: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        match = re.fullmatch(r"\s+([\w.]+) = (.*)", line)
        if match:
            name = match[1]
            facts[name] = match[2]
        elif name and line.startswith("\t"):
            facts[name] += line.removeprefix("\t")
    return facts


def batch_system(kind: str) -> BatchSystem:
    """The batch system of a site's ``scheduler.kind``."""
    return {"slurm": Slurm, "pbs": PBS}[kind]()
