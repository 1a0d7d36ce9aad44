"""The interface of batch systems: Slurm, PBS, and those that other packages add."""

import math
import os
import re
import shlex
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Any, ClassVar, Literal

from hpcfwi.config.site import SiteConfig
from hpcfwi.errors import RunError

COMMAND_TIMEOUT_S = 20.0
PIPES: dict[str, Any] = {"stdin": DEVNULL, "stdout": PIPE, "stderr": PIPE, "text": True, "errors": "replace"}
# Prefixes of variables that size a job for OpenMP and MPI, with any batch system.
JOB_SIZE_PREFIXES = ("NCPUS", "OMP_", "GOMP_", "KMP_", "PMI_", "PMIX_", "OMPI_")
State = Literal["pending", "running", "ended"]


@dataclass(frozen=True)
class CommandResult:
    """The result of a command; its exit code is 124 if it timed out, and 127 if it could not be started."""

    command: str
    code: int
    out: str = ""
    err: str = ""

    @property
    def message(self) -> str:
        """The command's own error message."""
        return (self.err or self.out).strip()

    def __str__(self) -> str:
        return f"{self.command}: exit code {self.code}: {' '.join(self.message.split())}"

    def output(self) -> str:
        """Return the standard output, or raise RunError if the command failed."""
        if self.code:
            raise RunError(str(self))
        return self.out


class SubmissionError(RunError):
    """The batch system rejected a job; ``result`` holds the command and its output."""

    def __init__(self, result: CommandResult) -> None:
        super().__init__(result)
        self.result = result


def run_command(*command: str, cwd: str | None = None) -> CommandResult:
    """Run a command of a batch system, without the variables of the job that this process runs in."""
    line, environment = shlex.join(command), clean_environment(os.environ)
    try:
        # in its own process group: Ctrl-C must not end a submission whose job may already be in the queue
        process = Popen(command, env=environment, cwd=cwd, process_group=0, **PIPES)
    except OSError as error:
        reason = "no such command here" if isinstance(error, FileNotFoundError) else str(error.strerror)
        return CommandResult(line, 127, err=reason)
    try:
        out, err = process.communicate(timeout=COMMAND_TIMEOUT_S)
    except TimeoutExpired:
        process.kill()
        with suppress(TimeoutExpired):  # a process that waits for a file system survives SIGKILL
            process.wait(COMMAND_TIMEOUT_S)
        return CommandResult(line, 124, err=f"no answer within {COMMAND_TIMEOUT_S:g} s")
    except BaseException:
        process.kill()
        raise
    return CommandResult(line, process.returncode, out, err)


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables of the job that this process runs in.

    A job that is submitted from within another job would inherit them: Slurm would pin it to the cores of the outer job.
    """
    systems = [*_subclasses(BatchSystem)]
    prefixes = (*JOB_SIZE_PREFIXES, *(prefix for system in systems for prefix in system.job_prefixes))
    keep = {name for system in systems for name in system.system_variables}
    kept = {name: value for name, value in environment.items() if name in keep or not name.startswith(prefixes)}
    if folders := [folder for system in systems if (folder := system(environment).command_folder())]:
        kept["PATH"] = os.pathsep.join([*folders, *filter(None, [environment.get("PATH")])])
    return kept


@dataclass(frozen=True)
class JobState:
    """The state of a job; two states that differ in ``left_s`` alone are equal."""

    state: State
    word: str  # the batch system's own word for it, or how the job ended
    reason: str = ""  # why the job waits; empty if unknown
    nodes: str = ""  # where the job runs
    # until the time limit, infinite without one; None: unknown
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
    """A node of an allocation: the job's CPUs on it, as the batch system counts them, and bytes, if known."""

    name: str
    cpus: int
    memory: int | None = None


