"""``site-configs/NAME.toml``: where to run. Every key with its unit, default and limits."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from hpcfwi.config.messages import Section, validate
from hpcfwi.config.parsing import apply_settings, expand_home, expand_variables, find_line, parse_setting, read_toml
from hpcfwi.errors import InputError
from hpcfwi.io import packaged_folder

LAUNCH_MODES = ("local", "jobs", "allocation")
# Keys whose variables the shell of the worker's node expands.
EXPANDED_ON_NODE = ("environment.commands", "filesystem.scratch", "openmp.variables")


def _matching(pattern: str, form: str, accept: Callable[[re.Match[str]], bool] = bool) -> AfterValidator:
    """A validator of text that matches the whole pattern; ``form`` describes it in messages."""

    def check(text: str) -> str:
        match = re.fullmatch(pattern, text)
        if match is None or not accept(match):
            raise ValueError(f"is {json.dumps(text, ensure_ascii=False)}; it should be {form}")
        return text

    return AfterValidator(check)


# Characters that end a line or control a terminal, but not the tab.
CONTROL = r"\x00-\x08\x0a-\x1f\x7f-\x9f"
WALLTIME, WALLTIME_FORM = (
    r"(?!0+:00)[0-9]{1,4}(:[0-5][0-9]){2}",
    'hours:minutes:seconds, a minute or more, for example "12:00:00"',
)
PORTS, PORTS_FORM = r"([0-9]{1,5}):([0-9]{1,5})", 'first:last between 1024 and 65535, for example "9000:9100"'
ADDRESS, ADDRESS_FORM = r"off|[A-Za-z0-9.-]+:([0-9]{1,5})", 'address:port, for example "127.0.0.1:8787", or "off"'
Auto = Literal["auto"]
Line = Annotated[str, _matching(rf"[^{CONTROL}]*", "one line")]
Word = Annotated[str, _matching(rf"[^\s{CONTROL}]+", "one word")]
Variable = Annotated[str, _matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of a variable")]
Walltime = Annotated[str, _matching(WALLTIME, WALLTIME_FORM)]
Ports = Annotated[str, _matching(PORTS, PORTS_FORM, lambda ports: 1024 <= int(ports[1]) < int(ports[2]) <= 65535)]
Address = Annotated[str, _matching(ADDRESS, ADDRESS_FORM, lambda address: int(address[1] or 0) <= 65535)]
PerNode = Annotated[int, Field(ge=1, le=1024)]
Jobs = Annotated[int, Field(ge=1, le=100_000)]
Gigabytes = Annotated[float, Field(gt=0, le=1e6)]


class SchedulerSection(Section):
    """The batch system and its worker jobs."""

    kind: Word = Field("none", description="the batch system: none, slurm, pbs, or one that an installed package adds")
    queue: Word | None = Field(None, description="partition (Slurm) or queue (PBS); default: the batch system's own")
    account: Word | None = Field(None, description="account or project to charge; default: the batch system's own")
    qos: Word | None = Field(None, description="Slurm's quality of service; default: the batch system's own")
    walltime: Walltime = Field("01:00:00", description="hours:minutes:seconds; time limit of a worker job")
    directives: tuple[Line, ...] = Field((), description="further options, as they stand after #SBATCH or #PBS")
    resources: Word | None = Field(None, description="PBS resources; default: `select=1:ncpus={cpus}:mem={memory}`")
    request_memory: bool = Field(True, description="whether worker jobs request memory, which some systems refuse")
    jobs: Jobs | tuple[Jobs, Jobs] = Field(1, description="worker jobs, one node each; or [least, most], as shots need")
    replacements: int = Field(
        10, ge=0, le=10_000, description="limit of ended worker jobs that are replaced in an hour"
    )
    submit_from_compute: bool = Field(True, description="whether a job may submit jobs")
    max_walltime: Walltime | None = Field(None, description="hours:minutes:seconds; limit of the queue")
    max_jobs: Jobs | None = Field(None, description="number of jobs that a user may have at a time")

    @model_validator(mode="after")
    def _consistent(self) -> SchedulerSection:
        if isinstance(self.jobs, tuple) and self.jobs[0] > self.jobs[1]:
            raise ValueError(f"jobs: is {list(self.jobs)}; the first number should not be larger than the second")
        if self.max_jobs is not None and self.job_limit > self.max_jobs:
            raise ValueError(f"jobs: is {self.job_limit}, but a user may have {self.max_jobs} (max_jobs)")
        # with four digits for the hours, texts have the order of their times
        if self.max_walltime is not None and self.walltime.zfill(10) > self.max_walltime.zfill(10):
            raise ValueError(f"walltime: is {self.walltime}, but the queue allows {self.max_walltime} (max_walltime)")
        if self.resources is not None and not re.fullmatch(r"([^{}]|\{cpus\}|\{memory\})+", self.resources):
            raise ValueError(f'resources: is "{self.resources}"; the only placeholders are {{cpus}} and {{memory}}')
        return self

    @property
    def job_limit(self) -> int:
        """Largest number of worker jobs."""
        return self.jobs if isinstance(self.jobs, int) else self.jobs[1]

    def job_count(self, shots: int, processes: int) -> int:
        """Number of worker jobs, of so many processes each, for this many shots."""
        least, most = (self.jobs, self.jobs) if isinstance(self.jobs, int) else self.jobs
        return min(most, max(least, -(-shots // processes)))


class NodeSection(Section):
    """A compute node; without cores or memory, [worker] has to set processes, threads and memory."""

    cores: int | None = Field(None, ge=1, le=4096, description="physical cores")
    hardware_threads: int = Field(1, ge=1, le=8, description="CPUs that the batch system counts for each core")
    memory: Gigabytes | None = Field(None, description="GB; memory available to jobs")
    sockets: PerNode | None = Field(None, description="processors")
    numa_domains: PerNode | None = Field(None, description="memory domains")
    throughput: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        None,
        description="million grid points a second that all cores of a node compute together, with processes of one thread; "
        "`hpcfwi plan` in a job there prints it; it depends on the number of axes and the space order",
    )

    @model_validator(mode="after")
    def _divisible(self) -> NodeSection:
        for name in ("sockets", "numa_domains"):
            parts = getattr(self, name)
            if parts is not None and self.cores is not None and self.cores % parts:
                raise ValueError(f"{name}: is {parts}, which does not divide the {self.cores} cores")
        return self


class WorkerSection(Section):
    """Worker processes on a node."""

    processes: Auto | PerNode = Field(
        "auto", description='worker processes on a node; "auto": one for each core, fewer if shots or memory are few'
    )
    threads: Auto | PerNode = Field(
        "auto", description='OpenMP threads of each process; "auto": the cores of the node over its processes'
    )
    memory: Auto | Gigabytes = Field("auto", description='GB; memory of each process; "auto": its share of the node')


class OpenMPSection(Section):
    """OpenMP in the kernels; worker.threads sets OMP_NUM_THREADS."""

    places: Word | None = Field(None, description="OMP_PLACES")
    bind: Word | None = Field(None, description="OMP_PROC_BIND")
    variables: dict[Variable, Line] = Field({}, description="further environment variables of the workers")
    strict: bool = Field(False, description="whether wrong threads or cores stop the run instead of causing a warning")

    @model_validator(mode="after")
    def _no_threads(self) -> OpenMPSection:
        if "OMP_NUM_THREADS" in self.variables:
            raise ValueError("variables.OMP_NUM_THREADS: is set by worker.threads; use that key")
        return self


class DevitoSection(Section):
    """Generation and compilation of the kernels."""

    language: Literal["auto", "openmp", "C"] = Field(
        "auto",
        description='DEVITO_LANGUAGE; "auto": C if every worker process has one thread, where OpenMP costs a fifth of the time '
        "of a small shot, else openmp",
    )
    arch: Word | None = Field(None, description="DEVITO_ARCH, the compiler; default: the first of gcc, clang and icx")
    platform: Word | None = Field(None, description="DEVITO_PLATFORM; default: what Devito detects")
    autotuning: Literal["off", "basic", "aggressive", "max"] = Field(
        "off", description="DEVITO_AUTOTUNING, block sizes"
    )
    target: Word | None = Field(
        None, description="instruction set of the kernels (znver3, x86-64-v3, ...); default: the compiling machine's"
    )


class EnvironmentSection(Section):
    """What a worker job does before its worker starts."""

    modules: tuple[Word, ...] = Field((), description="modules to load")
    commands: tuple[Line, ...] = Field((), description="shell commands after the modules; the node expands variables")
    python: Line | None = Field(None, description="Python with hpcfwi for the workers; default: the driver's own")


class FilesystemSection(Section):
    """Folders."""

    runs: Line | None = Field(None, description="parent of run folders, visible to all nodes; default: `./runs`")
    scratch: Line | None = Field(
        None,
        description="folder on each node for temporary files; the node expands variables; default: its TMPDIR, else /tmp",
    )


class NetworkSection(Section):
    """Network between driver and workers."""

    interface: Word | None = Field(None, description="interface of the driver; default: that towards the nodes")
    worker_interface: Word | None = Field(None, description="interface of the workers; default: the same")
    ports: Ports | None = Field(None, description="first:last port to use; default: any free port")
    tls: bool = Field(True, description="whether connections between machines are encrypted and authenticated")
    dashboard: Address = Field(
        "127.0.0.1:8787",
        description="address:port of Dask's dashboard (if taken, another free port), or off; it has no password, so by default "
        "only the driver's host can reach it",
    )


class SiteConfig(Section):
    """A whole site file."""

    description: Line = Field("", description="the machine, in one line")
    source: Line = Field("", description="where its facts come from")
    read: Line = Field("", description="when they were read")
    tried: bool = Field(True, description="whether hpcfwi has run there")
    scheduler: SchedulerSection = SchedulerSection()
    node: NodeSection = NodeSection()
    worker: WorkerSection = WorkerSection()
    openmp: OpenMPSection = OpenMPSection()
    devito: DevitoSection = DevitoSection()
    environment: EnvironmentSection = EnvironmentSection()
    filesystem: FilesystemSection = FilesystemSection()
    network: NetworkSection = NetworkSection()

    @model_validator(mode="after")
    def _fits_node(self) -> SiteConfig:
        node, worker = self.node, self.worker
        processes = worker.processes if isinstance(worker.processes, int) else 1
        if node.cores is not None and isinstance(worker.processes, int) and isinstance(worker.threads, int):
            cores = processes * worker.threads
            if cores > node.cores:
                raise ValueError(
                    f"worker.processes: {processes} processes of {worker.threads} threads need {cores} cores, but a node has "
                    f"{node.cores} (node.cores)"
                )
        if node.memory is not None and isinstance(worker.memory, float) and processes * worker.memory > node.memory:
            counted = "1 process" if processes == 1 else f"{processes} processes"
            raise ValueError(
                f"worker.memory: {counted} of {worker.memory:g} GB need {processes * worker.memory:g} GB, but a node has "
                f"{node.memory:g} GB (node.memory)"
            )
        return self


@dataclass(frozen=True)
class Site:
    """A site's configuration and its origin.

    Parameters
    ----------
    name
        Name of the site, or absolute path of its file.
    config
        Content of the file, with ``--set`` applied.
    path
        The file; None without one.
    settings
        The settings, ``section.key=value``.
    """

    name: str = "workstation"
    config: SiteConfig = field(default_factory=SiteConfig)
    path: Path | None = None
    settings: tuple[str, ...] = ()

    @property
    def changed(self) -> frozenset[str]:
        """The keys that settings have changed."""
        return frozenset(".".join(parse_setting(setting)[0]) for setting in self.settings)

    @property
    def runs_folder(self) -> Path:
        """The parent of run folders."""
        return expand_home(self.config.filesystem.runs or "runs")

    def where(self, key: str) -> str:
        """File, line and content that set a key, for messages."""
        if key in self.changed:
            return f"--set site.{key}"
        line = find_line(self.path, key) if self.path is not None else None
        return f"{key} (not set in {self.path or self.name})" if line is None else f"{self.path}, line {line}"


@dataclass(frozen=True)
class LaunchOptions:
    """The user's options for starting workers.

    Parameters
    ----------
    mode
        One of :data:`LAUNCH_MODES`; None: :func:`hpcfwi.cluster.pool.choose_launch_mode` chooses.
    nodes
        Number of worker jobs, or of nodes in the allocation; None: as the site or the allocation has it.
    wait_minutes
        How long a run waits without a worker; None: jobs without limit, local workers 1, in an allocation 5.
    """

    mode: str | None = None
    nodes: int | None = None
    wait_minutes: float | None = None


def known_sites() -> dict[str, Path]:
    """Find all sites: in ``$HPCFWI_SITES``, ``~/.config/hpcfwi/sites``, and the package itself; the first of a name counts.

    Returns
    -------
    dict of str to Path
        The files by the names of the sites.
    """
    own = os.environ.get("HPCFWI_SITES")
    folders = [expand_home(own)] if own else []
    found: dict[str, Path] = {}
    for folder in [*folders, expand_home("~/.config/hpcfwi/sites"), packaged_folder("site-configs")]:
        if os.access(folder, os.R_OK):
            for path in folder.glob("*.toml"):
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def find_site(name: str) -> Path:
    """Find a site by its name or path; an unknown name raises InputError."""
    if "/" in name or name.endswith(".toml"):
        return expand_home(name)
    sites = known_sites()
    if name not in sites:
        raise InputError(f"{name}: no such site; the sites are {', '.join(sites)}, or give the path of a file")
    return sites[name]


def load_site(name: str = "workstation", settings: Iterable[str] = ()) -> Site:
    """Read a site file, apply settings, replace variables and check the result.

    Parameters
    ----------
    name
        Name or path of the site.
    settings
        ``section.key=value``, as after ``--set site.``.

    Returns
    -------
    Site

    Raises
    ------
    InputError
        If there is no such site, or its file has mistakes or needs a variable that is not set.
    """
    path, settings = find_site(name), tuple(settings)
    changes = [parse_setting(setting) for setting in settings]
    content: dict[str, Any] = apply_settings(read_toml(path, "site configuration"), changes)
    where = f"{path} with --set" if changes else str(path)
    config = validate(SiteConfig, expand_variables(content, where, EXPANDED_ON_NODE), where)
    return Site(name if name in known_sites() else str(path.absolute()), config, path, settings)
