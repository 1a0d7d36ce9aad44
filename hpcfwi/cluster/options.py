"""What the user says about the start of workers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WAYS", "LaunchOptions"]

WAYS = ("local", "jobs", "allocation")


@dataclass(frozen=True)
class LaunchOptions:
    """What the user says about the start of workers.

    Parameters
    ----------
    way
        One of :data:`WAYS`; None: chosen by :func:`hpcfwi.cluster.launch.choose_way`.
    nodes
        Worker jobs, or nodes of the allocation; None: what the site or the allocation has.
    wait
        Minutes that may pass without a worker; None: any number.
    """

    way: str | None = None
    nodes: int | None = None
    wait: float | None = None
