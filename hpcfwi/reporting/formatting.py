"""Numbers, durations and times as readable text."""

from __future__ import annotations

import math
import re
import time

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MINUTE, HOUR, DAY = 60, 3600, 86400


def counted(count: int, noun: str) -> str:
    """``1 iteration``, ``2 iterations``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """``0:05``, ``12:30``, ``3:00:00``."""
    minutes, rest = divmod(round(min(seconds, 1e12)), MINUTE)  # a damaged log may have any number
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def rough_time(seconds: float) -> str:
    """``0.123 s``, ``12.5 min``, ``3.2 h``; a dash if it is unknown."""
    for unit, length, below in (("s", 1, 100), ("min", MINUTE, 100 * MINUTE), ("h", HOUR, math.inf)):
        if seconds < below:
            return f"{number(seconds / length, 3)} {unit}"
    return "–"


def ago(seconds: float) -> str:
    """``3 s ago``, ``5 min ago``, ``7 h ago``, ``12 days ago``."""
    for unit, length, below in (("s", 1, 100), ("min", MINUTE, 100 * MINUTE), ("h", HOUR, 2 * DAY)):
        if seconds < below:
            return f"{max(0.0, seconds) / length:.0f} {unit} ago"
    return f"{seconds / DAY:.0f} days ago"


def date_time(when: float) -> str:
    """``2026-11-23 07:41:12``, in the time zone of this host; empty if no calendar has that time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    except (OverflowError, ValueError, OSError):
        return ""


def number(value: float | None, digits: int = 4) -> str:
    """``1234``, ``1.235·10⁶``, ``−0.5``; a dash for None, NaN and infinity."""
    if value is None or not math.isfinite(value):
        return "–"
    text, _, power = f"{value:.{digits}g}".partition("e")
    if power:
        factor = {"1": "", "-1": "-"}.get(text, f"{text}·")
        text = f"{factor}10{str(int(power)).translate(SUPERSCRIPTS)}"
    return text.replace("-", "−")


def natural_order(name: str) -> list[tuple[int, str]]:
    """A sort key that puts node9 before node10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", name)]
