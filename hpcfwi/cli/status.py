"""The command ``hpcfwi status``: how a run stands, from any host that sees its folder."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from hpcfwi.cli.console import console
from hpcfwi.io import printable
from hpcfwi.process import ignore_signals, received_signal, stdout_closed

if TYPE_CHECKING:
    from hpcfwi.reporting.status import RunStatus, StatusReader

__all__ = ["status"]

# Seconds between two looks.
EVERY = 2.0


class _Watching(click.Command):
    """Takes ``--watch`` with and without a number after it, which may be the run's name, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words: list[str] = []
        for word in args:
            if words and words[-1] == "--watch":
                words[-1] = f"--watch={word if _is_number(word) else EVERY}"
                if _is_number(word):
                    continue
            words.append(word)
        if words and words[-1] == "--watch":
            words[-1] = f"--watch={EVERY}"
        return super().parse_args(ctx, words)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


@click.command(cls=_Watching)
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1, max=3600),
    metavar="[SECONDS]",
    help=f"Repeat every SECONDS [{EVERY:g}] until the run ends, or until Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object; with --watch, one line for each change.")
@click.argument("run", type=click.Path(path_type=Path))
def status(run: Path, watch: float | None, as_json: bool) -> int:
    """Show the state of a run.

    RUN is a run folder, its name in runs, or the configuration of a run. The command only reads files, so it works on any
    host that sees the folder. The exit code is 0 if the run exists.
    """
    from hpcfwi.reporting.status import HEARTBEAT_TIMEOUT_S, StatusReader, find_run

    reader = StatusReader(find_run(run))
    if watch is None:
        found = reader.read(HEARTBEAT_TIMEOUT_S, _tell_watching)
        if as_json:
            click.echo(json.dumps(found.as_json(), indent=1, allow_nan=False))
        else:
            _show(found)
        return 0
    try:
        _watch(reader, watch, as_json)
    except KeyboardInterrupt:
        if received_signal() != "SIGINT":
            raise
        ignore_signals()  # it is how one leaves
    return 0


def _tell_watching() -> None:
    if sys.stderr.isatty():
        click.echo("watching for some seconds whether the driver is alive ...", err=True)


def _screen() -> Console:
    """What is typed in an allocation's shell is looked at, too, unlike a run's output there."""
    return Console() if sys.stdout.isatty() else console()


def _show(found: RunStatus) -> None:
    from hpcfwi.reporting.status_text import status_lines, status_table

    screen = _screen()
    if screen.is_terminal:
        screen.print(status_table(found), soft_wrap=False)
    else:
        for line in status_lines(found):
            click.echo(line)


def _watch(reader: StatusReader, every: float, as_json: bool) -> None:
    """Show it anew until the run has ended: in place on a terminal, else a line for each change."""
    screen = _screen()
    if screen.is_terminal and not as_json:
        from rich.live import Live

        from hpcfwi.reporting.status_text import status_table

        found = reader.read()
        with Live(status_table(found), console=screen, auto_refresh=False) as live:
            while not found.ended:
                time.sleep(every)
                found = reader.read()
                live.update(status_table(found), refresh=True)
        return
    before = None
    while not stdout_closed():
        found = reader.read()
        _tell_changes(before, found, as_json)
        if found.ended:
            return
        before = found
        time.sleep(every)


def _tell_changes(before: RunStatus | None, found: RunStatus, as_json: bool) -> None:
    from hpcfwi.reporting.status_text import status_changes

    lines: list[Any] = status_changes(before, found)
    if as_json:
        lines = [json.dumps(found.as_json(), allow_nan=False)] if lines else []
    else:
        lines = [f"{time.strftime('%H:%M:%S')} {printable(line)}" for line in lines]
    for line in lines:
        click.echo(line)
    sys.stdout.flush()
