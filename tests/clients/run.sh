#!/usr/bin/env bash
# Unmodified clients against real servers: run.sh [BINARY] [MODEL]. See README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
binary=${1:-$root/target/debug/sam3}
model=${2:-$root/tests/fixtures/tiny-a}
picture=$root/tests/fixtures/tiny-a/input.png
python=${PYTHON:-python3}
desk=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true; wait; rm -rf "$desk"' EXIT
failed=0

# Starts a server with these options, and says its address.
serve() {
    local log=$desk/$RANDOM.out
    "$binary" serve --model "$model" --addr 127.0.0.1:0 --quiet "$@" > "$log" 2> "$log.err" &
    servers+=($!)
    for _ in $(seq 100); do
        url=$(sed -n 's/^sam3 listens on //p' "$log")
        [ -n "$url" ] && return
        sleep 0.1
    done
    cat "$log.err"
    exit 1
}

# Runs a client if what it needs is there.
client() {
    local name=$1 probe=$2
    shift 2
    echo "-- $name"
    if ! eval "$probe" > /dev/null 2>&1; then
        echo "skipped: not installed"
        [ -z "${SAM3_REQUIRE_CLIENTS:-}" ] || failed=1
    elif ! "$@"; then
        echo "FAILED: $name"
        failed=1
    fi
}

serve
plain=$url
serve --tls-self-signed "$desk/cert.pem"
host=localhost:${url##*:}
export FAL_RUN_HOST=$host FAL_QUEUE_RUN_HOST=$host/queue FAL_KEY=any:key
client "@fal-ai/client" 'test -d "${NODE_PATH:-node_modules}/@fal-ai/client"' node "$here/fal.mjs" "$plain" "$picture"
client "fal-client" '"$python" -c "import fal_client"' \
    env SSL_CERT_FILE="$desk/cert.pem" "$python" "$here/fal_client_test.py" "$picture"
client "inference-sdk" '"$python" -c "import inference_sdk"' "$python" "$here/roboflow.py" "$plain" "$picture"
client "X-AnyLabeling" 'test -n "${XANYLABELING:-}" && "$python" -c "import requests"' \
    "$python" "$here/anylabeling.py" "$plain" "$picture" "${XANYLABELING:-}"
client "schemathesis" 'command -v schemathesis' "$here/fuzz.sh" "$plain" "${SAM3_FUZZ_EXAMPLES:-50}"
exit "$failed"
