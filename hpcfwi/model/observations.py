"""The survey of a configuration, which of its traces are used, and where the observed gathers are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hpcfwi.errors import DataError, InputError
from hpcfwi.formats.segy import file_stamp
from hpcfwi.model.checks import check_positions
from hpcfwi.model.coordinates import Transform
from hpcfwi.model.field_survey import check_repeated, read_field_survey
from hpcfwi.model.gathers import ArrayRecordings, Recordings
from hpcfwi.model.grid import Domain, TimeAxis
from hpcfwi.model.header_expressions import HeaderExpression
from hpcfwi.model.model_file import check_axes, model_files
from hpcfwi.model.recorded import RecordedShots, SegyRecordings, check_section
from hpcfwi.model.selection import Selection, check_extent, killed_traces, read_weights, select_traces
from hpcfwi.model.survey import Survey, build_survey, move_down, moved_down_warning, read_geometry
from hpcfwi.model.traces import ShotData, TracePolicy

if TYPE_CHECKING:
    from pathlib import Path

    from hpcfwi.config.data import TracesSection
    from hpcfwi.config.run import RunConfig

MAX_TRACES = 1_000_000_000


@dataclass(frozen=True, eq=False)
class Observations:
    """Observed data as the configuration describes them.

    Parameters
    ----------
    survey
        Shots and receivers that are used.
    stored
        The survey as it is stored, before traces were left out.
    selection
        What was left out.
    policy
        What happens to traces that look broken.
    recordings
        Where the gathers are stored; None if they are modelled.
    in_place
        Whether workers read them from there each time.
    interval, duration
        Sample interval and length of the records, ms.
    notes
        What a reader of the data should know.
    warnings
        Likely mistakes.
    """

    survey: Survey
    stored: Survey
    selection: Selection
    policy: TracePolicy
    recordings: Recordings | None
    in_place: bool
    interval: float
    duration: float
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def shot_data(self, name: str) -> ShotData:
        """What a worker needs to read the gather of a shot."""
        assert self.recordings is not None
        found = self.selection
        return ShotData(
            self.recordings.reader(name),
            self.policy,
            found.kept.get(name),
            found.left_out.get(name, {}),
            found.weights.get(name),
            self.in_place,
        )

    def stamp(self) -> tuple[tuple[str, int, int], ...]:
        """Versions of the SEG-Y files that hold the gathers; empty for other formats."""
        if not isinstance(self.recordings, SegyRecordings):
            return ()
        return tuple(file_stamp(file.path) for file in self.recordings.field_survey.headers.files)


def read_observations(config: RunConfig, domain: Domain) -> Observations:
    """Read the survey that a configuration describes, and choose its shots and traces.

    Raises
    ------
    InputError
        If files cannot be read or contradict themselves, or positions do not fit the model (DataError: those of a shot).
    """
    data, policy = config.data, TracePolicy.from_config(config.data.traces)
    in_place = data.staging == "in place"
    if data.is_seismic:
        found = _from_headers(config, domain, policy)
    else:
        _refuse_seismic_keys(config)
        survey = _from_configuration(config, domain)
        paths: tuple[Path, ...] = data.files
        recordings = None
        if paths:
            recordings = ArrayRecordings(paths[0], data.interval, data.duration)
        found = Observations(survey, survey, Selection(), policy, recordings, in_place, data.interval, data.duration)
    survey, moved = found.survey.without(data.exclude), tuple[str, ...]()
    if config.acquisition.minimum_depth is not None:
        survey, moved = _move_down(survey, config.acquisition.minimum_depth)
    # of all shots, so that the file stays as it is when one is excluded
    weights = {} if data.traces.weights is None else read_weights(data.traces.weights, found.survey)
    killed = {}
    if isinstance(found.recordings, SegyRecordings):
        killed = killed_traces(found.recordings.field_survey, kill_expressions(config.data.traces))
        check_repeated(found.recordings.field_survey, killed)
    chosen, selection, left_out = select_traces(survey, domain, data.traces, weights, killed)
    traces = int(chosen.receiver_counts.sum())
    if traces > MAX_TRACES:
        raise InputError(f"acquisition: {len(chosen)} shots have {traces} traces; at most {MAX_TRACES} are possible")
    try:
        check_positions(chosen, domain, config.solver.free_surface)
    except DataError:  # these two know better what to do about positions outside the model
        if config.grid.shape is None:
            check_axes(model_files(config), chosen, domain)
        if data.is_seismic:
            check_extent(chosen, domain)
        raise
    warnings = (*found.warnings, *moved, *left_out)
    return replace(found, survey=chosen, stored=survey, selection=selection, warnings=warnings)


def _from_headers(config: RunConfig, domain: Domain, policy: TracePolicy) -> Observations:
    data = config.data
    fields = tuple(field for expression in kill_expressions(config.data.traces) for field in expression.fields.values())
    found = read_field_survey(data, fields)
    transform = Transform.from_config(data.transform, domain.ndim)
    notes = (found.note, *check_section(found, transform, domain.origin[0]))
    survey = Survey(RecordedShots(found, transform, np.arange(len(found.shots))))
    earliest = min(float(delays.min()) for delays in map(found.positions.delays, found.headers.chunks()))
    interval, longest = found.interval, (found.samples - 1) * found.interval + max(0.0, earliest)
    duration = data.recording_time
    if duration is None:
        duration = longest
    elif TimeAxis.within(duration, interval).samples > TimeAxis.within(longest, interval).samples:
        raise InputError(
            f"data.recording_time: is {duration:g} ms, but the records of data.file end at {longest:g} ms ({found.samples} "
            f"samples of {interval:g} ms); take at most that, or leave the key out"
        )
    return Observations(
        survey,
        survey,
        Selection(),
        policy,
        SegyRecordings(found),
        data.staging == "in place",
        interval,
        duration,
        notes,
        found.contradictions,
    )


def kill_expressions(section: TracesSection) -> tuple[HeaderExpression, ...]:
    """The conditions of ``data.traces.kill``; raises InputError if one is malformed."""
    return tuple(HeaderExpression(text, "data.traces.kill") for text in section.kill)


def _from_configuration(config: RunConfig, domain: Domain) -> Survey:
    sources, receivers = config.acquisition.sources, config.acquisition.receivers
    if config.data.geometry is not None:
        return read_geometry(config.data.geometry, domain.axes)
    assert sources is not None
    assert receivers is not None
    return build_survey(sources, receivers, domain.axes)


def _refuse_seismic_keys(config: RunConfig) -> None:
    """Raise InputError for keys that are about trace headers, where there are none."""
    data = config.data
    for key, given in (
        ("data.transform", data.transform is not None),
        ("data.traces.kill", bool(data.traces.kill)),
        ("data.headers", data.headers != type(data.headers)()),
    ):
        if given:
            raise InputError(
                f"{key}: goes with trace headers, but data.file is not SEG-Y (.sgy, .segy) or Seismic Unix (.su)"
            )


def _move_down(survey: Survey, depth: float) -> tuple[Survey, tuple[str, ...]]:
    """Move sources and receivers above ``depth``, m, down to it; returns the survey, and a warning if any were moved."""
    if not isinstance(survey.shots, RecordedShots):
        return move_down(survey, depth)
    warning = moved_down_warning(depth, *survey.shots.above(depth))
    return Survey(replace(survey.shots, minimum_depth=depth)), warning
