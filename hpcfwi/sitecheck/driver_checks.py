"""The site check, and its checks on the driver's host."""

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from distributed import Scheduler
from distributed.comm import connect
from distributed.security import Security

from hpcfwi.batch.base import BatchSystem, Queue
from hpcfwi.batch.registry import site_batch_system
from hpcfwi.cluster.allocation import AllocatedWorkers
from hpcfwi.cluster.environment import silence_dask, worker_environment
from hpcfwi.cluster.jobs import JobContext, job_script
from hpcfwi.cluster.layout import WHOLE_NODES, Layout, node_layout
from hpcfwi.cluster.local import local_layout
from hpcfwi.cluster.network import driver_address, interfaces, is_free, private_security, scheduler_options
from hpcfwi.cluster.pool import choose_launch_mode
from hpcfwi.config.site import NetworkSection, Site
from hpcfwi.errors import InputError, RunError
from hpcfwi.execution.affinity import PRELOAD_MODULES
from hpcfwi.sitecheck import results
from hpcfwi.sitecheck.probe import probe_host
from hpcfwi.sitecheck.results import Finding, Section, problem, warning
from hpcfwi.sitecheck.storage import runs_findings

LOOPBACK = "127.0.0.1"
OWN_KEY_TIMEOUT_S, OTHER_KEY_TIMEOUT_S = 5.0, 1.5


def check_site(
    site: Site, job: bool = False, wait_minutes: float | None = 10.0, print_line: Callable[[str], None] = lambda _: None
) -> Iterator[Section]:
    """Test everything that a run at a site relies on.

    Parameters
    ----------
    site
        The site.
    job
        Whether to start a real worker job, or inside a job workers on its nodes, and to test them too.
    wait_minutes
        Limit of the wait for the first worker; None: no limit.
    print_line
        Prints a line about the job.

    Yields
    ------
    Section
        The findings on a host, as soon as they are known.

    Raises
    ------
    InputError
        If the site file is incomplete, or has no batch system for a job.
    """
    if job and site.config.scheduler.kind == "none":
        raise InputError(
            f"--job: the site {site.name} has no batch system (scheduler.kind), so its workers are processes of this machine; "
            "leave --job out, or choose another site (hpcfwi site list)"
        )
    silence_dask()
    yield check_driver(site)
    if job:
        from hpcfwi.sitecheck.worker_checks import check_workers

        yield from check_workers(site, WHOLE_NODES, wait_minutes, print_line)


def check_driver(site: Site) -> Section:
    """Test the driver's host; without a batch system, its workers run there too."""
    mode, _ = choose_launch_mode(site)
    runs = site.runs_folder.absolute()
    findings = []
    try:
        layout = _layout(site, mode, runs)
    except RunError as error:
        findings.append(problem("allocation", str(error), "start from a shell that the batch system has opened"))
        layout = Layout(1, 1, 0)
    findings += scheduler_findings(site, layout)
    address, network = network_findings(site, layout)
    findings += network
    if mode != "local" and address is not None:
        findings += tls_findings(site.config.network, address)
    findings += [*runs_findings(runs), *_host_findings(site, layout)]
    return Section(f"on {socket.gethostname().partition('.')[0]}, where the driver runs", tuple(findings))


def _layout(site: Site, mode: str, runs: Path) -> Layout:
    """The layout of a node for a large run; in an allocation, of the node that has the least memory per worker."""
    if mode == "local":
        return local_layout(site.config.worker, WHOLE_NODES)
    if mode == "allocation":
        return AllocatedWorkers(site, WHOLE_NODES, runs).layout
    return node_layout(site, WHOLE_NODES, 1)


def scheduler_findings(site: Site, layout: Layout) -> list[Finding]:
    """Check the batch system: its commands, its answer, the queue, and whether it would accept a worker job."""
    batch = site_batch_system(site)
    if batch is None:
        return [Finding("scheduler", "none: workers are processes of this machine")]
    if missing := batch.missing_commands():
        advice = "log in to a host that has them, or add their folder to PATH"
        return [problem("scheduler", f"{batch.name}, but no {', '.join(missing)} here", advice)]
    started = time.perf_counter()
    try:
        queues = batch.queues()
    except RunError as error:
        return [problem("scheduler", f"{batch.name} does not answer: {error}", "ask the operators whether it is up")]
    seconds = time.perf_counter() - started
    found = f"{batch.name}: {', '.join(batch.commands)} found; answers in {seconds:.1f} s"
    findings = [Finding("scheduler", found), _queue_finding(site, batch, queues)]
    if choose_launch_mode(site)[0] == "jobs":
        findings += _submission_findings(site, batch, layout)
    return findings


