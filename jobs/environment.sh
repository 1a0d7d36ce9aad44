# What jobs/fwi.sh, the other job scripts and tests/run.sh share. Sourced, never run:
#
#   . jobs/environment.sh
#   hpcfwi_environment ROOT [EXTRAS]
#
# ROOT is the project's root, EXTRAS names optional dependencies of pyproject.toml ("test", "test,mpi").
# Afterwards HPCFWI_BIN is the folder with the `python` and the `hpcfwi` to use: that of the active virtual
# or conda environment if it has hpcfwi, else ROOT/.venv/bin, made or mended here. Status 3: it could not be
# made, and what to do about it has been said.
#
# HPCFWI_PYTHON names the Python to make .venv with. Needs bash 4.2. Every failure is tested for where it can
# happen, because `set -e` of the caller does not reach into a function called in a condition.

hpcfwi_say() { printf 'hpcfwi: %s\n' "$*" >&2; }

hpcfwi_in_job() { [ -n "${SLURM_JOB_ID:-}${PBS_JOBID:-}" ]; }

# --- which environment ---------------------------------------------------------------------------------

# Asked from /, because `python -c` finds a package in the current folder, installed or not.
hpcfwi_active() {
    local bin python
    [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] || return 1
    # Our own, activated, still has to be kept up to date.
    if [ -n "${VIRTUAL_ENV:-}" ] && [ "$VIRTUAL_ENV" -ef "$1/.venv" ]; then return 1; fi
    # A login shell's profile, which PBS runs before a job, may have set PATH anew and left the other variables alone.
    for python in python "${VIRTUAL_ENV:-}/bin/python" "${CONDA_PREFIX:-}/bin/python"; do
        bin=$(cd / && "$python" -c 'import importlib.util, os, sys
print(os.path.dirname(sys.executable))
sys.exit(importlib.util.find_spec("hpcfwi") is None)' 2>/dev/null) && [ -x "$bin/hpcfwi" ] || continue
        HPCFWI_BIN=$bin
        return 0
    done
    return 1
}

# "3.11" of a Python; `-V` answers before anything is imported, and fails where a shared library is missing.
hpcfwi_python_version() {
    local version
    version=$("$1" -V 2>/dev/null) || return 1
    version=${version#Python }
    printf '%s\n' "${version%.*}"
}

hpcfwi_checksum() { cat -- "$1/pyproject.toml" "$1/hpcfwi/version.py" 2>/dev/null | cksum; }

# The stamp: checksum, Python's version, extras, root, a line each.
hpcfwi_read_stamp() {
    stamp_sum='' stamp_version='' stamp_extras='' stamp_root=''
    [ -f "$1/.venv/hpcfwi.stamp" ] || return 1
    {
        IFS= read -r stamp_sum && IFS= read -r stamp_version && IFS= read -r stamp_extras && IFS= read -r stamp_root
    } <"$1/.venv/hpcfwi.stamp"
}

# The root is compared as a folder, not as a name: a cluster may show the same one under two paths, while a
# copied or moved tree would run the code of the tree it came from.
hpcfwi_fits() {
    local root=$1 extra stamp_sum stamp_version stamp_extras stamp_root
    hpcfwi_read_stamp "$root" && [ "$stamp_root" -ef "$root" ] || return 1
    local IFS=,
    for extra in $2; do
        case ",$stamp_extras," in *",$extra,"*) ;; *) return 1 ;; esac
    done
    [ "$stamp_sum" = "$(hpcfwi_checksum "$root")" ] &&
        [ -x "$root/.venv/bin/hpcfwi" ] &&
        [ "$stamp_version" = "$(hpcfwi_python_version "$root/.venv/bin/python")" ]
}

# --- one at a time -------------------------------------------------------------------------------------

# Held until the (sub)shell ends. Where flock works, the kernel frees it whatever happens, and pip, left behind
# by a killed script, goes on holding it. Some parallel file systems refuse flock: then a link, whose making is
# atomic on all of them, with the owner as its target.
hpcfwi_lock() {
    local status=0
    if type -P flock >/dev/null && { exec 9>>"$1/.venv.lock"; } 2>/dev/null; then
        flock -n 9 2>/dev/null || status=$?
        if [ "$status" = 1 ]; then
            hpcfwi_say "waiting for another start that is setting up .venv"
            status=0
            flock 9 2>/dev/null || status=$?
        fi
        [ "$status" != 0 ] || return 0
        exec 9>&-
    fi
    hpcfwi_lock_by_link "$1/.venv/setup.owner"
}

