"""Observed gathers from files."""

from __future__ import annotations

import re
import shlex

import h5py
import numpy as np
import pytest

from hpcfwi.config.parsing import parse_setting
from hpcfwi.errors import DataError, InputError
from hpcfwi.model.gathers import ArrayRecordings, check_gathers
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.survey import Shot
from hpcfwi.model.traces import ShotData

RECORD = np.arange(12.0, dtype="f4").reshape(4, 3)
RECORDING = TimeAxis(2.0, 4)
ODD_NAMES = ["Line 3", "Süd-Profil", "A/1", "100%", "a%2Fb", "a.b", ".hidden", "-5", "x" * 100, "ü" * 100, "名前"]


def shot(name: str, receivers: int = 3) -> Shot:
    return Shot(name, np.zeros(2), np.zeros((receivers, 2)))


def data(path, name: str) -> ShotData:
    """What a worker gets to read a gather."""
    recordings = ArrayRecordings(path, RECORDING.step, float(RECORDING.times[-1]))
    return ShotData(recordings.reader(name))


def read_gather(path, shot: Shot) -> np.ndarray:
    return data(path, shot.name).read(shot, RECORDING).record


@pytest.fixture(params=["folder of .npy", "HDF5"])
def store(request, tmp_path):
    """Stores gathers by the names of their shots, and returns their path."""

    def write(**gathers: np.ndarray):
        path = tmp_path / "gathers"
        if request.param == "HDF5":
            with h5py.File(path, "w") as file:
                for name, gather in gathers.items():
                    file[name] = gather
        else:
            path.mkdir()
            for name, gather in gathers.items():
                np.save(path / f"{shot(name).file_name}.npy", gather)
        return path

    return write


def test_each_shot_has_its_gather(store):
    path = store(a=RECORD, b=2 * RECORD)
    assert check_gathers(path, [shot("b"), shot("a")], RECORDING) == ()
    np.testing.assert_array_equal(read_gather(path, shot("b")), 2 * RECORD)


def test_shots_of_any_name_have_their_own_gather(store):
    path = store(**{name: (i + 1) * RECORD for i, name in enumerate(ODD_NAMES)})
    assert check_gathers(path, [shot(name) for name in ODD_NAMES], RECORDING) == ()
    for i, name in enumerate(ODD_NAMES):
        np.testing.assert_array_equal(read_gather(path, shot(name)), (i + 1) * RECORD)


@pytest.mark.parametrize("name", ["Line 3", "Süd-Profil", ".hidden", "-5", "名前"])
def test_a_file_may_have_the_plain_name_of_its_shot(tmp_path, name):
    np.save(tmp_path / f"{name}.npy", RECORD)
    assert check_gathers(tmp_path, [shot(name)], RECORDING) == ()
    np.testing.assert_array_equal(read_gather(tmp_path, shot(name)), RECORD)


def test_a_plain_name_is_not_mistaken_for_the_encoded_name_of_another_shot(tmp_path):
    np.save(tmp_path / "a%2Fb.npy", RECORD)  # the gather of "a/b"
    read_gather(tmp_path, shot("a/b"))
    with pytest.raises(DataError, match="a%252Fb"):
        read_gather(tmp_path, shot("a%2Fb"))


@pytest.mark.parametrize("name", ["/a", "a//b", "./a", "a/", "a/./b"])
def test_names_that_hdf5_would_confuse_are_refused_there(tmp_path, name):
    with h5py.File(tmp_path / "g.h5", "w") as file:
        file["a/b"] = RECORD
    with pytest.raises(InputError, match=r"is not possible in HDF5; use a folder of \.npy files"):
        check_gathers(tmp_path / "g.h5", [shot(name)], RECORDING)
    np.save(tmp_path / f"{shot(name).file_name}.npy", RECORD)  # the advice
    assert check_gathers(tmp_path, [shot(name)], RECORDING) == ()


def test_missing_gathers_are_counted_and_the_first_is_named(store):
    path = store(a=RECORD)
    with pytest.raises(
        InputError, match=r"data\.file: .*gathers has no .*c.* \(nor those of 1 more shots\); add a gather"
    ):
        check_gathers(path, [shot("a"), shot("c"), shot("d")], RECORDING)
    with pytest.raises(DataError, match=r"shot c: data\.file: .*gathers"):
        read_gather(path, shot("c"))


def test_the_advice_on_missing_gathers_excludes_them_and_those_that_were_excluded_before(store):
    path = store(a=RECORD)
    names = ["a", "Süd 'Ost'", "b/😀", '"']
    with pytest.raises(InputError) as caught:
        check_gathers(path, [shot(name) for name in names], RECORDING, excluded=["z"])
    option, setting = shlex.split(str(caught.value).partition("without one: ")[2])
    assert option == "--set"
    assert parse_setting(setting) == (["data", "exclude"], ["z", *names[1:]])


