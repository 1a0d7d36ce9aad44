"""The nodes of the allocation that we are in, and how a command is started on one of them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcfwi.batch.base import clean_environment
from hpcfwi.errors import InputError, RunError

__all__ = ["Allocation", "Node", "PBSAllocation", "SlurmAllocation", "find_allocation"]


@dataclass(frozen=True)
class Node:
    """One node of an allocation.

    Parameters
    ----------
    name
        As the batch system calls it.
    cpus
        CPUs that the job has on it, as the batch system counts them.
    memory
        Bytes that the job has on it; None where that is not told.
    """

    name: str
    cpus: int
    memory: int | None = None


class Allocation(ABC):
    """The job that we are in.

    Parameters
    ----------
    environment
        The variables that the batch system has set.
    """

    system: str

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment

    @property
    @abstractmethod
    def job(self) -> str:
        """Its number."""

    @abstractmethod
    def nodes(self) -> list[Node]:
        """Its nodes, in the batch system's order."""

    @abstractmethod
    def command(self, node: Node, script: Path) -> list[str]:
        """What runs a script on a node until the script ends."""

    def variables(self) -> dict[str, str]:
        """Environment of :meth:`command`."""
        return dict(os.environ)


class SlurmAllocation(Allocation):
    """sbatch, salloc: srun starts a step on each node, which shares what the job has there with other steps."""

    system = "Slurm"

    @property
    def job(self) -> str:
        return self.environment["SLURM_JOB_ID"]

    def nodes(self) -> list[Node]:
        names = _lines("scontrol", "show", "hostnames", self._told("SLURM_JOB_NODELIST"))
        # salloc may leave the shell on a login node, where SLURM_CPUS_ON_NODE says nothing
        counts = [
            int(count)
            for count, _, times in re.findall(r"(\d+)(\(x(\d+)\))?", self._told("SLURM_JOB_CPUS_PER_NODE"))
            for _ in range(int(times or 1))
        ]
        if len(names) != len(counts):
            raise RunError(f"job {self.job}: Slurm tells {len(names)} nodes, but the CPUs of {len(counts)}")
        return [Node(name, cpus, self._memory(cpus)) for name, cpus in zip(names, counts, strict=True)]

    def _told(self, name: str) -> str:
        value = self.environment.get(name)
        if not value:
            raise RunError(
                f"{name} is not set in job {self.job}, so its nodes are not known; is this shell inside of it?"
            )
        return value

    def _memory(self, cpus: int) -> int | None:
        """Slurm tells megabytes, of 2^20 bytes, by node or by CPU; 0 means all."""
        for name, times in (("SLURM_MEM_PER_NODE", 1), ("SLURM_MEM_PER_CPU", cpus)):
            if self.environment.get(name, "0").isdigit() and int(self.environment.get(name, "0")):
                return int(self.environment[name]) * times * 2**20
        return None

    def command(self, node: Node, script: Path) -> list[str]:
        return [
            "srun",
            f"--jobid={self.job}",
            "--overlap",
            "--nodes=1",
            "--ntasks=1",
            f"--nodelist={node.name}",
            f"--cpus-per-task={node.cpus}",
            # cores are given out by ourselves, process by process
            "--cpu-bind=none",
            "--input=none",
            "--quiet",
            "bash",
            str(script),
        ]

    def variables(self) -> dict[str, str]:
        # what the batch script's own request says would size the step; what says which job it is has to stay
        keep = ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_JOBID")
        return clean_environment(os.environ) | {name: os.environ[name] for name in keep if name in os.environ}


