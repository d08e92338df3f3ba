# What run.sh stands on: counting, waiting, free ports, an end that leaves nothing behind. Sourced, not run.
# shellcheck shell=bash

PASSED=0
FAILED=0
# Ends them last to first. Only what was started here is in it.
CLEANUP=()

pass() {
    PASSED=$((PASSED + 1))
    echo "ok    $*"
}

fail() {
    FAILED=$((FAILED + 1))
    echo "FAIL  $*"
}

# expect WHAT COMMAND...: counts whether the command succeeds, and shows what it said when it does not.
expect() {
    local what=$1 said
    shift
    if said=$("$@" 2>&1); then
        pass "$what"
    else
        fail "$what"
        printf '      %s\n' "${said//$'\n'/$'\n'      }"
    fi
}

# wait_until SECONDS WHAT COMMAND...: tries again until the command succeeds; what was waited for is what failed.
wait_until() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "waited in vain for $what" >&2
            return 1
        fi
        sleep 0.1
    done
}

# All that is asked is on this machine, and no answer may be awaited for ever.
curl() {
    command curl --noproxy '*' --max-time 10 "$@"
}

# However the test ends: nothing of it stays, and the last line is the count.
finish() {
    local code=$? i logs
    trap '' INT TERM HUP PIPE
    trap - EXIT
    set +e
    for ((i = ${#CLEANUP[@]} - 1; i >= 0; i--)); do
        eval "${CLEANUP[i]}" >/dev/null 2>&1
    done
    logs=$(tail -n 5 "$DIR"/*.log "$DIR"/pg/*.log 2>/dev/null)
    # Before anything is said: whoever should read it may be gone.
    rm -rf "$DIR"
    [ "$code" = 0 ] || fail "ended before its end, code $code"
    [ "$FAILED" = 0 ] || echo "$logs"
    echo
    echo "monitoring: $PASSED passed, $FAILED failed"
    [ "$FAILED" = 0 ] || exit 1
}

# start NAME COMMAND...: in the background, output to $DIR/NAME.log, ended with the test. The pid is in $STARTED.
start() {
    local name=$1
    shift
    "$@" >"$DIR/$name.log" 2>&1 </dev/null &
    STARTED=$!
    CLEANUP+=("kill $STARTED; wait $STARTED")
}

# free_ports N: as many ports of 127.0.0.1 that nobody has, all different.
free_ports() {
    python3 - "$1" <<'PYTHON'
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in held:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))
PYTHON
}

as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        (cd / && runuser -u postgres -- "$@")
    else
        "$@"
    fi
}

# require PROGRAM PACKAGE ...: says all that is missing at once.
require() {
    local missing=() packages=()
    while [ $# -gt 0 ]; do
        command -v "$1" >/dev/null || { missing+=("$1") && packages+=("$2"); }
        shift 2
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    {
        echo "not found: ${missing[*]}"
        echo "on Debian and Ubuntu: apt-get install --no-install-recommends $(printf '%s\n' "${packages[@]}" | sort -u | xargs)"
        case " ${packages[*]} " in
            *" prometheus "*) echo "(tests/install-programs.sh prometheus does it without starting Debian's service)" ;;
        esac
    } >&2
    return 1
}
