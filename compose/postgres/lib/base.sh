# shellcheck shell=bash
# Words for the log, and children that do not keep a signal waiting.

say() {
    printf 'entrypoint: %s\n' "$*" >&2
}

fail() {
    printf 'entrypoint: error: %s\n' "$*" >&2
    exit 1
}

# Runs a program that may take long. bash runs a trap only between two commands, but at once during `wait`.
long() {
    "$@" <&0 &
    wait $!
}
