"""The kinds of events, in the order of a run.

Writers construct a class, readers get the same class back::

    log.write(ShotRetried(shot="12", worker="tcp://10.0.0.7:4000", reason="its worker died"))
    for event in read_events(path):
        match event:
            case ShotDone(shot=name, seconds=seconds):
                print(name, seconds)
"""

from typing import Annotated, Any

from hpcfwi.events import event as f
from hpcfwi.events.event import EVENTS, SCHEMA, Event, event_schema, parse_event  # noqa: F401 - re-exported
from hpcfwi.io import count_ranges


class _AboutWorker(Event):
    worker: f.Worker
    host: f.Host


class _OnWorker(_AboutWorker):
    pid: f.Pid


class LogSegment(Event):
    """The first line of each file of the log, and of each start."""

    schema: Annotated[int, f.about("version of the event format")]
    segment: Annotated[int, f.about("number of this file of the log; 1 is the oldest", ge=1, le=9_999)]


class Summary(Event):
    """The state of the run after the older files of the log, for readers of the last file alone."""

    summary: Annotated[dict[str, Any], f.about("the state of the run, from `RunState.summary`")]


class RunStarted(Event, name="start"):
    """A driver begins or continues a run."""

    version: Annotated[str, f.about("version of hpcfwi")]
    problem: Annotated[str, f.about("digest of everything that the results depend on")]
    layout: Annotated[str, f.about("how a node is divided among worker processes, in words")]
    launch: Annotated[str, f.about("how workers are started: `local`, `jobs` or `allocation`")]
    site: Annotated[str, f.about("name of the site, or path of its file")]
    host: f.Host
    pid: f.Pid
    command_start: Annotated[float, f.about("when the user's command began, s since 1970", ge=0, lt=1e10)]
    workers_planned: Annotated[f.Count, f.about("planned worker processes")]
    shots: f.Shots
    iterations: f.Iterations
    versions: Annotated[dict[str, str] | None, f.about("versions of Python and of the libraries")] = None
    job: f.Job | None = None
    nodes_planned: Annotated[f.Count | None, f.about("nodes, or worker jobs, that the run wants")] = None
    threads: f.Threads | None = None
    cores: f.Cores | None = None
    wavefield: Annotated[str | None, f.about("how the gradient gets the forward wavefield: solver.wavefield")] = None
    stand_in: Annotated[str | None, f.about("what replaces the kernels in a scaling study")] = None
    options: Annotated[list[str] | None, f.about("options of the command for the site and its workers")] = None
    opened: Annotated[bool | None, f.about("whether a program has opened the objective (`hpcfwi.open_objective`)")] = (
        None
    )


class Dashboard(Event):
    """Dask's dashboard is open."""

    address: Annotated[str, f.about("address of the dashboard for a browser")]
    command: f.Command | None = None


class RunWarning(Event, name="warning"):
    """A warning for the user."""

    message: f.Message
    traceback: f.Traceback | None = None
    host: f.Host | None = None
    worker: f.Worker | None = None
    pid: f.Pid | None = None


class RunInterrupted(Event, name="interrupted"):
    """The run stops early and can be continued."""

    reason: f.Reason


class RunFailed(Event, name="failed"):
    """The run has failed."""

    error: Annotated[str, f.about("class of the error")]
    message: f.Message
    traceback: f.Traceback | None = None


class Requeued(Event, name="requeue"):
    """The batch job was requeued, or could not be."""

    starts: Annotated[f.Count, f.about("starts of the batch job so far")]
    fruitless_starts: Annotated[f.Count, f.about("starts that finished nothing")]
    message: f.Message


class Optimised(Event):
    """The optimiser has ended."""

    seconds: f.Seconds
    iterations: f.Iterations
    evaluations: f.Evaluations
    message: f.Message
    optimiser_seconds: Annotated[f.Duration, f.about("part of `seconds`: the optimiser itself, s")] = 0.0
    writing_seconds: Annotated[f.Duration, f.about("part of `seconds`: writing iterations and their models, s")] = 0.0


