"""The batch job that the driver itself runs in: how much of its time is left, and another start of it."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shlex
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hpcfwi.batch.base import PBS, BatchSystem, Slurm, clean_environment, job_facts
from hpcfwi.errors import RunError
from hpcfwi.run.folder import SUCCESSOR

__all__ = ["CurrentJob", "current_job_id", "requeue"]

# Seconds that a scheduler has to answer.
COMMAND_TIMEOUT_S = 20.0
# Names of the variables that jobs/fwi.pbs gives its successor, and of its script.
HANDED_ON = ("HPCFWI_CONFIG", "HPCFWI_ARGS", "HPCFWI_ROOT", "HPCFWI_REQUEUE", "VIRTUAL_ENV")
SCRIPT = "HPCFWI_PBS_SCRIPT"
# What PBS itself derives from a job's select statement.
DERIVED = {"mem", "mpiprocs", "ncpus", "ngpus", "nodect", "nodes", "vmem"}


def current_job_id(environment: Mapping[str, str] = os.environ) -> tuple[BatchSystem, str] | None:
    """The batch system and the number of the job that this process is in, or None."""
    for name, kind in (("SLURM_JOB_ID", Slurm), ("PBS_JOBID", PBS)):
        if environment.get(name):
            return kind(), environment[name]
    return None


class CurrentJob:
    """When the scheduler ends the job that this process is in; there is no end without a job, a limit or an answer."""

    def __init__(self) -> None:
        self._end = math.inf
        self.ask()

    def ask(self) -> float:
        """Ask the scheduler, since a limit can be moved; returns the seconds that are left."""
        own = current_job_id()
        left: float | None = None
        if own is not None:
            batch, job = own
            try:
                # in a thread: a caller from Python, a notebook say, may have an event loop of its own here
                with ThreadPoolExecutor(1) as pool:
                    left = pool.submit(asyncio.run, batch.states([job])).result()[job].left
            except (OSError, RunError):
                left = None
        if left is not None:
            self._end = time.monotonic() + left
        return self.left()

    def left(self) -> float:
        """Seconds that are left, as far as was known when the scheduler was asked."""
        return self._end - time.monotonic()


def requeue(starts: int) -> str:
    """Let the batch job that this process is in start once more; returns what to tell of it.

    A job of Slurm goes back into the queue; PBS lets ordinary users do that to no job of theirs that runs, so a successor with
    the same wishes is submitted, which waits for its end.

    Parameters
    ----------
    starts
        How many starts there were by now.

    Raises
    ------
    RunError
        If the scheduler refuses.
    """
    own = current_job_id()
    if own is None:
        raise RunError("this is no batch job")
    batch, job = own
    if isinstance(batch, Slurm):
        _call(["scontrol", "requeue", job])
        return f"job {job} is back in the queue"
    return f"job {_call(_successor(job, starts)).strip()} follows"


def _call(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_TIMEOUT_S,
            env=clean_environment(os.environ),
            cwd=os.environ.get("PBS_O_WORKDIR") or None,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RunError(f"{shlex.join(command)}: {error}") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise RunError(f"{shlex.join(command)}: exit code {done.returncode}: {said}")
    return done.stdout


def _next_output(path: str, starts: int) -> str:
    """PBS writes over what is there: ``job.log`` is followed by ``job.log.1``, ``job.log.2``, ..."""
    if Path(path).is_dir():
        return path
    return f"{path.removesuffix(f'.{starts - 1}')}.{starts}"


def _successor(job: str, starts: int) -> list[str]:
    """The command that submits jobs/fwi.pbs once more, with the wishes of the job that it runs in."""
    script = os.environ.get(SCRIPT)
    if not script:
        raise RunError("only jobs/fwi.pbs can be submitted again, and this job is not of it")
    facts = job_facts(_call(["qstat", "-f", job]))
    command = ["qsub", "-W", f"depend=afterany:{job}", "-N", facts.get("Job_Name", "hpcfwi")]
    for option, name in (("-q", "queue"), ("-A", "Account_Name"), ("-P", "project")):
        if facts.get(name, "_pbs_project_default") != "_pbs_project_default":
            command += [option, facts[name]]
    select = facts.get("Resource_List.select", "")
    for name, value in facts.items():
        kind, _, resource = name.partition(".")
        derived = select and (resource in DERIVED or re.search(rf"[:=]{re.escape(resource)}=", f":{select}"))
        if kind == "Resource_List" and not derived:
            command += ["-l", f"{resource}={value}"]
    output = facts.get("Output_Path", "").partition(":")[2]
    if output and not re.search(r"\.o\d+$", output):  # that of its own choice has the job's number
        command += ["-o", _next_output(output, starts)]
    told = {name: os.environ[name] for name in HANDED_ON if os.environ.get(name)} | {SUCCESSOR: str(starts)}
    return [*command, "-v", ",".join(f"{name}={value}" for name, value in told.items()), script]
