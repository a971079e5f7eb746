#!/usr/bin/env bash
# The playground in a browser, every control of it: run.sh [BINARY] [MODEL]. See README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
binary=$(realpath "${1:-$root/target/debug/sam3}")
model=${2:-}
export PLAYGROUND_DEPS=${PLAYGROUND_DEPS:-${XDG_CACHE_HOME:-$HOME/.cache}/sam3-playground-tests}
export PLAYGROUND_SHOTS=${PLAYGROUND_SHOTS:-$PLAYGROUND_DEPS/screenshots}
mkdir -p "$PLAYGROUND_DEPS" "$PLAYGROUND_SHOTS"
if ! cmp -s "$here/package.json" "$PLAYGROUND_DEPS/package.json" || [ ! -d "$PLAYGROUND_DEPS/node_modules" ]; then
    cp "$here/package.json" "$PLAYGROUND_DEPS/"
    (cd "$PLAYGROUND_DEPS" && npm install --no-package-lock --no-audit --no-fund)
fi
# A browser that is there is as good as one that would have to be fetched.
if [ -z "${CHROMIUM:-}" ]; then
    CHROMIUM=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
    [ -n "$CHROMIUM" ] || (cd "$PLAYGROUND_DEPS" && npx playwright install chromium)
fi
export CHROMIUM
desk=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true; wait; rm -rf "$desk"' EXIT

# Starts a server with these options, and says its address.
serve() {
    local log
    log=$(mktemp "$desk/XXXXXX.out")
    "$binary" serve ${model:+--model "$model"} --addr 127.0.0.1:0 --quiet "$@" > "$log" 2> "$log.err" &
    servers+=($!)
    for _ in $(seq 600); do
        url=$(sed -n 's/^sam3 listens on //p' "$log")
        [ -n "$url" ] && return
        sleep 0.1
    done
    cat "$log.err"
    exit 1
}

serve --allow-fetch
export PLAYGROUND_URL=$url
serve --api-key playground-key
export PLAYGROUND_LOCKED_URL=$url
export PLAYGROUND_BINARY=$binary PLAYGROUND_MODEL=$model
node --test --test-concurrency=1 --test-reporter=spec ${ONLY:+--test-name-pattern="$ONLY"} "$here"/*.test.mjs
