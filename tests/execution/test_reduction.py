"""Sums of a few shots are kept while an evaluation is under way: a restart computes the others, to the same bytes."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import numpy as np
import pytest
from executor_events import note_events

from hpcfwi.errors import DataError, Interrupted
from hpcfwi.execution.executor import DaskExecutor
from hpcfwi.execution.tasks import save_part, task
from hpcfwi.inversion.functional_gradient import BLOCK, FunctionalGradient
from hpcfwi.inversion.journal import Partials, read_partial, write_partial
from hpcfwi.inversion.objective import task_key

SHOTS = 6 * BLOCK + 2


@task
def shot(number, folder, keep=None):
    """Notes that it was computed; one shot cannot be, as long as there is a file that says so."""
    if (Path(folder) / f"broken-{number}").exists():
        raise DataError(str(number), "is broken")
    with (Path(folder) / "computed").open("a") as file:
        file.write(f"{number}\n")
    if (Path(folder) / "slow").exists():
        time.sleep(0.3)
    return save_part(FunctionalGradient(0.1 * number, np.array([0.1 * number, 0.3 / (number + 1)])), keep)


class Sum:
    """A sum over shots that can be broken off and done again."""

    def __init__(self, client, folder, block, small=False, check_stop=lambda _: None, batched=False):
        self.client, self.folder, self.block, self.small = client, folder, block, small
        self.check_stop, self.batched = check_stop, batched
        self.found = []
        self.retried = []
        (folder / "journal").mkdir()

    def __call__(self, evaluation="one"):
        names = [str(i) for i in range(SHOTS)]
        tasks = DaskExecutor(
            self.client,
            log_event=note_events(self.retried, self.found),
            check_stop=self.check_stop,
        )
        (self.folder / "computed").write_text("")
        self.partials = Partials(self.folder / "journal", self.block)
        result = tasks.sum(
            shot,
            names,
            [(i, str(self.folder)) for i in range(SHOTS)],
            [task_key(self.folder, evaluation, name) for name in names],
            small=self.small,
            partials=self.partials,
            evaluation=evaluation,
            batched=self.batched,
        )
        return result.f.hex(), result.g.tobytes()

    @property
    def computed(self):
        return sorted(map(int, (self.folder / "computed").read_text().split()))

    @property
    def kept(self):
        return sorted((self.folder / "journal").glob("partial-*/*.bin"))


@pytest.fixture
def undisturbed(client, tmp_path):
    (tmp_path / "undisturbed").mkdir()
    return Sum(client, tmp_path / "undisturbed", 0)()


def forget_tasks(client):
    """Wait until Dask has forgotten all tasks, as it would have with the driver that made them."""
    deadline = time.monotonic() + 60
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        assert time.monotonic() < deadline
        gc.collect()  # errors, and fetches that were cancelled, hold tasks
        time.sleep(0.05)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("block", [pytest.param(1, marks=pytest.mark.slow), BLOCK])
def test_a_restart_computes_only_missing_sums_and_gives_the_same_bytes(
    client, tmp_path, undisturbed, block, small, batched
):
    folder = tmp_path / "run"
    folder.mkdir()
    whole = Sum(client, folder, block, small, batched=batched)
    broken = SHOTS - 1
    (folder / f"broken-{broken}").touch()
    with pytest.raises(DataError):
        whole()
    forget_tasks(client)
    before, kept = whole.computed, len(whole.kept)
    assert kept >= 1
    (folder / f"broken-{broken}").unlink()
    assert whole() == undisturbed
    covered = SHOTS - len(whole.computed)
    assert whole.found == [(covered, SHOTS)]
    assert covered == (kept if block == 1 else kept * BLOCK)
    assert broken in whole.computed
    assert set(before) | set(whole.computed) == set(range(SHOTS))
    # and now all of them are there
    assert whole() == undisturbed
    assert whole.computed == []
    whole.partials.end()
    assert not list((folder / "journal").iterdir())


def test_a_sum_that_ends_while_it_fetches_results_leaves_the_client_intact(client, tmp_path, undisturbed):
    (tmp_path / "broken-49").touch()
    whole = Sum(client, tmp_path, 0, small=True)

    async def occupy(slots):
        for _ in range(slots):
            await client._gather_semaphore.acquire()

    async def free(slots):
        for _ in range(slots):
            client._gather_semaphore.release()

    slots = client._gather_semaphore._value
    client.sync(occupy, slots)  # Dask's fetches wait
    try:
        with pytest.raises(DataError):
            whole()
    finally:
        client.sync(free, slots)
    forget_tasks(client)
    (tmp_path / "broken-49").unlink()
    (tmp_path / "journal").rmdir()
    assert Sum(client, tmp_path, 0, small=True)() == undisturbed


@pytest.mark.parametrize("batched", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("block", [pytest.param(1, marks=pytest.mark.slow), BLOCK])
def test_a_run_that_must_stop_finishes_running_tasks_and_a_restart_repeats_no_shot(
    client, tmp_path, undisturbed, block, batched
):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "slow").touch()
    looks = []

    def check_stop(needed):
        looks.append(needed)
        return ("the batch job ends in 60 s", 60.0) if len(looks) == 3 else None

    whole = Sum(client, folder, block, check_stop=check_stop, batched=batched)
    with pytest.raises(Interrupted, match="the batch job ends in 60 s"):
        whole()
    before = whole.computed
    assert 0 < len(before) < SHOTS
    assert len(whole.kept) == len(before) / block
    (folder / "slow").unlink()
    assert whole() == undisturbed
    assert sorted([*before, *whole.computed]) == list(range(SHOTS))


def test_a_run_that_must_stop_starts_no_task(client, tmp_path):
    whole = Sum(client, tmp_path, BLOCK, check_stop=lambda _: ("the batch job ends in 5 s", 0.0))
    with pytest.raises(Interrupted, match="the batch job ends in 5 s"):
        whole()
    assert whole.computed == []


def test_a_run_without_time_left_abandons_running_tasks(client, tmp_path):
    (tmp_path / "slow").touch()
    answers = iter([None])
    whole = Sum(client, tmp_path, BLOCK, check_stop=lambda _: next(answers, ("SIGTERM was received", 0.5)))
    began = time.monotonic()
    with pytest.raises(Interrupted, match="SIGTERM was received"):
        whole()
    assert time.monotonic() - began < 4  # all of the block would take half as long as this and more


@pytest.mark.parametrize("block", [1, BLOCK])
@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "foreign", "empty"])
def test_a_damaged_sum_is_computed_again_to_the_same_bytes(client, tmp_path, undisturbed, damage, block):
    folder = tmp_path / "run"
    folder.mkdir()
    whole = Sum(client, folder, block)
    whole()
    path = whole.kept[0]
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[-3:]
    elif damage == "a flipped bit":
        content[-5] ^= 4
    elif damage == "foreign":
        content = bytearray(b"PK\x03\x04 something else")
    else:
        content.clear()
    path.write_bytes(content)
    assert whole() == undisturbed
    assert len(whole.computed) in ({1} if block == 1 else {BLOCK, SHOTS % BLOCK})
    assert len(whole.retried) == 1
    assert str(path) in whole.retried[0][2]


def test_partial_sums_are_removed_when_another_evaluation_begins(client, tmp_path):
    whole = Sum(client, tmp_path, 1)
    whole("one")
    whole("two")
    assert len(whole.computed) == SHOTS
    assert {path.parent.name for path in whole.kept} == {"partial-two"}


def test_no_sums_are_kept_if_the_configuration_disables_them(client, tmp_path, undisturbed):
    whole = Sum(client, tmp_path, 0)
    assert whole() == undisturbed
    assert not whole.kept


def test_a_sum_that_cannot_be_written_does_not_stop_the_run(client, tmp_path, undisturbed):
    whole = Sum(client, tmp_path, 1)
    (tmp_path / "journal" / "partial-one").write_text("in the way")
    assert whole() == undisturbed


@pytest.mark.parametrize(
    ("shots", "block", "level"),
    [
        (1, None, 0),
        (255, None, 0),
        (256, None, 1),
        (2047, None, 1),
        (2048, None, 2),
        (100_000, None, 3),
        (100_000, 1, 0),
        (10, 8, 1),
        (10, 64, 2),
    ],
)
def test_by_default_a_kept_sum_has_at_most_three_per_cent_of_the_shots(shots, block, level):
    assert Partials(Path(), block).level(shots) == level


def test_a_kept_sum_is_read_as_it_was_written(tmp_path):
    part = FunctionalGradient(0.1 + 0.2, np.random.default_rng(1).normal(size=(3, 4)))
    write_partial(tmp_path / "part.bin", part)
    found = read_partial(tmp_path / "part.bin")
    assert found.f == part.f
    assert found.g.tobytes() == part.g.tobytes()
    assert found.g.shape == (3, 4)
