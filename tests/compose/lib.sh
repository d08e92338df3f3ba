# What the scenarios share: a stack of their own, load on it, faults, and a count of what held. Sourced, not run.
# shellcheck shell=bash
set -euo pipefail
shopt -s inherit_errexit

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scenario=$(basename "$0" .sh)
scratch=$(mktemp -d)
# Several may run at a time, each with its own containers, networks and volumes: the end of the name is a random one.
project=pgsplit-$scenario-${scratch##*.}
project=${project,,}
mine="label=com.docker.compose.project=$project"
load=$(cd "$top" && realpath -m "${CARGO_TARGET_DIR:-target}")/debug/examples/load
# The longest wait for one thing, in seconds.
patience=300
files=()
passed=0
failed=0
finished=
# A trap may find output turned aside, as in `up`; clean_up speaks to these.
exec {stdout}>&1 {stderr}>&2

# Any free ports of this machine.
export RW_PORT=0 RO_PORT=0 HTTP_PORT=0 ADMIN_PORT=0 PROMETHEUS_PORT=0

# shellcheck source-path=SCRIPTDIR source=tool.sh
source "$top/tests/compose/tool.sh"

# Everything that is asked is on this machine, and no answer may be awaited for ever.
curl() {
    command curl --noproxy '*' --max-time 10 "$@"
}

# ---- the stack

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
    # Each signal by way of clean_up, also that of a load tool which does not read any more.
    trap clean_up EXIT
    trap 'exit 130' INT TERM HUP
    trap 'exit 141' PIPE
    say "starting: ${*:-everything}"
    [ -n "${PGSPLIT_IMAGES_ARE_BUILT:-}" ] || "$top/tests/compose/images.sh"
    up "$@"
    admin=http://$(address 8404)
    front=http://$(address 8080)
    wait_until "pgsplit to answer" curl -sf -o /dev/null "$admin/healthz"
}

# Compose tells much; it is shown when it fails.
up() {
    compose up -d --no-build "$@" >"$scratch/up.log" 2>&1 || { cat "$scratch/up.log" >&2; return 1; }
}

# scale SERVICE N, until all N take requests.
scale() {
    up --no-recreate --scale "$1=$2" "$1"
    wait_until "$2 instances" upstreams_are "$2" "$1"
}

# Where a port of pgsplit is published.
address() {
    compose port pgsplit "$1"
}

# Of a service, running or not.
container() {
    docker ps -aq --filter "$mine" --filter "label=com.docker.compose.service=$1"
}

# The services that are reached from outside.
published() {
    docker ps --filter "$mine" --format '{{.Label "com.docker.compose.service"}} {{.Ports}}' \
        | awk '/->/ {print $1}' | sort | xargs
}

# Whether pgsplit's log has a line with this text.
logged() {
    # Read to its end, as who writes into a closed pipe has failed.
    docker logs "$(container pgsplit)" 2>&1 | grep -F "$1" >/dev/null
}

clean_up() {
    local code=$? left
    # The stack goes, whatever fails and whoever interrupts again.
    trap '' INT TERM HUP PIPE
    trap - EXIT
    set +e
    exec >&"$stdout" 2>&"$stderr"
    [ -n "$finished" ] || failed=$((failed + 1))
    [ -z "${LOAD_PID:-}" ] || kill "$LOAD_PID" 2>/dev/null
    # Whoever interrupts knows why.
    if [ $failed != 0 ] && [ $code != 130 ]; then
        {
            echo "---- what pgsplit said last, without requests and sessions:"
            docker logs "$(container pgsplit)" 2>&1 | grep -v '"event":"request"\|"event":"session_end"' | tail -n 40
            docker ps -a --filter "$mine" --format 'table {{.Names}}\t{{.Status}}\t{{.Ports}}'
        } >"$scratch/last" 2>&1
    fi
    # A container that is paused or has no network must be ended all the same. Services of a profile that is off are
    # not there for Compose v2.
    compose --profile metrics --profile grafana kill >/dev/null 2>&1
    compose --profile metrics --profile grafana down --volumes --remove-orphans --timeout 1 >"$scratch/down.log" 2>&1
    left=$(left_behind)
    if [ -n "$left" ]; then
        failed=$((failed + 1))
        { cat "$scratch/down.log"; echo "FAIL  left behind:"; echo "$left"; } >>"$scratch/last"
    fi
    [ ! -e "$scratch/last" ] || cat "$scratch/last" >&2
    rm -rf "$scratch"
    echo
    echo "$scenario: $passed passed, $failed failed"
    [ $code != 0 ] || [ $failed = 0 ] || code=1
    exit $code
}

