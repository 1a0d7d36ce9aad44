"""``hpcfwi data info``, as a user types it: what it shows of real and made files, and what it says about mistakes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from field_files import FIELD, SMALL_SU, VIKING, line, survey_fields, take, write_segy, write_su

from hpcfwi.cli.main import command

SOURCES = [(100.0, 0.0, 20.0), (200.0, 0.0, 20.0), (300.0, 0.0, 20.0)]
FIELDS = survey_fields(SOURCES, [line(12)] * 3)
VALUES = np.random.default_rng(0).normal(size=(36, 151))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder with a configuration, which is the current one; headers of large files are kept in it, too."""
    (tmp_path / "fwi.toml").write_text(FIELD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_segy(tmp_path / "a.sgy", VALUES, FIELDS)
    return tmp_path


@pytest.fixture
def info(capsys):
    """Type the command; returns what it prints, with one space between words."""

    def run(*words: object) -> str:
        code = command(["data", "info", *map(str, words)])
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        return re.sub(" +", " ", out)

    return run


@pytest.fixture
def refused(capsys):
    """Type the command, which must be refused; returns the message."""

    def run(*words: object) -> str:
        code = command(["data", "info", *map(str, words)])
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == ""
        assert "Traceback" not in err
        return err.strip()

    return run


# --- what it shows


def test_a_file_is_described_without_a_configuration(info):
    shown = info("a.sgy")
    for text in (
        "a.sgy SEG-Y rev 0, big-endian, 4-byte IEEE float, 36 traces of 151 samples",
        "shots 3 shots, grouped by the position of the source and named by FieldRecord (byte 9)",
        "traces 36, 12 a shot",
        "sources x 100 to 300 m, y 0 m, z 20 m; 100 m apart",
        "receivers x 100 to 650 m, y 0 m, z 20 m; 50 m apart",
        "offsets 0 to 550 m",
        "time 151 samples every 2 ms: 300 ms, up to 250 Hz",
        "Samples of 3 of 3 shots:",
    ):
        assert text in shown
    assert "contradictory" not in shown
    assert "model" not in shown


def test_with_a_configuration_it_says_how_the_survey_lies_in_the_model(info):
    shown = info("--config", "fwi.toml")
    assert "model x 0 to 600 m, z 0 to 600 m" in shown
    assert "3 of 36 traces outside:" in shown
    assert "x above 600 m: 3 receivers" in shown


def test_settings_change_the_configuration_or_the_data_section(info):
    assert "36 traces, all inside" in info("--config", "fwi.toml", "--set", "grid.shape=[41,31]")
    feet = info("a.sgy", "--set", "data.headers.unit=ft")
    assert "receivers x 30.48 to 198.12 m" in feet


def test_files_of_the_command_line_replace_those_of_the_configuration(folder, info):
    write_su(folder / "other.su", VALUES[:24], take(FIELDS, slice(24)))
    shown = info("other.su", "--config", "fwi.toml")
    assert "other.su Seismic Unix, little-endian" in shown
    assert "a.sgy" not in shown
    assert "2 of 24 traces outside:" in shown


def test_several_files_are_one_survey(folder, info):
    for number in range(3):
        write_segy(folder / f"part{number}.sgy", VALUES[number::3], take(FIELDS, slice(number, None, 3)))
    shown = info(*(f"part{number}.sgy" for number in range(3)))
    assert "shots 3 shots" in shown
    assert "traces 36, 12 a shot" in shown
    assert info("part*.sgy") == shown


def test_broken_traces_of_sampled_shots_are_listed(folder, info):
    values = VALUES.copy()
    values[3], values[13, 7] = 0.0, np.nan
    write_segy(folder / "a.sgy", values, FIELDS)
    shown = info("a.sgy")
    assert re.search(r"^1 12 .* dead: 4 ?$", shown, re.MULTILINE)
    assert re.search(r"^2 12 .* not finite: 2 ?$", shown, re.MULTILINE)
    few = info("a.sgy", "--shots", 1)
    assert "Samples of 1 of 3 shots:" in few
    assert "not finite" not in few


def test_contradictions_of_headers_are_told(folder, info):
    write_segy(folder / "a.sgy", VALUES, FIELDS, binary={3217: 4000})
    (told,) = (line for line in info("a.sgy").splitlines() if line.startswith("contradictory: "))
    assert "the trace headers say 2000 µs, the binary header 4000 µs; 2 ms are used. Set data.sample_interval" in told


def test_a_figure_is_written_where_it_is_wanted(folder, info):
    shown = info("a.sgy", "--figure")
    assert shown.splitlines()[-1] == "survey.png"
    assert (folder / "survey.png").read_bytes()[:4] == b"\x89PNG"
    shown = info("--config", "fwi.toml", "--figure", "map.png")
    assert shown.splitlines()[-1] == "map.png"
    assert (folder / "map.png").exists()


def test_nothing_but_the_figure_is_written(folder, info):
    before = sorted(folder.iterdir())
    info("a.sgy", "--config", "fwi.toml")
    assert [path for path in sorted(folder.iterdir()) if path.name != "cache"] == before


@pytest.mark.skipif(not VIKING.exists(), reason="no shared data here")
def test_the_marine_records_are_shown_as_their_readme_describes_them(info):
    shown = info(VIKING)
    for text in (
        "SEG-Y rev 0, big-endian, 4-byte IBM float, 480 traces of 600 samples",
        "traces 480, 120 a shot",
        "sources x 3237 to 3312 m, y 0 m, z 6 m; 25 m apart",
        "offsets 262 to 3237 m",
        "600 samples every 4 ms: 2396 ms",
        "the binary header says 600 samples a trace, the first trace header 1500",
    ):
        assert text in shown


# --- mistakes


@pytest.mark.skipif(not SMALL_SU.exists(), reason="no shared data here")
def test_a_file_without_positions_names_the_headers_and_the_key(refused):
    told = refused(SMALL_SU)
    assert "SourceX (byte 73), SourceY (byte 77), GroupX (byte 81), GroupY (byte 85) are 0 in all 25 traces" in told
    assert "data.headers.source_x" in told


def test_a_file_or_a_configuration_is_needed(refused):
    assert "needs a FILE, or a configuration: --config CONFIG" in refused()


def test_a_file_that_is_not_there_is_named(refused):
    assert "nothing.sgy" in refused("nothing.sgy")
    assert "nothing.toml" in refused("a.sgy", "--config", "nothing.toml")


def test_text_with_the_suffix_of_segy_is_no_segy(folder, refused):
    (folder / "text.sgy").write_text("these are no headers\n" * 1000)
    assert "data.file: " in refused("text.sgy")
    (folder / "short.sgy").write_text("short")
    assert "has 5 bytes, but the headers of SEG-Y alone have 3600" in refused("short.sgy")


def test_other_formats_are_named_with_what_shows_them(folder, refused):
    np.save(folder / "a.npy", VALUES)
    told = refused("a.npy")
    assert "a.npy is not SEG-Y (.sgy, .segy) or Seismic Unix (.su)" in told
    assert "hpcfwi plan shows" in told


def test_a_typing_error_names_the_key_that_was_meant(refused):
    told = refused("a.sgy", "--set", "data.headers.sorce_x=9")
    assert told.startswith("hpcfwi: [data] with --set: one mistake\n  headers.sorce_x: unknown key; ")
    assert 'Did you mean "source_x"?' in told


def test_keys_of_other_sections_need_a_configuration(refused):
    told = refused("a.sgy", "--set", "grid.shape=[3,3]")
    assert told == "hpcfwi: --set grid: goes with --config; without it, only keys of [data] can be set"


def test_a_command_that_does_not_exist_suggests_one(capsys):
    assert command(["data", "nfo"]) == 2
    assert "Did you mean 'info'?" in capsys.readouterr().err


@pytest.mark.parametrize("shots", ["0", "-1", "many"])
def test_a_number_of_shots_is_at_least_1(refused, shots):
    assert "--shots" in refused("a.sgy", "--shots", shots)


def test_a_figure_does_not_overwrite_data_and_is_a_png(folder, refused):
    before = (folder / "a.sgy").read_bytes()
    told = refused("--config", "fwi.toml", "--figure", "a.sgy")
    assert told == "hpcfwi: --figure a.sgy: is written as PNG; give it a name that ends in .png"
    assert (folder / "a.sgy").read_bytes() == before


def test_the_advice_for_a_survey_beside_the_model_moves_it_there(folder, info):
    moved = FIELDS | {"GroupX": FIELDS["GroupX"] + 400000, "SourceX": FIELDS["SourceX"] + 400000}
    write_segy(folder / "a.sgy", VALUES, moved)
    shown = info("--config", "fwi.toml")
    assert "36 of 36 traces outside:" in shown
    assert "sources x 400" in shown
