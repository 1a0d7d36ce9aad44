"""Job scripts: what a site file becomes in the words of dask-jobqueue."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed.core import Status
from distributed.security import Security

from hpcfwi.batch.base import SubmissionError, run_command
from hpcfwi.cluster.environment import JOB_STARTED_VARIABLE, PROCESSES_VARIABLE, THREADS_VARIABLE, worker_environment
from hpcfwi.cluster.jobqueue_internals import Job, PBSJob, SLURMJob, own_settings
from hpcfwi.cluster.layout import Layout
from hpcfwi.config.site import Site, SiteConfig

__all__ = ["DEATH_TIMEOUT", "JOB_CLASSES", "JobPlace", "WorkerJob", "job_options", "job_script", "worker_script"]

# Seconds after which a worker that finds no scheduler ends, and its job with it.
DEATH_TIMEOUT = 45
# dask-jobqueue rounds a worker's memory to a hundredth of 2^30 bytes, up or down: we round it down.
GRAIN = -(-(2**30) // 100)
# Names of jobs are at most this long in some versions of PBS.
LONGEST_NAME = 15
DEFAULT_RESOURCES = "select=1:ncpus={cpus}:mem={memory}"


class SubmissionRejected(RuntimeError):
    """The scheduler has not taken a command."""

    def __init__(self, refusal: SubmissionError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class WorkerJob(Job):
    """What both kinds of worker job have in common: a refusal is remembered, and keys travel in the environment.

    Attributes
    ----------
    refusal
        Why the scheduler has not taken the job; None where it has.
    """

    def __init__(
        self,
        *args: Any,
        scripts: Path,
        on_submission: Callable[[str, str], None] = lambda *_: None,
        avoid: Collection[str] = (),
        security: Security | None = None,
        **options: Any,
    ) -> None:
        # not on the worker's command line, where paths with blanks would fall apart: see job_options()
        del security
        super().__init__(*args, **options)
        self.scripts, self.on_submission, self.avoid = scripts, on_submission, avoid
        self.refusal: SubmissionError | None = None

    @staticmethod
    async def _call(cmd: Sequence[str], *, shell: bool = False, **kwargs: Any) -> str:
        """Call a scheduler's command without the variables of the job that we may be in."""
        del shell, kwargs
        code, out, err = await run_command(*cmd)
        if code:
            raise SubmissionRejected(SubmissionError(shlex.join(cmd), code, err or out))
        return out

    async def start(self) -> None:
        try:
            await super().start()
        except SubmissionRejected as error:
            self.refusal = error.refusal
        except (OSError, ValueError) as error:
            self.refusal = SubmissionError(str(self.submit_command), 1, str(error))
        else:
            self.on_submission(str(self.name), str(self.job_id))
        # whoever looks after the cluster finds the refusal; to Dask it is a job without a worker
        self.status = Status.running

    async def close(self) -> None:
        await super().close()
        self.status = Status.closed

    @contextmanager
    def job_file(self) -> Iterator[str]:
        """Write the script to the folder of logs, where a user can read it and submit it again."""
        path = self.scripts / f"{self.name}.sh"
        path.write_text(self.job_script())
        yield str(path)


