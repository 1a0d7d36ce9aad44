"""Models of a run in other formats: read by segyio, xarray and PyVista, and again as an initial model."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import pyvista
import segyio
import tomli_w
import xarray
from segyio import TraceField

from hpcfwi import export_model
from hpcfwi.cli.main import command
from hpcfwi.config.run import load_run_config
from hpcfwi.errors import InputError
from hpcfwi.model.problem import Problem

FORMATS = ("segy", "netcdf", "vti", "rsf", "npy")
SUFFIXES = {"segy": ".segy", "netcdf": ".nc", "vti": ".vti", "rsf": ".rsf", "npy": ".npy"}
SPACING, ORIGIN = (12.5, 20.0, 7.25), (430_000.5, -100.0, 12.75)


@pytest.fixture
def make_run(tmp_path):
    """Makes the folder of a run on a grid with an origin, and returns it and its final model."""

    def make(ndim=2, name="model.npy", spacing=SPACING, origin=ORIGIN):
        select = [0, 2] if ndim == 2 else [0, 1, 2]
        grid = {"spacing": [spacing[i] for i in select], "origin": [origin[i] for i in select]}
        grid["shape"] = [[16, 13, 15][i] for i in select]
        point = {"first": [o + 2 * h for o, h in zip(grid["origin"], grid["spacing"], strict=True)]}
        content = {
            "grid": grid,
            "model": {"kind": "circle", "background": 2.0, "inside": 3.0, "radius": 30.0},
            "initial": {"kind": "constant", "velocity": 2.0},
            "acquisition": {"sources": point, "receivers": point},
            "data": {"recording_time": 100.0, "sample_interval": 2.0},
            "wavelet": {"kind": "ricker", "peak_frequency": 10.0},
            "inversion": {"bounds": [1.4, 4.0]},
        }
        run = tmp_path / "runs" / "line"
        run.mkdir(parents=True)
        (run / "config.toml").write_text(tomli_w.dumps(content))
        (run / "problem.json").write_text("{}")
        values = np.random.default_rng(0).uniform(1.5, 4, grid["shape"]).astype("f4")
        np.save(run / name, values)
        return run, values

    return make


def axes(ndim, shape):
    """Coordinates along each axis of the exported grid."""
    select = [0, 2] if ndim == 2 else [0, 1, 2]
    return [ORIGIN[i] + SPACING[i] * np.arange(n) for i, n in zip(select, shape, strict=True)]


@pytest.mark.parametrize("ndim", [2, 3])
def test_segyio_reads_columns_at_their_places(make_run, ndim):
    run, values = make_run(ndim)
    path = export_model(run, "segy").path
    assert path == run / "velocity.segy"
    x, *y, z = axes(ndim, values.shape)
    with segyio.open(path, ignore_geometry=True) as file:
        scale = -1 / file.header[0][TraceField.SourceGroupScalar]
        traces = {
            (round(header[TraceField.CDP_X] * scale, 6), round(header[TraceField.CDP_Y] * scale, 6)): trace.copy()
            for header, trace in zip(file.header, file.trace, strict=True)
        }
        first, step = file.header[0][TraceField.DelayRecordingTime] / 100, file.bin[segyio.BinField.Interval] / 1000
        text = segyio.tools.wrap(file.text[0])
    np.testing.assert_array_equal(first + step * np.arange(len(z)), z)
    for i, at_x in enumerate(x):
        for j, at_y in enumerate(y[0] if y else [0.0]):
            np.testing.assert_array_equal(traces[at_x, at_y], values[i, j] if y else values[i])
    assert len(traces) == np.prod(values.shape[:-1])
    assert "P-wave velocity, km/s: final model of the run line" in text
    assert f"First sample at x 430000.5, {'y -100, ' if y else ''}z 12.75 m" in text


@pytest.mark.parametrize("ndim", [2, 3])
def test_xarray_reads_values_and_coordinates(make_run, ndim):
    run, values = make_run(ndim)
    with xarray.open_dataarray(export_model(run, "netcdf").path) as found:
        np.testing.assert_array_equal(found.values, values)
        assert found.attrs["units"] == "km/s"
        for name, coordinates in zip(found.dims, axes(ndim, values.shape), strict=True):
            np.testing.assert_array_equal(found[name].values, coordinates)


@pytest.mark.parametrize("ndim", [2, 3])
def test_pyvista_reads_values_and_coordinates(make_run, ndim):
    run, values = make_run(ndim)
    image = pyvista.read(export_model(run, "vti").path)
    np.testing.assert_array_equal(image["velocity"].reshape(image.dimensions, order="F").squeeze(), values)
    x, *y, z = axes(ndim, values.shape)
    np.testing.assert_allclose(image.bounds, [x[0], x[-1], *(y[0][[0, -1]] if y else [0, 0]), z[0], z[-1]], rtol=1e-15)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("to", ["segy", "netcdf", "rsf", "npy"])
def test_an_exported_model_is_an_initial_model_of_the_same_bytes(make_run, to, ndim):
    run, values = make_run(ndim)
    path = export_model(run, to).path
    settings = ["initial.kind=file", f"initial.file={path}"]
    content = (run / "config.toml").read_text().replace("velocity = 2.0", "")
    (run / "again.toml").write_text(content)
    again = Problem.from_config(load_run_config(run / "again.toml", settings))
    assert again.initial_velocity.astype("f4").tobytes() == values.tobytes()


def test_the_initial_and_the_true_model_and_another_path_may_be_chosen(make_run, tmp_path):
    run, _ = make_run()
    np.testing.assert_array_equal(np.load(export_model(run, "npy", "initial").path), np.full((16, 15), 2.0, "f4"))
    path = export_model(run, "npy", "true", tmp_path / "deep" / "v.npy").path
    assert path == tmp_path / "deep" / "v.npy"
    assert np.load(path).max() == 3.0


def test_the_current_model_of_a_run_that_is_not_done_is_exported_and_named(make_run):
    run, values = make_run(name="model-current.npy")
    done = export_model(run, "npy")
    np.testing.assert_array_equal(np.load(done.path), values)
    assert done.notes == ("the run is not done: this is the model after its last iteration",)
    assert not (run / "model.npy").exists()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no model", "has no model yet; continue the run"),
        ("no true model", "has no true model in its configuration"),
        (
            "deep steps",
            "--to segy: the depth step of 40 m is kept in mm, but SEG-Y rev 1 has whole numbers from 1 to 32767; ",
        ),
        ("folder", "is a folder; name a file with --output"),
        ("format", "to: is 'sgy'; it should be one of segy, netcdf, vti, rsf, npy"),
    ],
)
def test_what_cannot_be_exported_is_refused(make_run, tmp_path, kind, message):
    run, _ = make_run(spacing=(12.5, 20.0, 40.0) if kind == "deep steps" else SPACING)
    if kind == "no model":
        (run / "model.npy").unlink()
    if kind == "no true model":
        content = load_run_config(run / "config.toml").model_dump(mode="json", exclude_none=True)
        del content["model"]
        (run / "gathers").mkdir()
        content["data"]["file"] = str(run / "gathers")
        (run / "config.toml").write_text(tomli_w.dumps(content))
        np.save(run / "gathers" / "0.npy", np.zeros((51, 1)))
    with pytest.raises(InputError) as caught:
        export_model(
            run,
            "sgy" if kind == "format" else "segy",
            "true" if kind == "no true model" else "velocity",
            tmp_path if kind == "folder" else None,
        )
    assert message in str(caught.value)
    assert not list(run.glob("*.part"))
    assert not list(run.glob("velocity.*"))


def test_rounded_coordinates_are_a_note(make_run):
    run, _ = make_run(spacing=(100 / 3, 20.0, 10.0), origin=(0.0, 0.0, 0.0))
    (note,) = export_model(run, "segy").notes
    assert note.startswith("coordinates are rounded by up to 3e-05 m")


@pytest.mark.parametrize("to", FORMATS)
def test_the_command_writes_the_model_of_a_real_run(first_run, tmp_path, capsys, to):
    shutil.copytree(first_run[2], tmp_path / "run")
    assert command(["export", str(tmp_path / "run"), "--to", to]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run' / 'velocity'}{SUFFIXES[to]}\n"
    assert (tmp_path / "run" / f"velocity{SUFFIXES[to]}").stat().st_size > 31 * 31 * 4


def test_the_command_names_other_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(["export", "none", "--to", "segy"]) == 2
    assert "none: no such run folder" in capsys.readouterr().err
