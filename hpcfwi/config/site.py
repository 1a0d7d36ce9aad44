"""``site-configs/NAME.toml``: where it runs. Every key with its unit, default and limits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from hpcfwi.config.messages import Section, validate
from hpcfwi.config.parsing import apply_settings, expand, expand_variables, find_line, parse_setting, read_toml
from hpcfwi.errors import InputError
from hpcfwi.io import packaged_folder

__all__ = [
    "EXPANDED_ON_NODE",
    "LAUNCH_MODES",
    "LaunchOptions",
    "Site",
    "SiteConfig",
    "find_site",
    "known_sites",
    "load_site",
    "walltime_seconds",
]

Auto = Literal["auto"]
# What ends a line, or tells a terminal something; a tab does not.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
# Variables in these are for the node on which a worker starts, and are left to its shell.
EXPANDED_ON_NODE = ("environment.commands", "filesystem.scratch", "openmp.variables")


def walltime_seconds(walltime: str) -> int:
    """Seconds of ``hours:minutes:seconds``."""
    hours, minutes, seconds = map(int, walltime.split(":"))
    return 3600 * hours + 60 * minutes + seconds


def _walltime(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,4}:[0-5][0-9]:[0-5][0-9]", text) or walltime_seconds(text) < 60:
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

    kind: Literal["none", "slurm", "pbs"] = Field("none", description="which one")
    queue: Word | None = Field(None, description="Slurm's partition, PBS's queue; default: the scheduler's own")
    account: Word | None = Field(None, description="account or project that pays; default: the scheduler's own")
    qos: Word | None = Field(None, description="Slurm's quality of service; default: the scheduler's own")
    walltime: Walltime = Field("01:00:00", description="hours:minutes:seconds that a worker job asks for")
    directives: tuple[Line, ...] = Field((), description="further lines, as they stand after #SBATCH or #PBS")
    resources: Word | None = Field(
        None,
        description="PBS's resources of a worker job, with {cpus} and {memory} in it; "
        "default: `select=1:ncpus={cpus}:mem={memory}`",
    )
    request_memory: bool = Field(
        True, description="whether a worker job asks for memory; some machines give whole nodes and refuse to be asked"
    )
    jobs: Jobs | tuple[Jobs, Jobs] = Field(
        1, description="worker jobs, one node each; or [least, most]: as many as there is work for"
    )
    replacements: Annotated[int, Field(ge=0, le=10_000)] = Field(
        10, description="worker jobs an hour, at most, that are submitted in place of others that have ended"
    )
    submit_from_compute: bool = Field(True, description="whether jobs may be submitted from within a job")
    max_walltime: Walltime | None = Field(None, description="hours:minutes:seconds that the queue allows")
    max_jobs: Jobs | None = Field(None, description="jobs that a user may have at a time")

    @model_validator(mode="after")
    def _consistent(self) -> SchedulerSection:
        if isinstance(self.jobs, tuple) and self.jobs[0] > self.jobs[1]:
            raise ValueError(f"jobs: is {list(self.jobs)}; the first number should not be larger than the second")
        if self.max_jobs is not None and self.job_limit > self.max_jobs:
            raise ValueError(f"jobs: is {self.job_limit}, but a user may have {self.max_jobs} (max_jobs)")
        if self.max_walltime is not None and walltime_seconds(self.walltime) > walltime_seconds(self.max_walltime):
            raise ValueError(f"walltime: is {self.walltime}, but the queue allows {self.max_walltime} (max_walltime)")
        if self.resources is not None and self.kind != "pbs":
            raise ValueError('resources: goes with kind = "pbs" only; for Slurm use directives')
        if self.resources is not None and not re.fullmatch(r"([^{}]|\{cpus\}|\{memory\})+", self.resources):
            raise ValueError(f'resources: is "{self.resources}"; in braces there may be {{cpus}} and {{memory}} only')
        if self.qos is not None and self.kind != "slurm":
            raise ValueError('qos: goes with kind = "slurm" only; for PBS use directives')
        return self

    @property
    def job_limit(self) -> int:
        return self.jobs if isinstance(self.jobs, int) else self.jobs[1]


class NodeSection(Section):
    """A node as the scheduler gives it; what is left out is not known, and then worker has to say it."""

    cores: Annotated[int, Field(ge=1, le=4096)] | None = Field(None, description="physical cores")
    hardware_threads: Annotated[int, Field(ge=1, le=8)] = Field(
        1, description="CPUs that the scheduler counts for each core"
    )
    memory: Gigabytes | None = Field(None, description="GB; memory that jobs may have")
    sockets: Few | None = Field(None, description="processors")
    numa_domains: Few | None = Field(None, description="memory domains")

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
        description='worker processes on a node; "auto": one for each core, fewer where shots or memory are few',
    )
    threads: Auto | Few = Field(
        "auto", description='OpenMP threads of each process; "auto": the cores that the processes leave'
    )
    memory: Auto | Gigabytes = Field(
        "auto", description='GB; memory that a process may use; "auto": its share of the node'
    )


class OpenMPSection(Section):
    """OpenMP in the kernels; OMP_NUM_THREADS is worker.threads."""

    places: Word | None = Field(None, description="OMP_PLACES")
    bind: Word | None = Field(None, description="OMP_PROC_BIND")
    variables: dict[Annotated[str, AfterValidator(_variable)], Line] = Field(
        {}, description="further variables of the workers' environment"
    )
    strict: bool = Field(
        False, description="whether threads or cores that are not as promised stop the run instead of being a warning"
    )

    @model_validator(mode="after")
    def _threads_are_elsewhere(self) -> OpenMPSection:
        if "OMP_NUM_THREADS" in self.variables:
            raise ValueError("variables.OMP_NUM_THREADS: is worker.threads; set that")
        return self


class DevitoSection(Section):
    """How kernels are generated and compiled."""

    language: Literal["auto", "openmp", "C"] = Field(
        "auto",
        description="DEVITO_LANGUAGE; auto: C where every worker process has one thread, for which OpenMP costs a fifth of "
        "the time of a small shot, and openmp where one has more",
    )
    arch: Word | None = Field(
        None, description="DEVITO_ARCH, the compiler: gcc, clang, icx, cray, ...; default: the first of gcc, clang, icx"
    )
    platform: Word | None = Field(None, description="DEVITO_PLATFORM; default: what Devito finds")
    autotuning: Literal["off", "basic", "aggressive", "max"] = Field(
        "off", description="DEVITO_AUTOTUNING, the search for block sizes"
    )
    target: Word | None = Field(
        None,
        description="instruction set that kernels are compiled for (znver3, sapphirerapids, x86-64-v3, ...), so that those "
        "of a login node run on the compute nodes; default: that of the machine that compiles",
    )


class EnvironmentSection(Section):
    """What a worker job does before its worker starts."""

    modules: tuple[Word, ...] = Field((), description="modules to load")
    commands: tuple[Line, ...] = Field((), description="shell commands, after the modules; variables are the node's")
    python: Line | None = Field(
        None, description="Python with hpcfwi, as the workers start it; default: the driver's own"
    )


class FilesystemSection(Section):
    """Where files are."""

    runs: Line | None = Field(
        None, description="folder for run folders, which all nodes must see; default: `runs` in the current folder"
    )
    scratch: Line | None = Field(
        None,
        description="the nodes' own folder for temporary files and the JIT cache (TMPDIR); variables are the node's; default: "
        "the node's TMPDIR, else /tmp",
    )


class NetworkSection(Section):
    """How driver and workers reach each other."""

    interface: Word | None = Field(
        None, description="network interface of the scheduler in the driver; default: the one that leads to the nodes"
    )
    worker_interface: Word | None = Field(None, description="network interface of the workers; default: the same")
    ports: Annotated[str, AfterValidator(_ports)] | None = Field(
        None, description="first:last port that may be used; default: any that is free"
    )
    tls: bool = Field(True, description="whether what leaves a machine is encrypted, and strangers are refused")
    dashboard: Annotated[str, AfterValidator(_listening)] = Field(
        "127.0.0.1:8787",
        description="address:port of Dask's dashboard (any free port where that one is in use), or off; it has no password, "
        "so by default it can be reached from the driver's host only",
    )


class SiteConfig(Section):
    """A whole site file."""

    description: Line = Field("", description="one line that says what machine this is")
    source: Line = Field("", description="where its facts are from")
    read: Line = Field("", description="when they were read")
    tried: bool = Field(True, description="whether hpcfwi was tried there")
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
        found = find_line(self.path, key) if self.path is not None else None
        if found is None:
            return f"{key} (not set in {self.path or self.name})"
        return f"{self.path}, line {found[0]}: {found[1]}"


def _folders() -> list[Path]:
    own = os.environ.get("HPCFWI_SITES")
    return [*([expand(own)] if own else []), expand("~/.config/hpcfwi/sites"), packaged_folder("site-configs")]


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
    config = validate(SiteConfig, expand_variables(content, where, EXPANDED_ON_NODE), where)
    return Site(name, config, path, frozenset(".".join(keys) for keys, _ in changes))


LAUNCH_MODES = ("local", "jobs", "allocation")


@dataclass(frozen=True)
class LaunchOptions:
    """What the user says about the start of workers.

    Parameters
    ----------
    mode
        One of :data:`LAUNCH_MODES`; None: chosen by :func:`hpcfwi.cluster.pool.choose_launch_mode`.
    nodes
        Worker jobs, or nodes of the allocation; None: what the site or the allocation has.
    wait_minutes
        Minutes that may pass without a worker; None: any number.
    """

    mode: str | None = None
    nodes: int | None = None
    wait_minutes: float | None = None
