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

if TYPE_CHECKING:  # importing Dask is slow, and workers do not need pydantic
    from distributed.security import Security

    from hpcfwi.cluster.layout import Layout
    from hpcfwi.config.site import SiteConfig

# Variables that a job sets for its worker processes: their number on the node, the OpenMP threads of each, and the start time
# of the job script (s since 1970).
PROCESSES_VARIABLE, THREADS_VARIABLE, JOB_STARTED_VARIABLE = "HPCFWI_PROCESSES", "HPCFWI_THREADS", "HPCFWI_JOB_STARTED"
DEATH_TIMEOUT_S = 45  # a worker without a scheduler ends after this time, and its job with it
LOG_LEVEL = "DASK_LOGGING__DISTRIBUTED"
# Dask's workers must not spill, since kernels hold nearly all memory, nor pause, since nothing would wake them up.
WORKER_SETTINGS = {f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")}


def worker_environment(threads: int, site: SiteConfig | None = None) -> dict[str, str]:
    """Return the variables of a worker process with this number of OpenMP threads.

    It does not contain ``openmp.variables``, which may refer to variables that only the node's shell knows.
    """
    chosen = _devito(site, threads) | {"OMP_NUM_THREADS": str(threads)}
    chosen |= {"MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", LOG_LEVEL: os.environ.get(LOG_LEVEL, "critical")}
    openmp = {"OMP_PLACES": site.openmp.places, "OMP_PROC_BIND": site.openmp.bind} if site is not None else {}
    return chosen | {name: value for name, value in openmp.items() if value is not None}


def apply_environment(site: SiteConfig | None = None, threads: int | None = None) -> None:
    """Make this process generate the same code as its workers; call this before Devito is imported.

    Workers that start later inherit these variables. ``threads`` is the largest number of OpenMP threads of a worker; None if
    this process runs the kernels itself, on all its cores.
    """
    silence_dask()
    os.environ.update(_devito(site, threads))


def silence_dask() -> None:
    """Let Dask log critical messages only, here and in worker processes, unless the user has set another level."""
    level = os.environ.setdefault(LOG_LEVEL, "critical")
    if "distributed" in sys.modules:  # it has already read the variable
        logging.getLogger("distributed").setLevel(int(level) if level.isdigit() else level.upper())


def quiet_libraries(verbose: bool) -> None:
    """Set the log levels of Dask and Devito, here and in worker processes; call this before they are imported."""
    os.environ["DEVITO_LOGGING"] = "INFO" if verbose else "ERROR"
    os.environ[LOG_LEVEL] = "info" if verbose else "critical"


@contextmanager
def restore_environment() -> Iterator[None]:
    """Restore all variables at the end: hpcfwi sets some, and so do Dask's nannies for their workers."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _devito(site: SiteConfig | None, threads: int | None) -> dict[str, str]:
    """Return Devito's settings; ``DEVITO_*`` variables of the user override the site's."""
    if site is None:
        from hpcfwi.config.site import SiteConfig

        site = SiteConfig()
    section = site.devito
    automatic = "C" if threads == 1 else "openmp"
    # Devito's default compiler is gcc, whether it is installed or not
    installed = next((name for name in ("gcc", "clang", "icx") if shutil.which(name)), "gcc")
    chosen = {
        "DEVITO_LANGUAGE": automatic if section.language == "auto" else section.language,
        "DEVITO_LOGGING": "ERROR",
        "DEVITO_ARCH": section.arch or (None if installed == "gcc" else installed),
        "DEVITO_PLATFORM": section.platform,
        "DEVITO_AUTOTUNING": None if section.autotuning == "off" else section.autotuning,
        INSTRUCTION_SET: section.target,
    }
    by_user = {name: value for name, value in os.environ.items() if name.startswith("DEVITO_")}
    return {name: value for name, value in chosen.items() if value is not None} | by_user


def worker_arguments(site: SiteConfig, preload: tuple[str, ...]) -> list[str]:
    """Return the options of ``dask worker`` that are the same for all launch modes."""
    arguments = ["--no-dashboard", *(word for module in preload for word in ("--preload", module))]
    if site.network.ports is not None:
        arguments += ["--worker-port", site.network.ports, "--nanny-port", site.network.ports]
    return arguments


def script_lines(site: SiteConfig, layout: Layout, security: Security | None) -> list[str]:
    """Return the shell lines that prepare a node for its workers: modules, the site's commands, and variables."""
    lines = [f"export {JOB_STARTED_VARIABLE}=$(date +%s.%N)"]
    for module in site.environment.modules:
        failed = f'echo "hpcfwi: module load {module} failed on $(hostname)" >&2'
        lines.append(f"module load {module} || {{ {failed}; exit 1; }}")
    lines += site.environment.commands
    variables = worker_environment(layout.threads, site) | _dask_variables(security)
    variables["PYTHONFAULTHANDLER"] = "1"  # the job's log then shows where a worker crashed
    variables["PYTHONSAFEPATH"] = "1"  # do not import another copy of hpcfwi from the current folder
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
        # not as command-line options, which would split paths at spaces
        names = {"ca-file": "ca_file", "worker.cert": "cert", "worker.key": "key"}
        settings |= {f"distributed.comm.tls.{name}": files[key] for name, key in names.items()}
        settings["distributed.comm.require-encryption"] = True
    # Dask reads its configuration from variables with such names
    return {f"DASK_{k.upper().replace('.', '__').replace('-', '_')}": str(value) for k, value in settings.items()}


def _double_quoted(value: str) -> str:
    """Quote a value for a shell so that only variables are expanded."""
    return '"' + re.sub(r'(["\\`]|\$(?=\())', r"\\\1", value) + '"'
