"""Storages of the wavefield: the same gradient, with less memory."""

import errno
import os
import shutil
import subprocess
import tempfile
from dataclasses import replace

import numpy as np
import pytest

from hpcfwi.model.grid import Domain, TimeAxis, safe_step
from hpcfwi.model.survey import Shot
from hpcfwi.model.wavelet import RickerWavelet
from hpcfwi.solver.boundary import Cpml, Sponge
from hpcfwi.solver.engine import DevitoEngine
from hpcfwi.solver.operators import Propagator
from hpcfwi.solver.spec import SolverSpec

WAVELET = RickerWavelet(0.015, 70.0)


def make_spec(shape=(41, 35), layer=Cpml, free_surface=False, every=4, dtype="float32", samples=203, **options):
    domain = Domain(shape, (10.0, 12.0, 9.0)[: len(shape)], (0.0,) * len(shape))
    boundary = layer(domain, 6, free_surface=free_surface)
    return SolverSpec(boundary, 4, dtype, samples, every, 11, interpolation_points=8, **options)


def gradient(spec, shots=1, troubles=None, propagator=None):
    """Misfit and gradient of the last of some shots, as bytes and as an array, and the record."""
    domain = spec.domain
    engine = DevitoEngine(propagator or Propagator(spec), WAVELET)
    line = np.linspace(np.add(domain.origin, 13.0), np.subtract(domain.last, 17.0), 11)
    velocity = 2.0 + 0.5 * np.random.default_rng(0).random(domain.shape)
    engine.set_model(velocity**-2.0)
    axis = TimeAxis(safe_step(domain, 4, 2.6), spec.time_samples)
    for number in range(shots):
        source = np.add(domain.origin, 33.0 + 20.0 * (shots - 1 - number))
        shot = Shot(str(number), source, line)
        record = engine.record(shot, axis).copy()
        kept = []
        # the adjoint source has nothing to do with the record
        _, g = engine.misfit_and_gradient(
            shot, axis, lambda d, kept=kept: kept.append(d.copy()) or (1.0, 0.7 * d[::-1])
        )
        np.testing.assert_array_equal(kept[0], record)
    if troubles is not None and engine.trouble:
        troubles.append(engine.trouble)
    return g, record


SEGMENTED = [
    {"storage": "checkpointed", "segment_snapshots": 3, "checkpoints": 16},
    {"storage": "checkpointed", "segment_snapshots": 4, "checkpoints": 3},
    {"storage": "checkpointed", "segment_snapshots": 5, "checkpoints": 1},
    {"storage": "disk", "segment_snapshots": 4, "checkpoints": 3},
    {"storage": "disk", "segment_snapshots": 5, "checkpoints": 3},
    {"storage": "checkpointed", "segment_snapshots": 100, "checkpoints": 3},
    {"storage": "disk", "segment_snapshots": 100, "checkpoints": 3},
]


@pytest.mark.parametrize(
    "options",
    [pytest.param(each, marks=() if each["segment_snapshots"] == 5 else pytest.mark.slow) for each in SEGMENTED],
    ids=lambda o: f"{o['storage']}-{o['segment_snapshots']}",
)
@pytest.mark.parametrize(
    "medium",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"free_surface": True},
        pytest.param({"layer": Sponge, "every": 1, "samples": 50}, marks=pytest.mark.slow),
    ],
)
def test_a_lossless_storage_gives_the_bytes_of_snapshots_in_memory(options, medium):
    whole, record = gradient(make_spec(**medium))
    found, segmented = gradient(make_spec(**medium, **options), shots=2)
    np.testing.assert_array_equal(segmented, record)
    np.testing.assert_array_equal(found, whole)


def born(spec):
    """The derivative of a record."""
    engine, domain = DevitoEngine(Propagator(spec), WAVELET), spec.domain
    rng = np.random.default_rng(0)
    engine.set_model((2.0 + 0.5 * rng.random(domain.shape)) ** -2.0)
    line = np.linspace(np.add(domain.origin, 13.0), np.subtract(domain.last, 17.0), 11)
    axis = TimeAxis(safe_step(domain, 4, 2.6), spec.time_samples)
    return engine.born(Shot("7", np.add(domain.origin, 33.0), line), axis, rng.standard_normal(domain.shape))


@pytest.mark.parametrize(
    "medium",
    [pytest.param({"free_surface": True}, marks=pytest.mark.slow), {"layer": Sponge, "every": 1, "samples": 50}],
)
def test_the_derivative_of_a_record_has_the_same_bytes_in_segments(medium):
    whole = born(make_spec(**medium))
    assert whole.any()
    for options in SEGMENTED[1:4:2]:
        np.testing.assert_array_equal(born(make_spec(**medium, **options)), whole)


