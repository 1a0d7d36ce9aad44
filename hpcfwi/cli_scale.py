"""The verb ``hpcfwi scale``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpcfwi.cluster.options import WAYS
from hpcfwi.errors import InputError
from hpcfwi.terminal import console, find_config

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
@click.option(
    "--launch",
    "way",
    type=click.Choice(WAYS),
    help="How workers start [jobs with --site, allocation inside a job, else local].",
)
@click.option(
    "--nodes",
    default="1,2,4,8",
    show_default=True,
    callback=_counts,
    metavar="N,N,...",
    help="Node counts: worker jobs, or nodes of the allocation; on this machine, worker processes.",
)
@click.option(
    "--weak", is_flag=True, help="Let the number of shots grow with the nodes; the largest node count has all shots."
)
@click.option(
    "--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Number of runs of each node count."
)
@click.option("--iterations", type=click.IntRange(min=1), default=3, show_default=True, help="Iterations of each run.")
@click.option(
    "--stand-in",
    metavar="SECONDS[:SPREAD]",
    help="Replace the kernels by a sleep of this mean, with this relative standard deviation.",
)
@click.option("--study-dir", type=click.Path(path_type=Path), help="Folder of the study [scaling/CONFIG-SITE].")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Override a key of the configuration or, as site.SECTION.KEY, of the site. Repeat it for several keys.",
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

    Runs CONFIG on each node count, shows where the time went, fits a cost model and predicts larger node counts. The same
    command continues a study that was stopped.
    """
    from hpcfwi.studies.scaling_study import ScaleOptions, run_study

    options = ScaleOptions(site, way, nodes, weak, repeat, iterations, stand_in, settings)
    kind = "-weak" if weak else ""
    folder = study_dir or Path("scaling") / f"{config.stem}-{Path(site).stem}{kind}"
    for path in run_study(find_config(config), options, folder, console()).paths:
        click.echo(str(path))
