#!/bin/sh
# Makes sure that curl and wrk are here, two HTTP clients that people use, for the tests. Installs what is missing
# where that needs no question (Debian or Ubuntu, as root); elsewhere says what to install and fails. Changes
# nothing when everything is there.
set -eu

missing() {
    for program in curl wrk; do
        command -v "$program" >/dev/null || printf '%s ' "$program"
    done
}

wanted=$(missing)
[ -n "$wanted" ] || exit 0
echo "not found: $wanted"

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # Packages are called as their programs, and neither starts anything.
    # shellcheck disable=SC2086
    apt-get install -q -y --no-install-recommends $wanted
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
    echo '  sudo apt-get install -y --no-install-recommends curl wrk' >&2
elif command -v dnf >/dev/null; then
    echo '  sudo dnf install -y curl; wrk from https://github.com/wg/wrk' >&2
elif command -v apk >/dev/null; then
    echo '  apk add curl wrk' >&2
else
    echo '  curl from https://curl.se, wrk from https://github.com/wg/wrk' >&2
fi
exit 1
