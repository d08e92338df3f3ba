#!/usr/bin/env bash
# nginx with weights 1:2:3 before three FastAPI backends of an eighth, a quarter and a quarter of a core: 20,000 posts,
# 10,000 of them at a time. All are answered, and the weights are kept to the request.
source "$(dirname "$0")/lib.sh"

post() {
    curl -s -o "$scratch/answer" -w '%{http_code}' -H 'Content-Type: application/json' -d "$1" "$front/models"
}

is_answered() {
    [ "$(post "$1")" = "$2" ]
}

is_refused_by_the_backend() {
    is_answered '{"name": "", "parameters": -1}' 422 && jq -e '.detail | length == 2' "$scratch/answer" >/dev/null
}

requests() {
    curl -sf "$admin/metrics" | awk '/^pgsplit_http_upstream_requests_total/ {n += $2} END {print n + 0}'
}

asks_nobody() {
    local before
    before=$(requests)
    [ "$before" -gt 0 ] && [ "$(curl -sf "$front/healthz")" = ok ] && [ "$(requests)" = "$before" ]
}

share() {
    report ".upstreams[\"$1\"] // 0"
}

# share_is NAME N: give or take one, as the 20,000 need not begin or end with a whole turn of six.
share_is() {
    local got
    got=$(share "$1")
    [ "$got" -ge $(($2 - 1)) ] && [ "$got" -le $(($2 + 1)) ]
}

stack compose/compose.yaml tests/compose/stacks/weights.yaml -- pgsplit model-1 model-2 model-3
wait_until "all backends to be up" ready
all_up model-1 model-2 model-3

check "a valid model is taken" is_answered '{"name": "m", "parameters": 7}' 201
check "an invalid one is refused by the backend, in its words" is_refused_by_the_backend
check "the front's own health asks no backend" asks_nobody

say "20,000 posts, 10,000 at a time"
# Straight to the container: the port on this machine is served by a helper of the engine, and it runs out of descriptors
# before pgsplit does.
ip=$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(container pgsplit)")
curl -sf -o /dev/null "http://$ip:8080/healthz" || {
    echo "pgsplit's container cannot be reached at its own address, ${ip:-which it has not}:8080." \
        "This scenario needs an engine on this machine itself, not one in a virtual machine." >&2
    exit 1
}
check "all 20,000 were answered" load_burst --post "http://$ip:8080/models" \
    --body '{"name": "model-{n}", "parameters": {n}}' --count 20000 --concurrency 10000 --timeout 5m
check "a sixth by model-1 ($(share model-1))" share_is model-1 3333
check "a third by model-2 ($(share model-2))" share_is model-2 6667
check "a half by model-3 ($(share model-3))" share_is model-3 10000
check "the front's own health still asks no backend" asks_nobody
finish
