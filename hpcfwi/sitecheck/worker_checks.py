"""Checks inside real workers, started like those of a run: ``hpcfwi site check --job``."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from hpcfwi.artifacts import StagedFile
from hpcfwi.batch.registry import site_batch_system
from hpcfwi.cluster.dask_internals import worker_infos
from hpcfwi.cluster.environment import apply_environment, restore_environment
from hpcfwi.cluster.layout import Layout, ResourceRequest
from hpcfwi.cluster.pool import START_AGAIN, Listener, Workload, choose_launch_mode, launch
from hpcfwi.config.site import LaunchOptions, Site
from hpcfwi.errors import HpcfwiError, InputError, RunError
from hpcfwi.events.types import Event, JobLost, JobStateChanged
from hpcfwi.execution.affinity import PRELOAD_MODULES
from hpcfwi.process import defer_interrupts, ignoring_signals_at_exit
from hpcfwi.sitecheck import results
from hpcfwi.sitecheck.probe import probe_host, probe_spec, run_staged, versions
from hpcfwi.sitecheck.results import Finding, Section, has_problem, problem, warning
from hpcfwi.sitecheck.storage import shared_finding, temporary_folder

# Time limits for a batch system to remove ended jobs, for the other workers of a node to join, and for a worker to answer.
SETTLE_TIMEOUT_S, JOIN_TIMEOUT_S, ANSWER_TIMEOUT_S = 30.0, 60.0, 300.0
# Number of measurements of a clock's difference; the quickest exchange is the most accurate.
CLOCK_EXCHANGES = 5


def check_workers(
    site: Site, request: ResourceRequest, wait_minutes: float | None, print_line: Callable[[str], None]
) -> list[Section]:
    """Start one worker job, or workers on the nodes of the current job, and check their hosts: a section for each.

    If no worker joins within ``wait_minutes`` (None: no limit), the only section says why.
    """
    runs = site.runs_folder.absolute()
    with ExitStack() as stack:
        try:
            stack.enter_context(temporary_folder(runs))
            folder = Path(tempfile.mkdtemp(prefix="site-check-", dir=runs))
        except OSError as error:
            found = f"no folder can be created in {runs}: {error.strerror}"
            return [Section("workers", (problem("run folder", found, "see the row of the runs folder"),))]
        (folder / "shared").mkdir(mode=0o700)
        check, keep = _JobCheck(site, request, folder, wait_minutes, print_line), False
        try:
            sections = check.sections()
            keep = has_problem(sections) and any(folder.glob("logs/*"))
        finally:
            if not keep:
                check.wait_for_end_of_jobs()
                shutil.rmtree(folder, ignore_errors=True)
        if keep:
            print_line(f"scripts and output of the workers are kept in {folder / 'logs'}")
        return sections


@dataclass
class _JobCheck:
    """Starts the workers of :func:`check_workers`."""

    site: Site
    request: ResourceRequest
    folder: Path
    wait_minutes: float | None
    print_line: Callable[[str], None]
    jobs: set[str] = field(default_factory=set)
    lost: list[JobLost] = field(default_factory=list)

    def sections(self) -> list[Section]:
        mode, _ = choose_launch_mode(self.site)
        try:
            with self._workers(mode) as (checks, seconds):
                return checks.sections(seconds)
        except InputError as error:
            finding = problem("start", str(error), "correct the line of the site file that the message names")
        except (HpcfwiError, OSError) as error:
            finding = self._start_problem(str(error))
        return [Section("a worker job" if mode == "jobs" else "workers in this job", (finding,))]

    def wait_for_end_of_jobs(self) -> None:
        """Wait until the jobs are gone: PBS copies their output to the folder after their end."""
        batch = site_batch_system(self.site)
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        with suppress(RunError):
            while batch is not None and time.monotonic() < deadline:
                if all(state.state == "ended" for state in batch.states(sorted(self.jobs)).values()):
                    break
                time.sleep(0.5)

    @contextmanager
    def _workers(self, mode: str) -> Iterator[tuple[WorkerChecks, float]]:
        """Start workers, and yield their checks and the seconds until the first worker joined."""
        # one job, which is not replaced
        scheduler = self.site.config.scheduler.model_copy(update={"jobs": 1, "replacements": 0})
        site = replace(self.site, config=self.site.config.model_copy(update={"scheduler": scheduler}))
        options = LaunchOptions(nodes=1 if mode == "jobs" else None, wait_minutes=self.wait_minutes)
        listener, workload = Listener(self._show, self._log_event), Workload(PRELOAD_MODULES)
        with ExitStack() as stack:
            stack.enter_context(restore_environment())
            ignore_signals = stack.enter_context(ignoring_signals_at_exit())
            try:
                pool = launch(site, self.request, self.folder, options, listener, workload)
                began = time.monotonic()
                with defer_interrupts():  # an interrupt during the start would leave folders or processes behind
                    stack.enter_context(pool)
                apply_environment(site.config, pool.threads)
                from hpcfwi.execution.executor import DaskExecutor
                from hpcfwi.solver.operators import stage_solver

                staged, _ = stage_solver(self.folder / "staged", probe_spec(pool.threads))
                client = stack.enter_context(Client(pool.cluster(), set_as_default=False))
                DaskExecutor(client, check_workers=pool.check).wait_for_worker()
                seconds = time.monotonic() - began
                nodes: dict[str, Layout] = getattr(pool, "layouts", {})
                layouts = {name.partition(".")[0]: layout for name, layout in nodes.items()} or {"": pool.layout}
                yield WorkerChecks(self.site, client, self.folder, staged, pool.threads, layouts), seconds
            finally:
                ignore_signals()

    def _show(self, line: str) -> None:
        """Print a line of the pool, except about a lost job, which the table shows."""
        if not line.startswith("worker job "):
            self.print_line(line)

    def _log_event(self, event: Event) -> None:
        match event:
            case JobStateChanged():
                self.jobs.add(event.job)
            case JobLost():
                self.lost.append(event)

    def _start_problem(self, message: str) -> Finding:
        if self.lost:
            lost = self.lost[-1]
            advice = f"see its output; without any, check that nodes see {self.folder.parent} (filesystem.runs)"
            return problem("start", f"job {lost.job} {lost.reason}{lost.log}", advice)
        message = message.partition(f"\n  {START_AGAIN}")[0]
        if "(--wait)" in message:
            advice = "wait longer (--wait), or request what is free: another queue, less time, fewer cores"
            return problem("start", message, advice)
        if message.startswith("no worker has been connected"):
            keys = "network.interface, network.worker_interface, network.ports"
            advice = f"see the workers' output in {self.folder / 'logs'}; can they reach the driver ({keys})?"
            return problem("start", message, advice)
        return problem("start", message, "correct what the message names")


@dataclass
class WorkerChecks:
    """Checks of joined workers."""

    site: Site
    client: Client
    folder: Path  # the run folder
    staged: StagedFile  # the driver's solver
    threads: int  # of the kernels
    layouts: dict[str, Layout]  # by name of the node; "" stands for any node

    def sections(self, seconds: float) -> list[Section]:
        """Check every host; ``seconds`` passed until the first worker joined."""
        expected = sum(layout.processes for layout in self.layouts.values())
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        while len(worker_infos(self.client)) < expected and time.monotonic() < deadline:
            time.sleep(0.1)
        hosts: dict[str, list[str]] = {}
        for address, facts in sorted(worker_infos(self.client).items()):
            hosts.setdefault(facts["host"], []).append(address)
        sections = [self._host_section(number, addresses, seconds) for number, addresses in enumerate(hosts.values())]
        missing = len(self.layouts) - len(sections)
        if missing > 0:
            found = f"no workers joined from {missing} of {len(self.layouts)} nodes"
            sections.append(Section("other nodes", (problem("start", found, "see their logs"),)))
        return sections

    def _host_section(self, number: int, addresses: list[str], seconds: float) -> Section:
        """Check a host in its first worker, and the threads in all; a failed call ends the section."""
        host, findings = addresses[0], [_encryption_finding(self.site, addresses)]

        def call(function: Callable[..., Any], *arguments: Any) -> Any:
            return self._call([addresses[0]], function, *arguments)[0]

        try:
            exchanges = [_clock_exchange(call) for _ in range(CLOCK_EXCHANGES)]
            findings.append(results.clock_finding(*min(exchanges, key=lambda exchange: exchange[1])))
            shared = self.folder / "shared" / str(number)
            shared.mkdir(parents=True, mode=0o700)
            findings.append(shared_finding(shared, call))
            facts = call(probe_host, self.threads)
            host = facts["host"]
            layout = self.layouts.get(host) or next(iter(self.layouts.values()))
            findings += [
                _processes_finding(len(addresses), layout, seconds),
                results.versions_finding(versions(), facts["versions"]),
                results.memory_finding(facts["memory"], layout, self.site.where("worker.memory")),
                results.scratch_finding(facts["scratch"], "filesystem.scratch"),
                *self._kernel_findings(addresses, facts, layout),
            ]
        except RunError as error:
            findings.append(problem("worker", str(error), "see the workers' logs"))
        return Section(f"on {host}, in a worker", tuple(findings))

    def _kernel_findings(self, addresses: list[str], facts: dict[str, Any], layout: Layout) -> list[Finding]:
        from hpcfwi.solver.operators import fingerprint, fingerprint_differences

        kernels = facts["kernels"]
        differences = fingerprint_differences(fingerprint(), kernels.get("fingerprint", {}))
        instructions = results.instructions_finding(kernels, differences, self.site.config.devito.target)
        if kernels.get("died"):
            return [results.staged_finding(kernels, ()), instructions]
        try:
            runs = self._call(addresses, run_staged, self.staged, probe_spec(self.threads))
        except RunError as error:
            return [problem("kernels", str(error), "see the row of the instructions"), instructions]
        processes = [(address, run["threads"], run["cpus"]) for address, run in zip(addresses, runs, strict=True)]
        threads = results.threads_finding(self.site, layout.threads, facts["host"], processes)
        return [results.staged_finding(kernels, runs), instructions, threads]

    def _call(self, addresses: Sequence[str], function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call a function in each of these workers; raise RunError if one fails or dies."""
        submit = partial(self.client.submit, function, *arguments, pure=False)
        futures: list[Future] = [submit(workers=[address]) for address in addresses]
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while not all(future.done() for future in futures):
            gone = [address for address in addresses if address not in worker_infos(self.client)]
            if gone:
                raise RunError(f"worker {gone[0]} died during the check ({function.__name__})")
            if time.monotonic() > deadline:
                raise RunError(f"no answer within {ANSWER_TIMEOUT_S:g} s ({function.__name__})")
            time.sleep(0.01)
        try:
            return [future.result() for future in futures]
        except HpcfwiError as error:
            raise RunError(str(error)) from None
        except KilledWorker as error:
            raise RunError(f"worker {error.last_worker.address} died during the check ({function.__name__})") from None
        except Exception as error:
            raise RunError(f"{function.__name__}: {type(error).__name__}: {error}") from error


def _clock_exchange(call: Callable[..., Any]) -> tuple[float, float]:
    """Return how far a worker's clock is ahead of this one, and the uncertainty, s."""
    before, there, after = time.time(), call(time.time), time.time()
    return there - (before + after) / 2, (after - before) / 2


def _processes_finding(count: int, layout: Layout, seconds: float) -> Finding:
    found = f"{count} of {layout}; the first joined after {seconds:.1f} s"
    if count < layout.processes:
        advice = "see the output of the job, and check that network.ports are enough"
        return problem("processes", f"{found}, the others did not join within {JOIN_TIMEOUT_S:g} s", advice)
    return Finding("processes", found)


def _encryption_finding(site: Site, addresses: Sequence[str]) -> Finding:
    plain = [address for address in addresses if not address.startswith("tls://")]
    if not plain:
        return Finding("encryption", addresses[0])
    if site.config.network.tls:
        advice = "do not run here, and report this: it should be impossible"
        return problem("encryption", f"{plain[0]} is not encrypted, though network.tls is set", advice)
    advice = "remove network.tls = false, unless only you can reach this network"
    return warning("encryption", f"off: {plain[0]}", advice)
