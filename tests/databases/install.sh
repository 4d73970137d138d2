#!/usr/bin/env bash
# Installs the databases that tests start by themselves: tests/databases/install.sh. So far: PostgreSQL, from Debian.
# Exit code 3: this machine cannot have it, and the last line says why.
set -euo pipefail

say() { echo "databases: $*"; }
impossible() { say "$*"; exit 3; }

there() { compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null; }

there && exit 0
[ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || impossible "PostgreSQL is not installed: Debian's package is 'postgresql'"
say "installing Debian's postgresql"
# The package must not start a cluster of its own.
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null \
    || impossible "apt-get cannot install postgresql"
there || impossible "Debian's postgresql brought no server"