class PBSAllocation(Allocation):
    """qsub, qsub -I: pbs_tmrsh or pbsdsh starts a command under the eyes of the node's daemon, ssh where they are missing."""

    system = "PBS"

    @property
    def job(self) -> str:
        return self.environment["PBS_JOBID"]

    def nodes(self) -> list[Node]:
        listed = self._listed()
        cpus, memory = self._chunks()
        return [Node(name, cpus.get(_short(name), listed[name]), memory.get(_short(name))) for name in listed]

    def _listed(self) -> dict[str, int]:
        """Hosts of $PBS_NODEFILE and how often each stands there."""
        path = self.environment.get("PBS_NODEFILE", "")
        try:
            names = Path(path).read_text().split()
        except OSError as error:
            raise RunError(
                f"PBS_NODEFILE ({path or 'not set'}) cannot be read: {error.strerror}; is this the job's first node?"
            ) from None
        return {name: names.count(name) for name in dict.fromkeys(names)}

    def _chunks(self) -> tuple[dict[str, int], dict[str, int]]:
        """CPUs and memory of the job on each host, as qstat tells them; empty where it does not."""
        cpus: dict[str, int] = {}
        memory: dict[str, int] = {}
        try:
            text = "\n".join(_lines(self._find("qstat") or "qstat", "-f", self.job)).replace("\n\t", "")
        except RunError:
            return cpus, memory
        found = re.search(r"exec_vnode = (.*)", text)
        for chunk in re.findall(r"\(([^)]*)\)", found[1] if found else ""):
            for part in chunk.split("+"):
                vnode, *facts = part.split(":")
                name = _short(vnode.partition("[")[0])
                for fact in facts:
                    key, _, value = fact.partition("=")
                    if key == "ncpus":
                        cpus[name] = cpus.get(name, 0) + int(value)
                    if key == "mem":
                        memory[name] = memory.get(name, 0) + _bytes(value)
        return cpus, memory

    def command(self, node: Node, script: Path) -> list[str]:
        remote_shell, everywhere = self._find("pbs_tmrsh"), self._find("pbsdsh")
        if remote_shell:
            return [remote_shell, node.name, "/bin/bash", str(script)]
        if everywhere:
            order = Path(self.environment["PBS_NODEFILE"]).read_text().split()
            return [everywhere, "-n", str(order.index(node.name)), "--", "/bin/bash", str(script)]
        if shutil.which("ssh"):
            return ["ssh", "-o", "BatchMode=yes", node.name, shlex.join(["/bin/bash", str(script)])]
        raise InputError(
            "none of pbs_tmrsh, pbsdsh and ssh is here, so nothing can be started on the other nodes of this job"
        )

    def _find(self, command: str) -> str | None:
        """A command of PBS, whose folder is not on every job's PATH."""
        folder = Path(self.environment.get("PBS_EXEC") or _installation()) / "bin"
        return shutil.which(command) or shutil.which(command, path=str(folder))


def _installation() -> str:
    """Where PBS is, by its own configuration file."""
    try:
        text = Path(os.environ.get("PBS_CONF_FILE", "/etc/pbs.conf")).read_text()
    except OSError:
        text = ""
    found = re.search(r"^\s*PBS_EXEC\s*=\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else "/opt/pbs"


def _short(host: str) -> str:
    return host.partition(".")[0]


def _bytes(text: str) -> int:
    """``8388608kb``: PBS's units are powers of 1024."""
    match = re.fullmatch(r"(\d+)([kmgt]?)b?", text.lower())
    return int(match[1]) * 1024 ** " kmgt".index(match[2] or " ") if match else 0


def _lines(*command: str) -> list[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except FileNotFoundError:
        raise RunError(f"{command[0]}: there is no such command here") from None
    except subprocess.SubprocessError as error:
        raise RunError(f"{' '.join(command)}: {getattr(error, 'stderr', '') or error}") from None
    return done.stdout.splitlines()


def find_allocation(environment: Mapping[str, str] = os.environ) -> Allocation:
    """The allocation that we are in.

    Raises
    ------
    InputError
        If we are in none.
    """
    if environment.get("SLURM_JOB_ID"):
        return SlurmAllocation(environment)
    if environment.get("PBS_JOBID"):
        return PBSAllocation(environment)
    raise InputError(
        "this is not inside a job: use it under sbatch, salloc, qsub or qsub -I, or choose another --launch"
    )
