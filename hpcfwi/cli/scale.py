"""The verb ``hpcfwi scale``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpcfwi.cli.console import console, find_config
from hpcfwi.config.site import LAUNCH_MODES
from hpcfwi.errors import InputError

__all__ = ["scale"]


def _counts(_: Any, __: Any, text: str) -> tuple[int, ...]:
    """Node counts, ``1,2,4``."""
    try:
        counts = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        counts = ()
    if not counts or counts[0] < 1:
        raise InputError(f"--nodes {text}: should be node counts from 1 on, with commas between them: --nodes 1,2,4,8")
    return counts


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--site", default="workstation", show_default=True, help="Name or path of a site file.")
@click.option("--launch", "way", type=click.Choice(LAUNCH_MODES), help="How workers start [as site and place suggest].")
@click.option(
    "--nodes",
    default="1,2,4,8",
    show_default=True,
    callback=_counts,
    metavar="N,N,...",
    help="Node counts of the ladder: worker jobs, or nodes of the allocation; on this machine, worker processes.",
)
@click.option("--weak", is_flag=True, help="Let the shots grow with the nodes; all of them are on the most nodes.")
@click.option("--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each node count.")
@click.option("--iterations", type=click.IntRange(min=1), default=3, show_default=True, help="Of each run.")
@click.option(
    "--stand-in",
    metavar="SECONDS[:SPREAD]",
    help="Shots that sleep in place of the kernels: their mean length, and their standard deviation over it.",
)
@click.option("--study-dir", type=click.Path(path_type=Path), help="Folder of the study [scaling/CONFIG-SITE].")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Change a key of the configuration (or, with site. before it, of the site); may be repeated.",
)
def scale(
    config: Path,
    site: str,
    way: str | None,
    nodes: tuple[int, ...],
    weak: bool,
    repeat: int,
    iterations: int,
    stand_in: str | None,
    study_dir: Path | None,
    settings: tuple[str, ...],
) -> None:
    """Study how CONFIG scales over node counts.

    Runs it on each of them, tells where the time went, fits a model of the cost and predicts how it goes on. What is measured
    stays measured: a study that was stopped goes on with the same command.
    """
    from hpcfwi.scaling.study import ScaleOptions, run_study

    options = ScaleOptions(site, way, nodes, weak, repeat, iterations, stand_in, settings)
    kind = "-weak" if weak else ""
    folder = study_dir or Path("scaling") / f"{config.stem}-{Path(site).stem}{kind}"
    for path in run_study(find_config(config), options, folder, console()).paths:
        click.echo(str(path))
