"""Findings of a site check, and how facts become findings: a verdict and, unless all is well, advice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.network import CLOCK_SKEW
from hpcfwi.config.site import Site
from hpcfwi.execution.affinity import AffinityCheck, numbers, ranges

# With a warning, a run works, but not as well as it could; with a problem, it does not work.
Verdict = Literal["ok", "warning", "problem"]
STYLES: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}
# Differences of clocks: certificates accept CLOCK_SKEW, half of which is kept as a reserve.
SKEW_WARNING_S, SKEW_PROBLEM_S = 60.0, CLOCK_SKEW.total_seconds() / 2
# Free bytes for compiled kernels.
FREE_WARNING, FREE_PROBLEM = 10**9, 10**8
# A batch system may round the memory of a job down to this share.
MEMORY_ROUNDING = 0.99
DEADLY_KERNELS = "devito.target may name instructions that this processor does not have; or there is too little memory"


@dataclass(frozen=True)
class Finding:
    """One row of a site check."""

    name: str
    found: str
    verdict: Verdict = "ok"
    advice: str = ""  # what to do, unless all is well


@dataclass(frozen=True)
class Section:
    """The findings at one place."""

    place: str
    findings: tuple[Finding, ...]


def warning(name: str, found: str, advice: str) -> Finding:
    return Finding(name, found, "warning", advice)


def problem(name: str, found: str, advice: str) -> Finding:
    return Finding(name, found, "problem", advice)


def has_problem(sections: Iterable[Section]) -> bool:
    """Return whether any finding is a problem."""
    return any(finding.verdict == "problem" for section in sections for finding in section.findings)


def findings_table(section: Section) -> Table:
    """The findings of a section as a table, titled with the place."""
    table = Table(box=None, pad_edge=False, title=f"{section.place}:", title_justify="left", title_style="bold")
    table.add_column("check", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("what to do", overflow="fold")
    for finding in section.findings:
        verdict = Text(finding.verdict, STYLES[finding.verdict])
        table.add_row(finding.name, Text(finding.found), verdict, Text(finding.advice))
    return table


def scratch_finding(facts: Mapping[str, Any], key: str) -> Finding:
    """Judge the folder for temporary files (:func:`hpcfwi.sitecheck.probe.scratch`); ``key`` is what chooses another one."""
    name, other = "scratch", f"set {key} to a local folder of the node"
    if facts["error"]:
        return problem(name, facts["error"], f"{other} that can be written")
    found = f"{facts['folder']}, {facts['free'] / 1e9:.1f} GB free"
    if not facts["executable"]:
        return problem(name, f"{found}: mounted noexec, so kernels cannot be loaded from it", f"{other} without noexec")
    if facts["free"] < FREE_PROBLEM:
        return problem(name, found, f"make room in it, or {other}")
    if facts["asked"] and facts["asked"] != facts["folder"]:
        return warning(name, f"{found}, instead of TMPDIR={facts['asked']}, which cannot be used", other)
    if facts["free"] < FREE_WARNING:
        return warning(name, found, f"make room in it, or {other}")
    return Finding(name, found)


def memory_finding(limits: Mapping[str, int], layout: Layout, where: str) -> Finding:
    """Judge the memory of a node or job (:func:`hpcfwi.sitecheck.probe.memory_limits`) against that of its workers.

    ``where`` is the line of the site file that sets their memory.
    """
    kinds = {"machine": "physical memory", "job": "limit of the job (cgroup)", "process": "limit of a process (ulimit)"}
    known = ", ".join(f"{kinds[name]} {limit / 1e9:.1f} GB" for name, limit in limits.items())
    found = f"{known}; the workers may use {layout.processes} x {layout.memory / 1e9:.1f} GB"
    node = min(limits["machine"], limits.get("job", limits["machine"]))
    too_much = layout.processes * layout.memory * MEMORY_ROUNDING > node
    if too_much or limits.get("process", layout.memory) < layout.memory:
        return problem("memory", found, f"use less memory or fewer processes: {where}")
    return Finding("memory", found)


def kernels_finding(facts: Mapping[str, Any]) -> Finding:
    """Judge whether the driver's host can build and run kernels (:func:`hpcfwi.sitecheck.probe.try_kernels`)."""
    compiler = facts.get("fingerprint", {}).get("compiler", "none")
    if facts["error"]:
        repair = "repair the compiler or its environment, or choose another one (devito.arch)"
        return problem("kernels", facts["error"], DEADLY_KERNELS if facts.get("died") else repair)
    if compiler == "none":
        advice = "install gcc, load a module with a compiler, or name one in devito.arch"
        return problem("kernels", "no C compiler, so kernels cannot be built", advice)
    if not facts["sound"]:
        return problem("kernels", f"{compiler}: kernels compute wrong numbers", "try another compiler (devito.arch)")
    return Finding("kernels", f"{compiler}: built in {facts['build_seconds']:.1f} s, {_speed(facts)}")


def _speed(facts: Mapping[str, Any]) -> str:
    return f"20 steps take {1e3 * facts['seconds']:.1f} ms"


