"""Findings of a site check, and the functions that judge facts: a finding has a verdict and, unless it is ok, advice."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.network import CLOCK_SKEW
from hpcfwi.config.site import Site
from hpcfwi.execution.affinity import AffinityCheck, parse_ranges
from hpcfwi.io import format_ranges
from hpcfwi.reporting.formatting import counted
from hpcfwi.sitecheck.probe import MIN_STEPS

# With a warning, a run works, but worse than it could; with a problem, it does not work.
Verdict = Literal["ok", "warning", "problem"]
STYLES: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}
# Differences of clocks; certificates accept CLOCK_SKEW, of which half is kept as a margin.
SKEW_WARNING_S, SKEW_PROBLEM_S = 60.0, CLOCK_SKEW.total_seconds() / 2
# Free bytes for compiled kernels.
FREE_WARNING, FREE_PROBLEM = 10**9, 10**8
# A batch system may round the memory of a job down to this share.
MEMORY_ROUNDING = 0.99
DEADLY_KERNELS = "devito.target may name instructions that this processor lacks, or memory is too small"


@dataclass(frozen=True)
class Finding:
    """One row of a site check."""

    name: str
    found: str
    verdict: Verdict = "ok"
    advice: str = ""  # what to do, unless the verdict is ok


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


UNKNOWN_INSTRUCTIONS = warning(
    "instructions", "unknown, since the test of the kernels failed", "see the row of the kernels"
)


def scratch_finding(facts: Mapping[str, Any], key: str) -> Finding:
    """Judge the folder for temporary files (facts of ``probe.scratch``), which ``key`` sets."""
    name, other = "scratch", f"set {key} to a local folder of the node"
    if facts["error"]:
        return problem(name, facts["error"], f"{other} that is writable")
    found = f"{facts['folder']}, {facts['free'] / 1e9:.1f} GB free"
    if not facts["executable"]:
        return problem(name, f"{found}: mounted noexec, so kernels cannot be loaded from it", f"{other} without noexec")
    if facts["free"] < FREE_PROBLEM:
        return problem(name, found, f"free some space there, or {other}")
    if facts["requested"] and facts["requested"] != facts["folder"]:
        return warning(name, f"{found}, instead of TMPDIR={facts['requested']}, which cannot be used", other)
    if facts["free"] < FREE_WARNING:
        return warning(name, found, f"free some space there, or {other}")
    return Finding(name, found)


def memory_finding(limits: Mapping[str, int], layout: Layout, where: str) -> Finding:
    """Judge whether the memory (``probe.memory_limits``) suffices for the workers; ``where`` says which line sets theirs."""
    kinds = {"machine": "physical memory", "job": "limit of the job (cgroup)", "process": "limit of a process (ulimit)"}
    known = ", ".join(f"{kinds[name]} {limit / 1e9:.1f} GB" for name, limit in limits.items())
    found = f"{known}; the workers may use {layout.processes} x {layout.memory / 1e9:.1f} GB"
    node = min(limits["machine"], limits.get("job", limits["machine"]))
    too_much = layout.processes * layout.memory * MEMORY_ROUNDING > node
    if too_much or limits.get("process", layout.memory) < layout.memory:
        return problem("memory", found, f"use less memory or fewer processes: {where}")
    return Finding("memory", found)


def kernels_finding(facts: Mapping[str, Any]) -> Finding:
    """Judge whether the driver's host can build and run kernels (facts of ``probe.try_kernels``)."""
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
    return f"{MIN_STEPS} steps take {1e3 * facts['seconds']:.1f} ms"


def staged_finding(facts: Mapping[str, Any], staged: Sequence[Mapping[str, Any]]) -> Finding:
    """Judge the kernels that a worker's node builds (``probe.try_kernels``) and the staged ones.

    ``staged`` has the facts of ``probe.run_staged`` in each process; it is empty if the kernels ``died``.
    """
    compiler = facts.get("fingerprint", {}).get("compiler", "none")
    if facts.get("died"):
        return problem("kernels", facts["error"], DEADLY_KERNELS)
    if not all(process["sound"] for process in staged):
        advice = "hpcfwi --verbose run CONFIG shows the messages of Devito"
        return problem("kernels", "the staged kernels compute wrong numbers here", advice)
    rebuilt = any(process["source"] != "staged" for process in staged)
    ran = f"{'its own kernels' if rebuilt else 'the staged kernels'} run, {_speed(staged[0])}"
    if facts["error"]:
        advice = "runs use the staged kernels; repair the compiler, or remove it from the environment of the jobs"
        return warning("kernels", f"the compiler fails ({facts['error']}); {ran}", advice)
    if compiler == "none":
        return Finding("kernels", f"no compiler here; {ran}")
    return Finding("kernels", f"{compiler}: built in {facts['build_seconds']:.1f} s; {ran}")


