# The Python environment. jobs/fwi.sh, jobs/scaling.sh and tests/run.sh source this file and call
# `hpcfwi_environment ROOT [EXTRAS]`, where EXTRAS are optional dependencies of pyproject.toml ("test,docs"). It sets
# HPCFWI_BIN to the folder of `python` and `hpcfwi`: the active environment's if it has hpcfwi, else ROOT/.venv/bin,
# made or updated here. On failure a message says what to do, and the status is 3. Bash ignores `set -e` in most of
# this, so each step tests for failure.

hpcfwi_say() { printf 'hpcfwi: %s\n' "$*" >&2; }
hpcfwi_stop() { hpcfwi_say "$@" && exit 3; }

# Installs packages. Only root on Debian or Ubuntu can do so without a question.
hpcfwi_install() {
    [ "$(id -u)" = 0 ] && type -P apt-get || return
    hpcfwi_say "installing with apt-get: $*"
    apt-get -qq update # if this fails, an older package list may still do
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
} </dev/null >/dev/null

# Sets python. Debian's Python has no ensurepip before python3-venv is installed, and a shim may not run at all.
hpcfwi_find_python() {
    set -- python3 python3.14 python3.13 python3.12 python3.11
    [ -z "${HPCFWI_PYTHON:-}" ] || set -- "$HPCFWI_PYTHON"
    for python; do
        python=$(type -P "$python") &&
            "$python" -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
    done
    python=''
    [ -z "${HPCFWI_PYTHON:-}" ] && type -P uv >/dev/null # uv finds or downloads one
}

# Installs what the machine lacks, or names all of it in one message. With "python" it looks for a Python, too.
hpcfwi_machine() {
    local lacks='' packages=() python3=${HPCFWI_PYTHON:-python3} version
    if [ -z "$(type -P "${CC:-gcc}" gcc clang icx icc nvc cc)" ]; then
        lacks=$'\n  - a C compiler, which builds the kernels; type: module load gcc'
        packages=(gcc libc6-dev)
    fi
    if [ "$1" = python ] && ! hpcfwi_find_python; then
        version=$("$python3" -V 2>/dev/null)
        lacks+=$'\n'"  - Python 3.11 or newer with ensurepip ($python3 is ${version:-not there}); type:"
        lacks+=' module load python, or: export HPCFWI_PYTHON=/path/to/python3'
        # Where python3 is too old, the package python3-venv is for that old one.
        case $version in *' 3.'?.* | *' 3.10.'*) packages+=(python3.11-venv) ;; *) packages+=(python3-venv) ;; esac
    fi
    [ -n "$lacks" ] || return 0
    if [ $# = 1 ] && hpcfwi_install "${packages[@]}"; then hpcfwi_machine "$1" again; return; fi
    hpcfwi_say "$HOSTNAME lacks$lacks"$'\n'"On Debian or Ubuntu, type: sudo apt-get install ${packages[*]}"
    return 3
}

# Holds the lock until the subshell ends. A pip that outlives a killed script goes on holding it.
hpcfwi_lock() {
    local wait='waiting for another start, which is setting up .venv'
    if type -P flock >/dev/null; then
        flock -n 9 2>/dev/null && return
        [ $? != 1 ] || { hpcfwi_say "$wait" && flock 9 && return; }
    fi
    # Some cluster file systems refuse flock, but on all of them only one process can make a folder.
    if ! mkdir -- "$root/.venv.lock.d" 2>/dev/null; then
        hpcfwi_say "$wait; if no other start is running, type: rmdir '$root/.venv.lock.d'"
        until mkdir -- "$root/.venv.lock.d" 2>/dev/null; do sleep 1; done
    fi
    trap 'rmdir -- "$root/.venv.lock.d"' EXIT
}

# Compares the lines of .venv's stamp: checksum and Python's version; extras; root. A copied .venv would run the code of
# the root it comes from. Roots are compared as folders, because a cluster may show one folder under two names.
hpcfwi_fits() {
    local extra made='' version
    { read -r made; IFS= read -r was_extras; IFS= read -r was_root; } 2>/dev/null <"$venv/hpcfwi.stamp"
    all=$was_extras # and the wanted ones
    for extra in ${extras//,/ }; do
        case ",$all," in *",$extra,"*) ;; *) all+=${all:+,}$extra ;; esac
    done
    version=$("$venv/bin/python" -V 2>/dev/null)
    state="$(cat -- "$root/pyproject.toml" "$root/hpcfwi/version.py" 2>/dev/null | cksum) ${version%.*}"
    [ "$was_root" -ef "$root" ] && [ -x "$venv/bin/hpcfwi" ] && [ "$made:$was_extras" = "$state:$all" ]
}

