"""Signals that end a run: raised until somebody hears them, and ignored while the end is under way."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["deafen", "interrupted", "listening", "undisturbed"]

# Ctrl-C, a scheduler's warning, and the end of a terminal.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds after which an interrupt is raised again.
AGAIN = 2.0

_received = False


def interrupted() -> bool:
    """Whether one of the signals was heard: errors that come after it are most likely its consequences."""
    return _received


@contextmanager
def listening() -> Iterator[None]:
    """Turn the signals into :class:`KeyboardInterrupt`; those that are ignored (nohup) stay so."""
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in ENDINGS if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)]
    before = {number: signal.signal(number, _interrupt) for number in (*heard, signal.SIGALRM)}
    hook, sys.unraisablehook = sys.unraisablehook, _unraisable
    try:
        yield
    finally:
        _received = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


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


def _interrupt(*_: object) -> None:
    global _received
    _received = True
    # what is broken off complains in threads of its own, Dask's sync() for one
    logging.getLogger("tornado.application").setLevel(logging.CRITICAL)
    # once more, unless somebody hears this one and calls deafen()
    signal.setitimer(signal.ITIMER_REAL, AGAIN)
    raise KeyboardInterrupt
