# shellcheck shell=bash disable=SC2154  # names that entrypoint sets
# From the environment to checked variables, the password file and postgresql.conf.

# The secret NAME, from NAME or the file that NAME_FILE names; empty when there is neither.
read_secret() {
    local name=$1 file_name=$1_FILE
    local file=${!file_name:-} value=${!name:-}
    if [[ -n $file ]]; then
        [[ -z $value ]] || fail "both $name and $file_name are set; leave one out"
        [[ -r $file ]] || fail "$file_name: cannot read $file; is it mounted, and readable for uid 5432?"
        value=$(<"$file")
    fi
    # A password file has one line for each password, so none can have two lines.
    [[ $value != *$'\n'* ]] || fail "$name has more than one line; choose a password of one line"
    export "$name=$value"
}

need_secrets() {
    local name
    for name in "$@"; do
        [[ -n ${!name} ]] || fail "$name is missing; set it, or ${name}_FILE, for ROLE=$ROLE"
    done
}

# check NAME PATTERN WHAT: the variable must match the whole pattern.
check() {
    local name=$1 pattern=$2 what=$3
    [[ ${!name} =~ ^($pattern)$ ]] || fail "$name=${!name} is not $what"
}

read_settings() {
    ROLE=${ROLE:-primary}
    check ROLE 'primary|replica|logical' 'a role; write primary, replica or logical'
    local other=service-db
    [[ $ROLE != primary ]] || other=service-db-replica
    PRIMARY_HOST=${PRIMARY_HOST:-$other}
    PRIMARY_PORT=${PRIMARY_PORT:-5432}
    PRIMARY_WAIT=${PRIMARY_WAIT:-300}
    REJOIN=${REJOIN:-0}
    CLUSTER_NAME=${CLUSTER_NAME:-$HOSTNAME}
    MAX_CONNECTIONS=${MAX_CONNECTIONS:-100}
    SHARED_BUFFERS=${SHARED_BUFFERS:-64MB}
    WORK_MEM=${WORK_MEM:-4MB}
    MAINTENANCE_WORK_MEM=${MAINTENANCE_WORK_MEM:-32MB}
    WAL_KEEP_SIZE=${WAL_KEEP_SIZE:-1GB}

    check PRIMARY_HOST '[A-Za-z0-9._:-]+' 'the name or address of one host'
    check PRIMARY_PORT '[0-9]{1,5}' 'a port, such as 5432'
    check PRIMARY_WAIT '[0-9]{1,6}' 'a number of seconds, such as 300'
    check REJOIN '0|1' 'a choice; write 1 or 0'
    check CLUSTER_NAME '[A-Za-z0-9._-]{1,63}' 'a name of 1 to 63 letters, digits, ".", "_" and "-"'
    check MAX_CONNECTIONS '[0-9]{1,6}' 'a number, such as 100'
    local name
    for name in SHARED_BUFFERS WORK_MEM MAINTENANCE_WORK_MEM WAL_KEEP_SIZE; do
        check "$name" '[0-9]+(kB|MB|GB)' 'a size, such as 64MB (kB, MB or GB)'
    done

    for name in REPLICATION_PASSWORD USERS_PASSWORD LB_CHECK_PASSWORD; do
        read_secret "$name"
    done
    need_secrets REPLICATION_PASSWORD

    conninfo="host=$PRIMARY_HOST port=$PRIMARY_PORT user=replicator passfile=$run/passfile connect_timeout=3"
    conninfo+=" keepalives_idle=5 keepalives_interval=2 keepalives_count=3"
    # A password that is asked for would be asked of nobody.
    export PGCONNECT_TIMEOUT=3
}

# Holds the volume for as long as any process of this container lives, since two servers on one volume destroy it.
claim_volume() {
    [[ -w $volume ]] || fail "$volume is not writable for uid $(id -u); give the volume to 5432:5432"
    [[ -w $run && -w /tmp ]] \
        || fail "$run and /tmp must be writable for uid $(id -u); with --read-only, mount each as tmpfs"
    exec 9>>"$volume/lock"
    flock --nonblock 9 || fail "another container uses this volume; stop that one, or give this one its own"
    # Left by a server that was killed. The number in it may by now be another process of this container.
    rm -f "$PGDATA/postmaster.pid"
    # What was not completed is begun again.
    rm -rf "$fresh"
}

# Written at every start, so that a changed environment is seen. ALTER SYSTEM still has the last word.
write_configuration() {
    (
        umask 077
        escaped=${REPLICATION_PASSWORD//\\/\\\\}
        printf '*:*:*:replicator:%s\n' "${escaped//:/\\:}" >"$run/passfile"
    )
    cat >"$run/postgresql.conf" <<-END
	include '$share/conf/postgresql.conf'
	cluster_name = '$CLUSTER_NAME'
	max_connections = $MAX_CONNECTIONS
	shared_buffers = $SHARED_BUFFERS
	work_mem = $WORK_MEM
	maintenance_work_mem = $MAINTENANCE_WORK_MEM
	wal_keep_size = $WAL_KEEP_SIZE
	max_slot_wal_keep_size = $WAL_KEEP_SIZE
	primary_conninfo = '$conninfo'
	END
}