class Figures(Event):
    """The figures are drawn."""

    seconds: f.Seconds


class Report(Event):
    """The report is written."""

    seconds: f.Seconds
    file: Annotated[str, f.about("path in the run folder")]


class RunDone(Event, name="done"):
    """The run is done."""

    seconds: f.Seconds
    iterations: f.Iterations
    evaluations: f.Evaluations
    misfit: f.Misfit
    initial_misfit: f.InitialMisfit
    message: f.Message
    left_out: Annotated[str, f.about("which shots are not in the sums, in words; empty if all are")]
    irreproducible: Annotated[str, f.about("why the last bits may differ from run to run, in words; else empty")]
    model_error: f.ModelError | None = None
    core_hours: f.CoreHours = 0.0
    stages: f.Stages = 1


class RunClosed(Event, name="closed"):
    """All workers have ended; the driver's last event, unless it requeues its job."""

    seconds: f.Seconds
    core_hours: f.CoreHours


class JobStateChanged(Event, name="job"):
    """A worker job is submitted, or its state has changed."""

    job: f.Job
    worker: f.Worker
    state: Annotated[str, f.about("`submitted`, `pending`, `running` or `ended`")]
    native_state: Annotated[str | None, f.about("the batch system's own word for the state")] = None
    reason: f.Reason | None = None
    nodes: f.Nodes | None = None


class JobRejected(Event):
    """The batch system rejected a worker job."""

    worker: f.Worker
    command: f.Command
    exit_code: f.ExitCode
    message: f.Message


class JobDraining(Event):
    """A worker job gets no more shots, and another job replaces it."""

    job: f.Job
    nodes: f.Nodes
    excluded: Annotated[bool, f.about("whether the job is on a node that gets no more shots")]
    seconds_left: Annotated[float | None, f.about("seconds until the job's time limit")] = None


class JobDrained(Event):
    """The last shots of a draining job are done."""

    job: f.Job


class JobLost(Event):
    """A worker job has ended too early."""

    job: f.Job
    reason: f.Reason
    had_worker: Annotated[bool, f.about("whether a worker of the job has connected")]
    log: f.LogTail


class JobsLeftOver(Event):
    """Jobs of an earlier driver are still in the queue."""

    jobs: Annotated[list[str], f.about("numbers of batch jobs")]


class NodeLost(Event):
    """The workers of a node of the allocation have ended."""

    node: Annotated[str, f.about("a node of the allocation")]
    exit_code: f.ExitCode
    restarted: Annotated[bool, f.about("whether the workers are restarted")]
    log: f.LogTail


class WorkerStartFailed(Event):
    """A local worker died while it started."""

    reason: f.Reason


class FirstWorkers(Event):
    """The first workers are connected."""

    count: Annotated[f.Count, f.about("number of workers")]
    scheduler: Annotated[str, f.about("Dask's address of the scheduler")]


class WorkerJoined(_AboutWorker):
    """A worker is connected."""

    name: f.Name
    pid: f.Pid | None = None
    threads: f.Threads | None = None
    cores: f.Cores | None = None
    process_start: Annotated[float, f.about("when the process began, s since 1970", ge=0, lt=1e10)] | None = None
    job_start: Annotated[float | None, f.about("when the script of its job began, s since 1970", ge=0, lt=1e10)] = None


class WorkerLeft(_AboutWorker):
    """A worker has left."""

    name: f.Name


class WorkerDied(_OnWorker):
    """A worker process has died."""

    reason: f.Reason


class WorkerUnresponsive(_AboutWorker):
    """A worker has sent no heartbeat for a while."""

    seconds: f.Seconds


class WorkerRestarted(_AboutWorker):
    """A worker that hangs is restarted."""