def test_an_hdf5_group_is_not_a_gather(tmp_path):
    with h5py.File(tmp_path / "g.h5", "w") as file:
        file.create_group("a")
    with pytest.raises(InputError, match=r"has no dataset 'a'"):
        check_gathers(tmp_path / "g.h5", [shot("a")], RECORDING)


def test_gathers_that_are_neither_a_folder_nor_hdf5_are_refused(tmp_path):
    (tmp_path / "gathers.sgy").write_bytes(b"not HDF5")
    with pytest.raises(
        InputError, match=r"data\.file: .*\.sgy: is neither a folder of gathers nor a readable HDF5 file"
    ):
        check_gathers(tmp_path / "gathers.sgy", [shot("a")], RECORDING)
    with pytest.raises(InputError, match=r"data\.file: .*none: no such file or folder"):
        check_gathers(tmp_path / "none", [shot("a")], RECORDING)
    with pytest.raises(InputError, match="File name too long"):
        check_gathers(tmp_path / ("x" * 300), [shot("a")], RECORDING)


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "i2", "u1"])
def test_any_real_numbers_are_accepted(store, dtype):
    path = store(a=RECORD.astype(dtype))
    np.testing.assert_array_equal(read_gather(path, shot("a")), RECORD)


def test_a_gather_longer_than_the_recording_is_cut_with_one_warning(store):
    longer = np.concatenate([RECORD, np.full((3, 3), np.nan, "f4")])
    path = store(a=RECORD, b=longer, c=longer)
    (warning,) = check_gathers(path, [shot("a"), shot("b"), shot("c")], RECORDING)
    assert warning == (
        "data.file: gathers are longer than data.recording_time; that of shot b has 7 samples of 2 ms (12 ms), of which the "
        "first 4 are used. Correct data.sample_interval if the records are not that long"
    )
    cut = read_gather(path, shot("b"))
    np.testing.assert_array_equal(cut, RECORD)
    assert cut.dtype == RECORD.dtype


def test_a_broken_gather_other_than_the_first_is_left_to_the_run(tmp_path):
    np.save(tmp_path / "a.npy", RECORD)
    (tmp_path / "b.npy").write_bytes(b"not an array")
    assert check_gathers(tmp_path, [shot("a"), shot("b")], RECORDING) == ()
    with pytest.raises(DataError, match=r"shot b: .*is not a readable \.npy file"):
        read_gather(tmp_path, shot("b"))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            RECORD[:3],
            "is 4 ms long (3 samples of 2 ms), but data.recording_time needs 6 ms (4 samples); shorten "
            "data.recording_time, or correct data.sample_interval",
        ),
        (RECORD[:0], "is 0 ms long (0 samples of 2 ms), but data.recording_time needs 6 ms (4 samples)"),
        (RECORD.T, "has the shape (3, 4), but (samples, receivers) should be (4, 3); it looks transposed"),
        (RECORD.ravel(), "has the shape (12,), but (samples, receivers) should be (4, 3)"),
        (RECORD[:, :2], "has the shape (4, 2), but (samples, receivers) should be (4, 3)"),
    ],
)
def test_a_gather_of_another_shape_is_refused_with_its_shot(store, record, message):
    path = store(a=record)
    with pytest.raises(DataError, match=re.escape(f"shot a: its gather in data.file {message}")):
        read_gather(path, shot("a"))


def test_a_gather_of_complex_numbers_is_refused(store):
    with pytest.raises(DataError, match=r"shot a: .*data\.file.* holds complex128, not real numbers"):
        read_gather(store(a=RECORD.astype(complex)), shot("a"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e30])
def test_traces_with_broken_samples_are_left_out_and_counted(store, value):
    record = RECORD.copy()
    record[1, 2] = value
    found = data(store(a=record), "a").read(shot("a"), RECORDING)
    assert found.left_out == {"not finite": (3,)}
    assert found.weights.tolist() == [1, 1, 0]
    np.testing.assert_array_equal(found.record[:, :2], RECORD[:, :2])


def test_a_gather_with_too_few_usable_traces_is_refused(store):
    record = RECORD.copy()
    record[1, 2], record[:, 0] = np.nan, 0
    with pytest.raises(DataError, match=r"shot a: only 1 of its 3 traces can be used \(not finite: 3; dead: 1\)"):
        read_gather(store(a=record), shot("a"))
