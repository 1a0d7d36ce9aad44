"""How fast a node computes shots: stated in its site file, or measured on this machine."""

from __future__ import annotations

import math
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import BrokenBarrierError
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcfwi.artifacts import StagedFile, load, stage
from hpcfwi.cluster.environment import restore_environment, worker_environment
from hpcfwi.cluster.layout import THREADS_POWER
from hpcfwi.config.site import Site
from hpcfwi.errors import HpcfwiError, RunError
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.survey import Shot
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.solver.spec import SolverSpec

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from hpcfwi.model.problem import Problem

# The grid of a measurement has about so many points at most, and as many time steps as a slow core takes for about a second.
MAX_POINTS, MIN_STEPS, SLOW_CORE_POINTS_PER_S = 8_000_000, 24, 40e6
MIN_SIDE = 16  # grid points of the model along an axis that is cut
# A process repeats its shot for so long, and so often at least.
MEASURED_S, MIN_REPEATS = 1.5, 3
# Processes wait for each other, so that all run at the same time; after this time something is wrong.
WAIT_S = 600.0


@dataclass(frozen=True)
class Throughput:
    """Updates of a grid point, in forward and adjoint steps, that processes on a node compute in a second."""

    points_per_s: float  # of all processes together
    processes: int
    threads: int  # of each process
    source: str  # for people
    build_s: float = 10.0  # to generate and compile the kernels

    def shot_seconds(self, spec: SolverSpec, samples: int, threads: int) -> float:
        """Time of a gradient whose wavefield is sampled, s, in a process of so many threads."""
        factor = (threads / self.threads) ** THREADS_POWER
        return updates(spec, samples) / (self.points_per_s / self.processes * factor)

    def __str__(self) -> str:
        shape = f"{self.processes} process{'es' if self.processes > 1 else ''} of {self.threads}"
        threads = "thread" if self.threads == 1 else "threads"
        return f"{self.points_per_s / 1e6:.0f} million grid points a second with {shape} {threads} ({self.source})"


def updates(spec: SolverSpec, samples: int) -> float:
    """Updates of a grid point in a gradient: one forward and one adjoint step for each time sample."""
    return 2.0 * math.prod(spec.boundary.padded_shape) * samples


def measured_spec(spec: SolverSpec) -> SolverSpec:
    """A specification with the same kernels, but a shorter record and a grid whose long axes are shorter."""
    padded, least = spec.boundary.padded_shape, max(MIN_SIDE, spec.boundary.cells)
    limit = max(padded)
    while limit > least and math.prod(min(n, limit) for n in padded) > MAX_POINTS:
        limit -= 1
    cuts = (max(0, side - limit) for side in padded)
    shape = tuple(max(min(n, least), n - cut) for n, cut in zip(spec.domain.shape, cuts, strict=True))
    spec = replace(spec, boundary=replace(spec.boundary, domain=replace(spec.domain, shape=shape)))
    step_s = 2 * math.prod(spec.boundary.padded_shape) / SLOW_CORE_POINTS_PER_S
    samples = max(MIN_STEPS, 4 * spec.snapshot_every, round(1 / step_s))
    return replace(spec, time_samples=min(spec.time_samples, samples))


def measure(problem: Problem, site: Site, processes: int, threads: int) -> Throughput:
    """Run the problem's kernels in several processes at the same time, as workers do, for some seconds.

    Raises
    ------
    RunError
        If the kernels cannot be built or run here.
    """
    spec, axis = measured_spec(SolverSpec.from_problem(problem)), problem.time_axis(problem.initial_velocity)
    fastest = float(problem.initial_velocity.max())
    environment = {**worker_environment(threads, site.config), **site.config.openmp.variables}
    try:
        with tempfile.TemporaryDirectory() as folder, restore_environment():
            os.environ.update(environment)
            if processes > 1:  # unpinned processes must not bind their threads: all would take the same first cores
                for name in ("OMP_PROC_BIND", "OMP_PLACES"):
                    os.environ.pop(name, None)
            ((solver, build_s),) = in_processes(1, _build, Path(folder), spec)
            job = stage(Path(folder), "throughput", (solver, spec, problem.source_signal, axis.step, fastest))
            started = get_context("spawn").Barrier(processes)
            rates = in_processes(processes, _updates_per_second, job, started)
    except OSError as error:
        raise RunError(f"the kernels cannot be run here: {error}") from None
    return Throughput(sum(rates), processes, threads, "measured here", build_s)


def in_processes(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function in several new processes at the same time; returns what they return.

    The processes do not have the state of this one, which may have imported Devito with other settings. They end with this
    call, also if it is interrupted.

    Raises
    ------
    RunError
        If the function raises an error in one of them, or a process dies.
    """
    context = get_context("spawn")
    running: list[tuple[BaseProcess, Connection]] = []
    try:
        for _ in range(count):
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_answer, args=(theirs, function, arguments), daemon=True)
            process.start()
            theirs.close()
            running.append((process, mine))
        answers = [_receive(*each) for each in running]
    finally:
        for each, mine in running:
            each.kill()
            each.join()
            mine.close()
    errors = [error for error, _ in answers if error]
    if errors:  # a process that has waited for another one in vain is not the cause
        raise RunError(
            next((error for error in errors if not error.startswith(BrokenBarrierError.__name__)), errors[0])
        )
    return [result for _, result in answers]


def _receive(process: BaseProcess, connection: Connection) -> tuple[str, Any]:
    try:
        answer: tuple[str, Any] = connection.recv()
    except EOFError:
        process.join()
        return f"a process that runs the kernels ended with status {process.exitcode}", None
    return answer


def _answer(connection: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Send an error, or an empty text and the result of a function."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    try:
        answer = "", function(*arguments)
    except HpcfwiError as error:
        answer = str(error), None
    except Exception as error:
        answer = f"{type(error).__name__}: {error}", None
    connection.send(answer)


def _build(folder: Path, spec: SolverSpec) -> tuple[StagedFile, float]:
    """Generate and compile the kernels; returns the file, and how long it took."""
    from hpcfwi.solver.operators import stage_solver

    began = time.perf_counter()
    solver, _ = stage_solver(folder, spec)
    return solver, time.perf_counter() - began


def _updates_per_second(job: StagedFile, started: Barrier) -> float:
    """Compute one shot again and again, from the time on when all processes are ready."""
    from hpcfwi.solver.engine import DevitoEngine
    from hpcfwi.solver.operators import obtain_solver

    try:
        solver, spec, source, step, fastest = load(job, "throughput")
        propagator, _ = obtain_solver(solver, spec)
        engine = DevitoEngine(propagator, source)
        engine.set_model(squared_slowness(np.full(spec.domain.shape, fastest)))
        low, high = np.array(spec.domain.origin), np.array(spec.domain.last)
        places = np.random.default_rng(0).uniform(0.1, 0.9, (spec.receivers, spec.domain.ndim))
        shot, axis = Shot("0", (low + high) / 2, low + (high - low) * places), TimeAxis(step, spec.time_samples)

        def run() -> float:
            began = time.perf_counter()
            engine.misfit_and_gradient(shot, axis, lambda predicted: (0.0, predicted))
            return time.perf_counter() - began

        run()
        started.wait(WAIT_S)
    except BaseException:
        started.abort()  # the others need not wait
        raise
    began, seconds = time.perf_counter(), list[float]()
    while len(seconds) < MIN_REPEATS or time.perf_counter() - began < MEASURED_S:
        seconds.append(run())
    return updates(spec, spec.time_samples) / statistics.median(seconds)
