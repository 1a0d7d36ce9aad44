"""The time for shots in hand, and the order in which a run that excludes a shot discards its results."""

from __future__ import annotations

import math

import pytest

from hpcfwi.errors import ShotFailed, StagingError
from hpcfwi.run.folder import RunFolder
from hpcfwi.run.shot_exclusion import ShotExclusion
from hpcfwi.run.stopping import CLOSING_S, LAST_SHOTS_S, finishing_time


@pytest.mark.parametrize(
    ("signal", "left", "seconds"),
    [
        ("SIGUSR1", 120.0, 120.0 - CLOSING_S),
        ("SIGUSR1", math.inf, LAST_SHOTS_S),
        ("SIGUSR1", 3.0, 0.0),
        ("SIGTERM", 120.0, LAST_SHOTS_S),
        ("SIGTERM", 15.0, 15.0 - CLOSING_S),
        ("SIGTERM", math.inf, LAST_SHOTS_S),
    ],
)
def test_running_shots_may_use_the_time_that_is_left(signal, left, seconds):
    assert finishing_time(signal, left) == seconds


def test_a_run_killed_while_it_excludes_a_shot_keeps_no_iterations_that_include_it(tmp_path, make_problem, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    folder.history.write_text("iterations over all shots")
    exclusion = ShotExclusion(folder, make_problem("data.quorum=0.5"))

    def die(*_):
        raise StagingError("the disk is full")

    monkeypatch.setattr(folder, "write_json", die)
    with pytest.raises(StagingError):
        exclusion.exclude(ShotFailed("1", "failed"))
    assert not folder.history.exists()
