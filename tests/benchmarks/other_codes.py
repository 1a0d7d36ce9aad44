"""Observed data by other people's codes on a finer grid, so that an inversion commits no inverse crime.

Both functions return an array (samples, receivers) for each shot, with the survey's samples, wavelet and amplitudes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcfwi import Problem
from hpcfwi.model.grid import TimeAxis, critical_step
from hpcfwi.model.processing.sampling import resample
from hpcfwi.model.wavelet import build_wavelet

ORDER = 8  # of the finite differences in space
SPONGE_CELLS = 150  # so wide that little comes back: with 40 cells a tenth of a wave does


def by_devito_examples(problem: Problem, velocity: NDArray, spacing: float) -> list[NDArray]:
    """``AcousticWaveSolver`` of Devito's examples, in a model, km/s, on a grid of its own.

    It adds ``dt^2 / m`` times the wavelet to the cells around the source. A source of strength 1 at a point has one over the
    area of a cell, too.
    """
    from examples.seismic import AcquisitionGeometry, Model
    from examples.seismic.acoustic import AcousticWaveSolver

    model = Model(
        vp=velocity.astype(np.float32), origin=(0.0, 0.0), shape=velocity.shape, spacing=(spacing, spacing),
        nbl=SPONGE_CELLS, space_order=ORDER, bcs="damp",
    )  # fmt: skip
    wavelet, gathers = build_wavelet(problem.config.wavelet), []
    for shot in problem.survey.shots:
        geometry = AcquisitionGeometry(
            model, shot.receivers, shot.source[None], 0.0, problem.recording.times[-1], f0=0.005, src_type="Ricker"
        )
        axis = TimeAxis(float(geometry.time_axis.step), int(geometry.time_axis.num))
        source = geometry.src
        source.data[:, 0] = wavelet.sample(axis) / spacing**2
        solver = AcousticWaveSolver(model, geometry, space_order=ORDER)
        record = np.array(solver.forward(src=source, dt=axis.step)[0].data)
        gathers.append(resample(record, axis.step, problem.recording, "float32"))
    return gathers


def by_deepwave(problem: Problem, velocity: NDArray, spacing: float) -> list[NDArray]:
    """Deepwave's ``scalar``, which injects at grid points, with the opposite sign and not per area."""
    import deepwave
    import torch

    wavelet = build_wavelet(problem.config.wavelet)
    step = 0.9 * critical_step(problem.domain, ORDER, float(velocity.max())) * spacing / problem.domain.spacing[0]
    axis = TimeAxis.covering(problem.recording.times[-1], step)
    amplitudes = torch.tensor(-wavelet.sample(axis) / spacing**2, dtype=torch.float32)[None, None]
    model, gathers = torch.tensor(1e3 * velocity, dtype=torch.float32), []
    for shot in problem.survey.shots:
        source, receivers = (
            torch.tensor(np.rint(where / spacing).astype(int)) for where in (shot.source[None], shot.receivers)
        )
        with torch.no_grad():
            *_, record = deepwave.scalar(
                model, spacing, axis.step / 1e3, source_amplitudes=amplitudes, source_locations=source[None],
                receiver_locations=receivers[None], accuracy=ORDER, pml_width=20, pml_freq=5.0,
            )  # fmt: skip
        gathers.append(resample(record[0].T.numpy().astype(float), axis.step, problem.recording, "float32"))
    return gathers
