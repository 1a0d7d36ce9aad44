"""Files of picks, and every mistake in them."""

import numpy as np
import pytest

from hpcfwi.errors import DataError, InputError
from hpcfwi.model.processing.picks import read_picks
from hpcfwi.model.survey import Shot


def shot(name="a", *along):
    return Shot(name, np.zeros(2), np.array([[x, 0.0] for x in along or (0.0, 150.0, 900.0)]))


def read(tmp_path, text):
    path = tmp_path / "picks.csv"
    path.write_text(text)
    return read_picks(path, "processing[1].picks")


@pytest.mark.parametrize("text", ["offset,time\n100,50\n200,90\n", "# first breaks\ntime;offset\n90;200\n\n50;100\n"])
def test_picks_for_all_shots_are_linear_in_offset(tmp_path, text):
    np.testing.assert_allclose(read(tmp_path, text).times(shot()), [50, 70, 90])


def test_picks_may_differ_from_shot_to_shot(tmp_path):
    picks = read(tmp_path, "shot,offset,time\na,0,10\nb,0,20\nb,100,30\n")
    np.testing.assert_allclose(picks.times(shot("a")), [10, 10, 10])
    np.testing.assert_allclose(picks.times(shot("b", 50.0)), [25])
    with pytest.raises(DataError, match="shot c: has no picks"):
        picks.times(shot("c"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("offset,tme\n1,2\n", r"line 1: has no column 'time'"),
        ("offset,time\n1,x\n", r"line 2: time is 'x'; it should be a number, in ms"),
        ("offset,time\n-1,2\n", r"line 2: offset is '-1'; it should be a number, 0 m or more"),
        ("offset,time\n1\n", r"line 2: time is ''"),
        ("offset,time\n1,2\n1,3\n", r"line 3: has a second pick at the offset 1 m"),
        ("offset,time\n", "has no picks"),
        ("", "has no picks"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, text, problem):
    with pytest.raises(InputError, match=problem) as error:
        read(tmp_path, text)
    assert "processing[1].picks" in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"picks: .*none.csv: cannot be read"):
        read_picks(tmp_path / "none.csv", "processing[1].picks")
