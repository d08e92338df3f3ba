#!/usr/bin/env bash
# nginx over three stateless backends on one published port: any of them serves any request, they learn who asks for
# which host, and the health of each can be asked for by itself.
source "$(dirname "$0")/lib.sh"

names=(api-1 api-2 api-3)

health_is_of() {
    [ "$(curl -sf -H "Host: $1.example.com" "$front/health" | jq -r .served_by)" = "$1" ]
}

host_arrives() {
    curl -sf -H 'Host: shop.example.com' "$front/whoami" | jq -e '.data.headers.host == ["shop.example.com"]' >/dev/null
}

# From within a container, so that the client's address is known.
address_arrives() {
    docker exec "$(container api-1)" /venv/bin/python -c '
import json, socket, urllib.request
own = socket.gethostbyname(socket.gethostname())
claims = {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
answer = straight.open(urllib.request.Request("http://pgsplit:8080/whoami", headers=claims), timeout=10)
seen = json.load(answer)["data"]["headers"]
assert seen["x-forwarded-for"] == [own], (seen, own)
assert seen["forwarded"] == [f"for={own};host=\"pgsplit:8080\";proto=http"], (seen, own)
'
}

# Of thirty requests in a row each backend has got ten.
takes_turns() {
    local i counts
    counts=$(for i in {1..30}; do curl -sf "$front/whoami?$i" | jq -r .meta.served_by; done | sort | uniq -c | xargs)
    [ "$counts" = "10 api-1 10 api-2 10 api-3" ] || { echo "      $counts"; false; }
}

stack compose/compose.yaml tests/compose/stacks/one-port.yaml -- pgsplit "${names[@]}"
all_up "${names[@]}"

check "only pgsplit has ports outside" [ "$(published)" = pgsplit ]
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
    all_down "$name"
    load_wait 100
    step "$name is back"
    mend_it stop "$name"
    all_up "$name"
    load_wait 100
done
load_end
none_failed request get
for name in "${names[@]}"; do
    check "$name answered" [ "$(report ".total.get.upstreams[\"$name\"] // 0")" -gt 0 ]
done
finish