@pytest.mark.slow
@pytest.mark.parametrize("options", SEGMENTED[:4], ids=lambda o: f"{o['storage']}-{o['segment_snapshots']}")
def test_a_lossless_storage_gives_the_same_bytes_in_3d(options):
    shape = (23, 19, 21)
    np.testing.assert_array_equal(
        gradient(make_spec(shape, free_surface=True, **options))[0], gradient(make_spec(shape, free_surface=True))[0]
    )


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(41, 35), pytest.param((23, 19, 21), marks=pytest.mark.slow)])
def test_a_compressed_wavefield_gives_nearly_the_same_gradient(shape, dtype):
    whole = gradient(make_spec(shape, every=2, dtype=dtype))[0]
    options = {"storage": "compressed", "segment_snapshots": 4}
    found = gradient(make_spec(shape, every=2, dtype=dtype, **options))[0]
    assert 0 < np.linalg.norm(found - whole) / np.linalg.norm(whole) < 1e-3
    # whatever the segments, and whatever the shot before
    for segment in (4, 12, 100):
        again = gradient(make_spec(shape, every=2, dtype=dtype, **{**options, "segment_snapshots": segment}), shots=2)[
            0
        ]
        np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("storage", ["snapshots", "compressed", "checkpointed", "disk"])
@pytest.mark.parametrize("medium", [{}, {"free_surface": True}, {"layer": Sponge, "every": 1}, {"dtype": "float64"}])
def test_the_memory_of_a_storage_is_known_beforehand(storage, medium):
    options = {} if storage == "snapshots" else {"segment_snapshots": 4, "checkpoints": 3}
    spec = make_spec(**medium, storage=storage, **options)
    parked = spec.boundary.memory_points * spec.itemsize if storage in ("checkpointed", "disk") else 0
    assert Propagator(spec).storage.nbytes + parked == spec.storage_bytes


def test_a_segment_of_incomplete_groups_cannot_be_compressed():
    with pytest.raises(ValueError, match="6 snapshots is not whole groups of 4"):
        Propagator(make_spec(storage="compressed", segment_snapshots=6))


def test_a_segment_is_no_longer_than_the_record():
    spec = make_spec(storage="disk", segment_snapshots=100)
    assert (spec.segments, spec.segment_steps) == (1, 400)
    assert replace(spec, segment_snapshots=5).segments == 11


DISK = {"storage": "disk", "segment_snapshots": 4, "checkpoints": 3}


def test_the_file_on_the_disk_has_no_name_and_its_space_is_reserved(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spec = make_spec(**DISK)
    engine = DevitoEngine(Propagator(spec), WAVELET)
    assert list(tmp_path.iterdir()) == []  # a kill leaves nothing behind
    size = os.fstat(engine.propagator.storage._file.fileno())
    assert size.st_size == spec.disk_bytes
    assert 512 * size.st_blocks >= spec.disk_bytes
    assert engine.trouble == ""


def full_after(calls, function, kind):
    """``os.pwrite`` or ``os.preadv``, on a disk that fails after some calls."""
    count = iter(range(10**6))

    def limited(*arguments):
        if next(count) >= calls:
            raise OSError(kind, os.strerror(kind))
        return function(*arguments)

    return limited


@pytest.mark.parametrize(
    "calls", [pytest.param(0, marks=pytest.mark.slow), 3, pytest.param(11, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("name", "kind"), [("pwrite", errno.ENOSPC), ("preadv", errno.EIO)])
def test_a_disk_that_fails_during_a_shot_does_not_change_its_gradient(monkeypatch, name, kind, calls):
    whole = gradient(make_spec())[0]
    monkeypatch.setattr(os, name, full_after(calls, getattr(os, name), kind))
    troubles = []
    np.testing.assert_array_equal(gradient(make_spec(**DISK), troubles=troubles)[0], whole)
    (trouble,) = troubles
    assert f"fails ({os.strerror(kind)})" in trouble
    assert "filesystem.scratch" in trouble


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="only root mounts a small disk")
def test_a_disk_without_enough_space_is_noticed_before_the_first_shot(tmp_path, monkeypatch):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed")
    try:
        whole, troubles = gradient(make_spec())[0], []
        propagator = Propagator(make_spec(**DISK))
        for kernel in (propagator.forward, propagator.gradient):
            kernel.compile()  # elsewhere
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        found = gradient(propagator.spec, shots=2, troubles=troubles, propagator=propagator)[0]
        np.testing.assert_array_equal(found, whole)
        assert f"{tmp_path} fails (No space left on device)" in troubles[0]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
