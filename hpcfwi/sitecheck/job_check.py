"""Real workers of a site, started as a run starts them, and looked at from inside: ``hpcfwi site check --job``."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Client

from hpcfwi.batch.registry import site_batch_system
from hpcfwi.cluster.environment import apply_environment, restore_environment
from hpcfwi.cluster.layout import Layout, ResourceRequest
from hpcfwi.cluster.pool import Listener, WorkerPool, Workload, choose_launch_mode, launch
from hpcfwi.config.site import LaunchOptions, Site
from hpcfwi.errors import HpcfwiError, InputError, RunError
from hpcfwi.events.types import Event, JobLost, JobStateChanged
from hpcfwi.execution.affinity import PRELOAD_MODULES
from hpcfwi.process import defer_interrupts, ignoring_signals_at_exit
from hpcfwi.sitecheck.probe import examined_spec
from hpcfwi.sitecheck.results import Finding, Section, bad, problem
from hpcfwi.sitecheck.storage import runs_folder, temporary_folder
from hpcfwi.sitecheck.worker_checks import WorkerChecks

__all__ = ["try_workers"]

# Seconds that a batch system may take to be done with a job that was ended.
SETTLED = 30.0


def try_workers(site: Site, need: ResourceRequest, wait: float | None, say: Callable[[str], None]) -> list[Section]:
    """Start one worker job, or workers on the nodes of the job that we are in, and look at each of their hosts.

    Parameters
    ----------
    site
        The machine.
    need
        What to ask of them.
    wait
        Minutes that it may take for a worker to come; None: any number.
    say
        Takes a line for the user while that goes on.

    Returns
    -------
    list of Section
        One for each host; or a single one that says why there is none.
    """
    runs = runs_folder(site)
    with ExitStack() as stack:
        try:
            stack.enter_context(temporary_folder(runs))
            folder = Path(tempfile.mkdtemp(prefix="site-check-", dir=runs))
        except OSError as error:
            row = problem(
                "run folder", f"none can be made in {runs}: {error.strerror}", "see the row of the runs folder"
            )
            return [Section("workers", (row,))]
        (folder / "shared").mkdir(mode=0o700)
        trial, kept = _JobCheck(site, need, folder, wait, say), False
        try:
            sections = trial.sections()
            kept = bad(sections) and any(folder.glob("logs/*"))
        finally:
            if not kept:
                trial.settle()
                shutil.rmtree(folder, ignore_errors=True)
        if kept:
            say(f"scripts and output of the workers are kept in {folder / 'logs'}")
        return sections


@dataclass
class _JobCheck:
    """One start of workers."""

    site: Site
    need: ResourceRequest
    folder: Path
    wait: float | None
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.way = choose_launch_mode(self.site)[0]
        self.jobs: set[str] = set()
        self.lost: list[JobLost] = []

    def sections(self) -> list[Section]:
        """Look at the workers; whatever keeps them from coming is a finding."""
        place = "a worker job" if self.way == "jobs" else "workers in this job"
        try:
            return self._start()
        except InputError as error:
            row = problem("start", str(error), "mend the line of the site file that is named")
        except (HpcfwiError, OSError) as error:
            row = self._why_not(error)
        return [Section(place, (row,))]

    def _why_not(self, error: Exception) -> Finding:
        if self.lost:
            lost = self.lost[-1]
            advice = f"see its output; if there is none, do the nodes see {self.folder.parent} (filesystem.runs)?"
            return problem("start", f"job {lost.job} {lost.reason}{lost.log}", advice)
        said = str(error).partition("\n  Finished shots are kept")[0]
        if "(--wait)" in said:
            return problem(
                "start", said, "wait longer (--wait), or ask for what is free: another queue, less time or cores"
            )
        return problem("start", said, "mend what it names")

    def _line(self, line: str) -> None:
        """Of a lost job, and that it is not replaced, the table tells."""
        if not line.startswith(("worker job ", "no more than ")):
            self.say(line)

    def _event(self, event: Event) -> None:
        if isinstance(event, JobStateChanged):
            self.jobs.add(event.job)
        if isinstance(event, JobLost):
            self.lost.append(event)

    def settle(self) -> None:
        """Wait until jobs that were ended are gone: PBS brings their output afterwards, and complains if it cannot."""
        batch = site_batch_system(self.site)
        deadline = time.monotonic() + SETTLED
        with suppress(RunError):
            while batch is not None and time.monotonic() < deadline:
                states = batch.states(sorted(self.jobs))
                if all(state.state == "ended" for state in states.values()):
                    break
                time.sleep(0.5)

    def _start(self) -> list[Section]:
        # one job, which is not replaced
        scheduler = self.site.config.scheduler.model_copy(update={"jobs": 1, "replacements": 0})
        site = replace(self.site, config=self.site.config.model_copy(update={"scheduler": scheduler}))
        options = LaunchOptions(nodes=1 if self.way == "jobs" else None, wait_minutes=self.wait)
        with ExitStack() as stack:
            stack.enter_context(restore_environment())
            deafen = stack.enter_context(ignoring_signals_at_exit())
            try:
                workforce = launch(
                    site, self.need, self.folder, options, Listener(self._line, self._event), Workload(PRELOAD_MODULES)
                )
                began = time.monotonic()
                with defer_interrupts():  # or a folder or a process of theirs would be left that nobody knows of
                    stack.enter_context(workforce)
                layouts = _layouts(workforce)
                apply_environment(site.config, workforce.threads)
                from hpcfwi.execution.executor import DaskExecutor
                from hpcfwi.solver.operators import stage_solver

                staged, _ = stage_solver(self.folder / "staged", examined_spec(workforce.threads))
                client = stack.enter_context(Client(workforce.cluster(), set_as_default=False))
                DaskExecutor(client, check_workers=workforce.check).wait_for_worker()
                seconds = time.monotonic() - began
                visit = WorkerChecks(self.site, client, self.folder, staged, workforce.threads, layouts)
                return visit.sections(seconds)
            finally:
                deafen()


def _layouts(workforce: WorkerPool) -> dict[str, Layout]:
    """How each node is divided, by its name where that is known."""
    known: dict[str, Layout] = getattr(workforce, "layouts", {})
    return {name.partition(".")[0]: layout for name, layout in known.items()} or {"": workforce.layout}
