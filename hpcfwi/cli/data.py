"""The command ``hpcfwi data info``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from hpcfwi.cli.console import console, find_config, settings_option
from hpcfwi.config.messages import validate
from hpcfwi.config.parsing import apply_settings, parse_setting
from hpcfwi.errors import InputError

if TYPE_CHECKING:
    from hpcfwi.config.data import DataSection
    from hpcfwi.config.run import RunConfig

DEFAULT_FIGURE = Path("survey.png")


@click.group()
def data() -> None:
    """Look at observed data before they are inverted."""


@data.command()
@click.argument("files", metavar="[FILE...]", nargs=-1, type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), help="Configuration: how the survey lies in its model.")
@click.option(
    "--figure",
    is_flag=False,
    flag_value=str(DEFAULT_FIGURE),
    type=click.Path(path_type=Path),
    help=f"Draw a map and a gather [{DEFAULT_FIGURE}].",
)
@click.option(
    "--shots", type=click.IntRange(min=1), default=5, show_default=True, help="Number of shots whose samples are read."
)
@settings_option("the configuration, or of [data] without one")
def info(
    files: tuple[Path, ...], config: Path | None, figure: Path | None, shots: int, settings: tuple[str, ...]
) -> None:
    """Show what SEG-Y or Seismic Unix FILEs hold: geometry, sampling, amplitudes, broken traces, contradictions.

    Without FILE, show those of the configuration.
    """
    from hpcfwi.config.run import load_run_config
    from hpcfwi.reporting.survey_info import survey_info
    from hpcfwi.reporting.survey_text import GATHER_TITLES, gather_rows

    if figure is not None and figure.suffix.lower() != ".png":
        raise InputError(f"--figure {figure}: is written as PNG; give it a name that ends in .png")
    run = None if config is None else load_run_config(find_config(config), settings)
    found = survey_info(_data_section(files, run, settings), run, shots)
    screen = console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in found.rows:
        table.add_row(*row)
    screen.print(table, soft_wrap=not screen.is_terminal, markup=False, highlight=False)
    gathers = Table(*GATHER_TITLES, box=None, pad_edge=False, header_style="")
    for cells in gather_rows(found.gathers):
        gathers.add_row(*cells)
    click.echo(f"\nSamples of {len(found.gathers)} of {len(found.survey)} shots:")
    screen.print(gathers, soft_wrap=not screen.is_terminal, markup=False, highlight=False)
    for contradiction in found.contradictions:
        click.echo(f"contradictory: {contradiction}")
    if figure is not None:
        click.echo(found.draw(figure))


def _data_section(files: tuple[Path, ...], run: RunConfig | None, settings: tuple[str, ...]) -> DataSection:
    """``[data]`` with the files of the command line."""
    from hpcfwi.config.data import DataSection

    if run is None:
        if not files:
            raise InputError("hpcfwi data info: needs a FILE, or a configuration: --config CONFIG")
        content = apply_settings({}, [parse_setting(setting) for setting in settings])
        others = sorted(set(content) - {"data"})
        if others:
            raise InputError(f"--set {others[0]}: goes with --config; without it, only keys of [data] can be set")
        section = validate(
            DataSection, {**content.get("data", {}), "file": [str(path) for path in files]}, "[data] with --set"
        )
    else:
        section = run.data if not files else run.data.model_copy(update={"file": files})
    return section
