"""The command ``hpcfwi scale``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpcfwi.cli.console import console, find_config, launch_options, problem_options
from hpcfwi.errors import InputError


def _node_counts(_: Any, __: Any, text: str) -> tuple[int, ...]:
    try:
        counts = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        counts = ()
    if not counts or counts[0] < 1:
        raise InputError(f"--nodes {text}: should be whole numbers, 1 or more, for example --nodes 1,2,4")
    return counts


@click.command()
@problem_options
@launch_options
@click.option(
    "--nodes",
    default="1,2,4,8",
    show_default=True,
    callback=_node_counts,
    metavar="N,N,...",
    help="Numbers of worker jobs, of nodes of the allocation, or of worker processes on this machine.",
)
@click.option(
    "--weak",
    is_flag=True,
    help="Let the number of shots grow with the nodes; the largest number of nodes runs all shots.",
)
@click.option(
    "--repeat",
    "repeats",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Runs on each number of nodes.",
)
@click.option("--iterations", type=click.IntRange(min=1), default=3, show_default=True, help="Iterations of each run.")
@click.option(
    "--stand-in",
    metavar="SECONDS[:SPREAD]",
    help="Let shots sleep instead of running the kernels: their mean duration, and the standard deviation over the mean.",
)
@click.option(
    "--study-dir",
    type=click.Path(path_type=Path),
    help="Folder of the study [scaling/CONFIG-SITE, or ...-SITE-weak].",
)
def scale(config: Path, study_dir: Path | None, **options: Any) -> None:
    """Measure how CONFIG scales over numbers of nodes, and predict larger ones.

    Runs CONFIG on each number of nodes, shows where the time goes, and fits a cost model for the prediction. Measured runs are
    kept: the same command continues a study that was stopped.
    """
    from hpcfwi.scaling.study import ScaleOptions, run_study

    study = ScaleOptions(**options)
    name = f"{config.stem}-{Path(study.site).stem}{'-weak' if study.weak else ''}"
    for path in run_study(find_config(config), study, study_dir or Path("scaling", name), console()).paths:
        click.echo(path)
