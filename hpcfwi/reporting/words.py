"""Numbers as a reader would say them."""

from __future__ import annotations

__all__ = ["counted", "duration", "hours"]


def counted(number: int, noun: str) -> str:
    """``1 iteration``, ``2 iterations``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """``0:05``, ``12:30``, ``3:00:00``."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def hours(core_hours: float) -> str:
    """``12.3 core-hours``."""
    return f"{core_hours:.3g} core-hours"
