"""The doctor, ``hpcfwi site check``: looks at everything that a run at a site relies on, on the driver's side."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from hpcfwi.batch.base import BatchSystem, Queue
from hpcfwi.batch.registry import site_batch_system
from hpcfwi.cluster.allocation import AllocatedWorkers
from hpcfwi.cluster.environment import silence_dask, worker_environment
from hpcfwi.cluster.jobs import JobContext, job_script
from hpcfwi.cluster.layout import Layout, ResourceRequest, node_layout
from hpcfwi.cluster.local import local_layout
from hpcfwi.cluster.network import driver_address, interfaces
from hpcfwi.cluster.pool import choose_launch_mode
from hpcfwi.config.site import Site
from hpcfwi.errors import InputError, RunError
from hpcfwi.execution.affinity import PRELOAD_MODULES
from hpcfwi.sitecheck.probe import probe_host
from hpcfwi.sitecheck.results import (
    Finding,
    Section,
    kernels_finding,
    memory_finding,
    problem,
    scratch_finding,
    target_finding,
    threads_finding,
)
from hpcfwi.sitecheck.storage import runs_findings, runs_folder
from hpcfwi.sitecheck.tls import tls_findings

__all__ = ["LARGE_RUN", "check_here", "check_site", "network_findings", "ports_finding", "scheduler_findings"]

# A run with more shots than any node has cores: layouts are those of full nodes.
LARGE_RUN = ResourceRequest(100_000, 1)
LOOPBACK = "127.0.0.1"


def check_site(
    site: Site, job: bool = False, wait: float | None = 10.0, say: Callable[[str], None] = lambda _: None
) -> Iterator[Section]:
    """Look at everything that a run relies on.

    Parameters
    ----------
    site
        The machine.
    job
        Whether to start a real worker job, and look at it too.
    wait
        Minutes that it may take to start; None: any number.
    say
        Takes a line for the user while that goes on.

    Yields
    ------
    Section
        The findings of each place, as soon as they are known.

    Raises
    ------
    InputError
        If the site file says too little, or has no batch system for a job.
    """
    if job and site.config.scheduler.kind == "none":
        raise InputError(
            f"--job: the site {site.name} has no batch system (scheduler.kind), so its workers are processes of this machine; "
            "leave --job out, or choose another site (hpcfwi site list)"
        )
    silence_dask()
    yield check_here(site)
    if job:
        from hpcfwi.sitecheck.job_check import try_workers

        yield from try_workers(site, LARGE_RUN, wait, say)


def check_here(site: Site) -> Section:
    """What can be seen on the driver's host, which has the workers too where there is no batch system."""
    way = choose_launch_mode(site)[0]
    findings = []
    try:
        layout = _layout(site, way)
    except RunError as error:
        findings.append(problem("allocation", str(error), "start from a shell that the batch system has made"))
        layout = Layout(1, 1, 0)
    findings += scheduler_findings(site, layout)
    address, network = network_findings(site, layout)
    findings += network
    if way != "local" and address is not None:
        findings += tls_findings(site.config.network, address)
    findings += runs_findings(runs_folder(site))
    findings += _host_findings(site, layout)
    return Section(f"on {socket.gethostname().partition('.')[0]}, where the driver runs", tuple(findings))


def _layout(site: Site, way: str) -> Layout:
    """How a node would be divided for a large run; of an allocation, the one with the least memory for each process."""
    if way == "local":
        return local_layout(site.config.worker, LARGE_RUN)
    if way == "allocation":
        return AllocatedWorkers.from_environment(site, LARGE_RUN, runs_folder(site)).layout
    return node_layout(site, LARGE_RUN, 1)


def scheduler_findings(site: Site, layout: Layout) -> list[Finding]:
    """The batch system: whether it is here, answers, has the queue, and would take a worker job."""
    batch = site_batch_system(site)
    if batch is None:
        return [Finding("scheduler", "none: workers are processes of this machine")]
    if missing := batch.missing_commands():
        advice = "log in where they are, or put their folder on PATH"
        return [problem("scheduler", f"{batch.name}, but no {', '.join(missing)} here", advice)]
    started = time.perf_counter()
    try:
        queues = batch.queues()
    except RunError as error:
        found = f"{batch.name} does not answer: {error}"
        return [problem("scheduler", found, "see whether it is up; ask its operators")]
    seconds = time.perf_counter() - started
    findings = [Finding("scheduler", f"{batch.name}: {', '.join(batch.commands)} found; answers in {seconds:.1f} s")]
    findings.append(_queue_finding(site, queues))
    if choose_launch_mode(site)[0] == "jobs":
        findings += _submission_findings(site, layout, batch)
    return findings