# uv is much faster, but does not know pip's settings, such as a mirror: pip takes over where it fails.
hpcfwi_build() {
    local uv what=.${all:+"[$all]"}
    uv=$(type -P uv || echo false)
    if [ "$1" = anew ]; then # all but the folder itself, which may be a link to a larger disk
        find "$venv/" -mindepth 1 ! -name hpcfwi.stamp ! -name setup.log -delete
        "$uv" venv --seed --allow-existing --python "${python:->=3.11,<3.15}" "$venv" ||
            "${python:?no Python 3.11 or newer; type: export HPCFWI_PYTHON=/path/to/python3}" -m venv "$venv" || return
    fi
    "$uv" pip install --python "$venv/bin/python" --editable "$what" ||
        PIP_USER=0 "$venv/bin/python" -I -m pip --no-input install --editable "$what"
}

# Runs in a subshell, whose end frees the lock. An empty stamp: .venv is half-made. None: you made .venv, and it stays.
hpcfwi_set_up() {
    local job=${SLURM_JOB_ID:-}${PBS_JOBID:-} stamp=$venv/hpcfwi.stamp how=anew python='' before=''
    { cd -- "$root" && [ -f pyproject.toml ] && mkdir -p .venv && exec 9>>.venv.lock; } 2>/dev/null ||
        hpcfwi_stop "cannot write to $root, or it has no pyproject.toml: activate an environment with hpcfwi"
    hpcfwi_lock
    if hpcfwi_fits; then return; fi
    { [ ! -e "$stamp" ] || [ "$was_root" -ef "$root" ]; } &&
        "$venv/bin/python" -I -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && how=update
    if [ $how = anew ]; then
        # A job keeps it: others may be using it on nodes where it works.
        [ -z "$job" ] || [ -z "$was_root" ] ||
            hpcfwi_stop ".venv does not work on $HOSTNAME. Load the modules that it needs, or on a login node type:" \
                'bash jobs/fwi.sh --setup'
        hpcfwi_machine python || exit
    fi
    hpcfwi_say 'setting up the Python environment in .venv (a minute or two)'
    [ $how = anew ] || before=$(cat -- "$stamp" 2>/dev/null) # an update that fails, but is not killed, changes nothing
    if [ $how = anew ] || [ -e "$stamp" ]; then : >"$stamp"; fi
    [ -z "$job" ] || export PIP_RETRIES=1 UV_HTTP_RETRIES=1 # a node without internet says so soon
    (hpcfwi_build $how || { [ -z "$before" ] || echo "$before" >"$stamp"; false; }) </dev/null >"$venv/setup.log" 2>&1 ||
        hpcfwi_stop "setting up .venv failed. The end of $venv/setup.log:"$'\n'"$(tail -n 15 .venv/setup.log)${job:+
If $HOSTNAME has no internet, on a login node type: bash jobs/fwi.sh --setup}"
    hpcfwi_fits # sets state, now that there is a Python
    printf '%s\n' "$state" "$all" "$root" >"$stamp" && hpcfwi_say 'the Python environment is ready'
}

hpcfwi_environment() {
    local root=$1 extras=${2:-} venv=$1/.venv all state was_extras='' was_root=''
    # PBS hands on VIRTUAL_ENV without its PATH. Our own .venv, if active, is still kept up to date.
    for HPCFWI_BIN in "${VIRTUAL_ENV:-$venv}/bin" "${CONDA_PREFIX:-$venv}/bin" "$venv/bin"; do
        if [ -x "$HPCFWI_BIN/hpcfwi" ] && [ ! "$HPCFWI_BIN" -ef "$venv/bin" ]; then break; fi
    done
    if [ "$HPCFWI_BIN" = "$venv/bin" ]; then
        unset PYTHONPATH PYTHONHOME # a module's numpy would win over ours
        hpcfwi_fits || (hpcfwi_set_up) || return 3
    fi
    hpcfwi_machine compiler
}
