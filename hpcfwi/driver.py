"""The driver of a run: from a configuration to a velocity model, by way of workers, staged files and the optimiser."""

from __future__ import annotations

import math
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from traceback import format_exc
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from hpcfwi.cluster.environment import apply_environment
from hpcfwi.config.run import RunConfig
from hpcfwi.config.site import SiteConfig
from hpcfwi.data.runfolder import RunFolder
from hpcfwi.data.staging import load, read_header
from hpcfwi.errors import HpcfwiError, InputError, Interrupted, RunError
from hpcfwi.interrupts import deafen
from hpcfwi.inversion.plan import make_plan
from hpcfwi.inversion.problem import Problem
from hpcfwi.reporting.events import EventLog
from hpcfwi.reporting.history import History, Row
from hpcfwi.reporting.progress import Progress
from hpcfwi.version import __version__

__all__ = ["RunResult", "model_data", "run"]


@dataclass(frozen=True)
class RunResult:
    """What a run ended with.

    Parameters
    ----------
    folder
        The run folder.
    velocity
        Final model, km/s, float32.
    iterations, evaluations
        How many there were.
    misfit, initial_misfit
        Last and first.
    model_error
        ``norm(vp - vp_true) / norm(vp_true)``, or None.
    message
        Why the optimiser stopped.
    """

    folder: Path
    velocity: NDArray[np.float32]
    iterations: int
    evaluations: int
    misfit: float
    initial_misfit: float
    model_error: float | None
    message: str


def run(
    config: RunConfig,
    site: SiteConfig | None = None,
    run_dir: Path | str = "run",
    console: Console | None = None,
) -> RunResult:
    """Run an inversion, or continue the one that is in ``run_dir``.

    Parameters
    ----------
    config
        What is inverted.
    site
        Where it runs; this machine by default.
    run_dir
        The run folder.
    console
        Where to tell how it goes.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        If something is wrong with the input, or the folder holds a run of another problem.
    RunError
        If a shot cannot be computed anywhere.
    Interrupted
        On Ctrl-C; the same call continues.
    """
    console = console or Console(quiet=True)
    problem = Problem.from_config(config)
    with RunFolder(Path(run_dir)) as folder:
        folder.claim(problem.identity, config)
        finished = _finished(folder, config)
        if finished is not None:
            console.print(f"{folder.path}: this run is done already; its results:", highlight=False, soft_wrap=True)
            return finished
        folder.reopen()
        with _session(problem, site or SiteConfig(), folder, console) as session:
            return session.invert()


def model_data(
    config: RunConfig,
    site: SiteConfig | None = None,
    run_dir: Path | str = "run",
    console: Console | None = None,
) -> list[Path]:
    """Make the observed data only: model them (or read them from ``data.file``) and stage them in ``run_dir``.

    Returns
    -------
    list of Path
        One .npy gather (samples, receivers) per shot, in ``run_dir/data``.
    """
    console = console or Console(quiet=True)
    problem = Problem.from_config(config)
    with RunFolder(Path(run_dir)) as folder:
        folder.claim(problem.identity, config)
        with _session(problem, site or SiteConfig(), folder, console) as session:
            return session.export_data()


def _limits(config: RunConfig) -> dict[str, float]:
    """What may change from one start to the next: a run that ended at its old limits goes on to the new ones."""
    section = config.inversion
    return {name: getattr(section, name) for name in ("iterations", "evaluations", "ftol", "gtol")}


