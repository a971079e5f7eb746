#!/usr/bin/env bash
# The playground in a browser, every control of it: run.sh [BINARY] [MODEL]. See README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
binary=$(realpath "${1:-$target/debug/sam3}")
model=${2:-}
deps=$(realpath -m "${SAM3_CLIENTS:-$target/clients}")
"$root/tests/clients/install.sh" "$deps"
export PLAYGROUND_DEPS=$deps PLAYGROUND_SHOTS=${PLAYGROUND_SHOTS:-$deps/screenshots}
export PYTHON=${PYTHON:-$deps/venv/bin/python}
mkdir -p "$PLAYGROUND_SHOTS"
# A browser that is there is as good as one that would have to be fetched.
if [ -z "${CHROMIUM:-}" ]; then
    CHROMIUM=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
    [ -n "$CHROMIUM" ] || (cd "$deps" && npx playwright install chromium)
fi
export CHROMIUM
. "$root/tests/clients/serving.sh"

serve --allow-fetch
export PLAYGROUND_URL=$url
serve --api-key playground-key
export PLAYGROUND_LOCKED_URL=$url
export PLAYGROUND_BINARY=$binary PLAYGROUND_MODEL=$model
# One file per core at a time; each has a browser of its own.
node --test --test-reporter=spec ${ONLY:+--test-name-pattern="$ONLY"} "$here"/*.test.mjs
