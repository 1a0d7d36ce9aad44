"""Facts about a host, for :mod:`hpcfwi.sitecheck.results` to judge; the driver collects them itself and, in tasks, on workers.

Kernels first run in a child process (``python -m hpcfwi.sitecheck.probe``), because they kill their process if, for example,
this processor lacks one of their instructions.
"""

from __future__ import annotations

import json
import mmap
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from hpcfwi.artifacts import StagedFile
from hpcfwi.io import format_ranges
from hpcfwi.version import __version__

if TYPE_CHECKING:  # imports Devito
    from hpcfwi.solver.operators import Propagator
    from hpcfwi.solver.spec import SolverSpec

# Driver and workers must have the same versions of these.
PACKAGES = ("cloudpickle", "dask", "devito", "distributed", "numpy")
# Kernels run at least this long, so that their threads can be observed; the child process may take this long.
MIN_RUN_S, CHILD_TIMEOUT_S = 0.3, 180.0
# Time steps of the shortest and the longest run of a kernel; rows of the grid for each thread.
MIN_STEPS, MAX_STEPS, ROWS_PER_THREAD = 20, 1000, 16
CGROUPS = Path("/sys/fs/cgroup")


def probe_host(threads: int, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return all facts about this host; kernels are tested with these threads and in this environment (default: this one)."""
    return {
        "host": socket.gethostname().partition(".")[0],
        "versions": versions(),
        "scratch": scratch(),
        "memory": memory_limits(),
        "kernels": try_kernels(threads, environment),
    }


def versions() -> dict[str, str]:
    """Return the versions that driver and workers must have in common."""
    found = {"hpcfwi": __version__, "python": platform.python_version()} | dict.fromkeys(PACKAGES, "none")
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def scratch() -> dict[str, Any]:
    """Return facts about the folder for temporary files, in which Devito compiles kernels and from which it loads them.

    These are ``requested`` (TMPDIR), ``folder`` (the one in use), ``free`` (bytes), ``executable`` (whether code can be loaded
    from it), and ``error``.
    """
    facts: dict[str, Any] = {"requested": os.environ.get("TMPDIR"), "error": ""}
    try:
        facts["folder"] = folder = tempfile.gettempdir()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(mmap.PAGESIZE))
            file.flush()
            try:
                mmap.mmap(file.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
                facts["executable"] = True
            except OSError:
                facts["executable"] = False
        facts["free"] = shutil.disk_usage(folder).free
    except OSError as error:
        facts["error"] = str(error)
    return facts


def memory_limits() -> dict[str, int]:
    """Return the memory of the ``machine`` and any limits of the ``job`` (cgroup) and of a ``process`` (ulimit), bytes."""
    found = {"machine": int(psutil.virtual_memory().total)}
    job = min(_cgroup_limits(), default=found["machine"])
    if job < found["machine"]:
        found["job"] = job
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    if finite := [limit for limit in limits if limit != resource.RLIM_INFINITY]:
        found["process"] = min(finite)
    return found


def _cgroup_limits() -> Iterator[int]:
    """Limits of this process's memory cgroup and its parents, in version 1 or 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = (CGROUPS / "memory", "memory.limit_in_bytes") if controllers else (CGROUPS, "memory.max")
        inner = top / path.lstrip("/")
        for folder in (inner, *inner.parents):
            with suppress(OSError):
                text = (folder / name).read_text().strip()
                if text.isdigit():
                    yield int(text)
            if folder == top:
                break


def try_kernels(threads: int, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Build and run kernels in a child process that has an empty JIT cache.

    The facts are ``error`` (empty without one), ``died`` (the signal that killed the process) and, up to the error,
    ``fingerprint``, ``build_seconds`` and those of :func:`run_staged`.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="hpcfwi-check-") as folder:
            done = subprocess.run(
                [sys.executable, "-m", "hpcfwi.sitecheck.probe", str(threads)],
                env={**(os.environ if environment is None else environment), "TMPDIR": folder},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CHILD_TIMEOUT_S,
                check=False,
            )
    except subprocess.TimeoutExpired:
        return {"error": f"no result within {CHILD_TIMEOUT_S:g} s"}
    except OSError as error:
        return {"error": str(error)}
    if done.returncode < 0:
        died = signal.Signals(-done.returncode).name
        return {"error": f"they kill their process ({died})", "died": died}
    try:
        facts = dict(json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    message = next((line for line in done.stderr.splitlines() if "error:" in line), "")  # of the compiler
    return facts | {"error": f"{facts['error']}: {message}"} if facts["error"] and message else facts


def _try_here(threads: int) -> dict[str, Any]:
    """Build and run kernels in this process; see :func:`try_kernels`."""
    from hpcfwi.solver.operators import Propagator, fingerprint

    facts: dict[str, Any] = {"error": "", "fingerprint": fingerprint()}
    if facts["fingerprint"].get("compiler") == "none":
        return facts
    try:
        started = time.perf_counter()
        propagator = Propagator(probe_spec(threads))
        propagator.forward.compile()
        facts["build_seconds"] = time.perf_counter() - started
        return facts | _run(propagator)
    except Exception as error:
        first_line = next(filter(None, map(str.strip, str(error).splitlines())), "")
        return facts | {"error": f"{type(error).__name__}: {first_line}".removesuffix(": ")}


def probe_spec(threads: int) -> SolverSpec:
    """Return the solver of the test: its grid is small, but large enough for these threads."""
    from hpcfwi.model.grid import Domain
    from hpcfwi.solver.boundary import Cpml
    from hpcfwi.solver.spec import SolverSpec

    points = max(201, ROWS_PER_THREAD * threads)
    domain = Domain((points, points), (10.0, 10.0), (0.0, 0.0))
    return SolverSpec(Cpml(domain, 10), 4, "float32", MAX_STEPS, MAX_STEPS - 1, 1)


def run_staged(staged: StagedFile, spec: SolverSpec) -> dict[str, Any]:
    """Load a staged solver as shots do, and run its forward kernel for a while.

    The facts are those of :func:`hpcfwi.solver.operators.obtain_solver`, ``sound`` (whether records are finite and not
    zero), ``seconds`` of MIN_STEPS steps and, from the operating system, ``threads`` that computed and their allowed ``cpus``.
    """
    from hpcfwi.solver.operators import obtain_solver

    propagator, facts = obtain_solver(staged, spec)
    return {**facts, **_run(propagator)}


def _run(propagator: Propagator) -> dict[str, Any]:
    from hpcfwi.execution.affinity import observed_threads
    from hpcfwi.model.grid import TimeAxis
    from hpcfwi.model.survey import Shot
    from hpcfwi.model.wavelet import SampledWavelet
    from hpcfwi.solver.engine import DevitoEngine

    domain = propagator.spec.domain
    engine = DevitoEngine(propagator, SampledWavelet((1.0,) * MAX_STEPS, 1.0))
    engine.set_model(np.full(domain.shape, 0.25))
    middle = np.array([h * (n // 2) for n, h in zip(domain.shape, domain.spacing, strict=True)])
    shot = Shot("probe", middle, middle[None])

    def forward(samples: int) -> bool:
        record = engine.record(shot, TimeAxis(1.0, samples))
        return bool(np.isfinite(record).all() and record.any())

    sound = forward(MIN_STEPS)
    before = engine.kernel_seconds
    sound &= forward(MIN_STEPS)
    seconds = engine.kernel_seconds - before
    with observed_threads() as use:
        # begin with few steps, which take far longer where threads share a CPU
        samples, began = MIN_STEPS, time.perf_counter()
        while time.perf_counter() - began < MIN_RUN_S:
            sound &= forward(samples)
            samples = min(2 * samples, MAX_STEPS)
    return {"sound": sound, "seconds": seconds, "threads": use.threads, "cpus": format_ranges(use.cpus)}


if __name__ == "__main__":
    print(json.dumps(_try_here(int(sys.argv[1]))))
