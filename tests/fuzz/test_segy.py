"""Any file of a seismic suffix is a survey, or refused with its name or the key to set; none takes much memory."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from field_files import FIELD, line, patch, survey_fields, write_segy, write_su
from hypothesis import strategies as st

from hpcfwi.config.run import load_run_config
from hpcfwi.formats.segy import SAMPLE_TYPES
from hpcfwi.formats.segy_layout import open_segy
from hpcfwi.formats.trace_headers import parse_field, standard_fields
from hpcfwi.model.grid import Domain, TimeAxis
from hpcfwi.model.header_expressions import HeaderExpression
from hpcfwi.model.observations import read_observations
from hpcfwi.model.selection import read_weights

DOMAIN = Domain((31, 31), (20.0, 20.0), (0.0, 0.0))
SHOTS, TRACES, SAMPLES = 2, 6, 12
FIELDS = survey_fields([(100.0, 0.0, 20.0), (200.0, 0.0, 20.0)], [line(3)] * 2, scalar=-100, DelayRecordingTime=0)
TRACE_BYTES = 240 + 4 * SAMPLES


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, bytes]:
    """Sound files: SEG-Y of rev 0 to 2 and Seismic Unix."""
    folder, values = tmp_path_factory.mktemp("sound"), np.random.default_rng(0).normal(size=(TRACES, SAMPLES))
    paths = [
        write_segy(folder / "a.sgy", values, FIELDS, code=1),
        write_segy(folder / "b.sgy", values, FIELDS, extended=1, endian="little"),
        patch(patch(write_segy(folder / "c.sgy", values, FIELDS), 3501, b"\2\0"), 3297, struct.pack(">I", 16909060)),
        write_su(folder / "d.su", values, FIELDS),
    ]
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "fwi.toml"
    path.write_text(FIELD)
    return load_run_config(path)


NUMBERS = [
    0,
    1,
    2,
    5,
    16,
    100,
    255,
    256,
    1280,
    32767,
    32768,
    65535,
    10**6,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
]
# Fields of the binary header by their bytes, and those of trace headers.
BINARY = [3213, 3217, 3221, 3225, 3255, 3269, 3273, 3281, 3297, 3501, 3502, 3503, 3505, 3507, 3513, 3521, 3529]
TRACE = [*standard_fields().values()]


@st.composite
def damaged(draw, originals: dict[str, bytes]) -> tuple[str, bytes]:
    """A file whose headers have other numbers at the places of fields, and which may be cut, or longer."""
    name = draw(st.sampled_from([*originals]))
    content = bytearray(originals[name])
    start = 0 if name.endswith(".su") else len(content) - TRACES * TRACE_BYTES
    places = [start + trace * TRACE_BYTES + byte - 1 for trace in (0, 1, TRACES - 1) for byte in TRACE]
    places = places if name.endswith(".su") else [byte - 1 for byte in BINARY] * 20 + places
    for _ in range(draw(st.integers(1, 4))):
        place, width = draw(st.sampled_from(places)), draw(st.sampled_from([1, 2, 4, 8]))
        number = draw(st.sampled_from(NUMBERS) | st.integers(0, 2**64 - 1)) % 2 ** (8 * width)
        content[place : place + width] = number.to_bytes(width, draw(st.sampled_from(["big", "little"])))
    end = draw(st.sampled_from([None] * 4 + [-1, -TRACE_BYTES, 3600, 3700, 240, 10]))
    return name, bytes(content[:end]) + draw(st.sampled_from([b""] * 4 + [b"\0", bytes(3200), bytes(TRACE_BYTES)]))


@pytest.fixture
def use(config, error_of):
    """Reads a survey, all of its shots and their gathers, as a run and its workers do."""

    def use(path: Path, **data) -> None:
        section = config.data.model_copy(update={"file": path, **data})
        mine = config.model_copy(update={"data": section})

        def read() -> None:
            found = read_observations(mine, DOMAIN)
            recording = TimeAxis.within(min(found.duration, 1000 * found.interval), found.interval)
            for shot in found.survey.shots:
                gather = found.shot_data(shot.name)
                error_of(
                    lambda shot=shot, gather=gather: check(shot, gather.read(shot, recording)), f"shot {shot.name}: "
                )

        error_of(read, path, path.name, "data.", "shot ")

    def check(shot, gather) -> None:
        assert np.isfinite(gather.record).all()
        assert gather.record.shape[1] == len(shot.receivers) == len(gather.weights)
        assert np.isfinite(shot.receivers).all()

    return use


@pytest.mark.cases(3000)
def test_other_numbers_in_headers_give_a_survey_or_are_refused(fuzz, originals, use):
    def check(folder, given):
        name, content = given
        (folder / name).write_bytes(content)
        use(folder / name)

    fuzz(damaged(originals), check)


@pytest.mark.cases(1500)
def test_files_that_were_sound_once_are_read_or_refused(fuzz, hostile, originals, use):
    def check(folder, given):
        content, suffix = given
        (folder / f"a{suffix}").write_bytes(content)
        use(folder / f"a{suffix}")

    fuzz(st.tuples(hostile.mutated(*originals.values()), st.sampled_from([".sgy", ".su", ".segy"])), check)


@pytest.mark.cases(500)
def test_whatever_a_user_says_about_headers_is_tried_or_refused(fuzz, originals, use, config):
    kinds = ["", ":int16", ":uint16", ":int32", ":uint32", ":float32", ":float64"]
    names = st.builds("{}{}".format, st.integers(1, 240), st.sampled_from(kinds))
    roles = [name for name in type(config.data.headers).model_fields if name.startswith(("source", "receiver", "shot"))]
    given = {
        "samples": st.sampled_from([1, 11, 12, 13, 24, 10_000_000]),
        "sample_format": st.sampled_from([*SAMPLE_TYPES, 4, 7]),
        "byte_order": st.sampled_from(["big", "little"]),
        "coordinate_scalar": st.sampled_from([1e-9, 0.01, 1e9]),
        "unit": st.sampled_from(["m", "ft", "us-ft"]),
        "delay": st.sampled_from([-1e8, -8.0, 0.0, 3.0, 1e8]),
        "datum": st.sampled_from([-1e8, 20.0, 1e8]),
        **dict.fromkeys(roles, names),
    }
    chosen = st.lists(st.sampled_from([*given]), min_size=1, max_size=3, unique=True)
    headers = chosen.flatmap(lambda keys: st.fixed_dictionaries({key: given[key] for key in keys}))

    def check(folder, value):
        name, changed = value
        (folder / name).write_bytes(originals[name])
        use(folder / name, headers=config.data.headers.model_copy(update=changed))

    fuzz(st.tuples(st.sampled_from([*originals]), headers), check)


@pytest.mark.cases(1000)
def test_any_text_is_an_expression_of_headers_or_refused(fuzz, hostile, error_of):
    words = [
        "FieldRecord",
        "offset",
        "abs",
        "(",
        ")",
        "[",
        "]",
        ",",
        " and ",
        " or ",
        " not ",
        " in ",
        "==",
        "<",
        "<=",
        "+",
        "-",
    ]
    words += [
        "*",
        "/",
        "%",
        "**",
        "~",
        "1",
        "2.5",
        "1e308",
        "10**9",
        "True",
        "lambda:",
        " if ",
        " else ",
        ".real",
        "'a'",
        "\\",
        "#",
    ]
    texts = st.lists(st.sampled_from(words), max_size=12).map("".join) | hostile.texts | st.text(max_size=30)

    def check(_, text):
        def use() -> None:
            expression = HeaderExpression(text, "data.traces.kill")
            values = {name: np.arange(-3, 4, dtype=np.int32) for name in expression.fields}
            assert expression.evaluate(values).shape == (7,)

        error_of(use, "data.traces.kill: ")

    fuzz(texts, check)


@pytest.mark.cases(300)
def test_any_word_is_a_field_or_refused(fuzz, hostile, error_of):
    fuzz(
        hostile.texts | hostile.whole.map(str) | st.text(max_size=20),
        lambda _, text: error_of(lambda: parse_field(text, "the key"), "the key: "),
    )


@pytest.mark.cases(500)
def test_a_damaged_list_of_weights_is_used_or_refused(fuzz, hostile, error_of):
    from hpcfwi.model.survey import Shot, Survey

    survey = Survey(tuple(Shot(name, np.zeros(2), np.zeros((3, 2))) for name in "ab"))

    def check(folder, content):
        path = folder / "w.csv"
        path.write_bytes(content)

        def use() -> None:
            for values in read_weights(path, survey).values():
                assert values.shape == (3,)
                assert (values >= 0).all()

        error_of(use, path)

    fuzz(hostile.mutated(b"shot,trace,weight\na,1,0.5\nb,3,0\n", b"trace;shot\n2;a\n"), check)


def test_a_header_that_announces_a_great_many_samples_takes_no_memory(tmp_path, originals, error_of):
    path = tmp_path / "a.sgy"
    path.write_bytes(originals["c.sgy"])
    patch(path, 3269, struct.pack(">I", 2**32 - 1))
    patch(path, 3507, struct.pack(">I", 2**32 - 1))
    assert "it is damaged" in error_of(lambda: open_segy(path), path)
    patch(path, 3507, struct.pack(">I", 0))
    assert open_segy(path).samples == SAMPLES  # as the trace header says
    patch(path, 3600 + 115, b"\xff\xff")
    assert "4294967295 samples has 17179869420 bytes" in error_of(lambda: open_segy(path), path)


def test_a_sparse_file_of_many_samples_is_refused_by_its_size(tmp_path, originals, error_of):
    path = tmp_path / "a.sgy"
    path.write_bytes(originals["c.sgy"])
    patch(path, 3269, struct.pack(">I", 2**32 - 1))
    os.truncate(path, 3600 + 240 + 4 * (2**32 - 1))
    assert error_of(lambda: open_segy(path), path)
