"""What the commands have in common: where they write, and the files that their arguments mean."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from hpcfwi.batch.registry import current_batch_system
from hpcfwi.config.site import Site
from hpcfwi.io import packaged_folder

__all__ = ["console", "default_run_dir", "find_config"]


def default_run_dir(site: Site, config: Path) -> Path:
    """``runs/<name of CONFIG>``, below the site's folder for runs where it has one."""
    return Path(site.config.filesystem.runs or "runs") / config.stem


def find_config(config: Path) -> Path:
    """A file of the user's; where there is none, a job that comes with the package: ``circle``, ``jobs/circle.toml``."""
    with suppress(OSError):  # a path that cannot even be asked for; reading it says why
        if config.exists():
            return config
        ours = packaged_folder("jobs") / f"{config.stem}.toml"
        if str(config.parent) in (".", "jobs") and ours.is_file():
            return ours
    return config


def console() -> Console:
    """A live display on a terminal; under a scheduler, or into a file, plain lines as long as they need to be."""
    interactive = sys.stdout.isatty() and current_batch_system() is None
    return Console(force_terminal=None if interactive else False, width=None if interactive else 200, soft_wrap=True)
