#!/usr/bin/env bash
# The stack as README.md starts it, with Prometheus: small images without a shell, a root file system that nothing is
# written to, health that the program tells itself, and an end that lets sessions end.
source "$(dirname "$0")/lib.sh"

export PROMETHEUS_PORT=0

all_are_healthy() {
    local service
    for service in service-db service-db-replica users-backend-1 users-backend-2 pgsplit prometheus; do
        [ "$(docker inspect --format '{{.State.Health.Status}}' "$(container "$service")")" = healthy ] || return 1
    done
}

inspect() {
    docker inspect --format "$2" "$(container "$1")"
}

value() {
    curl -sf --get "$prometheus/api/v1/query" --data-urlencode "query=$1" | jq -r '.data.result[0].value[1]'
}

value_is() {
    [ "$(value "$1")" = "$2" ]
}

published() {
    docker ps --filter "label=com.docker.compose.project=$project" --format '{{.Names}} {{.Ports}}' | grep -e '->' | grep -cv -e pgsplit_1 -e pgsplit-1 -e prometheus || true
}

# An open session goes on while pgsplit drains, and new ones are refused.
drains() {
    local rw
    rw=$(address 6432)
    {
        echo "SELECT 'before';"
        grep -q '"event":"draining"' < <(compose logs -f --no-color pgsplit)
        echo "SELECT 'after';"
    } | psql -XqAt "postgres://users:${USERS_PASSWORD:-users-demo}@$rw/users" >"$scratch/session" &
    local session=$!
    wait_until "the session" grep -q before "$scratch/session"
    compose stop pgsplit >/dev/null 2>&1
    wait "$session" && grep -q after "$scratch/session"
}

stack compose/compose.yaml -- service-db service-db-replica users-backend-1 users-backend-2 pgsplit prometheus
wait_until "everything to be healthy" all_are_healthy
wait_until "the front to be ready" ready
prometheus=http://$(compose port prometheus 9090)

for service in pgsplit users-backend-1; do
    check "$service is not root" [ "$(inspect "$service" '{{.Config.User}}')" = 65532:65532 ]
    check "$service has a root file system that cannot be written to" [ "$(inspect "$service" '{{.HostConfig.ReadonlyRootfs}}')" = true ]
done
size=$(docker image inspect --format '{{.Size}}' pgsplit)
check "the image of pgsplit is small ($((size / 1000000)) MB)" [ "$size" -lt 30000000 ]
check "nobody else is reached from outside" [ "$(published)" = 0 ]
check "pgsplit says it is ready" docker exec "$(container pgsplit)" /pgsplit healthcheck --ready

check "Prometheus scrapes pgsplit" wait_until "a scrape" value_is 'up{job="pgsplit"}' 1
check "it sees one primary" wait_until "a primary" value_is 'sum(pgsplit_primaries)' 1
check "it has the rules" [ "$(curl -sf "$prometheus/api/v1/rules" | jq '.data.groups | length')" -gt 0 ]
check "it serves the page about failovers" curl -sf -o /dev/null "$prometheus/consoles/pgsplit.html"

check "SIGTERM lets a session end" drains
check "pgsplit ended well" [ "$(docker inspect --format '{{.State.ExitCode}}' "$(compose ps -aq pgsplit 2>/dev/null || compose ps -q pgsplit)")" = 0 ]
finish
