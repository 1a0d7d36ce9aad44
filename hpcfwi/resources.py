"""Files that come with the package: job configurations and sites, in a checkout or in an installed wheel."""

from __future__ import annotations

from pathlib import Path

__all__ = ["shipped"]


def shipped(folder: str) -> Path:
    """Path of ``jobs`` or ``site-configs``: the checkout's own where there is one, else the wheel's copy."""
    package = Path(__file__).resolve().parent
    in_wheel = package / "share" / folder
    return in_wheel if in_wheel.is_dir() else package.parent / folder