class BatchSystem(ABC):
    """A batch system, and this process's job in it, if any.

    To add one, write a subclass with the abstract methods, ``name``, ``commands`` and ``variables``, and register it as an
    entry point of the group ``hpcfwi.batch_systems``; the name of the entry point is the value of ``scheduler.kind``.

    ``environment`` has the variables of this process, which describe its job.
    """

    # the display name, and the commands that submit, query and cancel jobs
    name: ClassVar[str]
    commands: ClassVar[tuple[str, str, str]]
    # variables of a job by their meaning: job_id and, if they exist, restarts, predecessor (the job whose run this one
    # continues, if a restarted job gets another number), submit_host and node_count
    variables: ClassVar[Mapping[str, str]]
    # prefixes of variables that no other job must inherit, and exceptions: variables that locate the batch system
    job_prefixes: ClassVar[tuple[str, ...]] = ()
    system_variables: ClassVar[tuple[str, ...]] = ()
    # (pattern of an error message, key of the site file that it is about): the first match counts
    site_keys: ClassVar[tuple[tuple[str, str], ...]] = ()
    # pattern of the reasons why a waiting job will never start
    never_starts: ClassVar[str] = r"(?!)"
    # how a user asks for more time
    longer_limit: ClassVar[str] = "a longer time limit"
    # which of the keys scheduler.qos and scheduler.resources the batch system supports
    options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.environment = environment

    # jobs in its queue

    def missing_commands(self) -> list[str]:
        """Return the commands that this host does not have."""
        return [command for command in self.commands if shutil.which(command) is None]

    def submit(self, script: Path) -> str:
        """Submit a job script and return the number of the job; raise SubmissionError if it is rejected."""
        result = run_command(self.commands[0], str(script))
        number = re.search(r"\d+", result.out)
        if result.code or number is None:
            raise SubmissionError(result)
        return number[0]

    def test_submit(self, script: Path) -> CommandResult | None:  # noqa: ARG002 - part of the protocol
        """Let the batch system check a job script without running it; None if it has no such check."""
        return None

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel jobs, whether they are running, waiting or have already ended."""
        if jobs:
            run_command(self.commands[-1], *jobs)

    @abstractmethod
    def states(self, jobs: Sequence[str]) -> dict[str, JobState]:
        """Return the state of each job; unknown jobs have ended. Raises RunError if the batch system does not answer."""

    @abstractmethod
    def queues(self) -> list[Queue]:
        """Return all queues; raise RunError if the batch system does not answer."""

    def queue_names(self, queue: str) -> list[str]:
        """Return the queues in a value of ``scheduler.queue``."""
        return [queue]

    def site_key(self, message: str) -> str | None:
        """Return the key of the site file that an error message is about, if known."""
        return next((key for pattern, key in self.site_keys if re.search(pattern, message, re.IGNORECASE)), None)

    def will_never_start(self, state: JobState) -> bool:
        """Return whether a job waits for a reason that never goes away."""
        return state.state == "pending" and re.search(self.never_starts, state.reason) is not None

    def server_hosts(self) -> list[str]:
        """Return the hosts of its server, if known: the driver listens on the interface that leads to them."""
        return []

    # scripts of worker jobs

    @abstractmethod
    def cluster_class(self) -> Any:
        """Return the subclass of dask-jobqueue's ``JobQueueCluster`` whose ``job_cls`` writes the job scripts."""

    @abstractmethod
    def job_options(self, config: SiteConfig, cpus: int, megabytes: int, logs: Path) -> dict[str, Any]:
        """Return the keyword arguments that only this batch system's ``job_cls`` accepts.

        A job needs ``cpus``, as the batch system counts them, and ``megabytes`` of 2^20 bytes. The output of each job goes to
        ``<job number>.log`` in the folder ``logs``.
        """

    def exclude_directives(self, nodes: Collection[str]) -> list[str]:  # noqa: ARG002 - part of the protocol
        """Return the directives that exclude nodes from a job."""
        return []

    def script_prologue(self, logs: Path) -> list[str]:  # noqa: ARG002 - part of the protocol
        """Return the first shell lines of a job script."""
        return []

    # the job that this process runs in

    def variable(self, meaning: str) -> str:
        """Return a variable of this process's job by its meaning (see ``variables``); empty if it is not set."""
        return self.environment.get(self.variables.get(meaning, ""), "")

    @property
    def job_id(self) -> str:
        """The number of the job; empty outside jobs."""
        return self.variable("job_id")

    @property
    def restarts(self) -> int:
        """How often the job has been restarted."""
        return int(self.variable("restarts")) if self.variable("restarts").isdigit() else 0

    def command_folder(self) -> str:
        """Return the folder of its commands if the job's PATH may lack it; else an empty string."""
        return ""

    def requeue(self, starts: int) -> str:  # noqa: ARG002 - part of the protocol
        """Have the job run again after its end, and return a message about it for the user; raise RunError on failure.

        ``starts`` is the number of starts so far.
        """
        raise RunError(f"hpcfwi cannot requeue a {self.name} job")

    def nodes(self) -> list[Node]:
        """Return the nodes of the job, in the batch system's order; raise RunError if they are unknown."""
        raise RunError(f"hpcfwi cannot use the nodes of a {self.name} job; use --launch jobs or --launch local")

    def start_command(self, node: Node, script: Path) -> tuple[list[str], dict[str, str]]:
        """Return a command, and its environment, that runs a script on a node of the job and ends with it."""
        raise NotImplementedError


def _subclasses(system: Any) -> Iterator[Any]:
    for subclass in system.__subclasses__():
        yield from (subclass, *_subclasses(subclass))


def duration_seconds(text: str) -> float | None:
    """Return the seconds of ``days-hours:minutes:seconds``, without days or hours, or of UNLIMITED; None for another text."""
    if text.strip() == "UNLIMITED":
        return math.inf
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
