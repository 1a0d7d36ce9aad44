"""The state that a worker process keeps between shots: engine, model, and observed data."""

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from numpy.typing import NDArray

from hpcfwi.artifacts import StagedFile, load
from hpcfwi.errors import RunError
from hpcfwi.events.types import RunWarning, Solver, ThreadPlacement
from hpcfwi.execution.affinity import format_ranges, observed_threads
from hpcfwi.inversion.misfit import FunctionalGradient, ShotMisfit, load_misfit
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing import Operator, RecordSampling
from hpcfwi.model.survey import Shot
from hpcfwi.model.windows import Windows
from hpcfwi.process import gc_paused
from hpcfwi.solver.engine import SleepingShots, open_engine
from hpcfwi.solver.operators import obtain_solver
from hpcfwi.solver.spec import SolverSpec


@dataclass(frozen=True)
class ShotContext:
    """The settings that all shots of a run share."""

    solver: StagedFile
    spec: SolverSpec  # from which a worker on another kind of machine builds its own solver
    wavelet: StagedFile  # a file, so that its 2,000 samples are not sent with each shot
    # the squared slowness whose edge values the absorbing layer has in all evaluations; None if it follows the model
    edges: StagedFile | None
    sampling: RecordSampling  # of the gathers that are compared
    cache_bytes: int  # memory of a worker for observed data
    windows: Windows | None = None  # in which shots are computed; None: in the whole model
    misfit: str = "l2"  # inversion.misfit
    stand_in: SleepingShots | None = None  # replaces the kernels in scaling studies


@dataclass(frozen=True, eq=False)
class _ObservedShot:
    """A cached shot: its gather at the samples where it is compared."""

    shot: Shot
    axis: TimeAxis
    gather: NDArray


class ShotWorker:
    """Engine, model and recently used shots of a worker process; ``log_event`` takes an event class and its fields."""

    def __init__(self, context: ShotContext, log_event: Callable[..., None] = lambda *_, **__: None) -> None:
        self.context, self.log_event = context, log_event
        started = time.perf_counter()
        with gc_paused():
            propagator, facts = obtain_solver(context.solver, context.spec)
            wavelet = load(context.wavelet, "wavelet")
            edges = None if context.edges is None else load(context.edges, "model")
            self.engine = open_engine(propagator, wavelet, edges, context.windows, context.stand_in)
        self.misfit = load_misfit(context.misfit)
        self._model = ("", True)
        self._shots: OrderedDict[str, _ObservedShot] = OrderedDict()
        self._threads_unknown = self.engine.runs_kernels
        self._reported = ""
        # time spent so far on loading models, observed data and the solver
        self.model_seconds = self.data_seconds = 0.0
        self.solver_seconds = time.perf_counter() - started
        self.log_event(Solver, seconds=self.solver_seconds, **facts)

    def use_model(self, model: StagedFile, own_edges: bool = False) -> None:
        """Load a staged model (squared slowness), unless it is the current one.

        The absorbing layer follows the context; with ``own_edges``, it has the edge values of this model.
        """
        if (model.digest, own_edges) != self._model:
            started = time.perf_counter()
            self._model = ("", True)  # no model is valid if loading fails half-way
            self.engine.set_model(load(model, "model"), own_edges)
            self._model = (model.digest, own_edges)
            self.model_seconds += time.perf_counter() - started

    def observed(self, name: str, shot: StagedFile, axis: TimeAxis) -> _ObservedShot:
        """Return a staged shot for predictions on a time axis, from the cache or read."""
        known, compared = self._shots.get(shot.digest), self.context.sampling.compared(axis)
        if known is not None and known.axis == compared:
            self._shots.move_to_end(shot.digest)
            return known
        started = time.perf_counter()
        content = load(shot, "shot")
        gather = self.context.sampling.observed(content["record"], axis, self.context.spec.dtype)
        found = _ObservedShot(Shot(name, content["source"], content["receivers"]), compared, gather)
        self._shots[shot.digest] = found
        kept_bytes = sum(kept.gather.nbytes for kept in self._shots.values())
        while len(self._shots) > 1 and kept_bytes > self.context.cache_bytes:
            kept_bytes -= self._shots.popitem(last=False)[1].gather.nbytes
        self.data_seconds += time.perf_counter() - started
        return found

    def predict(self, shot: Shot, axis: TimeAxis) -> NDArray:
        """Return a gather in the current model, at the samples where it is compared."""
        return self._processing(axis).apply(self.engine.record(shot, axis))

    def synthetic(self, shot: Shot, axis: TimeAxis) -> NDArray:
        """Return a gather as it would be observed in the current model."""
        return self.context.sampling.synthetic(self.engine.record(shot, axis), axis, self.context.spec.dtype)

    def evaluate(self, name: str, model: StagedFile, shot: StagedFile, axis: TimeAxis) -> FunctionalGradient:
        """Return misfit and gradient of a shot; the first call logs the number of busy threads and their CPUs."""
        with observed_threads() if self._threads_unknown else nullcontext() as use:
            self.use_model(model)
            observed = self.observed(name, shot, axis)
            compare = ShotMisfit(self.misfit, self._processing(axis), observed.gather, observed.axis)
            try:
                f, g = self.engine.misfit_and_gradient(observed.shot, axis, compare)
            except RunError as error:
                raise RunError(f"shot {name}: {error}") from None
        if self.engine.trouble != self._reported:
            self._reported = self.engine.trouble
            self.log_event(RunWarning, message=self._reported)
        if use is not None:
            self._threads_unknown = False
            self.log_event(ThreadPlacement, threads=use.threads, cpus=format_ranges(use.cpus), shot=name)
        return FunctionalGradient(f, g, self.engine.window(observed.shot))

    def _processing(self, axis: TimeAxis) -> Operator:
        return self.context.sampling.operator(axis, self.context.spec.dtype)
