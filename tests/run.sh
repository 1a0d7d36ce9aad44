#!/bin/bash
# Every check of the project: ruff, the format, mypy, pytest.
#
#   bash tests/run.sh [--slow] [pytest options]
#
# What is missing is set up first: .venv/ with the extra [test] unless an environment that has hpcfwi is active, and,
# as root on Debian or Ubuntu, a C compiler, python3-venv, faketime, a Chromium for the tests of the report, and a Slurm
# for those of schedulers (tests are skipped, aloud, where something is missing). A real OpenPBS is used where one is installed in $PBS_EXEC (/opt/pbs).
# --slow adds the tests that take long.
# All steps run even if one fails; the status is 0 only if none did.
set -u -o pipefail

case ${1:-} in -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" && exit ;; esac

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd) && cd -- "$root" || exit 3
. jobs/environment.sh
hpcfwi_environment "$root" test || exit

# Two front ends, Slurm's own and that for users of PBS; daemons, which the tests start and stop; several hosts on one;
# clocks that are set.
for needed in slurmctld slurmd munged ip nsenter qsub faketime; do
    if ! PATH=$PATH:/usr/sbin:/sbin type -P "$needed" >/dev/null && hpcfwi_may_install; then
        hpcfwi_install slurm-wlm munge slurm-wlm-torque iproute2 util-linux procps faketime || :
        break
    fi
done

# A browser that shows the report.
if ! { type -P chromium && type -P chromedriver; } >/dev/null && hpcfwi_may_install; then
    hpcfwi_install chromium chromium-driver || :
fi

# An environment somebody else made is not changed, only judged.
absent=$("$HPCFWI_BIN/python" -c 'import importlib.util as u
print(*(name for name in ("hypothesis", "jsonschema", "mypy", "pytest", "ruff") if not u.find_spec(name)))') || exit 3
if [ -n "$absent" ]; then
    echo "hpcfwi: the active environment ($HPCFWI_BIN) lacks: $absent" >&2
    echo "type: '$HPCFWI_BIN/python' -m pip install --editable '${root}[test]'" >&2
    echo "or deactivate it: then this script uses .venv/ and sets it up" >&2
    exit 3
fi

# The results that tests compare to the byte are those of one thread per shot, which hpcfwi sets itself.
unset OMP_NUM_THREADS
export PATH="$HPCFWI_BIN:$PATH"

failed=''
step() {
    local name=$1
    shift
    echo "== $name"
    "$HPCFWI_BIN/python" -m "$@" || failed+="${failed:+, }$name"
}
step 'ruff check' ruff check
step 'ruff format' ruff format --check
step mypy mypy
step pytest pytest "$@"

if [ -n "$failed" ]; then
    echo "FAILED: $failed"
    exit 1
fi
echo 'all steps passed'
