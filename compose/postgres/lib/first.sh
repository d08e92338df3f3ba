# shellcheck shell=bash disable=SC2154  # names that entrypoint sets
# What each role makes of an empty volume. All is made in $fresh and renamed as the last step, so that a start that
# is killed half-way leaves nothing behind that looks complete.

complete() {
    sync "$fresh"
    # Without the mark, a start that is killed here would find an empty volume, and ROLE=primary would fill it.
    if [[ -e $PGDATA ]]; then
        touch "$torn"
        sync "$volume"
        rm -rf "$PGDATA"
    fi
    mv "$fresh" "$PGDATA"
    rm -f "$torn"
    sync "$volume"
}

first_start_primary() {
    say "empty volume: making a new primary"
    need_secrets USERS_PASSWORD LB_CHECK_PASSWORD
    make_cluster
    sql postgres roles.sql
    sql postgres rewind.sql
    sql users table.sql
    sql users rows.sql
    sql users publications.sql
    stop_private
    complete
}

first_start_replica() {
    say "empty volume: copying $PRIMARY_HOST"
    copy_primary
}

first_start_logical() {
    say "empty volume: making a logical replica of $PRIMARY_HOST"
    need_secrets USERS_PASSWORD LB_CHECK_PASSWORD
    need_peer
    # A slot's name allows less than a host's name.
    local name=${CLUSTER_NAME,,}
    name=${name//[^a-z0-9_]/_}
    drop_slot "$name"
    make_cluster
    sql postgres roles.sql
    sql users table.sql
    sql users subscription.sql --set=subscription="$name" --set=conninfo="$conninfo dbname=users"
    wait_for_rows
    stop_private
    complete
}

# Left on the primary by a first start that was killed, or by a volume that is gone.
drop_slot() {
    ask_peer users "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots
        WHERE slot_name = '$1' AND active" >/dev/null
    ask_peer users "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
        WHERE slot_name = '$1'" >/dev/null
}

# As with the primary itself: at most PRIMARY_WAIT seconds, then the next start begins again.
wait_for_rows() {
    local deadline=$((SECONDS + PRIMARY_WAIT)) pause=1
    until [[ $(ask_private users "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'") == 0 ]]; do
        ((SECONDS < deadline)) \
            || fail "the rows of $PRIMARY_HOST were not copied in $PRIMARY_WAIT s; if there are many, set PRIMARY_WAIT"
        say "copying rows from $PRIMARY_HOST"
        long sleep "$pause"
        pause=$((pause < 8 ? pause * 2 : 10))
    done
}

# Clients and the health check must not see a server that is not complete, so it has its socket in a private place.
make_cluster() {
    private=$(mktemp --directory /tmp/private.XXXXXX)
    initdb --pgdata="$fresh" --username=postgres --auth-local=peer --auth-host=scram-sha-256 --data-checksums \
        --encoding=UTF8 --locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C.UTF-8 >/dev/null
    # A statement that fails would be logged with the password in it.
    pg_ctl start --wait --silent --pgdata="$fresh" --options="-c config_file=$run/postgresql.conf \
        -c listen_addresses='' -c unix_socket_directories=$private -c log_min_error_statement=panic" >&2
}

stop_private() {
    pg_ctl stop --wait --silent --mode=fast --pgdata="$fresh" >&2
    rm -rf "$private"
}

# sql DATABASE FILE [OPTION...]
sql() {
    local database=$1 file=$2
    shift 2
    psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --host="$private" --dbname="$database" "$@" \
        --file="$share/sql/$file" >&2
}

ask_private() {
    psql --no-psqlrc --quiet --tuples-only --no-align --host="$private" --dbname="$1" --command="$2"
}

# Replaces PGDATA, if there is one, by a copy of PRIMARY_HOST that follows it.
copy_primary() {
    need_peer
    # Its settings for following are ours, written at every start: hence no --write-recovery-conf.
    long pg_basebackup --pgdata="$fresh" --dbname="$conninfo" --no-password --wal-method=stream --checkpoint=fast \
        || fail "the base backup from $PRIMARY_HOST failed; it is begun again at the next start"
    touch "$fresh/standby.signal"
    complete
}
