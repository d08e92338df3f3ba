#!/usr/bin/env bash
# Everything that a change must pass. Goes on after a failure, so that one run shows all of them, and closes with what
# each test runner said last.
set -euo pipefail
cd "$(dirname "$0")/.."

log=target/test.log
mkdir -p target
: >"$log"
failed=()

# part NAME COMMAND...
part() {
    local name=$1
    shift
    echo
    echo "---- $name"
    "$@" 2>&1 | tee -a "$log" || failed+=("$name")
}

service=compose/users-service/Cargo.toml
export RUSTDOCFLAGS='-D warnings'

part "format" cargo fmt --check
part "lints" cargo clippy --locked --all-targets -- -D warnings
part "documentation" cargo doc --locked --no-deps
part "tests" cargo test --locked --no-fail-fast --color never
part "format of the users service" cargo fmt --check --manifest-path "$service"
part "lints of the users service" cargo clippy --locked --all-targets --manifest-path "$service" -- -D warnings
part "tests of the users service" cargo test --locked --no-fail-fast --color never --manifest-path "$service"
# What was built for the tests, not an optimised one that may be older.
part "monitoring" env PGSPLIT="$PWD/target/debug/pgsplit" tests/compose/monitoring/run.sh
if docker info >/dev/null 2>&1; then
    part "scenarios in containers" tests/compose/run.sh
else
    skipped="SKIPPED: the scenarios in containers (make compose-test): no Docker engine answers here"
fi

echo
echo 'Summary:'
[ -z "${skipped:-}" ] || echo "$skipped"
grep -E '^( +Running |test result|error|compose: |monitoring: )' "$log" || true
[ ${#failed[@]} = 0 ] || {
    printf 'FAILED: %s\n' "${failed[@]}"
    exit 1
}
