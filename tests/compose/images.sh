#!/usr/bin/env bash
# Builds the images of the stack, as `docker compose up --build` does, and that of the scenarios; and the load tool.
# With the classic builder, the images without a name that remain are its cache: `docker image prune` removes them.
set -euo pipefail
cd "$(dirname "$0")/../.."

# shellcheck source-path=SCRIPTDIR source=tool.sh
source tests/compose/tool.sh
# A builder in a container of its own would not know the base images of this machine.
export BUILDX_BUILDER=default

# build WHAT COMMAND...: the builder says much; it is shown when it fails.
build() {
    echo "images: $1"
    shift
    "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
compose/base-images.sh
build "the stack" "${compose_tool[@]}" -f compose/compose.yaml --profile metrics build
build "a FastAPI service" docker build --tag pgsplit-fastapi tests/compose/fastapi
cargo build --quiet --locked --example load
