#!/usr/bin/env bash
# The two images that everything here is built from: pulled where a registry answers, else made on this machine from
# Debian's packages and its own Rust toolchain. Run it once before `docker compose up` where no image can be pulled.
set -euo pipefail

debian=debian:trixie-slim
rust=rust:1-slim-trixie
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

main() {
    command -v docker >/dev/null || fail "docker is missing: install Docker Engine, on Debian: apt-get install docker.io"
    docker info >/dev/null 2>&1 || fail "no Docker engine answers: start it, or ask for the right to use it (group docker)"
    have "$debian" || make_debian
    have "$rust" || make_rust
}

# There already, or pulled now.
have() {
    docker image inspect "$1" >/dev/null 2>&1 && return
    echo "$1: pulling"
    timeout 600 docker pull --quiet "$1" 2>/dev/null && return
    echo "$1: cannot be pulled, making it here"
    return 1
}

make_debian() {
    need debootstrap tar
    # debootstrap makes device nodes and changes root.
    [ "$(id -u)" = 0 ] || fail "making $debian needs root: sudo $0"
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    debootstrap --variant=minbase --include=ca-certificates trixie "$dir" "$mirror" >"$dir.log" 2>&1 \
        || fail "debootstrap failed; the end of $dir.log: $(tail -n 3 "$dir.log")"
    rm -f "$dir.log"
    # Authorities that this machine trusts beside Debian's, such as that of a company's proxy: downloads within the
    # builds pass it as well.
    cp -a /usr/local/share/ca-certificates/. "$dir/usr/local/share/ca-certificates/" 2>/dev/null || true
    chroot "$dir" update-ca-certificates >/dev/null 2>&1
    rm -rf "$dir"/var/cache/apt/archives/*.deb "$dir"/var/lib/apt/lists/* "$dir"/usr/share/doc/* "$dir"/usr/share/man/*
    tar -C "$dir" -c . | docker import --change 'CMD ["bash"]' - "$debian" >/dev/null
    echo "$debian: made"
}

make_rust() {
    command -v rustc >/dev/null || fail "making $rust takes this machine's toolchain, and there is none: install Rust as https://rustup.rs says"
    sysroot=$(rustc --print sysroot)
    recipe=$(mktemp -d)
    cat >"$recipe/Dockerfile" <<END
FROM $debian
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY bin /usr/local/bin
COPY lib /usr/local/lib
END
    tar -c -C "$recipe" Dockerfile -C "$sysroot" --exclude=lib/rustlib/src --exclude='bin/rust-gdb*' bin lib \
        | docker build --quiet --tag "$rust" - >/dev/null || fail "$rust could not be built"
    rm -rf "$recipe"
    echo "$rust: made with $(rustc --version)"
}

need() {
    missing=()
    for program; do command -v "$program" >/dev/null || missing+=("$program"); done
    [ ${#missing[@]} = 0 ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    else
        fail "missing: ${missing[*]}; on Debian: apt-get install ${missing[*]}"
    fi
}

fail() {
    echo "base-images.sh: $*" >&2
    exit 1
}

main