def _finished(folder: RunFolder, config: RunConfig) -> RunResult | None:
    """The result of a run that is done; what is not as it was written is made again from the journal."""
    result = folder.read_result()
    if result is None or result.get("limits") != _limits(config):
        return None
    try:
        return RunResult(folder=folder.path, velocity=np.load(folder.model), **result["summary"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


@contextmanager
def _session(problem: Problem, site: SiteConfig, folder: RunFolder, console: Console) -> Iterator[_Session]:
    """Everything that has to be closed again: workers, event log, display, scratch."""
    with ExitStack() as stack:
        handlers: dict[int, Any] = {}
        stack.callback(lambda: [signal.signal(number, handler) for number, handler in handlers.items()])
        log = EventLog(folder.events)
        stack.callback(log.close)
        progress = stack.enter_context(Progress(console, problem.config.inversion.iterations))
        try:
            yield _Session(problem, site, folder, log, progress, stack)
        except KeyboardInterrupt:
            with suppress(RunError):
                log.write("interrupted")
            raise Interrupted(f"stopped; the same command goes on where it was ({folder.path})") from None
        except BaseException as error:
            with suppress(RunError):  # a full disk, say, which is the error that is on its way
                where = {} if isinstance(error, HpcfwiError) else {"traceback": format_exc()}
                log.write("stopped", error=type(error).__name__, message=str(error), **where)
            raise
        finally:
            handlers.update(deafen())


def _unsubscribe(client: Any, topic: str) -> None:
    """Or the scheduler writes to a client that is gone, and complains."""
    name = client.id
    with suppress(Exception):
        client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.unsubscribe_topic(topic, name))


class _Session:
    """One driver at work on a run folder."""

    def __init__(
        self,
        problem: Problem,
        site: SiteConfig,
        folder: RunFolder,
        log: EventLog,
        progress: Progress,
        stack: ExitStack,
    ) -> None:
        self.problem, self.folder, self.log, self.progress = problem, folder, log, progress
        self.config = problem.config
        self.started = time.perf_counter()
        self._start(site, stack)

    def _start(self, site: SiteConfig, stack: ExitStack) -> None:
        """Bring up workers and solver, at the same time: both take seconds."""
        apply_environment()
        from hpcfwi.cluster.local import local_layout, local_workers

        plan = make_plan(self.problem)
        self._check_disk(plan.disk_bytes)
        layout = local_layout(site.worker, len(self.problem.survey), plan.shot_bytes)
        for warning in self.problem.warnings:
            self.progress.say(f"warning: {warning}")
            self.log.write("warning", message=warning)
        self.log.write("start", version=__version__, problem=self.problem.digest, layout=str(layout), launch="local")
        self.progress.say(f"run folder {self.folder.path}; workers on this machine: {layout}")
        same = "one thread per shot: the same bytes whatever the number of workers"
        differs = "several threads per shot: the last bits may differ from run to run"
        self.progress.say(same if layout.threads == 1 else differs)
        coming = stack.enter_context(local_workers(layout))
        self._stage_solver(layout.cache_bytes)
        try:
            cluster = coming.result()
        except Exception as error:
            raise RunError(
                f"the workers cannot be started ({type(error).__name__}: {error}); hpcfwi --verbose run lets Dask say why"
            ) from error
        self._connect(cluster, stack)

    def _check_disk(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder.path).free
        needed -= sum(path.stat().st_size for path in self.folder.path.rglob("*") if path.is_file())
        if needed > free:
            raise InputError(
                f"{self.folder.path}: the run needs about {needed / 1e6:.1f} MB of disk, {free / 1e6:.1f} MB are free there; "
                "make room or choose another folder with --run-dir"
            )

    def _stage_solver(self, cache_bytes: int) -> None:
        from hpcfwi.inversion.shot import ShotContext
        from hpcfwi.inversion.solver import stage_solver

        started = time.perf_counter()
        solver, built = stage_solver(self.folder.staged, self.problem.spec)
        seconds = time.perf_counter() - started
        self.log.write("solver", built=built, seconds=round(seconds, 3), source="driver", digest=solver.digest)
        self.progress.say(f"solver {'built and compiled' if built else 'found in the run folder'} ({seconds:.1f} s)")
        self.context = ShotContext(
            solver,
            self.problem.spec,
            self.problem.wavelet,
            self.config.solver.boundary_gradient,
            self.config.data.tail,
            cache_bytes,
        )

    def _connect(self, cluster: Any, stack: ExitStack) -> None:
        from distributed import Client

        from hpcfwi.inversion.shot import TOPIC
        from hpcfwi.inversion.tasks import ShotTasks

        client = stack.enter_context(Client(cluster, set_as_default=False))
        client.subscribe_topic(TOPIC, lambda event: self.log.write(**event[1]))
        stack.callback(_unsubscribe, client, TOPIC)
        self.tasks = ShotTasks(client, self._on_retry)
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        self.log.write("workers", count=workers, scheduler=client.scheduler.address)

    def _on_retry(self, shot: str, worker: str, reason: str) -> None:
        self.log.write("retry", shot=shot, worker=worker, reason=reason)
        self.progress.say(f"shot {shot} is started again on another worker: {reason}")

    def _observe(self) -> None:
        from hpcfwi.inversion.objective import observe

        started = time.perf_counter()
        what = "modelling data" if self.config.data.file is None else "reading data"
        self.shots = observe(
            self.problem,
            self.context,
            self.tasks,
            self.folder.staged,
            lambda done, total: self.progress.shots(done, total, what),
        )
        if self.config.data.file is not None:
            self._claim_data()
        seconds = time.perf_counter() - started
        self.log.write("observed", shots=len(self.shots), seconds=round(seconds, 3))
        made = "modelled in the true model" if self.config.data.file is None else f"read from {self.config.data.file}"
        self.progress.say(f"observed data of {len(self.shots)} shots {made} ({seconds:.1f} s)")

    def _claim_data(self) -> None:
        """The journal's answers are those to the records that were read at the first start."""
        headers = [read_header(Path(shot.path)) or {} for shot in self.shots]
        self.folder.claim_data({str(header.get("shot")): str(header.get("record")) for header in headers})

    def export_data(self) -> list[Path]:
        """Observed data as plain arrays."""
        self._observe()
        paths = []
        for shot, staged in zip(self.problem.survey.shots, self.shots, strict=True):
            path = self.folder.path / "data" / f"{shot.name}.npy"
            self.folder.write_array(path, load(staged, "shot")["record"])
            paths.append(path)
        return paths

    def invert(self) -> RunResult:
        """Minimise, and write the results."""
        from hpcfwi.inversion.journal import Journal
        from hpcfwi.inversion.lbfgs import minimise
        from hpcfwi.inversion.objective import Objective

        self._observe()
        problem = self.problem
        self.rows = History(self.folder.history)
        self.elapsed_before = self.rows.rows[-1].elapsed_seconds if self.rows.rows else 0.0
        self.objective = Objective(
            problem,
            self.context,
            self.shots,
            self.tasks,
            self.folder.staged,
            Journal(self.folder.journal, problem.digest),
            self.progress.shots,
            self._on_evaluation,
        )
        low, high = problem.slowness_bounds
        x0 = (1.0 / problem.initial_velocity**2).ravel()
        self.loop_started = self.step_started = time.perf_counter()
        self.iteration = 0
        result = minimise(self.objective, x0, (low.ravel(), high.ravel()), self.config.inversion, self._on_iteration)
        self.log.write(
            "optimised",
            seconds=round(time.perf_counter() - self.loop_started, 3),
            iterations=result.nit,
            evaluations=result.nfev,
            message=str(result.message),
        )
        return self._finish(result)

    def _on_evaluation(self, evaluation: Any, x: NDArray, gradient: NDArray) -> None:
        self.log.write("evaluation", **asdict(evaluation) | {"evaluation": evaluation.number})
        self.progress.evaluation(evaluation.misfit, evaluation.replayed)
        if evaluation.number == 1:
            self.first_gradient = gradient.reshape(self.problem.domain.shape)
            self._add_row(x, evaluation.misfit)

    def _on_iteration(self, x: NDArray, misfit: float) -> None:
        self.iteration += 1
        self._add_row(x, misfit)

    def _add_row(self, x: NDArray, misfit: float) -> None:
        now = time.perf_counter()
        m = x.reshape(self.problem.domain.shape)
        velocity = 1.0 / np.sqrt(m)
        row = Row(
            self.iteration,
            len(self.objective.evaluations),
            misfit,
            float(np.linalg.norm(self.objective.gradient)),
            self.problem.velocity_error(velocity),
            self.problem.slowness_error(m),
            round(now - self.step_started, 4),
            round(self.elapsed_before + now - self.loop_started, 4),
        )
        self.step_started = now
        new = self.rows.add(row)
        self.progress.iteration(row if new else self.rows.rows[row.iteration])
        if new:
            self.folder.write_array(self.folder.current_model, velocity.astype(np.float32))
            facts = {key: value for key, value in asdict(row).items() if value is not None and math.isfinite(value)}
            self.log.write("iteration", **facts)

    def _finish(self, result: Any) -> RunResult:
        velocity = (1.0 / np.sqrt(result.x.reshape(self.problem.domain.shape))).astype(np.float32)
        self.rows.cut(int(result.nit))
        self._draw(velocity)
        self.folder.write_array(self.folder.model, velocity)
        summary: dict[str, Any] = {
            "iterations": int(result.nit),
            "evaluations": int(result.nfev),
            "misfit": float(result.fun),
            "initial_misfit": self.objective.evaluations[0].misfit,
            "model_error": self.problem.velocity_error(1.0 / np.sqrt(result.x.reshape(self.problem.domain.shape))),
            "message": str(result.message),
        }
        self.folder.write_result({"state": "done", "limits": _limits(self.config), "summary": summary})
        self.folder.current_model.unlink(missing_ok=True)
        self.log.write("done", seconds=round(time.perf_counter() - self.started, 3), **summary)
        return RunResult(folder=self.folder.path, velocity=velocity, **summary)

    def _draw(self, velocity: NDArray) -> None:
        if not self.config.output.figures:
            return
        from hpcfwi.reporting.gallery import draw_gallery

        started = time.perf_counter()
        try:
            draw_gallery(self.folder, self.problem, self.objective, self.rows.rows, velocity, self.first_gradient)
        except HpcfwiError:
            raise
        except Exception as error:
            # pictures are no reason to lose the model that they show
            self.log.write("warning", message=f"figures: {error}", traceback=format_exc())
            self.progress.say(f"warning: the figures cannot be drawn ({type(error).__name__}: {error})")
            return
        self.log.write("figures", seconds=round(time.perf_counter() - started, 3))
