#!/usr/bin/env bash
# Makes a release archive, unpacks it, and builds and runs programs against what it holds, outside cargo: tests/c_abi/hosts.rs
# does the latter, and compares what they find with the Rust interface, bit for bit.
#
#   tests/hosts/run.sh [options of tools/package.sh]
#
# The archive is a development build unless the options say otherwise. What a machine lacks is skipped and said; with
# SAM3_REQUIRE_HOSTS=1 it is a failure. On Debian everything comes with
#
#   apt-get install --no-install-recommends gcc g++ binutils pkg-config cmake python3 nodejs npm \
#       libopencv-dev libsdl2-dev xvfb abigail-tools
#
# and koffi from the package registry of Node.js, once per checkout, which may be any that npm is set up for.
set -euo pipefail
cd "$(dirname "$0")/../.."
target="${CARGO_TARGET_DIR:-target}"

cargo test --features capi --test c_abi --no-run
# The archive is built away from the tests, whose libraries have the same names; what both depend on is built already.
build="$target/package-build/debug"
if [ ! -d "$build" ]; then
    mkdir -p "$build"
    cp -al "$target"/debug/{deps,build,.fingerprint} "$build/"
    rm -rf "$build"/deps/libsam3.* "$build"/{deps,build,.fingerprint}/{libsam3,sam3}-*
fi
# The program was built beside the tests.
archive="$(tools/package.sh --profile dev --program "$target/debug/sam3" --out "$target/package" "$@" | tail -n 1)"
prefix="$(mktemp -d)"
trap 'rm -rf "$prefix"' EXIT
tar -C "$prefix" --strip-components=1 -xzf "$archive"

modules="$target/node-hosts"
if command -v npm >/dev/null && [ ! -d "$modules/node_modules/koffi" ]; then
    mkdir -p "$modules"
    cp examples/node/package.json "$modules/"
    npm install --prefix "$modules" --no-fund --no-audit --loglevel=error || echo "skipped: npm has no koffi" >&2
fi
SAM3_PREFIX="$prefix" SAM3_NODE_MODULES="$(realpath -m "$modules")" SAM3_REQUIRE_HOSTS="${SAM3_REQUIRE_HOSTS:-0}" \
    cargo test --features capi --test c_abi -- hosts surface --nocapture --test-threads=1
