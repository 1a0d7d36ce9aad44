"""What may stand in the event log: every kind of event with its facts, and the meaning of each fact.

``python -m hpcfwi.reporting.schema`` prints a JSON Schema of one line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["EVENTS", "FACTS", "SCHEMA", "Fact", "Kind", "event_schema"]

# Of the log's first line, and the first of every start. It changes when a fact changes its meaning or goes, not when one
# is added: readers leave aside what they do not know.
SCHEMA = 1


@dataclass(frozen=True)
class Fact:
    """A fact, which means the same in every event that has it.

    Parameters
    ----------
    kind
        Type in JSON: ``"text"``, ``"number"``, ``"integer"``, ``"boolean"``, ``"texts"`` or ``"object"``.
    meaning
        What it is, with its unit.
    """

    kind: str
    meaning: str


@dataclass(frozen=True)
class Kind:
    """A kind of event.

    Parameters
    ----------
    meaning
        What has happened.
    facts
        Facts that it always has.
    more
        Facts that it may have, too.
    """

    meaning: str
    facts: tuple[str, ...] = ()
    more: tuple[str, ...] = ()


FACTS: dict[str, Fact] = {
    "time": Fact("number", "time, s since 1970, by the clock of the host that recorded the event"),
    "event": Fact("text", "kind of event"),
    "schema": Fact("integer", "version of this table"),
    "segment": Fact("integer", "number of this file of the log; 1 is the oldest"),
    # starts
    "version": Fact("text", "version of hpcfwi"),
    "versions": Fact("object", "versions of Python and of the libraries, by name"),
    "problem": Fact("text", "digest of everything that the results depend on"),
    "site": Fact("text", "name of the site"),
    "launch": Fact("text", "how workers start: `local`, `jobs` or `allocation`"),
    "layout": Fact("text", "processes, threads and memory on a node, in words"),
    "job": Fact("text", "number of a job; in `start`, the batch job of the driver"),
    "began": Fact("number", "start of the process, s since 1970"),
    "job_began": Fact("number", "start of the script of its job, s since 1970"),
    "planned": Fact("integer", "number of worker processes that the run wants"),
    "nodes_planned": Fact("integer", "number of nodes, or worker jobs, that the run wants"),
    "threads": Fact("integer", "OpenMP threads of a worker process"),
    "cores": Fact("integer", "cores of a worker process"),
    "iterations": Fact("integer", "in `start`, the maximum number of iterations; else the number so far"),
    "evaluations": Fact("integer", "evaluations so far, replayed ones included"),
    "stand_in": Fact("text", "what replaces the kernels in a study, in words"),
    "address": Fact("text", "address of the dashboard for a browser"),
    "command": Fact("text", "a command; in `dashboard`, the one that makes the address work on another machine"),
    # who
    "host": Fact("text", "short name of a host, as `hostname -s` prints it"),
    "worker": Fact("text", "address of a worker in Dask; in events of jobs, name of its worker"),
    "name": Fact("text", "name of a worker in Dask"),
    "pid": Fact("integer", "process number"),
    "node": Fact("text", "a node of the allocation"),
    "nodes": Fact("text", "nodes of a job"),
    "count": Fact("integer", "number of workers"),
    "scheduler": Fact("text", "address of the scheduler in Dask"),
    # jobs
    "state": Fact("text", "`submitted`, `pending`, `running` or `ended`"),
    "word": Fact("text", "the state in the words of the batch system"),
    "reason": Fact("text", "reason, in words"),
    "jobs": Fact("texts", "numbers of jobs"),
    "code": Fact("integer", "exit code of a command"),
    "message": Fact("text", "message, in words"),
    "log": Fact("text", "end of a log"),
    "left": Fact("number", "seconds until the time limit of a job"),
    "excluded": Fact("boolean", "whether the job is on a node that gets no more shots"),
    "again": Fact("boolean", "whether the workers of the node are started again"),
    "had_worker": Fact("boolean", "whether a worker has come from the job"),
    # shots and evaluations
    "shot": Fact("text", "name of a shot"),
    "shots": Fact("integer", "number of shots"),
    "failed": Fact("texts", "names of the shots that failed on the host"),
    "total": Fact("integer", "number of all shots"),
    "evaluation": Fact("integer", "number of an evaluation of misfit and gradient; 1 is the initial model"),
    "number": Fact("integer", "the same as `evaluation`"),
    "iteration": Fact("integer", "number of an iteration; 0 is the initial model"),
    "misfit": Fact("number", "misfit of a shot, or summed over all shots"),
    "initial_misfit": Fact("number", "misfit of evaluation 1"),
    "gradient_norm": Fact("number", "two-norm of the gradient"),
    "model_error": Fact("number", "norm(vp - vp_true) / norm(vp_true)"),
    "m_error": Fact("number", "norm of the element-wise relative error of the squared slowness"),
    "replayed": Fact("boolean", "whether the answer came from the journal"),
    "drift": Fact("number", "relative difference between the model and the one in the journal"),
    "staged": Fact("boolean", "whether an earlier start staged the shot"),
    "key": Fact("text", "key of a task in Dask"),
    "limit": Fact("number", "seconds that the task may take"),
    "task": Fact("text", "function that failed"),
    "traceback": Fact("text", "traceback of the error"),
    "error": Fact("text", "class of the error"),
    "cpus": Fact("text", "CPUs that the threads ran on"),
    "machine": Fact("object", "what the last bits of results depend on: processor and libraries"),
    "differences": Fact("texts", "how the machine differs from the one that the staged solver was built for"),
    "built": Fact("boolean", "whether the solver was built and compiled, not found"),
    "source": Fact("text", "where the solver comes from"),
    "digest": Fact("text", "digest of a staged file"),
    "starts": Fact("integer", "starts of the batch job so far"),
    "in_vain": Fact("integer", "starts that completed nothing, in all"),
    "left_out": Fact("text", "shots that are left out, in words; else empty"),
    "irreproducible": Fact("text", "why the last bits may differ from run to run, in words; else empty"),
    "peak_memory": Fact("integer", "largest memory of the process so far, bytes"),
    "file": Fact("text", "path in the run folder"),
    "summary": Fact("object", "summary of the older files of the log, for readers of this file alone"),
    # seconds
    "seconds": Fact("number", "duration, s"),
    "kernel_seconds": Fact("number", "part of it: Devito's kernels, s"),
    "solver_seconds": Fact("number", "part of it: loading or building the solver, s"),
    "model_seconds": Fact("number", "part of it: loading or staging the model, s"),
    "data_seconds": Fact("number", "part of it: reading and resampling observed data, s"),
    "shots_seconds": Fact("number", "part of it: until the last shot arrived, s"),
    "sum_seconds": Fact("number", "part of it: from the last shot to the sum, s"),
    "journal_seconds": Fact("number", "part of it: reading or writing the journal, s"),
    "optimiser_seconds": Fact("number", "part of it: the optimiser itself, s"),
    "writing_seconds": Fact("number", "part of it: writing iterations and their models, s"),
    "cpu_seconds": Fact("number", "CPU time of the driver's process, with Dask's scheduler, for shots and sum, s"),
    "in_one_task": Fact("integer", "number of shots per task"),
    "step_seconds": Fact("number", "wall time of an iteration, s"),
    "elapsed_seconds": Fact("number", "wall time of all iterations so far, s"),
    "core_hours": Fact("number", "cores of the workers times the hours for which they were held, over all starts"),
}

EVENTS: dict[str, Kind] = {
    # the log and the driver
    "log": Kind("First line of each file of the log, and of each start.", ("schema", "segment")),
    "so far": Kind("Summary of the older files of the log.", ("summary",)),
    "start": Kind(
        "A driver starts or continues the run.",
        ("version", "problem", "layout", "launch", "site", "host", "pid", "began", "planned", "shots", "iterations"),
        ("versions", "job", "nodes_planned", "threads", "cores", "stand_in"),
    ),
    "dashboard": Kind("Dask's dashboard is available.", ("address",), ("command",)),
    "warning": Kind(
        "Something needs attention; the run continues.", ("message",), ("traceback", "host", "worker", "pid")
    ),
    "interrupted": Kind("The run stops early and can be continued.", ("reason",)),
    "stopped": Kind("The run failed.", ("error", "message"), ("traceback",)),
    "requeue": Kind("The batch job was requeued, or the reason why not.", ("starts", "in_vain", "message")),
    "optimised": Kind(
        "The optimiser ended.",
        ("seconds", "iterations", "evaluations", "message"),
        ("optimiser_seconds", "writing_seconds"),
    ),
    "figures": Kind("The pictures were drawn.", ("seconds",)),
    "report": Kind("The report was written.", ("seconds", "file")),
    "done": Kind(
        "The run is done.",
        ("seconds", "iterations", "evaluations", "misfit", "initial_misfit", "message", "left_out", "irreproducible"),
        ("model_error", "core_hours"),
    ),
    "closed": Kind("All workers have ended. The last event of a driver.", ("seconds", "core_hours")),
    # where workers come from
    "job": Kind(
        "A worker job was submitted, or changed its state.", ("job", "worker", "state"), ("word", "reason", "nodes")
    ),
    "job refused": Kind("The batch system rejected a worker job.", ("worker", "command", "code", "message")),
    "job draining": Kind("A worker job gets no more shots; another job follows.", ("job", "left", "nodes", "excluded")),
    "job drained": Kind("A worker job has completed its last shots.", ("job",)),
    "job lost": Kind("A worker job ended early.", ("job", "reason", "had_worker", "log")),
    "jobs left over": Kind("Jobs of an earlier driver still exist.", ("jobs",)),
    "node lost": Kind("The workers of a node of the allocation ended.", ("node", "code", "again", "log")),
    "start failed": Kind("A local worker died during its start.", ("reason",)),
    # workers
    "workers": Kind("The first workers arrived.", ("count", "scheduler")),
    "worker came": Kind(
        "A worker arrived.", ("worker", "host", "name"), ("pid", "threads", "cores", "began", "job_began")
    ),
    "worker left": Kind("A worker has gone.", ("worker", "host", "name")),
    "worker died": Kind("A worker process ended unexpectedly.", ("worker", "host", "pid", "reason")),
    "worker silent": Kind("A worker sent no heartbeat for a while.", ("worker", "host", "seconds")),
    "worker put out": Kind("A worker that hangs is restarted.", ("worker", "host")),
    "host excluded": Kind("A host gets no more shots.", ("host", "failed")),
    "host taken back": Kind("An excluded host gets shots again, since there is no other.", ("host", "failed")),
    "solver": Kind(
        "A process has its solver.",
        ("seconds", "source"),
        ("built", "digest", "differences", "host", "worker", "pid", "machine"),
    ),
    "threads": Kind(
        "Threads and CPUs that the kernels of a worker really use.",
        ("host", "worker", "pid", "threads", "cpus", "shot"),
    ),
    # data
    "observing": Kind("Workers begin to read or model the observed data.", ("shots",)),
    "staged": Kind(
        "The observed data of a shot are staged.",
        ("host", "worker", "pid", "shot", "seconds"),
        ("staged", "solver_seconds"),
    ),
    "observed": Kind("The observed data of all shots are staged.", ("shots", "seconds")),
    # evaluations
    "evaluating": Kind("The shots of an evaluation begin.", ("evaluation", "shots")),
    "found": Kind("Sums of an unfinished evaluation were found on disk.", ("shots", "total")),
    "shot": Kind(
        "A shot of an evaluation is done.",
        ("host", "worker", "pid", "shot", "evaluation", "misfit", "seconds", "kernel_seconds", "peak_memory"),
        ("solver_seconds", "model_seconds", "data_seconds"),
    ),
    "failure": Kind("A task failed.", ("task", "traceback", "host", "worker", "pid")),
    "overdue": Kind("A task takes far longer than others.", ("key", "worker", "seconds", "limit")),
    "retry": Kind("A shot is started again on another worker.", ("shot", "worker", "reason")),
    "shot lost": Kind("A shot is left out, and the inversion begins again.", ("shot", "reason")),
    "evaluation": Kind(
        "An evaluation is done.",
        ("evaluation", "number", "misfit", "seconds", "replayed", "drift"),
        ("model_seconds", "shots_seconds", "sum_seconds", "journal_seconds", "cpu_seconds", "in_one_task"),
    ),
    "iteration": Kind(
        "An iteration is done.",
        ("iteration", "evaluations", "misfit", "gradient_norm", "step_seconds", "elapsed_seconds"),
        ("model_error", "m_error", "replayed"),
    ),
}

TYPES: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "object": {"type": "object"},
}
# Of every event.
ALWAYS = ("time", "event")
# Facts that may be null: what a scheduler or the optimiser does not tell.
UNTOLD = {"left", "model_error", "m_error"}


def event_schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) of one line of the event log; strict: it knows every event and every fact."""
    kinds = [
        {
            "title": name,
            "description": kind.meaning,
            "type": "object",
            "properties": {
                "event": {"const": name},
                **{fact: _property(fact) for fact in ("time", *kind.facts, *kind.more)},
            },
            "required": [*ALWAYS, *kind.facts],
            "additionalProperties": False,
        }
        for name, kind in EVENTS.items()
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"an event of hpcfwi, schema {SCHEMA}",
        "oneOf": kinds,
    }


def _property(fact: str) -> dict[str, Any]:
    kind = TYPES[FACTS[fact].kind]
    told = {"anyOf": [kind, {"type": "null"}]} if fact in UNTOLD else kind
    return {**told, "description": FACTS[fact].meaning}


if __name__ == "__main__":
    print(json.dumps(event_schema(), indent=1))
