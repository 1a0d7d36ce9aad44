"""Models of a run in the formats of other programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.formats.netcdf import write_netcdf
from hpcfwi.formats.rsf import write_rsf
from hpcfwi.formats.segy_model import write_segy_model
from hpcfwi.formats.stored_model import FormatError
from hpcfwi.io import atomic_path, write_atomic
from hpcfwi.model.grid import Domain
from hpcfwi.model.vtk import vtk_image
from hpcfwi.reporting.report.data import RunModels
from hpcfwi.reporting.status import find_run
from hpcfwi.version import __version__

ModelFormat = Literal["segy", "netcdf", "vti", "rsf", "npy"]
RunModel = Literal["velocity", "initial", "true"]
SUFFIXES: dict[ModelFormat, str] = {"segy": ".segy", "netcdf": ".nc", "vti": ".vti", "rsf": ".rsf", "npy": ".npy"}
UNIT = "km/s"


@dataclass(frozen=True)
class Export:
    """A file that was written.

    Parameters
    ----------
    path
        The file.
    notes
        What its reader should know, such as rounded coordinates.
    """

    path: Path
    notes: tuple[str, ...] = ()


def export_model(
    run_dir: Path | str, to: ModelFormat, what: RunModel = "velocity", output: Path | str | None = None
) -> Export:
    """Write a model of a run in the format of other programs: km/s, float32, at the coordinates of the configuration.

    Parameters
    ----------
    run_dir
        The run folder, its name in ``runs``, or a configuration whose run is there.
    to
        ``"segy"``, ``"netcdf"``, ``"vti"`` (VTK image), ``"rsf"`` or ``"npy"``.
    what
        ``"velocity"``, the final model, or the current one of a run that is not done; ``"initial"``; ``"true"``.
    output
        The file; by default ``velocity.segy``, ``initial.nc``, ... in the run folder. A file of this name is replaced.

    Returns
    -------
    Export

    Raises
    ------
    InputError
        If there is no such run or model, or the format cannot hold the grid.
    StagingError
        If the file cannot be written.
    """
    for name, value, allowed in (("to", to, ModelFormat), ("what", what, RunModel)):
        if value not in get_args(allowed):
            raise InputError(f"{name}: is {value!r}; it should be one of {', '.join(get_args(allowed))}")
    run = find_run(Path(run_dir), "export").absolute()
    models = RunModels.read(run)
    values = {"velocity": models.velocity, "initial": models.initial, "true": models.true}[what]
    if values is None or models.domain is None:
        missing = {"velocity": "no model yet; continue the run", "true": "no true model in its configuration"}
        raise InputError(
            f"{run}: has {missing.get(what, 'no initial model')}" + "".join(f"\n  {n}" for n in models.notes)
        )
    path = Path(output) if output is not None else run / f"{what}{SUFFIXES[to]}"
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file with --output")
    unfinished = what == "velocity" and not models.done
    notes = ("the run is not done: this is the model after its last iteration",) if unfinished else ()
    title = f"{'current' if unfinished else 'final' if what == 'velocity' else what} model of the run {run.name}"
    try:
        return Export(path, notes + _write_model(path, to, values.astype(np.float32), models.domain, what, title))
    except FormatError as error:
        raise InputError(f"--to {to}: {error}; export to netcdf, which keeps all coordinates") from None


def _write_model(
    path: Path, to: ModelFormat, values: NDArray[np.float32], domain: Domain, what: str, title: str
) -> tuple[str, ...]:
    """Write the file, and return what its reader should know."""
    axes = "".join(domain.axes)
    match to:
        case "segy":
            with atomic_path(path) as temporary:
                text = model_header(domain, title)
                rounding = write_segy_model(temporary, values, domain.spacing, domain.origin, text)
            return (f"coordinates are rounded by up to {rounding:.1g} m",) if rounding > 1e-6 else ()
        case "netcdf":
            with atomic_path(path) as temporary:
                write_netcdf(temporary, values, axes, domain.spacing, domain.origin, UNIT)
        case "rsf":
            write_atomic(path, lambda file: write_rsf(file, values, axes, domain.spacing, domain.origin, UNIT))
        case "vti":
            image = vtk_image(domain, {what: values})
            write_atomic(path, lambda file: file.write(image))
        case "npy":
            write_atomic(path, lambda file: np.save(file, values))
    return ()


def model_header(domain: Domain, title: str) -> list[str]:
    """The text header of a model in SEG-Y: what it is, where it lies, and how to read it."""

    def along_axes(values: Iterable[float]) -> str:
        return ", ".join(f"{axis} {value:.10g}" for axis, value in zip(domain.axes, values, strict=True))

    columns = "x, y" if domain.ndim == 3 else "x"
    return [
        f"P-wave velocity, {UNIT}: {title}",
        f"Written by hpcfwi {__version__}",
        "Coordinates are m; z is the depth, and points down",
        f"Samples: {along_axes(domain.shape)}",
        f"First sample at {along_axes(domain.origin)} m",
        f"Spacing: {along_axes(domain.spacing)} m",
        f"A trace is a column at one {columns}; its samples go down",
        "Bytes 181, 185 (and 73, 77, 81, 85): x, y, with the scalar of byte 71",
        "Bytes 189, 193: inline, one for each y, and crossline, one for each x",
        "Bytes 117 (and 3217): depth step, mm",
        "Byte 109: depth of the first sample, m, with the scalar of byte 215",
        "Samples are IEEE floats, big endian (format 5)",
    ]
