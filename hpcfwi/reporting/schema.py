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
    "time": Fact("number", "when, s since 1970, by the clock of the host that tells it"),
    "event": Fact("text", "what has happened"),
    "schema": Fact("integer", "version of this table"),
    "segment": Fact("integer", "number of this file of the log; 1 is the oldest"),
    # starts
    "version": Fact("text", "of hpcfwi"),
    "versions": Fact("object", "of Python and of the libraries, by their names"),
    "problem": Fact("text", "digest of all that the answers depend on"),
    "site": Fact("text", "name of the site"),
    "launch": Fact("text", "how workers are started: `local`, `jobs` or `allocation`"),
    "layout": Fact("text", "how a node is divided, in words"),
    "job": Fact("text", "number of a job; of a start, that of the batch job that the driver is in"),
    "began": Fact("number", "when its process began, s since 1970"),
    "job_began": Fact("number", "when the script of its job began, s since 1970"),
    "planned": Fact("integer", "worker processes that are wanted"),
    "nodes_planned": Fact("integer", "nodes, or worker jobs, that are wanted"),
    "threads": Fact("integer", "OpenMP threads of a worker process"),
    "cores": Fact("integer", "cores of a worker process"),
    "iterations": Fact("integer", "of a start, the limit; else how many there were"),
    "evaluations": Fact("integer", "evaluations so far, replayed ones included"),
    "stand_in": Fact("text", "what stands in for the kernels in a study, in words"),
    "address": Fact("text", "of the dashboard in a browser"),
    "command": Fact("text", "a command; of the dashboard, what leads there from another machine"),
    # who
    "host": Fact("text", "short name of a host, as `hostname -s` prints it"),
    "worker": Fact("text", "Dask's address of a worker; of a job's events, the name of its worker"),
    "name": Fact("text", "Dask's name of a worker"),
    "pid": Fact("integer", "number of a process"),
    "node": Fact("text", "a node of the allocation"),
    "nodes": Fact("text", "nodes of a job"),
    "count": Fact("integer", "how many"),
    "scheduler": Fact("text", "Dask's address of the scheduler"),
    # jobs
    "state": Fact("text", "`submitted`, `pending`, `running` or `ended`; of a run, see `hpcfwi status`"),
    "word": Fact("text", "the batch system's own word for the state"),
    "reason": Fact("text", "why, in words"),
    "jobs": Fact("texts", "numbers of jobs"),
    "code": Fact("integer", "exit code of a command"),
    "message": Fact("text", "what is told of it"),
    "log": Fact("text", "the end of a log"),
    "left": Fact("number", "seconds until a job's limit"),
    "excluded": Fact("boolean", "whether it is on a node that gets no more shots"),
    "again": Fact("boolean", "whether it is started again"),
    "had_worker": Fact("boolean", "whether a worker has come from it"),
    # shots and evaluations
    "shot": Fact("text", "name of a shot"),
    "shots": Fact("integer", "how many shots"),
    "failed": Fact("texts", "names of the shots that failed there"),
    "total": Fact("integer", "shots in all"),
    "evaluation": Fact("integer", "number of an evaluation of misfit and gradient; 1 is the initial model"),
    "number": Fact("integer", "the same"),
    "iteration": Fact("integer", "number of an iteration; 0 is the initial model"),
    "misfit": Fact("number", "of a shot, or summed over all"),
    "initial_misfit": Fact("number", "that of evaluation 1"),
    "gradient_norm": Fact("number", "two-norm of the gradient"),
    "model_error": Fact("number", "norm(vp - vp_true) / norm(vp_true)"),
    "m_error": Fact("number", "norm of the element-wise relative error of the squared slowness"),
    "replayed": Fact("boolean", "whether the journal had the answer"),
    "drift": Fact("number", "relative difference of the model from that of the journal's answer"),
    "staged": Fact("boolean", "whether an earlier start has staged it"),
    "key": Fact("text", "Dask's key of a task"),
    "limit": Fact("number", "seconds that it may take"),
    "task": Fact("text", "function that was at work"),
    "traceback": Fact("text", "where in the code"),
    "error": Fact("text", "class of an error"),
    "cpus": Fact("text", "CPUs that threads ran on"),
    "machine": Fact("object", "what tells kinds of machines apart"),
    "differences": Fact("texts", "how its machine differs from the one that the staged solver is for"),
    "built": Fact("boolean", "whether the solver was built and compiled, and not found"),
    "source": Fact("text", "who has built or found the solver, or where"),
    "digest": Fact("text", "of a staged file"),
    "starts": Fact("integer", "starts of the batch job so far"),
    "in_vain": Fact("integer", "those in a row that finished nothing"),
    "left_out": Fact("text", "shots that are not in the sums, in words; else empty"),
    "irreproducible": Fact("text", "why the last bits may differ from run to run, in words; else empty"),
    "peak_memory": Fact("integer", "most memory of the process so far, bytes"),
    "file": Fact("text", "path in the run folder"),
    "summary": Fact("object", "what the older files of the log come to, for readers of this one alone"),
    # seconds
    "seconds": Fact("number", "how long it took, s"),
    "kernel_seconds": Fact("number", "of it, Devito's kernels, s"),
    "solver_seconds": Fact("number", "of it, loading or building the solver, s"),
    "model_seconds": Fact("number", "of it, loading the model, or staging it, s"),
    "data_seconds": Fact("number", "of it, reading and resampling observed data, s"),
    "shots_seconds": Fact("number", "of it, until the last shot was there, s"),
    "sum_seconds": Fact("number", "of it, from the last shot to the sum of all, s"),
    "journal_seconds": Fact("number", "of it, looking the answer up in the journal, or writing it there, s"),
    "optimiser_seconds": Fact("number", "of it, the optimiser's own, s"),
    "writing_seconds": Fact("number", "of it, writing down iterations and their models, s"),
    "cpu_seconds": Fact(
        "number", "time on a CPU of the driver's process, Dask's scheduler included, for shots and sum, s"
    ),
    "in_one_task": Fact("integer", "shots that a task computed"),
    "step_seconds": Fact("number", "wall time of an iteration, s"),
    "elapsed_seconds": Fact("number", "wall time of all iterations so far, s"),
    "core_hours": Fact("number", "cores of workers times the hours for which they were held, all starts together"),
}