def _queue_finding(site: Site, batch: BatchSystem, queues: list[Queue]) -> Finding:
    wanted = site.config.scheduler.queue
    listed = ", ".join(f"{queue.name}{'*' if queue.default else ''}" for queue in queues) or "none"
    if wanted is None:
        if all(queue.default is False for queue in queues):
            return problem("queue", f"no default queue; the queues are {listed}", "name one in scheduler.queue")
        return Finding("queue", f"the default queue; the queues are {listed}")
    accepts_jobs, where = {queue.name: queue.accepts_jobs for queue in queues}, site.where("scheduler.queue")
    for name in batch.queue_names(wanted):
        if name not in accepts_jobs:
            return problem("queue", f"no queue {name}; the queues are {listed}", where)
        if not accepts_jobs[name]:
            return problem("queue", f"{name} accepts no jobs now", f"wait, or choose another: {where}")
    return Finding("queue", wanted)


def _submission_findings(site: Site, batch: BatchSystem, layout: Layout) -> list[Finding]:
    """Check whether the batch system would accept the worker job; not every batch system can test that."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
        context = JobContext("check", Path.cwd(), preload=PRELOAD_MODULES)
        script.write(job_script(site, layout, context, "tls://driver:0"))
        script.flush()
        answer = batch.test_submit(Path(script.name))
    if answer is None:
        return []
    if answer.code:
        key = batch.site_key(answer.message)
        advice = site.where(key) if key else f"read the script: hpcfwi site script {site.name}"
        found = f"{batch.name} would reject it: {' '.join(answer.message.split())}"
        return [problem("worker job", found, advice)]
    return [Finding("worker job", f"{batch.name} would accept it: {layout}")]


def network_findings(site: Site, layout: Layout) -> tuple[str | None, list[Finding]]:
    """Find the driver's address, or None, and check its ports."""
    network = site.config.network
    if site.config.scheduler.kind == "none" and network.interface is None:
        return LOOPBACK, [Finding("network", f"{LOOPBACK}: driver and workers are on this machine")]
    try:
        address = driver_address(network.interface)
    except InputError as error:
        return None, [problem("network", str(error), site.where("network.interface"))]
    known = interfaces()
    names = [name for name, ip in known.items() if ip == address]
    others = [f"{name} {ip}" for name, ip in known.items() if ip != address]
    found = f"{address} ({', '.join(names)}{'; not ' + ', '.join(others) if others else ''})"
    ports = [] if network.ports is None else [ports_finding(network.ports, address, layout)]
    return address, [Finding("network", found), *ports]


def ports_finding(ports: str, address: str, layout: Layout) -> Finding:
    """Check that ports are free here, and that there are enough for the workers of a node."""
    first, last = map(int, ports.split(":"))
    count, free = last - first + 1, sum(is_free(address, port) for port in range(first, last + 1))
    found = f"{free} of {count} ports from {first} to {last} are free on {address}"
    needed = 2 * layout.processes + 1  # a worker and its nanny have one each; the driver may run on one of the nodes
    if not free:
        return problem("ports", found, "choose others in network.ports")
    if count < needed:
        return problem("ports", f"{found}; driver and workers of a node need {needed}", "allow more in network.ports")
    return Finding("ports", found)