class SlurmWorkerJob(WorkerJob, SLURMJob):
    """A worker job of Slurm, which is not to be on nodes that have failed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.avoid:
            self.job_header += f"\n#SBATCH --exclude={','.join(sorted(self.avoid))}"


class PBSWorkerJob(WorkerJob, PBSJob):
    """A worker job of PBS."""


JOB_CLASSES: dict[str, type[WorkerJob]] = {"slurm": SlurmWorkerJob, "pbs": PBSWorkerJob}


@dataclass(frozen=True)
class JobPlace:
    """Where the files of worker jobs are.

    Parameters
    ----------
    name
        What the jobs are called.
    logs
        Folder for their output; all nodes see it.
    security
        Keys, as files that all nodes see; None: nothing is encrypted.
    preload
        Modules that each worker process imports when it starts.
    """

    name: str
    logs: Path
    security: Security | None = None
    preload: tuple[str, ...] = ()


def job_options(site: Site, layout: Layout, place: JobPlace) -> dict[str, Any]:
    """Keywords of dask-jobqueue's cluster for the worker jobs of a site."""
    config = site.config
    interface = config.network.worker_interface or config.network.interface
    common = {
        # dask-jobqueue gives a worker cores / processes Dask threads: we want one, the others are OpenMP's
        "cores": layout.processes,
        "processes": layout.processes,
        "memory": f"{layout.processes * (layout.memory // GRAIN) * GRAIN} B",
        "queue": config.scheduler.queue,
        "account": config.scheduler.account or "",
        "walltime": config.scheduler.walltime,
        "job_name": job_name(place.name),
        "python": config.environment.python or shlex.quote(sys.executable),
        "death_timeout": DEATH_TIMEOUT,
        "local_directory": '"$TMPDIR"',
        "log_directory": None,
        # `module` is a function of login shells
        "shebang": "#!/bin/bash -l" if config.environment.modules else "#!/bin/bash",
        "worker_extra_args": _worker_arguments(config, place.preload),
        "job_script_prologue": [*_own_log(config, place.logs), *_prologue(config, layout, place.security)],
        "job_directives_skip": [
            *([] if config.scheduler.request_memory else ["--mem="]),
            # dask-jobqueue would take PBS_ACCOUNT from the environment instead
            *([] if config.scheduler.account else [" -A "]),
        ],
        "scripts": place.logs,
        "interface": interface,
        "protocol": "tls://" if place.security else "tcp://",
    }
    return common | (_pbs if config.scheduler.kind == "pbs" else _slurm)(config, layout, place.logs)


def job_name(name: str) -> str:
    """A name that every scheduler takes."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"hpcfwi-{name}")[:LONGEST_NAME]


def worker_script(
    site: Site,
    layout: Layout,
    security: Security | None,
    preload: tuple[str, ...],
    scheduler: str,
    name: str,
    log: Path,
) -> str:
    """A script that starts the workers of one node of an allocation: the middle and the end of a job script."""
    options = job_options(site, layout, JobPlace("", Path(), security, preload))
    words = [
        f"exec {options['python']} -m distributed.cli.dask_worker {scheduler} --name {name} --nthreads 1",
        f"--memory-limit {layout.memory} --nworkers {layout.processes} --nanny --death-timeout {DEATH_TIMEOUT}",
        f"--local-directory {options['local_directory']} --protocol {options['protocol']}",
        *options["worker_extra_args"],
        *(["--interface", options["interface"]] if options["interface"] else []),
    ]
    own_log = f"exec >>{shlex.quote(str(log))} 2>&1"  # not all that starts it brings its output back
    return "\n".join([options["shebang"], own_log, *_prologue(site.config, layout, security), " ".join(words), ""])


def job_script(site: Site, layout: Layout, place: JobPlace, scheduler: str = "") -> str:
    """The script of a worker job, to the letter but for the scheduler's address and the worker's number."""
    options = job_options(site, layout, place)
    address = scheduler or f"{options['protocol']}DRIVER:PORT"
    with own_settings():
        return JOB_CLASSES[site.config.scheduler.kind](address, name="hpcfwi-0", **options).job_script()


def cpus(config: SiteConfig, layout: Layout) -> int:
    """CPUs of a worker job, as the scheduler counts them."""
    return layout.cores * config.node.hardware_threads


def _megabytes(layout: Layout) -> int:
    """Memory of a worker job, in units of 2^20 bytes, which all schedulers mean by a megabyte; never more than was said."""
    return math.floor(layout.processes * layout.memory / 2**20)


def _slurm(config: SiteConfig, layout: Layout, logs: Path) -> dict[str, Any]:
    qos = [f"--qos={config.scheduler.qos}"] if config.scheduler.qos else []
    return {
        "job_cpu": cpus(config, layout),
        "job_mem": f"{_megabytes(layout)}M",
        "job_extra_directives": [
            "--nodes=1",
            *qos,
            f'--output="{str(logs).replace("%", "%%")}/%j.log"',
            # ended jobs are replaced by us: a requeued one would meet its own successor
            "--no-requeue",
            *config.scheduler.directives,
        ],
    }


def _pbs(config: SiteConfig, layout: Layout, logs: Path) -> dict[str, Any]:
    default = DEFAULT_RESOURCES if config.scheduler.request_memory else DEFAULT_RESOURCES.removesuffix(":mem={memory}")
    pattern = config.scheduler.resources or default
    resources = pattern.format(cpus=cpus(config, layout), memory=f"{_megabytes(layout)}mb")
    return {
        "resource_spec": resources,
        "job_extra_directives": ["-j oe", f'-o "{logs}/"', "-r n", *config.scheduler.directives],
    }


def _own_log(config: SiteConfig, logs: Path) -> list[str]:
    """PBS brings a job's output when the job has ended, and not always: it goes where it belongs by itself."""
    if config.scheduler.kind != "pbs":
        return []
    return [f'exec >>{shlex.quote(str(logs))}/"${{PBS_JOBID%%.*}}".log 2>&1']


