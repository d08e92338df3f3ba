# shellcheck shell=bash disable=SC2154  # names that entrypoint sets
# Questions to PRIMARY_HOST.

# Answers a query on PRIMARY_HOST, in its database $1.
ask_peer() {
    psql --no-psqlrc --no-password --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 \
        --dbname="$conninfo dbname=$1" --command="$2"
}

# Waits until PRIMARY_HOST lets the role replicator in, for at most $1 seconds. Fails when it does not.
wait_for_peer() {
    local deadline=$((SECONDS + $1)) pause=1 left answer
    until answer=$(ask_peer postgres 'SELECT 1' 2>&1); do
        answer=${answer#psql: error: }
        # A primary that can refuse a password has been set up: waiting does not help.
        [[ $answer != *'password authentication failed'* ]] \
            || fail "$PRIMARY_HOST refuses the password of replicator;" \
                "REPLICATION_PASSWORD must be what it was at the first start of the primary"
        left=$((deadline - SECONDS))
        if ((left <= 0)); then
            say "${answer%%$'\n'*}"
            return 1
        fi
        ((pause <= left)) || pause=$left
        say "waiting for $PRIMARY_HOST:$PRIMARY_PORT, next try in $pause s, giving up in $left s:" \
            "${answer%%$'\n'*}"
        long sleep "$pause"
        pause=$((pause < 8 ? pause * 2 : 10))
    done
}

need_peer() {
    wait_for_peer "$PRIMARY_WAIT" \
        || fail "no answer from $PRIMARY_HOST:$PRIMARY_PORT in $PRIMARY_WAIT s; is it running," \
            "and in the same network? PRIMARY_HOST and PRIMARY_WAIT can be set"
}
