"""The batch job that the driver itself runs in: how much of its time is left."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping

from hpcfwi.cluster.environment import scrubbed

__all__ = ["pbs_seconds_left", "seconds_left", "slurm_seconds_left"]

# Seconds that a scheduler has to answer.
PATIENCE = 20.0


def seconds_left(environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds until the scheduler ends the job that this process is in; None without a job, a limit or an answer."""
    for name, command, read in (
        ("SLURM_JOB_ID", ["squeue", "--noheader", "--format=%L", "--jobs"], slurm_seconds_left),
        ("PBS_JOBID", ["qstat", "-f"], pbs_seconds_left),
    ):
        job = environment.get(name)
        if job:
            try:
                done = subprocess.run(
                    [*command, job],
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=PATIENCE,
                    env=scrubbed(environment),
                    check=False,
                )
            except (OSError, subprocess.SubprocessError):
                return None
            return read(done.stdout) if done.returncode == 0 else None
    return None


def slurm_seconds_left(text: str) -> float | None:
    """What ``squeue --format=%L`` says: days-hours:minutes:seconds, or a word."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def pbs_seconds_left(text: str) -> float | None:
    """What ``qstat -f`` says of the time that was asked for and of what was used."""
    asked, used = (
        re.search(rf"^\s*{kind}\.walltime = (\d+):(\d+):(\d+)\s*$", text, re.MULTILINE)
        for kind in ("Resource_List", "resources_used")
    )
    if asked is None:
        return None
    limit, spent = (
        float((int(hours) * 60 + int(minutes)) * 60 + int(seconds))
        for hours, minutes, seconds in (
            found.groups() if found is not None else ("0", "0", "0") for found in (asked, used)
        )
    )
    return limit - spent
