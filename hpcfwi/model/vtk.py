"""Velocity models as VTK images, for ParaView and PyVista."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.grid import Domain


def vtk_image(domain: Domain, arrays: dict[str, NDArray]) -> bytes:
    """The content of a ``.vti`` file with one value of each array at each grid point, float32.

    Coordinates are those of the configuration, m: z is the depth, and points down. A 2-D grid has one row of points along y.
    """
    from pyevtk.hl import imageToVTK

    def in_3d(values: tuple[float, ...], between: float) -> tuple[float, ...]:
        return values if len(values) == 3 else (values[0], between, values[1])

    points = {
        name: np.asfortranarray(np.asarray(values, dtype=np.float32).reshape([int(n) for n in in_3d(domain.shape, 1)]))
        for name, values in arrays.items()
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        imageToVTK(str(path), in_3d(domain.origin, 0.0), in_3d(domain.spacing, domain.spacing[0]), pointData=points)
        return path.with_suffix(".vti").read_bytes()
