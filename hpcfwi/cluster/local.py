"""Workers as processes of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from os.path import expandvars
from pathlib import Path
from tempfile import gettempdir, mkdtemp

import dask
import psutil
from dask.system import CPU_COUNT
from distributed import LocalCluster
from distributed.system import MEMORY_LIMIT
from filelock import FileLock, Timeout

from hpcfwi.cluster.dashboard import address_for_dashboard
from hpcfwi.cluster.environment import PROCESSES_VARIABLE, worker_environment
from hpcfwi.cluster.layout import Layout, ResourceRequest, divide
from hpcfwi.cluster.network import ALLOWED_FAILURES
from hpcfwi.cluster.pool import SCHEDULING, Listener, WorkerPool, Workload
from hpcfwi.config.site import SiteConfig, WorkerSection
from hpcfwi.errors import InputError
from hpcfwi.events.types import WorkerStartFailed
from hpcfwi.process import interrupted

__all__ = ["LocalWorkers", "local_cluster", "local_layout", "scratch_folder"]

# Temporary folders of ours, the file in them that is locked while they are in use, and the age, in seconds, from which on
# one without that lock is nobody's (and not of somebody who is about to lock it).
SCRATCH, IN_USE, SCRATCH_AGE = "hpcfwi-", "in-use", 60
# How often they are started where one dies before it is there.
STARTS = 3
TERMINAL_SIGNALS = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}


def local_layout(worker: WorkerSection, need: ResourceRequest) -> Layout:
    """Divide this machine; a tenth of its memory is left to others."""
    memory = MEMORY_LIMIT or psutil.virtual_memory().total
    return divide(worker, need, CPU_COUNT, 0.9 * memory, "this machine")


class LocalWorkers(WorkerPool):
    """Worker processes of this machine; they come up while other things are done.

    Parameters
    ----------
    layout
        How this machine is divided.
    listener
        Who hears about the workers.
    workload
        What they compute.
    site
        For the workers' environment.
    """

    mode = "local"

    def __init__(
        self,
        layout: Layout,
        listener: Listener = Listener(),  # noqa: B008 - immutable
        workload: Workload = Workload(),  # noqa: B008 - immutable
        site: SiteConfig | None = None,
    ) -> None:
        super().__init__(layout, listener, workload)
        self.site = site

    def __str__(self) -> str:
        return f"workers on this machine: {self.layout}"

    def _prepare(self, stack: ExitStack) -> None:
        self._scratch = stack.enter_context(scratch_folder(self._temporary()))

    def _temporary(self) -> Path:
        """The site's folder for temporary files on this machine, or the usual one."""
        if self.site is None or self.site.filesystem.scratch is None:
            return Path(gettempdir())
        folder = Path(expandvars(self.site.filesystem.scratch)).absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"site.filesystem.scratch: {folder}: cannot be made or used ({error.strerror}); it should be a folder of this "
                "machine's own for temporary files"
            ) from None
        return folder

    def _start(self) -> LocalCluster:
        """Start workers that do not hear what a terminal, or a scheduler, sends to all processes: the driver ends them."""
        # Threads and processes inherit the mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
        resource_tracker.ensure_running()  # needs the mask, too, and lifts it when it starts
        signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
        for left in reversed(range(STARTS)):
            try:
                return local_cluster(self.layout, self._scratch, self.workload.preload, self.site)
            except RuntimeError as error:  # a worker died before it was one; Dask has ended the others
                if not left or interrupted():
                    raise
                self.listener.log_event(WorkerStartFailed(reason=str(error)))
                self.listener.show(f"a worker died while it started ({error}); they are started again")
        raise AssertionError


@contextmanager
def scratch_folder(where: Path) -> Iterator[Path]:
    """A folder for workers in one for temporary files; those that killed drivers have left behind are removed."""
    for left in where.glob(f"{SCRATCH}*"):
        with suppress(OSError, Timeout, NotImplementedError):
            mark = left / IN_USE
            if mark.stat().st_uid == os.geteuid() and time.time() - mark.stat().st_mtime > SCRATCH_AGE:
                with FileLock(mark).acquire(timeout=0):
                    shutil.rmtree(left)
    folder = Path(mkdtemp(prefix=SCRATCH, dir=where))
    lock = FileLock(folder / IN_USE)
    try:
        with suppress(OSError, NotImplementedError):
            lock.acquire(timeout=0)
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def local_cluster(
    layout: Layout, scratch: Path, preload: tuple[str, ...] = (), site: SiteConfig | None = None
) -> LocalCluster:
    """Start workers on this machine, each with one Dask thread and the layout's OpenMP threads."""
    settings = {
        **SCHEDULING,
        "distributed.nanny.pre-spawn-environ": {
            **worker_environment(layout.threads, site),
            # several are neither pinned nor bound: another run may be on this machine
            **({PROCESSES_VARIABLE: "0"} if layout.processes > 1 else {}),
            **(site.openmp.variables if site is not None else {}),
        },
        # nothing of ours can be spilled, and what a paused worker waits for would never come
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
    }
    with dask.config.set(settings):
        return LocalCluster(
            n_workers=layout.processes,
            threads_per_worker=1,
            processes=True,
            memory_limit=layout.memory,
            host="127.0.0.1",
            dashboard_address=None,  # it is opened later, see hpcfwi.cluster.dashboard
            scheduler_kwargs={
                "dashboard_address": address_for_dashboard((site or SiteConfig()).network.dashboard),
                "allowed_failures": ALLOWED_FAILURES,
            },
            local_directory=str(scratch),
            # the JIT cache, too, is where the site wants temporary files
            env={"TMPDIR": str(scratch.parent)} if site is not None and site.filesystem.scratch is not None else None,
            preload=list(preload),
            silence_logs=False,
        )