left_behind() {
    docker ps -a --filter "$mine" --format 'container {{.Names}}'
    docker network ls --filter "$mine" --format 'network {{.Name}}'
    docker volume ls --filter "$mine" --format 'volume {{.Name}}'
}

# ---- what pgsplit sees

status() {
    curl -sf "$admin/api/v1/status"
}

# status_has FILTER [--arg NAME VALUE]...: whether this holds of the status.
status_has() {
    local filter=$1
    shift
    status | jq -e "$@" "$filter" >/dev/null
}

role_is() {
    status_has '.nodes[] | select(.name == $name) | .role == $role' --arg name "$1" --arg role "$2"
}

# Sessions on a node now.
sessions_on() {
    status | jq --arg name "$1" '.nodes[] | select(.name == $name) | .sessions'
}

# upstreams_are N SERVICE: in each group with SERVICE, it has that many addresses, and all take requests.
upstreams_are() {
    status_has '[.http[].groups[] | [.upstreams[] | select(.upstream == $name)] | select(length > 0)]
        | length > 0 and all(length == $n and all(.health == "up"))' --arg name "$2:8080" --argjson n "$1"
}

# The health of a node, or of each address of a service.
health_of() {
    status | jq -r --arg name "$1" '(.nodes[] | select(.name == $name)),
        (.http[].groups[].upstreams[] | select(.upstream == $name + ":8080")) | .health' | sort -u
}

is_up() {
    [ "$(health_of "$1")" = up ]
}

is_not_up() {
    local health
    health=$(health_of "$1") && [ -n "$health" ] && ! grep -qx up <<<"$health"
}

# Until each of these nodes and services is up; all_down: until each is missed.
all_up() {
    local name
    for name; do wait_until "$name to be up" is_up "$name"; done
}

all_down() {
    local name
    for name; do wait_until "$name to be missed" is_not_up "$name"; done
}

ready() {
    curl -sf -o /dev/null "$admin/readyz"
}

# ---- faults: break_it KIND SERVICE..., all at once, and mend_it

break_it() {
    at_once break_one "$@"
}

mend_it() {
    at_once mend_one "$@"
}

at_once() {
    local what=$1 kind=$2 service job jobs=()
    shift 2
    for service; do
        "$what" "$kind" "$service" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job"; done
}

break_one() {
    local id
    id=$(container "$2")
    case $1 in
        stop) docker stop -t 10 "$id" ;;
        kill) docker kill "$id" ;;
        pause) docker pause "$id" ;;
        # Packets to and from it are lost from now on; nobody is told.
        cut) docker network disconnect "${project}_default" "$id" ;;
    esac >/dev/null
}

mend_one() {
    local id
    id=$(container "$2")
    case $1 in
        stop | kill) docker start "$id" ;;
        pause) docker unpause "$id" ;;
        cut) docker network connect --alias "$2" "${project}_default" "$id" ;;
    esac >/dev/null
}

# ---- load

# Starts load in the background, with the arguments of `load run`.
load_start() {
    rm -f "$scratch/report.json"
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

# Ends the load and shows its table. The tool does not end well when anything failed, or when a standby says that it has
# written.
load_end() {
    local pid=${LOAD_PID:-} code=0
    [ -n "$pid" ] || { echo "the load tool has ended before it was told to" >&2; return 1; }
    # Said, as others that were started meanwhile may hold the input open.
    echo end >&"$load_in"
    echo
    cat <&"$load_out"
    exec {load_in}>&- {load_out}<&-
    wait "$pid" || code=$?
    echo
    check "the load tool ended well" [ $code = 0 ]
}

# load_burst ARGUMENT...: of `load burst`; its exit code.
load_burst() {
    rm -f "$scratch/report.json"
    "$load" burst --report "$scratch/report.json" "$@"
}

# A value of the load's report: report '.total.get.failed'
report() {
    jq -r "$1" "$scratch/report.json"
}

# Whether something holds of the report.
report_has() {
    jq -e "$1" "$scratch/report.json" >/dev/null
}

# none_failed WHAT KIND: no request, read or write of all steps.
none_failed() {
    check "no $1 failed, of $(report ".total.$2.sent")" report_has ".total.$2 | .sent > 0 and .failed == 0"
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

# wait_until TEXT COMMAND...: until the command agrees, for as long as patience lasts.
wait_until() {
    local text=$1 until=$((SECONDS + patience))
    shift
    until "$@" 2>/dev/null; do
        if [ $SECONDS -ge $until ]; then
            echo "waited $patience s for $text" >&2
            return 1
        fi
        sleep 0.1
    done
}

# The end of a scenario, all of which has run. clean_up has the last word: "NAME: N passed, N failed".
finish() {
    finished=yes
    exit 0
}
