#!/usr/bin/env bash
# Unmodified clients against real servers: run.sh [BINARY] [MODEL]. See README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
binary=${1:-$target/debug/sam3}
model=${2:-}
picture=$root/assets/demo/shapes.png
deps=${SAM3_CLIENTS:-$target/clients}
python=$deps/venv/bin/python
. "$here/serving.sh"
failed=0

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

has() { "$python" -c "import importlib.util as i, sys; sys.exit(not i.find_spec('$1'))"; }

serve
plain=$url
serve --tls-self-signed "$desk/cert.pem"
host=localhost:${url##*:}
export NODE_PATH=$deps/node_modules
export FAL_RUN_HOST=$host FAL_QUEUE_RUN_HOST=$host/queue FAL_KEY=any:key
client "@fal-ai/client" 'test -d "$NODE_PATH/@fal-ai/client"' node "$here/fal.mjs" "$plain" "$picture"
client "fal-client" 'has fal_client' \
    env SSL_CERT_FILE="$desk/cert.pem" "$python" "$here/fal_client_test.py" "$picture"
client "inference-sdk" 'has inference_sdk' "$python" "$here/roboflow.py" "$plain" "$picture"
client "X-AnyLabeling" 'has anylabeling && has requests' "$python" "$here/x_anylabeling.py" "$plain" "$picture"
client "schemathesis" 'has schemathesis' "$here/fuzz.sh" "$plain" "${SAM3_FUZZ_EXAMPLES:-10}" "$python"
client "faults" 'command -v python3' python3 "$here/faults.py" "$binary" ${model:+"$model"}
exit "$failed"
