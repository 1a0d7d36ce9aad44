"""What the doctor finds, and how it is told: a table with a verdict and, where it is not well, what to do."""

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

__all__ = [
    "Finding",
    "Section",
    "bad",
    "clock_finding",
    "findings_table",
    "instructions_finding",
    "kernels_finding",
    "memory_finding",
    "problem",
    "scratch_finding",
    "staged_finding",
    "target_finding",
    "threads_finding",
    "versions_finding",
    "warning",
]

Verdict = Literal["ok", "warning", "problem"]
STYLES: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One row.

    Parameters
    ----------
    name
        What was looked at.
    found
        What is there.
    verdict
        ``"ok"``, ``"warning"`` (a run will do, but not as it should) or ``"problem"`` (it will not).
    advice
        What to do; empty where all is well.
    """

    name: str
    found: str
    verdict: Verdict = "ok"
    advice: str = ""


@dataclass(frozen=True)
class Section:
    """What was found at one place."""

    place: str
    findings: tuple[Finding, ...]


def warning(name: str, found: str, advice: str) -> Finding:
    return Finding(name, found, "warning", advice)


def problem(name: str, found: str, advice: str) -> Finding:
    return Finding(name, found, "problem", advice)


def bad(sections: Iterable[Section]) -> bool:
    """Whether there is any problem."""
    return any(finding.verdict == "problem" for section in sections for finding in section.findings)


def findings_table(section: Section) -> Table:
    """The table of one place, under its name."""
    table = Table(box=None, pad_edge=False, title=f"{section.place}:", title_justify="left", title_style="bold")
    table.add_column("check", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("what to do", overflow="fold")
    for finding in section.findings:
        verdict = Text(finding.verdict, STYLES[finding.verdict])
        table.add_row(finding.name, Text(finding.found), verdict, Text(finding.advice))
    return table


# Seconds that a node's clock may differ from the driver's: certificates allow CLOCK_SKEW, of which half is left in reserve.
SKEW_WARNING, SKEW_PROBLEM = 60.0, CLOCK_SKEW.total_seconds() / 2
# Bytes that should be free for compiled kernels, and that have to be.
FREE_WARNING, FREE_PROBLEM = 10**9, 10**8
DEADLY = "devito.target may ask for instructions that this processor has not; or there is too little memory"
# A batch system rounds what a job asks for.
ROUNDING = 0.99


def scratch_finding(facts: Mapping[str, Any], key: str) -> Finding:
    """The folder for temporary files and the JIT cache.

    Parameters
    ----------
    facts
        Of :func:`hpcfwi.sitecheck.probe.scratch`.
    key
        What the user sets to choose another.
    """
    name, other = "scratch", f"set {key} to a folder of this node's own"
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
    """The memory that there is, or that a job is held to, against what the workers of a node may use.

    Parameters
    ----------
    limits
        Of :func:`hpcfwi.sitecheck.probe.memory_limits`.
    layout
        What was promised.
    where
        Where the site says it.
    """
    needed = layout.processes * layout.memory
    words = {"machine": "physical memory", "job": "limit of the job (cgroup)", "process": "limit of a process (ulimit)"}
    told = ", ".join(f"{words[name]} {limit / 1e9:.1f} GB" for name, limit in limits.items())
    found = f"{told}; the workers may use {layout.processes} x {layout.memory / 1e9:.1f} GB"
    per_node = min(limits["machine"], limits.get("job", limits["machine"]))
    if per_node < ROUNDING * needed or limits.get("process", layout.memory) < layout.memory:
        return problem("memory", found, f"ask for less memory or fewer processes: {where}")
    return Finding("memory", found)


def kernels_finding(facts: Mapping[str, Any]) -> Finding:
    """Whether kernels can be built and run where there has to be a compiler: on the driver's host."""
    compiler = facts.get("fingerprint", {}).get("compiler", "none")
    if facts.get("died"):
        return problem("kernels", facts["error"], DEADLY)
    if facts["error"]:
        return problem("kernels", facts["error"], "mend the compiler (devito.arch, devito.target) or its environment")
    if compiler == "none":
        advice = "install gcc, load a module that brings a compiler, or name another in devito.arch"
        return problem("kernels", "there is no C compiler, so none can be built", advice)
    if not facts["sound"]:
        return problem("kernels", f"{compiler}: kernels give wrong numbers", "try another compiler (devito.arch)")
    return Finding("kernels", f"{compiler}: built in {facts['build_seconds']:.1f} s, {_speed(facts)}")


def _speed(facts: Mapping[str, Any]) -> str:
    return f"20 steps take {1e3 * facts['seconds']:.1f} ms"


