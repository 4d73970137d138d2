#!/usr/bin/env bash
# Installs what tests of the operations need: tests/operations/install.sh NAME...
#   tools    Envoy, kubectl, hadolint, Docker Compose and Kubernetes' schemas, into .venv-operations/
#   engine   Debian's docker.io, mmdebstrap, iptables and iproute2; nothing of it is started
# Exit code 3: this machine cannot have it, and the last line says why.
set -euo pipefail
cd "$(dirname "$0")/../.."
into=$PWD/.venv-operations
pins=tests/operations/tools.txt

say() { echo "operations: $*"; }
impossible() { say "$*"; exit 3; }

tools() {
    local made_from
    made_from=$(sha256sum <"$pins")
    [ "$(cat "$into/.made-from" 2>/dev/null)" != "$made_from" ] || return 0
    say "installing the tools"
    rm -rf "$into"
    python3 -m venv "$into"
    "$into/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$pins" \
        || impossible "pip cannot install $pins"
    echo "$made_from" >"$into/.made-from"
}

engine() {
    local packages=(docker.io mmdebstrap iptables iproute2)
    if [ -x /usr/sbin/dockerd ] && [ -x /usr/bin/docker ] && [ -x /usr/sbin/iptables ] \
        && command -v mmdebstrap >/dev/null && command -v ip >/dev/null; then
        return
    fi
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || impossible "an engine needs root and Debian's ${packages[*]}"
    say "installing Debian's ${packages[*]}"
    hold_services
    apt-get -o DPkg::Lock::Timeout=300 update -qq
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends \
        "${packages[@]}" >/dev/null || impossible "apt-get cannot install ${packages[*]}"
}

# Debian starts a service as it installs it, unless this file says no; the tests start an engine of their own.
hold_services() {
    local policy=/usr/sbin/policy-rc.d
    [ ! -e "$policy" ] || return 0
    trap "rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
}

for name in "$@"; do
    case $name in
        tools | engine) "$name" ;;
        *) say "nothing is called '$name': there are tools and engine" >&2; exit 2 ;;
    esac
done
