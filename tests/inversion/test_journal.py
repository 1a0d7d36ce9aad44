"""The journal: evaluations are found by the bytes of x, and by number where another processor has rounded it differently."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfwi.errors import RunError, StagingError
from hpcfwi.inversion.functional_gradient import FunctionalGradient
from hpcfwi.inversion.journal import MAX_DRIFT, Journal, read_partial, write_partial

XS = np.random.default_rng(0).uniform(0.05, 0.4, (4, 50))


def evaluation(number):
    return FunctionalGradient(1.0 / number, np.random.default_rng(number).normal(size=(5, 10)))


def same(pair, number):
    return pair.f == evaluation(number).f and (pair.g == evaluation(number).g).all()


@pytest.fixture
def journal(tmp_path):
    """Four evaluations, read by another start."""
    written = Journal(tmp_path, "problem")
    for number, x in enumerate(XS, 1):
        written.write(x, evaluation(number), number)
    return Journal(tmp_path, "problem")


def rounded_differently(x, by=1e-15):
    return x * (1 + by * np.random.default_rng(1).choice([-1, 1], x.shape))


def test_evaluations_are_found_by_x_whatever_their_number(journal):
    for asked, (number, x) in enumerate(reversed(list(enumerate(XS, 1))), 1):
        found, drift = journal.read(x, asked)
        assert same(found, number)
        assert drift == 0


def test_an_x_that_was_rounded_differently_gets_the_evaluation_of_its_number_with_its_drift(journal):
    for number, x in enumerate(XS, 1):
        found, drift = journal.read(rounded_differently(x), number)
        assert same(found, number)
        assert 0 < drift < 1e-14


def test_an_optimiser_that_repeats_an_x_gets_the_same_evaluation(journal):
    """The end of a line search may repeat an x that the journal has under an earlier number."""
    x = rounded_differently(XS[1])
    assert same(journal.read(x, 2)[0], 2)
    again, drift = journal.read(x, 9)
    assert same(again, 2)
    assert drift > 0


def test_an_x_that_differs_too_much_from_its_entry_stops_the_run(journal):
    with pytest.raises(RunError, match="another kind of processor") as caught:
        journal.read(rounded_differently(XS[2], 3 * MAX_DRIFT), 3)
    assert "the journal has another model for evaluation 3" in str(caught.value)
    assert "--fresh" in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_new_x_and_one_without_an_entry_are_computed(journal):
    assert journal.read(XS[0] + 1, 5) is None
    journal = Journal(journal.folder, "problem")
    journal._path(XS[1], None).unlink()
    assert journal.read(XS[1], 2) is None
    journal.write(XS[1], evaluation(2), 2)
    assert same(journal.read(rounded_differently(XS[1]), 2)[0], 2)


def test_without_numbers_an_x_is_found_by_its_bytes_alone(journal):
    """A program may ask for other models when it starts again."""
    later = Journal(journal.folder, "problem", by_number=False)
    assert same(later.read(XS[2], 1)[0], 3)
    assert later.read(rounded_differently(XS[1]), 2) is None
    assert later.read(XS[0] + 1, 1) is None


def test_entries_of_another_problem_are_ignored(journal):
    """A run that excludes a shot starts again in the same folder."""
    assert Journal(journal.folder, "another problem").read(XS[0], 1) is None


def test_an_entry_without_its_evaluation_number_stops_the_run(journal):
    """Otherwise an entry that cannot be found by its x would be computed again silently."""
    path = journal._path(XS[0], None)
    whole = path.read_bytes()
    for damaged in (whole.replace(b'"number"', b'"nunber"'), whole.replace(b'"number": 1', b'"number": 2'), whole[:20]):
        path.write_bytes(damaged)
        with pytest.raises(StagingError, match="Remove it and start the same command again"):
            Journal(journal.folder, "problem").read(rounded_differently(XS[0]), 1)


def test_a_damaged_entry_is_named_whether_it_is_found_by_x_or_by_number(journal):
    path = journal._path(XS[0], None)
    path.write_bytes(path.read_bytes()[:-1])
    for x in (XS[0], rounded_differently(XS[0])):
        with pytest.raises(StagingError, match="Remove it and start the same command again"):
            journal.read(x, 1)


def test_a_partial_sum_whose_header_has_a_smaller_shape_is_damaged(tmp_path):
    path = tmp_path / "sum.bin"
    write_partial(path, evaluation(1))
    assert read_partial(path).g.tobytes() == evaluation(1).g.tobytes()
    content = path.read_bytes()
    assert content.count(b"[5, 10]") == 1
    path.write_bytes(content.replace(b"[5, 10]", b"[5, 9]"))
    with pytest.raises(StagingError, match=r"sum\.bin: is damaged: 5 values more than the shape"):
        read_partial(path)


def test_evaluations_of_other_shots_of_the_same_model_are_others(tmp_path):
    journal = Journal(tmp_path, "problem")
    journal.write(XS[0], evaluation(1), 1, (0, 3))
    journal.write(XS[0], evaluation(2), 2, (1, 3))
    journal.write(XS[0], evaluation(3), 3)
    again = Journal(tmp_path, "problem")
    assert same(again.read(XS[0], 1, (0, 3))[0], 1)
    assert same(again.read(XS[0], 2, (1, 3))[0], 2)
    assert same(again.read(XS[0], 3)[0], 3)
    assert again.read(XS[0], 4, (0, 2)) is None


def test_a_number_belongs_to_the_shots_as_well(tmp_path):
    """A run that is continued to more iterations does not evaluate all shots where the shorter one has ended."""
    journal = Journal(tmp_path, "problem")
    journal.write(XS[0], evaluation(1), 1)
    again = Journal(tmp_path, "problem")
    assert again.read(rounded_differently(XS[0]), 1, (0, 3)) is None
    again.write(XS[0], evaluation(2), 1, (0, 3))
    later = Journal(tmp_path, "problem")
    found, drift = later.read(rounded_differently(XS[0]), 1, (0, 3))
    assert same(found, 2)
    assert drift > 0
    assert same(later.read(rounded_differently(XS[0], 2e-15), 1)[0], 1)
