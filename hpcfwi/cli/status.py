"""The command ``hpcfwi status``."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from hpcfwi.cli.console import console
from hpcfwi.io import printable
from hpcfwi.process import ignore_signals, received_signal, stdout_closed

if TYPE_CHECKING:
    from hpcfwi.reporting.status import RunStatus, StatusReader

WATCH_INTERVAL_S = 2.0
NUMBER = re.compile(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?")


class _StatusCommand(click.Command):
    """Accepts ``--watch`` without a number; click would mistake the name of the run for the number."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = [
            f"--watch={WATCH_INTERVAL_S}" if word == "--watch" and not NUMBER.fullmatch(following) else word
            for word, following in pairwise([*args, ""])
        ]
        return super().parse_args(ctx, words)


@click.command(cls=_StatusCommand)
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1, max=3600),
    metavar="[SECONDS]",
    help=f"Repeat every SECONDS [{WATCH_INTERVAL_S:g}] until the run ends or you press Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object; with --watch, one line for each change.")
@click.argument("run", type=click.Path(path_type=Path))
def status(run: Path, watch: float | None, as_json: bool) -> int:
    """Show the state of a run.

    RUN is a run folder, or the name or configuration of a run in ./runs. The command works on any host that sees the folder,
    since it only reads files. The exit code is 0 if the run exists.
    """
    from hpcfwi.reporting.status import HEARTBEAT_TIMEOUT_S, StatusReader, find_run

    reader = StatusReader(find_run(run))
    if watch is None:
        found = reader.read(HEARTBEAT_TIMEOUT_S, _announce_wait)
        if as_json:
            click.echo(json.dumps(asdict(found), indent=1, allow_nan=False))
        else:
            _show(found)
        return 0
    try:
        _watch(reader, watch, as_json)
    except KeyboardInterrupt:
        if received_signal() != "SIGINT":
            raise
        ignore_signals()  # Ctrl-C ends the watch
    return 0


def _announce_wait() -> None:
    if sys.stderr.isatty():
        click.echo("waiting for a heartbeat of the driver ...", err=True)


def _screen() -> Console:
    """A console that, unlike that of a run, is also live on a terminal inside an allocation."""
    return Console() if sys.stdout.isatty() else console()


def _show(found: RunStatus) -> None:
    from hpcfwi.reporting.status_text import status_lines, status_table

    screen = _screen()
    if screen.is_terminal:
        screen.print(status_table(found), soft_wrap=False)
    else:
        for line in status_lines(found):
            click.echo(line)


def _watch(reader: StatusReader, interval_s: float, as_json: bool) -> None:
    """Show the status until the run ends: in place on a terminal, else a line for each change."""
    from rich.live import Live

    from hpcfwi.reporting.status_text import status_changes, status_table

    screen = _screen()
    found = reader.read()
    if screen.is_terminal and not as_json:
        with Live(status_table(found), console=screen, auto_refresh=False) as live:
            while not found.ended:
                time.sleep(interval_s)
                found = reader.read()
                live.update(status_table(found), refresh=True)
        return
    before = None
    while not stdout_closed():
        changes = status_changes(before, found)
        if as_json and changes:
            click.echo(json.dumps(asdict(found), allow_nan=False))
        elif changes:
            now = time.strftime("%H:%M:%S")
            click.echo("\n".join(f"{now} {printable(line)}" for line in changes))
        sys.stdout.flush()
        if found.ended:
            return
        time.sleep(interval_s)
        before, found = found, reader.read()
