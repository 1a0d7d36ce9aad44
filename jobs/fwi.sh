#!/bin/bash
#SBATCH --job-name=hpcfwi
#SBATCH --output=hpcfwi-%j.log
#SBATCH --open-mode=append
#SBATCH --no-kill
#SBATCH --requeue
#
# Full waveform inversion: on this machine, in an allocation, or as a batch job.
#
#   bash jobs/fwi.sh                          the example, jobs/circle.toml
#   bash jobs/fwi.sh CONFIG [OPTIONS]         your problem
#   sbatch jobs/fwi.sh CONFIG --site NAME     the same under Slurm, from the project's root or its jobs/
#   bash jobs/fwi.sh --setup                  only set up, on a login node if the compute nodes have no internet
#
# OPTIONS are those of `hpcfwi run`: --run-dir DIR, --site NAME, --set section.key=value ...
# It first sets up what is missing: .venv/ at the project's root, unless an environment that has hpcfwi is active.
# HPCFWI_PYTHON names the Python to use for it, HPCFWI_ROOT the project's root if you call sbatch from elsewhere.
# Under Slurm the job requeues itself when its time is up, until three of its starts in a row, or HPCFWI_REQUEUE (10) in all,
# keep no result; HPCFWI_REQUEUE=0 turns this off.
# Run it again to continue an unfinished run. Status: 0 done, 2 wrong input, 3 failed, 75 stopped early.
set -eu -o pipefail

case ${1:-} in -h | --help) sed -n '5,/^set /{/^#/s/^# \{0,1\}//p}' "$0" && exit ;; esac

# Slurm runs a copy of this script from a spool folder, so the script's own folder may not be the project's.
own=$(dirname -- "${BASH_SOURCE[0]}")/..
for root in "$own" "${HPCFWI_ROOT:-${SLURM_SUBMIT_DIR:-$own}}" "${HPCFWI_ROOT:-${SLURM_SUBMIT_DIR:-$own}/..}" ''; do
    if [ -f "$root/jobs/environment.sh" ]; then break; fi
done
if [ -z "$root" ]; then
    echo "hpcfwi: no jobs/environment.sh in ${HPCFWI_ROOT:-${SLURM_SUBMIT_DIR:-$own}}:" \
        "submit from the project's root or its jobs/, or export HPCFWI_ROOT=/path/to/the/project" >&2
    exit 2
fi
root=$(CDPATH='' cd -- "$root" && pwd)
. "$root/jobs/environment.sh"
hpcfwi_environment "$root"

case ${1:-} in
    --setup) echo "hpcfwi is set up: $HPCFWI_BIN/hpcfwi" && exit ;;
    '' | -*) config=$root/jobs/circle.toml ;;
    *) config=$1 && shift ;;
esac
# Slurm's copy of a batch script has this name.
case ${BASH_SOURCE[0]} in */slurm_script) set -- --requeue "${HPCFWI_REQUEUE:-10}" "$@" ;; esac
exec "$HPCFWI_BIN/hpcfwi" run "$config" "$@"
