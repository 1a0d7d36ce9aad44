"""Any file of numbers is a wavelet, gather or model, or refused with its name; none takes much memory."""

from __future__ import annotations

import io
import os

import h5py
import numpy as np
import pytest
from hypothesis import strategies as st

from hpcfwi.config.models import FileModel
from hpcfwi.errors import DataError, InputError
from hpcfwi.model.gathers import ArrayRecordings, check_gathers
from hpcfwi.model.grid import Domain, TimeAxis
from hpcfwi.model.masks import read_mask
from hpcfwi.model.model_file import open_model_file
from hpcfwi.model.survey import Shot
from hpcfwi.model.traces import ShotData
from hpcfwi.model.velocity import build_model
from hpcfwi.model.wavelet import SampledWavelet, highest_frequency, peak_frequency, read_wavelet

TEXT = b"# seconds\n0\n1.5e-3\n-1 # the trough\n\n+.25\n0\n"


def shot(receivers: int) -> Shot:
    return Shot("0", np.zeros(2), np.zeros((receivers, 2)))


def read_gather(path, shot: Shot, recording: TimeAxis) -> None:
    found = ShotData(ArrayRecordings(path, recording.step, float(recording.times[-1])).reader(shot.name)).read(
        shot, recording
    )
    assert np.isfinite(found.record).all()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(description: str, version: bytes = b"\x01\x00") -> bytes:
    """A .npy file that claims something, with a few bytes of content."""
    text = description.encode("latin-1", "replace") + b"\n"
    size = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + text + bytes(64)


SHAPES = [
    "()",
    "(4,)",
    "(1, 6)",
    "(31, 31)",
    "(0, 31)",
    "(10**9, 10**9)",
    "(1000000000, 1000000000)",
    "(-1, 31)",
    "(True, 4)",
]
SHAPES += [
    "(4294967296, 4294967296)",
    "(9223372036854775807,)",
    "(2.0, 3)",
    "'x'",
    "None",
    "[31, 31]",
    "(" * 90 + ")" * 90,
]
KINDS = ["<f8", "<f4", ">f2", "|b1", "<i8", "|u1", "<c16", "|O", "|S0", "|V0", "<U3", "<M8[s]", "f16", "x", "3f4"]
CLAIMS = st.builds(
    "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}".format,
    st.sampled_from([*map(repr, KINDS), "[('a', '<f4', (1000000000,))]", "('<f4', (10, 10))", "1", "[]"]),
    st.sampled_from(["True", "False", "1", "None"]),
    st.sampled_from(SHAPES),
)


def use_wavelet(path) -> None:
    values = read_wavelet(path)
    assert np.isfinite(values).all()
    wavelet = SampledWavelet(values, 1.0)
    assert 0 <= peak_frequency(wavelet) <= highest_frequency(wavelet) <= 0.5


@pytest.mark.cases(900)
def test_damaged_text_is_a_wavelet_or_refused(fuzz, hostile, error_of):
    def check(folder, content):
        path = folder / "w.txt"
        path.write_bytes(content)
        error_of(lambda: use_wavelet(path), path)

    lines = st.lists(hostile.numbers.map(repr) | hostile.texts, max_size=8).map("\n".join)
    fuzz(hostile.mutated(TEXT) | lines.map(lambda text: text.encode("utf-8", "surrogatepass")), check)


@pytest.mark.cases(900)
def test_a_damaged_array_is_used_or_refused(fuzz, hostile, error_of):
    arrays = [
        npy(np.array([0.0, 1.0, -1.0, 0.5, 0.0])),
        npy(np.full((31, 31), 2.5, "<f4")),
        npy(np.eye(31, dtype=bool)),
    ]
    claims = st.builds(header, CLAIMS, st.sampled_from([b"\x01\x00", b"\x02\x00", b"\x03\x00"]))

    def check(folder, content):
        path = folder / "0.npy"
        path.write_bytes(content)
        error_of(lambda: use_wavelet(path), path)
        error_of(lambda: read_mask(path, (31, 31)), path)
        error_of(lambda: read_gather(folder, shot(31), TimeAxis(1.0, 31)), "shot 0")
        for decimate in (1, 3):
            section = FileModel(kind="file", file=path, decimate=decimate)
            error_of(
                lambda section=section: open_model_file(section, "model", (1.0, 1.0), None).grid_shape(),
                path,
                "model.decimate",
            )
            error_of(
                lambda section=section: build_model(section, Domain((31, 31), (1.0, 1.0), (0.0, 0.0)), "model"), path
            )

    fuzz(hostile.mutated(*arrays) | claims, check)


@pytest.mark.cases(100)
def test_an_hdf5_file_of_anything_has_a_gather_or_is_refused(fuzz, error_of):
    kinds = st.sampled_from(["f4", "f8", "i2", "?", "c8", "S3", "O", h5py.string_dtype(), "compound", "enum", "opaque"])
    shapes = st.sampled_from([(), (0,), (4,), (4, 3), (3, 4), (10**9, 10**9), (4, 3, 2), None, "group", "type", "link"])

    def check(folder, given):
        kind, shape = given
        path = folder / "data.h5"
        with h5py.File(path, "w") as file:
            fill(file, kind, shape)

        def read() -> None:
            check_gathers(path, [shot(3)], TimeAxis(1.0, 4))
            read_gather(path, shot(3), TimeAxis(1.0, 4))

        error_of(read, path, "shot 0")

    fuzz(st.tuples(kinds, shapes), check)


def fill(file: h5py.File, kind, shape) -> None:
    """Something under the name of shot 0."""
    special = {
        "compound": np.dtype([("a", "f4")]),
        "enum": h5py.enum_dtype({"a": 1}),
        "opaque": h5py.opaque_dtype(np.dtype("M8[s]")),
    }
    dtype = special.get(kind, kind) if isinstance(kind, str) else kind
    if dtype == "O":
        dtype = h5py.vlen_dtype(np.dtype("f4"))
    if shape == "group":
        file.create_group("0")
    elif shape == "type":
        file["0"] = np.dtype("f4")
    elif shape == "link":
        file["0"] = h5py.SoftLink("/0")
    elif shape is None:
        file["0"] = h5py.Empty("f4")
    else:
        file.create_dataset("0", shape=shape, dtype=dtype, chunks=(1000, 1000) if shape[:1] == (10**9,) else None)


def test_an_array_of_impossible_size_is_not_read(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("0", shape=(10**9, 10**9), dtype="f8", chunks=(1000, 1000))
    with pytest.raises(DataError, match=r"shot 0: .* \(1000000000, 1000000000\)"):
        read_gather(tmp_path / "data.h5", shot(3), TimeAxis(1.0, 4))


@pytest.mark.parametrize("content", [np.dtype("f4"), h5py.Empty("f4")])
def test_a_type_or_an_empty_dataset_is_not_a_gather(tmp_path, content):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["0"] = content
    with pytest.raises(InputError, match="has no dataset '0'"):
        check_gathers(tmp_path / "data.h5", [shot(3)], TimeAxis(1.0, 4))
    with pytest.raises(DataError, match=r"shot 0: data\.file: .*data\.h5 has no array"):
        read_gather(tmp_path / "data.h5", shot(3), TimeAxis(1.0, 4))


def test_a_sparse_file_of_impossible_size_is_refused_unread(tmp_path):
    path = tmp_path / "w.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype="f8", shape=(10**11,)).flush()
    assert path.stat().st_blocks * 512 < 10**6
    with pytest.raises(InputError, match=r"has 100000000000 samples; .* at most 10000000"):
        read_wavelet(path)
    os.truncate(path, 0)