def staged_finding(facts: Mapping[str, Any], staged: Sequence[Mapping[str, Any]]) -> Finding:
    """Kernels on a worker's node: its own compiler's, and the driver's, staged ones.

    Parameters
    ----------
    facts
        Of :func:`hpcfwi.sitecheck.probe.try_kernels`.
    staged
        Of :func:`hpcfwi.sitecheck.probe.run_staged`, for each process; not needed where kernels have ``died``.
    """
    compiler = facts.get("fingerprint", {}).get("compiler", "none")
    if facts.get("died"):
        return problem("kernels", facts["error"], DEADLY)
    if not all(process["sound"] for process in staged):
        return problem(
            "kernels", "the staged ones give wrong numbers here", "hpcfwi --verbose run lets Devito say more"
        )
    own = {process["source"] for process in staged} - {"staged"}
    ran = f"{'its own' if own else 'the staged'} ones run, {_speed(staged[0])}"
    if facts["error"]:
        advice = "runs can do with the staged ones; mend the compiler, or leave it out of the jobs' environment"
        return warning("kernels", f"none can be built here ({facts['error']}); {ran}", advice)
    if compiler == "none":
        return Finding("kernels", f"no compiler here; {ran}")
    return Finding("kernels", f"{compiler}: built in {facts['build_seconds']:.1f} s; {ran}")


def target_finding(facts: Mapping[str, Any], target: str | None) -> Finding:
    """What kernels are compiled for."""
    told = facts.get("fingerprint")
    if told is None:
        return warning("instructions", "not known, since kernels could not be tried", "see the kernels' row")
    aim = f"for {target} (devito.target)" if target else "for this very processor (devito.target names another)"
    return Finding("instructions", f"{told['processor']}, flags {told['flags']}; kernels are compiled {aim}")


def instructions_finding(facts: Mapping[str, Any], differs: Sequence[str], target: str | None) -> Finding:
    """A node's processor, compiler and versions against the driver's, as far as kernels depend on them.

    Parameters
    ----------
    facts
        Of :func:`hpcfwi.sitecheck.probe.try_kernels` there.
    differs
        Of :func:`hpcfwi.solver.operators.fingerprint_differences`.
    target
        The site's ``devito.target``.
    """
    told = facts.get("fingerprint")
    if told is None:
        return warning("instructions", "not known, since kernels could not be tried", "see the kernels' row")
    processor = told["processor"]
    if not differs:
        return Finding("instructions", f"{processor}: the driver's kernels can be used")
    found = f"{processor}: the driver's kernels cannot be used ({'; '.join(differs)})"
    also = f"is {target}; name" if target else "may name"
    common = f"devito.target {also} an instruction set that both have (x86-64-v3, say)"
    if told.get("compiler") == "none":
        return problem(
            "instructions", f"{found}, and there is no compiler", f"{common}, or load a compiler on the node"
        )
    return warning("instructions", f"{found}; nodes build their own", f"{common}: then nothing is built there")


def threads_finding(site: Site, promised: int, host: str, told: Sequence[tuple[str, int, str]]) -> Finding:
    """Threads and CPUs of all worker processes of a host against what was promised.

    Parameters
    ----------
    site
        Who promised.
    promised
        Threads of each process.
    host
        Where.
    told
        For each process its name, the threads that computed, and the CPUs that they may use, as ``0-3,8``.
    """
    if not all(threads for _, threads, _ in told):
        return warning("threads", "cannot be seen here", "compare the times of runs with other worker.threads")
    promise = AffinityCheck(site, lambda _: promised)
    breaches = [text for process in told for text in promise.breaches(host, *process)]
    if breaches:
        found, advice = zip(*((text.partition(": ")[0], text.partition(": ")[2]) for text in breaches), strict=True)
        return problem("threads", "; ".join(found), "; ".join(advice))
    counts = "1 thread" if promised == 1 else f"{promised} threads"
    own = [cpus for _, _, cpus in told]
    if len(told) == 1:
        return Finding("threads", f"{counts} on CPU {own[0]}")
    masks = [numbers(cpus) for cpus in own]
    together = frozenset().union(*masks)
    apart = sum(map(len, masks)) == len(together)
    return Finding(
        "threads",
        f"{len(told)} processes of {counts}, {'each with CPUs of its own out of' if apart else 'each anywhere on'} CPU "
        f"{ranges(together)}",
    )


def clock_finding(skew: float, uncertainty: float) -> Finding:
    """A clock's difference from the driver's, s."""
    found = f"{skew:+.3f} s from the driver's (to {uncertainty:.3f} s)"
    advice = "have the clock set (NTP): times in events.jsonl mislead"
    if abs(skew) >= SKEW_PROBLEM:
        return problem(
            "clock", found, f"{advice}, and from {CLOCK_SKEW.total_seconds():.0f} s on keys are not accepted"
        )
    return warning("clock", found, advice) if abs(skew) >= SKEW_WARNING else Finding("clock", found)


def versions_finding(here: Mapping[str, str], there: Mapping[str, str]) -> Finding:
    """What is installed where workers start against what the driver has."""
    differs = [
        f"{name} {there.get(name, 'none')}, the driver has {version}"
        for name, version in here.items()
        if there.get(name) != version
    ]
    if differs:
        advice = "let the workers have the driver's environment (environment.python, environment.commands)"
        return problem("versions", "; ".join(differs), advice)
    return Finding("versions", ", ".join(f"{name} {version}" for name, version in there.items()))
