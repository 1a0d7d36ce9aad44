"""The history of a run, ``history.csv``: whole rows that come back to the last bit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcfwi.errors import RunError
from hpcfwi.inversion.history import History, Row, first_evaluations


def row(iteration, error=0.25):
    return Row(iteration, iteration + 1, 1 / 3, 2.0, error, None, 0.5, 1.5)


def test_history_has_the_documented_columns_and_empty_cells_for_unknown_values(tmp_path):
    history = History(tmp_path / "history.csv")
    assert history.add(row(0, None))
    assert history.add(row(1))
    assert history.add(replace(row(2), batch=4))
    assert (tmp_path / "history.csv").read_text() == (
        "iteration,evaluations,misfit,gradient_norm,model_error,m_error,step_seconds,elapsed_seconds,stage,batch\n"
        "0,1,0.3333333333333333,2.0,,,0.5,1.5,1,\n"
        "1,2,0.3333333333333333,2.0,0.25,,0.5,1.5,1,\n"
        "2,3,0.3333333333333333,2.0,0.25,,0.5,1.5,1,4\n"
    )


def test_rows_come_back_to_the_last_bit_and_are_not_written_twice(tmp_path):
    history = History(tmp_path / "history.csv")
    history.add(row(0))
    again = History(tmp_path / "history.csv")
    assert again.rows == [row(0)]
    assert not again.add(row(0))
    assert again.add(replace(row(1), batch=4))
    assert History(tmp_path / "history.csv").rows == [row(0), replace(row(1), batch=4)]


def test_later_iterations_of_an_earlier_start_can_be_cut(tmp_path):
    history = History(tmp_path / "history.csv")
    for i in range(4):
        history.add(row(i))
    history.cut(1)
    assert History(tmp_path / "history.csv").rows == [row(0), row(1)]


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "iteration,evaluations\n0\n", "iteration\nx\n"])
def test_a_malformed_history_is_named(tmp_path, content):
    (tmp_path / "history.csv").write_text(content)
    with pytest.raises(RunError, match=r"history\.csv: cannot be read .* remove it"):
        History(tmp_path / "history.csv")


def test_a_row_that_was_computed_anew_with_another_misfit_replaces_it_and_those_after_it(tmp_path):
    history = History(tmp_path / "history.csv")
    rows = [row(i) for i in range(3)]
    assert all(map(history.add, rows))
    assert not history.add(rows[1])
    other = replace(rows[1], misfit=0.7)
    assert history.add(other)
    assert History(history.path).rows == [rows[0], other]


def test_a_stage_begins_after_the_last_evaluation_of_the_one_before():
    found = [
        replace(row(i), evaluations=n, stage=s) for i, (n, s) in enumerate([(1, 1), (4, 1), (7, 2), (8, 2), (12, 3)])
    ]
    assert first_evaluations(found) == {1: 1, 2: 5, 3: 9}
