"""Everything that users write or type according to the README and ``docs/`` is valid."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import click
import pytest
import tomli_w

import hpcfwi
from hpcfwi import RunConfig, load_run_config, load_site
from hpcfwi.cli.main import cli
from hpcfwi.config.messages import sections_of
from hpcfwi.config.site import SiteConfig

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs" / "pages").rglob("*.md"))]
SECTIONS = {**SiteConfig.model_fields, **RunConfig.model_fields}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a language, at any depth of a list."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, kind, text in found if kind == language]


def typed(page: Path) -> list[list[str]]:
    """The words of every command in a block; a synopsis with brackets is none."""
    lines = [line.removeprefix("$ ") for block in blocks(page, "") for line in block.splitlines()]
    commands = [
        line for line in lines if re.match(r"(\.venv/bin/)?hpcfwi |(sbatch|bash) .*jobs/|(\.venv/bin/)?python ", line)
    ]
    return [shlex.split(line, comments=True) for line in commands if " [" not in line]


def named(page: Path) -> list[str]:
    """Pieces of code in the text."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


def find(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words after ``hpcfwi`` name, and its arguments."""
    command: click.Command = cli
    words = [word for word in words if word != "--verbose"]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def check_key(key: str) -> None:
    """A dotted key has to exist."""
    fields = SECTIONS
    parts = [
        part for part in key.removeprefix("site.").split(".") if not part.isdecimal()
    ]  # a number names one of a list
    for i, part in enumerate(parts):
        assert part in fields, f"there is no key {key}"
        inner = sections_of(fields[part].annotation)
        if not inner:
            assert i == len(parts) - 1 or "dict" in str(fields[part].annotation), f"there is no key {key}"
            return
        fields = {name: field for section in inner for name, field in section.model_fields.items()}


@each_page
def test_every_toml_block_is_valid(page, tmp_path, monkeypatch):
    for name in ("PROJECT", "USER"):
        monkeypatch.setenv(name, "somebody")
    circle = tomllib.loads((ROOT / "jobs" / "circle.toml").read_text())
    for block in blocks(page, "toml"):
        content, path = tomllib.loads(block), tmp_path / "block.toml"
        if set(content) <= set(SiteConfig.model_fields):
            path.write_text(block)
            load_site(str(path))
        else:
            # a part of a configuration stands for itself in the circle's; keys of another kind do not go with it
            merged = circle | {
                name: section
                if isinstance(section, list)
                else ({} if "kind" in section else circle.get(name, {})) | section
                for name, section in content.items()
            }
            path.write_text(block if "wavelet" in content else tomli_w.dumps(merged))
            load_run_config(path)


@each_page
def test_every_command_exists(page):
    for words in typed(page):
        program, *rest = words
        if program.endswith("python"):
            assert rest[0] == "-m" or (ROOT / rest[0]).exists(), words
            continue
        if not program.endswith("hpcfwi"):
            script = next(i for i, word in enumerate(words) if word.endswith((".sh", ".pbs")))
            assert (ROOT / words[script]).exists(), words
            if words[script].startswith("tests/") or words[script + 1 :] in ([], ["--setup"]):
                continue
            rest = ["scale" if "scaling" in words[script] else "run", *words[script + 1 :]]
        command, arguments = find(rest)
        command.make_context("hpcfwi", list(arguments), **cli.context_settings)
        for flag, setting in pairwise(arguments):
            if flag == "--set":
                check_key(setting.partition("=")[0])


@each_page
def test_every_command_and_key_in_the_text_exists(page):
    for code in named(page):
        words = code.split()
        if words[0] == "hpcfwi" and len(words) > 1:
            command, arguments = find(words[1:])
            options = {name for option in command.params for name in option.opts} | {"--verbose", "--help"}
            wanted = {word.strip("[],") for word in arguments if word.startswith("--")}
            assert wanted <= options, code
        key = re.fullmatch(r"([a-z_]+(?:\.[a-z_]+)+)(?: = .*)?", code)
        if (
            key
            and key[1].partition(".")[0] in SECTIONS
            and not key[1].endswith((".py", ".npy", ".vti", ".csv", ".toml", ".png"))
        ):
            check_key(key[1])


@each_page
def test_python_examples_compile_and_import_existing_names(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "hpcfwi":
                assert {name.name for name in node.names} <= set(hpcfwi.__all__)


def test_the_readme_is_short_and_its_links_work():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 220
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("https://") or (ROOT / link).exists(), link


@pytest.mark.skipif(
    not all(map(find_spec, ("mkdocs", "material", "mkdocstrings", "latex2mathml"))),
    reason="needs the extra docs: pip install --editable '.[docs]'",
)
def test_the_documentation_builds_without_warnings_and_loads_nothing_from_other_hosts(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ROOT / "docs" / "mkdocs.yml", "-d", tmp_path]
    built = subprocess.run(
        command, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        html = page.read_text(encoding="utf-8")
        assert not re.findall(r"""(?:src=|<link [^>]*href=)["']?https?:""", html), page
        assert "arithmatex" not in html, page


@each_page
def test_files_that_a_page_names_exist(page):
    examples = {"hpcfwi/solver/attenuating.py"}
    files = {name for name in named(page) if re.fullmatch(r"(hpcfwi|tests|docs|jobs)/[\w./-]+", name)} - examples
    assert not [name for name in sorted(files) if not (ROOT / name).exists()]


def test_the_tree_in_the_architecture_has_every_package():
    tree = blocks(ROOT / "docs" / "pages" / "architecture" / "index.md", "")[0]
    packages = {path.parent.name for path in (ROOT / "hpcfwi").glob("*/__init__.py")}
    modules = {path.stem for path in (ROOT / "hpcfwi").glob("*.py") if not path.stem.startswith("_")}
    assert set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)) == packages
    assert modules <= set(re.findall(r"\w+", tree))


def test_no_page_has_an_open_question():
    assert not [page.name for page in PAGES if "CHECK:" in page.read_text()]
