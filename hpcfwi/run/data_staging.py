"""Staging of the observed data of a run, and the record of what is left out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcfwi.artifacts import StagedFile, read_header
from hpcfwi.events import types as events
from hpcfwi.io import format_ranges
from hpcfwi.model.survey import list_names
from hpcfwi.run.session import Session


def stage_data(session: Session) -> list[StagedFile]:
    """Model or read the observed data of each shot and stage them, in the order of the survey."""
    from hpcfwi.inversion.objective import observe

    started, problem, log = time.perf_counter(), session.problem, session.log
    files = problem.config.data.files
    log.write(events.StagingData(shots=len(problem.survey)))
    shots = observe(problem, session.operations, session.tasks, session.folder.staged)
    left_out = size = ""
    if files:  # the journal depends on the records of the first start
        headers = [read_header(Path(shot.path)) or {} for shot in shots]
        session.folder.claim_data({str(header.get("shot")): str(header.get("record")) for header in headers})
        left_out = _log_left_out(session, headers)
        size = f", {sum(int(header.get('bytes') or 0) for header in headers) / 1e6:.3g} MB of disk"
    seconds = time.perf_counter() - started
    log.write(events.DataStaged(shots=len(shots), seconds=seconds))
    made = f"read from {list_names([str(file) for file in files])}" if files else "modelled in the true model"
    session.print_line(f"observed data of {len(shots)} shots {made} ({seconds:.1f} s{size})")
    if left_out:
        session.print_line(left_out)
    return shots


def _log_left_out(session: Session, headers: Sequence[dict[str, Any]]) -> str:
    """Log which traces are left out, from the headers of staged shots and the selection; returns a summary."""
    observations = session.problem.observations
    selection = observations.selection
    listed = {
        shot: {reason: format_ranges(traces) for reason, traces in selection.left_out[shot].items()}
        for shot in selection.shots
    }
    listed |= {str(header.get("shot")): header.get("left_out") or {} for header in headers}
    counts: Counter[str] = Counter()
    for shot, reasons in listed.items():
        if reasons:
            event = events.TracesLeftOut(shot=shot, reasons=reasons)
            session.log.write(event)
            counts.update(event.counts())
    if not counts:
        return ""
    total = int(observations.stored.receiver_counts.sum())
    each = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return f"{counts.total()} of {total} traces are left out ({each}); events.jsonl and the report list them"
