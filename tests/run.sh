#!/bin/bash
# Every check of the project: ruff, its format, mypy, the import contracts, the documentation, pytest.
#
#   bash tests/run.sh [--slow] [pytest options]
#
# It first sets up what is missing: .venv/ with the extras [test,docs], unless an environment that has hpcfwi is active;
# and, as root on Debian or Ubuntu, a C compiler, python3-venv, faketime, Chromium for the tests of the report, and Slurm
# for those of schedulers. Where something is missing, pytest skips its tests and says so. The tests of OpenPBS need one
# in $PBS_EXEC (/opt/pbs). --slow adds the tests that take long.
# All steps run even if one fails; the status is 0 only if all pass.
set -u -o pipefail

case ${1:-} in -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" && exit ;; esac

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd) && cd -- "$root" || exit 3
. jobs/environment.sh
hpcfwi_environment "$root" test,docs || exit

# Slurm with its own commands and those of PBS; network namespaces, which stand in for hosts; clocks that can be set.
for needed in slurmctld slurmd munged ip nsenter qsub faketime; do
    if ! PATH=$PATH:/usr/sbin:/sbin type -P "$needed" >/dev/null; then
        hpcfwi_install slurm-wlm munge slurm-wlm-torque iproute2 util-linux procps faketime
        break
    fi
done

# A browser that shows the report.
{ type -P chromium && type -P chromedriver; } >/dev/null || hpcfwi_install chromium chromium-driver

# Neither the contracts nor the documentation has to be there.
modules=(hypothesis jsonschema mypy pytest ruff xdist) lint='' docs=''
if grep -q '^\[tool\.importlinter\]' pyproject.toml; then lint=yes && modules+=(importlinter); fi
if [ -f docs/mkdocs.yml ]; then docs=yes && modules+=(mkdocs); fi

# This script never changes an environment that you have activated.
absent=$("$HPCFWI_BIN/python" -c 'import importlib.util as u, sys
print(*(name for name in sys.argv[1:] if not u.find_spec(name)))' "${modules[@]}") || exit 3
if [ -n "$absent" ]; then
    echo "hpcfwi: the active environment ($HPCFWI_BIN) lacks: $absent" >&2
    echo "type: '$HPCFWI_BIN/python' -m pip install --editable '${root}[test,docs]'" >&2
    echo "or deactivate it: then this script uses .venv/ and sets it up" >&2
    exit 3
fi

# Tests compare results to the byte, and these are those of one thread per shot, which hpcfwi sets itself.
unset OMP_NUM_THREADS
export PATH="$HPCFWI_BIN:$PATH"
# Long notices about successors of MkDocs would hide a real warning.
export NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true

failed=''
step() {
    local name=$1
    shift
    echo "== $name"
    "$@" || failed+="${failed:+, }$name"
}
documentation() {
    local site status=0
    site=$(mktemp -d) || return
    python -m mkdocs build --strict -f docs/mkdocs.yml --site-dir "$site" || status=$?
    rm -rf -- "$site"
    return "$status"
}
step 'ruff check' python -m ruff check
step 'ruff format' python -m ruff format --check
step mypy python -m mypy
[ -z "$lint" ] || step 'import contracts' lint-imports
[ -z "$docs" ] || step documentation documentation
# Two processes: one for the tests that start workers and schedulers, one for the others (tests/conftest.py).
step pytest python -m pytest --numprocesses 2 "$@"

if [ -n "$failed" ]; then
    echo "FAILED: $failed"
    exit 1
fi
echo 'all steps passed'
