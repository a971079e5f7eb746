"""wrk at and past saturation: load.py BINARY [SECONDS]

Two kinds of requests: a phrase on one picture, which pays for the phrase alone, and a phrase on a picture that is new each
time. wrk's connections know no patience: who is refused asks again at once. Throughput and refusals are wrk's counts,
latencies the server's own times of what it answered with 200, and memory is what the kernel says. Fails if anything but 200
and 429 came back, if wrk has seen answers that the server's log has not, or if throughput collapses. Prints Markdown. Needs
a release build to mean anything, and more seconds than a full queue takes.
"""

import base64
import json
import pathlib
import re
import subprocess
import sys
import tempfile

binary, seconds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 15
root = pathlib.Path(__file__).resolve().parents[2]
SESSIONS, QUEUE, CACHE = 2, 32, 64

# What lies behind the end of a PNG is no part of the picture, but of the file, by whose hash pictures are known.
SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local fresh, count, threads = %s, 0, {}
local head, tail = '{"image_url": "data:image/png;base64,%s', '", "prompt": "circle"}'
function setup(thread) table.insert(threads, thread) end
function init() ok, busy, other = 0, 0, 0; math.randomseed(%d) end
function request()
    count = count + 1
    local mark = fresh and string.format("%%08d%%08d", math.random(0, 99999999), count) or ""
    return wrk.format("POST", "/fal-ai/sam-3/image-rle", nil, head .. mark .. tail)
end
function response(status)
    if status == 200 then ok = ok + 1 elseif status == 429 then busy = busy + 1 else other = other + 1 end
end
function done(summary)
    local sums = { 0, 0, 0 }
    for _, t in ipairs(threads) do
        sums[1], sums[2], sums[3] = sums[1] + t:get("ok"), sums[2] + t:get("busy"), sums[3] + t:get("other")
    end
    local e = summary.errors
    io.write(string.format("counts %%d %%d %%d %%d\\n", sums[1], sums[2], sums[3], e.connect + e.read + e.write + e.timeout))
end
"""


def resident(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


def quantile(sorted_values, q):
    return sorted_values[min(len(sorted_values) - 1, int(q * len(sorted_values)))] if sorted_values else float("nan")


def level(server, url, log, script, connections):
    """One row: what came of so many connections."""
    begin = log.stat().st_size
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "60s", "-s", script, url]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ok, busy, other, errors = map(int, re.search(r"counts (\d+) (\d+) (\d+) (\d+)", out).groups())
    with log.open() as f:
        f.seek(begin)
        lines = [json.loads(line) for line in f if line.endswith("\n")]
    requests = [line for line in lines if line["event"] == "request"]
    times = sorted(line["ms"] for line in requests if line["status"] == 200)
    assert other == 0 and errors == 0, out
    refused = sum(line["status"] == 429 for line in requests)
    # What was under way when wrk left is in the log alone.
    assert 0 <= len(times) - ok <= connections and 0 <= refused - busy <= connections, (len(times), ok, refused, busy)
    return ok / seconds, busy / seconds, quantile(times, 0.5), quantile(times, 0.99), resident(server.pid)


picture = (root / "assets/demo/shapes.png").read_bytes()
picture += b"\0" * (-len(picture) % 3)
for name, fresh, levels in [
    ("a phrase on one picture", False, [1, 2, 8, 34, 64, 256]),
    ("a phrase on a new picture", True, [1, 2, 8, 34, 64, 256]),
]:
    with tempfile.TemporaryDirectory() as desk:
        log, script = pathlib.Path(desk, "log"), pathlib.Path(desk, "load.lua")
        options = ["--sessions", SESSIONS, "--queue", QUEUE, "--cache", CACHE, "--threads", 2]
        command = [binary, "serve", "--addr", "127.0.0.1:0", *map(str, options)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log.open("w"), text=True)
        try:
            url = server.stdout.readline().split()[-1]
            script.write_text(SCRIPT % (str(fresh).lower(), base64.b64encode(picture).decode(), 1))
            level(server, url, log, script, 8)
            print(f"\n| {name}: connections | answered / s | refused / s | p50 | p99 | resident |\n|--:|--:|--:|--:|--:|--:|")
            rates = []
            for i, connections in enumerate(levels):
                script.write_text(SCRIPT % (str(fresh).lower(), base64.b64encode(picture).decode(), i + 2))
                rate, busy, p50, p99, mib = level(server, url, log, script, connections)
                rates.append(rate)
                print(f"| {connections} | {rate:.0f} | {busy:.0f} | {p50:.1f} ms | {p99:.1f} ms | {mib:.0f} MiB |", flush=True)
            # wrk and the refusals take their share of the same cores.
            assert rates[-1] > max(rates) / 2, "throughput collapses"
        finally:
            server.terminate()
            server.wait()
