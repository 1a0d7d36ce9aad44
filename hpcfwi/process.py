"""Signals that end a run: raised until somebody hears them, and ignored while the end is under way."""

from __future__ import annotations

import errno
import gc
import io
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

__all__ = [
    "defer_interrupts",
    "gc_paused",
    "graceful_stop",
    "ignore_signals",
    "ignoring_signals_at_exit",
    "install_handlers",
    "interrupted",
    "keep_handlers",
    "output_error",
    "received_signal",
    "safe_stdio",
    "stdout_closed",
    "stop_requested",
]

# Ctrl-C, what a scheduler sends before it kills, its warning that was asked for (--signal), and the end of a terminal.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
# Those that leave time to finish what is being done.
GRACEFUL_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# Seconds after which an interrupt is raised again.
REPEAT_WINDOW_S = 2.0
# The same, where it cannot be raised at the moment.
RETRY_DELAY_S = 0.01

_received = False
_deferred = False
_graceful = False
_stop_requested = ""
_received_signal = ""


def interrupted() -> bool:
    """Whether one of the signals was heard: errors that come after it are most likely its consequences."""
    return _received


def received_signal() -> str:
    """Name of the first of the signals that was heard, or nothing."""
    return _received_signal


def stop_requested() -> str:
    """Name of the signal that has asked for an end, or nothing."""
    return _stop_requested


@contextmanager
def graceful_stop() -> Iterator[None]:
    """Inside, the first SIGTERM or SIGUSR1 only sets :func:`stop_requested`."""
    global _graceful
    before, _graceful = _graceful, True
    try:
        yield
    finally:
        _graceful = before


def install_handlers() -> None:
    """Turn the signals into :class:`KeyboardInterrupt` from now on; those that are ignored (nohup) stay so.

    There is no way back: a handler restored while the process ends leaves a moment in which a second signal kills it.
    """
    for number in STOP_SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    sys.unraisablehook = _unraisable


@contextmanager
def ignoring_signals_at_exit() -> Iterator[Callable[[], None]]:
    """Yields what makes the rest of the block deaf; a caller's handlers are put back after it.

    Those of :func:`install_handlers` are not, once a signal was heard: the whole process is about to end then.
    """
    before: dict[int, Any] = {}
    try:
        yield lambda: before.update(ignore_signals())
    finally:
        for number, handler in before.items():
            if not (_received and handler is _interrupt):
                signal.signal(number, handler)


@contextmanager
def defer_interrupts() -> Iterator[None]:
    """Raise the interrupt of a signal that comes inside only after the block; for what must not be left half-done."""
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
    """Put the handlers back that somebody else's code sets inside."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def ignore_signals() -> dict[int, Any]:
    """Ignore the signals, since what ends now should not be disturbed; returns the handlers that there were."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    if signal.getsignal(signal.SIGALRM) is _interrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}


def _unraisable(lost: Any) -> None:
    """Python drops an exception that is raised in a finaliser or in a callback of its garbage collector.

    An interrupt that is lost like this comes again, and what it left half-done there need not be told.
    """
    if not _received:
        sys.__unraisablehook__(lost)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received, _stop_requested, _received_signal
    if number != signal.SIGALRM:
        _received_signal = _received_signal or signal.Signals(number).name
    if _graceful and number in GRACEFUL_SIGNALS and not _stop_requested:
        _stop_requested = signal.Signals(number).name
        return
    if _received and number != signal.SIGALRM:
        return  # the end is under way already; a second one in the middle of it would break that off
    _received = True
    # what is broken off complains in threads of its own, Dask's sync() for one
    logging.getLogger("tornado.application").setLevel(logging.CRITICAL)
    if _importing(frame):
        signal.setitimer(signal.ITIMER_REAL, RETRY_DELAY_S)
        return
    # once more, unless somebody hears this one and calls deafen()
    signal.setitimer(signal.ITIMER_REAL, REPEAT_WINDOW_S)
    if not _deferred:
        raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    """Whether Python is in the midst of its import machinery, whose global lock an exception would leave locked for ever."""
    return frame is not None and frame.f_code.co_filename.startswith("<frozen importlib")


# Nobody is there any more who would miss anything.
CLOSED_ERRORS = (errno.EPIPE, errno.EIO, errno.EBADF)


class _SafeStream(io.RawIOBase):
    """A descriptor that is written to as far as it can be."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lost = ""
        self.abandoned = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)

    def write(self, data: Any) -> int:
        try:
            return os.write(self.descriptor, data)
        except BlockingIOError:
            select.select([], [self.descriptor], [], 1.0)
            return 0
        except OSError as error:
            if error.errno in CLOSED_ERRORS:
                self.abandoned = True
            else:
                self.lost = error.strerror or str(error)
            return len(memoryview(data))


_streams: dict[int, _SafeStream] = {}


def safe_stdio() -> None:
    """Take over standard output and error; where one is closed it leads nowhere, and not into the next file that is opened."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)


def _stream(descriptor: int, before: TextIO | None) -> TextIO:
    # names of files, and what is in them, may be letters that the terminal has not
    raw = _streams[descriptor] = _SafeStream(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or raw.isatty(),
    )


def output_error() -> str:
    """Why some of the output could not be written; empty where all was, or nobody was there any more."""
    return next((raw.lost for raw in _streams.values() if raw.lost), "")


def stdout_closed() -> bool:
    """Whether nobody reads standard output any more."""
    return 1 in _streams and _streams[1].abandoned


@contextmanager
def gc_paused() -> Iterator[None]:
    """Make what stays: the collector rests inside, and does not look at what was made, until ``gc.unfreeze()``.

    Devito and sympy are some hundred thousand objects, in which there is little garbage. Each look at them takes a tenth
    of a second, at moments of Python's choice: many while they come, some in the middle of a shot, the last at the end.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
