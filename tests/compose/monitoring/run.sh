#!/bin/bash
# The monitoring of compose/ against a real pgsplit, with real servers behind it and a real Prometheus before it, without
# any container: rules, dashboard and console mean what they say, and a node that dies is an alert.
#
# Usage: run.sh            PGSPLIT=/path/to/pgsplit: which program; default: target/release, else target/debug
# The last line is "monitoring: N passed, N failed". Takes about a minute.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../../.." && pwd)
COMPOSE=$ROOT/compose
# Python and psql have no function as curl has.
export no_proxy='*' NO_PROXY='*' PGCONNECT_TIMEOUT=10

# shellcheck source-path=SCRIPTDIR source=support.sh
. "$HERE/support.sh"
# shellcheck source-path=SCRIPTDIR source=stack.sh
. "$HERE/stack.sh"

require promtool prometheus prometheus prometheus curl curl python3 python3 psql postgresql-client
find_postgres
target=$(cd "$ROOT" && realpath -m "${CARGO_TARGET_DIR:-target}")
for PGSPLIT in "${PGSPLIT:-}" "$target/release/pgsplit" "$target/debug/pgsplit"; do
    [ ! -x "$PGSPLIT" ] || break
done
[ -x "$PGSPLIT" ] || { echo "not found: pgsplit. make build, or PGSPLIT=/path/to/pgsplit" >&2 && exit 1; }

DIR=$(mktemp -d)
chmod 755 "$DIR"
trap finish EXIT
trap 'exit 1' HUP INT TERM PIPE

# result_of QUERY: what Prometheus answers now.
result_of() {
    curl -fs --get "$PROM_URL/api/v1/query" --data-urlencode "query=$1"
}

value_is() { # QUERY: it has an answer now
    [[ $(result_of "$1") == *'"result":[{'* ]]
}

alert_fires() {
    value_is "ALERTS{alertname=\"$1\", alertstate=\"firing\"}"
}

fires() { # NAME: counts whether it comes to fire
    expect "$1 fires" wait_until 60 "$1 to fire" alert_fires "$1"
}

none_fires() { # for five seconds on end, each of which Prometheus has judged anew
    local second
    for second in {1..5}; do
        [[ $(result_of 'ALERTS{alertstate="firing", severity!="info"}') == *'"result":[]'* ]] || return 1
        sleep 1
    done
}

each_alert_is_tested() {
    local alert rules=$COMPOSE/prometheus/alerts.yaml tests=$COMPOSE/prometheus/alerts.test.yaml
    sed -n 's/^ *- alert: //p' "$rules" | {
        code=0
        while read -r alert; do
            grep -q "labels: 'ALERTS{alertname=\"$alert\"" "$tests" || { echo "$alert: no test in which it fires"; code=1; }
            grep -q "alertname=\"$alert\".*exp_samples: \[\]" "$tests" || { echo "$alert: no test in which it is silent"; code=1; }
        done
        return "$code"
    }
}

texts_are_whole() { # the annotations of what fires now
    local alerts
    alerts=$(curl -fs "$PROM_URL/api/v1/alerts") && [[ $alerts == *'"alertname"'* ]] || return 1
    ! grep -o 'error expanding[^"]*' <<<"$alerts"
}

echo "== files"
expect "configuration and rules" promtool check config "$COMPOSE/prometheus/prometheus.yml"
expect "unit tests of the rules" promtool test rules "$COMPOSE/prometheus/alerts.test.yaml"
expect "each alert is tested both ways" each_alert_is_tested
expect "the dashboard is JSON" python3 -m json.tool "$COMPOSE/grafana/dashboards/dashboard.json" /dev/null

echo "== stack: PostgreSQL $("$PG/postgres" -V | awk '{print $3}'), $(prometheus --version 2>&1 | sed -n 's/^\(prometheus, version [^ ]*\).*/\1/p')"
stack_ports
start_services
start_databases
start_pgsplit
start_prometheus
start_load

expect "Prometheus scrapes pgsplit" wait_until 60 "several scrapes" value_is 'count_over_time(up{job="pgsplit"}[1m]) > 5 and up == 1'
expect "no alert fires while all is well" wait_until 60 "silence" none_fires

echo "== a standby dies under load"
db_stop 2 immediate
fires PgsplitNodeDown
fires PgsplitReadsOnPrimary

echo "== an instance of the service dies"
kill "$USERS1_PID"
fires PgsplitUpstreamDown

echo "== the primary as well: clients wait, then are turned away"
db_stop 1 immediate
(sql -p "$RO" -c 'select 1' && sql -p "$RW" -c 'select 1') >/dev/null 2>&1 &
fires PgsplitNoPrimary
fires PgsplitListenerNotReady
fires PgsplitFrontNotReady
fires PgsplitClientsWait
fires PgsplitRequestsWait
fires PgsplitClientsTurnedAway
fires PgsplitRefusesRequests
expect "the texts of all that fires are whole" texts_are_whole

echo "== all back"
db_start 1
db_start 2
start users1 python3 "$HERE/service.py" "$USERS1" users1
expect "the listeners serve again" wait_until 60 "/readyz" curl -fs "$ADMIN_URL/readyz"
curl -s -o /dev/null "$FRONT_URL/fail" || true
expect "no node is down any more" wait_until 60 "all nodes up" value_is 'sum(pgsplit_node_up) == 2'
expect "waits and logins are in the histograms" wait_until 60 "their rates" \
    value_is 'sum(rate(pgsplit_queue_wait_seconds_count[5m])) > 0 and sum(rate(pgsplit_http_queue_wait_seconds_count[5m])) > 0 and sum(rate(pgsplit_login_duration_seconds_count[5m])) > 0'

echo "== every query"
while IFS= read -r line; do
    case $line in
        ok*) PASSED=$((PASSED + 1)) ;;
        FAIL*) FAILED=$((FAILED + 1)) && echo "$line" ;;
        *) echo "$line" ;;
    esac
done < <(python3 "$HERE/queries.py" "$PROM_URL" "$ADMIN_URL" "$ROOT" 2>&1 || echo "FAIL  queries.py ended with an error")

echo "== pgsplit itself dies"
kill -9 "$PGSPLIT_PID"
wait "$PGSPLIT_PID" 2>/dev/null || true
fires PgsplitNotScraped
