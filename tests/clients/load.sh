#!/usr/bin/env bash
# wrk at and past saturation: load.sh http://127.0.0.1:PORT PICTURE PID [SECONDS]
#
# Each request is a text prompt on one picture, so that it pays for the prompt alone. Prints wrk's figures per number of
# connections, the statuses that were not 200, and the server's resident memory after each.
set -euo pipefail
url=$1 picture=$2 pid=$3 seconds=${4:-10}
script=$(mktemp)
trap 'rm -f "$script"' EXIT
cat > "$script" <<LUA
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"image_url": "data:image/png;base64,$(base64 -w0 "$picture")", "prompt": "red circle"}'
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() ok, busy, other = 0, 0, 0 end
function response(status)
    if status == 200 then ok = ok + 1 elseif status == 429 then busy = busy + 1 else other = other + 1 end
end
function done()
    local sums = { 0, 0, 0 }
    for _, t in ipairs(threads) do
        sums[1], sums[2], sums[3] = sums[1] + t:get("ok"), sums[2] + t:get("busy"), sums[3] + t:get("other")
    end
    io.write(string.format("answered %d, refused with 429 %d, other %d\n", sums[1], sums[2], sums[3]))
end
LUA
for connections in 1 2 8 32 128; do
    echo "== $connections connections"
    wrk -t 1 -c "$connections" -d "${seconds}s" --timeout 30s --latency -s "$script" "$url/fal-ai/sam-3/image-rle" |
        grep -E 'Requests/sec|50%|99%|answered|Socket'
    awk '/VmRSS/ { print "resident", $2, $3 }' "/proc/$pid/status"
done