def target_finding(facts: Mapping[str, Any], target: str | None) -> Finding:
    """Show for which processor the driver compiles kernels."""
    fingerprint = facts.get("fingerprint")
    if fingerprint is None:
        return UNKNOWN_INSTRUCTIONS
    aim = f"{target} (devito.target)" if target else "this processor (devito.target sets another)"
    found = f"{fingerprint['processor']}, flags {fingerprint['flags']}; kernels are compiled for {aim}"
    return Finding("instructions", found)


def instructions_finding(facts: Mapping[str, Any], differences: Sequence[str], target: str | None) -> Finding:
    """Judge whether a worker's node can run the driver's kernels; ``differences`` are those of their fingerprints."""
    fingerprint = facts.get("fingerprint")
    if fingerprint is None:
        return UNKNOWN_INSTRUCTIONS
    if not differences:
        return Finding("instructions", f"{fingerprint['processor']}: the driver's kernels can be used")
    found = f"{fingerprint['processor']}: the driver's kernels cannot be used ({'; '.join(differences)})"
    now = f" (it is {target})" if target else ""
    common = f"set devito.target to an instruction set of both processors, for example x86-64-v3{now}"
    if fingerprint.get("compiler") == "none":
        advice = f"{common}, or load a compiler on the node"
        return problem("instructions", f"{found}, and there is no compiler", advice)
    return warning("instructions", f"{found}; nodes build their own", f"{common}, so that nodes build none")


def threads_finding(site: Site, threads: int, host: str, processes: Sequence[tuple[str, int, str]]) -> Finding:
    """Judge threads and CPUs of the worker processes of a host; each should use ``threads`` threads.

    ``processes`` are name, threads that computed, and CPUs that they may use (``0-3,8``).
    """
    if not all(computing for _, computing, _ in processes):
        return warning("threads", "unknown on this system", "compare the times of runs with other worker.threads")
    check = AffinityCheck(site, lambda _: threads)
    breaches = [text.partition(": ") for process in processes for text in check.mismatches(host, *process)]
    if breaches:
        found, _, advice = zip(*breaches, strict=True)
        return problem("threads", "; ".join(found), "; ".join(advice))
    each = counted(threads, "thread")
    cpus = [cpus for _, _, cpus in processes]
    if len(processes) == 1:
        return Finding("threads", f"{each} on CPU {cpus[0]}")
    masks = [parse_ranges(text) for text in cpus]
    together = frozenset().union(*masks)
    separate = sum(map(len, masks)) == len(together)
    where = "each on its own CPUs" if separate else "each on any of these CPUs"
    return Finding("threads", f"{len(processes)} processes of {each} on CPU {format_ranges(together)}, {where}")


def clock_finding(skew_s: float, uncertainty_s: float) -> Finding:
    """Judge the difference of a clock from the driver's."""
    found = f"{skew_s:+.3f} s from the driver's (± {uncertainty_s:.3f} s)"
    advice = "synchronise the clocks (NTP), or times in events.jsonl are wrong"
    if abs(skew_s) >= SKEW_PROBLEM_S:
        limit = f"{CLOCK_SKEW.total_seconds():.0f} s"
        return problem("clock", found, f"{advice}; a difference of {limit} makes certificates invalid")
    return warning("clock", found, advice) if abs(skew_s) >= SKEW_WARNING_S else Finding("clock", found)


def versions_finding(driver: Mapping[str, str], worker: Mapping[str, str]) -> Finding:
    different = {name: version for name, version in driver.items() if worker.get(name) != version}
    if different:
        found = [f"{name} {worker.get(name, 'none')} (driver: {version})" for name, version in different.items()]
        advice = "give the workers the driver's environment (environment.python, environment.commands)"
        return problem("versions", "; ".join(found), advice)
    return Finding("versions", ", ".join(f"{name} {version}" for name, version in worker.items()))
