"""Runs one server for a test file and speaks HTTP to it. Standard library only.

A test function with a parameter gets the module's shared `Server`. `main(globals())` runs all test functions and
prints a line for each that fails or calls skip(). It exits with 1 if any failed, otherwise with 77, which meson
counts as skipped, if any could not run.
"""
import atexit
import base64
import contextlib
import http.client
import importlib.util
import inspect
import json
import os
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib

# Whatever a test or a program leaves in the folder for temporary files goes with the test.
tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="imagend-test-")
atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)

PROGRAM = sys.argv[1] if len(sys.argv) > 1 else "build/tests/api/imagend-fake"
# The store of servers that a test does not configure: sqlite, memory or postgres.
STORE = os.environ.pop("IMAGEND_TEST_STORE", "sqlite")  # the program does not know the variable
# For what must happen at some time, on a machine that may be slow and busy.
PATIENCE = int(os.environ.get("TEST_PATIENCE", 60))
UNTOLD = 10  # s: a client that left is missed before a comment of every 15 s fails to reach it


class Skipped(Exception):
    pass


class Elsewhere(Exception):
    pass


def skip(why):
    """This test cannot run here, which is not the same as passing."""
    raise Skipped(why)


def require(*tools, **packages):
    """Ends a suite that cannot run without tools and Python modules; packages: module="Debian's package"."""
    missing = [tool for tool in tools if not shutil.which(tool)]
    missing += [package for module, package in packages.items() if not importlib.util.find_spec(module)]
    if missing:
        print("skipped: not installed: " + ", ".join(missing))
        sys.exit(77)


def needs(*tools):
    for tool in tools:
        if not shutil.which(tool):
            skip(tool + " is not installed")


def needs_store(*stores):
    """This test is not about the store of this run, which is no reason to call it skipped."""
    if STORE not in stores:
        raise Elsewhere("not with the store " + STORE)


