#!/usr/bin/env bash
# The stack as README.md starts it, with Prometheus: small images without a shell, a root file system that nothing is
# written to, health that the program tells itself, and an end that lets sessions end.
source "$(dirname "$0")/lib.sh"

services=(service-db service-db-replica users-backend-1 users-backend-2 pgsplit prometheus)

inspect() {
    docker inspect --format "$2" "$(container "$1")"
}

all_are_healthy() {
    local service
    for service in "${services[@]}"; do [ "$(inspect "$service" '{{.State.Health.Status}}')" = healthy ] || return 1; done
}

# No process in it is root's.
is_not_root() {
    docker top "$(container "$1")" -eo pid,uid | awk 'NR > 1 {n++; root += $2 == 0} END {exit !(n && !root)}'
}

has_no_shell() {
    local code=0
    docker exec "$(container "$1")" sh -c : >/dev/null 2>&1 || code=$?
    # 126 and 127: there is no such program.
    [ $code = 126 ] || [ $code = 127 ]
}

# query QUERY: its first value.
query() {
    curl -sf --get "$prometheus/api/v1/query" --data-urlencode "query=$1" | jq -r '.data.result[0].value[1]'
}

value_is() {
    [ "$(query "$1")" = "$2" ]
}

# A session through pgsplit, from where it is reached without the engine's help.
session() {
    docker exec -i --env PGCONNECT_TIMEOUT=10 "$(container service-db)" \
        psql -XqAt "postgres://users:${USERS_PASSWORD:-users-demo}@pgsplit:6432/users" "$@"
}

# An open session goes on while pgsplit drains, and new ones are refused.
drains() {
    {
        echo "SELECT 'before';"
        wait_until "pgsplit to drain" logged '"event":"draining"'
        session -c "SELECT 'new'" >"$scratch/new" 2>&1 || true
        echo "SELECT 'after';"
    } | session >"$scratch/session" &
    local session=$!
    wait_until "the session" grep -q before "$scratch/session"
    compose stop pgsplit >/dev/null 2>&1
    wait "$session"
    [ "$(xargs <"$scratch/session")" = "before after" ] && grep -q "refused" "$scratch/new" \
        || { cat "$scratch/session" "$scratch/new"; false; }
}

stack compose/compose.yaml -- "${services[@]}"
wait_until "everything to be healthy" all_are_healthy
wait_until "the front to be ready" ready
prometheus=http://$(compose port prometheus 9090)

for service in "${services[@]}"; do
    check "$service is not root" is_not_root "$service"
    check "$service has a root file system that cannot be written to" [ "$(inspect "$service" '{{.HostConfig.ReadonlyRootfs}}')" = true ]
done
for service in pgsplit users-backend-1 users-backend-2; do check "$service has no shell" has_no_shell "$service"; done
size=$(docker image inspect --format '{{.Size}}' pgsplit)
check "the image of pgsplit is small ($((size / 1000000)) MB)" [ "$size" -lt 30000000 ]
check "nobody else is reached from outside" [ "$(published)" = "pgsplit prometheus" ]
check "pgsplit says it is ready" docker exec "$(container pgsplit)" /pgsplit healthcheck --ready

check "Prometheus scrapes pgsplit" wait_until "a scrape" value_is 'up{job="pgsplit"}' 1
check "it sees one primary" wait_until "a primary" value_is 'sum(pgsplit_primaries)' 1
check "it has the rules" [ "$(curl -sf "$prometheus/api/v1/rules" | jq '.data.groups | length')" -gt 0 ]
check "it serves the page about failovers" curl -sf -o /dev/null "$prometheus/consoles/pgsplit.html"

check "SIGTERM lets a session end, and no new one begin" drains
check "pgsplit ended well" [ "$(inspect pgsplit '{{.State.ExitCode}}')" = 0 ]
finish
