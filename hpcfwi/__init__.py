"""Seismic full waveform inversion on supercomputers.

Everything that the command line does is here too::

    from hpcfwi import load_run_config, run_inversion
    result = run_inversion(load_run_config("jobs/circle.toml"), run_dir="runs/circle")

Names are imported when they are first used, so worker processes and ``hpcfwi --version`` load only what they need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hpcfwi.version import __version__

if TYPE_CHECKING:
    from hpcfwi.config.data import DataSection
    from hpcfwi.config.run import RunConfig, load_run_config
    from hpcfwi.config.site import LaunchOptions, Site, known_sites, load_site
    from hpcfwi.errors import DataError, HpcfwiError, InputError, Interrupted, RunError, StagingError
    from hpcfwi.events.log import read_events
    from hpcfwi.inversion.functional_gradient import FunctionalGradient
    from hpcfwi.inversion.gradient_check import CheckReport, check_gradient
    from hpcfwi.model.problem import Problem
    from hpcfwi.reporting.report.page import write_report
    from hpcfwi.reporting.status import RunStatus, run_status
    from hpcfwi.reporting.survey_info import SurveyInfo, survey_info
    from hpcfwi.run.driver import RunResult, model_data, run_inversion
    from hpcfwi.run.export import Export, export_model
    from hpcfwi.run.open_objective import open_objective
    from hpcfwi.run.plan import Plan, make_plan
    from hpcfwi.run.survey_objective import SurveyObjective
    from hpcfwi.scaling.study import ScaleOptions, StudyResult, run_study
    from hpcfwi.scaling.time_breakdown import TimeBreakdown, time_breakdown
    from hpcfwi.sitecheck.driver_checks import check_site

__all__ = [
    "CheckReport", "DataError", "DataSection", "Export", "FunctionalGradient", "HpcfwiError", "InputError", "Interrupted",
    "LaunchOptions", "Plan", "Problem", "RunConfig", "RunError", "RunResult", "RunStatus", "ScaleOptions", "Site",
    "StagingError", "StudyResult", "SurveyInfo", "SurveyObjective", "TimeBreakdown", "__version__", "check_gradient",
    "check_site", "export_model", "known_sites", "load_run_config", "load_site", "make_plan", "model_data",
    "open_objective", "read_events", "run_inversion", "run_status", "run_study", "survey_info", "time_breakdown",
    "write_report",
]  # fmt: skip

_NAMES_OF = {
    "hpcfwi.config.data": ("DataSection",),
    "hpcfwi.config.run": ("RunConfig", "load_run_config"),
    "hpcfwi.config.site": ("LaunchOptions", "Site", "known_sites", "load_site"),
    "hpcfwi.sitecheck.driver_checks": ("check_site",),
    "hpcfwi.run.driver": ("RunResult", "model_data", "run_inversion"),
    "hpcfwi.errors": ("DataError", "HpcfwiError", "InputError", "Interrupted", "RunError", "StagingError"),
    "hpcfwi.inversion.functional_gradient": ("FunctionalGradient",),
    "hpcfwi.run.export": ("Export", "export_model"),
    "hpcfwi.run.open_objective": ("open_objective",),
    "hpcfwi.run.survey_objective": ("SurveyObjective",),
    "hpcfwi.run.plan": ("Plan", "make_plan"),
    "hpcfwi.model.problem": ("Problem",),
    "hpcfwi.events.log": ("read_events",),
    "hpcfwi.scaling.time_breakdown": ("TimeBreakdown", "time_breakdown"),
    "hpcfwi.reporting.status": ("RunStatus", "run_status"),
    "hpcfwi.reporting.survey_info": ("SurveyInfo", "survey_info"),
    "hpcfwi.reporting.report.page": ("write_report",),
    "hpcfwi.inversion.gradient_check": ("CheckReport", "check_gradient"),
    "hpcfwi.scaling.study": ("ScaleOptions", "StudyResult", "run_study"),
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
