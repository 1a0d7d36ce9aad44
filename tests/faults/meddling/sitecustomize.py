"""Faults at chosen places of a run; Python imports this module at its start where it is on PYTHONPATH.

``MEDDLING`` is JSON: the name of a fault here, and its arguments. hpcfwi itself knows nothing of it.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import sys
import time
from importlib.machinery import PathFinder
from pathlib import Path


def crash(shot, number=None):
    """A worker that computes this shot dies of a signal, or exits with status 7."""

    def meddle(module):
        evaluate = module.ShotWorker.evaluate

        def meddled(self, name, *rest):
            if name == shot:
                os._exit(7) if number is None else os.kill(os.getpid(), number)
            return evaluate(self, name, *rest)

        module.ShotWorker.evaluate = meddled

    return "hpcfwi.execution.shot_worker", meddle


def fail_on(host):
    """No shot can be computed on a host, as where a library is missing."""

    def meddle(module):
        evaluate = module.ShotWorker.evaluate

        def meddled(self, *rest):
            if socket.gethostname() == host:
                raise OSError("libfftw3.so.3: cannot open shared object file")
            return evaluate(self, *rest)

        module.ShotWorker.evaluate = meddled

    return "hpcfwi.execution.shot_worker", meddle


def devour(shot, limit, once):
    """The first worker that computes this shot takes more memory than its limit."""

    def meddle(module):
        evaluate = module.ShotWorker.evaluate

        def meddled(self, name, *rest):
            if name == shot and first(once):
                kept = []
                until = time.monotonic() + 30
                while time.monotonic() < until:
                    if len(kept) * 20_000_000 < 1.5 * limit:
                        kept.append(bytearray(b"x") * 20_000_000)
                    time.sleep(0.01)  # the nanny checks the memory ten times a second
            return evaluate(self, name, *rest)

        module.ShotWorker.evaluate = meddled

    return "hpcfwi.execution.shot_worker", meddle


def slow_disk(seconds, others, once):
    """The first worker takes so many seconds to read a shot, the others take fewer; its process id is in the file ``once``."""

    def meddle(module):
        observed = module.ShotWorker.observed

        def meddled(self, *rest):
            if not hasattr(self, "slow"):
                self.slow = first(once)
            time.sleep(seconds if self.slow else others)
            return observed(self, *rest)

        module.ShotWorker.observed = meddled

    return "hpcfwi.execution.shot_worker", meddle


def tear(folder, at, where, once):
    """A process is killed at the ``at``-th file that it writes to a folder of this pattern: amid it, or before the rename."""

    def meddle(module):
        write_atomic, count = module.write_atomic, iter(range(1, 10**9))

        def meddled(path, write, sync=True):
            if not path.parent.match(folder) or next(count) != at or not first(once):
                return write_atomic(path, write, sync)

            def torn(file):
                whole = io.BytesIO()
                write(whole)
                content = whole.getvalue()
                file.write(content[: len(content) // 2] if where == "amid" else content)
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)

            return write_atomic(path, torn, sync)

        module.write_atomic = meddled

    return "hpcfwi.io", meddle


def first(path):
    """Whether this call is the first of all processes; write the process id to the file."""
    try:
        with Path(path).open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return False
    return True


class Meddler:
    """Imports a module as usual, and then changes it."""

    def __init__(self, module, meddle):
        self.module, self.meddle = module, meddle

    def find_spec(self, name, path=None, target=None):
        if name != self.module:
            return None
        spec = PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self.meddle(module)

        spec.loader.exec_module = exec_module
        return spec


if "MEDDLING" in os.environ:
    fault, arguments = json.loads(os.environ["MEDDLING"])
    sys.meta_path.insert(0, Meddler(*globals()[fault](**arguments)))
