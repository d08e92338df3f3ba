#!/usr/bin/env bash
# What Traefik is chosen for: a service is scaled to four instances, to two, to three, under load. Nobody restarts the
# balancer, no request fails, and new instances take their share.
source "$(dirname "$0")/lib.sh"

# In the step with N instances, N answered, and each at least two thirds of an equal share.
shared_evenly() {
    report_has ".steps[] | select(.name == \"instances: $1\") | .kinds.get.upstreams | [.[]]
        | length == $1 and min * 3 * length > add * 2"
}

started_at() {
    docker inspect --format '{{.State.StartedAt}} {{.RestartCount}}' "$(container pgsplit)"
}

# Thirty requests, one after the other: in the access log each three neighbours went to three instances.
log_shows_round_robin() {
    local i
    for i in {1..30}; do curl -sf -o /dev/null -H "X-Request-Id: turn-$i" "$front/users/$i"; done
    wait_until "the last line" logged '"id":"turn-30"'
    docker logs "$(container pgsplit)" 2>&1 | grep '"event":"request"' \
        | jq -r 'select(.id // "" | startswith("turn-")) | .addr' >"$scratch/turns"
    awk '{turn[NR] = $1} END {if (NR != 30) exit 1; for (i = 3; i <= NR; i++)
        if (turn[i] == turn[i-1] || turn[i] == turn[i-2] || turn[i-1] == turn[i-2]) exit 1}' "$scratch/turns"
}

stack compose/compose.yaml tests/compose/stacks/scaling.yaml -- service-db service-db-replica pgsplit api
wait_until "the stack to be ready" ready
began=$(started_at)

load_start --workers 4 --get "$front/users?limit=5" --get "$front/users/{n}"
step "instances: 1"
load_wait 200
for n in 4 2 3; do
    step "scaling to $n"
    scale api "$n"
    step "instances: $n"
    load_wait 400
done
load_end
none_failed request get
for n in 4 2 3; do check "$n instances share the load evenly" shared_evenly "$n"; done
check "pgsplit was not restarted" [ "$(started_at)" = "$began" ]
check "the access log shows the round robin" log_shows_round_robin
finish