hpcfwi_lock_by_link() {
    local link=$1 owner='' said='' unreadable=0 since=$SECONDS
    until ln -s "$HOSTNAME:$BASHPID" "$link" 2>/dev/null; do
        if ! owner=$(readlink -- "$link"); then
            # Let go this moment, or no links on this file system.
            unreadable=$((unreadable + 1))
            [ "$unreadable" -lt 20 ] || { hpcfwi_say "cannot lock: no link can be made at $link"; return 3; }
            sleep 0.1
            continue
        fi
        if [ "${owner%:*}" = "$HOSTNAME" ] && hpcfwi_is_dead "${owner##*:}"; then
            hpcfwi_break_lock "$link" "$owner"
            continue
        fi
        [ -n "$said" ] || hpcfwi_say "waiting for another start that is setting up .venv (process ${owner##*:} on ${owner%:*})"
        said=yes
        # Whether a process of another host lives cannot be seen from here.
        if [ $((SECONDS - since)) -gt 1800 ]; then
            hpcfwi_say "process ${owner##*:} on ${owner%:*} has been setting up .venv for half an hour; if it is gone: rm '$link'"
            return 3
        fi
        sleep 1
    done
    hpcfwi_link=$link
    trap 'rm -f -- "$hpcfwi_link"' EXIT
}

# Of several that find it stale one at a time may look again and remove it: the others would remove the lock of
# whoever came next. All of them are on the host of the dead owner, so here a process says enough.
hpcfwi_break_lock() {
    local breaker
    if ln -s "$BASHPID" "$1.break" 2>/dev/null; then
        [ "$(readlink -- "$1")" != "$2" ] || rm -f -- "$1"
        rm -f -- "$1.break"
    elif breaker=$(readlink -- "$1.break") && hpcfwi_is_dead "$breaker"; then
        rm -f -- "$1.break"
    else
        sleep 0.1
    fi
}

# "Operation not permitted" is a living process of somebody else; /proc may hide those.
hpcfwi_is_dead() {
    case $(LC_ALL=C kill -0 "$1" 2>&1) in *'No such process'*) return 0 ;; esac
    return 1
}

# --- what the machine must have ------------------------------------------------------------------------

hpcfwi_compiler() {
    local name
    for name in ${CC:+"${CC%% *}"} gcc clang icx icc nvc cc; do
        ! type -P "$name" >/dev/null || return 0
    done
    return 1
}

# Sets python, python_version, python_has_venv to the first that will do, and pythons_seen to all that run.
# One with venv and ensurepip is preferred: Debian's own lacks them unless python3-venv is installed.
hpcfwi_find_python() {
    local name path probe version has_venv minor
    python='' python_version='' python_has_venv='' pythons_seen=''
    set -- python3 python3.14 python3.13 python3.12 python3.11
    # One that was asked for by name is not silently replaced.
    [ -z "${HPCFWI_PYTHON:-}" ] || set -- "$HPCFWI_PYTHON"
    for name; do
        path=$(type -P "$name") || continue
        # A name may be a shim that only says where versions could be had: only what answers counts.
        probe=$("$path" -I -c 'import importlib.util as u, sys
print("%d.%d.%d" % sys.version_info[:3], bool(u.find_spec("venv") and u.find_spec("ensurepip")))' 2>/dev/null) || continue
        version=${probe% *} has_venv=${probe#* }
        pythons_seen="${pythons_seen:+$pythons_seen, }$version ($path)"
        minor=${version#*.} minor=${minor%%.*}
        [ "${version%%.*}" = 3 ] && [ "$minor" -ge 11 ] || continue
        if [ -z "$python" ] || [ "$has_venv" = True ]; then
            python=$path python_version=3.$minor python_has_venv=$has_venv
        fi
        [ "$has_venv" != True ] || return 0
    done
    [ -n "$python" ]
}

hpcfwi_packager() {
    local ids
    ids=$(. /etc/os-release 2>/dev/null && printf '%s %s' "${ID:-}" "${ID_LIKE:-}") || ids=''
    case " $ids " in
        *debian* | *ubuntu*) echo 'apt-get install' ;;
        *rhel* | *fedora* | *centos*) echo 'dnf install' ;;
        *suse*) echo 'zypper install' ;;
    esac
}

hpcfwi_may_install() {
    [ "$(hpcfwi_packager)" = 'apt-get install' ] && [ "$(id -u)" = 0 ] && type -P apt-get >/dev/null
}

