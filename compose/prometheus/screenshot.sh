#!/bin/bash
# Takes a picture of a page of Prometheus with a real browser: screenshot.sh URL OUT.png [WIDTH HEIGHT]
#
#   screenshot.sh 'http://127.0.0.1:9090/consoles/pgsplit.html?minutes=2' failover.png
#
# Needs Chromium (Debian: apt-get install --no-install-recommends chromium fonts-dejavu-core).
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
url=$1 out=$2 width=${3:-1280} height=${4:-880}

for browser in chromium chromium-browser google-chrome nowhere; do
    ! command -v "$browser" >/dev/null || break
done
[ "$browser" != nowhere ] || { echo 'not found: chromium. apt-get install --no-install-recommends chromium fonts-dejavu-core' >&2 && exit 1; }

profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT

# Root and containers have no user namespaces for its sandbox; the page is our own. Twice the points: readable text.
timeout 60 "$browser" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
    --user-data-dir="$profile" --no-proxy-server --hide-scrollbars --force-device-scale-factor=2 \
    --window-size="$width,$height" --timeout=15000 --virtual-time-budget=3000 \
    --screenshot="$(realpath "$out")" "$url" >"$profile/log" 2>&1 || { cat "$profile/log" >&2 && exit 1; }
[ -s "$out" ] || { cat "$profile/log" >&2 && exit 1; }
