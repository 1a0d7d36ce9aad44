"""Bad field data, as a user meets them: exit code 2, one message with number and key, nothing left behind."""

from __future__ import annotations

import os
import re
import struct

import numpy as np
import pytest
from field_files import FIELD, line, patch, survey_fields, write_segy, write_su

from hpcfwi.cli.main import command

RECEIVERS = [line(5)] * 3
FIELDS = survey_fields([(100.0, 0.0, 20.0), (200.0, 0.0, 20.0), (300.0, 0.0, 20.0)], RECEIVERS)
VALUES = np.random.default_rng(0).normal(size=(15, 151))
TRACE_BYTES = 240 + 4 * 151


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with a configuration, which is the current one; headers of large files are kept in it, too."""
    (tmp_path / "fwi.toml").write_text(FIELD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def refused(folder, capsys):
    """Run with settings, which must be refused before anything is written; returns the message."""

    def run(*settings: str) -> str:
        words = [word for setting in settings for word in ("--set", setting)]
        code = command(["run", "fwi.toml", "--run-dir", "run", *words])
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == ""
        assert "Traceback" not in err
        assert err.count("hpcfwi: ") == 1
        assert not (folder / "run").exists()
        return err.removeprefix("hpcfwi: ").strip()

    return run


def survey(folder, name="a.sgy", fields=None, **options):
    return write_segy(folder / name, VALUES, FIELDS | (fields or {}), **options)


def test_a_truncated_file_names_the_bytes_and_a_command(folder, refused):
    path = survey(folder)
    os.truncate(path, path.stat().st_size - 1000)
    told = refused()
    assert re.match(
        r"data\.file: .*a\.sgy: the binary header says 151 samples a trace, the first trace header 151, and a", told
    )
    assert f"a trace of 151 samples has {TRACE_BYTES} bytes; but the {15 * TRACE_BYTES - 1000} bytes" in told
    assert f"13 traces and {2 * TRACE_BYTES - 1000} bytes" in told
    assert "copy it again, set data.headers.samples, or cut a copy" in told


@pytest.mark.parametrize("suffix", ["sgy", "su"])
def test_a_wrong_byte_order_names_the_key(folder, refused, suffix):
    survey(folder)
    write_su(folder / "a.su", VALUES, FIELDS, endian="big")
    told = refused("data.headers.byte_order=little", f"data.file={folder}/a.{suffix}")
    assert "data.headers.byte_order" in told if suffix == "sgy" else "38656" in told
    assert "5 (4-byte IEEE float)" in told if suffix == "sgy" else "data.headers.samples" in told


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.sgy", b"shot,trace\n" * 1000, "but codes go from 1 to 16: it looks like text, not like SEG-Y"),
        ("a.segy", b"x z\n", "has 4 bytes, but the headers of SEG-Y alone have 3600"),
        ("a.sgy", b"", "has 0 bytes"),
        ("a.su", b"", "has 0 bytes, less than the header of a trace"),
        ("a.SGY", bytes(10_000), "the sample format in its binary header is 0 (big-endian) or 0 (little-endian)"),
    ],
)
def test_what_is_not_such_a_file_says_what_it_looks_like(folder, refused, name, content, message):
    (folder / name).write_bytes(content)
    told = refused(f"data.file={folder}/{name}")
    assert told.startswith(f"data.file: {folder}/{name}: ")
    assert message in told


def test_zero_samples_and_contradictory_counts_name_both(folder, refused):
    patch(survey(folder, fields={"TRACE_SAMPLE_COUNT": 0}), 3221, b"\0\0")
    assert "says 0 samples a trace, the first trace header 0; without samples there are no data" in refused()
    patch(survey(folder, fields={"TRACE_SAMPLE_COUNT": 200}), 3221, struct.pack(">H", 149))
    told = refused()
    assert "the binary header says 149 samples a trace, the first trace header 200" in told
    assert "data.headers.samples" in told
    assert "data.headers.samples: 149 samples do not fit" in refused("data.headers.samples=149")


def test_folders_pipes_and_devices_are_not_read(folder, refused):
    (folder / "a.sgy").mkdir()
    assert "a.sgy: cannot be read (Is a directory)" in refused()
    os.mkfifo(folder / "pipe.sgy")
    (folder / "device.su").symlink_to("/dev/zero")
    for name in ("pipe.sgy", "device.su"):
        assert "cannot be read (it is a device or a pipe, not a file)" in refused(f"data.file={folder}/{name}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(folder, refused):
    survey(folder).chmod(0)
    assert "a.sgy: cannot be read (Permission denied)" in refused()


def test_missing_files_and_patterns_without_a_match_are_refused(folder, refused):
    assert re.match(r"data\.file: .*a\.sgy: cannot be read \(No such file or directory\)", refused())
    assert refused(f"data.file={folder}/line*.sgy") == f"data.file: no file matches {folder}/line*.sgy"
    assert "is not a pattern of file names" in refused(f"data.file={folder}/a**b.sgy")


def test_a_file_named_twice_is_refused(folder, refused):
    survey(folder)
    told = refused(f'data.file=["{folder}/a.sgy", "{folder}/a.sgy"]')
    assert told == f"data.file: {folder}/a.sgy is there 2 times; name each file once"


def test_files_of_two_kinds_are_not_a_list(folder, refused):
    survey(folder)
    assert "only files of SEG-Y and Seismic Unix can be in a list, not" in refused(
        f'data.file=["{folder}/a.sgy", "{folder}/b.h5"]'
    )


@pytest.mark.parametrize("key", ["shot", "source_x", "receiver_elevation"])
def test_a_typing_error_in_a_field_names_the_nearest_one(folder, refused, key):
    survey(folder)
    told = refused(f"data.headers.{key}=FieldRecrod")
    assert told.startswith(f"data.headers.{key}: is 'FieldRecrod'; it should be the name of a header field")
    assert told.endswith('Did you mean "FieldRecord"?')
    assert "data.traces.kill" in refused('data.traces.kill=["FieldRecrod == 1"]')


@pytest.mark.parametrize(
    ("fields", "settings", "parts"),
    [
        ({"FieldRecord": 9}, ["data.headers.shot=FieldRecord"], ["is 9 in all 15 traces", "3 positions", "Name another field"]),
        (
            dict.fromkeys(["SourceX", "SourceY", "GroupX", "GroupY"], 0),
            [],
            ["are 0 in all 15 traces", "data.headers.source_x"],
        ),
        (
            {"SourceX": 36_000, "GroupX": 36_001, "SourceY": 9, "CoordinateUnits": 2},
            [],
            ["CoordinateUnits (byte 89) is 2 (seconds of arc), x goes up to 36001", "data.headers.unit"],
        ),
        (
            {"offset": 100 * np.abs(FIELDS["GroupX"] - FIELDS["SourceX"]), "SourceGroupScalar": 1},
            [],
            ["with SourceGroupScalar = 1, distances", "0.01 times the offsets", "data.headers.coordinate_scalar = 100"],
        ),
        (
            {"SourceX": FIELDS["SourceX"] + 4_000_000, "GroupX": FIELDS["GroupX"] + 4_000_000},
            [],
            ["3 of 3 sources and 15 of 15 receivers lie outside", "x 4000100 to 4000300 m", "--set data.transform.origin="],
        ),
        ({"SourceY": 5000}, [], ["5000 m beside the section", "at most 100 m", "--set data.transform.origin="]),
        ({"TRACE_SAMPLE_INTERVAL": 0}, ["data.recording_time=310"], ["is 310 ms, but the records", "end at 300 ms"]),
        ({}, ["data.traces.kill=[\"FieldRecord = 1\"]"], ["'FieldRecord = 1' is malformed: it cannot be parsed"]),
        ({}, ["data.traces.weights=none.csv"], ["data.traces.weights: ", "none.csv: no such file"]),
        ({}, ["data.headers.sample_format=4"], ["data.headers.sample_format: is 4, which is not read here"]),
    ],
)  # fmt: skip
def test_headers_that_cannot_be_right_are_told_with_number_and_key(folder, refused, fields, settings, parts):
    survey(folder, fields=fields)
    told = refused(*settings)
    assert re.search(".*".join(map(re.escape, parts)), told, re.DOTALL), told


def test_no_interval_anywhere_asks_for_the_key(folder, refused):
    survey(folder, fields={"TRACE_SAMPLE_INTERVAL": 0}, binary={3217: 0})
    assert refused().endswith("If the headers are wrong, set data.sample_interval, ms")