hpcfwi_install() {
    local output
    hpcfwi_say "installing with apt-get: $*"
    # An index that cannot be refreshed may still do.
    output=$(
        exec </dev/null 2>&1
        apt-get update
        DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "$@"
    ) || { hpcfwi_say "apt-get failed: ${output##*$'\n'}"; return 1; }
}

# Sets lacking (what, a line each), packages (the system's names) and modules (those of a cluster).
hpcfwi_lacking() {
    local packager=$1 want_python=$2
    lacking='' packages='' modules=''
    if ! hpcfwi_compiler; then
        lacking+=$'\n  - a C compiler, which Devito needs to build its kernels'
        packages+=' gcc' modules+=' gcc'
        [ "$packager" != 'apt-get install' ] || packages+=' libc6-dev'
    fi
    [ "$want_python" = yes ] || return 0
    if ! hpcfwi_find_python; then
        lacking+=$'\n  - Python 3.11 or newer; found '"${pythons_seen:-none}${HPCFWI_PYTHON:+, looking only at HPCFWI_PYTHON=$HPCFWI_PYTHON}"
        # A Python that was asked for by name is not replaced by one that is installed.
        [ -z "${HPCFWI_PYTHON:-}" ] || return 0
        modules+=' python'
        case $packager in
            # Where python3 is already installed and too old, it stays too old.
            apt-get*) if [ -x /usr/bin/python3 ]; then packages+=' python3.11 python3.11-venv'; else packages+=' python3 python3-venv'; fi ;;
            dnf*) packages+=' python3.12' ;;
            zypper*) packages+=' python312' ;;
        esac
    elif [ "$python_has_venv" != True ]; then
        lacking+=$'\n  - the venv module of Python '"$python_version ($python)"
        modules+=' python'
        case $packager in
            apt-get*) packages+=" python$python_version-venv" ;;
            *) packages+=" python3" ;;
        esac
    fi
}

# Everything that is missing is installed at once or named at once: nobody wants to be sent back twice.
hpcfwi_machine() {
    local want_python=$1 packager lacking packages modules advice=''
    if [ "$want_python" = no ] && hpcfwi_compiler; then return 0; fi
    packager=$(hpcfwi_packager)
    hpcfwi_lacking "$packager" "$want_python"
    [ -n "$lacking" ] || return 0
    if [ -n "$packages" ] && hpcfwi_may_install; then
        # shellcheck disable=SC2086  # a list of words
        hpcfwi_install $packages || :
        hash -r
        hpcfwi_lacking "$packager" "$want_python"
        [ -n "$lacking" ] || return 0
    fi
    if [ -n "$modules" ] && [ -n "${LMOD_CMD:-}${MODULESHOME:-}" ]; then
        advice+=$'\n  module load'"$modules      (\`module avail\` lists the exact names)"
    fi
    if [ -n "$packager" ] && [ -n "$packages" ]; then
        [ "$(id -u)" = 0 ] || packager="sudo $packager"
        advice+=$'\n  '"$packager$packages"
    fi
    case $lacking in
        *'looking only at'*) advice+=$'\n  unset HPCFWI_PYTHON, or let it name a newer Python' ;;
        *Python*) advice+=$'\n  HPCFWI_PYTHON=/path/to/python3, if there is one that is not on the PATH' ;;
    esac
    hpcfwi_say "missing on $HOSTNAME:$lacking${advice:+$'\nGet it with one of'$advice}"
    return 3
}

# --- making and mending --------------------------------------------------------------------------------

# Not only whether it starts: half-made environments have a Python and no pip, or half of one.
hpcfwi_works() {
    [ -x "$1" ] && "$1" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' || return 1
    "$1" -I -m pip --version || { "$1" -I -m ensurepip && "$1" -I -m pip --version; }
}

