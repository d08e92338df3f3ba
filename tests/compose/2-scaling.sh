#!/usr/bin/env bash
# What Traefik is chosen for: a service is scaled to four instances, to two, to three, under load. Nobody restarts the
# balancer, no request fails, and new instances take their share.
source "$(dirname "$0")/lib.sh"

scale() {
    compose up -d --no-build --no-recreate --scale "api=$1" api >"$scratch/scale.log" 2>&1 || { cat "$scratch/scale.log" >&2; return 1; }
}

# Each instance of the step that was last but not counted as settling has at least two thirds of an equal share.
shared_evenly() {
    report ".steps[] | select(.name == \"instances: $1\") | .kinds.get.upstreams | [.[]] | (length == $1) and (min * 3 * length > add * 2)" \
        | grep -qx true
}

started_at() {
    docker inspect --format '{{.State.StartedAt}} {{.RestartCount}}' "$(container pgsplit)"
}

# Thirty requests, one after the other: in the access log each three neighbours went to three instances.
log_shows_round_robin() {
    local i
    for i in {1..30}; do curl -sf -o /dev/null -H "X-Request-Id: turn-$i" "$front/users/$i"; done
    wait_until "the last line" logged turn-30
    compose logs --no-color pgsplit | grep -o '{"ts".*"event":"request".*' | jq -r 'select(.id // "" | startswith("turn-")) | .addr' \
        >"$scratch/turns"
    awk '{turn[NR] = $1} END {if (NR != 30) exit 1; for (i = 3; i <= NR; i++)
        if (turn[i] == turn[i-1] || turn[i] == turn[i-2] || turn[i-1] == turn[i-2]) exit 1}' "$scratch/turns"
}

logged() {
    compose logs --no-color pgsplit | grep -q "\"id\":\"$1\""
}

stack compose/compose.yaml tests/compose/stacks/scaling.yaml -- service-db service-db-replica pgsplit api
wait_until "the stack to be ready" ready
began=$(started_at)

load_start --workers 4 --get "$front/users?limit=5" --get "$front/users/{n}"
step "instances: 1"
load_wait 200
for n in 4 2 3; do
    step "scaling to $n"
    scale "$n"
    wait_until "$n instances" upstreams_are "$n" api
    step "instances: $n"
    load_wait 400
done
load_end
check "no request failed, of $(report .total.get.sent)" [ "$(report .total.get.failed)" = 0 ]
for n in 4 2 3; do check "$n instances share the load evenly" shared_evenly "$n"; done
check "pgsplit was not restarted" [ "$(started_at)" = "$began" ]
check "the access log shows the round robin" log_shows_round_robin
finish
