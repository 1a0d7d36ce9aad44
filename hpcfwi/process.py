"""Signals, standard streams, garbage collection and start time of the driver's process.

A signal ends a run once: KeyboardInterrupt is raised repeatedly until some code handles it, and later signals are ignored while
the run ends. A closed stdout, a lost terminal or a full log disk does not end a run.
"""

import errno
import gc
import io
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

# Ctrl-C, a scheduler's last signal before SIGKILL, its warning (sbatch --signal), and a closed terminal.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
# Signals that leave time to finish the running shots.
GRACEFUL_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# An interrupt that no code handles is raised again after REPEAT_WINDOW_S; one that cannot be raised yet, after RETRY_DELAY_S.
REPEAT_WINDOW_S, RETRY_DELAY_S = 2.0, 0.01

_command_start: float | None = None
_received = _deferred = _graceful = False
_stop_requested = _received_signal = ""


def mark_command_start() -> None:
    """Note that the ``hpcfwi`` command begins now."""
    global _command_start
    _command_start = time.time()


def command_start() -> float:
    """When the ``hpcfwi`` command began, s since 1970; without a command, now.

    Not the start of the process: a job script that sets up an environment and then calls ``exec hpcfwi`` is the same process.
    """
    return time.time() if _command_start is None else _command_start


def interrupted() -> bool:
    """Whether a signal has interrupted this process; later errors are most likely consequences of it."""
    return _received


def received_signal() -> str:
    """The name of the first signal that was received, or an empty string."""
    return _received_signal


def stop_requested() -> str:
    """The name of the signal that has requested a graceful stop, or an empty string."""
    return _stop_requested


@contextmanager
def graceful_stop() -> Iterator[None]:
    """In this context the first SIGTERM or SIGUSR1 only sets :func:`stop_requested`."""
    global _graceful
    before, _graceful = _graceful, True
    try:
        yield
    finally:
        _graceful = before


def install_handlers() -> None:
    """Raise signals as :class:`KeyboardInterrupt` from now on; signals that are ignored (nohup) stay ignored.

    The handlers stay installed: if they were restored at the end, a second signal at that moment would kill the process.
    """
    for number in STOP_SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    sys.unraisablehook = _unraisable


@contextmanager
def ignoring_signals_at_exit() -> Iterator[Callable[[], None]]:
    """Yield a function that ignores signals for the rest of the context; a Python caller's handlers are restored after it."""
    before: dict[int, Any] = {}
    try:
        yield lambda: before.update(ignore_signals())
    finally:
        for number, handler in before.items():
            if not (_received and handler is _interrupt):
                signal.signal(number, handler)


@contextmanager
def defer_interrupts() -> Iterator[None]:
    """Raise the interrupt of a signal only after the context, whose code must not be interrupted halfway."""
    global _deferred
    before, _deferred = _received, True
    try:
        yield
    finally:
        _deferred = False
    if _received and not before:
        raise KeyboardInterrupt


@contextmanager
def keep_handlers() -> Iterator[None]:
    """Restore the handlers that library code replaces in this context."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def ignore_signals() -> dict[int, Any]:
    """Ignore signals from now on, while the run ends, and return the earlier handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    if signal.getsignal(signal.SIGALRM) is _interrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}


def _unraisable(dropped: Any) -> None:
    """Report an exception that Python drops, in a finaliser for example; none after an interrupt, which is raised again."""
    if not _received:
        sys.__unraisablehook__(dropped)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received, _stop_requested, _received_signal
    if number != signal.SIGALRM:
        _received_signal = _received_signal or signal.Signals(number).name
    if _graceful and number in GRACEFUL_SIGNALS and not _stop_requested:
        _stop_requested = signal.Signals(number).name
        return
    if _received and number != signal.SIGALRM:
        return  # a second interrupt would break off the shutdown
    _received = True
    # interrupted calls, such as Dask's sync(), log errors in other threads
    logging.getLogger("tornado.application").setLevel(logging.CRITICAL)
    # an exception while Python imports a module would leave the import lock locked forever
    if frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        signal.setitimer(signal.ITIMER_REAL, RETRY_DELAY_S)
        return
    # raise it again, unless the code that handles this one ignores signals
    signal.setitimer(signal.ITIMER_REAL, REPEAT_WINDOW_S)
    if not _deferred:
        raise KeyboardInterrupt


# Errors of a stream that nothing reads any more.
CLOSED_ERRORS = (errno.EPIPE, errno.EIO, errno.EBADF)


class _SafeStream(io.FileIO):
    """A stream whose write errors are remembered instead of raised."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.error = ""
        self.reader_left = False

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
        except OSError as error:
            if error.errno in CLOSED_ERRORS:
                self.reader_left = True
            else:
                self.error = error.strerror or str(error)
            return len(memoryview(data))
        if not written:  # a pipe that does not block is full
            select.select([], [self], [], 1.0)
        return written or 0


_streams: dict[int, _SafeStream] = {}


def safe_stdio() -> None:
    """Replace stdout and stderr by streams that never fail; a closed one becomes /dev/null, not the next opened file."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)


def _stream(descriptor: int, before: TextIO | None) -> TextIO:
    # file names and contents may have characters that the terminal cannot show
    raw = _streams[descriptor] = _SafeStream(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or raw.isatty(),
    )


def output_error() -> str:
    """Why some output could not be written; empty if all output was written or its reader has left."""
    return next((raw.error for raw in _streams.values() if raw.error), "")


def stdout_closed() -> bool:
    """Whether the reader of stdout has left."""
    return 1 in _streams and _streams[1].reader_left


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause garbage collection, and exempt the objects made in this context from it until ``gc.unfreeze()``.

    Devito and sympy create some hundred thousand lasting objects, which would make each collection take a tenth of a second.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
