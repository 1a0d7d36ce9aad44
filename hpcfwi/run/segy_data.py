"""The observed data of a problem as one SEG-Y file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.formats.segy_writer import (
    MAX_INT32,
    TEXT_LINES,
    Scaling,
    ShotGathers,
    check_samples,
    create_segy,
    whole_number,
)
from hpcfwi.formats.stored_model import FormatError
from hpcfwi.io import atomic_path
from hpcfwi.model.problem import Problem
from hpcfwi.version import __version__


class SegyData:
    """All shots of a problem, to be written one by one to a SEG-Y file.

    Raises InputError if the header fields cannot hold the problem's sample interval, number of samples or positions.

    Attributes
    ----------
    notes
        What the reader of the file should know.
    """

    def __init__(self, problem: Problem) -> None:
        self._shots, self._recording = problem.survey.shots, problem.recording
        positions = _in_3d(np.concatenate([*(shot.source[None] for shot in self._shots), *problem.survey.spreads()]))
        interval, samples = 1000 * self._recording.step, self._recording.samples
        duration = problem.config.data.recording_time
        try:
            self._interval = whole_number(
                interval, f"data.sample_interval: {self._recording.step:g} ms are {interval:.10g} microseconds"
            )
            check_samples(samples, f"data.recording_time: {duration:g} ms are {samples} samples")
            self._plane = Scaling.of(positions[:, :2], "x and y of sources and receivers")
            self._depth = Scaling.of(positions[:, 2], "depths of sources and receivers")
        except FormatError as error:
            raise InputError(
                f"{error}; change that, or leave out --to segy: .npy gathers have no such limits"
            ) from None
        rounding = max(self._plane.error, self._depth.error)
        self.notes = (f"positions are rounded by up to {rounding:.1g} m",) if rounding > 1e-6 else ()

    def write(self, path: Path, records: Iterable[NDArray]) -> None:
        """Write the file; ``records`` are the gathers, shape (samples, receivers), in the order of the survey."""
        names = [shot.name for shot in self._shots]
        numeric = all(name.isascii() and name.isdecimal() and str(int(name)) == name for name in names)
        numbers = [int(name) for name in names] if numeric else []
        if not numeric or max(numbers) > MAX_INT32:
            numbers = list(range(1, len(names) + 1))
        traces = sum(len(shot.receivers) for shot in self._shots)
        with (
            atomic_path(path) as temporary,
            create_segy(temporary, traces, self._recording.samples, self._interval, self._text(names, numbers)) as file,
        ):
            gathers = ShotGathers(file, self._interval, self._plane, self._depth)
            for place, (shot, record) in enumerate(zip(self._shots, records, strict=True)):
                source, receivers = _in_3d(shot.source[None])[0], _in_3d(shot.receivers)
                gathers.write(numbers[place], place + 1, source, receivers, record)

    def _text(self, names: list[str], numbers: list[int]) -> list[str]:
        lines = [
            f"Observed data of {len(names)} shots. Written by hpcfwi {__version__}",
            "Coordinates are m; x, y of source and receiver (bytes 73, 77, 81, 85) have",
            "the scalar of byte 71, their depths that of byte 69. The depth of the",
            "source is in byte 49; byte 41 is the elevation of the receiver: -depth",
            "Byte 9 is the shot: its name if all names are numbers, else from 1 on",
            "Byte 17 is the place of the shot in the survey, from 1 on",
            "Samples are IEEE floats, big endian (format 5), from time 0 on",
        ]
        lines += [f"Shot {k} is {name}" for name, k in zip(names, numbers, strict=True) if name != str(k)]
        more = len(lines) - TEXT_LINES
        return [*lines[: TEXT_LINES - 1], f"and {more + 1} more, in the order of the survey"] if more > 0 else lines


def _in_3d(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions as x, y and depth, m; y is 0 in two dimensions."""
    return positions if positions.shape[1] == 3 else np.insert(positions, 1, 0.0, axis=1)
