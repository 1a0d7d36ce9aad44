"""The garbage collector rests where next to nothing is garbage, and where a process ends."""

import gc
import subprocess
import sys

import pytest

from hpcfwi import load_run_config, run_inversion
from hpcfwi.process import gc_paused


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.enable()
    gc.unfreeze()


def test_objects_created_while_the_collector_is_paused_are_not_scanned():
    before = gc.get_freeze_count()
    with gc_paused():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(kept)


def test_a_disabled_collector_stays_disabled():
    gc.disable()
    with pytest.raises(ValueError, match="inside"), gc_paused():
        raise ValueError("inside")
    assert not gc.isenabled()


def test_garbage_is_still_collected_afterwards():
    with gc_paused():
        pass
    loop = []
    loop.append(loop)
    del loop
    assert gc.collect() >= 1


@pytest.mark.slow
def test_a_run_from_python_leaves_the_collector_as_it_was(fwi_toml, tmp_path):
    run_inversion(load_run_config(fwi_toml, ["inversion.iterations=1"]), run_dir=tmp_path / "run")
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_a_worker_loads_its_modules_before_the_first_shot():
    code = (
        "import gc, sys, hpcfwi.execution.affinity as p; p.dask_setup(None); "
        "assert 'devito' in sys.modules and 'hpcfwi.execution.tasks' in sys.modules; "
        "assert not {'h5py', 'pydantic', 'scipy.ndimage'} & set(sys.modules), 'what only drivers need'; "
        "frozen = gc.get_freeze_count(); assert frozen > 50_000 and gc.isenabled(); "
        "more = [[] for _ in range(1000)]; p.dask_teardown(None); assert gc.get_freeze_count() >= frozen + 1000"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
