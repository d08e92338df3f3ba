#!/usr/bin/env bash
# Makes a Debian package of the optimised program, in target/debian: make deb
# The last line is where it is. Arguments go to cargo-deb. PGSPLIT_IS_BUILT=1 takes target/release/pgsplit as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
program=$target/release/pgsplit

fail() {
    echo "deb.sh: $*" >&2
    exit 1
}

cargo deb --version >/dev/null 2>&1 || fail "cargo-deb is missing: cargo install --locked cargo-deb"
# Finds out which libraries the program needs.
command -v dpkg-shlibdeps >/dev/null \
    || fail "dpkg-shlibdeps is missing: apt-get install --no-install-recommends dpkg-dev"
[ -n "${PGSPLIT_IS_BUILT:-}" ] || cargo build --release --locked --bin pgsplit

# What the program says of itself.
said=$target/release/said
rm -rf "$said"
mkdir -p "$said/man"
"$program" man "$said/man"
gzip -9n "$said"/man/*
"$program" completions bash >"$said/pgsplit"
"$program" completions zsh >"$said/_pgsplit"
"$program" completions fish >"$said/pgsplit.fish"

cargo deb --no-build --locked --quiet "$@"
