"""``site-configs/NAME.toml``: where it runs. Every key with its unit, default and limits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from hpcfwi.config.text import apply_settings, expand, expand_variables, line_of, parse_setting, read_toml
from hpcfwi.config.validation import Section, validate
from hpcfwi.errors import InputError
from hpcfwi.resources import shipped

__all__ = ["LATER", "Site", "SiteConfig", "find_site", "known_sites", "load_site", "seconds_of"]

Auto = Literal["auto"]
# What ends a line, or tells a terminal something; a tab does not.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
# Variables in these are for the node on which a worker starts, and are left to its shell.
LATER = ("environment.commands", "filesystem.scratch", "openmp.variables")


def seconds_of(walltime: str) -> int:
    """Seconds of ``hours:minutes:seconds``."""
    hours, minutes, seconds = map(int, walltime.split(":"))
    return 3600 * hours + 60 * minutes + seconds


def _walltime(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,4}:[0-5][0-9]:[0-5][0-9]", text) or seconds_of(text) < 60:
        raise ValueError(f'is "{text}"; it should be hours:minutes:seconds, a minute or more, for instance "12:00:00"')
    return text


def _ports(text: str) -> str:
    match = re.fullmatch(r"([0-9]{1,5}):([0-9]{1,5})", text)
    if not match or not 1024 <= int(match[1]) < int(match[2]) <= 65535:
        raise ValueError(f'is "{text}"; it should be first:last between 1024 and 65535, for instance "9000:9100"')
    return text


def _listening(text: str) -> str:
    match = re.fullmatch(r"([A-Za-z0-9.-]+):([0-9]{1,5})", text)
    if text != "off" and not (match and int(match[2]) <= 65535):
        raise ValueError(f'is "{text}"; it should be address:port, for instance "127.0.0.1:8787", or "off"')
    return text


def _one_line(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError(f"is {text!r}; it should be one line")
    return text


def _word(text: str) -> str:
    if not re.fullmatch(r"\S+", text) or CONTROL.search(text):
        raise ValueError(f'is "{text}"; it should be one word')
    return text


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f'"{name}" is no name of a variable')
    return name


Line = Annotated[str, AfterValidator(_one_line)]
Word = Annotated[str, AfterValidator(_word)]
Walltime = Annotated[str, AfterValidator(_walltime)]
Few = Annotated[int, Field(ge=1, le=1024)]
Jobs = Annotated[int, Field(ge=1, le=100_000)]
Gigabytes = Annotated[float, Field(gt=0, le=1e6)]


class SchedulerSection(Section):
    """The batch system that starts worker jobs."""

    kind: Literal["none", "slurm", "pbs"] = Field(
        "none", description="batch system: Slurm, PBS, or none for this machine"
    )
    queue: Word | None = Field(None, description="partition of Slurm, queue of PBS; default: the scheduler's own")
    account: Word | None = Field(None, description="account or project to charge; default: the scheduler's own")
    qos: Word | None = Field(None, description="quality of service of Slurm; default: the scheduler's own")
    walltime: Walltime = Field("01:00:00", description="time limit of a worker job, hours:minutes:seconds")
    directives: tuple[Line, ...] = Field((), description="further directives, as they stand after #SBATCH or #PBS")
    resources: Word | None = Field(
        None,
        description="resources of a worker job of PBS, with the placeholders {cpus} and {memory}; "
        "default: `select=1:ncpus={cpus}:mem={memory}`",
    )
    request_memory: bool = Field(
        True, description="request memory for a worker job; some machines give whole nodes and reject such requests"
    )
    jobs: Jobs | tuple[Jobs, Jobs] = Field(
        1, description="number of worker jobs, one node each; or [least, most]: as many as there is work for"
    )
    replacements: Annotated[int, Field(ge=0, le=10_000)] = Field(
        10, description="maximum number of worker jobs per hour that replace jobs that have ended"
    )
    submit_from_compute: bool = Field(True, description="the machine allows a job to submit jobs")
    max_walltime: Walltime | None = Field(None, description="longest time limit of the queue, hours:minutes:seconds")
    max_jobs: Jobs | None = Field(None, description="maximum number of jobs of a user at a time")

    @model_validator(mode="after")
    def _consistent(self) -> SchedulerSection:
        if isinstance(self.jobs, tuple) and self.jobs[0] > self.jobs[1]:
            raise ValueError(f"jobs: is {list(self.jobs)}; the first number should not be larger than the second")
        if self.max_jobs is not None and self.most_jobs > self.max_jobs:
            raise ValueError(f"jobs: is {self.most_jobs}, but a user may have {self.max_jobs} (max_jobs)")
        if self.max_walltime is not None and seconds_of(self.walltime) > seconds_of(self.max_walltime):
            raise ValueError(f"walltime: is {self.walltime}, but the queue allows {self.max_walltime} (max_walltime)")
        if self.resources is not None and self.kind != "pbs":
            raise ValueError('resources: goes with kind = "pbs" only; for Slurm use directives')
        if self.resources is not None and not re.fullmatch(r"([^{}]|\{cpus\}|\{memory\})+", self.resources):
            raise ValueError(f'resources: is "{self.resources}"; in braces there may be {{cpus}} and {{memory}} only')
        if self.qos is not None and self.kind != "slurm":
            raise ValueError('qos: goes with kind = "slurm" only; for PBS use directives')
        return self

    @property
    def most_jobs(self) -> int:
        return self.jobs if isinstance(self.jobs, int) else self.jobs[1]


class NodeSection(Section):
    """A node, as the scheduler counts it. If cores or memory are missing, [worker] must give numbers."""

    cores: Annotated[int, Field(ge=1, le=4096)] | None = Field(None, description="physical cores")
    hardware_threads: Annotated[int, Field(ge=1, le=8)] = Field(
        1, description="CPUs that the scheduler counts per core"
    )
    memory: Gigabytes | None = Field(None, description="GB; memory that jobs may use")
    sockets: Few | None = Field(None, description="sockets (processors)")
    numa_domains: Few | None = Field(None, description="NUMA domains")

    @model_validator(mode="after")
    def _whole(self) -> NodeSection:
        for name in ("sockets", "numa_domains"):
            parts = getattr(self, name)
            if parts is not None and self.cores is not None and self.cores % parts:
                raise ValueError(f"{name}: is {parts}, which does not divide the {self.cores} cores")
        return self


class WorkerSection(Section):
    """Worker processes on a node."""

    processes: Auto | Few = Field(
        "auto",
        description='worker processes on a node; "auto": one per core, fewer if there are few shots or little memory',
    )
    threads: Auto | Few = Field(
        "auto", description='OpenMP threads of each process; "auto": cores divided by processes'
    )
    memory: Auto | Gigabytes = Field("auto", description='GB; memory limit of a process; "auto": its share of the node')


class OpenMPSection(Section):
    """OpenMP in the kernels. OMP_NUM_THREADS follows from worker.threads."""

    places: Word | None = Field(None, description="OMP_PLACES")
    bind: Word | None = Field(None, description="OMP_PROC_BIND")
    variables: dict[Annotated[str, AfterValidator(_variable)], Line] = Field(
        {}, description="further environment variables of the workers"
    )
    strict: bool = Field(
        False, description="stop the run if threads or CPUs differ from this file, instead of a warning"
    )

    @model_validator(mode="after")
    def _threads_are_elsewhere(self) -> OpenMPSection:
        if "OMP_NUM_THREADS" in self.variables:
            raise ValueError("variables.OMP_NUM_THREADS: is worker.threads; set that")
        return self


class DevitoSection(Section):
    """Generation and compilation of the kernels."""

    language: Literal["auto", "openmp", "C"] = Field(
        "auto",
        description='DEVITO_LANGUAGE; "auto": C if every worker process has one thread (OpenMP would cost a fifth of the time '
        "of a small shot), openmp otherwise",
    )
    arch: Word | None = Field(
        None,
        description="DEVITO_ARCH, the compiler: gcc, clang, icx, cray, ...; default: the first one found of gcc, clang, icx",
    )
    platform: Word | None = Field(None, description="DEVITO_PLATFORM; default: what Devito detects")
    autotuning: Literal["off", "basic", "aggressive", "max"] = Field(
        "off", description="DEVITO_AUTOTUNING, the search for block sizes"
    )
    target: Word | None = Field(
        None,
        description="instruction set of the compute nodes (znver3, sapphirerapids, x86-64-v3, ...), for kernels that are "
        "compiled on a login node with another processor; default: that of the machine that compiles",
    )


class EnvironmentSection(Section):
    """Commands of a worker job before its worker starts."""

    modules: tuple[Word, ...] = Field((), description="modules to load")
    commands: tuple[Line, ...] = Field(
        (), description="shell commands, after the modules; the node replaces variables in them"
    )
    python: Line | None = Field(
        None, description="command that starts a Python with hpcfwi on the nodes; default: the driver's own Python"
    )


class FilesystemSection(Section):
    """Folders."""

    runs: Line | None = Field(
        None, description="folder for run folders; all nodes must see it; default: `runs` in the current folder"
    )
    scratch: Line | None = Field(
        None,
        description="local folder of a node for temporary files and the JIT cache (TMPDIR); the node replaces variables in it; "
        "default: the node's TMPDIR, else /tmp",
    )


class NetworkSection(Section):
    """Connections between driver and workers."""

    interface: Word | None = Field(
        None, description="network interface of the driver; default: the one that leads to the nodes"
    )
    worker_interface: Word | None = Field(None, description="network interface of the workers; default: the same")
    ports: Annotated[str, AfterValidator(_ports)] | None = Field(
        None, description="first:last port to use; default: any free port"
    )
    tls: bool = Field(
        True, description="encrypt connections between machines, and reject those without the run's certificate"
    )
    dashboard: Annotated[str, AfterValidator(_listening)] = Field(
        "127.0.0.1:8787",
        description="address:port of Dask's dashboard (or another free port), or off; it has no password, so "
        "by default only the driver's host can reach it",
    )


class SiteConfig(Section):
    """A whole site file."""

    description: Line = Field("", description="the machine, in one line")
    source: Line = Field("", description="sources of the facts in this file")
    read: Line = Field("", description="date on which the sources were read")
    tried: bool = Field(True, description="hpcfwi was tried on this machine")
    scheduler: SchedulerSection = SchedulerSection()
    node: NodeSection = NodeSection()
    worker: WorkerSection = WorkerSection()
    openmp: OpenMPSection = OpenMPSection()
    devito: DevitoSection = DevitoSection()
    environment: EnvironmentSection = EnvironmentSection()
    filesystem: FilesystemSection = FilesystemSection()
    network: NetworkSection = NetworkSection()

    @model_validator(mode="after")
    def _fits(self) -> SiteConfig:
        processes, threads = self.worker.processes, self.worker.threads
        if self.node.cores is not None and isinstance(processes, int) and isinstance(threads, int):
            taken = processes * threads
            if taken > self.node.cores:
                raise ValueError(
                    f"worker.processes: {processes} processes of {threads} threads need {taken} cores, a node has "
                    f"{self.node.cores} (node.cores)"
                )
        if self.node.memory is not None and isinstance(self.worker.memory, float):
            fewest = processes if isinstance(processes, int) else 1
            memory = fewest * self.worker.memory
            if memory > self.node.memory:
                raise ValueError(
                    f"worker.memory: {'1 process' if fewest == 1 else f'{fewest} processes'} of {self.worker.memory:g} GB: "
                    f"{memory:g} GB, a node has {self.node.memory:g} (node.memory)"
                )
        return self


@dataclass(frozen=True)
class Site:
    """A site's configuration and where it is from.

    Parameters
    ----------
    name
        Name, or path of the file.
    config
        What the file says, with ``--set`` laid over it.
    path
        The file; None where there is none.
    changed
        Keys that ``--set`` gave.
    """

    name: str = "workstation"
    config: SiteConfig = field(default_factory=SiteConfig)
    path: Path | None = None
    changed: frozenset[str] = frozenset()

    def where(self, key: str) -> str:
        """Where a key has its value from, for messages: file, line and content."""
        if key in self.changed:
            return f"--set site.{key}"
        found = line_of(self.path, key) if self.path is not None else None
        if found is None:
            return f"{key} (not set in {self.path or self.name})"
        return f"{self.path}, line {found[0]}: {found[1]}"


def _folders() -> list[Path]:
    own = os.environ.get("HPCFWI_SITES")
    return [*([expand(own)] if own else []), expand("~/.config/hpcfwi/sites"), shipped("site-configs")]


def known_sites() -> dict[str, Path]:
    """Files of all sites that can be named, by name; those of the user come before those of the package."""
    found: dict[str, Path] = {}
    for folder in _folders():
        if os.access(folder, os.R_OK):
            for path in sorted(folder.glob("*.toml")):
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def find_site(name: str) -> Path:
    """Find a site by its name or path.

    Raises
    ------
    InputError
        With the names that there are.
    """
    if "/" in name or name.endswith(".toml"):
        return expand(name)
    for folder in _folders():
        if os.access(folder / f"{name}.toml", os.R_OK):
            return folder / f"{name}.toml"
    raise InputError(
        f"--site {name}: there is no such site; there are {', '.join(known_sites())}, or give the path of a file"
    )


def load_site(name: str = "workstation", settings: Iterable[str] = ()) -> Site:
    """Read a site file, lay settings over it, replace variables and check it.

    Parameters
    ----------
    name
        Name or path of the site.
    settings
        ``section.key=value``, as after ``--set site.``.

    Raises
    ------
    InputError
        If there is no such site, or it is wrong, or a variable in it is not set.
    """
    path = find_site(name)
    changes = [parse_setting(setting) for setting in settings]
    content: dict[str, Any] = apply_settings(read_toml(path, "site configuration"), changes)
    where = f"{path} with --set" if changes else str(path)
    config = validate(SiteConfig, expand_variables(content, where, LATER), where)
    return Site(name, config, path, frozenset(".".join(keys) for keys, _ in changes))
