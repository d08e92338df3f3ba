#!/usr/bin/env bash
# nginx over three stateless backends on one published port: any of them serves any request, they learn who asks for
# which host, and the health of each can be asked for by itself.
source "$(dirname "$0")/lib.sh"

names=(api-1 api-2 api-3)

health_is_of() {
    [ "$(curl -sf -H "Host: $1.example.com" "$front/health" | jq -r .served_by)" = "$1" ]
}

host_arrives() {
    [ "$(curl -sf -H 'Host: shop.example.com' "$front/whoami" | jq -r .data.headers.host)" = shop.example.com ]
}

# A client that is a container of its own, so that its address is known.
address_arrives() {
    docker run --rm --network "${project}_default" pgsplit-fastapi /venv/bin/python -c '
import json, socket, urllib.request
own = socket.gethostbyname(socket.gethostname())
request = urllib.request.Request("http://pgsplit:8080/whoami", headers={"X-Forwarded-For": "192.0.2.1"})
seen = json.load(urllib.request.urlopen(request))["data"]["headers"]
assert seen["x-forwarded-for"] == own, (seen, own)
'
}

# Of thirty requests in a row each backend has got ten.
takes_turns() {
    local i
    for i in {1..30}; do curl -sf "$front/whoami?$i" | jq -r .meta.served_by; done | sort | uniq -c | awk '$1 != 10 {exit 1}'
}

ports() {
    docker ps --filter "label=com.docker.compose.project=$project" --format '{{.Ports}}' | grep -c -- '->' || true
}

stack compose/compose.yaml tests/compose/stacks/one-port.yaml -- pgsplit "${names[@]}"
for name in "${names[@]}"; do wait_until "$name to be up" is_up "$name"; done

check "only one container has ports outside" [ "$(ports)" = 1 ]
check "any backend serves any request, in turn" takes_turns
for name in "${names[@]}"; do check "/health of $name comes from it" health_is_of "$name"; done
check "the host arrives" host_arrives
check "the client's address arrives, and not the one it claims" address_arrives

load_start --workers 4 --get "$front/whoami"
step "all three are there"
load_wait 200
for name in "${names[@]}"; do
    step "stop $name"
    break_it stop "$name"
    wait_until "$name to be missed" is_not_up "$name"
    load_wait 100
    step "$name is back"
    mend_it stop "$name"
    wait_until "$name to be up" is_up "$name"
    load_wait 100
done
load_end
check "no request failed, of $(report .total.get.sent)" [ "$(report .total.get.failed)" = 0 ]
for name in "${names[@]}"; do
    check "$name answered" [ "$(report ".total.get.upstreams[\"$name\"] // 0")" -gt 0 ]
done
finish
