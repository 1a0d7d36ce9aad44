"""Models as VTK images, read by VTK itself."""

import numpy as np
import pytest

from hpcfwi.model.grid import Domain
from hpcfwi.model.vtk import vtk_image


def read(path):
    vtk = pytest.importorskip("vtk")
    from vtk.util.numpy_support import vtk_to_numpy

    reader = vtk.vtkXMLImageDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    image = reader.GetOutput()
    data = image.GetPointData()
    arrays = {data.GetArrayName(i): vtk_to_numpy(data.GetArray(i)) for i in range(data.GetNumberOfArrays())}
    return image, {name: values.reshape(image.GetDimensions(), order="F") for name, values in arrays.items()}


def test_vtk_reads_a_3d_model_at_its_place(tmp_path):
    domain = Domain((5, 4, 3), (10.0, 20.0, 12.5), (1000.0, -40.0, 25.0))
    rng = np.random.default_rng(1)
    models = {name: rng.random(domain.shape) for name in ("velocity", "initial")}
    (tmp_path / "model.vti").write_bytes(vtk_image(domain, models))
    image, arrays = read(tmp_path / "model.vti")
    assert image.GetOrigin() == domain.origin
    assert image.GetSpacing() == domain.spacing
    assert sorted(arrays) == ["initial", "velocity"]
    for name, values in models.items():
        np.testing.assert_array_equal(arrays[name], values.astype(np.float32))
    assert image.GetPoint(image.FindPoint(1030.0, 0.0, 50.0)) == (1030.0, 0.0, 50.0)


def test_a_2d_model_is_one_row_of_points_along_y(tmp_path):
    domain = Domain((6, 4), (10.0, 5.0), (0.0, 100.0))
    values = np.arange(24.0).reshape(domain.shape)
    (tmp_path / "model.vti").write_bytes(vtk_image(domain, {"velocity": values}))
    image, arrays = read(tmp_path / "model.vti")
    assert (image.GetDimensions(), image.GetOrigin()) == ((6, 1, 4), (0.0, 0.0, 100.0))
    np.testing.assert_array_equal(arrays["velocity"][:, 0], values)
