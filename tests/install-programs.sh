#!/bin/sh
# Makes sure that some of curl, wrk, jq, python3, prometheus, faketime, g++, etcd, patroni, chromium and docker-compose are here for the tests, or
# nginx, libnginx-mod-stream, haproxy, pgbouncer, valgrind and strace for the benchmarks and `make reliability`.
# Usage: install-programs.sh PROGRAM... Installs what is missing where that needs no question (Debian or Ubuntu, as
# root); elsewhere says what to install and fails. Changes nothing when everything is there.
set -eu

programs=$*

# Debian keeps servers where only root's PATH looks.
PATH=$PATH:/usr/sbin:/usr/local/sbin

# Each is the name of the program and of its package, but for what package_of says.
missing() {
    for program in $programs; do
        if [ "$program" = libnginx-mod-stream ]; then
            has_stream
        else
            command -v "$program" >/dev/null
        fi || printf '%s ' "$program"
    done
}

# Whether nginx can pass sessions on: by a module in a file, or compiled in.
has_stream() {
    [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || nginx -V 2>&1 | grep -q -e '--with-stream\( \|$\)'
}

package_of() {
    case $1 in
        etcd) echo etcd-server ;;
        *) echo "$1" ;;
    esac
}

packages() {
    for program in $wanted; do
        printf '%s ' "$(package_of "$program")"
    done
}

install_on_debian() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # Debian's packages of servers start them, now and on every start of the machine. Nobody asked for that: this file,
    # which every package asks, forbids it for the time of the installation.
    policy=/usr/sbin/policy-rc.d
    saved=
    if [ -e "$policy" ]; then
        saved=$(mktemp)
        cp -p "$policy" "$saved"
    fi
    trap 'restore_policy' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    # shellcheck disable=SC2046 # several packages
    apt-get install -q -y --no-install-recommends $(packages)
    for service in $wanted; do
        [ ! -e "/etc/init.d/$service" ] || update-rc.d "$service" disable
    done
}

restore_policy() {
    if [ -n "$saved" ]; then
        cp -p "$saved" "$policy"
        rm -f "$saved"
    else
        rm -f "$policy"
    fi
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
    echo "  sudo apt-get install -y --no-install-recommends $(packages)" >&2
elif command -v dnf >/dev/null; then
    echo "  sudo dnf install -y $wanted" >&2
elif command -v apk >/dev/null; then
    echo "  apk add $wanted" >&2
else
    echo "  $wanted" >&2
fi
for program in $wanted; do
    case $program in
        libnginx-mod-stream) echo '(the stream module of nginx; some packages have it within nginx itself)' ;;
        nginx) echo '(nginx 1.19.5 or newer; packages start it as a service, which nothing here needs)' ;;
        g++) echo '(a C++ compiler: gcc-c++ where RPMs are used)' ;;
        haproxy) echo '(HAProxy 2.4 or newer; packages start it as a service, which nothing here needs)' ;;
        pgbouncer) echo '(PgBouncer 1.18 or newer; packages start it as a service, which nothing here needs)' ;;
        etcd | patroni) echo '(packages start it as a service, which nothing here needs)' ;;
        chromium) echo '(a browser for the tests of the dashboard, which are skipped without: 110 MB to fetch, 360 MB on the disk)' ;;
        prometheus) echo '(packages start Prometheus as a service, which nothing here needs)' ;;
        wrk) echo '(wrk 4; where there is no package: https://github.com/wg/wrk)' ;;
    esac
done >&2
exit 1
