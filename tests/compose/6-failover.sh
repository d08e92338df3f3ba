#!/usr/bin/env bash
# The primary dies and its replica is promoted, by hand, as an operator or a failover tool does it. Reads never fail,
# writes wait and go on, and the old primary, when it comes back as a second one, gets no session.
source "$(dirname "$0")/lib.sh"

writes_wait() {
    status_has '.listeners[] | select(.name == "rw") | .waiting > 0'
}

there_are_two_primaries() {
    status_has '.primaries.main == 2'
}

has_sessions() {
    [ "$(sessions_on "$1")" -gt 0 ]
}

first_answer() {
    report ".steps[] | select(.name == \"$1\") | .kinds.$2.first_s"
}

# Whether nothing of a step was served by the database NAME: served_none STEP NAME
served_none() {
    report_has "[.steps[] | select(.name == \"$1\") | .kinds[].databases[\"$2\"] // 0] | length > 0 and add == 0"
}

stack compose/compose.yaml
wait_until "everything to be up" ready
all_up service-db service-db-replica users-backend-1 users-backend-2
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
REJOIN=1 up --no-deps service-db
wait_until "a standby" role_is service-db standby
all_up service-db
check "it is read from" wait_until "sessions on it" has_sessions service-db
check "as a standby" role_is service-db standby
load_wait 100
load_end
none_failed read read
none_failed request get
none_failed write write
check "the old primary served nothing" served_none "the old primary comes back" service-db
say "from the promotion to the first write: $(first_answer promoted write) s after the command had ended"
finish
