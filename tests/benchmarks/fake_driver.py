"""One sum over fake shots by the real driver, and what it costs. For driver_at_scale.py."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client
from fakes import FakeCluster, costs, count_traffic, fake_cluster, fake_shot, forget_peak, oracle

from hpcfwi.artifacts import StagedFile, digest, shard_folder, stage
from hpcfwi.cluster.dask_internals import ALL_TOPIC
from hpcfwi.config.site import load_site
from hpcfwi.events.log import EventLog, read_events
from hpcfwi.events.types import ShotDone
from hpcfwi.execution.affinity import AffinityCheck
from hpcfwi.execution.executor import DaskExecutor
from hpcfwi.execution.plugins import WorkerInfoPlugin
from hpcfwi.execution.shot_worker import ShotContext
from hpcfwi.execution.tasks import EVENT_TOPIC
from hpcfwi.inversion.functional_gradient import BLOCK, FunctionalGradient
from hpcfwi.inversion.journal import Partials
from hpcfwi.inversion.objective import MAX_DRIVER_SUM_BYTES, task_key
from hpcfwi.io import make_private
from hpcfwi.model.grid import Domain, TimeAxis
from hpcfwi.model.processing.sampling import RecordSampling
from hpcfwi.model.wavelet import RickerWavelet, SampledWavelet
from hpcfwi.run.worker_events import WorkerEvents
from hpcfwi.solver.boundary import Sponge
from hpcfwi.solver.spec import SolverSpec


@dataclass(frozen=True)
class Case:
    """What is measured.

    Parameters
    ----------
    shots, workers
        How many.
    values
        Of a gradient, float64.
    processes
        In which the workers are.
    seconds
        That a shot takes.
    kept
        Whether sums are kept on disk, as a run does.
    together
        Whether the scheduler is in the driver's process, as in a run.
    wavelet
        Samples of a wavelet from a file; 0 for a Ricker wavelet.
    batched
        Whether several shots make a task.
    """

    shots: int
    workers: int
    values: int
    processes: int = 2
    seconds: float = 0.0
    kept: bool = False
    together: bool = False
    wavelet: int = 0
    batched: bool = False

    def __str__(self) -> str:
        what = f"{self.shots} shots of {self.seconds:g} s, {self.workers} workers"
        how = f"{', driver and scheduler together' * self.together}{', in batches' * self.batched}"
        return f"{what}, gradients of {8 * self.values / 1e6:g} MB{how}"


@dataclass
class _Work:
    """The arguments of ``ShotTasks.sum``, as the objective gives them."""

    context: ShotContext
    names: list[str]
    arguments: list[tuple[Any, ...]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def _work(case: Case, staged: Path) -> _Work:
    unread = digest(b"never read")
    domain = Domain((case.values // 100, 100), (10.0, 10.0), (0.0, 0.0))
    samples = tuple(np.random.default_rng(0).normal(size=case.wavelet).tolist())
    wavelet = SampledWavelet(samples, 2.0) if samples else RickerWavelet(0.01, 100.0)
    solver, model = (StagedFile(str(staged / f"{kind}-{unread}.pkl"), unread) for kind in ("solver", "model"))
    wavelet = stage(make_private(staged), "wavelet", wavelet)
    spec = SolverSpec(Sponge(domain, 40), 8, "float32", 2000, 8, 400)
    sampling = RecordSampling(TimeAxis(4.0, 750), 0.028)
    work = _Work(ShotContext(solver, spec, wavelet, None, sampling, 0), [str(i) for i in range(case.shots)])
    axis = TimeAxis(1.5, 2000)
    for name in work.names:
        path = shard_folder(staged / "shots", name, case.shots) / f"{name}.pkl"
        shot = StagedFile(str(path), digest(name.encode()))
        work.arguments.append((work.context, name, model, shot, axis, 1))
        work.keys.append(task_key(unread, None, unread, shot.digest, axis))
    return work


def _driver(client: Client, log: EventLog) -> tuple[DaskExecutor, WorkerEvents]:
    """Executor and worker events as in a session."""
    tasks = DaskExecutor(client)
    affinity = AffinityCheck(load_site("workstation"), lambda _: 1)
    worker_events = WorkerEvents(log, print, affinity, tasks, lambda _: None)
    client.subscribe_topic(EVENT_TOPIC, lambda event: worker_events(event[1]))
    client.subscribe_topic(ALL_TOPIC, lambda _: None)
    client.register_plugin(WorkerInfoPlugin(EVENT_TOPIC))
    return tasks, worker_events


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Sum over shots once, on workers that have just started; return the costs."""
    count_traffic()
    work = _work(case, folder / "staged")
    log = EventLog(folder / "events.jsonl")
    with ExitStack() as stack:
        there = fake_cluster(case.workers, case.processes, case.seconds, case.together, folder)
        cluster = stack.enter_context(there)
        client = stack.enter_context(Client(cluster.address, set_as_default=False))
        tasks, worker_events = _driver(client, log)
        client.wait_for_workers(case.workers, timeout=120)
        time.sleep(1)  # let the start settle
        account = _Account(cluster, hold=8 * case.values > MAX_DRIVER_SUM_BYTES)
        found = tasks.sum(
            fake_shot,
            work.names,
            work.arguments,
            work.keys,
            progress=lambda *_: worker_events.raise_error(),
            small=8 * case.values <= MAX_DRIVER_SUM_BYTES,
            partials=Partials(folder) if case.kept else None,
            evaluation="1",
            batched=case.batched,
        )
        ended = time.time()
        rows = account.rows(case)
        for topic in (EVENT_TOPIC, ALL_TOPIC):  # or the scheduler complains when workers leave
            client.unsubscribe_topic(topic)
        stack.callback(log.close)
    times = [event.time for event in read_events(log.path) if isinstance(event, ShotDone)]
    right = len(times) == case.shots and _right(found, case, work.context.spec.domain.shape)
    levels = next(level for level in range(case.shots) if BLOCK**level >= case.shots)
    rest = {"last shot to root, s": ended - max(times), "levels of sums": levels}
    return {"case": str(case), "right": right, **rows, **rest}


