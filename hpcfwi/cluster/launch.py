"""Three ways to get workers, chosen by the site and by where we are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hpcfwi.cluster.layout import ResourceRequest, node_layout
from hpcfwi.cluster.pool import Listener, WorkerPool
from hpcfwi.config.site import LaunchOptions, Site
from hpcfwi.errors import InputError

__all__ = ["choose_launch_mode", "launch"]

# What tells that we are in a job, and of which batch system.
IN_A_JOB = {"slurm": "SLURM_JOB_ID", "pbs": "PBS_JOBID"}


def choose_launch_mode(
    site: Site, asked: str | None = None, environment: Mapping[str, str] = os.environ
) -> tuple[str, str]:
    """How workers are started, and why so.

    Raises
    ------
    InputError
        If what was asked for cannot be.
    """
    kind = site.config.scheduler.kind
    inside = next((name for name, variable in IN_A_JOB.items() if environment.get(variable)), None)
    if asked == "jobs" and kind == "none":
        raise InputError(
            f"--launch jobs: the site {site.name} has no batch system (scheduler.kind); choose one with --site, for instance "
            "generic-slurm"
        )
    if asked == "allocation" and inside is None:
        raise InputError("--launch allocation: this is not inside a job; use it under sbatch, salloc, qsub or qsub -I")
    if asked == "jobs" and inside is not None and not site.config.scheduler.submit_from_compute:
        raise InputError(
            f"--launch jobs: {site.name} lets no jobs be submitted from within a job (scheduler.submit_from_compute): start "
            "the driver on a login node, or use --launch allocation"
        )
    if asked is not None:
        return asked, "--launch"
    if kind == "none":
        return "local", f"the site {site.name} has no batch system"
    if inside is not None:
        return "allocation", f"this is job {environment[IN_A_JOB[inside]]}"
    return "jobs", f"the site {site.name} has {'Slurm' if kind == 'slurm' else 'PBS'}"


def launch(
    site: Site,
    need: ResourceRequest,
    run_dir: Path,
    options: LaunchOptions = LaunchOptions(),  # noqa: B008 - immutable
    listener: Listener = Listener(),  # noqa: B008 - immutable
) -> WorkerPool:
    """Choose how workers are started and prepare it; entering what is returned starts them.

    Raises
    ------
    InputError
        If the site, the problem and the options do not fit together.
    """
    way, why = choose_launch_mode(site, options.mode)
    if way == "local":
        from hpcfwi.cluster.local import LocalWorkers, local_layout

        if options.nodes not in (None, 1):
            raise InputError(
                f"--nodes {options.nodes}: workers are processes of this machine ({why}), which is one node"
            )
        workforce: WorkerPool = LocalWorkers(local_layout(site.config.worker, need), listener, site.config)
    elif way == "jobs":
        from hpcfwi.cluster.jobs import WorkerJobs

        jobs = options.nodes if options.nodes is not None else site.config.scheduler.jobs
        most = site.config.scheduler.max_jobs
        if options.nodes is not None and most is not None and options.nodes > most:
            raise InputError(f"--nodes {options.nodes}: {site.name} allows {most} jobs at a time (scheduler.max_jobs)")
        layout = node_layout(site, need, jobs if isinstance(jobs, int) else jobs[1])
        wait = None if options.wait_minutes is None else 60 * options.wait_minutes
        workforce = WorkerJobs(site, layout, run_dir, listener, options.nodes, wait)
    else:
        from hpcfwi.cluster.allocation import AllocatedWorkers

        workforce = AllocatedWorkers.from_environment(site, need, run_dir, listener, options.nodes)
        if options.wait_minutes is not None:
            workforce.patience = 60 * options.wait_minutes
    listener.say(f"{workforce} ({why})")
    nodes = os.environ.get("SLURM_JOB_NUM_NODES", "1")
    if way == "local" and nodes != "1":
        listener.say(f"this job has {nodes} nodes, of which one is used: --site NAME uses all of them")
    return workforce
