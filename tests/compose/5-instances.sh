#!/usr/bin/env bash
# One instance and three, a cache, time-outs, retries, back-pressure: what a service gains from each, and that too many
# requests, or no database, end in a clear 503 and never in a 500.
source "$(dirname "$0")/lib.sh"

scale() {
    compose up -d --no-build --no-recreate --scale "api=$1" api >"$scratch/scale.log" 2>&1 || { cat "$scratch/scale.log" >&2; return 1; }
    wait_until "$1 instances" upstreams_are_on plain "$1"
    wait_until "$1 instances" upstreams_are_on cached "$1"
}

upstreams_are_on() {
    status | jq -e --arg front "$1" --argjson n "$2" \
        '[.http[] | select(.name == $front) | .groups[].upstreams[]] | length == $n and all(.health == "up")' >/dev/null
}

# per_second N: sixteen clients with N instances.
per_second() {
    load_start --workers 16 --pause 0ms --get "$front/users?limit=5"
    step "instances: $1, clients: 16"
    load_wait 2000
    load_end
    check "no request failed with $1" [ "$(report .total.get.failed)" = 0 ]
    rate=$(report .total.get.per_s)
}

# answers URL: status, x-cache and x-pgsplit-reason.
answer_of() {
    curl -s -o /dev/null -D - "$1" | tr -d '\r' | awk '
        NR == 1 {status = $2} tolower($1) == "x-cache:" {cache = $2} tolower($1) == "x-pgsplit-reason:" {reason = $2}
        END {print status, cache, reason}'
}

answer_is() {
    local got
    got=$(answer_of "$1")
    [ "$got" = "$2" ] || { echo "      $1: $got"; false; }
}

only_200_and_503() {
    report '.statuses | keys - ["200", "503"] == []' | grep -qx true
}

stack compose/compose.yaml tests/compose/stacks/instances.yaml -- service-db service-db-replica pgsplit api
cached=http://$(address 8081)
wait_until "the stack to be ready" ready

per_second 1
one=$rate
scale 3
per_second 3
three=$rate
ratio=$(jq -n "$three / $one * 100 | round / 100")
say "one instance: $one requests a second; three: $three; $ratio times as many"
check "three instances do more than one" jq -en "$ratio > 1" >/dev/null

say "400 clients at once, where 50 requests run and 100 may wait"
"$load" burst --get "$front/users?limit=5" --count 2000 --concurrency 400 --report "$scratch/report.json" || true
check "each got 200 or 503" only_200_and_503
check "some were answered, some were told to come again" \
    [ "$(report '.statuses["200"] // 0')" -gt 0 -a "$(report '.statuses["503"] // 0')" -gt 0 ]
check "afterwards all is as before" answer_is "$front/users/1" "200  "

say "both databases stop"
for n in 1 2 3 4 5; do check "user $n is stored" answer_is "$cached/users/$n" "200 miss "; done
break_it stop service-db &
break_it stop service-db-replica &
wait_for_jobs
for name in service-db service-db-replica; do wait_until "$name to be missed" is_not_up "$name"; done
for n in 1 2 3 4 5; do check "user $n is still there" answer_is "$cached/users/$n" "200 stale "; done
check "what is not stored is a 503" answer_is "$cached/users/6" "503  database"
check "without a cache everything is" answer_is "$front/users/1" "503  database"
load_start --workers 4 --get "$cached/users/1" --get "$cached/users/2"
step "no database, stored answers"
load_wait 200
load_end
check "no stored answer was refused" [ "$(report .total.get.failed)" = 0 ]
mend_it stop service-db
wait_until "service-db to be up" is_up service-db
wait_until "fresh answers" answer_is "$front/users/1" "200  "
check "fresh answers again" answer_is "$cached/users/6" "200 miss "
finish
