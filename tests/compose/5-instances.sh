#!/usr/bin/env bash
# One instance and three, a cache, time-outs, retries, back-pressure: what a service gains from each, and that too many
# requests, or no database, end in a clear 503 and never in a 500.
source "$(dirname "$0")/lib.sh"

# measure N: how many requests a second sixteen clients get answered by N instances, in $rate.
measure() {
    load_start --workers 16 --pause 0ms --get "$front/users?limit=5"
    step "instances: $1, clients: 16"
    load_wait 2000
    load_end
    none_failed "request (instances: $1)" get
    check "of $1 instances, $1 answered" report_has ".total.get.upstreams | length == $1"
    rate=$(report .total.get.per_s)
}

# answer_of URL: status, x-cache and x-pgsplit-reason.
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

stack compose/compose.yaml tests/compose/stacks/instances.yaml -- service-db service-db-replica pgsplit api
cached=http://$(address 8081)
wait_until "the stack to be ready" ready

measure 1
one=$rate
scale api 3
measure 3
three=$rate
ratio=$(jq -n "$three / $one * 100 | round / 100")
say "one instance: $one requests a second; three: $three; $ratio times as many"

say "400 clients at once, where 50 requests run and 100 may wait"
load_burst --get "$front/users?limit=5" --count 2000 --concurrency 400 || true
check "each got 200 or 503" report_has '.statuses | keys - ["200", "503"] == []'
check "some were answered, some were told to come again" report_has '.statuses | .["200"] > 0 and .["503"] > 0'
check "afterwards all is as before" wait_until "an answer" answer_is "$front/users/1" "200  "

say "both databases stop"
for n in 1 2 3 4 5; do check "user $n is stored" answer_is "$cached/users/$n" "200 miss "; done
break_it stop service-db service-db-replica
all_down service-db service-db-replica
check "what is not stored is a 503" wait_until "a 503" answer_is "$cached/users/6" "503  database"
check "without a cache everything is" wait_until "a 503" answer_is "$front/users/1" "503  database"
for n in 1 2 3 4 5; do
    check "user $n is still there" wait_until "a stored answer" answer_is "$cached/users/$n" "200 stale "
done
load_start --workers 4 --get "$cached/users/1" --get "$cached/users/2" --get "$cached/users/3"
step "no database, stored answers"
load_wait 200
load_end
none_failed "request for a stored answer" get
mend_it stop service-db
all_up service-db
check "fresh answers again" wait_until "a fresh answer" answer_is "$front/users/1" "200  "
check "and what was not stored" wait_until "a fresh answer" answer_is "$cached/users/6" "200 miss "
finish
