"""``[[processing]]``: its steps in the order written, and a message for every mistake in them."""

from pathlib import Path

import pytest

from hpcfwi.config.processing import BandPassSection, TimeGainSection
from hpcfwi.config.run import load_run_config
from hpcfwi.errors import InputError

CIRCLE = Path(__file__).parents[2] / "jobs" / "circle.toml"
BAND = 'kind = "bandpass"\nhigh = 15'


@pytest.fixture
def load(tmp_path):
    """Load the circle's configuration with steps after a band-pass, and settings."""

    def run_config(steps=(), *settings):
        path = tmp_path / "fwi.toml"
        path.write_text(CIRCLE.read_text() + "".join(f"\n[[processing]]\n{step}\n" for step in (BAND, *steps)))
        return load_run_config(path, settings)

    return run_config


def test_steps_keep_the_order_in_which_they_are_written(load):
    steps = load(['kind = "time_gain"\npower = 2', BAND]).processing
    assert [type(step) for step in steps] == [BandPassSection, TimeGainSection, BandPassSection]


def test_a_setting_names_a_step_by_its_number(load):
    config = load(['kind = "normalise"'], "processing.1.high=12", "processing.2={kind='time_gain', power=1}")
    assert config.processing == (
        BandPassSection(kind="bandpass", high=12.0),
        TimeGainSection(kind="time_gain", power=1.0),
    )


@pytest.mark.parametrize(
    "setting", ["processing.3.high=2", "processing.0.high=2", "processing.high=2", "processing.x.high=2"]
)
def test_a_setting_of_a_step_that_does_not_exist_says_how_many_there_are(load, setting):
    with pytest.raises(InputError, match=r"processing is a list of 2 sections; .* a number from 1 to 2, not"):
        load(['kind = "normalise"'], setting)


def test_picks_are_relative_to_the_file(load, tmp_path):
    assert load(['kind = "top_mute"\npicks = "a.csv"']).processing[1].picks == tmp_path / "a.csv"


@pytest.mark.parametrize(
    ("step", "mistake"),
    [
        ('kind = "agc"', r'processing\[2\]\.kind: is "agc", which is not offered: .*"normalise" balances traces'),
        ('kind = "mute"', r'processing\[2\]\.kind: is "mute"; it should be "bandpass", .*Did you mean "top_mute"'),
        ("power = 1", r'processing\[2\]: needs a key "kind": "bandpass"'),
        ('kind = "normalise"\nnorm = 1', r"processing\[2\]\.norm: unknown key"),
        ('kind = "bandpass"', r"processing\[2\]: needs low, high or both, in Hz"),
        (
            'kind = "bandpass"\nlow = 30\nhigh = 3',
            r"processing\[2\]\.low: is 30 Hz; it should be below high, which is 3 Hz",
        ),
        ('kind = "bandpass"\nlow = 3\norder = 3', r"processing\[2\]\.order: is 3; it should be a multiple of 2"),
        ('kind = "resample"', r"processing\[2\]\.sample_interval: is missing"),
        ('kind = "top_mute"', r"processing\[2\]: needs either velocity, time or both, or picks"),
        ('kind = "bottom_mute"\ntime = 3\npicks = "a.csv"', r"processing\[2\]: needs either velocity"),
        ('kind = "top_mute"\nvelocity = 1500', r"processing\[2\]\.velocity: is 1500; .*this looks like m/s"),
        ('kind = "offset_window"', r"processing\[2\]: needs minimum, maximum or both, in m"),
        ('kind = "time_window"\nstart = 9\nend = 3', r"processing\[2\]\.start: is 9 ms; it should be below end"),
        ('kind = "time_gain"\npower = 0', r"processing\[2\]\.power: is 0; it should be above 0"),
        (
            'kind = "line_source"\nvelocity = 2',
            r'processing\[2\]\.kind: is "line_source", but modelled data need no correction',
        ),
    ],
)
def test_a_mistake_in_a_step_is_named_by_its_number(load, step, mistake):
    with pytest.raises(InputError, match=mistake) as error:
        load([step])
    assert "one mistake" in str(error.value)


def test_line_sources_are_refused_in_3d(load):
    settings = ["grid.spacing=[10,10,10]", "grid.shape=[41,41,41]", "data.file=d"]
    ends = [
        f"acquisition.{name}.{end}=[{x},0,{x}]"
        for name in ("sources", "receivers")
        for end, x in (("first", 9), ("last", 99))
    ]
    with pytest.raises(
        InputError, match=r'processing\[2\]\.kind: is "line_source", but a 3-D model has point sources, too;'
    ):
        load(['kind = "line_source"\nvelocity = 2'], *settings, *ends)


def test_an_extrapolated_tail_has_no_processing(load):
    with pytest.raises(InputError, match=r'data.tail: is "extrapolate", which does not go with processing'):
        load([], "data.tail=extrapolate", "solver.time_dispersion=kept")


def test_processing_is_a_list(load, tmp_path):
    path = tmp_path / "single.toml"
    path.write_text(CIRCLE.read_text() + f"\n[processing]\n{BAND}\n")
    with pytest.raises(InputError, match=r"processing: is .* it should be a list of sections in double brackets"):
        load_run_config(path)
    with pytest.raises(InputError, match=r"processing\[1\]: is 3; it should be a section"):
        load([], "processing.1=3")
