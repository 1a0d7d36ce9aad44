"""The environment of worker processes: variables for OpenMP, Devito and Dask, and the shell lines that set them."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hpcfwi.solver.devito_internals import INSTRUCTION_SET

if TYPE_CHECKING:  # Dask's import takes longer than a command, and workers do without pydantic
    from distributed.security import Security

    from hpcfwi.cluster.layout import Layout
    from hpcfwi.config.site import SiteConfig

# Variables that a job sets for its worker processes: how many there are on the node, the OpenMP threads of each, and the time
# (s since 1970) at which the job script started.
PROCESSES_VARIABLE, THREADS_VARIABLE = "HPCFWI_PROCESSES", "HPCFWI_THREADS"
JOB_STARTED_VARIABLE = "HPCFWI_JOB_BEGAN"
# A worker that finds no scheduler ends after this time, and its job with it.
DEATH_TIMEOUT_S = 45
# Dask reads its configuration from variables with this prefix.
DASK_PREFIX = "DASK_"
LOG_LEVEL = "DASK_LOGGING__DISTRIBUTED"
BLAS_THREADS = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Dask's workers must not spill, since kernels hold nearly all memory, nor pause, since nothing would wake them up.
WORKER_SETTINGS = {f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")}


def worker_environment(threads: int, site: SiteConfig | None = None) -> dict[str, str]:
    """Return the variables of a worker process whose shots have so many OpenMP threads.

    ``openmp.variables`` are left out: they may refer to variables of the node, which only its shell knows.
    """
    chosen = {
        **_devito(site, threads),
        "OMP_NUM_THREADS": str(threads),
        **dict.fromkeys(BLAS_THREADS, "1"),
        LOG_LEVEL: os.environ.get(LOG_LEVEL, "critical"),
    }
    if site is not None and site.openmp.places is not None:
        chosen["OMP_PLACES"] = site.openmp.places
    if site is not None and site.openmp.bind is not None:
        chosen["OMP_PROC_BIND"] = site.openmp.bind
    return chosen


def apply_environment(site: SiteConfig | None = None, threads: int | None = None) -> None:
    """Make this process generate the same code as its workers; call this before Devito is imported.

    Workers that start later inherit these variables, so all generate the same code, whatever their number of threads.

    Parameters
    ----------
    site
        The site; by default one that leaves every choice to hpcfwi.
    threads
        The most OpenMP threads of a worker; None if this process runs the kernels itself, on all its cores.
    """
    silence_dask()
    os.environ.update(_devito(site, threads))


def silence_dask() -> None:
    """Let Dask log critical messages only, here and in worker processes, unless the user has set another level."""
    level = os.environ.setdefault(LOG_LEVEL, "critical")
    if "distributed" in sys.modules:  # which has read the variable already
        logging.getLogger("distributed").setLevel(int(level) if level.isdigit() else level.upper())


def quiet_libraries(verbose: bool) -> None:
    """Set the log levels of Dask and Devito, here and in worker processes; call this before they are imported."""
    os.environ["DEVITO_LOGGING"] = "INFO" if verbose else "ERROR"
    os.environ[LOG_LEVEL] = "info" if verbose else "critical"


@contextmanager
def restore_environment() -> Iterator[None]:
    """Restore all variables at the end: hpcfwi sets some, and Dask's nannies set those of their workers here, too."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _devito(site: SiteConfig | None, threads: int | None) -> dict[str, str]:
    """Return Devito's settings: those of the user's environment, then the site's."""
    if site is None:
        from hpcfwi.config.site import SiteConfig

        site = SiteConfig()
    section = site.devito
    language = section.language
    if language == "auto":
        language = "C" if threads == 1 else "openmp"
    chosen = {"DEVITO_LANGUAGE": language, "DEVITO_LOGGING": "ERROR"}
    # Devito's default is gcc, whether it is installed or not
    present = next((name for name in ("gcc", "clang", "icx") if shutil.which(name)), "gcc")
    if section.arch is not None or present != "gcc":
        chosen["DEVITO_ARCH"] = section.arch or present
    if section.platform is not None:
        chosen["DEVITO_PLATFORM"] = section.platform
    if section.autotuning != "off":
        chosen["DEVITO_AUTOTUNING"] = section.autotuning
    if section.target is not None:
        chosen[INSTRUCTION_SET] = section.target
    return {**chosen, **{k: v for k, v in os.environ.items() if k.startswith("DEVITO_")}}


def worker_arguments(site: SiteConfig, preload: tuple[str, ...]) -> list[str]:
    """Return the options of ``dask worker`` that do not depend on how it is started."""
    arguments = ["--no-dashboard", *(word for module in preload for word in ("--preload", module))]
    if site.network.ports is not None:
        arguments += ["--worker-port", site.network.ports, "--nanny-port", site.network.ports]
    return arguments


def script_lines(site: SiteConfig, layout: Layout, security: Security | None) -> list[str]:
    """Return the shell lines that prepare a node for its workers: modules, the site's commands, and variables."""
    lines = [f"export {JOB_STARTED_VARIABLE}=$(date +%s.%N)"]
    lines += [
        f'module load {module} || {{ echo "hpcfwi: module load {module} fails on $(hostname)" >&2; exit 1; }}'
        for module in site.environment.modules
    ]
    lines += site.environment.commands
    variables = worker_environment(layout.threads, site) | _dask_variables(security)
    variables["PYTHONFAULTHANDLER"] = "1"  # the log of the job shows where a worker crashed
    variables |= {PROCESSES_VARIABLE: str(layout.processes), THREADS_VARIABLE: str(layout.threads)}
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    # these may refer to variables of the node
    lines += [f"export {name}={_double_quoted(value)}" for name, value in site.openmp.variables.items()]
    if site.filesystem.scratch is not None:
        lines.append(f"export TMPDIR={_double_quoted(site.filesystem.scratch)}")
    lines.append('export TMPDIR="${TMPDIR:-/tmp}" && mkdir -p "$TMPDIR"')
    return lines


def _dask_variables(security: Security | None) -> dict[str, str]:
    settings: dict[str, object] = dict(WORKER_SETTINGS)
    if security is not None:
        files = security.get_tls_config_for_role("worker")
        # not as options of the command line, where paths with blanks would fall apart
        settings["distributed.comm.require-encryption"] = True
        settings["distributed.comm.tls.ca-file"] = files["ca_file"]
        settings["distributed.comm.tls.worker.cert"] = files["cert"]
        settings["distributed.comm.tls.worker.key"] = files["key"]
    return {
        DASK_PREFIX + name.upper().replace(".", "__").replace("-", "_"): str(value) for name, value in settings.items()
    }


def _double_quoted(value: str) -> str:
    """Quote a value for a shell so that only variables keep their meaning."""
    return '"' + re.sub(r'(["\\`]|\$(?=\())', r"\\\1", value) + '"'
