# What the scenarios share: a stack of their own, load on it, faults, and a count of what held. Sourced, not run.
# shellcheck shell=bash
set -euo pipefail
shopt -s inherit_errexit

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scenario=$(basename "$0" .sh)
# Several may run at a time, each with its own containers, networks and volumes.
project=pgsplit-$scenario-$$
scratch=$(mktemp -d)
load=$top/target/debug/examples/load
files=()
passed=0
failed=0

# Any free ports of this machine.
export RW_PORT=0 RO_PORT=0 HTTP_PORT=0 ADMIN_PORT=0

# ---- the stack

if docker compose version >/dev/null 2>&1; then
    compose_tool=(docker compose)
else
    compose_tool=(docker-compose)
fi

compose() {
    "${compose_tool[@]}" --project-name "$project" "${files[@]}" "$@"
}

# stack FILE... -- SERVICE...: builds what is not built yet, and starts these services (none: all).
stack() {
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        files+=(-f "$top/$1")
        shift
    done
    [ $# = 0 ] || shift
    trap 'clean_up' EXIT
    trap 'exit 130' INT TERM
    say "starting: ${*:-everything}"
    [ -n "${PGSPLIT_IMAGES_ARE_BUILT:-}" ] || "$top/tests/compose/images.sh"
    compose up -d --no-build "$@" >"$scratch/up.log" 2>&1 || { cat "$scratch/up.log" >&2; return 1; }
    admin=http://$(address 8404)
    front=http://$(address 8080)
    wait_until "pgsplit to answer" curl -sf -o /dev/null "$admin/healthz"
}

# Where a port of pgsplit is published.
address() {
    compose port pgsplit "$1"
}

container() {
    compose ps -q "$1"
}

clean_up() {
    local code=$?
    trap - EXIT
    [ -z "${LOAD_PID:-}" ] || kill "$LOAD_PID" 2>/dev/null || true
    if [ $code != 0 ] || [ $failed != 0 ]; then
        echo "---- what pgsplit said last, without requests and sessions:" >&2
        compose logs --no-color pgsplit 2>/dev/null | grep -v '"event":"request"\|"event":"session_end"' | tail -n 40 >&2 || true
        compose ps >&2 || true
    fi
    # A container that is paused or has no network must be ended all the same.
    compose kill >/dev/null 2>&1 || true
    compose down --volumes --remove-orphans --timeout 1 >/dev/null 2>&1 || true
    rm -rf "$scratch"
    exit "$code"
}

# ---- what pgsplit sees

status() {
    curl -sf --max-time 5 "$admin/api/v1/status"
}

# node_is NAME HEALTH: up, down …
node_is() {
    status | jq -e --arg name "$1" --arg health "$2" '.nodes[] | select(.name == $name) | .health == $health' >/dev/null
}

role_is() {
    status | jq -e --arg name "$1" --arg role "$2" '.nodes[] | select(.name == $name) | .role == $role' >/dev/null
}

# Sessions on a node now.
sessions_on() {
    status | jq --arg name "$1" '.nodes[] | select(.name == $name) | .sessions'
}

# upstreams_up N SERVICE: that many addresses of it take requests, and no others are known.
upstreams_are() {
    status | jq -e --arg name "$2:8080" --argjson n "$1" \
        '[.http[].groups[].upstreams[] | select(.upstream == $name)] | length == $n and all(.health == "up")' >/dev/null
}

# Whether SERVICE, a node or an upstream, takes new sessions or requests.
is_up() {
    status | jq -e --arg name "$1" '
        ([.nodes[] | select(.name == $name)] + [.http[].groups[].upstreams[] | select(.upstream == $name + ":8080")])
        | length > 0 and all(.health == "up")' >/dev/null
}

is_not_up() {
    status | jq -e --arg name "$1" '
        ([.nodes[] | select(.name == $name)] + [.http[].groups[].upstreams[] | select(.upstream == $name + ":8080")])
        | length > 0 and all(.health != "up")' >/dev/null
}

ready() {
    curl -sf -o /dev/null "$admin/readyz"
}

# ---- faults: break_it KIND SERVICE, and mend_it

break_it() {
    local id
    id=$(container "$2")
    case $1 in
        stop) docker stop --time 10 "$id" ;;
        kill) docker kill "$id" ;;
        pause) docker pause "$id" ;;
        # Packets to and from it are lost from now on; nobody is told.
        cut) docker network disconnect "${project}_default" "$id" ;;
    esac >/dev/null
}

mend_it() {
    local id
    id=$(compose ps -aq "$2" 2>/dev/null || compose ps -q "$2")
    case $1 in
        stop | kill) docker start "$id" ;;
        pause) docker unpause "$id" ;;
        cut) docker network connect --alias "$2" "${project}_default" "$id" ;;
    esac >/dev/null
}

# Waits for what was sent to the background since; fails when any of it did.
wait_for_jobs() {
    local job
    for job in $(jobs -p); do
        [ "$job" = "${LOAD_PID:-}" ] || wait "$job"
    done
}

# ---- load

# Starts load in the background, with the arguments of `load run`.
load_start() {
    # The descriptors of a coprocess go away with it; copies stay.
    coproc LOAD { exec "$load" run --report "$scratch/report.json" "$@"; }
    exec {load_in}>&"${LOAD[1]}" {load_out}<&"${LOAD[0]}"
}

load_say() {
    echo "$1" >&"$load_in"
    IFS= read -r -u "$load_out" answer || { echo "the load tool has ended" >&2; return 1; }
}

# From here on the load counts for this step.
step() {
    load_say "step $1"
    say "$1"
}

# Until so many more answers of every kind were good.
load_wait() {
    load_say "wait $1"
    [ "$answer" = ok ] || check "load goes on ($answer)" false
}

# Ends the load and shows its table; whether anything failed is known from the report.
load_end() {
    local pid=$LOAD_PID
    # Said, as others that were started meanwhile may hold the input open.
    echo end >&"$load_in"
    echo
    cat <&"$load_out"
    exec {load_in}>&- {load_out}<&-
    wait "$pid" && load_code=0 || load_code=$?
    echo
}

# A value of the load's report: report '.total.get.failed'
report() {
    jq -r "$1" "$scratch/report.json"
}

# ---- what held

say() {
    printf '%s  %s\n' "$(date +%T)" "$*"
}

# check TEXT COMMAND...: counts whether the command agrees.
check() {
    local text=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok    $text"
    else
        failed=$((failed + 1))
        echo "FAIL  $text"
    fi
}

# wait_until TEXT COMMAND...: until the command agrees, for at most 90 seconds.
wait_until() {
    local text=$1 until=$((SECONDS + 90))
    shift
    until "$@" 2>/dev/null; do
        if [ $SECONDS -ge $until ]; then
            echo "waited 90 s for $text" >&2
            return 1
        fi
        sleep 0.1
    done
}

# The closing line, and the exit code.
finish() {
    echo
    echo "$scenario: $passed passed, $failed failed"
    [ $failed = 0 ]
}
