"""The command ``hpcfwi export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hpcfwi.run.export import ModelFormat, RunModel


@click.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Choice(["segy", "netcdf", "vti", "rsf", "npy"]),
    required=True,
    help="Format: SEG-Y, NetCDF-4, a VTK image, RSF with header and samples in one file, or NumPy.",
)
@click.option(
    "--what",
    type=click.Choice(["velocity", "initial", "true"]),
    default="velocity",
    show_default=True,
    help="The final velocity (of a run that is not done: the current one), the initial or the true model.",
)
@click.option("--output", type=click.Path(path_type=Path), help="File to write [in RUN, named like velocity.segy].")
def export(run_dir: Path, to: ModelFormat, what: RunModel, output: Path | None) -> None:
    """Write a model of a run for other programs: km/s, at the coordinates of its configuration."""
    from hpcfwi.run.export import export_model

    written = export_model(run_dir, to, what, output)
    for note in written.notes:
        click.echo(f"warning: {note}")
    click.echo(written.path)