def tls_findings(network: NetworkSection, address: str) -> list[Finding]:
    """Check that a scheduler on ``address`` accepts the key of a run and nothing else."""
    if not network.tls:
        advice = "remove network.tls = false, unless only you can reach this network"
        return [warning("encryption", "off: anyone who reaches the driver's port can run programs as you", advice)]
    with tempfile.TemporaryDirectory(prefix="hpcfwi-check-") as folder:
        own_folder, other_folder = Path(folder, "own"), Path(folder, "other")
        with private_security(own_folder) as own, private_security(other_folder) as other:
            certificate = _certificate_finding(Path(own.tls_ca_file))
            try:
                error, accepted = asyncio.run(try_connections(network, address, own, other))
            except (OSError, RuntimeError, InputError) as reason:
                found = f"no scheduler can listen on {address}: {reason}"
                return [problem("encryption", found, "set network.interface or network.ports"), certificate]
    if error:
        advice = "see the row of the certificate; does a firewall close ports of this host (network.ports)?"
        return [problem("encryption", f"no TLS connection to {address}: {error}", advice), certificate]
    if accepted:
        advice = "do not run here, and report this: it should be impossible"
        return [problem("encryption", f"{address} accepts {', '.join(accepted)}", advice), certificate]
    found = f"{address} accepts the key of a run, and neither plain TCP nor another key"
    return [Finding("encryption", found), certificate]


async def try_connections(
    network: NetworkSection, address: str, own: Security, other: Security
) -> tuple[str, list[str]]:
    """Connect to a scheduler with the key of the run, without one, and with another one.

    Returns the error of the connection with the key of the run (empty if there is none), and the other attempts that succeed.
    """
    options = scheduler_options(network, address) | {"dashboard_address": "127.0.0.1:0", "dashboard": False}
    async with Scheduler(**options, protocol="tls://", security=own) as scheduler:
        error = await connection_error(scheduler.address, own, OWN_KEY_TIMEOUT_S)
        plain = scheduler.address.replace("tls://", "tcp://")
        others = {"plain TCP": (plain, Security()), "another key": (scheduler.address, other)}
        errors = await asyncio.gather(*(connection_error(*each, OTHER_KEY_TIMEOUT_S) for each in others.values()))
    return error, [name for name, reason in zip(others, errors, strict=True) if not reason]


async def connection_error(address: str, security: Security, timeout_s: float) -> str:
    """Connect and disconnect; return the error, or an empty string."""
    try:
        comm = await connect(address, timeout=timeout_s, **security.get_connection_args("client"))
    except (OSError, TypeError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    await comm.close()
    return ""


def _certificate_finding(path: Path) -> Finding:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    first, last, now = certificate.not_valid_before_utc, certificate.not_valid_after_utc, datetime.now(UTC)
    found = f"valid from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    if not first < now < last:
        return problem("certificate", f"{found}, but it is {now:%Y-%m-%d %H:%M}", "set the clock of this host")
    return Finding("certificate", found)


def _host_findings(site: Site, layout: Layout) -> list[Finding]:
    """Check kernels and their threads on this host and, if the workers run here, their memory."""
    local = site.config.scheduler.kind == "none"
    threads = layout.threads if local else min(layout.threads, len(os.sched_getaffinity(0)))
    variables = worker_environment(threads, site.config) | site.config.openmp.variables
    facts = probe_host(threads, {**os.environ, **variables})
    kernels = facts["kernels"]
    findings = [results.scratch_finding(facts["scratch"], "TMPDIR"), results.kernels_finding(kernels)]
    findings.append(results.target_finding(kernels, site.config.devito.target))
    if "threads" in kernels:
        # one process was tested; the other workers of this host start in the same way
        names = [str(number) for number in range(layout.processes if local else 1)]
        processes = [(name, kernels["threads"], kernels["cpus"]) for name in names]
        finding = results.threads_finding(site, threads, facts["host"], processes)
        findings.append(finding if local else _as_warning(finding, threads, layout))
    if local:
        findings.append(results.memory_finding(facts["memory"], layout, site.where("worker.memory")))
    return findings


def _as_warning(finding: Finding, threads: int, layout: Layout) -> Finding:
    """Turn a problem with threads into a warning: no worker runs on this host, and nodes may differ from it."""
    if threads < layout.threads:
        note = f"workers have {layout.threads} threads, more than there are CPUs here"
        finding = replace(finding, found=f"{finding.found} ({note})")
    if finding.verdict == "problem":
        finding = replace(finding, verdict="warning", advice="--job tests the nodes, where the workers run")
    return finding
