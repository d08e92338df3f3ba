# Which of the two Compose is here: the plugin (v2) or the older program. Sourced.
# shellcheck shell=bash disable=SC2034 # for whoever sources it

if docker compose version >/dev/null 2>&1; then
    compose_tool=(docker compose)
else
    compose_tool=(docker-compose)
fi
