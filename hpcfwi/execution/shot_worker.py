"""The state that a worker process keeps between shots: engine, model, and observed data."""

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hpcfwi.artifacts import StagedFile, load
from hpcfwi.errors import RunError
from hpcfwi.events.types import RunWarning, Solver, ThreadPlacement
from hpcfwi.execution.affinity import observed_threads
from hpcfwi.inversion.functional_gradient import FunctionalGradient
from hpcfwi.inversion.misfits.registry import MisfitSpec, load_misfit
from hpcfwi.inversion.misfits.shot import ShotMisfit
from hpcfwi.io import format_ranges
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.chain import Processing
from hpcfwi.model.processing.operators import Chain, Operator
from hpcfwi.model.processing.sampling import RecordSampling
from hpcfwi.model.source_estimate import GatherComparison, SourceFilters, at_recorded_samples, comparison_for_estimate
from hpcfwi.model.survey import Shot
from hpcfwi.model.traces import UsableTraces, staged_record
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
    misfit: MisfitSpec = MisfitSpec()
    stand_in: SleepingShots | None = None  # replaces the kernels in scaling studies
    processing: StagedFile | None = None  # a file, because picks may be many; None: there is none
    source: StagedFile | None = None  # filters of predicted gathers; None: there are none


@dataclass(frozen=True, eq=False)
class _ObservedShot:
    """A cached shot: its processed gather, and the processing of predicted ones."""

    shot: Shot
    recording: TimeAxis  # before the processing
    axis: TimeAxis  # after it
    gather: NDArray
    processing: Chain

    @property
    def nbytes(self) -> int:
        return int(self.gather.nbytes) + self.processing.nbytes


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
            self.processing = Processing() if context.processing is None else load(context.processing, "processing")
        self.use_source(context.source)
        self.misfit = load_misfit(context.misfit)
        self._model = ("", True)
        self._shots: OrderedDict[str, _ObservedShot] = OrderedDict()
        self._threads_unknown = self.engine.runs_kernels
        self._reported = ""
        # time spent so far on loading models, observed data and the solver
        self.model_seconds = self.data_seconds = 0.0
        self.solver_seconds = time.perf_counter() - started
        self.log_event(Solver, seconds=self.solver_seconds, **facts)

    def use_source(self, filters: StagedFile | None) -> None:
        """Load filters of predicted gathers; with None, gathers are not filtered."""
        self.source = SourceFilters() if filters is None else load(filters, "source")
        self.context = replace(self.context, source=filters)

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
        known, recording = self._shots.get(shot.digest), self.context.sampling.compared(axis)
        if known is not None and known.recording == recording:
            self._shots.move_to_end(shot.digest)
            return known
        started = time.perf_counter()
        usable = self.recorded(name, shot, axis)
        processing = usable.processing(self.processing, recording, self.context.spec.dtype)
        gather = processing.observed.apply(usable.record)
        found = _ObservedShot(usable.shot, recording, processing.axis, gather, processing.predicted)
        self._shots[shot.digest] = found
        kept_bytes = sum(kept.nbytes for kept in self._shots.values())
        while len(self._shots) > 1 and kept_bytes > self.context.cache_bytes:
            kept_bytes -= self._shots.popitem(last=False)[1].nbytes
        self.data_seconds += time.perf_counter() - started
        return found

    def recorded(self, name: str, shot: StagedFile, axis: TimeAxis) -> UsableTraces:
        """Read a staged shot, before the processing, at the samples at which predictions on a time axis are compared."""
        content = load(shot, "shot")
        staged = Shot(name, content["source"], content["receivers"])
        usable = UsableTraces.of(staged, {**content, "record": staged_record(staged, content)})
        return replace(usable, record=self.context.sampling.observed(usable.record, axis, self.context.spec.dtype))

    def compared(self, name: str, shot: StagedFile, axis: TimeAxis) -> tuple[_ObservedShot, NDArray]:
        """A staged shot, and its prediction in the current model, as the misfit compares them."""
        observed = self.observed(name, shot, axis)
        return observed, observed.processing.apply(self.predict(observed.shot, axis))

    def born(self, name: str, shot: StagedFile, axis: TimeAxis, direction: NDArray) -> NDArray:
        """Derivative of the processed gather of a staged shot at the current model, in the direction of a change of m."""
        observed = self.observed(name, shot, axis)
        chain = self._chain(name, observed, axis)
        derivative: Operator | None = chain.operator
        if derivative is None:
            _, derivative = chain.linearise(self.engine.record(observed.shot, axis))
        return derivative.apply(self.engine.born(observed.shot, axis, direction))

    def born_adjoint(self, name: str, shot: StagedFile, axis: TimeAxis, gather: NDArray) -> FunctionalGradient:
        """The transpose of :meth:`born`, applied to a processed gather; its misfit is 0."""
        return self._pull_back(name, self.observed(name, shot, axis), axis, lambda _: (0.0, gather))

    def gauss_newton(self, name: str, shot: StagedFile, axis: TimeAxis, direction: NDArray) -> FunctionalGradient:
        """The transpose of :meth:`born`, applied to its result; the misfit is half the sum of squares of that."""
        observed = self.observed(name, shot, axis)
        scattered = self.engine.born(observed.shot, axis, direction)

        def weight(derivative: Operator) -> tuple[float, NDArray]:
            processed = derivative.apply(scattered)
            return 0.5 * float(np.square(processed, dtype=np.float64).sum()), processed

        return self._pull_back(name, observed, axis, weight)

    def _pull_back(
        self,
        name: str,
        observed: _ObservedShot,
        axis: TimeAxis,
        data: Callable[[Operator], tuple[float, NDArray]],
    ) -> FunctionalGradient:
        """Apply the transposed derivative at the current model to a gather that may depend on the processing's derivative."""
        chain = self._chain(name, observed, axis)

        def compare(predicted: NDArray) -> tuple[float, NDArray]:
            _, derivative = chain.linearise(predicted)
            value, gather = data(derivative)
            return value, derivative.transpose(gather)

        value, g = self.engine.misfit_and_gradient(observed.shot, axis, compare)
        self._report_trouble()
        return FunctionalGradient(value, g, self.engine.window(observed.shot))

    def _report_trouble(self) -> None:
        """Log what went wrong with the storage of the wavefield, once."""
        if self.engine.trouble != self._reported:
            self._reported = self.engine.trouble
            self.log_event(RunWarning, message=self._reported)

    def compare_unfiltered(
        self, name: str, shot: StagedFile, axis: TimeAxis, max_offset: float | None
    ) -> GatherComparison:
        """Compare a staged shot with its prediction in the current model without source filters, to estimate them."""
        traces, dtype = self.recorded(name, shot, axis), self.context.spec.dtype
        predicted = self._at_recorded_samples(None, axis).apply(self.engine.record(traces.shot, axis))
        return comparison_for_estimate(traces, predicted, self.processing, self.context.sampling, dtype, max_offset)

    def predict(self, shot: Shot, axis: TimeAxis) -> NDArray:
        """Return a gather in the current model at the samples of observed ones, before the processing."""
        return self._at_recorded_samples(shot.name, axis).apply(self.engine.record(shot, axis))

    def synthetic(self, shot: Shot, axis: TimeAxis) -> NDArray:
        """Return a gather as it would be observed in the current model."""
        return self.context.sampling.synthetic(self.engine.record(shot, axis), axis, self.context.spec.dtype)

    def evaluate(self, name: str, model: StagedFile, shot: StagedFile, axis: TimeAxis) -> FunctionalGradient:
        """Return misfit and gradient of a shot; the first call logs the number of busy threads and their CPUs."""
        with observed_threads() if self._threads_unknown else nullcontext() as use:
            self.use_model(model)
            observed = self.observed(name, shot, axis)
            processing = self._chain(name, observed, axis)
            compare = ShotMisfit(
                name, self.context.misfit.kind, self.misfit, processing, observed.gather, observed.axis
            )
            try:
                f, g = self.engine.misfit_and_gradient(observed.shot, axis, compare)
            except RunError as error:
                raise RunError(f"shot {name}: {error}") from None
        self._report_trouble()
        if use is not None:
            self._threads_unknown = False
            self.log_event(ThreadPlacement, threads=use.threads, cpus=format_ranges(use.cpus), shot=name)
        return FunctionalGradient(f, g, self.engine.window(observed.shot))

    def _chain(self, name: str, observed: _ObservedShot, axis: TimeAxis) -> Chain:
        """From predictions on a time axis to the gathers that the misfit compares."""
        return Chain((self._at_recorded_samples(name, axis), *observed.processing.transforms))

    def _at_recorded_samples(self, name: str | None, axis: TimeAxis) -> Operator:
        """From predictions to the samples of observed gathers, with the source filter of a shot."""
        source = None if name is None else self.source.of(name)
        return at_recorded_samples(self.context.sampling, source, axis, self.context.spec.dtype)
