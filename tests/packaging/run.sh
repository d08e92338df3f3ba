#!/usr/bin/env bash
# Makes the Debian package, installs it in a container with systemd as the first process, and does with it what an
# administrator would. Needs a Docker engine and no registry. PGSPLIT=PATH packages that program instead of the one in the
# image of the stack. The last line is "packaging: N passed, N failed".
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/../.."

if ! timeout 20 docker info >/dev/null 2>&1; then
    echo "no Docker engine answers: start one, on Debian: apt-get install docker.io" >&2
    exit 1
fi

# A builder in a container of its own would not know the base images of this machine.
export BUILDX_BUILDER=default
scratch=$(mktemp -d)
machine=
passed=0
failed=0
finished=
# Questions to the session that stays open.
asked=0
# The longest wait for one thing, in seconds.
patience=120

main() {
    trap clean_up EXIT
    trap 'exit 130' INT TERM HUP
    build
    boot
    it_is_installed_and_does_not_run
    a_wrong_configuration_is_said_and_tried_once
    it_starts_when_its_servers_are_named
    it_is_confined
    it_reloads
    its_verbs_act
    another_process_takes_over
    a_new_package_ends_no_session
    what_cannot_be_upgraded_goes_on
    a_stop_in_the_middle_of_an_upgrade_is_one
    a_drain_takes_its_time
    one_that_hangs_is_restarted
    systemd_holds_the_ports
    an_upgrade_keeps_what_was_configured
    what_is_removed_is_gone
    finished=yes
}

# ---- the machine

build() {
    local context=$scratch/context
    mkdir -p "$context/target/release" "$context/tests"
    compose/base-images.sh
    if [ -n "${PGSPLIT:-}" ]; then
        cp "$PGSPLIT" "$context/target/release/pgsplit"
    else
        say "building the program, unless the stack has it"
        quietly docker build --tag pgsplit -f compose/pgsplit/Dockerfile .
        local id
        id=$(docker create pgsplit)
        docker cp -q "$id:/pgsplit" "$context/target/release/pgsplit" 2>/dev/null \
            || docker cp "$id:/pgsplit" "$context/target/release/pgsplit"
        docker rm "$id" >/dev/null
    fi
    cp -a Cargo.toml Cargo.lock LICENSE* README.md CHANGELOG.md config.yaml docs packaging src "$context"
    cp -a tests/packaging "$context/tests"
    say "building the package and a machine for it"
    quietly docker build --tag pgsplit-packaged -f tests/packaging/Dockerfile "$context"
}

# Shows what a command says when it fails.
quietly() {
    "$@" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; return 1; }
}

boot() {
    # systemd mounts for each service what it may see; and root knows which program a process runs.
    machine=$(docker run -d --cap-add SYS_ADMIN --cap-add SYS_PTRACE --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
        --cgroupns private --tmpfs /run --tmpfs /run/lock --tmpfs /tmp --hostname "pgsplit-packaging-$$" pgsplit-packaged)
    wait_until "systemd to have started" booted
    say "$(on systemctl --version | head -n 1)"
    wait_until "PostgreSQL to answer" as_postgres "select 1"
    as_postgres "create role lb_check login password 'checks'; create role app login password 'app'" >/dev/null
}

booted() {
    on systemctl is-system-running | grep -x 'running\|degraded' >/dev/null
}

on() {
    docker exec -i "$machine" "$@"
}

# A line for a shell of the machine.
sh_on() {
    docker exec -i "$machine" sh -c "$1"
}

as_postgres() {
    docker exec -i -u postgres "$machine" psql -XAtq -c "$1"
}

# By way of pgsplit: client PORT SQL
client() {
    docker exec -i -e PGPASSWORD=app -e PGSSLMODE -e PGCONNECT_TIMEOUT=30 "$machine" \
        psql -XAtq "host=127.0.0.1 port=$1 user=app dbname=postgres" -c "$2"
}

answers() {
    [ "$(client "$1" 'select 42')" = 42 ]
}

