"""MkDocs hooks: add the generated pages of the reference, and turn formulas into MathML."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files
from reference import PAGES

# What pymdownx.arithmatex leaves of a formula.
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
# A role of Sphinx in a docstring, after its text has become code.
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?([^<]*)</code>")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that the code writes."""
    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Show formulas without JavaScript, and the names in docstrings without Sphinx."""
    html = ROLE.sub(r"<code>\1</code>", FORMULA.sub(_mathml, html))
    return html.replace("<code>--", '<code class="option">--')  # which a line must not end after


def _mathml(formula: re.Match[str]) -> str:
    return convert(unescape(formula[3]).strip(), display="inline" if formula[2] == "(" else "block")