def _queue_finding(site: Site, queues: list[Queue]) -> Finding:
    section = site.config.scheduler
    listed = ", ".join(f"{queue.name}{'*' if queue.default else ''}" for queue in queues) or "none"
    if section.queue is None:
        if all(queue.default is False for queue in queues):
            return problem("queue", f"there is no default one; there are {listed}", "name one in scheduler.queue")
        return Finding("queue", f"the scheduler's own; there are {listed}")
    accepts_jobs = {queue.name: queue.accepts_jobs for queue in queues}
    # Slurm takes several, PBS one on another server
    for wanted in section.queue.partition("@")[0].split(","):
        if wanted not in accepts_jobs:
            return problem("queue", f"there is no {wanted}; there are {listed}", site.where("scheduler.queue"))
        if not accepts_jobs[wanted]:
            return problem(
                "queue", f"{wanted} takes no jobs now", f"wait, or choose another: {site.where('scheduler.queue')}"
            )
    return Finding("queue", section.queue)


def _submission_findings(site: Site, layout: Layout, batch: BatchSystem) -> list[Finding]:
    """Return whether the batch system would accept the worker job, if it can say so."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
        context = JobContext("check", Path.cwd(), preload=PRELOAD_MODULES)
        script.write(job_script(site, layout, context, "tls://driver:0"))
        script.flush()
        answer = batch.test_submit(Path(script.name))
    if answer is None:
        return []
    if answer.code:
        key = batch.site_key(answer.message)
        about = site.where(key) if key else f"look at it: hpcfwi site script {site.name}"
        found = f"{batch.name} would reject it: {' '.join(answer.message.split())}"
        return [problem("worker job", found, about)]
    return [Finding("worker job", f"{batch.name} would accept it: {layout}")]


def network_findings(site: Site, layout: Layout) -> tuple[str | None, list[Finding]]:
    """The driver's address, None where there is none, and what there is to say of it and of its ports."""
    network = site.config.network
    if site.config.scheduler.kind == "none" and network.interface is None:
        return LOOPBACK, [Finding("network", f"{LOOPBACK}: driver and workers are on this machine")]
    try:
        address = driver_address(network.interface)
    except InputError as error:
        return None, [problem("network", str(error), site.where("network.interface"))]
    known = interfaces()
    names = [name for name, of in known.items() if of == address]
    others = [f"{name} {of}" for name, of in known.items() if of != address]
    found = f"{address} ({', '.join(names)}{'; not ' + ', '.join(others) if others else ''})"
    findings = [Finding("network", found)]
    if network.ports is not None:
        findings.append(ports_finding(network.ports, address, layout))
    return address, findings


def ports_finding(ports: str, address: str, layout: Layout) -> Finding:
    """Whether some of the ports are free here, and whether they are enough for the workers of a node."""
    first, last = map(int, ports.split(":"))
    free = sum(_is_free(address, port) for port in range(first, last + 1))
    found = f"{free} of {last - first + 1} from {first} to {last} are free on {address}"
    # a worker and its nanny have one each
    needed = 2 * layout.processes
    if not free:
        return problem("ports", found, "choose others in network.ports")
    if last - first + 1 < needed:
        return problem("ports", f"{found}; a node's workers need {needed}", "allow more in network.ports")
    return Finding("ports", found)


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _host_findings(site: Site, layout: Layout) -> list[Finding]:
    """This host: all that kernels need, and where it has the workers what they were promised."""
    local = site.config.scheduler.kind == "none"
    threads = layout.threads if local else min(layout.threads, len(os.sched_getaffinity(0)))
    variables = worker_environment(threads, site.config) | site.config.openmp.variables
    facts = probe_host(threads, {**os.environ, **variables})
    kernels = facts["kernels"]
    findings = [scratch_finding(facts["scratch"], "TMPDIR"), kernels_finding(kernels)]
    findings.append(target_finding(kernels, site.config.devito.target))
    if "threads" in kernels:
        # one process has tried it; the others of this host would be started alike
        told = [
            (str(number), kernels["threads"], kernels["cpus"]) for number in range(layout.processes if local else 1)
        ]
        threads_row = threads_finding(site, threads, facts["host"], told)
        findings.append(threads_row if local else _elsewhere(threads_row, threads, layout))
    if local:
        findings.append(memory_finding(facts["memory"], layout, site.where("worker.memory")))
    return findings


def _elsewhere(finding: Finding, threads: int, layout: Layout) -> Finding:
    """What was seen of threads on a host that has no workers: it may have fewer CPUs, and be set up in another way."""
    if threads < layout.threads:
        finding = replace(
            finding, found=f"{finding.found} (workers have {layout.threads}, which is more than CPUs here)"
        )
    if finding.verdict == "problem":
        finding = replace(finding, verdict="warning", advice="--job tells of the nodes, where the workers are")
    return finding
