#!/usr/bin/env bash
# The primary dies and its replica is promoted, by hand, as an operator or a failover tool does it. Reads never fail,
# writes wait and go on, and the old primary, when it comes back as a second one, gets no session.
source "$(dirname "$0")/lib.sh"

writes_wait() {
    status | jq -e '.listeners[] | select(.name == "rw") | .waiting + 0 > 0' >/dev/null
}

there_are_two_primaries() {
    status | jq -e '.primaries.main == 2' >/dev/null
}

first_answer() {
    report ".steps[] | select(.name == \"$1\") | .kinds.$2.first_s"
}

# Whether nothing of a step was served by the database NAME: served_none STEP NAME
served_none() {
    report "[.steps[] | select(.name == \"$1\") | .kinds[].databases[\"$2\"] // 0] | add == 0" | grep -qx true
}

stack compose/compose.yaml
wait_until "everything to be up" ready
for service in service-db service-db-replica users-backend-1 users-backend-2; do
    wait_until "$service to be up" is_up "$service"
done
user=postgres://users:${USERS_PASSWORD:-users-demo}

load_start --workers 4 --timeout 60s --write "$user@$(address 6432)/users" --read "$user@$(address 6433)/users" --get "$front/users/{n}"
step "nothing is wrong"
load_wait 100
step "kill service-db"
break_it kill service-db
wait_until "writes to wait" writes_wait
step "promote the replica"
docker exec "$(container service-db-replica)" promote >/dev/null
step "promoted"
load_wait 100
step "the old primary comes back"
mend_it kill service-db
wait_until "two primaries" there_are_two_primaries
load_wait 200
check "the old primary has no session" [ "$(sessions_on service-db)" = 0 ]
step "it rejoins as a standby"
REJOIN=1 compose up -d --no-build --no-deps service-db >/dev/null 2>&1
wait_until "a standby" role_is service-db standby
wait_until "service-db to be up" is_up service-db
load_wait 100
load_end
check "no read failed, of $(report .total.read.sent)" [ "$(report .total.read.failed)" = 0 ]
check "no request failed, of $(report .total.get.sent)" [ "$(report .total.get.failed)" = 0 ]
check "no write failed for good, of $(report .total.write.sent)" [ "$(report .total.write.failed)" = 0 ]
check "the old primary served nothing" served_none "the old primary comes back" service-db
say "from the promotion to the first write: $(first_answer promoted write) s after the command had ended"
finish