# What systemd knows of the service: show PROPERTY
show() {
    on systemctl show pgsplit --value -p "$1"
}

is() {
    [ "$(show "$1")" = "$2" ]
}

journal_has() {
    on journalctl -u pgsplit --no-pager -o cat | grep -F -- "$1" >/dev/null
}

# Settings beside those of the unit: drop_in LINE...
drop_in() {
    sh_on 'mkdir -p /etc/systemd/system/pgsplit.service.d'
    printf '%s\n' '[Service]' "$@" | sh_on 'cat >/etc/systemd/system/pgsplit.service.d/test.conf'
    on systemctl daemon-reload
}

clean_up() {
    local code=$?
    trap '' INT TERM HUP
    trap - EXIT
    set +e
    [ -n "$finished" ] || failed=$((failed + 1))
    if [ -n "$machine" ]; then
        if [ $failed != 0 ] && [ $code != 130 ]; then
            echo "---- what systemd and pgsplit said last:" >&2
            on systemctl status --no-pager --full pgsplit >&2
            on journalctl --no-pager -n 60 -o short-iso >&2
        fi
        docker rm -f -v "$machine" >/dev/null
    fi
    rm -rf "$scratch"
    echo
    echo "packaging: $passed passed, $failed failed"
    [ $code != 0 ] || [ $failed = 0 ] || code=1
    exit $code
}

# ---- what an administrator does

it_is_installed_and_does_not_run() {
    say "installing"
    sh_on 'apt-get install -y /packages/pgsplit_0*.deb' >"$scratch/apt" 2>&1 || { cat "$scratch/apt" >&2; return 1; }
    check "the package says what to do next" grep -q 'name your servers in /etc/pgsplit/config.yaml' "$scratch/apt"
    check "the program is there" on pgsplit --version
    check "it does not run yet" is ActiveState inactive
    check "nor at the next start of the machine" is UnitFileState disabled
    check "it has a user of its own" on id pgsplit
    check "only that one reads its configuration" \
        [ "$(on stat -c '%U %G %a' /etc/pgsplit/config.yaml)" = "root pgsplit 640" ]
    local file
    for file in /usr/share/man/man1/{pgsplit,pgsplit-run}.1.gz /usr/share/bash-completion/completions/pgsplit \
        /usr/share/zsh/vendor-completions/_pgsplit /usr/share/fish/vendor_completions.d/pgsplit.fish \
        /usr/share/doc/pgsplit/examples/config.yaml; do
        check "there is $file" sh_on "dpkg -S $file && test -s $file"
    done
    check "the unit is one that systemd understands in full" nothing_said on systemd-analyze verify --man=no pgsplit.service
    check "and so is that of the sockets" nothing_said sh_on \
        'cp /usr/share/doc/pgsplit/examples/pgsplit.socket /tmp && systemd-analyze verify --man=no /tmp/pgsplit.socket'
}

nothing_said() {
    local said
    said=$("$@" 2>&1) && [ -z "$said" ] || { echo "$said"; return 1; }
}

a_wrong_configuration_is_said_and_tried_once() {
    say "starting without servers"
    check "a start fails" not on systemctl start pgsplit
    check "for good" is Result exit-code
    check "with the code for a wrong configuration" is ExecMainStatus 78
    check "which is not tried again" is NRestarts 0
    check "and the journal says what is wrong" \
        journal_has '/etc/pgsplit/config.yaml:1:1  nodes: there are none: write at least one'
}

not() {
    ! "$@" >/dev/null 2>&1
}

