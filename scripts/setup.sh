# Sets up .venv in the repository; sourced by demo.sh and test.sh.
#
#   bash scripts/setup.sh [demo|test]   set up and stop
#   bash scripts/setup.sh torch-plan    print how torch would be installed: pip or uv
#
# Needs Python 3.11 or newer, and apt where Python came without venv. Safe to run again: what is there stays.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 GIT_PYTHON_REFRESH=quiet

VENV_PYTHON=".venv/bin/python"

stop() {
    echo "stopped: $*" >&2
    exit 1
}

say() { echo "== $*" >&2; }

find_python() { # the first Python >= 3.11; 3.11 before others because that is what the tests run on
    local name
    for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3 python; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    stop "no Python 3.11 or newer was found; install it (apt-get install python3) or set PYTHON=/path/to/python."
}

install_venv_module() { # Debian and Ubuntu split venv and pip's bootstrap off Python
    local python="$1" package="python3-venv" as_root=""
    "$python" -c 'import sys; sys.exit(sys.prefix != "/usr")' &&
        package="$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    command -v apt-get >/dev/null 2>&1 ||
        stop "this Python has no venv module and there is no apt-get to install it; install $package."
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || stop "this Python has no venv module; as root: apt-get install $package."
        as_root="sudo"
    fi
    say "This Python has no venv module: ${as_root:+$as_root }apt-get install -y $package"
    $as_root apt-get update -qq >&2 || say "apt-get update failed; trying with the lists that are here"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package" >&2 ||
        stop "apt-get could not install $package; install it by hand and run this again."
}

make_venv() {
    if "$VENV_PYTHON" -m pip --version >/dev/null 2>&1; then return; fi
    local python
    python="$(find_python)"
    "$python" -c 'import venv, ensurepip' >/dev/null 2>&1 || install_venv_module "$python"
    say "Making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || stop "python could not make .venv (see above); check the disk and the rights here."
}

torch_requirement() { # which torch is said once, in pyproject.toml
    "$VENV_PYTHON" -c 'import tomllib
requirements = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]
print(next(r for r in requirements if r.startswith("torch>")))'
}

# Plain pip takes the build of torch with CUDA on Linux x86-64: gigabytes that a machine without such a GPU cannot
# use. pip itself says which build it would take here; a CPU build, a GPU, or another platform need no care.
torch_plan() {
    if [ "$(uname -s)-$(uname -m)" != "Linux-x86_64" ]; then
        echo pip
    elif command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; then
        echo pip
    else
        local torch version
        torch="$(torch_requirement)"
        version="$("$VENV_PYTHON" -m pip install --dry-run --no-deps --ignore-installed -qq --report - "$torch" |
            "$VENV_PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["install"][0]["metadata"]["version"])')" ||
            stop "pip found no $torch for this Python (see above); check the connection, or set PYTHON to Python 3.11."
        case "$version" in
        *+cpu) echo pip ;;
        *) echo uv ;;
        esac
    fi
}

install_torch() {
    if "$VENV_PYTHON" -c 'import importlib.metadata as m; m.version("torch")' >/dev/null 2>&1; then return; fi
    local plan torch
    plan="$(torch_plan)"
    torch="$(torch_requirement)"
    if [ "$plan" = pip ]; then
        say "Installing $torch"
        "$VENV_PYTHON" -m pip install -qq "$torch" || stop "pip could not install $torch (see above)."
    else
        # uv knows where PyTorch keeps its CPU builds. The project's own machines never take this branch, so only
        # the decision for it is tested, with stand-ins for pip and nvidia-smi (tests/scripts/test_shell_scripts.py).
        say "Installing $torch, the build without CUDA, with uv"
        "$VENV_PYTHON" -m pip install -qq uv || stop "pip could not install uv (see above)."
        "$VENV_PYTHON" -m uv pip install --python "$VENV_PYTHON" --torch-backend=cpu "$torch" ||
            stop "uv could not install $torch (see above); install torch into .venv by hand and run this again."
    fi
}

install_package() {
    say "Installing mace-bounds and what it needs (some minutes the first time)"
    if [ "$1" = test ]; then
        # Groups of dependencies ([dependency-groups] in pyproject.toml) need pip 25.1.
        "$VENV_PYTHON" -m pip install -qq "pip>=25.1" || stop "pip could not be upgraded to 25.1 or newer (see above)."
        set -- --editable ".[mp,dask,compare,serve,client,mcp,chgnet]" --group dev
    else
        set -- --editable ".[mp]"
    fi
    "$VENV_PYTHON" -m pip install -qq "$@" || stop "pip could not install mace-bounds (see above)."
}

set_up() {
    make_venv
    install_torch
    install_package "$1"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    case "${1:-demo}" in
    demo | test) set_up "${1:-demo}" ;;
    torch-plan) torch_plan ;;
    *) stop "there is no set-up called $1; choose demo, test or torch-plan." ;;
    esac
fi
