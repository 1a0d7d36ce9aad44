"""Staged files, journal entries and partial sums: only what was staged is unpickled, only what was written is read."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from hpcfwi.artifacts import MAGIC, StagedFile, digest, find_staged, load, read_header, stage
from hpcfwi.errors import StagingError
from hpcfwi.inversion.functional_gradient import FunctionalGradient
from hpcfwi.inversion.journal import Journal, Partials, read_partial, write_partial
from hpcfwi.solver.operators import _find, spec_digest

MARK = "unpickled"
X = np.linspace(0.1, 0.2, 6)
PAIR = FunctionalGradient(1 / 3, np.arange(6.0).reshape(2, 3))


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path(MARK),))


def container(header: object, payload: bytes) -> bytes:
    line = header if isinstance(header, bytes) else json.dumps(header).encode()
    return MAGIC + line + b"\n" + payload


def hostile_headers(hostile, payload: bytes, **facts) -> st.SearchStrategy[bytes]:
    """Containers whose header says hostile things, about a payload that may be as it says."""
    sound = {"kind": "model", "bytes": len(payload), "digest": digest(payload), **facts}
    keys = st.sampled_from([*sound, "shape", "f", "origin", "spec", "fingerprint"])
    changes = st.dictionaries(keys, hostile.values, max_size=3)
    headers = st.builds(lambda changed: sound | changed, changes) | hostile.values | st.sampled_from(hostile.words)
    return st.builds(container, headers, st.just(payload) | st.binary(max_size=60))


@pytest.fixture
def original(tmp_path):
    """Bytes of a staged file, and what it must contain."""
    staged = stage(tmp_path / "original", "model", {"values": [1.0, 2.0]})
    return Path(staged.path).read_bytes(), staged.digest


@pytest.mark.cases(1000)
def test_only_staged_content_is_unpickled(fuzz, hostile, error_of, unpickled, original):
    content, expected = original
    bomb = pickle.dumps(Bomb())

    def check(folder, content):
        path = folder / "model.pkl"
        path.write_bytes(content)
        found = []
        message = error_of(lambda: found.append(load(StagedFile(str(path), expected), "model")), path)
        assert message or found == [{"values": [1.0, 2.0]}]
        assert not unpickled()
        assert not (folder / MARK).exists()

    bombs = st.sampled_from([bomb, MAGIC + bomb, container({"kind": "model", "digest": expected}, bomb)])
    foreign = hostile_headers(hostile, bomb) | hostile_headers(hostile, bomb, digest=expected)
    fuzz(hostile.mutated(content) | bombs | foreign, check)


@pytest.mark.cases(1)
def test_unpickling_is_detected(fuzz, unpickled):
    """Without this the test above would prove nothing."""

    def check(folder, _):
        staged = stage(folder, "model", Bomb())
        load(staged, "model")
        assert unpickled()
        assert (folder / MARK).exists()

    fuzz(st.integers(), check)


@pytest.mark.cases(600)
def test_a_search_finds_a_staged_file_or_ignores_it(fuzz, hostile, original):
    """The search for a staged shot or solver reads headers, and continues if one is malformed."""

    def check(folder, content):
        for name in ("solver-1.pkl", "0.pkl"):
            (folder / name).write_bytes(content)
        read_header(folder / "0.pkl")
        for wanted in ("shot", "model"):
            found = find_staged(folder / "0.pkl", wanted, "here")
            assert found is None or len(found.digest) == 40
        assert _find(folder, "spec", {"processor": "this one"}) is None

    headers = hostile_headers(
        hostile, b"payload", kind="solver", spec=spec_digest("spec"), fingerprint=None, origin="here"
    )
    fuzz(hostile.mutated(original[0]) | headers, check)


@pytest.mark.cases(900)
def test_a_damaged_journal_entry_is_never_mistaken_for_another(fuzz, hostile, error_of, tmp_path):
    kept = Journal(tmp_path / "journal", "problem")
    kept.write(X, PAIR, 1)
    write_partial(tmp_path / "journal" / "sum.bin", PAIR)
    (entry,) = (path for path in kept.folder.glob("*.bin") if path.stem != "sum")
    originals = [entry.read_bytes(), (kept.folder / "sum.bin").read_bytes()]
    payload = originals[0].split(b"\n", 2)[2]

    def check(folder, content):
        (folder / "sums").mkdir(mode=0o700)
        for name in (entry.name, "sums/sum.bin"):
            (folder / name).write_bytes(content)
        for place, read in (
            (entry.name, lambda: Journal(folder, "problem").read(X, 1)[0]),
            (entry.name, lambda: (Journal(folder, "problem").read(X * (1 + 1e-15), 1) or [PAIR])[0]),
            ("sums", lambda: read_partial(folder / "sums" / "sum.bin")),
        ):
            found = []
            if not error_of(lambda read=read, found=found: found.append(read()), folder / place):
                assert found[0].f == PAIR.f
                assert found[0].g.size == PAIR.g.size
                assert found[0].g.tobytes() == PAIR.g.tobytes()

    shapes = st.sampled_from([[2, 3], [6], [], [-1], [2**70], "6", None, [[6]], [0], [10**9, 10**9], [True, 6], [6.0]])
    headers = st.builds(
        lambda kind, shape, number: container(
            {
                "kind": kind,
                "bytes": len(payload),
                "digest": digest(payload),
                "shape": shape,
                "problem": "problem",
                "number": number,
            },
            payload,
        ),
        st.sampled_from(["evaluation", "partial sum"]),
        shapes,
        hostile.scalars | st.just(1),
    )
    fuzz(hostile.mutated(*originals) | headers, check)


@pytest.mark.parametrize("at", range(0, 60, 3))
def test_a_flipped_bit_in_a_journal_entry_is_noticed_or_changes_nothing(error_of, tmp_path, at):
    journal = Journal(tmp_path, "problem")
    journal.write(X, PAIR, 1)
    (path,) = tmp_path.glob("*.bin")
    content = path.read_bytes()
    for position in range(at * len(content) // 60, (at + 3) * len(content) // 60):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        found = []
        if not error_of(lambda found=found: found.append(journal.read(X, 1)[0]), path):
            assert found[0].f == PAIR.f
            assert found[0].g.tobytes() == PAIR.g.tobytes()


def test_a_journal_entry_of_another_size_is_not_used(tmp_path):
    journal = Journal(tmp_path, "problem")
    journal.write(X, FunctionalGradient(1.0, np.zeros(5)), 1)
    with pytest.raises(StagingError, match=r"\.bin: is damaged: .*\n  Remove it and start the same command again"):
        journal.read(X, 1)


@pytest.mark.cases(200)
def test_partial_sums_of_any_name_belong_to_this_evaluation_or_are_removed(fuzz):
    """Names of files in the journal's folder, and links in it that lead elsewhere."""
    names = st.lists(st.sampled_from(["a.bin", ".bin", "x.bin.part", "deep/a.bin", "link.bin", "pipe.bin"]), max_size=4)
    folders = st.sampled_from(["partial-now", "partial-before", "partial-", "partial-link"])

    def check(folder, given):
        for name, files in given.items():
            for file in files:
                path = folder / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    path.write_bytes(b"") if file != "link.bin" else path.symlink_to("/etc/passwd")
        (folder / "partial-away").symlink_to(folder.parent, target_is_directory=True)
        partials = Partials(folder, 1)
        found = partials.begin("now")
        assert all((folder / "partial-now" / f"{name}.bin").is_symlink() or name for name in found)
        partials.end()
        assert not (folder / "partial-now").exists()

    fuzz(st.dictionaries(folders, names, max_size=3), check)
