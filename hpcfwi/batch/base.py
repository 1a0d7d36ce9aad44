"""The batch system protocol: what hpcfwi asks of Slurm, PBS and those that others add."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hpcfwi.errors import InputError, RunError

if TYPE_CHECKING:
    from dask_jobqueue import JobQueueCluster

    from hpcfwi.config.site import SiteConfig

__all__ = [
    "BatchSystem",
    "CommandResult",
    "JobState",
    "Node",
    "Queue",
    "SubmissionError",
    "clean_environment",
    "duration_seconds",
    "run_command",
    "short_name",
]

COMMAND_TIMEOUT_S = 20.0
# Variables, or their prefixes, that size a job for OpenMP and MPI, whatever batch system started it.
JOB_SIZE_PREFIXES = ("NCPUS", "OMP_", "GOMP_", "KMP_", "PMI_", "PMIX_", "OMPI_")
State = Literal["pending", "running", "ended"]


@dataclass(frozen=True)
class CommandResult:
    """What a command returned.

    Parameters
    ----------
    command
        The command, quoted for a shell.
    code
        Its exit code: 124 if it timed out, 127 if it could not be started.
    out, err
        What it wrote to standard output and standard error.
    """

    command: str
    code: int
    out: str = ""
    err: str = ""

    @property
    def message(self) -> str:
        """What the command says about its failure."""
        return (self.err or self.out).strip()

    def __str__(self) -> str:
        return f"{self.command}: exit code {self.code}: {' '.join(self.message.split())}"

    def output(self) -> str:
        """Return the standard output, or raise RunError if the command failed."""
        if self.code:
            raise RunError(str(self))
        return self.out


class SubmissionError(RunError):
    """The batch system rejected a job; ``result`` has the command and its answer."""

    def __init__(self, result: CommandResult) -> None:
        super().__init__(result)
        self.result = result


def run_command(*command: str, cwd: str | None = None) -> CommandResult:
    """Run a command of a batch system, without the variables of the job that this process runs in."""
    line = shlex.join(command)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(os.environ),
            cwd=cwd,
            text=True,
            errors="replace",
        )
    except OSError as error:
        reason = "no such command here" if isinstance(error, FileNotFoundError) else str(error.strerror)
        return CommandResult(line, 127, err=reason)
    try:
        out, err = process.communicate(timeout=COMMAND_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # a process that waits for a file system outlives SIGKILL
            process.wait(COMMAND_TIMEOUT_S)
        return CommandResult(line, 124, err=f"no answer within {COMMAND_TIMEOUT_S:g} s")
    except BaseException:
        process.kill()
        raise
    return CommandResult(line, process.returncode, out, err)


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables of the job that this process runs in.

    A job that is submitted from within another would take them for its own: Slurm pins it to the cores of the outer job.
    """
    systems = BatchSystem.__subclasses__()
    prefixes = (*JOB_SIZE_PREFIXES, *(prefix for system in systems for prefix in system.job_prefixes))
    keep = {name for system in systems for name in system.system_variables}
    kept = {name: value for name, value in environment.items() if name in keep or not name.startswith(prefixes)}
    folders = [folder for system in systems if (folder := system(environment).command_folder())]
    if folders:
        kept["PATH"] = os.pathsep.join([*folders, *([environment["PATH"]] if environment.get("PATH") else [])])
    return kept


@dataclass(frozen=True)
class JobState:
    """The state of a job.

    Parameters
    ----------
    state
        ``"pending"``, ``"running"`` or ``"ended"``.
    word
        The batch system's word for it; of an ended job, how it ended.
    reason
        Why the job waits; empty if unknown.
    nodes
        The nodes it runs on.
    left_s
        Seconds until its time limit; None if it has none or it is unknown. Two states that differ in it alone are equal.
    """

    state: State
    word: str
    reason: str = ""
    nodes: str = ""
    left_s: float | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.word} ({self.reason})" if self.reason else self.word


@dataclass(frozen=True)
class Queue:
    """A queue (Slurm: partition); ``default`` is None if the batch system does not say which queue is the default."""

    name: str
    accepts_jobs: bool
    default: bool | None = None


@dataclass(frozen=True)
class Node:
    """A node of an allocation.

    Parameters
    ----------
    name
        Its name in the batch system.
    cpus
        CPUs that the job has on it, as the batch system counts them.
    memory
        Bytes that the job has on it; None if unknown.
    """

    name: str
    cpus: int
    memory: int | None = None