class _AboutHost(Event):
    host: f.Host
    failed_shots: Annotated[list[str], f.about("names of the shots that failed on the host")]


class HostExcluded(_AboutHost):
    """A host gets no more shots, since several have failed on it."""


class HostReadmitted(_AboutHost):
    """An excluded host gets shots again: no other host is left, or the failed shots are excluded, too."""


class Solver(Event):
    """The driver or a worker process has its solver."""

    seconds: f.Seconds
    source: Annotated[str, f.about("`driver`, or the source of a worker's solver")]
    built: Annotated[bool | None, f.about("whether the solver was built and compiled, rather than found")] = None
    digest: Annotated[str | None, f.about("digest of a staged file")] = None
    differences: Annotated[list[str] | None, f.about("differences from the staged solver's machine")] = None
    host: f.Host | None = None
    worker: f.Worker | None = None
    pid: f.Pid | None = None
    machine: Annotated[dict[str, str] | None, f.about("properties that distinguish kinds of machines")] = None


class ThreadPlacement(_OnWorker, name="threads"):
    """The threads that a worker's kernels really have, and the CPUs that they may use."""

    threads: f.Threads
    cpus: Annotated[str, f.about("CPUs that the threads may run on")]
    shot: f.Shot


class StagingData(Event):
    """Observed data are being modelled or read."""

    shots: f.Shots


class ShotStaged(_OnWorker):
    """The observed data of a shot are staged."""

    shot: f.Shot
    seconds: f.Seconds
    staged_before: Annotated[bool | None, f.about("whether an earlier start has staged them")] = None
    solver_seconds: f.SolverSeconds = 0.0


class TracesLeftOut(Event):
    """Some traces of a shot are not used in the misfit."""

    shot: f.Shot
    reasons: Annotated[dict[str, str], f.about("by reason, the numbers of traces in the shot, from 1: `3,17-20`")]

    def counts(self) -> dict[str, int]:
        """Number of traces by reason."""
        return {reason: count_ranges(numbers) for reason, numbers in self.reasons.items()}


class SourceEstimated(Event):
    """The wavelet was estimated from the data."""

    estimate: Annotated[f.Count, f.about("number of the estimate, from 1")]
    filters: Annotated[f.Count, f.about("number of filters: 1, or one for each shot")]
    explained: Annotated[
        float, f.about("share of the observed energy that filtered predictions explain; of shots the mean")
    ]
    condition: Annotated[
        float,
        f.about("largest over smallest predicted amplitude in the band of the observed gathers; of shots the largest"),
    ]
    seconds: f.Seconds
    staged_before: Annotated[bool | None, f.about("whether an earlier start has staged them")] = None


class DataStaged(Event):
    """The observed data of all shots are staged."""

    shots: f.Shots
    seconds: f.Seconds


class EvaluationStarted(Event):
    """The shots of an evaluation begin."""

    evaluation: f.Evaluation
    shots: f.Shots


class SumsFound(Event):
    """An evaluation continues from sums that an earlier start has left."""

    shots: f.Shots
    shots_total: Annotated[f.Count, f.about("shots of the survey")]


class ShotDone(_OnWorker, name="shot"):
    """A shot of an evaluation is done."""

    shot: f.Shot
    evaluation: f.Evaluation
    misfit: f.Misfit
    seconds: f.Seconds
    kernel_seconds: Annotated[f.Duration, f.about("part of `seconds`: Devito's kernels, s")]
    peak_memory: Annotated[f.Count, f.about("largest memory of the process so far, bytes")]
    solver_seconds: f.SolverSeconds = 0.0
    model_seconds: f.ModelSeconds = 0.0
    data_seconds: Annotated[f.Duration, f.about("part of `seconds`: reading and resampling observed data, s")] = 0.0


class OperationStarted(Event):
    """The shots of an operation of an open objective begin."""

    operation: f.Operation
    shots: f.Shots