# pip writes RECORD last: a package without it was cut short, but counts as installed, and cannot be uninstalled.
hpcfwi_forget_cut_short() {
    local info
    for info in "$1"/lib/python3*/site-packages/*.dist-info; do
        if [ -d "$info" ] && [ ! -f "$info/RECORD" ]; then rm -rf -- "$info"; fi
    done
}

# The union of two lists with commas.
hpcfwi_union() {
    local extra all=$1 IFS=,
    for extra in $2; do
        case ",$all," in *",$extra,"*) ;; *) all=${all:+$all,}$extra ;; esac
    done
    printf '%s\n' "$all"
}

# Runs in a subshell: its lock, its trap and what it unsets end with it.
hpcfwi_set_up() {
    local root=$1 extras=$2 venv=$1/.venv log=$1/.venv/setup.log began=$SECONDS works=yes sum retries=''
    local stamp_sum stamp_version stamp_extras stamp_root python python_version python_has_venv pythons_seen
    # What sites set for their own Python would make pip count packages that are not in .venv, or install elsewhere.
    unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX
    export PIP_USER=0

    if [ ! -f "$root/pyproject.toml" ]; then
        hpcfwi_say "$root holds no pyproject.toml to install from: activate the environment that has hpcfwi"
        return 3
    fi
    if ! mkdir -p -- "$venv" 2>/dev/null || [ ! -w "$venv" ]; then
        hpcfwi_say "cannot write to $venv: activate an environment that has hpcfwi, or use a copy of the project that is yours"
        return 3
    fi
    hpcfwi_lock "$root" || return 3
    if hpcfwi_fits "$root" "$extras"; then
        hpcfwi_machine no || return 3
        return 0
    fi
    : >"$log"

    if hpcfwi_read_stamp "$root" && [ ! "$stamp_root" -ef "$root" ]; then works=no; fi
    hpcfwi_works "$venv/bin/python" >>"$log" 2>&1 || works=no
    if [ "$works" = no ] && [ -n "$stamp_root" ] && hpcfwi_in_job; then
        # Complete, but not usable on this node: other jobs may be using it where it is.
        hpcfwi_say "the environment in .venv was made with Python $stamp_version for $stamp_root and does not work on $HOSTNAME:" \
            "load the modules it was made with, or make it anew on a login node with \`bash jobs/fwi.sh --setup\`"
        return 3
    fi
    if [ "$works" = yes ]; then hpcfwi_machine no; else hpcfwi_machine yes; fi || return 3

    if [ "$works" = yes ] && [ -n "$stamp_root" ]; then
        hpcfwi_say "bringing the Python environment in .venv up to date"
        # What was asked for once stays.
        extras=$(hpcfwi_union "$extras" "$stamp_extras")
    else
        hpcfwi_say "setting up the Python environment in .venv (a minute or two, once)"
    fi
    rm -f -- "$venv/hpcfwi.stamp"
    hpcfwi_forget_cut_short "$venv"
    if [ "$works" = no ]; then
        # Emptied, not removed: .venv may be a link to a larger disk, and the log and the lock are in it.
        find "$venv/" -mindepth 1 ! -name setup.log ! -name 'setup.owner*' -delete >>"$log" 2>&1 || :
        "$python" -m venv "$venv" >>"$log" 2>&1 || { hpcfwi_failed "making .venv with $python" "$log"; return 3; }
    fi
    sum=$(hpcfwi_checksum "$root")
    # A node without a way out should say so soon.
    if hpcfwi_in_job; then retries=--retries=1; fi
    if ! (cd -- "$root" && "$venv/bin/python" -I -m pip --disable-pip-version-check --no-input \
        ${retries:+"$retries"} install --editable ".${extras:+[$extras]}") </dev/null >>"$log" 2>&1; then
        if hpcfwi_in_job && grep -qE 'connection broken by|NewConnectionError|ConnectTimeout|ProxyError|name resolution|unreachable' "$log"; then
            hpcfwi_say "pip reaches no package index from $HOSTNAME: make the environment beforehand on a login node with \`bash jobs/fwi.sh --setup\` (log: $log)"
        else
            hpcfwi_failed 'pip install' "$log"
        fi
        return 3
    fi
    # Last, and under its name only when whole: whatever is killed before this line is mended by the next start.
    if ! { printf '%s\n' "$sum" "$(hpcfwi_python_version "$venv/bin/python")" "$extras" "$root" \
        >"$venv/hpcfwi.stamp.new" && mv -f -- "$venv/hpcfwi.stamp.new" "$venv/hpcfwi.stamp"; } 2>>"$log"; then
        hpcfwi_failed "writing $venv/hpcfwi.stamp" "$log"
        return 3
    fi
    hpcfwi_say "the Python environment is ready ($((SECONDS - began)) s)"
}

hpcfwi_failed() {
    hpcfwi_say "$1 failed; the end of $2:"
    tail -n 15 -- "$2" >&2
}

hpcfwi_environment() {
    if hpcfwi_active "$1"; then
        hpcfwi_machine no || return 3
        return 0
    fi
    if hpcfwi_fits "$1" "${2:-}"; then
        hpcfwi_machine no || return 3
    else
        (hpcfwi_set_up "$1" "${2:-}") || return 3
    fi
    # shellcheck disable=SC2034  # for the caller
    HPCFWI_BIN=$1/.venv/bin
    # A module's PYTHONPATH comes before what .venv holds: its numpy would win over ours.
    unset PYTHONPATH PYTHONHOME
}