class Answer:
    """A response that was read to its end."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {k.lower(): v for k, v in response.getheaders()}
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)


_cluster = None


def store_flags(flags):
    """The flags that select STORE, with a database of its own for each server."""
    global _cluster
    if STORE == "sqlite" or "--store" in flags:
        return []
    if STORE == "memory":
        return ["--store", "memory"]
    import postgres
    postgres.require()
    _cluster = _cluster or postgres.Cluster()
    return ["--store", "postgres", "--database", _cluster.connection(_cluster.create_database())]


class Server:
    """One running program on a free port with its own data folder."""

    def __init__(self, *flags, env=None, data=None, start=True, preexec=None, wrap=()):
        """wrap: a command that runs the program."""
        self.folder = data or tempfile.mkdtemp(prefix="imagend-test-")
        self.own_folder = data is None
        self.store_flags = store_flags(flags)
        self.flags = [*self.store_flags, *flags]
        self.hold_path = os.path.join(self.folder, "held")
        self.env = {"FAKE_HELD": self.hold_path, **(env or {})}
        self.preexec = preexec
        self.wrap = wrap
        self.process = None
        if start:
            self.start()

    def start(self, ready=True):
        self.log_path = os.path.join(self.folder, "log")
        log = open(self.log_path, "ab")
        begin = log.tell()
        env = {**os.environ, **{k: str(v) for k, v in self.env.items()}}
        self.process = subprocess.Popen(
            [*self.wrap, PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir",
             os.path.join(self.folder, "data"), *self.flags],
            stderr=log, env=env, stdin=subprocess.DEVNULL, preexec_fn=self.preexec)
        log.close()
        atexit.register(self.process.kill)  # of a test that failed before its end
        self.port = None
        deadline = time.monotonic() + PATIENCE
        while self.port is None:
            text = open(self.log_path, errors="replace").read()[begin:]
            for line in text.splitlines(keepends=True):
                if "listening on" in line and line.endswith("\n"):
                    self.port = int(line.split('"')[0].rstrip().rsplit(":", 1)[1]) \
                        if "{" not in line else int(line.split("listening on")[1].split('"')[0]
                                                    .rsplit(":", 1)[1])
            if self.process.poll() is not None:
                raise RuntimeError("the server did not start: " + text)
            if time.monotonic() > deadline:
                raise RuntimeError("the server did not start in time: " + text)
            time.sleep(0.005)
        if ready:
            self.wait_ready()

    def wait_ready(self, seconds=PATIENCE):
        deadline = time.monotonic() + seconds
        try:
            while self.get("/readyz").status != 200:
                if time.monotonic() > deadline:
                    raise RuntimeError("not ready in time")
                time.sleep(0.005)
        except OSError as e:
            log = open(self.log_path, errors="replace").read()
            raise RuntimeError(f"the server ended before it was ready; it said: {log[-4000:]}") from e

    @contextlib.contextmanager
    def held(self, step=0):
        """The fake engine stands still, or when its pictures have come to a step of the first stage:
        inside, what runs goes on running and can be cancelled, and what waits goes on waiting."""
        with open(self.hold_path, "w") as f:
            f.write(str(step))
        try:
            yield
        finally:
            os.unlink(self.hold_path)

    @property
    def log(self):
        return open(self.log_path, errors="replace").read()

    def sql(self, text):
        """The rows of a statement on the tables of the store; a statement on SQLite's needs a stopped server."""
        if STORE == "postgres":
            rows = _cluster.sql("SET search_path = imagend; " + text, self.store_flags[-1].split("dbname=")[1])
            return [tuple(int(v) if v.lstrip("-").isdigit() else v for v in row.split("|"))
                    for row in rows.splitlines()]
        db = sqlite3.connect(os.path.join(self.folder, "data", "jobs.sqlite"), isolation_level=None)
        try:
            return db.execute(text).fetchall()
        finally:
            db.close()

    def stop(self, sig=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        code = self.process.returncode if self.process else None
        return code

    def close(self, status=0):
        """Ends the server, whose exit status must be the given one. Returns it."""
        code = self.stop()
        log = self.log[-3000:] if self.process else ""
        if self.own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        assert code == status, f"the server ended with {code}, not {status}: {log}"
        return code

    def connect(self, timeout=PATIENCE, source=None):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout,
                                          source_address=source and (source, 0))

    def request(self, method, path, body=None, headers=None, source=None):
        """source: the address to come from, such as 127.0.0.2 for another client."""
        connection = self.connect(source=source)
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body=body, headers=headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.request("GET", path, headers={k.replace("_", "-"): v
                                                  for k, v in headers.items()})

    def post(self, path, body=None, **headers):
        return self.request("POST", path, body, {k.replace("_", "-"): v
                                                 for k, v in headers.items()})

    def delete(self, path, **headers):
        return self.request("DELETE", path, headers={k.replace("_", "-"): v
                                                     for k, v in headers.items()})

    def raw(self, data, read=True, timeout=PATIENCE):
        """Send bytes as they are; what comes back until the other side closes or is silent."""
        s = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        s.sendall(data)
        if not read:
            return s
        got = b""
        try:
            while chunk := s.recv(65536):
                got += chunk
        except (TimeoutError, ConnectionError):
            pass
        s.close()
        return got

    def send_endless_body(self, path):
        """Sends a chunked body that has no end; it must be given up soon after its limit."""
        sent = 0
        with self.raw(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                      "Transfer-Encoding: chunked\r\n\r\n".encode(), read=False) as c:
            try:
                while sent < 64 << 20:
                    c.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
                    sent += 65536
            except OSError:
                pass
        assert sent < 32 << 20, "the connection was not closed"

    def events(self, method, path, body=None, headers=None):
        """Yields (event, id, data) of a stream of server-sent events."""
        connection = self.connect()
        headers = dict(headers or {})
        if body is not None:
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        assert response.status == 200, (response.status, response.read())
        assert response.getheader("Content-Type").startswith("text/event-stream")
        assert response.getheader("Cache-Control") == "no-store"
        assert response.getheader("X-Accel-Buffering") == "no", "a proxy would hold it back"
        event = {}
        try:
            while line := response.readline():
                line = line.decode().rstrip("\n")
                if not line and "event" in event:
                    yield event["event"], event.get("id"), json.loads(event["data"])
                    event = {}
                elif not line.startswith(":") and ": " in line:
                    key, value = line.split(": ", 1)
                    event[key] = value
        finally:
            connection.close()

    def draw(self, prompt="a", size="64x64", **fields):
        headers = fields.pop("headers", {})
        return self.request("POST", "/v1/images/generations",
                            {"prompt": prompt, "size": size, **fields}, headers)

    def wait_job(self, job, seconds=PATIENCE, **headers):
        deadline = time.monotonic() + seconds
        while True:
            answer = self.get("/v1/jobs/" + job, **headers)
            if answer.status == 200 and answer.json["status"] in ("done", "failed", "cancelled"):
                return answer.json
            if time.monotonic() > deadline:
                raise AssertionError(f"job {job} did not end: {answer.body}")
            time.sleep(0.01)