class OperationOnShot(_OnWorker):
    """An operation of an open objective on a shot is done."""

    operation: f.Operation
    shot: f.Shot
    seconds: f.Seconds
    kernel_seconds: Annotated[f.Duration, f.about("part of `seconds`: Devito's kernels, s")]
    solver_seconds: f.SolverSeconds = 0.0


class OperationDone(Event):
    """An operation of an open objective on all its shots is done."""

    operation: f.Operation
    shots: f.Shots
    seconds: f.Seconds
    replayed: f.Replayed = False


class TaskFailed(_OnWorker):
    """A task has failed."""

    task: Annotated[str, f.about("name of the function that failed")]
    traceback: f.Traceback


class TaskOverdue(Event):
    """A task takes far longer than others of its kind."""

    key: Annotated[str, f.about("Dask's key of a task")]
    worker: f.Worker
    seconds: f.Seconds
    limit_seconds: Annotated[f.Duration, f.about("seconds after which the task counts as overdue")]


class ShotRetried(Event, name="retry"):
    """A shot has failed and is queued again."""

    shot: f.Shot
    worker: f.Worker
    reason: f.Reason


class ShotExcluded(Event):
    """A shot whose attempts all failed is left out, and the inversion starts over without it."""

    shot: f.Shot
    reason: f.Reason


class StageStarted(Event):
    """A stage of the inversion begins."""

    stage: f.Stage
    stages: f.Stages
    title: Annotated[str, f.about("name of the stage, or its band")]
    grid: Annotated[str, f.about("grid points along each axis and the distance between them, in words")]
    shots: f.Shots
    iterations: f.Iterations


class StageDone(Event):
    """A stage of the inversion has ended."""

    stage: f.Stage
    iterations: f.Iterations
    evaluations: f.Evaluations
    initial_misfit: f.InitialMisfit
    misfit: f.Misfit
    message: f.Message


class EvaluationDone(Event, name="evaluation"):
    """An evaluation is done."""

    evaluation: f.Evaluation
    number: Annotated[f.Count, f.about("the same as `evaluation`")]
    misfit: f.Misfit
    seconds: f.Seconds
    replayed: f.Replayed
    drift: Annotated[float, f.about("relative difference between the model and the journal's, where replayed")]
    source_seconds: Annotated[f.Duration, f.about("part of `seconds`: estimating the wavelet, s")] = 0.0
    model_seconds: f.ModelSeconds = 0.0
    shots_seconds: Annotated[f.Duration, f.about("part of `seconds`: until the last shot was done, s")] = 0.0
    sum_seconds: Annotated[f.Duration, f.about("part of `seconds`: from the last shot to the sum of all, s")] = 0.0
    journal_seconds: Annotated[f.Duration, f.about("part of `seconds`: reading or writing the journal, s")] = 0.0
    cpu_seconds: Annotated[f.Duration, f.about("CPU time of driver and scheduler for shots and sum, s")] = 0.0
    shots_per_task: Annotated[f.Count, f.about("shots that a task computes", ge=1)] = 1
    objective: Annotated[float, f.about("misfit and regularisation")] = 0.0
    batch: f.Batch = None


class IterationDone(Event, name="iteration"):
    """An iteration is done."""

    iteration: Annotated[f.Count, f.about("number of an iteration; 0 is the initial model")]
    evaluations: f.Evaluations
    misfit: f.Misfit
    gradient_norm: Annotated[float, f.about("two-norm of the gradient")]
    step_seconds: Annotated[f.Duration, f.about("wall time of the iteration, s")]
    elapsed_seconds: Annotated[f.Duration, f.about("wall time of all iterations so far, s")]
    model_error: f.ModelError | None = None
    m_error: Annotated[float | None, f.about("norm of the element-wise relative error of the squared slowness")] = None
    stage: f.Stage = 1
    replayed: f.Replayed = False
    batch: f.Batch = None
