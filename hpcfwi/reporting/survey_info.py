"""What ``hpcfwi data info`` tells of a survey, for Python, too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcfwi.config.data import DataSection
from hpcfwi.config.run import RunConfig
from hpcfwi.errors import InputError
from hpcfwi.model.coordinates import Transform
from hpcfwi.model.field_survey import FieldSurvey, check_repeated, read_field_survey
from hpcfwi.model.grid import Domain
from hpcfwi.model.observations import kill_expressions
from hpcfwi.model.problem import domain_of
from hpcfwi.model.recorded import RecordedShots, SegyRecordings, check_section
from hpcfwi.model.selection import killed_traces
from hpcfwi.model.survey import Survey
from hpcfwi.model.survey_statistics import GatherStatistics, SurveyStatistics, gather_statistics, survey_statistics
from hpcfwi.reporting import survey_text
from hpcfwi.reporting.plotting import save_figure
from hpcfwi.reporting.survey_figures import survey_figure


@dataclass(frozen=True, eq=False)
class SurveyInfo:
    """What SEG-Y or Seismic Unix files hold.

    Parameters
    ----------
    rows
        Names and values: files, extents, intervals, offsets, fold, sampling, and how the survey lies in a model.
    statistics
        The survey in numbers, in its own coordinates.
    gathers
        Amplitudes and broken traces of the shots whose samples were read.
    contradictions
        What is contradictory in headers and files, and what is done about it.
    survey
        The shots; with a model, in its coordinates.
    headers
        The shots as their headers describe them.
    domain
        The grid of the model; None without one.
    """

    rows: tuple[tuple[str, str], ...]
    statistics: SurveyStatistics
    gathers: tuple[GatherStatistics, ...]
    contradictions: tuple[str, ...]
    survey: Survey
    headers: FieldSurvey
    domain: Domain | None

    def draw(self, path: Path) -> Path:
        """Write a figure (PNG): a map, offsets, fold, and the gather of one of the shots; returns the path."""
        name = self.gathers[len(self.gathers) // 2].name
        shot = self.survey.shots[self.survey.names.index(name)]
        stored = SegyRecordings(self.headers).reader(name).read(len(shot.receivers))
        return save_figure(path, lambda: survey_figure(self.survey, self.statistics, shot, stored, self.domain))


def survey_info(data: DataSection, config: RunConfig | None = None, shots: int = 5) -> SurveyInfo:
    """Look at a survey before it is inverted.

    Parameters
    ----------
    data
        ``[data]``, whose ``file`` names SEG-Y or Seismic Unix files.
    config
        A configuration: how the survey lies in its model.
    shots
        Number of shots whose samples are read.

    Returns
    -------
    SurveyInfo

    Raises
    ------
    InputError
        If the files cannot be read, hold no positions, or are not SEG-Y or Seismic Unix.
    """
    if not data.is_seismic:
        what = ", ".join(map(str, data.files)) or "modelled data"
        raise InputError(
            f"data.file: {what} is not SEG-Y (.sgy, .segy) or Seismic Unix (.su), whose trace headers this command shows; "
            "hpcfwi plan shows the survey of other data"
        )
    expressions = kill_expressions(data.traces)
    found = read_field_survey(data, tuple(field for each in expressions for field in each.fields.values()))
    check_repeated(found, killed_traces(found, expressions))
    numbers, domain = np.arange(len(found.shots)), None
    survey = Survey(RecordedShots(found, Transform.from_config(None, 3), numbers))
    statistics = survey_statistics(survey)
    delays = [(each.min(), each.max()) for each in map(found.positions.delays, found.headers.chunks())]
    rows = [
        *survey_text.file_rows(found),
        *survey_text.survey_rows(statistics, found.sources),
        *survey_text.time_rows(found, (float(min(delays)[0]), float(max(high for _, high in delays)))),
    ]
    if config is not None:
        domain = domain_of(config)
        transform = Transform.from_config(data.transform, domain.ndim)
        rows += [("section", note) for note in check_section(found, transform)]
        survey = Survey(RecordedShots(found, transform, numbers, config.acquisition.minimum_depth))
        rows += survey_text.model_rows(survey, domain)
    recordings, gathers = SegyRecordings(found), []
    for number in sorted({round(place) for place in np.linspace(0, len(survey) - 1, min(shots, len(survey)))}):
        shot = survey.shots[number]
        stored = recordings.reader(shot.name).read(len(shot.receivers))
        gathers.append(gather_statistics(shot, stored, data.traces.spikes))
    return SurveyInfo(tuple(rows), statistics, tuple(gathers), found.contradictions, survey, found, domain)
