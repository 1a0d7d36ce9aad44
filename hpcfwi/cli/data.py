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
    import numpy as np

    from hpcfwi.config.run import load_run_config
    from hpcfwi.model.coordinates import Transform
    from hpcfwi.model.field_survey import check_repeated, read_field_survey
    from hpcfwi.model.observations import kill_expressions
    from hpcfwi.model.recorded import RecordedShots, SegyRecordings, check_section
    from hpcfwi.model.selection import killed_traces
    from hpcfwi.model.survey import Survey
    from hpcfwi.model.survey_statistics import gather_statistics, survey_statistics
    from hpcfwi.reporting import survey_text as text

    if figure is not None and figure.suffix.lower() != ".png":
        raise InputError(f"--figure {figure}: is written as PNG; give it a name that ends in .png")
    run = None if config is None else load_run_config(find_config(config), settings)
    section = _data_section(files, run, settings)
    expressions = kill_expressions(section.traces)
    survey = read_field_survey(section, tuple(field for each in expressions for field in each.fields.values()))
    check_repeated(survey, killed_traces(survey, expressions))
    numbers = np.arange(len(survey.shots))
    shown = Survey(RecordedShots(survey, Transform.from_config(None, 3), numbers))
    found = survey_statistics(shown)
    delays = [(each.min(), each.max()) for each in map(survey.positions.delays, survey.headers.chunks())]
    rows = [
        *text.file_rows(survey),
        *text.survey_rows(found, survey.sources),
        *text.time_rows(survey, (float(min(delays)[0]), float(max(high for _, high in delays)))),
    ]
    domain = None
    if run is not None:
        from hpcfwi.model.problem import domain_of

        domain = domain_of(run)
        transform = Transform.from_config(section.transform, domain.ndim)
        rows += [("section", note) for note in check_section(survey, transform)]
        shown = Survey(RecordedShots(survey, transform, numbers, run.acquisition.minimum_depth))
        rows += text.model_rows(shown, domain)
    screen = console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    screen.print(table, soft_wrap=not screen.is_terminal, markup=False, highlight=False)
    recordings = SegyRecordings(survey)
    chosen = sorted({round(place) for place in np.linspace(0, len(shown) - 1, min(shots, len(shown)))})
    gathers = Table(*text.GATHER_TITLES, box=None, pad_edge=False, header_style="")
    described = []
    for number in chosen:
        shot = shown.shots[number]
        described.append(
            gather_statistics(shot, recordings.reader(shot.name).read(len(shot.receivers)), section.traces.spikes)
        )
    for cells in text.gather_rows(described):
        gathers.add_row(*cells)
    click.echo(f"\nSamples of {len(chosen)} of {len(shown)} shots:")
    screen.print(gathers, soft_wrap=not screen.is_terminal, markup=False, highlight=False)
    for contradiction in survey.contradictions:
        click.echo(f"contradictory: {contradiction}")
    if figure is not None:
        from hpcfwi.reporting.plotting import save_figure
        from hpcfwi.reporting.survey_figures import survey_figure

        shot = shown.shots[chosen[len(chosen) // 2]]
        stored = recordings.reader(shot.name).read(len(shot.receivers))
        click.echo(save_figure(figure, lambda: survey_figure(shown, found, shot, stored, domain)))


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
    if not section.is_seismic:
        what = ", ".join(map(str, section.files)) or "modelled data"
        raise InputError(
            f"data.file: {what} is not SEG-Y (.sgy, .segy) or Seismic Unix (.su), whose trace headers this command shows; "
            "hpcfwi plan shows the survey of other data"
        )
    return section