def staged_finding(facts: Mapping[str, Any], staged: Sequence[Mapping[str, Any]]) -> Finding:
    """Judge the kernels that a worker's node builds (:func:`hpcfwi.sitecheck.probe.try_kernels`), and the staged ones.

    ``staged`` has what :func:`hpcfwi.sitecheck.probe.run_staged` returns in each process; it is not needed if kernels ``died``.
    """
    compiler = facts.get("fingerprint", {}).get("compiler", "none")
    if facts.get("died"):
        return problem("kernels", facts["error"], DEADLY_KERNELS)
    if not all(process["sound"] for process in staged):
        advice = "hpcfwi --verbose run CONFIG shows the messages of Devito"
        return problem("kernels", "the staged ones compute wrong numbers here", advice)
    rebuilt = any(process["source"] != "staged" for process in staged)
    ran = f"{'its own' if rebuilt else 'the staged'} ones run, {_speed(staged[0])}"
    if facts["error"]:
        advice = "runs use the staged ones; repair the compiler, or remove it from the environment of the jobs"
        return warning("kernels", f"none can be built here ({facts['error']}); {ran}", advice)
    if compiler == "none":
        return Finding("kernels", f"no compiler here; {ran}")
    return Finding("kernels", f"{compiler}: built in {facts['build_seconds']:.1f} s; {ran}")


def target_finding(facts: Mapping[str, Any], target: str | None) -> Finding:
    """Show what the driver compiles kernels for."""
    fingerprint = facts.get("fingerprint")
    if fingerprint is None:
        return _unknown_instructions()
    aim = f"{target} (devito.target)" if target else "this very processor (devito.target names another)"
    found = f"{fingerprint['processor']}, flags {fingerprint['flags']}; kernels are compiled for {aim}"
    return Finding("instructions", found)


def instructions_finding(facts: Mapping[str, Any], differences: Sequence[str], target: str | None) -> Finding:
    """Judge whether a worker's node can run the driver's kernels.

    ``differences`` are those of their fingerprints, ``target`` is ``devito.target`` of the site.
    """
    fingerprint = facts.get("fingerprint")
    if fingerprint is None:
        return _unknown_instructions()
    if not differences:
        return Finding("instructions", f"{fingerprint['processor']}: the driver's kernels can be used")
    found = f"{fingerprint['processor']}: the driver's kernels cannot be used ({'; '.join(differences)})"
    now = f" (it is {target})" if target else ""
    common = f"set devito.target to an instruction set that both have, for instance x86-64-v3{now}"
    if fingerprint.get("compiler") == "none":
        return problem(
            "instructions", f"{found}, and there is no compiler", f"{common}, or load a compiler on the node"
        )
    return warning("instructions", f"{found}; nodes build their own", f"{common}: then nothing is built there")


def _unknown_instructions() -> Finding:
    return warning("instructions", "unknown, since the test of the kernels failed", "see the row of the kernels")


def threads_finding(site: Site, threads: int, host: str, processes: Sequence[tuple[str, int, str]]) -> Finding:
    """Judge the threads and CPUs of all worker processes of a host; each should have so many ``threads``.

    ``processes`` has name, threads that computed, and CPUs that they may use (``0-3,8``) of each.
    """
    if not all(computing for _, computing, _ in processes):
        return warning("threads", "cannot be seen here", "compare the times of runs with other worker.threads")
    check = AffinityCheck(site, lambda _: threads)
    breaches = [text.partition(": ") for process in processes for text in check.breaches(host, *process)]
    if breaches:
        found, _, advice = zip(*breaches, strict=True)
        return problem("threads", "; ".join(found), "; ".join(advice))
    each = "1 thread" if threads == 1 else f"{threads} threads"
    cpus = [cpus for _, _, cpus in processes]
    if len(processes) == 1:
        return Finding("threads", f"{each} on CPU {cpus[0]}")
    masks = [numbers(text) for text in cpus]
    together = frozenset().union(*masks)
    separate = sum(map(len, masks)) == len(together)
    where = "each with CPUs of its own out of" if separate else "each anywhere on"
    return Finding("threads", f"{len(processes)} processes of {each}, {where} CPU {ranges(together)}")


def clock_finding(skew_s: float, uncertainty_s: float) -> Finding:
    """Judge the difference of a clock from the driver's."""
    found = f"{skew_s:+.3f} s from the driver's (to {uncertainty_s:.3f} s)"
    advice = "have the clock set (NTP): times in events.jsonl mislead"
    if abs(skew_s) >= SKEW_PROBLEM_S:
        limit = f"{CLOCK_SKEW.total_seconds():.0f} s"
        return problem("clock", found, f"{advice}, and a difference of {limit} makes certificates invalid")
    return warning("clock", found, advice) if abs(skew_s) >= SKEW_WARNING_S else Finding("clock", found)


def versions_finding(driver: Mapping[str, str], worker: Mapping[str, str]) -> Finding:
    """Judge whether workers have the same versions as the driver."""
    different = {name: version for name, version in driver.items() if worker.get(name) != version}
    if different:
        found = [f"{name} {worker.get(name, 'none')}, the driver has {version}" for name, version in different.items()]
        advice = "give the workers the driver's environment (environment.python, environment.commands)"
        return problem("versions", "; ".join(found), advice)
    return Finding("versions", ", ".join(f"{name} {version}" for name, version in worker.items()))
