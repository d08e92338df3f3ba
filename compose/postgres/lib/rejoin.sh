# shellcheck shell=bash disable=SC2154  # names that entrypoint sets
# REJOIN=1: a server whose data has fallen behind another's history finds its way back as a standby.

# One field of this volume's control file.
control() {
    pg_controldata --pgdata="$PGDATA" | sed -n "s/^$1: *//p"
}

rejoin() {
    # Short: when the whole stack starts, the other may well be waiting for this one.
    if ! wait_for_peer 3; then
        say "REJOIN: $PRIMARY_HOST cannot be reached; starting as before"
        return
    fi
    local mine theirs
    mine=$(control 'Database system identifier')
    theirs=$(ask_peer postgres 'SELECT system_identifier FROM pg_control_system()')
    [[ $mine == "$theirs" ]] \
        || fail "REJOIN: $PRIMARY_HOST is not the same cluster as this volume (system identifier $theirs, not $mine);" \
            "correct PRIMARY_HOST, or start with an empty volume and ROLE=replica to copy that server"
    if [[ -e $PGDATA/standby.signal ]]; then
        rejoin_standby
    else
        rejoin_primary
    fi
}

rejoin_primary() {
    local recovering mine theirs
    # The timeline of the file being written: the control file's may still be the one before a promotion.
    IFS='|' read -r recovering theirs < <(ask_peer postgres "SELECT pg_is_in_recovery(),
        CASE WHEN NOT pg_is_in_recovery()
            THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END")
    if [[ $recovering != f ]]; then
        say "REJOIN: $PRIMARY_HOST is a standby, this is the primary"
        return
    fi
    mine=$(own_timeline)
    if ((theirs <= mine)); then
        say "REJOIN: $PRIMARY_HOST is a primary as well, on timeline $theirs, no later than $mine here: it is the" \
            "one that should rejoin"
        return
    fi
    say "REJOIN: $PRIMARY_HOST was promoted (timeline $theirs, here $mine): rewinding to it"
    touch "$torn"
    sync "$volume"
    if long pg_rewind --target-pgdata="$PGDATA" --config-file="$run/postgresql.conf" \
        --source-server="$conninfo dbname=postgres" >&2; then
        # A slot here belongs to a past in which this was the primary; it would keep WAL for nobody.
        rm -rf "$PGDATA"/pg_replslot/*
        touch "$PGDATA/standby.signal"
        sync "$PGDATA"
        rm -f "$torn"
    else
        say "REJOIN: it cannot be rewound: copying $PRIMARY_HOST anew"
        copy_primary
    fi
}

# After a promotion the newest file of history names it, even if no checkpoint was made before a crash.
own_timeline() {
    local checkpoint newest=0 file
    checkpoint=$(control "Latest checkpoint's TimeLineID")
    for file in "$PGDATA"/pg_wal/*.history; do
        [[ -e $file ]] || continue
        file=${file##*/}
        ((16#${file%.history} <= newest)) || newest=$((16#${file%.history}))
    done
    echo $((newest > checkpoint ? newest : checkpoint))
}

# A standby that needs WAL which the other no longer has would wait for it for ever.
rejoin_standby() {
    local needs gone
    needs=$(control 'Minimum recovery ending location')
    [[ $needs != 0/0 ]] || needs=$(control "Latest checkpoint's REDO location")
    # Names of WAL files without their timeline sort like positions. Only a primary can name them.
    gone=$(ask_peer postgres "SELECT CASE WHEN NOT pg_is_in_recovery()
            THEN min(substr(name, 9)) > substr(pg_walfile_name('$needs'), 9) END
        FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}\$'")
    if [[ $gone == t ]]; then
        say "REJOIN: this standby stands at $needs, and $PRIMARY_HOST has no WAL of then: copying it anew"
        copy_primary
    fi
}