def is_png(data, size=None):
    return (data[:8] == b"\x89PNG\r\n\x1a\n" and
            (size is None or int.from_bytes(data[16:20], "big") == size))


def make_png(width, height, pixel):
    """A PNG of 8 bits; pixel(x, y): three values, or four with alpha."""
    def chunk(kind, data):
        return (len(data).to_bytes(4, "big") + kind + data +
                zlib.crc32(kind + data).to_bytes(4, "big"))
    rows = [b"".join(bytes(pixel(x, y)) for x in range(width)) for y in range(height)]
    kind = 6 if len(rows[0]) == 4 * width else 2
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, kind, 0, 0, 0])
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) +
            chunk(b"IDAT", zlib.compress(b"".join(b"\0" + r for r in rows))) + chunk(b"IEND", b""))


def png_texts(data):
    """The text chunks of a PNG file."""
    at, texts = 8, {}
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + n]
        if kind == b"tEXt":
            key, value = body.split(b"\0", 1)
            texts[key.decode()] = value.decode("latin-1")
        elif kind == b"iTXt":
            key, rest = body.split(b"\0", 1)
            texts[key.decode()] = rest[2:].split(b"\0", 2)[2].decode()
        at += 12 + n
    return texts


def read_png(data):
    """(width, height, rows of RGB bytes) of a PNG of 8 bits that is not interlaced."""
    width, height = (int.from_bytes(data[i:i + 4], "big") for i in (16, 20))
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:26] == b"\x08\x02", "not a PNG of 8 bits in RGB"
    at, packed = 8, b""
    while at < len(data):
        size = int.from_bytes(data[at:at + 4], "big")
        packed += data[at + 8:at + 8 + size] if data[at + 4:at + 8] == b"IDAT" else b""
        at += 12 + size
    raw, span, before, rows = zlib.decompress(packed), 3 * width, bytes(3 * width), []
    for y in range(height):
        how, row = raw[y * (span + 1)], bytearray(raw[y * (span + 1) + 1:(y + 1) * (span + 1)])
        for i in range(span):
            a, c = (row[i - 3], before[i - 3]) if i >= 3 else (0, 0)
            b = before[i]
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            row[i] = row[i] + (0, a, b, (a + b) // 2, nearest)[how] & 255
        before = bytes(row)
        rows.append(before)
    return width, height, rows


def b64(answer, i=0):
    return base64.b64decode(answer.json["data"][i]["b64_json"])


def eventually(check, seconds=PATIENCE, what="condition"):
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true in {seconds} s")
        time.sleep(0.01)


def main(tests):
    """Run the module's test_ functions; those with arguments share one default server. With TEST_STOPS_AT_FAILURE set,
    the first failure is the last."""
    shared = None
    passed = failed = skipped = 0
    for name, function in list(tests.items()):
        if not name.startswith("test_") or (len(sys.argv) > 2 and sys.argv[2] not in name):
            continue
        try:
            if inspect.signature(function).parameters:
                shared = shared or Server(*tests.get("FLAGS", ()), env=tests.get("ENV"))
                function(shared)
                assert shared.process.poll() is None, "the server died"
            else:
                function()
            passed += 1
        except Elsewhere as why:
            print(f"{name}: {why}", flush=True)
        except Skipped as why:
            skipped += 1
            print(f"{name}: skipped: {why}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {name}")
            traceback.print_exc()
            if shared:
                print(shared.log[-3000:])
            if os.environ.get("TEST_STOPS_AT_FAILURE"):
                break
    try:
        if shared:
            shared.close()
    except Exception:
        failed += 1
        print("FAILED: the end of the shared server")
        traceback.print_exc()
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed or not passed + skipped else 77 if skipped else 0)
