# A primary with a standby, two HTTP services, pgsplit before them and a Prometheus that scrapes it: all real, all on
# free ports of 127.0.0.1. Sourced by run.sh; needs support.sh, $DIR and $COMPOSE.
# shellcheck shell=bash disable=SC2034 # some of what is set here is for run.sh

stack_ports() {
    read -r DB1 DB2 USERS1 USERS2 RW RO FRONT ADMIN PROM < <(free_ports 9)
    PROM_URL=http://127.0.0.1:$PROM
    ADMIN_URL=http://127.0.0.1:$ADMIN
    FRONT_URL=http://127.0.0.1:$FRONT
}

# The newest PostgreSQL there is.
find_postgres() {
    local bin
    for bin in "${PGSPLIT_PG_BIN:-}" $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV) "$(dirname "$(command -v initdb || echo /nonexistent/initdb)")"; do
        if [ -x "$bin/initdb" ]; then
            PG=$bin
            return
        fi
    done
    echo "not found: initdb. tests/install-postgres.sh installs a PostgreSQL server." >&2
    return 1
}

# db_start N / db_stop N MODE
db_start() {
    local port=DB$1
    as_postgres "$PG/pg_ctl" -D "$DIR/pg/db$1" -l "$DIR/pg/db$1.log" -w -s start \
        -o "-p ${!port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c shared_buffers=16MB -c wal_retrieve_retry_interval=200ms"
}

db_stop() {
    as_postgres "$PG/pg_ctl" -D "$DIR/pg/db$1" -m "$2" -w -s stop
}

sql() {
    psql -X -q -A -t -w -h 127.0.0.1 -U postgres -d postgres "$@"
}

start_databases() {
    mkdir "$DIR/pg"
    [ "$(id -u)" != 0 ] || chown postgres "$DIR/pg"
    as_postgres "$PG/initdb" --username=postgres --auth=trust --encoding=UTF8 --no-locale --no-sync -D "$DIR/pg/db1" >"$DIR/initdb.log"
    CLEANUP+=("db_stop 1 immediate")
    db_start 1
    sql -p "$DB1" -c "create role lb_check login" -c "create table written (at timestamptz default now())"
    as_postgres "$PG/pg_basebackup" -D "$DIR/pg/db2" -d "host=127.0.0.1 port=$DB1 user=postgres" \
        --write-recovery-conf --checkpoint=fast --no-sync
    CLEANUP+=("db_stop 2 immediate")
    db_start 2
}

start_services() {
    start users1 python3 "$HERE/service.py" "$USERS1" users1
    USERS1_PID=$STARTED
    start users2 python3 "$HERE/service.py" "$USERS2" users2
    wait_until 60 "users1" curl -fs "http://127.0.0.1:$USERS1/health"
    wait_until 60 "users2" curl -fs "http://127.0.0.1:$USERS2/health"
}

# Checks often, so that a test sees in seconds what takes longer in real life.
start_pgsplit() {
    cat >"$DIR/pgsplit.yaml" <<YAML
nodes:
  - {name: db1, addr: "127.0.0.1:$DB1"}
  - {name: db2, addr: "127.0.0.1:$DB2"}
check: {user: lb_check, interval: 500ms, fast_interval: 100ms, down_interval: 500ms}
listeners:
  - {name: rw, bind: "127.0.0.1:$RW", target: primary}
  - {name: ro, bind: "127.0.0.1:$RO", target: prefer-standby}
sessions: {queue_timeout: ${QUEUE_TIMEOUT:-4s}}
http:
  bind: "127.0.0.1:$FRONT"
  upstreams: ["127.0.0.1:$USERS1", "127.0.0.1:$USERS2"]
  check: {interval: 500ms, fast_interval: 100ms}
  cache: 1MiB
  listener: ro
  queue_timeout: ${QUEUE_TIMEOUT:-4s}
admin: {bind: "127.0.0.1:$ADMIN"}
log: {format: json}
runtime: {drain_timeout: 1s}
YAML
    start pgsplit "$PGSPLIT" run "$DIR/pgsplit.yaml"
    PGSPLIT_PID=$STARTED
    wait_until 60 "pgsplit to be ready" curl -fs "$ADMIN_URL/readyz"
}

# The shipped configuration and rules; only addresses and times are others.
start_prometheus() {
    mkdir "$DIR/prometheus"
    sed -e "s/pgsplit:8404/127.0.0.1:$ADMIN/" -e "s/127\.0\.0\.1:9090/127.0.0.1:$PROM/" \
        -e 's/\(scrape_interval\|scrape_timeout\|evaluation_interval\): .*/\1: 1s/' \
        "$COMPOSE/prometheus/prometheus.yml" >"$DIR/prometheus/prometheus.yml"
    sed -e "s/^\( *for:\) .*/\1 ${ALERTS_FOR:-2s}/" "$COMPOSE/prometheus/alerts.yaml" >"$DIR/prometheus/alerts.yaml"
    start prometheus prometheus --config.file="$DIR/prometheus/prometheus.yml" --storage.tsdb.path="$DIR/prometheus/data" \
        --web.console.templates="$COMPOSE/prometheus/consoles" --web.listen-address="127.0.0.1:$PROM"
    wait_until 60 "Prometheus to be ready" curl -fs "$PROM_URL/-/ready"
}

# forever PAUSE COMMAND...: what fails is tried again, as a client does.
forever() {
    local pause=$1
    trap 'kill $(jobs -p) 2>/dev/null; exit 0' TERM
    shift
    while :; do
        "$@" &
        wait $! || true
        sleep "$pause" &
        wait $!
    done
}

# A session for each read and for each write, as a service without a pool; and requests.
start_load() {
    echo 'select count(*) from written;' >"$DIR/read.sql"
    echo 'insert into written default values;' >"$DIR/write.sql"
    local bench=("$PG/pgbench" -n -C -c 2 -T 600 -h 127.0.0.1 -U postgres)
    start reads forever 0.2 "${bench[@]}" -p "$RO" -R 25 -f "$DIR/read.sql" postgres
    start writes forever 0.2 "${bench[@]}" -p "$RW" -R 10 -f "$DIR/write.sql" postgres
    start requests forever 0.1 curl -s -o /dev/null "$FRONT_URL/users/[1-6]"
    # A session that stays, so that there is one whenever Prometheus looks.
    start held forever 0.2 psql -X -q -w -h 127.0.0.1 -p "$RO" -U postgres -d postgres -c 'select pg_sleep(600)'
}
