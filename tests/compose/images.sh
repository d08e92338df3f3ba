#!/usr/bin/env bash
# Builds the images of the stack and of the scenarios, and the load tool.
set -euo pipefail
cd "$(dirname "$0")/../.."

build() {
    echo "image $1"
    # The builder says much; it is shown when it fails.
    docker build --quiet --tag "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
compose/base-images.sh
build pgsplit-postgres compose/postgres
build pgsplit-users-service compose/users-service
build pgsplit --file compose/pgsplit/Dockerfile .
build pgsplit-prometheus compose/prometheus
build pgsplit-fastapi tests/compose/fastapi
cargo build --quiet --locked --example load
