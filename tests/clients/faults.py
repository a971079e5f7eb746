"""What goes wrong around a server, done to a real one: faults.py BINARY [MODEL]

Clients that vanish, bodies that trickle, more requests than there is room for, a full disk, and SIGTERM under load. After
each the server answers as if nothing had been, or has ended as it should. (A session that panics: `src/serve/faults.rs`.)
"""

import base64
import collections
import http.client
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

RLE, IMAGE = "/fal-ai/sam-3/image-rle", "/fal-ai/sam-3/image"
binary, model = sys.argv[1], sys.argv[2:]
chance = random.Random(1)


class Server:
    """A server on a free port, with these options; `before` is a command that runs it."""

    def __init__(self, *options, before=()):
        command = [*before, binary, "serve", *(["--model", *model] if model else []), "--addr", "127.0.0.1:0", "--quiet"]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("sam3 listens on http://"), line
        self.port = int(line.rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def call(self, path, body=None):
        """Status and JSON (or text) of an answer, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            data = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, data, {"connection": "close"})
            reply = connection.getresponse()
            text = reply.read()
            kind = reply.headers.get_content_type()
            return reply.status, json.loads(text) if kind == "application/json" else text.decode()
        finally:
            connection.close()

    def figure(self, name):
        lines = self.call("/metrics")[1].splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name + " "))

    def rests(self):
        """Waits until nothing is worked on."""
        end = time.time() + 30
        while self.figure("sam3_requests_inside") or self.figure("sam3_sessions_busy"):
            assert time.time() < end, "something is still worked on"
            time.sleep(0.02)


def picture(seed, side=96):
    """A square of one colour on another, as a data URI: each seed is a picture that no server has seen."""
    rows = []
    for y in range(side):
        row = bytearray([0])
        for x in range(side):
            inside = side // 4 <= x < side * 3 // 4 and side // 4 <= y < side * 3 // 4
            row += bytes([220, seed % 256, seed // 256 % 256] if inside else [245, 245, 240])
        rows.append(bytes(row))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(file).decode()


def question(seed):
    return {"image_url": picture(seed), "point_prompts": [{"x": 48, "y": 48}]}


def at_once(n, work):
    """Runs `work(i)` on as many threads, and passes their exceptions on."""
    failures = []

    def run(i):
        try:
            work(i)
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        raise failures[0]


def vanishing_clients():
    with Server("--sessions", "1", "--queue", "64") as server:
        for i in range(40):
            body = json.dumps(question(1000 + i)).encode()
            head = f"POST {RLE} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            s = socket.create_connection(("127.0.0.1", server.port))
            whole = head + body
            s.sendall(whole if i % 4 else whole[: chance.randrange(len(whole))])
            time.sleep(chance.random() * 0.03)
            # Half of them say goodbye, half break off.
            if i % 2:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
        server.rests()
        looks = server.figure("sam3_pictures_looks_total")
        assert server.call(RLE, question(1))[0] == 200
        return f"40 clients gone, {looks} pictures encoded for nobody"


def slow_bodies():
    with Server("--sessions", "1", "--queue", "0") as server:
        server.call(RLE, question(2))
        slow = []
        for _ in range(100):
            s = socket.create_connection(("127.0.0.1", server.port))
            s.sendall(f"POST {RLE} HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n".encode())
            slow.append(s)
        begin = time.time()
        for _ in range(10):
            for s in slow:
                s.sendall(b" ")
            # There is room for one request, and nobody who trickles has it.
            assert server.call(RLE, question(2))[0] == 200
        took = time.time() - begin
        for s in slow:
            s.close()
        server.rests()
        return f"10 requests answered beside 100 slow ones in {took:.2f} s"


def saturation():
    with Server("--sessions", "2", "--queue", "4") as server:
        asked = [question(3 + i % 5) for i in range(24)]
        expected = [server.call(RLE, q)[1]["rle"] for q in asked[:5]]
        statuses = collections.Counter()

        def client(i):
            for _ in range(5):
                while True:
                    status, out = server.call(RLE, asked[i])
                    statuses[status] += 1
                    if status == 200:
                        assert out["rle"] == expected[i % 5], "another one's answer"
                        break
                    assert status == 429 and out["error_type"] == "queue_full", out
                    time.sleep(0.05)

        at_once(24, client)
        assert statuses[200] == 120, statuses
        assert server.figure("sam3_refused_total") == statuses[429]
        server.rests()
        return f"120 of 120 answered, {statuses[429]} refusals in between"


def full_disk():
    folder = tempfile.mkdtemp()
    script = f"mount -t tmpfs -o size=128k tmpfs {folder} && exec \"$@\""
    before = ["unshare", "-rm", "sh", "-c", script, "sh"]
    if not shutil.which("unshare") or subprocess.run([*before, "true"], stderr=subprocess.DEVNULL).returncode:
        os.rmdir(folder)
        return "skipped: no mounts here"
    try:
        with Server("--dir", folder, "--lifetime", "4", before=before) as server:
            # As the server sees it.
            inside = f"/proc/{server.process.pid}/root{folder}"
            statuses = collections.Counter()
            end = time.time() + 30
            while 507 not in statuses and time.time() < end:
                status, out = server.call(IMAGE, {**question(9), "apply_mask": True})
                statuses[status] += 1
                assert status == 200 or (status == 507 and "full" in out["detail"]), out
            assert statuses[507] and statuses[200], statuses
            assert all(n.startswith("sam3-") and len(n) == 37 for n in os.listdir(inside)), os.listdir(inside)
            assert server.call(RLE, question(9))[0] == 200, "what needs no disk goes on"
            data = {**question(9), "sync_mode": True}
            assert server.call(IMAGE, data)[0] == 200
            # Results end, and with them the shortage.
            while server.call(IMAGE, question(9))[0] != 200:
                assert time.time() < end, "the disk stays full"
                time.sleep(0.2)
            return f"{statuses[200]} results fitted, the next was refused, later ones fitted again"
    finally:
        os.rmdir(folder)


def end_under_load():
    with Server("--sessions", "1", "--queue", "32", "--drain", "30") as server:
        server.call(RLE, question(10))
        outcomes = collections.Counter()

        def client(i):
            while True:
                try:
                    status, out = server.call(RLE, question(10 + i))
                except ConnectionRefusedError:
                    return
                except (ConnectionResetError, http.client.RemoteDisconnected, BrokenPipeError):
                    # It was in line at the socket, and had not been taken.
                    outcomes["not taken"] += 1
                    continue
                assert status in (200, 503), (status, out)
                assert status == 503 or out["rle"], out
                outcomes[status] += 1

        seen = {}

        def stop():
            time.sleep(1)
            seen["inside"] = server.figure("sam3_requests_inside")
            begin = time.time()
            server.process.send_signal(signal.SIGTERM)
            seen["code"] = server.process.wait(60)
            seen["took"] = time.time() - begin

        at_once(9, lambda i: client(i) if i < 8 else stop())
        assert seen["code"] == 0, seen
        # An answer that was cut short would have raised IncompleteRead above, and ended the run.
        assert outcomes[200] > 8, outcomes
        return (
            f"{seen['inside']} inside at the signal, {outcomes[200]} answered in all, {outcomes[503]} refused, "
            f"{outcomes['not taken']} never taken, over in {seen['took']:.2f} s"
        )


for scene in [vanishing_clients, slow_bodies, saturation, full_disk, end_under_load]:
    print(f"ok {scene.__name__}: {scene()}", flush=True)
