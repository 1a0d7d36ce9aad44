"""Workers as processes on this machine."""

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
from distributed import LocalCluster
from filelock import FileLock, Timeout

from hpcfwi.cluster.dashboard import LOOPBACK
from hpcfwi.cluster.dask_internals import CPUS, MEMORY_BYTES
from hpcfwi.cluster.environment import PROCESSES_VARIABLE, WORKER_SETTINGS, worker_environment
from hpcfwi.cluster.layout import Layout, ResourceRequest, divide
from hpcfwi.cluster.network import scheduler_options
from hpcfwi.cluster.pool import KEEP_LOST_WORKERS, SCHEDULER_SETTINGS, Listener, WorkerPool, Workload
from hpcfwi.config.site import NetworkSection, SiteConfig, WorkerSection
from hpcfwi.errors import InputError
from hpcfwi.events.types import WorkerStartFailed
from hpcfwi.process import interrupted

# Scratch folders of drivers, and the file in each that its driver keeps locked. The driver of an unlocked folder is dead,
# unless the folder is younger than this age and not locked yet.
SCRATCH_PREFIX, LOCK_FILE, SCRATCH_MIN_AGE_S = "hpcfwi-", "in-use", 60
MAX_STARTS = 3  # attempts to start the workers, if one dies during the start
TERMINAL_SIGNALS = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}


def local_layout(
    worker: WorkerSection, request: ResourceRequest, nodes: int | None = None, reason: str = "as the site says"
) -> Layout:
    """Divide this machine, leaving a tenth of its memory to other programs; raises InputError for more than one node."""
    if nodes not in (None, 1):
        where = f"the workers are processes of this machine ({reason}), which is one node"
        raise InputError(f"--nodes {nodes}: {where}")
    memory = MEMORY_BYTES or psutil.virtual_memory().total
    return divide(worker, request, CPUS, 0.9 * memory, "this machine")


class LocalWorkers(WorkerPool):
    """Worker processes on this machine, with the environment that ``site`` describes."""

    mode = "local"

    def __init__(
        self,
        layout: Layout,
        listener: Listener = Listener(),
        workload: Workload = Workload(),
        site: SiteConfig = SiteConfig(),
    ) -> None:
        super().__init__(layout, listener, workload)
        self.site = site

    def __str__(self) -> str:
        return f"workers on this machine: {self.layout}"

    def _prepare(self, stack: ExitStack) -> None:
        stack.enter_context(dask.config.set(KEEP_LOST_WORKERS))
        parent = Path(expandvars(self.site.filesystem.scratch or gettempdir())).absolute()
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            wanted = "it should be a folder on a local disk, for temporary files"
            found = f"site.filesystem.scratch: {parent}: cannot be created or used ({error.strerror})"
            raise InputError(f"{found}; {wanted}") from None
        self._scratch = stack.enter_context(scratch_folder(parent))

    def _start(self) -> LocalCluster:
        # A terminal or a batch system sends these signals to all processes, but only the driver should end the workers. They
        # inherit the signal mask of the thread that starts them; Python's resource tracker clears it when it starts.
        signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
        for starts_left in reversed(range(MAX_STARTS)):
            try:
                return self._cluster()
            except RuntimeError as error:  # a worker died; Dask has ended the others
                if not starts_left or interrupted():
                    raise
                self.listener.log_event(WorkerStartFailed(reason=str(error)))
                self.listener.show(f"a worker died during the start ({error}); starting all workers again")
        raise AssertionError

    def _cluster(self) -> LocalCluster:
        """Start workers, each with one Dask thread and the OpenMP threads of the layout."""
        environment = {
            **worker_environment(self.layout.threads, self.site),
            # several processes are not pinned, since another run may use this machine
            **({PROCESSES_VARIABLE: "0"} if self.layout.processes > 1 else {}),
            **self.site.openmp.variables,
        }
        settings = {**SCHEDULER_SETTINGS, **WORKER_SETTINGS, "distributed.nanny.pre-spawn-environ": environment}
        with dask.config.set(settings):
            return LocalCluster(
                n_workers=self.layout.processes,
                threads_per_worker=1,
                processes=True,
                memory_limit=self.layout.memory,
                host=LOOPBACK,
                dashboard_address=None,  # set by scheduler_options()
                scheduler_kwargs=scheduler_options(NetworkSection(dashboard=self.site.network.dashboard), LOOPBACK),
                local_directory=str(self._scratch),
                env={"TMPDIR": str(self._scratch.parent)},  # for the JIT cache
                preload=list(self.workload.preload),
                silence_logs=False,
            )


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Create a folder for the workers' temporary files and remove it at the end; also remove those of dead drivers."""
    for left in parent.glob(f"{SCRATCH_PREFIX}*"):
        with suppress(OSError, Timeout, NotImplementedError):
            lock_file = left / LOCK_FILE
            status = lock_file.stat()
            if status.st_uid == os.geteuid() and time.time() - status.st_mtime > SCRATCH_MIN_AGE_S:
                with FileLock(lock_file).acquire(timeout=0):
                    shutil.rmtree(left)
    folder = Path(mkdtemp(prefix=SCRATCH_PREFIX, dir=parent))
    lock = FileLock(folder / LOCK_FILE)
    try:
        with suppress(OSError, NotImplementedError):
            lock.acquire(timeout=0)
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)
