"""``site-configs/NAME.toml``: where it runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hpcfwi.config.text import Section, apply_settings, expand, parse_setting, read_toml, validate
from hpcfwi.errors import InputError
from hpcfwi.resources import shipped

__all__ = ["SiteConfig", "find_site", "load_site_config"]

Auto = Literal["auto"]


class WorkerSection(Section):
    """Worker processes on a node."""

    processes: Auto | Annotated[int, Field(ge=1, le=1024)] = Field(
        "auto",
        description='worker processes on a node; "auto": one for each core, fewer where shots or memory are few',
    )
    threads: Auto | Annotated[int, Field(ge=1, le=1024)] = Field(
        "auto", description='OpenMP threads of each process; "auto": the cores that the processes leave'
    )
    memory: Auto | Annotated[float, Field(gt=0, le=1e6)] = Field(
        "auto", description='GB that a process may use; "auto": its share of the machine'
    )


class SiteConfig(Section):
    """A whole site file."""

    description: str = Field("", description="one line that says what machine this is")
    worker: WorkerSection = WorkerSection()


def find_site(name: str) -> Path:
    """Find a site by its name or path.

    Raises
    ------
    InputError
        With the names that there are.
    """
    if "/" in name or name.endswith(".toml"):
        return expand(name)
    own = os.environ.get("HPCFWI_SITES")
    folders = [*([expand(own)] if own else []), expand("~/.config/hpcfwi/sites"), shipped("site-configs")]
    for folder in folders:
        if os.access(folder / f"{name}.toml", os.R_OK):
            return folder / f"{name}.toml"
    known = sorted({path.stem for folder in folders if os.access(folder, os.R_OK) for path in folder.glob("*.toml")})
    raise InputError(f"--site {name}: there is no such site; there are {', '.join(known)}, or give the path of a file")


def load_site_config(name: str = "workstation", settings: Iterable[str] = ()) -> SiteConfig:
    """Read a site file, lay settings over it and check it.

    Parameters
    ----------
    name
        Name or path of the site.
    settings
        ``section.key=value``, as after ``--set site.``.

    Raises
    ------
    InputError
        If there is no such site, or it is wrong.
    """
    path = find_site(name)
    changes = [parse_setting(setting) for setting in settings]
    content = apply_settings(read_toml(path, "site configuration"), changes)
    return validate(SiteConfig, content, f"{path} with --set" if changes else str(path))
