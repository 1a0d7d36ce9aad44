"""PBS (OpenPBS, PBS Professional and compatible systems): qsub, qstat, qdel, pbs_tmrsh and the variables PBS_*."""

import os
import re
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from hpcfwi.batch.base import BatchSystem, JobState, Node, Queue, State, duration_seconds, run_command
from hpcfwi.config.site import SiteConfig
from hpcfwi.errors import InputError, RunError

RUNNING, ENDED = set("RE"), set("FCX")
DEFAULT_RESOURCES = "select=1:ncpus={cpus}:mem={memory}"
# Resources that PBS derives from the select statement of a job.
DERIVED_RESOURCES = {"mem", "mpiprocs", "ncpus", "ngpus", "nodect", "nodes", "vmem"}
# Variables of jobs/fwi.pbs that its successor inherits; HPCFWI_PBS_SCRIPT is the path of that script.
INHERITED_VARIABLES = ("HPCFWI_CONFIG", "HPCFWI_ARGS", "HPCFWI_ROOT", "HPCFWI_REQUEUE", "VIRTUAL_ENV")


class PBS(BatchSystem):
    """PBS."""

    name = "PBS"
    commands = ("qsub", "qstat", "qdel")
    variables: ClassVar = {
        "job_id": "PBS_JOBID",
        # set by requeue() for the successor of a job
        "restarts": "HPCFWI_SUCCESSOR",
        "predecessor": "HPCFWI_PREDECESSOR",
        "submit_host": "PBS_O_HOST",
        "submit_folder": "PBS_O_WORKDIR",
        "node_file": "PBS_NODEFILE",
    }
    job_prefixes = ("PBS_",)
    system_variables = ("PBS_CONF_FILE", "PBS_EXEC", "PBS_SERVER", "PBS_DEFAULT", "PBS_ACCOUNT")
    site_keys = (
        (r"resource: mem", "worker.memory"),
        (r"resource: ncpus", "worker.processes"),
        (r"walltime", "scheduler.walltime"),
        (r"account|project|group", "scheduler.account"),
        (r"queue", "scheduler.queue"),
        (r"mem", "worker.memory"),
        (r"resource|ncpus", "scheduler.resources"),
        (r"option|directive", "scheduler.directives"),
    )
    never_starts = r"Can Never Run"
    options = frozenset({"resources"})
    longer_limit = "a longer limit (qsub -l walltime=)"

    def states(self, jobs: Sequence[str]) -> dict[str, JobState]:
        if not jobs:
            return {}
        answer = run_command("qstat", "-f", *jobs)
        # a single ended job (exit code 35 or 153) makes qstat fail, although it lists the others
        if answer.code and not answer.out and not re.search(r"finished|unknown job|does not exist", answer.err, re.I):
            raise RunError(f"qstat does not answer: exit code {answer.code}: {answer.err.strip()}")
        found = {}
        for text in re.split(r"^Job Id:\s*", answer.out, flags=re.MULTILINE)[1:]:
            job, _, body = text.partition("\n")
            attributes = job_attributes(body)
            word = attributes.get("job_state", "?")
            state: State = "running" if word in RUNNING else "ended" if word in ENDED else "pending"
            nodes = "+".join(dict.fromkeys(re.findall(r"([^+/*]+)/", attributes.get("exec_host", ""))))
            left_s = _seconds_left(attributes)
            found[_short(job.strip())] = JobState(state, word, attributes.get("comment", ""), nodes, left_s)
        return {job: found.get(_short(job), JobState("ended", "gone")) for job in jobs}

    def queue_names(self, queue: str) -> list[str]:
        return [queue.partition("@")[0]]  # queue@server

    def queues(self) -> list[Queue]:
        answer = run_command("qstat", "-Q", "-f").output()
        return [
            Queue(text.split()[0], bool(re.search(r"^\s*enabled = (True|yes)", text, re.MULTILINE)))
            for text in re.split(r"^Queue:\s*", answer, flags=re.MULTILINE)[1:]
            if text.split()
        ]

    def server_hosts(self) -> list[str]:
        names = (self.environment.get(name, "") for name in ("PBS_SERVER", "PBS_DEFAULT"))
        return [name.partition(":")[0] for name in names if name]

    def cluster_class(self) -> Any:
        from dask_jobqueue import PBSCluster

        return PBSCluster

    def job_options(self, config: SiteConfig, cpus: int, megabytes: int, logs: Path) -> dict[str, Any]:
        section = config.scheduler
        default = DEFAULT_RESOURCES if section.request_memory else DEFAULT_RESOURCES.removesuffix(":mem={memory}")
        return {
            # without an account dask-jobqueue would take PBS_ACCOUNT from the environment
            "account": section.account or "",
            "job_directives_skip": [] if section.account else [" -A "],
            "resource_spec": (section.resources or default).format(cpus=cpus, memory=f"{megabytes}mb"),
            "job_extra_directives": ["-j oe", f'-o "{logs}/"', "-r n", *section.directives],
        }

    def script_prologue(self, logs: Path) -> list[str]:
        # PBS copies the output only after the end of a job, and not always
        return [f'exec >>{shlex.quote(str(logs))}/"${{PBS_JOBID%%.*}}".log 2>&1']

    def command_folder(self) -> str:
        """Return the folder of PBS's commands inside a job, whose PATH may lack it or put Slurm's wrappers first."""
        return self._installed_commands() if self.job_id else ""

    def _installed_commands(self) -> str:
        """Return the folder of PBS's commands from its configuration; empty if unknown."""
        folder = self.environment.get("PBS_EXEC", "")
        with suppress(OSError):
            text = Path(self.environment.get("PBS_CONF_FILE") or "/etc/pbs.conf").read_text(errors="replace")
            found = re.search(r"^\s*PBS_EXEC\s*=\s*(\S+)", text, re.MULTILINE)
            folder = folder or (found[1] if found else "")
        return f"{folder}/bin" if folder and Path(folder, "bin").is_dir() else ""

    def _find_command(self, name: str) -> str | None:
        return shutil.which(name) or shutil.which(name, path=self._installed_commands() or "/opt/pbs/bin")

    def requeue(self, starts: int) -> str:
        """Submit a successor with the same requests, since ordinary users cannot requeue a running PBS job."""
        script = self.environment.get("HPCFWI_PBS_SCRIPT")
        if not script:
            raise RunError("only jobs that run jobs/fwi.pbs can be submitted again")
        asked = job_attributes(run_command("qstat", "-f", self.job_id).output())
        inherited = {name: self.environment[name] for name in INHERITED_VARIABLES if self.environment.get(name)}
        inherited |= {self.variables["restarts"]: str(starts), self.variables["predecessor"]: self.job_id}
        command = [
            *("qsub", "-W", f"depend=afterany:{self.job_id}", "-N", asked.get("Job_Name", "hpcfwi")),
            *_same_requests(asked, starts),
            *("-v", ",".join(f"{name}={value}" for name, value in inherited.items())),
            script,
        ]
        return f"job {run_command(*command, cwd=self.variable('submit_folder') or None).output().strip()} follows"

    def nodes(self) -> list[Node]:
        names, (cpus, memory) = self._node_file(), self._chunks()
        known = {name: _short(name) for name in names}
        return [Node(name, cpus.get(host, names.count(name)), memory.get(host)) for name, host in known.items()]

    def _node_file(self) -> list[str]:
        """Return the hosts of the job, each once per requested MPI process."""
        path = self.variable("node_file")
        try:
            return Path(path).read_text().split()
        except OSError as error:
            reason = f"PBS_NODEFILE ({path or 'not set'}) cannot be read: {error.strerror}"
            raise RunError(f"{reason}; is this the first node of the job?") from None

    def _chunks(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the CPUs and bytes of the job by host, if qstat lists them."""
        cpus: dict[str, int] = {}
        memory: dict[str, int] = {}
        vnodes = job_attributes(run_command("qstat", "-f", self.job_id).out).get("exec_vnode", "")
        for part in re.split(r"[()+]+", vnodes):
            vnode, *resources = part.split(":")
            host = _short(vnode.partition("[")[0])
            for resource in resources:
                name, _, value = resource.partition("=")
                if name == "ncpus":
                    cpus[host] = cpus.get(host, 0) + int(value)
                if name == "mem":
                    memory[host] = memory.get(host, 0) + _bytes(value)
        return cpus, memory

    def start_command(self, node: Node, script: Path) -> tuple[list[str], dict[str, str]]:
        command, environment = ["/bin/bash", str(script)], dict(os.environ)
        if remote_shell := self._find_command("pbs_tmrsh"):
            return [remote_shell, node.name, *command], environment
        if everywhere := self._find_command("pbsdsh"):
            return [everywhere, "-n", str(self._node_file().index(node.name)), "--", *command], environment
        if shutil.which("ssh"):
            return ["ssh", "-o", "BatchMode=yes", node.name, shlex.join(command)], environment
        raise InputError(
            "this host has neither pbs_tmrsh, pbsdsh nor ssh, so no workers can be started on the nodes of this job; "
            "use --launch jobs"
        )


def job_attributes(text: str) -> dict[str, str]:
    """Parse the attributes of one job in ``qstat -f``; a long value continues on the next line, after a tab."""
    joined = re.sub(r"\n\t(?![\w.]+ = )", "", text)  # Torque begins attributes with a tab, too
    return dict(re.findall(r"^[ \t]+([\w.]+) = (.*)$", joined, re.MULTILINE))


def _seconds_left(attributes: Mapping[str, str]) -> float | None:
    """Return the seconds until the time limit of a job; PBS updates the used walltime only every few minutes."""
    limit = duration_seconds(attributes.get("Resource_List.walltime", ""))
    if limit is None:
        return None
    left = limit - (duration_seconds(attributes.get("resources_used.walltime", "")) or 0.0)
    with suppress(ValueError, OverflowError):
        left = min(left, time.mktime(time.strptime(attributes.get("stime", ""))) + limit - time.time())
    return left


def _same_requests(asked: Mapping[str, str], starts: int) -> list[str]:
    """Return the options of qsub that repeat a job's requests."""
    options: list[str] = []
    for option, name in (("-q", "queue"), ("-A", "Account_Name"), ("-P", "project")):
        if asked.get(name, "_pbs_project_default") != "_pbs_project_default":
            options += [option, asked[name]]
    select = asked.get("Resource_List.select", "")
    for name, value in asked.items():
        kind, _, resource = name.partition(".")
        derived = select and (resource in DERIVED_RESOURCES or re.search(rf"[:=]{re.escape(resource)}=", f":{select}"))
        if kind == "Resource_List" and not derived:
            options += ["-l", f"{resource}={value}"]
    output = asked.get("Output_Path", "").partition(":")[2]
    if output and not re.search(r"\.o\d+$", output):  # the default name ends in the job's number
        options += ["-o", _next_output(output, starts)]
    return options


def _next_output(path: str, starts: int) -> str:
    """Return ``job.log.1``, ``job.log.2``, ... for the successors of ``job.log``, which PBS would overwrite."""
    if Path(path).is_dir():
        return path
    return f"{path.removesuffix(f'.{starts - 1}')}.{starts}"


def _short(name: str) -> str:
    """Return the name of a host without its domain, or the number of a job without its server."""
    return name.partition(".")[0]


def _bytes(text: str) -> int:
    """Return the bytes of ``8388608kb``: the units of PBS are powers of 1024."""
    match = re.fullmatch(r"(\d+)([kmgt]?)b?", text.lower())
    return int(match[1]) * 1024 ** " kmgt".index(match[2] or " ") if match else 0
