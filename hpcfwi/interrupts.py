"""Signals that end a run: raised until somebody hears them, and ignored while the end is under way."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["asked", "deafen", "gently", "heard", "held_back", "interrupted", "listen", "quiet_end", "undisturbed"]

# Ctrl-C, what a scheduler sends before it kills, its warning that was asked for (--signal), and the end of a terminal.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
# Those that leave time to finish what is being done.
GENTLE = (signal.SIGTERM, signal.SIGUSR1)
# Seconds after which an interrupt is raised again.
AGAIN = 2.0
# The same, where it cannot be raised at the moment.
SOON = 0.01

_received = False
_held = False
_gently = False
_asked = ""
_heard = ""


def interrupted() -> bool:
    """Whether one of the signals was heard: errors that come after it are most likely its consequences."""
    return _received


def heard() -> str:
    """Name of the first of the signals that was heard, or nothing."""
    return _heard


def asked() -> str:
    """Name of the signal that has asked for an end, or nothing."""
    return _asked


@contextmanager
def gently() -> Iterator[None]:
    """Inside, the first SIGTERM or SIGUSR1 only asks (see :func:`asked`), and whoever is at work ends when it suits."""
    global _gently
    before, _gently = _gently, True
    try:
        yield
    finally:
        _gently = before


def listen() -> None:
    """Turn the signals into :class:`KeyboardInterrupt` from now on; those that are ignored (nohup) stay so.

    There is no way back: a handler that is restored while the process ends leaves a moment in which a second signal kills it.
    """
    for number in ENDINGS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    sys.unraisablehook = _unraisable


@contextmanager
def quiet_end() -> Iterator[Callable[[], None]]:
    """Yields what makes the rest of the block deaf; a caller's handlers are put back after it.

    Those of :func:`listen` are not, once a signal was heard: the whole process is about to end then.
    """
    before: dict[int, Any] = {}
    try:
        yield lambda: before.update(deafen())
    finally:
        for number, handler in before.items():
            if not (_received and handler is _interrupt):
                signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Raise the interrupt of a signal that comes inside only after the block; for what must not be left half-done."""
    global _held
    before, _held = _received, True
    try:
        yield
    finally:
        _held = False
    if _received and not before:
        raise KeyboardInterrupt


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put the handlers back that somebody else's code sets inside."""
    before = {number: signal.getsignal(number) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def deafen() -> dict[int, Any]:
    """Ignore the signals, since what ends now should not be disturbed; returns the handlers that there were."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    if signal.getsignal(signal.SIGALRM) is _interrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {number: signal.signal(number, signal.SIG_IGN) for number in ENDINGS}


def _unraisable(lost: Any) -> None:
    """Python drops an exception that is raised in a finaliser or in a callback of its garbage collector.

    An interrupt that is lost like this comes again, and what it left half-done there need not be told.
    """
    if not _received:
        sys.__unraisablehook__(lost)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received, _asked, _heard
    if number != signal.SIGALRM:
        _heard = _heard or signal.Signals(number).name
    if _gently and number in GENTLE and not _asked:
        _asked = signal.Signals(number).name
        return
    if _received and number != signal.SIGALRM:
        return  # the end is under way already; a second one in the middle of it would break that off
    _received = True
    # what is broken off complains in threads of its own, Dask's sync() for one
    logging.getLogger("tornado.application").setLevel(logging.CRITICAL)
    if _importing(frame):
        signal.setitimer(signal.ITIMER_REAL, SOON)
        return
    # once more, unless somebody hears this one and calls deafen()
    signal.setitimer(signal.ITIMER_REAL, AGAIN)
    if not _held:
        raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    """Whether Python is in the midst of its import machinery, whose global lock an exception would leave locked for ever."""
    return frame is not None and frame.f_code.co_filename.startswith("<frozen importlib")