EVENTS: dict[str, Kind] = {
    # the log and the driver
    "log": Kind("The log goes on: the first line of each file, and of each start.", ("schema", "segment")),
    "so far": Kind("What older files of the log say, in short.", ("summary",)),
    "start": Kind(
        "A driver begins, or goes on.",
        ("version", "problem", "layout", "launch", "site", "host", "pid", "began", "planned", "shots", "iterations"),
        ("versions", "job", "nodes_planned", "threads", "cores", "stand_in"),
    ),
    "dashboard": Kind("Dask's dashboard can be looked at.", ("address",), ("command",)),
    "warning": Kind("Something may not be as wished.", ("message",), ("traceback", "host", "worker", "pid")),
    "interrupted": Kind("The run stops early and can be continued.", ("reason",)),
    "stopped": Kind("The run has failed.", ("error", "message"), ("traceback",)),
    "requeue": Kind("The batch job starts again.", ("starts", "in_vain", "message")),
    "optimised": Kind(
        "The optimiser has ended.",
        ("seconds", "iterations", "evaluations", "message"),
        ("optimiser_seconds", "writing_seconds"),
    ),
    "figures": Kind("Pictures were drawn.", ("seconds",)),
    "report": Kind("The report was written.", ("seconds", "file")),
    "done": Kind(
        "The run is done.",
        ("seconds", "iterations", "evaluations", "misfit", "initial_misfit", "message", "left_out", "irreproducible"),
        ("model_error", "core_hours"),
    ),
    "closed": Kind("All workers are gone; the driver's last event.", ("seconds", "core_hours")),
    # where workers come from
    "job": Kind(
        "A worker job is submitted, or has changed its state.", ("job", "worker", "state"), ("word", "reason", "nodes")
    ),
    "job refused": Kind("The batch system takes a job not.", ("worker", "command", "code", "message")),
    "job draining": Kind("A worker job gets no more shots, another follows.", ("job", "left", "nodes", "excluded")),
    "job drained": Kind("Its last shots are done.", ("job",)),
    "job lost": Kind("A worker job has ended before its time.", ("job", "reason", "had_worker", "log")),
    "jobs left over": Kind("Jobs of an earlier driver are still there.", ("jobs",)),
    "node lost": Kind("The workers of a node of the allocation have ended.", ("node", "code", "again", "log")),
    "start failed": Kind("A local worker died while it started.", ("reason",)),
    # workers
    "workers": Kind("The first workers are there.", ("count", "scheduler")),
    "worker came": Kind(
        "A worker is there.", ("worker", "host", "name"), ("pid", "threads", "cores", "began", "job_began")
    ),
    "worker left": Kind("A worker is gone.", ("worker", "host", "name")),
    "worker died": Kind("A worker process has ended by itself.", ("worker", "host", "pid", "reason")),
    "worker silent": Kind("A worker has not been heard of for a while.", ("worker", "host", "seconds")),
    "worker put out": Kind("A worker that hangs is ended.", ("worker", "host")),
    "host excluded": Kind("A host gets no more shots.", ("host", "failed")),
    "host taken back": Kind("It does again, since there is no other.", ("host", "failed")),
    "solver": Kind(
        "A process has its solver.",
        ("seconds", "source"),
        ("built", "digest", "differences", "host", "worker", "pid", "machine"),
    ),
    "threads": Kind("Where the kernels of a worker really run.", ("host", "worker", "pid", "threads", "cpus", "shot")),
    # data
    "observing": Kind("Observed data are being made or read.", ("shots",)),
    "staged": Kind(
        "Those of a shot are staged.", ("host", "worker", "pid", "shot", "seconds"), ("staged", "solver_seconds")
    ),
    "observed": Kind("Those of all are.", ("shots", "seconds")),
    # evaluations
    "evaluating": Kind("The shots of an evaluation begin.", ("evaluation", "shots")),
    "found": Kind("Sums of an evaluation that an earlier start has left are used.", ("shots", "total")),
    "shot": Kind(
        "A shot of an evaluation is done.",
        ("host", "worker", "pid", "shot", "evaluation", "misfit", "seconds", "kernel_seconds", "peak_memory"),
        ("solver_seconds", "model_seconds", "data_seconds"),
    ),
    "failure": Kind("A task has failed.", ("task", "traceback", "host", "worker", "pid")),
    "overdue": Kind("A task takes far longer than others.", ("key", "worker", "seconds", "limit")),
    "retry": Kind("A shot is started again elsewhere.", ("shot", "worker", "reason")),
    "shot lost": Kind("A shot is left out, and the inversion begins anew.", ("shot", "reason")),
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
