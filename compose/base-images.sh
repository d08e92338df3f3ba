#!/usr/bin/env bash
# The two images that everything here is built from: pulled where a registry answers, else made on this machine from
# Debian's packages and its own Rust toolchain. Run it once before `docker compose up` where no image can be pulled:
#
#   sudo ./base-images.sh debian     only this one needs root, and only when it has to be made
#   ./base-images.sh rust
#   ./base-images.sh                 both
#
# DEBIAN_MIRROR: which mirror of Debian, instead of debootstrap's own.
set -euo pipefail

debian=debian:trixie-slim
rust=rust:1-slim-trixie
# Debian keeps what is root's where only root's PATH looks.
PATH=$PATH:/usr/sbin:/sbin

main() {
    case "$*" in
        '' | debian | rust) ;;
        *) fail "what is ${*@Q}? Write: $0 [debian | rust]" ;;
    esac
    command -v docker >/dev/null || fail "docker is missing: install Docker Engine, on Debian: apt-get install docker.io"
    timeout 20 docker info >/dev/null 2>&1 \
        || fail "no Docker engine answers: start it, or ask for the right to use it (group docker)"
    scratch=$(mktemp -d)
    # Only what is in it, should something be mounted there.
    trap 'rm -rf --one-file-system "$scratch"' EXIT
    trap 'exit 130' INT TERM HUP
    [ "$*" = rust ] || have "$debian" || make_debian
    [ "$*" = debian ] || have "$rust" || make_rust
}

# There already, or pulled now.
have() {
    docker image inspect "$1" >/dev/null 2>&1 && return
    echo "$1: pulling"
    # In the foreground, for Ctrl-C.
    timeout --foreground 600 docker pull --quiet "$1" 2>"$scratch/pull" && return
    echo "$1: cannot be pulled ($(tail -n 1 "$scratch/pull")), making it here"
    return 1
}

make_debian() {
    # debootstrap makes device nodes and changes root.
    [ "$(id -u)" = 0 ] || fail "making $debian needs root: sudo $0 debian"
    need debootstrap tar
    local root=$scratch/root
    mkdir "$root"
    debootstrap --variant=minbase --include=ca-certificates trixie "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$scratch/log" 2>&1 \
        || fail "debootstrap failed; the end of what it said: $(tail -n 3 "$scratch/log")"
    # Authorities that this machine trusts beside Debian's, such as that of a company's proxy: downloads within the
    # builds pass it as well.
    cp -a /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
    chroot "$root" update-ca-certificates >"$scratch/log" 2>&1 \
        || fail "update-ca-certificates failed: $(tail -n 3 "$scratch/log")"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/*
    # mktemp made the folder above it for its owner alone, and this one is the image's root.
    chmod 755 "$root"
    tar -C "$root" -c . | docker import --change 'CMD ["bash"]' - "$debian" >/dev/null || fail "$debian could not be imported"
    echo "$debian: made"
}

make_rust() {
    command -v rustc >/dev/null \
        || fail "making $rust takes this machine's toolchain, and there is none: install Rust as https://rustup.rs says"
    local sysroot
    sysroot=$(rustc --print sysroot)
    # Copied whole, so it must be a toolchain of its own: /usr would be the whole machine.
    [ "$sysroot" != /usr ] && [ -x "$sysroot/bin/cargo" ] && [ -d "$sysroot/lib/rustlib" ] \
        || fail "making $rust takes a toolchain in a folder of its own, with cargo; that of rustc is $sysroot:" \
            "install Rust as https://rustup.rs says"
    cat >"$scratch/Dockerfile" <<END
FROM $debian
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY bin /usr/local/bin
COPY lib /usr/local/lib
END
    tar -c -C "$scratch" Dockerfile -C "$sysroot" --exclude=lib/rustlib/src --exclude='bin/rust-gdb*' bin lib \
        | docker build --quiet --tag "$rust" - >/dev/null || fail "$rust could not be built"
    echo "$rust: made with $(rustc --version)"
}

# Root's alone.
need() {
    local program missing=()
    for program; do command -v "$program" >/dev/null || missing+=("$program"); done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null || fail "missing: ${missing[*]}"
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null \
        || fail "missing, and not to be installed: ${missing[*]}"
}

fail() {
    echo "base-images.sh: $*" >&2
    exit 1
}

main "$@"
