# The few things people do here. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help build deb demo test soak fuzz compose-test package-test reliability bench bench-http bench-pure bench-instructions prerequisites postgres programs patroni haproxy peers http-peers counters rust

help: ## this list
	@echo 'pgsplit: a load balancer for PostgreSQL'
	@echo
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 27

build: rust ## the optimised program, target/release/pgsplit
	cargo build --release --locked --bin pgsplit

deb: rust ## a Debian package of it, in target/debian (needs cargo-deb and dpkg-dev, and says how to get them)
	@packaging/deb.sh

demo: rust postgres ## a cluster under load, a primary killed, no read lost (a minute; KEEP=1 stays up)
	@cargo build --release --locked --bin pgsplit --example demo
	@target/release/examples/demo

test: prerequisites ## everything a change must pass: format, lints, documentation, tests
	@tests/all.sh

fuzz: rust ## the parsers, each with five minutes of made-up input (SECONDS=60: one)
	@tests/install-programs.sh g++
	@tests/fuzz.sh $(or $(SECONDS),300)

compose-test: rust ## the scenarios in containers alone; needs a Docker engine and no registry (15 minutes at first)
	@tests/compose/run.sh

package-test: ## the Debian package, installed in a container with systemd; needs a Docker engine and no registry
	@tests/packaging/run.sh

reliability: rust postgres haproxy ## the fault matrix beside HAProxy (25 minutes or more; ROWS=kill-standby: one)
	@cargo build --release --locked --bin pgsplit --example reliability
	@target/release/examples/reliability

# SECONDS is a clock in bash, hence lines of their own for these programs: there it is still what it was set to.
# The program is built alone, as it is for use: together with an example it would have what only tests ask of its libraries.
bench: rust postgres peers ## sessions beside HAProxy, nginx and PgBouncer (an hour or more; CASES=select-1 ROUNDS=1: less)
	@cargo build --release --locked --bin pgsplit
	@cargo build --release --locked --example bench
	@target/release/examples/bench

bench-http: rust http-peers ## the HTTP front beside nginx and HAProxy (8 minutes or more; ROUNDS=1 SECONDS=1: one)
	@cargo build --release --locked --bin pgsplit
	@cargo build --release --locked --example bench_http
	@target/release/examples/bench_http

bench-pure: rust ## times of parsing, framing and choosing alone (a minute, and the build)
	@cargo bench --locked --bench pure

bench-instructions: rust postgres counters ## instructions and system calls of a session and a round trip (5 minutes; TOP=25)
	@cargo build --release --locked --bin pgsplit
	@cargo build --release --locked --example instructions
	@target/release/examples/instructions

soak: rust postgres ## everything goes wrong while clients look for what must not be (an hour; SECONDS=60 SEED=7)
	@cargo test --release --locked --test it --no-run
	@cargo test --release --locked --test it soak::for_an_hour -- --ignored --nocapture

prerequisites: rust postgres programs patroni

postgres: ## installs a PostgreSQL server for tests and demo, unless one is there
	@tests/install-postgres.sh

programs: ## installs curl, wrk, jq, Python, Prometheus, faketime, g++ and Chromium (360 MB) for tests, unless they are there
	@tests/install-programs.sh curl wrk jq python3 prometheus faketime g++ chromium

patroni: ## installs Patroni and etcd for tests, unless they are there
	@tests/install-programs.sh etcd patroni

haproxy: ## installs HAProxy for reliability, unless it is there
	@tests/install-programs.sh haproxy

peers: ## installs HAProxy, nginx with its module for sessions, and PgBouncer for bench, unless they are there
	@tests/install-programs.sh haproxy nginx libnginx-mod-stream pgbouncer

http-peers: ## installs nginx, HAProxy and wrk for bench-http, unless they are there
	@tests/install-programs.sh nginx haproxy wrk

counters: ## installs valgrind, strace, HAProxy and PgBouncer for bench-instructions, unless they are there
	@tests/install-programs.sh valgrind strace haproxy pgbouncer

rust:
	@command -v cargo >/dev/null || { echo 'cargo is missing: install Rust as https://rustup.rs says'; exit 1; }