def _worker_arguments(config: SiteConfig, preload: tuple[str, ...]) -> list[str]:
    arguments = ["--no-dashboard", *(word for module in preload for word in ("--preload", module))]
    if config.network.ports is not None:
        arguments += ["--worker-port", config.network.ports, "--nanny-port", config.network.ports]
    return arguments


def _prologue(config: SiteConfig, layout: Layout, security: Security | None) -> list[str]:
    """Lines before the worker: modules, the site's commands, and the environment."""
    section = config.environment
    lines = [f"export {JOB_STARTED_VARIABLE}=$(date +%s.%N)"]
    lines += [
        f'module load {module} || {{ echo "hpcfwi: module load {module} fails on $(hostname)" >&2; exit 1; }}'
        for module in section.modules
    ]
    lines += section.commands
    chosen = worker_environment(layout.threads, config) | _dask_environment(security)
    chosen["PYTHONFAULTHANDLER"] = "1"  # where a worker died is in the job's output
    chosen |= {PROCESSES_VARIABLE: str(layout.processes), THREADS_VARIABLE: str(layout.threads)}
    lines += [f"export {name}={shlex.quote(value)}" for name, value in chosen.items()]
    # in double quotes, since these may name the node's own variables
    lines += [f"export {name}={_quoted(value)}" for name, value in config.openmp.variables.items()]
    if config.filesystem.scratch is not None:
        lines.append(f"export TMPDIR={_quoted(config.filesystem.scratch)}")
    lines.append('export TMPDIR="${TMPDIR:-/tmp}" && mkdir -p "$TMPDIR"')
    return lines


def _dask_environment(security: Security | None) -> dict[str, str]:
    """Dask's own way to set its configuration by variables."""
    memory = "DASK_DISTRIBUTED__WORKER__MEMORY__"
    chosen = {
        # nothing of ours can be spilled, and what a paused worker waits for would never come
        **{f"{memory}{name}": "False" for name in ("TARGET", "SPILL", "PAUSE")},
    }
    if security is not None:
        tls = "DASK_DISTRIBUTED__COMM__TLS__"
        told = security.get_tls_config_for_role("worker")
        chosen |= {
            "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
            f"{tls}CA_FILE": told["ca_file"],
            f"{tls}WORKER__CERT": told["cert"],
            f"{tls}WORKER__KEY": told["key"],
        }
    return chosen


def _quoted(value: str) -> str:
    """In double quotes, where only variables keep their meaning."""
    return '"' + re.sub(r'(["\\`]|\$(?=\())', r"\\\1", value) + '"'