it_starts_when_its_servers_are_named() {
    say "naming the server, in the file as it is shipped"
    sh_on 'umask 027; printf checks >/etc/pgsplit/check_password; chgrp pgsplit /etc/pgsplit/check_password'
    # Each part that is commented out; and of the servers only one.
    sh_on 'sed -i -e "/db2.example/d" -e "s/db1.example.com/127.0.0.1/" -e "s/^#\([a-z]\|  \)/\1/" /etc/pgsplit/config.yaml'
    check "the file is well" on pgsplit check /etc/pgsplit/config.yaml
    check "it starts" on systemctl enable --now pgsplit
    check "clients are served" answers 6432
    check "systemd shows how it is" is StatusText 'Writes: 127.0.0.1. Reads: 127.0.0.1, the primary. 0 sessions'
    check "nothing is worth a warning" not journal_has '"level":"warn"'
    on systemctl status --no-pager pgsplit | head -n 12
}

it_is_confined() {
    local metrics
    check "it runs as its user" [ "$(on ps -o user= -p "$(show MainPID)")" = pgsplit ]
    metrics=$(on curl -s http://127.0.0.1:8404/metrics)
    check "and still knows its own figures" grep -q '^process_start_time_seconds [1-9]' <<<"$metrics"
    on systemd-analyze security --no-pager pgsplit | tail -n 1
    check "systemd finds nothing worse than medium in that" \
        on systemd-analyze security --no-pager --threshold=25 pgsplit
}

it_reloads() {
    say "reloading"
    local before
    before=$(show MainPID)
    check "a reload comes to an end" on timeout 20 systemctl reload pgsplit
    check "in the same process" is MainPID "$before"
    check "which is active" is ActiveState active
}

# Whether a verb's answer has a text: says TEXT VERB...
says() {
    local text=$1
    shift
    on pgsplit "$@" 2>&1 | grep -F -- "$text" >/dev/null
}

its_verbs_act() {
    say "asking and telling it, by the command line"
    # Whose session it is can be read without TLS alone.
    PGSSLMODE=disable client 6432 "select pg_sleep(60)" >"$scratch/slept" 2>&1 &
    local session=$!
    wait_until "the session to be there" sessions_are 1
    check "status" says 'Writes: 127.0.0.1.' status
    check "status for programs" says '"name": "rw"' status --json
    check "events" says started events
    check "sessions" says app sessions
    check "drain" says drain drain 127.0.0.1
    check "and the status shows it" says '127.0.0.1 in drain' status
    check "ready" on pgsplit ready 127.0.0.1 --wait
    check "weight" says 50 weight 127.0.0.1 50
    check "weight as in the file" on pgsplit weight 127.0.0.1 default
    check "pause" says paused pause ro
    check "resume" on pgsplit resume ro
    check "config show" says 'user: lb_check' config show
    check "and no secret" not says checks config show
    check "config diff finds nothing" on pgsplit config diff
    sh_on 'sed "s/^nodes:/sessions: {queue_size: 7}\nnodes:/" /etc/pgsplit/config.yaml >/tmp/other.yaml; cp /etc/pgsplit/check_password /tmp'
    check "and what is different" says queue_size config diff /tmp/other.yaml
    check "config explain" says 'check.rise' config explain check.rise
    check "config schema" says '$schema' config schema
    check "reload" on pgsplit reload
    check "healthcheck" on pgsplit healthcheck --ready
    check "init" says 'nodes:' init --from-url postgres://app@127.0.0.1/postgres -o -
    check "kill" says 1 kill --user app --yes
    wait "$session" || true
    check "and the client is told" grep -q "administrator's command" "$scratch/slept"
    check "a word that is none" not on pgsplit drian 127.0.0.1
}

another_process_takes_over() {
    say "upgrading in place with an open session"
    local before after restarts
    before=$(show MainPID)
    restarts=$(show NRestarts)
    client 6432 "select pg_sleep(10), 'done'" >"$scratch/slept" &
    local session=$!
    wait_until "the session to be there" sessions_are 1
    check "it is told to" on systemctl kill -s USR2 --kill-whom=main pgsplit
    wait_until "another process to be the main one" not is MainPID "$before"
    after=$(show MainPID)
    wait_until "the old one to leave" not on test -e "/proc/$before"
    check "the service is active" is ActiveState active
    check "the session is there" sessions_are 1
    check "clients are served" answers 6432
    check "a reload comes to an end" on timeout 20 systemctl reload pgsplit
    check "so does the session" wait "$session"
    check "with its answer" [ "$(cat "$scratch/slept")" = '|done' ]
    check "nobody has restarted it" [ "$(show NRestarts) $(show MainPID)" = "$restarts $after" ]
    check "systemd heard nobody that it does not listen to" not journal_of_systemd_has "reception only permitted"
    check "it watches a child of its own" not journal_of_systemd_has "is not our child"
    on kill -KILL "$after"
    wait_until "systemd to start it again when it dies" is NRestarts $((restarts + 1))
    wait_until "it to be ready" is ActiveState active
    check "clients are served then" answers 6432
}

a_new_package_ends_no_session() {
    say "installing a newer package, with another unit, while a session is in a transaction"
    local before since restarts
    before=$(show MainPID)
    since=$(show ActiveEnterTimestampMonotonic)
    restarts=$(show NRestarts)
    repack 1.0.0-1 "sed -i -e 's/^Description=.*/& (new)/' -e 's/^WatchdogSec=.*/WatchdogSec=40s/' usr/lib/systemd/system/*"
    open_session
    check "it can be installed" install_package 1.0.0-1
    check "and says on one line what happened" [ "$(grep -c '^pgsplit: ' "$scratch/dpkg")" = 1 ]
    check "which is an upgrade in place" \
        said_by_dpkg 'upgraded in place: pgsplit .* runs as process [0-9]*, after .* s, 1 session went over; the unit is another one'
    check "the main process is another one" not is MainPID "$before"
    wait_until "the old one to leave" not on test -e "/proc/$before"
    check "of the file that the package brought" runs_what_is_installed
    check "the service is active" is ActiveState active
    check "and has been all the time" is ActiveEnterTimestampMonotonic "$since"
    check "nobody has restarted it" is NRestarts "$restarts"
    check "systemd goes by the new unit" is Description 'Load balancer for PostgreSQL (new)'
    check "and by nothing older" is NeedDaemonReload no
    check "the session is in its transaction, with its table" session_is_as_it_was
    check "clients are served" answers 6432
    close_session
    check "systemd heard nobody that it does not listen to" not journal_of_systemd_has "reception only permitted"
}

what_cannot_be_upgraded_goes_on() {
    local before after
    before=$(show MainPID)
    open_session

    say "installing a newer package while the configuration has a fault, with which a restart would be the end"
    sh_on 'echo "nonsense: 1" >>/etc/pgsplit/config.yaml'
    repack 1.0.1-1
    check "it can be installed" install_package 1.0.1-1
    check "and says what is wrong, and what to do" \
        said_by_dpkg "NOT UPGRADED: process $before, of the old version, goes on with all sessions: unix:[^ ]* answered 500, the new process refused: .*unknown key .nonsense.* systemctl restart pgsplit"
    it_goes_on "$before"
    check "so does the journal" journal_has upgrade_failed
    sh_on 'sed -i /^nonsense/d /etc/pgsplit/config.yaml'
    check "mended, it is upgraded by hand" on pgsplit upgrade
    after=$(show MainPID)
    check "to what was installed" runs_what_is_installed
    check "with the session" session_is_as_it_was

    say "installing a package with half a program"
    repack 1.0.2-1 'head -c 100000 usr/bin/pgsplit >half && mv half usr/bin/pgsplit && chmod 755 usr/bin/pgsplit'
    check "it can be installed" install_package 1.0.2-1
    check "and says that the old one goes on" said_by_dpkg "NOT UPGRADED: process $after, of the old version, goes on"
    it_goes_on "$after"

    say "installing a newer package where the administrator wants services left alone"
    sh_on 'printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d'
    repack 1.0.3-1
    check "it can be installed" install_package 1.0.3-1
    check "and says that" said_by_dpkg "process $after is left as it is, .*policy-rc.d"
    it_goes_on "$after"
    on rm /usr/sbin/policy-rc.d

    say "installing one that is well"
    repack 1.0.4-1
    check "it can be installed" install_package 1.0.4-1
    check "and is what runs" runs_what_is_installed
    check "with the session" session_is_as_it_was
    close_session

    say "installing a newer package while it does not run"
    on systemctl stop pgsplit
    repack 1.0.5-1
    check "it can be installed" install_package 1.0.5-1
    check "nothing is said" not grep -q '^pgsplit: ' "$scratch/dpkg"
    check "it does not run" is ActiveState inactive
    on systemctl start pgsplit
}

# Nothing has happened to who was the main process: it_goes_on PID
it_goes_on() {
    check "the main process is the same" is MainPID "$1"
    check "alone" [ "$(on pgrep -u pgsplit)" = "$1" ]
    check "the service is active" is ActiveState active
    check "the session is in its transaction" session_is_as_it_was
    check "clients are served" answers 6432
}

a_stop_in_the_middle_of_an_upgrade_is_one() {
    local delay new
    # Until the server answers a check, or for 5 s, a new process is not ready.
    for delay in 0s 4s; do
        say "stopping while a new process gets ready, with a drain_delay of $delay"
        sh_on "echo 'runtime: {drain_delay: $delay}' >>/etc/pgsplit/config.yaml"
        on systemctl restart pgsplit
        freeze_server STOP
        on systemctl kill -s USR2 --kill-whom=main pgsplit
        wait_until "a new process that heeds signals" a_child_heeds_signals
        check "it stops in its time" on timeout 15 systemctl stop pgsplit
        freeze_server CONT
        it_is_stopped
        on systemctl start pgsplit

        say "stopping right after an upgrade, with a session"
        client 6432 "select pg_sleep(6), 'done'" >"$scratch/slept" 2>&1 &
        local session=$!
        wait_until "the session to be there" sessions_are 1
        check "it is upgraded" on pgsplit upgrade
        check "it stops in its time" on timeout 30 systemctl stop pgsplit
        wait "$session" || true
        check "the session came to its end" [ "$(cat "$scratch/slept")" = '|done' ]
        it_is_stopped
        sh_on 'sed -i /^runtime:/d /etc/pgsplit/config.yaml'
        on systemctl start pgsplit
    done

    say "stopping in the middle of an upgrade, at whatever moment that is"
    local wait
    for wait in 0 0.02 0.04 0.06 0.08 0.1 0.12 0.15 0.2; do
        client 6432 "select pg_sleep(3), 'done'" >"$scratch/slept" 2>&1 &
        session=$!
        wait_until "the session to be there" sessions_are 1
        sh_on "systemctl kill -s USR2 --kill-whom=main pgsplit; sleep $wait; exec timeout 30 systemctl stop pgsplit" \
            || check "it stops in its time, told $wait s after the upgrade" false
        wait "$session" || true
        check "the session came to its end, $wait s after the upgrade" [ "$(cat "$scratch/slept")" = '|done' ]
        it_is_stopped
        on systemctl start pgsplit
    done
    check "systemd heard nobody that it does not listen to" not journal_of_systemd_has "reception only permitted"
}

it_is_stopped() {
    check "well" [ "$(show ActiveState) $(show Result)" = "inactive success" ]
    check "and no process is left" nothing_runs
}

# Sends a signal to PostgreSQL's first process, which takes connections.
freeze_server() {
    sh_on "kill -s $1 \$(head -n 1 /var/lib/postgresql/*/main/postmaster.pid)"
}

# Whether there is a process beside the main one, started by way of another, that does not simply end when it is sent SIGTERM,
# the 15th.
a_child_heeds_signals() {
    local child caught
    child=$(on pgrep -P "$(on pgrep -P "$(show MainPID)")")
    caught=$(on sed -n 's/^SigCgt:\s*//p' "/proc/$child/status")
    (( 0x$caught >> 14 & 1 ))
}

nothing_runs() {
    not on pgrep -u pgsplit
}

# The package in another version, with what a COMMAND makes different in its tree: repack VERSION [COMMAND]
repack() {
    sh_on "rm -rf /tmp/tree && dpkg-deb -R /packages/pgsplit_0*.deb /tmp/tree && cd /tmp/tree \
        && sed -i 's/^Version: .*/Version: $1/' DEBIAN/control && { ${2:-true}; } \
        && dpkg-deb -Zgzip -z1 -b /tmp/tree /packages/pgsplit_$1.deb >/dev/null"
}

install_package() {
    sh_on "dpkg -i /packages/pgsplit_$1.deb" >"$scratch/dpkg" 2>&1 || { cat "$scratch/dpkg"; return 1; }
}

# Whether the package has said a line that fits.
said_by_dpkg() {
    grep "^pgsplit: $1" "$scratch/dpkg" || { cat "$scratch/dpkg"; return 1; }
}

runs_what_is_installed() {
    sh_on "[ \$(readlink /proc/$(show MainPID)/exe) = /usr/bin/pgsplit ]"
}

# A session in a transaction, which has a table that goes with it.
open_session() {
    mkfifo "$scratch/ask"
    docker exec -i -e PGPASSWORD=app "$machine" psql -XAtq "host=127.0.0.1 port=6432 user=app dbname=postgres" \
        <"$scratch/ask" >"$scratch/answers" 2>&1 &
    exec 7>"$scratch/ask"
    echo "begin; create temp table mine as select txid_current() as n; select 'open';" >&7
    wait_until "a transaction" last_answer_is open
}

session_is_as_it_was() {
    asked=$((asked + 1))
    echo "select n = txid_current(), $asked from mine;" >&7
    wait_until "an answer in the same transaction" last_answer_is "t|$asked"
}

last_answer_is() {
    [ "$(tail -n 1 "$scratch/answers")" = "$1" ]
}

close_session() {
    echo "commit;" >&7
    exec 7>&-
    rm "$scratch/ask"
    wait_until "the session to be over" sessions_are 0
}

journal_of_systemd_has() {
    on journalctl --no-pager -o cat | grep -F -- "$1" >/dev/null
}

a_drain_takes_its_time() {
    say "stopping with a session that takes longer than TimeoutStopSec"
    drop_in 'TimeoutStopSec=2s'
    client 6432 "select pg_sleep(7), 'done'" >"$scratch/slept" &
    local session=$!
    wait_until "the session to be there" sessions_are 1
    check "it stops" on systemctl stop pgsplit
    wait "$session" || true
    check "and the session came to its end" [ "$(cat "$scratch/slept")" = '|done' ]
    check "well" is Result success
    on systemctl start pgsplit
}

sessions_are() {
    # Without -q, which ends before curl has written all, and that counts as a failure of the two.
    on curl -s http://127.0.0.1:8404/metrics | grep "^pgsplit_node_sessions_active{[^}]*} $1\$" >/dev/null
}

one_that_hangs_is_restarted() {
    say "freezing it"
    drop_in 'WatchdogSec=4s'
    on systemctl restart pgsplit
    local before
    before=$(show MainPID)
    on kill -STOP "$before"
    wait_until "systemd to restart it" is NRestarts 1
    check "systemd finds that it hangs, and restarts it" journal_has 'Watchdog timeout (limit 4s)!'
    wait_until "it to be ready" is ActiveState active
    check "clients are served again" answers 6432
    check "by another process" not is MainPID "$before"
    # Alive for longer than the limit.
    wait_until "it to have lived for a while" older_than 9
    check "one that does not hang stays" is NRestarts 1
    sh_on 'rm -r /etc/systemd/system/pgsplit.service.d'
    on systemctl daemon-reload
    on systemctl restart pgsplit
}

older_than() {
    [ "$(on ps -o etimes= -p "$(show MainPID)")" -gt "$1" ]
}

systemd_holds_the_ports() {
    say "letting systemd listen"
    sh_on 'sed "s/127.0.0.1:/0.0.0.0:/" /usr/share/doc/pgsplit/examples/pgsplit.socket >/etc/systemd/system/pgsplit.socket'
    on systemctl daemon-reload
    on systemctl stop pgsplit
    check "socket and service start" on systemctl enable --now pgsplit.socket pgsplit.service
    check "clients are served" answers 6432
    # One after another, for as long as the restarts take.
    sh_on 'rm -f /tmp/over; i=0; while [ ! -e /tmp/over ]; do
        PGPASSWORD=app PGCONNECT_TIMEOUT=30 psql -XAtq "host=127.0.0.1 port=6432 user=app dbname=postgres" -c "select 42" || echo failed
    done' >"$scratch/clients" 2>&1 &
    local clients=$!
    wait_until "clients to come" test -s "$scratch/clients"
    on systemctl restart pgsplit
    on systemctl restart pgsplit
    wait_until "a client after the restarts" answers 6432
    on touch /tmp/over
    wait "$clients" || true
    check "none of $(wc -l <"$scratch/clients") clients failed while it was restarted twice" \
        not grep -vx 42 "$scratch/clients"
    on systemctl stop pgsplit 2>/dev/null
    check "the port is open while it is stopped" sh_on "ss -ltnH 'sport = :6432' | grep -q 6432"
    check "a client starts it when it is stopped" answers 6433
    check "so that it runs" is ActiveState active
}

an_upgrade_keeps_what_was_configured() {
    say "upgrading"
    local before sum
    before=$(show MainPID)
    sum=$(on md5sum /etc/pgsplit/config.yaml)
    repack 999.0.0-1
    sh_on 'apt-get install -y /packages/pgsplit_999*.deb' >"$scratch/apt" 2>&1 || { cat "$scratch/apt" >&2; return 1; }
    check "it says what happened" grep -q '^pgsplit: upgraded in place: ' "$scratch/apt"
    check "the configuration is as it was" [ "$(on md5sum /etc/pgsplit/config.yaml)" = "$sum" ]
    check "as are its rights" [ "$(on stat -c '%U %G %a' /etc/pgsplit/config.yaml)" = "root pgsplit 640" ]
    check "it runs" is ActiveState active
    check "in another process" not is MainPID "$before"
    check "of the file that the package brought" runs_what_is_installed
    check "and will at the next start of the machine" is UnitFileState enabled
    check "clients are served" answers 6432
}

what_is_removed_is_gone() {
    say "removing"
    on systemctl disable --now pgsplit.socket
    on rm /etc/systemd/system/pgsplit.socket
    quietly on apt-get remove -y pgsplit
    check "it does not run" nothing_runs
    check "the program is gone" not on test -e /usr/bin/pgsplit
    check "its configuration is kept" on test -e /etc/pgsplit/config.yaml
    quietly on apt-get purge -y pgsplit
    check "a purge takes that as well" not on test -e /etc/pgsplit/config.yaml
    check "but nothing that was not the package's" on test -e /etc/pgsplit/check_password
    check "and leaves no unit behind" nothing_said sh_on 'find /etc/systemd /run/systemd/system /usr/lib/systemd -name "pgsplit*"'
}

# ---- what held

say() {
    printf '%s  %s\n' "$(date +%T)" "$*"
}

# check TEXT COMMAND...: counts whether the command agrees; what it says is shown when it does not.
check() {
    local text=$1
    shift
    if "$@" >"$scratch/said" 2>&1; then
        passed=$((passed + 1))
        echo "ok    $text"
    else
        failed=$((failed + 1))
        echo "FAIL  $text"
        sed 's/^/      /' "$scratch/said"
    fi
}

# wait_until TEXT COMMAND...: until the command agrees, for as long as patience lasts.
wait_until() {
    local text=$1 until=$((SECONDS + patience))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $until ]; then
            echo "waited $patience s for $text" >&2
            return 1
        fi
        sleep 0.2
    done
}

main
