"""Damaged SEG-Y, NetCDF, HDF5 and RSF: a model, or refused with its name; none takes much memory."""

from __future__ import annotations

import numpy as np
import pytest
import xarray

from hpcfwi.config.models import FileModel
from hpcfwi.formats.netcdf import write_netcdf
from hpcfwi.formats.rsf import write_rsf
from hpcfwi.formats.segy_model import write_segy_model
from hpcfwi.model.grid import Domain
from hpcfwi.model.velocity import build_model

VALUES = np.linspace(1.5, 4.0, 35, dtype="f4").reshape(7, 5)
PLACE = (10.0, 20.0), (0.0, 0.0)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Sound files by their suffix."""
    folder = tmp_path_factory.mktemp("sound")
    write_segy_model(folder / "v.segy", VALUES, *PLACE, ["a model"])
    write_netcdf(folder / "v.nc", VALUES, "xz", *PLACE, "km/s")
    with (folder / "v.rsf").open("wb") as file:
        write_rsf(file, VALUES, "xz", *PLACE, "km/s")
    xarray.load_dataset(folder / "v.nc").to_netcdf(folder / "v3.nc", engine="scipy")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check_model(error_of, folder, name, content):
    path = folder / name
    path.write_bytes(content)
    section = FileModel(kind="file", file=path)

    def build():
        made = build_model(section, Domain((7, 5), *PLACE), "model")
        assert np.isfinite(made).all()

    error_of(build, path, "model.")


@pytest.mark.cases(900)
@pytest.mark.parametrize("name", ["v.segy", "v3.nc", "v.rsf"])
def test_a_damaged_file_is_a_model_or_refused(fuzz, hostile, error_of, originals, name):
    fuzz(hostile.mutated(originals[name]), lambda folder, content: check_model(error_of, folder, name, content))


@pytest.mark.cases(600)
def test_a_damaged_hdf5_file_is_a_model_or_refused(fuzz, hostile, error_of, originals):
    fuzz(hostile.mutated(originals["v.nc"]), lambda folder, content: check_model(error_of, folder, "v.nc", content))


@pytest.mark.cases(600)
def test_a_text_with_any_parameters_is_an_rsf_header_or_refused(fuzz, hostile, error_of):
    sound = b'n1=5 o1=0 d1=20 label1="z" n2=7 d2=10 n3=1 data_format="native_float" esize=4 in="v.rsf@"\n'

    def check(folder, content):
        (folder / "v.rsf@").write_bytes(VALUES.tobytes())
        check_model(error_of, folder, "v.rsf", content)

    fuzz(hostile.mutated(sound), check)
