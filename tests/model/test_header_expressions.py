"""Conditions on header fields: what they may say, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfwi.errors import InputError
from hpcfwi.model.header_expressions import HeaderExpression

VALUES = {
    "FieldRecord": np.array([1, 2, 3, 4], "i4"),
    "TraceNumber": np.array([4, 3, 2, 1], "i4"),
    "offset": np.array([-2_000_000_000, -100, 100, 2_000_000_000], "i4"),
}


def selected(text) -> list[int]:
    """Numbers of the traces for which it holds, by FieldRecord."""
    found = HeaderExpression(text, "data.traces.kill").evaluate(VALUES)
    assert found.dtype == bool
    assert found.shape == (4,)
    return VALUES["FieldRecord"][found].tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FieldRecord == 3", [3]),
        ("  FieldRecord != 3 ", [1, 2, 4]),
        ("FieldRecord in [1, 4]", [1, 4]),
        ("FieldRecord in (1, 4, -4)", [1, 4]),
        ("FieldRecord in 3", [3]),
        ("FieldRecord not in [1, 2*2]", [2, 3]),
        ("FieldRecord in []", []),
        ("1 < FieldRecord <= 3", [2, 3]),
        ("FieldRecord == 1 or FieldRecord == 2 and TraceNumber == 3", [1, 2]),
        ("not FieldRecord == 1 and not (FieldRecord > 3)", [2, 3]),
        ("FieldRecord + TraceNumber == 5 and FieldRecord - 1 == 2", [3]),
        ("FieldRecord % 2 == 0", [2, 4]),
        ("FieldRecord / 2 == 1.5", [3]),
        ("abs(offset) > 100", [1, 4]),
        ("-offset > 0", [1, 2]),
        ("offset * 2000000000 > 0", [3, 4]),
        ("offset * offset > 1000000", [1, 4]),
        ("FieldRecord > TraceNumber", [3, 4]),
        ("FieldRecord == 3 and 2 > 1", [3]),
        ("2 in [2] and FieldRecord == 3", [3]),
        ("FieldRecord % 0 == 1", []),
        ("FieldRecord / 0 > 1", [1, 2, 3, 4]),
        ("FieldRecord * 0 == 0", [1, 2, 3, 4]),
    ],
)
def test_conditions_mean_what_they_say(text, expected):
    assert selected(text) == expected


def test_names_of_fields_may_have_any_case():
    expression = HeaderExpression("fieldrecord == 3", "key")
    assert expression.fields["fieldrecord"].byte == 9
    assert expression.evaluate({"fieldrecord": VALUES["FieldRecord"]}).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FieldRecrod == 3", 'Did you mean "FieldRecord"?'),
        ("FieldRecord = 3", "it cannot be parsed"),
        ("", "it cannot be parsed"),
        ("FieldRecord", "is a number, not a condition"),
        ("FieldRecord + 1", "is a number, not a condition"),
        ("1 == 1", "it names no header field"),
        ("FieldRecord == 1 and TraceNumber", "'TraceNumber' is a number, not a condition"),
        ("not FieldRecord", "'FieldRecord' is a number, not a condition"),
        ("(FieldRecord == 1) + 1 == 2", "'FieldRecord == 1' is a condition, not a number"),
        ("(FieldRecord == 1) == 1", "'FieldRecord == 1' is a condition, not a number"),
        ("FieldRecord == [1, 2]", "'[1, 2]' is not possible in it"),
        ("[1, 2] in FieldRecord", "is not possible in it"),
        ("FieldRecord + [1] == 2", "'[1]' is not possible in it"),
        ("FieldRecord in [TraceNumber]", "'TraceNumber' is not possible in it"),
        ("FieldRecord in [[1]]", "'[1]' is not possible in it"),
        ("FieldRecord in [1 < 2]", "'1 < 2' is a condition, not a number"),
        ("FieldRecord in [1] in [2]", "is not possible in it"),
        ("FieldRecord ** 2 == 4", "'FieldRecord ** 2' is not possible in it"),
        ("FieldRecord == 'a'", "is not possible in it"),
        ("FieldRecord == True", "'True' is not possible in it"),
        ("FieldRecord == 1" + "0" * 300, "is too large"),
        ("abs == FieldRecord", "'abs' is not possible in it"),
        ("abs(FieldRecord, 1) == 1", "is not possible in it"),
        ("__import__('os').system('true') == FieldRecord", "it should be the name of a header field"),
        ("FieldRecord.real == 1", "'FieldRecord.real' is not possible in it"),
        ("FieldRecord[0] == 1", "is not possible in it"),
        ("[FieldRecord for FieldRecord in [1]] == 1", "is not possible in it"),
        ("FieldRecord == 1 if FieldRecord == 2 else FieldRecord == 3", "is not possible in it"),
        ("(FieldRecord := 3) == 3", "is not possible in it"),
        ("-" * 500 + "FieldRecord == 1", "it is nested deeper than 100 levels"),
        ("(" * 400 + "FieldRecord == 1" + ")" * 400, "it cannot be parsed"),
        ("FieldRecord == 1\0", "it cannot be parsed"),
        ("FieldRecord == 1 or " * 60 + "FieldRecord == 1", "has 1216 characters; at most 1000 are possible"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_is_wrong(text, message):
    with pytest.raises(InputError) as caught:
        HeaderExpression(text, "data.traces.kill")
    assert str(caught.value).startswith("data.traces.kill: ")
    assert message in str(caught.value)
