#!/usr/bin/env bash
# What HAProxy and nginx are put together for: two databases behind pgsplit, the second a logical replica, and two
# instances of a users service behind its front. One of each is stopped, killed, frozen or cut off, alone and both at
# once, while everything is read from outside. No read may fail.
source "$(dirname "$0")/lib.sh"

faults=(stop kill pause cut)
targets=("service-db" "service-db-replica" "users-backend-1" "users-backend-2"
    "service-db-replica users-backend-1" "service-db users-backend-2")

break_all() {
    local service
    for service; do break_it "$kind" "$service" & done
    wait_for_jobs
}

mend_all() {
    local service
    for service; do mend_it "$kind" "$service" & done
    wait_for_jobs
}

# What failed, of how many, and the longest time without an answer, for each fault (of both databases, of both backends).
failover_table() {
    report '
        def cell(targets): [.steps[] | select(.name as $name | targets | index($name)) | .kinds.get]
            | "\(map(.failed) | add) of \(map(.sent) | add), \(map(.longest_gap_s) | max * 100 | round / 100) s";
        . as $all | ["", "one database", "one backend", "one of each"], ["---", "---", "---", "---"],
        (("stop", "kill", "pause", "cut") as $kind | $all |
            ["docker " + $kind,
             cell([$kind + " service-db", $kind + " service-db-replica"]),
             cell([$kind + " users-backend-1", $kind + " users-backend-2"]),
             cell([$kind + " service-db-replica and users-backend-1", $kind + " service-db and users-backend-2"])])
        | "| " + join(" | ") + " |"' | sed 's/docker cut/network cut/'
}

stack compose/compose.yaml compose/logical.yaml -- service-db service-db-replica pgsplit users-backend-1 users-backend-2
wait_until "everything to be up" ready
for service in service-db service-db-replica users-backend-1 users-backend-2; do
    wait_until "$service to be up" is_up "$service"
done

load_start --workers 8 --get "$front/users?limit=5" --get "$front/users/{n}"
step "nothing is wrong"
load_wait 200

for kind in "${faults[@]}"; do
    for target in "${targets[@]}"; do
        read -ra services <<<"$target"
        step "$kind ${target// / and }"
        break_all "${services[@]}"
        for service in "${services[@]}"; do wait_until "$service to be missed" is_not_up "$service"; done
        load_wait 200
        step "${target// / and } back"
        mend_all "${services[@]}"
        for service in "${services[@]}"; do wait_until "$service to be up" is_up "$service"; done
        load_wait 100
    done
done

load_end
failover_table
echo
check "no read failed, of $(report .total.get.sent)" [ "$(report .total.get.failed)" = 0 ]
for name in users-backend-1 users-backend-2; do
    check "$name answered" [ "$(report ".total.get.upstreams[\"$name\"] // 0")" -gt 0 ]
done
for name in service-db service-db-replica; do
    check "$name was read from" [ "$(report ".total.get.databases[\"$name\"] // 0")" -gt 0 ]
done
finish
