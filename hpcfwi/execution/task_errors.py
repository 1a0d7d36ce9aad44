"""Functions that run as tasks on workers: what they tell the driver, and errors that can travel to it."""

from __future__ import annotations

import functools
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any, TypeVar, cast

from distributed import get_worker

from hpcfwi.errors import DataError, HpcfwiError, RunError
from hpcfwi.events.types import Event, TaskFailed

__all__ = ["EVENT_TOPIC", "TaskFailure", "log_event", "task"]

# Dask topic under which workers tell what they did.
EVENT_TOPIC = "hpcfwi"


class TaskFailure(RunError):
    """A task failed on a worker for reasons that may lie with the worker.

    Parameters
    ----------
    worker
        Dask address of the worker.
    reason
        What happened, in one line, the worker's host included.

    Attributes
    ----------
    place
        Which of several shots of the task it was; None for the only one.
    """

    def __init__(self, worker: str, reason: str) -> None:
        super().__init__(worker, reason)
        self.worker = worker
        self.reason = reason
        self.place: int | None = None

    def __str__(self) -> str:
        return self.reason


Task = TypeVar("Task", bound=Callable[..., Any])


def task(function: Task) -> Task:
    """Let a function run as a task: its errors say where they happened, and in full in the event log."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        try:
            return function(*args)
        except DataError as error:
            failure: HpcfwiError = DataError(error.shot, error.problem)
        except TaskFailure as error:
            failure = error  # of a task that is a part of this one, and was told there
        except Exception as error:
            log_event(TaskFailed, task=function.__name__, traceback=traceback.format_exc())
            text = str(error) if isinstance(error, HpcfwiError) else f"{type(error).__name__}: {error}"
            failure = TaskFailure(_address(), f"on {_host()}: {text.partition(chr(10))[0]}")
        raise failure  # here, and not above, so that it takes no other error along, which might not travel

    return cast(Task, run)


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _address() -> str:
    """This worker's Dask address; empty outside of a Dask worker."""
    try:
        return str(get_worker().address)
    except ValueError:
        return ""


def log_event(kind: Callable[..., Event], **facts: Any) -> None:
    """Send an event of a kind (see :mod:`hpcfwi.events.types`) to the driver; does nothing outside of a Dask worker."""
    address = _address()
    if address:
        get_worker().log_event(EVENT_TOPIC, kind(worker=address, host=_host(), pid=os.getpid(), **facts).line())
