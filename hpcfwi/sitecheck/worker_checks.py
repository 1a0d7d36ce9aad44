"""A visit to workers that have come, however they were started: the doctor looks at each of their hosts from inside."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from hpcfwi.cluster.layout import Layout
from hpcfwi.config.site import Site
from hpcfwi.errors import HpcfwiError, RunError
from hpcfwi.sitecheck.probe import clock, examined_spec, probe_host, run_staged, versions
from hpcfwi.sitecheck.results import (
    Finding,
    Section,
    clock_finding,
    instructions_finding,
    memory_finding,
    problem,
    scratch_finding,
    staged_finding,
    threads_finding,
    versions_finding,
    warning,
)
from hpcfwi.sitecheck.storage import shared_finding

__all__ = ["WorkerChecks"]

# Seconds for the other processes of a node to come after the first, and for one look at a worker.
COMING, ANSWER = 60.0, 300.0
# Exchanges of which the quickest tells the difference of clocks.
EXCHANGES = 5


@dataclass
class WorkerChecks:
    """A visit to workers that have come.

    Parameters
    ----------
    site
        The machine.
    client
        Leads to them.
    folder
        The run folder.
    staged, threads
        The driver's solver, and the threads that its grid is large enough for.
    layouts
        How each node is divided, by its name; "" is any node.
    """

    site: Site
    client: Client
    folder: Path
    staged: Any
    threads: int
    layouts: dict[str, Layout]

    def sections(self, seconds: float) -> list[Section]:
        """Look at every host; the first worker came after so many seconds."""
        expected = sum(layout.processes for layout in self.layouts.values())
        deadline = time.monotonic() + COMING
        while len(self._workers()) < expected and time.monotonic() < deadline:
            time.sleep(0.1)
        hosts: dict[str, list[str]] = {}
        for address, facts in sorted(self._workers().items()):
            hosts.setdefault(facts["host"], []).append(address)
        sections = [self._host(number, addresses, seconds) for number, addresses in enumerate(hosts.values())]
        missing = len(self.layouts) - len(sections)
        if missing > 0:
            row = problem(
                "start", f"no workers have come from {missing} of {len(self.layouts)} nodes", "see their logs"
            )
            sections.append(Section("other nodes", (row,)))
        return sections

    def _workers(self) -> dict[str, dict[str, Any]]:
        # not scheduler_info(), whose answer another thread of the client may replace by one without workers
        return dict(self.client.sync(self.client.scheduler.identity, n_workers=-1)["workers"])

    def _host(self, number: int, addresses: list[str], seconds: float) -> Section:
        """Look at a host through its first worker, and at the threads of all of them; until one fails."""
        host, findings = addresses[0], [_encryption_finding(self.site, addresses)]
        there = partial(self._call, addresses[0])
        try:
            exchanges = [self._exchange(there) for _ in range(EXCHANGES)]
            findings.append(clock_finding(*min(exchanges, key=lambda exchange: exchange[1])))
            findings.append(self._shared(number, there))
            facts = there(probe_host, self.threads)
            host = facts["host"]
            layout = self.layouts.get(host) or next(iter(self.layouts.values()))
            findings += [
                _came_finding(len(addresses), layout, seconds),
                versions_finding(versions(), facts["versions"]),
                memory_finding(facts["memory"], layout, self.site.where("worker.memory")),
                scratch_finding(facts["scratch"], "filesystem.scratch"),
            ]
            findings += self._kernels(addresses, facts, layout)
        except RunError as error:
            findings.append(problem("worker", str(error), "see the workers' logs"))
        return Section(f"on {host}, in a worker", tuple(findings))

    def _exchange(self, there: Callable[..., Any]) -> tuple[float, float]:
        """How far the other clock is ahead, and half of the time that it took to ask, s."""
        before = clock()
        told = there(clock)
        after = clock()
        return told - (before + after) / 2, (after - before) / 2

    def _shared(self, number: int, there: Callable[..., Any]) -> Finding:
        folder = self.folder / "shared" / str(number)
        folder.mkdir(parents=True, mode=0o700)
        return shared_finding(folder, there)

    def _kernels(self, addresses: list[str], facts: dict[str, Any], layout: Layout) -> list[Finding]:
        from hpcfwi.solver.operators import fingerprint, fingerprint_differences

        kernels = facts["kernels"]
        differs = fingerprint_differences(fingerprint(), kernels.get("fingerprint", {}))
        instructions = instructions_finding(kernels, differs, self.site.config.devito.target)
        if kernels.get("died"):
            return [staged_finding(kernels, ()), instructions]
        try:
            told = self._call_all(addresses, run_staged, self.staged, examined_spec(self.threads))
        except RunError as error:
            return [problem("kernels", str(error), "see the row of the instructions"), instructions]
        uses = [(address, use["threads"], use["cpus"]) for address, use in zip(addresses, told, strict=True)]
        threads = threads_finding(self.site, layout.threads, facts["host"], uses)
        return [staged_finding(kernels, told), instructions, threads]

    def _call(self, address: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._call_all([address], function, *arguments)[0]

    def _call_all(self, addresses: Sequence[str], function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call a function in each of these workers.

        Raises
        ------
        RunError
            If one of them fails, or goes away.
        """
        futures: list[Future] = [
            self.client.submit(function, *arguments, pure=False, workers=[address]) for address in addresses
        ]
        deadline = time.monotonic() + ANSWER
        while not all(future.done() for future in futures):
            gone = [address for address in addresses if address not in self._workers()]
            if gone:
                raise _died(gone[0], function)
            if time.monotonic() > deadline:
                raise RunError(f"no answer within {ANSWER:g} s ({function.__name__})")
            time.sleep(0.01)
        try:
            return [future.result() for future in futures]
        except HpcfwiError as error:
            raise RunError(str(error)) from None
        except KilledWorker as error:
            raise _died(error.last_worker.address, function) from None
        except Exception as error:
            raise RunError(f"{function.__name__}: {type(error).__name__}: {error}") from error


def _died(worker: str, function: Callable[..., Any]) -> RunError:
    return RunError(f"worker {worker} died while it was looked at ({function.__name__})")


def _came_finding(count: int, layout: Layout, seconds: float) -> Finding:
    found = f"{count} of {layout}; the first came after {seconds:.1f} s"
    if count < layout.processes:
        return problem("processes", f"{found}, others not within {COMING:g} s", "see the job's output; network.ports?")
    return Finding("processes", found)


def _encryption_finding(site: Site, addresses: Sequence[str]) -> Finding:
    plain = [address for address in addresses if not address.startswith("tls://")]
    if plain and site.config.network.tls:
        return problem("encryption", f"{plain[0]} is not encrypted, though network.tls is set", "report this")
    if plain:
        return warning("encryption", f"off: {plain[0]}", "leave network.tls out, unless nobody else is on this network")
    return Finding("encryption", addresses[0])
