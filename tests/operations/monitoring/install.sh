#!/usr/bin/env bash
# Unpacks Debian's Prometheus, Alertmanager and Pushgateway into .venv-monitoring/: programs to start by hand. Nothing is
# installed into the system, so that no service starts by itself and no root is needed.
# Exit code 3: this machine cannot have them, and the last line says why.
set -euo pipefail
cd "$(dirname "$0")/../../.."
into=$PWD/.venv-monitoring
packages=(prometheus prometheus-alertmanager prometheus-pushgateway)

say() { echo "monitoring: $*"; }
impossible() { say "$*"; exit 3; }

download() { (cd "$1" && apt-get download -qq "${packages[@]}" 2>/dev/null); }

mkdir -p "$into"
exec 9>"$into/.lock"
flock 9
[ ! -f "$into/.complete" ] || exit 0
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || impossible "Debian's ${packages[*]} are needed"
downloads=$(mktemp -d)
trap 'rm -rf "$downloads"' EXIT
say "downloading Debian's ${packages[*]}"
if ! download "$downloads"; then
    [ "$(id -u)" -eq 0 ] || impossible "apt-get cannot download ${packages[*]}; its lists may be old"
    apt-get -o DPkg::Lock::Timeout=300 update -qq && download "$downloads" \
        || impossible "apt-get cannot download ${packages[*]}"
fi
for package in "$downloads"/*.deb; do
    dpkg-deb --extract "$package" "$into"
done
"$into/usr/bin/promtool" --version >/dev/null 2>&1 || impossible "what was unpacked does not run here"
touch "$into/.complete"
