"""For tests of what hpcfwi relies on in another library without its documentation saying so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

__all__ = ["relying_on"]


@contextmanager
def relying_on(library: str, meaning: str) -> Iterator[None]:
    """Fail with the library's version, and what hpcfwi relies on; decorates a test."""
    try:
        yield
    except (Exception, AssertionError) as error:
        raise AssertionError(f"{library} {version(library)}: {meaning}: {type(error).__name__}: {error}") from error
