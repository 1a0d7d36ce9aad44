"""TOML, --set, and the messages on mistakes."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from hpcfwi.config.messages import Section, validate
from hpcfwi.config.parsing import apply_settings, parse_setting, read_toml
from hpcfwi.errors import InputError


class Fast(Section):
    kind: Literal["fast"]
    file: int = 1


class Slow(Section):
    kind: Literal["slow"]
    file: str
    delay: float | None = None


class Inner(Section):
    width: float = Field(2.0, gt=0, le=15, description="km/s; width of it")
    pair: tuple[float, float] = (1.0, 2.0)
    many: Annotated[tuple[int, ...], Field(min_length=2, max_length=3)] | int = 1


class Outer(Section):
    inner: Inner
    flag: bool = False
    step: Literal["fixed", "free"] | Annotated[float, Field(ge=0)] = "fixed"
    mode: Annotated[Fast | Slow, Field(discriminator="kind", description="how fast")]


GOOD = {"inner": {}, "mode": {"kind": "slow", "file": "a"}}


def mistakes(*settings: str) -> list[str]:
    """The lines of the message on a good configuration with these settings, without the first."""
    content = apply_settings(GOOD, [parse_setting(setting) for setting in settings])
    with pytest.raises(InputError) as caught:
        validate(Outer, content, "x.toml")
    first, *lines = str(caught.value).splitlines()
    assert first == f"x.toml: {'one mistake' if len(lines) == 1 else f'{len(lines)} mistakes'}"
    return [line.removeprefix("  ") for line in lines]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("inner.wide=1", 'inner.wide: unknown key; the keys are width, pair, many. Did you mean "width"?'),
        ("inner.width=a", 'inner.width: is "a"; it should be a number (km/s; width of it)'),
        ("inner.width=0", "inner.width: is 0; it should be above 0 (km/s; width of it)"),
        ("inner.width=20", "inner.width: is 20; it should be at most 15 (km/s; width of it)"),
        ("inner.width=2000", "inner.width: is 2000; it should be at most 15; this looks like m/s (km/s; width of it)"),
        ("inner.width=nan", "inner.width: is NaN; it should be a finite number (km/s; width of it)"),
        ("inner.pair=1", "inner.pair: is 1; it should be a list in brackets"),
        ("inner.pair=[1]", "inner.pair: is [1]; it should be a list of at least 2 values"),
        ("inner.pair=[]", "inner.pair: is []; it should be a list of at least 2 values"),
        ("inner.pair=[1, 2, 3]", "inner.pair: is [1, 2, 3]; it should be a list of at most 2 values"),
        ("inner.pair=[1, true]", "inner.pair, value 2: is true; it should be a number"),
        ("inner.many=1.5", "inner.many: is 1.5; it should be a list in brackets or a whole number"),
        ("inner.many=[1, 2.5]", "inner.many, value 2: is 2.5; it should be a whole number"),
        ("inner=3", None),
        ("flag=1", None),
        ("mode.kind=quick", 'mode.kind: is "quick"; it should be "fast" or "slow".'),
        ("mode.file=1", "mode.file: is 1; it should be text in quotes"),
        (
            "mode.dealy=1",
            'mode.dealy: unknown key; the keys are kind, file, delay where kind is "slow". Did you mean "delay"?',
        ),
    ],
)
def test_a_mistake_is_explained_by_key_value_and_what_it_should_be(setting, message):
    if message is None:
        name, value = setting.split("=")
        with pytest.raises(InputError, match=f"{name}: is {value}; it should be (a section|true or false)$"):
            validate(Outer, GOOD | {name: int(value)}, "x.toml")
    else:
        assert mistakes(setting) == [message]


def test_alternatives_of_one_key_are_joined():
    with pytest.raises(InputError, match='step: is "fast"; it should be "fixed" or "free" or a number'):
        validate(Outer, GOOD | {"step": "fast"}, "x.toml")


def test_one_message_lists_every_mistake():
    assert len(mistakes("inner.width=-1", "inner.pair=[]", "mode.delay=x")) == 3


def test_a_missing_section_is_reported_with_the_keys_it_needs():
    with pytest.raises(InputError) as caught:
        validate(Outer, {}, "x.toml")
    assert str(caught.value).splitlines() == [
        "x.toml: 2 mistakes",
        "  inner: is missing; a section with keys of its own",
        '  mode: is missing; a section with kind = "fast" or "slow" (how fast)',
    ]


def test_a_missing_kind_is_reported_with_the_possible_kinds():
    with pytest.raises(InputError, match='mode: needs a key "kind": "fast" or "slow"'):
        validate(Outer, {"inner": {}, "mode": {"file": "a"}}, "x.toml")


def test_a_key_named_like_a_kind_is_an_unknown_key():
    assert mistakes("mode.slow=1") == ['mode.slow: unknown key; the keys are kind, file, delay where kind is "slow".']


def test_long_values_are_abbreviated():
    (line,) = mistakes(f"inner.width={'ü' * 500}")
    assert len(line) < 150


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3.5", 3.5),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ("'a b'", "a b"),
        ("plain words", "plain words"),
        ("", ""),
        ("1\nb = 2", "1\nb = 2"),
        pytest.param("1" * 5000, "1" * 5000, id="many digits"),
        pytest.param("[" * 5000, "[" * 5000, id="many brackets"),
    ],
)
def test_a_setting_is_toml_or_else_plain_text(text, value):
    assert parse_setting(f"a.b={text}") == (["a", "b"], value)


@pytest.mark.parametrize("setting", ["", "a", "a=1", "a.b", ".b=1", "a.=1", "a..b=1", "=1"])
def test_a_setting_without_section_key_and_value_is_refused_with_an_example(setting):
    with pytest.raises(InputError, match=r"--set .*section\.key=value.*inversion\.iterations=10"):
        parse_setting(setting)


def test_settings_do_not_change_their_argument():
    content = {"a": {"b": 1}}
    assert apply_settings(content, [(["a", "b"], 2), (["c", "d", "e"], 3)]) == {"a": {"b": 2}, "c": {"d": {"e": 3}}}
    assert content == {"a": {"b": 1}}


def test_a_setting_below_a_value_is_refused():
    with pytest.raises(InputError, match=r"--set a\.b\.c: a\.b is a value \(1\), not a section"):
        apply_settings({"a": {"b": 1}}, [(["a", "b", "c"], 2)])


def test_paths_in_a_file_are_relative_to_it_and_those_of_a_setting_to_here(tmp_path, monkeypatch):
    (tmp_path / "x.toml").write_text('[model]\nfile = "v.npy"\nunit = "m"\n[data]\ngeometry = "/g.csv"')
    assert read_toml(tmp_path / "x.toml", "x") == {
        "model": {"file": str(tmp_path / "v.npy"), "unit": "m"},
        "data": {"geometry": "/g.csv"},
    }
    monkeypatch.chdir(tmp_path)
    assert parse_setting("model.file=v.npy") == (["model", "file"], str(tmp_path / "v.npy"))


def test_the_home_of_an_unknown_user_stays_as_it_is(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    assert parse_setting("model.file=~/v.npy")[1] == "/h/v.npy"
    assert parse_setting("model.file=~no-such-user/v.npy")[1] == str(Path.cwd() / "~no-such-user/v.npy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = \n", "is not valid TOML: .*line 1"),
        (b"a = 1\n[b\n", "is not valid TOML: .*line 2"),
        (b"a = 1\na = 2\n", "is not valid TOML: .*line 2"),
        (b"a = \xff", "is not UTF-8 text"),
        pytest.param(b"a = " + b"1" * 5000, "is not valid TOML: .*digits", id="many digits"),
        pytest.param(b"a = " + b"[" * 5000, "is not valid TOML: .*nested more than 50 levels deep", id="many brackets"),
    ],
)
def test_invalid_toml_is_refused_with_the_place(tmp_path, content, message):
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.toml: {message}"):
        read_toml(tmp_path / "x.toml", "run configuration")


def test_a_byte_order_mark_does_no_harm(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbfa = 1")
    assert read_toml(tmp_path / "x.toml", "x") == {"a": 1}


def test_a_missing_file_and_a_folder_have_different_messages(tmp_path):
    with pytest.raises(InputError, match=r"no such file \(run configuration\)"):
        read_toml(tmp_path / "none.toml", "run configuration")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        read_toml(tmp_path, "run configuration")
