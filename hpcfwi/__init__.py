"""Seismic full waveform inversion on supercomputers.

Everything that the command line does is here too::

    from hpcfwi import load_run_config, run
    result = run(load_run_config("jobs/circle.toml"), run_dir="runs/circle")

Names are imported when they are first used: a worker process, or ``hpcfwi --version``, pays only for what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hpcfwi.version import __version__

if TYPE_CHECKING:
    from hpcfwi.cluster.options import LaunchOptions
    from hpcfwi.config.run import RunConfig, load_run_config
    from hpcfwi.config.site import Site, known_sites, load_site
    from hpcfwi.doctor.rounds import check_site
    from hpcfwi.driver import RunResult, model_data, run
    from hpcfwi.errors import DataError, HpcfwiError, InputError, Interrupted, RunError, StagingError
    from hpcfwi.inversion.functional import FunctionalGradient
    from hpcfwi.inversion.plan import Plan, make_plan
    from hpcfwi.inversion.problem import Problem
    from hpcfwi.reporting.events import read_events
    from hpcfwi.reporting.report import write_report
    from hpcfwi.reporting.runstatus import RunStatus
    from hpcfwi.reporting.status import run_status
    from hpcfwi.studies.accounting import Account, account
    from hpcfwi.studies.gradient_check import CheckReport, check_gradient
    from hpcfwi.studies.scaling_study import ScaleOptions, StudyResult, run_study

__all__ = [
    "Account",
    "CheckReport",
    "DataError",
    "FunctionalGradient",
    "HpcfwiError",
    "InputError",
    "Interrupted",
    "LaunchOptions",
    "Plan",
    "Problem",
    "RunConfig",
    "RunError",
    "RunResult",
    "RunStatus",
    "ScaleOptions",
    "Site",
    "StagingError",
    "StudyResult",
    "__version__",
    "account",
    "check_gradient",
    "check_site",
    "known_sites",
    "load_run_config",
    "load_site",
    "make_plan",
    "model_data",
    "read_events",
    "run",
    "run_status",
    "run_study",
    "write_report",
]

_HOMES = {
    "hpcfwi.cluster.options": ("LaunchOptions",),
    "hpcfwi.config.run": ("RunConfig", "load_run_config"),
    "hpcfwi.config.site": ("Site", "known_sites", "load_site"),
    "hpcfwi.doctor.rounds": ("check_site",),
    "hpcfwi.driver": ("RunResult", "model_data", "run"),
    "hpcfwi.errors": ("DataError", "HpcfwiError", "InputError", "Interrupted", "RunError", "StagingError"),
    "hpcfwi.inversion.functional": ("FunctionalGradient",),
    "hpcfwi.inversion.plan": ("Plan", "make_plan"),
    "hpcfwi.inversion.problem": ("Problem",),
    "hpcfwi.reporting.events": ("read_events",),
    "hpcfwi.studies.accounting": ("Account", "account"),
    "hpcfwi.reporting.runstatus": ("RunStatus",),
    "hpcfwi.reporting.status": ("run_status",),
    "hpcfwi.reporting.report": ("write_report",),
    "hpcfwi.studies.gradient_check": ("CheckReport", "check_gradient"),
    "hpcfwi.studies.scaling_study": ("ScaleOptions", "StudyResult", "run_study"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
