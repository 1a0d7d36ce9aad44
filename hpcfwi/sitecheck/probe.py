"""What a host gives to a worker process, seen from inside: facts, which :mod:`hpcfwi.sitecheck.results` judges.

Called by the doctor on its own host, and as tasks in the worker processes of others. Kernels are first tried in a child
process (``python -m hpcfwi.sitecheck.probe``): one that dies of it, by an instruction that is not known here, say, takes
nobody along.
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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from hpcfwi.artifacts import StagedFile
from hpcfwi.version import __version__

__all__ = ["clock", "examined_spec", "memory_limits", "probe_host", "run_staged", "scratch", "try_kernels", "versions"]

PACKAGES = ("cloudpickle", "dask", "devito", "distributed", "numpy")
# Seconds that kernels run for their threads to be seen, and that a child process may take.
LONG_ENOUGH, PATIENCE = 0.3, 180.0
# Steps of the shortest and of the longest run of a kernel, and the rows of the grid that each thread has at least.
FEW, STEPS, ROWS = 20, 1000, 16
CGROUPS = Path("/sys/fs/cgroup")


def probe_host(threads: int, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Facts about this host.

    Parameters
    ----------
    threads
        OpenMP threads for which the grid of the tried kernels is large enough.
    environment
        Variables of the child process that tries them; by default those of this process.
    """
    return {
        "host": socket.gethostname().partition(".")[0],
        "versions": versions(),
        "scratch": scratch(),
        "memory": memory_limits(),
        "kernels": try_kernels(threads, environment),
    }


def clock() -> float:
    """The time here, s."""
    return time.time()


