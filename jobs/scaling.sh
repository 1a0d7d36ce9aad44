#!/bin/bash
#SBATCH --job-name=hpcfwi-scaling
#SBATCH --output=hpcfwi-scaling-%j.log
#SBATCH --open-mode=append
#SBATCH --no-kill
#
# How a problem scales over node counts: on this machine, on the nodes of an allocation, or as worker jobs.
#
#   bash jobs/scaling.sh                                       the example, jobs/circle.toml, on 1 and 2 processes of one thread
#   bash jobs/scaling.sh CONFIG --site NAME [OPTIONS]          on worker jobs, from a login node
#   sbatch -N8 jobs/scaling.sh CONFIG --site NAME --nodes 1,2,4,8    on parts of one allocation
#
# OPTIONS are those of `hpcfwi scale`: --nodes 1,2,4,8, --weak, --repeat 3, --study-dir DIR ...
# It first sets up what is missing, as jobs/fwi.sh does; see there.
# Run it again to continue a study that was stopped. Status: 0 done, 2 wrong input, 3 failed, 75 stopped early.
set -eu -o pipefail

case ${1:-} in -h | --help) sed -n '7,/^set /{/^#/s/^# \{0,1\}//p}' "$0" && exit ;; esac

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

if [ $# -eq 0 ]; then set -- "$root/jobs/circle.toml" --nodes 1,2; fi
exec "$HPCFWI_BIN/hpcfwi" scale "$@"
