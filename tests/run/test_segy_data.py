"""The observed data of a problem in SEG-Y."""

from __future__ import annotations

import numpy as np
import pytest
import segyio
from segyio import TraceField

from hpcfwi.errors import InputError
from hpcfwi.run.segy_data import SegyData


def written(problem, path):
    """Write records whose samples are all the number of the shot, and return the headers' FieldRecord and the text."""
    recording = problem.recording
    records = (np.full((recording.samples, len(s.receivers)), i, "f4") for i, s in enumerate(problem.survey.shots))
    SegyData(problem).write(path, records)
    with segyio.open(path, ignore_geometry=True) as file:
        np.testing.assert_array_equal(file.trace.raw[:][:, 0], np.repeat(np.arange(len(problem.survey)), 20))
        return file.attributes(TraceField.FieldRecord)[:][::20].tolist(), segyio.tools.wrap(file.text[0])


def test_names_that_are_numbers_are_field_records(make_problem, tmp_path):
    numbers, text = written(make_problem(), tmp_path / "d.segy")
    assert numbers == [0, 1, 2]
    assert "Shot 0" not in text


def test_other_names_are_listed_in_the_text_header(make_problem, tmp_path):
    (tmp_path / "s.csv").write_text("shot,x,z\nFFID17,20,100\n8,20,300\nL1/9,20,500\n")
    settings = [f"acquisition.sources={{file = '{tmp_path / 's.csv'}'}}"]
    numbers, text = written(make_problem(*settings), tmp_path / "d.segy")
    assert numbers == [1, 2, 3]
    for line in ("Shot 1 is FFID17", "Shot 2 is 8", "Shot 3 is L1/9"):
        assert line in text


def test_of_many_names_the_text_header_says_how_many_it_leaves_out(make_problem, tmp_path):
    rows = "".join(f"S{i},20,{100 + i}\n" for i in range(40))
    (tmp_path / "s.csv").write_text(f"shot,x,z\n{rows}")
    _, text = written(make_problem(f"acquisition.sources={{file = '{tmp_path / 's.csv'}'}}"), tmp_path / "d.segy")
    assert "Shot 30 is S29" in text
    assert "C38 and 10 more, in the order of the survey" in text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "data.sample_interval=0.3333",
            "data.sample_interval: 0.3333 ms are 333.3 microseconds, but SEG-Y rev 1 has whole",
        ),
        (
            "data.recording_time=131072",
            "data.recording_time: 131072 ms are 32769 samples, but SEG-Y rev 1 has at most 32767 in a trace",
        ),
    ],
)
def test_what_the_header_cannot_hold_is_refused_before_anything_is_computed(make_problem, setting, message):
    with pytest.raises(InputError) as caught:
        SegyData(make_problem(setting))
    assert message in str(caught.value)
    assert "leave out --to segy" in str(caught.value)


def test_rounded_positions_are_a_note(make_problem):
    (note,) = SegyData(make_problem("acquisition.receivers.count=18")).notes
    assert note.startswith("positions are rounded by up to ")


def test_the_command_writes_the_gathers_of_all_shots(hpcfwi):
    run = hpcfwi.folder / "run"
    gathers = hpcfwi("model", "fwi.toml", "--run-dir", run)
    assert gathers.returncode == 0, gathers.stderr
    done = hpcfwi("model", "fwi.toml", "--run-dir", run, "--to", "segy")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(run / "data.segy")
    with segyio.open(run / "data.segy", ignore_geometry=True) as file:
        for shot in range(3):
            np.testing.assert_array_equal(
                file.trace.raw[20 * shot : 20 * shot + 20].T, np.load(run / f"data/{shot}.npy")
            )
        depths = -file.attributes(TraceField.ReceiverGroupElevation)[:20] / -file.header[0][TraceField.ElevationScalar]
    np.testing.assert_allclose(depths, np.linspace(20, 580, 20), atol=5.1e-5)
