#!/usr/bin/env bash
# Runs the scenarios, each against a stack of containers of its own: run.sh [SCENARIO...], for example run.sh 1-users-module
# Needs a Docker engine and no registry. PGSPLIT_IMAGES_ARE_BUILT=1 takes the images as they are. The last line is
# "compose: N passed, N failed".
set -euo pipefail
cd "$(dirname "$0")"

if ! timeout 20 docker info >/dev/null 2>&1; then
    echo "no Docker engine answers: start one, on Debian: apt-get install docker.io docker-compose" >&2
    exit 1
fi
docker compose version >/dev/null 2>&1 || ../install-programs.sh docker-compose
../install-programs.sh curl jq
[ -n "${PGSPLIT_IMAGES_ARE_BUILT:-}" ] || ./images.sh
export PGSPLIT_IMAGES_ARE_BUILT=1

scenarios=("$@")
[ $# -gt 0 ] || scenarios=([1-9]-*.sh)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# After the scenario, which has heard of it as well and takes its stack down first.
trap 'exit 130' INT TERM HUP
all_passed=0
all_failed=0
closing=()
for scenario in "${scenarios[@]}"; do
    scenario=${scenario%.sh}
    echo
    echo "==== $scenario"
    "./$scenario.sh" 2>&1 | tee -i "$log" || true
    # Without a closing line there was no scenario, or it was killed.
    line=$(grep "^$scenario: [0-9]* passed, [0-9]* failed$" "$log" | tail -n 1) || line="$scenario: 0 passed, 1 failed"
    read -r _ passed _ failed _ <<<"$line"
    all_passed=$((all_passed + passed))
    all_failed=$((all_failed + failed))
    closing+=("$line")
done
echo
printf '%s\n' "${closing[@]}"
echo "compose: $all_passed passed, $all_failed failed"
[ "$all_failed" = 0 ]
