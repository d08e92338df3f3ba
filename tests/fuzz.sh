#!/usr/bin/env bash
# Runs each fuzz target for SECONDS (10 unless told), from the stored corpus and what earlier runs here have found.
# Usage: tests/fuzz.sh [SECONDS [TARGET...]]   A crash fails, with the command that shows it again.
#
# Needs neither a nightly compiler nor cargo-fuzz: what that adds is a few flags of the compiler, which are below. The
# engine is written in C++, so a compiler for that is needed.
set -euo pipefail
cd "$(dirname "$0")/.."

each=${1:-10}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd fuzz/targets && printf '%s\n' *.rs | sed 's/\.rs$//')

command -v c++ >/dev/null || {
    echo "fuzz: a C++ compiler is missing; on Debian and Ubuntu: apt-get install -y --no-install-recommends g++" >&2
    exit 1
}

root=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
# A target named by itself keeps these flags from build scripts and macros, which do not link against the engine.
export CARGO_TARGET_DIR=$root
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares \
-Clink-dead-code"
cargo build --release --locked --manifest-path fuzz/Cargo.toml --target "$host"

runs=0
crashes=0
for target in "${targets[@]}"; do
    program=$root/$host/release/$target
    finds=$root/finds/$target
    artifacts=$root/artifacts/$target/
    mkdir -p "$finds" "$artifacts"
    log=$root/$target.log
    # The first folder takes what is found; the stored one is only read.
    set +e
    "$program" -max_total_time="$each" -timeout=10 -rss_limit_mb=1024 -max_len=20000 -print_final_stats=1 \
        -artifact_prefix="$artifacts" "$finds" "fuzz/corpus/$target" >"$log" 2>&1
    status=$?
    set -e
    done=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    runs=$((runs + ${done:-0}))
    if [ "$status" = 0 ]; then
        echo "  $target: ${done:-0} runs, no crash"
        continue
    fi
    crashes=$((crashes + 1))
    echo "  $target: CRASH"
    grep -vE '^(#[0-9]+|INFO|stat::)' "$log" | tail -n 40
    input=$(sed -n 's/^.*Test unit written to //p' "$log" | tail -n 1)
    echo "again: $program ${input:-(no input was kept)}"
done
echo "fuzz: ${#targets[@]} targets, $runs runs, $crashes crashes"
[ "$crashes" = 0 ]
