#!/usr/bin/env bash
# Everything that a change must pass. Goes on after a failure, so that one run shows all of them, and closes with what
# each test runner said last.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
log=$target/test.log
mkdir -p "$target"
: >"$log"
failed=()

# part NAME COMMAND...
part() {
    local name=$1
    shift
    echo
    echo "---- $name"
    "$@" 2>&1 | tee -ia "$log" || failed+=("$name")
}

# After the part that runs, which cleans up first.
trap 'exit 130' INT TERM HUP

# Why nothing can run in containers here; nothing when it can.
no_engine() {
    if [ "${PGSPLIT_SKIP_CONTAINERS:-}" = 1 ]; then
        echo "PGSPLIT_SKIP_CONTAINERS=1"
    elif ! timeout 20 docker info >/dev/null 2>&1; then
        echo "no Docker engine answers here"
    fi
}

# Why the scenarios in containers cannot run here; nothing when they can.
no_compose() {
    if ! docker compose version >/dev/null 2>&1 && ! tests/install-programs.sh docker-compose >>"$log" 2>&1; then
        echo "neither docker compose nor docker-compose is here: install one of them"
    fi
}

# What a cluster under Patroni lacks here; nothing when it can be started.
no_patroni() {
    local program
    for program in etcd patroni; do
        command -v "$program" >/dev/null || echo "$program is not installed"
    done
}

service=compose/users-service/Cargo.toml
fuzz=fuzz/Cargo.toml
export RUSTDOCFLAGS='-D warnings'

part "format" cargo fmt --check
part "lints" cargo clippy --locked --all-targets -- -D warnings
part "documentation" cargo doc --locked --no-deps
part "tests" cargo test --locked --no-fail-fast --color never
part "format of the users service" cargo fmt --check --manifest-path "$service"
part "lints of the users service" cargo clippy --locked --all-targets --manifest-path "$service" -- -D warnings
part "tests of the users service" cargo test --locked --no-fail-fast --color never --manifest-path "$service"
part "format of the fuzz targets" cargo fmt --check --manifest-path "$fuzz"
part "lints of the fuzz targets" env CARGO_TARGET_DIR="$target/fuzz" cargo clippy --locked --manifest-path "$fuzz" -- -D warnings
part "fuzzing" tests/fuzz.sh 5
# What was built for the tests, not an optimised one that may be older.
part "monitoring" env PGSPLIT="$target/debug/pgsplit" tests/compose/monitoring/run.sh
no_package=$(no_engine)
no_scenarios=${no_package:-$(no_compose)}
# The image of the program, which these build, is what is packaged after them.
[ -n "$no_scenarios" ] || part "scenarios in containers" tests/compose/run.sh
[ -n "$no_package" ] || part "package" tests/packaging/run.sh

echo
echo 'Summary:'
no_patroni | sed 's/^/SKIPPED: the cluster under Patroni (make patroni): /'
[ -z "$no_scenarios" ] || echo "SKIPPED: the scenarios in containers (make compose-test): $no_scenarios"
[ -z "$no_package" ] || echo "SKIPPED: the package in a container (make package-test): $no_package"
grep -E '^( +Running |test result|error|compose: |packaging: |monitoring: |fuzz: )' "$log" || true
[ ${#failed[@]} = 0 ] || {
    printf 'FAILED: %s\n' "${failed[@]}"
    exit 1
}
