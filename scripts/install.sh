#!/usr/bin/env bash
# Installs this project into a virtual environment: scripts/install.sh DIRECTORY EXTRAS
# The versions are those of constraints.txt. Where Debian's python3-venv is missing, root gets it installed.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
extras=$2
python=${PYTHON:-python3}

say() { echo "install: $*"; }

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "Python 3.11 or newer is needed; '$python' is $("$python" --version 2>&1 || echo missing). Set PYTHON to another." >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "Python's venv module is missing. On Debian: sudo apt-get install python3-venv" >&2
        exit 1
    fi
    say "installing Debian's python3-venv"
    apt-get update -qq
    apt-get install -y -qq python3-venv >/dev/null
fi
if [ ! -x "$venv/bin/python" ]; then
    say "making a virtual environment in $venv"
    "$python" -m venv "$venv"
fi
say "installing quicksilver with the extras $extras (a minute or two the first time)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$extras]"
say "done"
