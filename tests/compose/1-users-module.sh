#!/usr/bin/env bash
# What HAProxy and nginx are put together for: two databases behind pgsplit, the second a logical replica, and two
# instances of a users service behind its front. One of each is stopped, killed, frozen or cut off, alone and both at
# once, while everything is read from outside. No read may fail.
source "$(dirname "$0")/lib.sh"

faults=(stop kill pause cut)
targets=("service-db" "service-db-replica" "users-backend-1" "users-backend-2"
    "service-db-replica users-backend-1" "service-db users-backend-2")

# of_step STEP KIND WHAT: who answered then, such as "db-1 db-2".
of_step() {
    report "[.steps[] | select(.name == \"$1\") | .kinds.$2.$3 | keys[]] | join(\" \")"
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
all_up service-db service-db-replica users-backend-1 users-backend-2
ro=postgres://users:${USERS_PASSWORD:-users-demo}@$(address 6433)/users

# Through the service, and straight through the listener, often with a new session.
load_start --workers 8 --fresh-every 20 --get "$front/users?limit=5" --get "$front/users/{n}" --read "$ro"
step "nothing is wrong"
load_wait 200

for kind in "${faults[@]}"; do
    for target in "${targets[@]}"; do
        read -ra services <<<"$target"
        step "$kind ${target// / and }"
        break_it "$kind" "${services[@]}"
        all_down "${services[@]}"
        load_wait 200
        step "${target// / and } back"
        mend_it "$kind" "${services[@]}"
        all_up "${services[@]}"
        load_wait 100
    done
done

load_end
echo
failover_table
echo
none_failed "read through the service" get
none_failed "read through the listener" read
for kind in get read; do
    check "while nothing is wrong, the replica alone is read from ($kind)" \
        [ "$(of_step "nothing is wrong" $kind databases)" = service-db-replica ]
done
check "and both backends answer" [ "$(of_step "nothing is wrong" get upstreams)" = "users-backend-1 users-backend-2" ]
for name in users-backend-1 users-backend-2; do
    check "$name answered" [ "$(report ".total.get.upstreams[\"$name\"] // 0")" -gt 0 ]
done
for name in service-db service-db-replica; do
    check "$name was read from" [ "$(report ".total.get.databases[\"$name\"] // 0")" -gt 0 ]
done
finish
