"""Real processes that fail at a chosen place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

MEDDLING = Path(__file__).parent / "meddling"


@pytest.fixture
def meddle(hpcfwi) -> Callable[..., None]:
    """Lets the processes of every command from now on have a fault of ``meddling/sitecustomize.py``, or none."""

    def choose(fault: str | None = None, **arguments: object) -> None:
        for name in ("MEDDLING", "PYTHONPATH"):
            hpcfwi.environment.pop(name, None)
            if name in os.environ:
                hpcfwi.environment[name] = os.environ[name]
        if fault is not None:
            path = [str(MEDDLING), *filter(None, [hpcfwi.environment.get("PYTHONPATH")])]
            hpcfwi.environment["PYTHONPATH"] = os.pathsep.join(path)
            hpcfwi.environment["MEDDLING"] = json.dumps([fault, arguments], default=str)

    return choose