def _right(found: FunctionalGradient, case: Case, shape: tuple[int, ...]) -> bool:
    """Whether a sum is NumPy's, to the byte."""
    f, g = oracle(case.shots, BLOCK)
    return found.f == f and found.g.tobytes() == np.resize(g, shape).tobytes()


class _Account:
    """What driver, scheduler and workers cost from now on."""

    def __init__(self, cluster: FakeCluster, hold: bool) -> None:
        self.cluster = cluster
        self.hold = hold and cluster.scheduler is not None
        if self.hold:
            cluster.scheduler.ask("hold")
        self.others = [served for served in (cluster.scheduler, *cluster.workers) if served is not None]
        for served in self.others:
            served.ask("forget peak")
        forget_peak()
        cluster.watch.ask("most")
        self.workers_before = cluster.watch.ask("most")
        self.before, self.began = self._costs(), time.perf_counter()

    def _costs(self) -> list[dict[str, float]]:
        return [costs(), *(served.ask("costs") for served in self.others)]

    def rows(self, case: Case) -> dict[str, Any]:
        """The rows of the table."""
        seconds = time.perf_counter() - self.began
        after = self._costs()
        used = [{name: now[name] - then[name] for name in now} for then, now in zip(self.before, after, strict=True)]
        grown = [(now["peak"] - then["memory"]) / 1e6 for then, now in zip(self.before, after, strict=True)]
        workers_most = self.cluster.watch.ask("most")
        first_worker = len(used) - case.processes
        rows: dict[str, Any] = {
            "seconds": seconds,
            "shots/s": case.shots / seconds,
            "idle per shot and worker, ms": 1000
            * (seconds * min(case.workers, case.shots) / case.shots - case.seconds),
        }
        for i, process in enumerate(["driver", "scheduler"][:first_worker]):
            rows |= {
                f"{process} CPU, ms/shot": 1000 * used[i]["cpu"] / case.shots,
                f"{process} sends, B/shot": used[i]["sent"] / case.shots,
                f"{process} receives, B/shot": used[i]["received"] / case.shots,
                f"{process} grows by, MB": grown[i],
                f"{process} at most, MB": after[i]["peak"] / 1e6,
            }
        return rows | {
            "workers CPU, ms/shot": 1000 * sum(cost["cpu"] for cost in used[first_worker:]) / case.shots,
            "workers grow by, MB": (workers_most - self.workers_before) / 1e6,
            "all gradients, MB": case.shots * case.values * 8 / 1e6,
            "parts held at most": self.cluster.scheduler.ask("held") if self.hold else None,
        }


def _measure(connection: Connection, case: Case) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="hpcfwi-scale-") as name:
        connection.send(measure(case, Path(name)))


def measured(case: Case) -> dict[str, Any]:
    """Measure a case in a process of its own, so that its memory is that of this case alone."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_measure, args=(there, case))
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()