class BatchSystem(ABC):
    """A batch system, and the job in it that this process runs in, if any.

    To add one, write a subclass and register it as an entry point of the group ``hpcfwi.batch_systems``; the name of the
    entry point is what users write in ``scheduler.kind``.

    Parameters
    ----------
    environment
        The variables of this process, which describe its job.

    Attributes
    ----------
    name
        The name to show.
    commands
        The commands that submit jobs, query them and cancel them, in this order.
    variables
        Environment variables of a job by what they mean: at least ``job_id``; ``restarts``, ``submit_host`` and
        ``node_count`` where the batch system has them.
    job_prefixes, system_variables
        Prefixes of the variables that describe a job, which no other job must inherit; those among them that say where the
        batch system itself is.
    site_keys
        (Pattern of an error message, key of the site file that it is about); the first match counts.
    never_starts
        Pattern of the reasons for waiting that never go away.
    options
        The keys among ``scheduler.qos`` and ``scheduler.resources`` that it understands.
    """

    name: ClassVar[str]
    commands: ClassVar[tuple[str, str, str]]
    variables: ClassVar[Mapping[str, str]]
    job_prefixes: ClassVar[tuple[str, ...]] = ()
    system_variables: ClassVar[tuple[str, ...]] = ()
    site_keys: ClassVar[tuple[tuple[str, str], ...]] = ()
    never_starts: ClassVar[str] = r"(?!)"
    options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.environment = environment

    # jobs in its queue

    def missing_commands(self) -> list[str]:
        """Return the commands that this host does not have."""
        return [command for command in self.commands if shutil.which(command) is None]

    def require_commands(self) -> None:
        """Raise InputError unless this host can submit jobs."""
        if missing := self.missing_commands():
            raise InputError(
                f"{missing[0]}: no such command here, so no {self.name} job can be submitted; log in to a host that has it, or "
                "choose another site with --site (hpcfwi site list)"
            )

    def submit(self, script: Path) -> str:
        """Submit a job script and return the number of the job; raise SubmissionError if it is rejected."""
        result = run_command(self.commands[0], str(script))
        number = re.search(r"\d+", result.out)
        if result.code or number is None:
            raise SubmissionError(result)
        return number[0]

    def test_submit(self, script: Path) -> CommandResult | None:  # noqa: ARG002 - part of the protocol
        """Return what the batch system says of a job script without running it; None if it cannot say."""
        return None

    def cancel(self, jobs: Sequence[str]) -> None:
        """End jobs, whether they run, wait, or have ended already."""
        if jobs:
            run_command(self.commands[-1], *jobs)

    @abstractmethod
    def states(self, jobs: Sequence[str]) -> dict[str, JobState]:
        """Return the state of each job; a job that the batch system does not know (any more) has ended.

        Raises
        ------
        RunError
            If the batch system does not answer.
        """

    @abstractmethod
    def queues(self) -> list[Queue]:
        """Return all queues.

        Raises
        ------
        RunError
            If the batch system does not answer.
        """

    def site_key(self, message: str) -> str | None:
        """Return the key of the site file that an error message is about, if it says so."""
        return next((key for pattern, key in self.site_keys if re.search(pattern, message, re.IGNORECASE)), None)

    def will_never_start(self, state: JobState) -> bool:
        """Return whether a job waits for something that never comes."""
        return state.state == "pending" and re.search(self.never_starts, state.reason) is not None

    def server_hosts(self) -> list[str]:
        """Return the hosts of its server, if known: the driver listens on the interface that leads to them."""
        return []

    # scripts of worker jobs

    @abstractmethod
    def cluster_class(self) -> type[JobQueueCluster]:
        """Return the class of dask-jobqueue that submits worker jobs, with its ``job_cls``."""

    @abstractmethod
    def job_options(self, config: SiteConfig, cpus: int, megabytes: int, logs: Path) -> dict[str, Any]:
        """Return the keywords that only this batch system's class of dask-jobqueue has.

        Parameters
        ----------
        config
            The site.
        cpus
            CPUs of a worker job, as the batch system counts them.
        megabytes
            Memory of a worker job, in units of 2^20 bytes.
        logs
            Folder for the output of the jobs, each in ``<job number>.log``.
        """

    def exclude_directives(self, nodes: Collection[str]) -> list[str]:  # noqa: ARG002 - part of the protocol
        """Return the directives that keep a job away from nodes; empty if there are none."""
        return []

    def script_prologue(self, logs: Path) -> list[str]:  # noqa: ARG002 - part of the protocol
        """Return the shell lines that a job script begins with."""
        return []

    # the job that this process runs in

    def variable(self, meaning: str) -> str:
        """Return a variable of this process's job by its meaning (see ``variables``); empty if it is not set."""
        return self.environment.get(self.variables.get(meaning, ""), "")

    @property
    def job_id(self) -> str:
        """The number of the job; empty outside of jobs."""
        return self.variable("job_id")

    @property
    def restarts(self) -> int:
        """How often the job was started before."""
        return int(self.variable("restarts")) if self.variable("restarts").isdigit() else 0

    def command_folder(self) -> str:
        """Return the folder of its commands if the PATH of the job may lack it; otherwise nothing."""
        return ""

    def requeue(self, starts: int) -> str:  # noqa: ARG002 - part of the protocol
        """Start the job once more after its end.

        Parameters
        ----------
        starts
            How many starts there were.

        Returns
        -------
        str
            What happens now, for the user.

        Raises
        ------
        RunError
            If that is not possible.
        """
        raise RunError(f"hpcfwi cannot start a job of {self.name} again")

    def nodes(self) -> list[Node]:
        """Return the nodes of the job, in the batch system's order; raise RunError if they are unknown."""
        raise RunError(f"hpcfwi cannot use the nodes of a job of {self.name}; take --launch jobs or --launch local")

    def start_command(self, node: Node, script: Path) -> list[str]:
        """Return the command that runs a script on a node of the job until the script ends."""
        raise NotImplementedError

    def start_environment(self) -> dict[str, str]:
        """Return the environment of :meth:`start_command`."""
        return dict(os.environ)


def duration_seconds(text: str) -> float | None:
    """Return the seconds of ``days-hours:minutes:seconds`` (days and hours are optional); None for a word like UNLIMITED."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def short_name(host: str) -> str:
    """Return a host name without its domain."""
    return host.partition(".")[0]
