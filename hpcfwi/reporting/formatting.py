"""Numbers as a reader would say them."""

from __future__ import annotations

import time

__all__ = ["ago", "counted", "duration", "hours", "moment"]


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


def ago(seconds: float) -> str:
    """``3 s ago``, ``5 min ago``, ``7 h ago``, ``12 days ago``."""
    for unit, length, most in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if seconds < most * length:
            return f"{max(0.0, seconds) / length:.0f} {unit} ago"
    return f"{seconds / 86400:.0f} days ago"


def moment(when: float) -> str:
    """``2026-11-23 07:41:12``, in this host's time zone; empty for what is no time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    except (OverflowError, ValueError, OSError):
        return ""