def versions() -> dict[str, str]:
    """Versions of what has to be the same on both sides."""
    found = {"hpcfwi": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def scratch() -> dict[str, Any]:
    """The folder for temporary files, in which Devito compiles and from which it loads.

    Returns
    -------
    dict
        ``asked`` (TMPDIR), ``folder`` that is taken, ``free`` bytes, whether code in it is ``executable``; ``error`` where
        there is none.
    """
    facts: dict[str, Any] = {"asked": os.environ.get("TMPDIR"), "error": ""}
    try:
        folder = tempfile.gettempdir()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(mmap.PAGESIZE))
            file.flush()
            try:
                mmap.mmap(file.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
                facts["executable"] = True
            except OSError:
                facts["executable"] = False
        facts |= {"folder": folder, "free": shutil.disk_usage(folder).free}
    except OSError as error:
        facts["error"] = str(error)
    return facts


def memory_limits() -> dict[str, int]:
    """Bytes that the ``machine`` has, and that the ``job`` (cgroup) and each ``process`` (ulimit) may have where limited."""
    found = {"machine": int(psutil.virtual_memory().total)}
    groups = [limit for limit in _cgroup_limits() if limit < found["machine"]]
    if groups:
        found["job"] = min(groups)
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    ours = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    if ours:
        found["process"] = min(ours)
    return found


def _cgroup_limits() -> Iterator[int]:
    """Limits of this process's memory cgroup and of all that it is in; version 1 or 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = (CGROUPS, "memory.max") if not controllers else (CGROUPS / "memory", "memory.limit_in_bytes")
        inner = top / path.lstrip("/")
        for folder in (inner, *inner.parents):
            try:
                text = (folder / name).read_text().strip()
            except OSError:
                text = ""
            if text.isdigit():
                yield int(text)
            if folder == top:
                break


def try_kernels(threads: int, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Build and run kernels in a child process whose JIT cache is empty.

    Returns
    -------
    dict
        What :func:`_try_here` does; or ``error`` alone, and ``died``, the signal, where one has killed the process.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="hpcfwi-check-") as folder:
            done = subprocess.run(
                [sys.executable, "-m", "hpcfwi.sitecheck.probe", str(threads)],
                env={**(os.environ if environment is None else environment), "TMPDIR": folder},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {PATIENCE:g} s"}
    except OSError as error:
        return {"error": str(error)}
    if done.returncode < 0:
        died = signal.Signals(-done.returncode).name
        return {"error": f"they kill their process ({died})", "died": died}
    try:
        facts = dict(json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    # the compiler's own words
    said = next((line for line in done.stderr.splitlines() if "error:" in line), "")
    return facts | {"error": f"{facts['error']}: {said}"} if facts["error"] and said else facts


def _try_here(threads: int) -> dict[str, Any]:
    """Build and run kernels in this process.

    Returns
    -------
    dict
        The ``fingerprint``; where there is a compiler ``build_seconds`` and what :func:`_run` tells; ``error`` where it fails.
    """
    from hpcfwi.solver.operators import Propagator, fingerprint

    facts: dict[str, Any] = {"error": "", "fingerprint": fingerprint()}
    if facts["fingerprint"].get("compiler") == "none":
        return facts
    try:
        started = time.perf_counter()
        propagator = Propagator(examined_spec(threads))
        propagator.forward.compile()
        facts["build_seconds"] = time.perf_counter() - started
        return facts | _run(propagator)
    except Exception as error:
        return facts | {"error": _in_a_line(error)}


def examined_spec(threads: int) -> Any:
    """A small grid, on which so many threads all have something to do."""
    from hpcfwi.model.grid import Domain
    from hpcfwi.solver.boundary import Sponge
    from hpcfwi.solver.spec import SolverSpec

    domain = Domain((max(201, ROWS * threads), 201), (10.0, 10.0), (0.0, 0.0))
    return SolverSpec(Sponge(domain, 10), 4, "float32", STEPS, STEPS - 1, 1)


def run_staged(staged: StagedFile, spec: Any) -> dict[str, Any]:
    """Run a staged solver in this worker process, which loads it in the way that shots do.

    Returns
    -------
    dict
        What :func:`_run` tells, and what :func:`hpcfwi.solver.operators.obtain_solver` does.
    """
    from hpcfwi.solver.operators import obtain_solver

    propagator, facts = obtain_solver(staged, spec)
    return {**facts, "pid": os.getpid(), **_run(propagator)}


def _run(propagator: Any) -> dict[str, Any]:
    """Run the forward kernel for a while.

    Returns
    -------
    dict
        Whether its numbers are ``sound``; the ``seconds`` of a few steps; ``threads`` that computed and the ``cpus`` that they
        may use, as the operating system tells.
    """
    from hpcfwi.execution.affinity import observed_threads, ranges
    from hpcfwi.model.discretization import TimeAxis
    from hpcfwi.model.survey import Shot
    from hpcfwi.model.wavelet import SampledWavelet
    from hpcfwi.solver.engine import DevitoEngine

    domain = propagator.spec.domain
    engine = DevitoEngine(propagator, SampledWavelet((1.0,) * STEPS, 1.0))
    engine.set_model(np.full(domain.shape, 0.25))
    middle = np.array([h * (n // 2) for n, h in zip(domain.shape, domain.spacing, strict=True)])
    shot = Shot("probe", middle, middle[None])

    def forward(samples: int) -> bool:
        record = engine.record(shot, TimeAxis(1.0, samples))
        return bool(np.isfinite(record).all() and record.any())

    sound = forward(FEW)
    before = engine.kernel_seconds
    sound &= forward(FEW)
    seconds = engine.kernel_seconds - before
    with observed_threads() as use:
        # where threads have to share a CPU a step takes much longer: that is found out in small doses
        samples, began = FEW, time.perf_counter()
        while time.perf_counter() - began < LONG_ENOUGH:
            sound &= forward(samples)
            samples = min(2 * samples, STEPS)
    return {"sound": sound, "seconds": seconds, "threads": use.threads, "cpus": ranges(use.cpus)}


def _in_a_line(error: Exception) -> str:
    text = next(filter(None, map(str.strip, str(error).splitlines())), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


if __name__ == "__main__":
    print(json.dumps(_try_here(int(sys.argv[1]))))
