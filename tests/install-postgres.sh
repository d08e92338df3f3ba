#!/bin/sh
# Makes sure that a PostgreSQL server with its tools and a C compiler are here, for the tests and the demo.
# Installs what is missing where that needs no question (Debian or Ubuntu, as root); elsewhere says what to
# install and fails. Changes nothing when everything is there.
set -eu

# Debian keeps initdb and pgbench out of PATH, in one directory for each version.
find_program() {
    command -v "$1" && return
    for path in "${PGSPLIT_PG_BIN:-/nonexistent}/$1" /usr/lib/postgresql/*/bin/"$1" /usr/pgsql-*/bin/"$1"; do
        if [ -x "$path" ]; then
            echo "$path"
            return
        fi
    done
    return 1
}

missing() {
    # initdb: the servers. pgbench, psql, pg_receivewal: clients that people use. cc: rustc links with it.
    for program in initdb pg_basebackup pgbench psql pg_receivewal cc; do
        find_program "$program" >/dev/null || printf '%s ' "$program"
    done
}

install_on_debian() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # Debian's server package makes a cluster and starts it, on port 5432 of every start of the machine. Nobody
    # asked for that one, so the setting is turned off for the time of the installation. It comes with
    # postgresql-common, which therefore goes first.
    apt-get install -q -y --no-install-recommends postgresql-common
    setting=/etc/postgresql-common/createcluster.conf
    saved=$(mktemp)
    cp -p "$setting" "$saved"
    trap 'cp -p "$saved" "$setting"; rm -f "$saved"' EXIT
    sed -i '/^[# ]*create_main_cluster/d' "$setting"
    echo 'create_main_cluster = false' >>"$setting"
    apt-get install -q -y --no-install-recommends postgresql postgresql-contrib gcc libc6-dev
}

wanted=$(missing)
[ -n "$wanted" ] || exit 0
echo "not found: $wanted"

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    install_on_debian
    wanted=$(missing)
    if [ -n "$wanted" ]; then
        echo "still not found after the installation: $wanted" >&2
        exit 1
    fi
    exit 0
fi

echo 'install them, then try again:' >&2
if command -v apt-get >/dev/null; then
    echo '  sudo apt-get update' >&2
    echo '  sudo apt-get install -y --no-install-recommends postgresql postgresql-contrib gcc libc6-dev' >&2
elif command -v dnf >/dev/null; then
    echo '  sudo dnf install -y postgresql-server postgresql-contrib gcc' >&2
elif command -v apk >/dev/null; then
    echo '  apk add postgresql postgresql-contrib gcc musl-dev' >&2
else
    echo '  PostgreSQL 14 or newer: the server, its client programs and pgbench; a C compiler called cc' >&2
fi
echo 'a PostgreSQL in an unusual place is found through PGSPLIT_PG_BIN=/its/bin' >&2
exit 1
