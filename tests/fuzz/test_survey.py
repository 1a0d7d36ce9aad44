"""Any CSV file is a survey, or refused with its name."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import strategies as st

from hpcfwi.config.run import Positions
from hpcfwi.errors import InputError
from hpcfwi.model.checks import check_positions
from hpcfwi.model.grid import Domain
from hpcfwi.model.survey import build_survey, read_geometry

XZ = ("x", "z")
DOMAIN = Domain((11, 11), (10.0, 10.0), (0.0, 0.0))
LINE = Positions(first=(0.0, 5.0), last=(100.0, 5.0), count=3)
TRACES = b"shot,source_x,source_z,receiver_x,receiver_z\nb,10,0,1,2\na,20,0,3,4\n# a comment\n\nb,10,0,5,6.5\n"
SOURCES = b"\xef\xbb\xbfshot, X ,z\nnorth, 1, 2\n'south', 3.5, 1e2\n"
RECEIVERS = b'shot,x,z\n"0",1,1\n1,2,2\n2,3,3\n0,4,4\n'


def read(path):
    """Every way in which a table is used."""
    return (
        lambda: read_geometry(path, XZ),
        lambda: build_survey(Positions(file=path), LINE, XZ),
        lambda: build_survey(LINE, Positions(file=path), XZ),
    )


@pytest.mark.cases(1000)
def test_a_damaged_table_is_a_survey_or_refused(fuzz, hostile, error_of):
    def check(folder, content):
        path = folder / "positions.csv"
        path.write_bytes(content)
        for call in read(path):
            error_of(lambda call=call: check_positions(call(), DOMAIN, free_surface=False), path, "shot ")

    fuzz(hostile.mutated(TRACES, SOURCES, RECEIVERS), check)


@pytest.mark.cases(600)
def test_a_table_of_hostile_cells_is_a_survey_or_refused(fuzz, hostile, error_of):
    words = st.sampled_from(["0", "1", "2", "a", "..", "shot", "x", "z", "source_x", "1e308", "\u0661", "1_0", "0x10"])
    cells = words | hostile.texts | hostile.numbers.map(repr)
    headers = st.sampled_from(["shot,x,z", "x,z", "z,x,,shot", "shot,source_x,source_z,receiver_x,receiver_z"])
    tables = st.builds(
        lambda header, rows, end: end.join([header, *(",".join(row[: header.count(",") + 1]) for row in rows)]),
        headers,
        st.lists(st.lists(cells, min_size=5, max_size=5), max_size=5),
        st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    )

    def check(folder, content):
        path = folder / "positions.csv"
        path.write_text(content, encoding="utf-8", errors="surrogatepass", newline="")
        for call in read(path):
            error_of(lambda call=call: check_positions(call(), DOMAIN, free_surface=False), path, "shot ")

    fuzz(tables, check)


@pytest.mark.parametrize("text", ["{}\n1\n", "x,z\n{}\n"])
def test_a_row_of_many_columns_is_refused_quickly(tmp_path, text):
    path = tmp_path / "positions.csv"
    path.write_text(text.format(",".join(f"c{i}" for i in range(100_000))))
    started = time.monotonic()
    with pytest.raises(InputError, match="columns") as caught:
        read_geometry(path, XZ)
    assert time.monotonic() - started < 10
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("text", ["x,z\n{},1\n", "x,{}\n1,1\n", "shot,x,z\n{},1,1\n"])
def test_cells_are_abbreviated_in_messages(tmp_path, text):
    path = tmp_path / "positions.csv"
    path.write_text(text.format("\x1b[2J" * 20_000))
    with pytest.raises(InputError) as caught:
        build_survey(Positions(file=path), LINE, XZ)
    assert len(str(caught.value)) < 5000


def test_many_shots_of_one_spread_are_checked_quickly():
    names = Positions(first=(0.0, 5.0), last=(100.0, 5.0), count=200_000)
    spread = Positions(first=(0.0, 5.0), last=(100.0, 5.0), count=2_000)
    survey = build_survey(names, spread, XZ)
    started = time.monotonic()
    check_positions(survey, DOMAIN, free_surface=False)
    assert time.monotonic() - started < 10
    assert np.array_equal(survey.shots[-1].source, [100.0, 5.0])
