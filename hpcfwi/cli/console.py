"""Shared by the commands: the console, options, and the files and folders that arguments stand for."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from hpcfwi.batch.registry import current_batch_system
from hpcfwi.config.site import LAUNCH_MODES
from hpcfwi.io import packaged_folder

# Without a terminal, lines are not wrapped, and tables have this width.
TABLE_WIDTH = 200


def console() -> Console:
    """Return a console: live displays on a terminal, plain lines in a batch job or a file."""
    if sys.stdout.isatty() and current_batch_system() is None:
        return Console(soft_wrap=True)
    return Console(force_terminal=False, width=TABLE_WIDTH, soft_wrap=True)


def settings_option(owner: str) -> Callable[[Any], Any]:
    """The option ``--set`` for the keys of ``owner``."""
    help_text = f"Change a key of {owner}; can be repeated."
    return click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help=help_text)


def problem_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """CONFIG and ``--set``."""
    option = settings_option("the configuration or, after site., of the site")
    return click.argument("config", type=click.Path(path_type=Path))(option(function))


def launch_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--site`` and ``--launch``."""
    launch_help = "How workers start [without a batch system: local; inside a job: allocation; else: jobs]."
    launch = click.option("--launch", type=click.Choice(LAUNCH_MODES), help=launch_help)
    site = click.option("--site", default="workstation", show_default=True, help="Name or path of a site file.")
    return site(launch(function))


def find_config(config: Path) -> Path:
    """The user's file, or else a configuration of the package: ``circle`` stands for ``jobs/circle.toml``."""
    with suppress(OSError):  # the code that reads the path reports the error
        if config.exists():
            return config
        packaged = packaged_folder("jobs") / f"{config.stem}.toml"
        if str(config.parent) in (".", "jobs") and packaged.is_file():
            return packaged
    return config
