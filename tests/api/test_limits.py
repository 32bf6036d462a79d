"""Every limit of the service: at the limit, one beyond it, and both again after SIGHUP, which may or may not change
it. The sizes of requests are in test_ranges, with the check that every numeric option has a test."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from harness import PATIENCE, PROGRAM, STORE, Server, eventually, main, needs_store
from test_ops import bearer, keys_file, new_key

OPTIONS = dict(re.findall(r"^  --([a-z-]+) (N|BYTES|SECONDS)\b",
                          subprocess.run([PROGRAM, "serve", "--help"], capture_output=True,
                                         text=True).stdout, re.M))
RELOADED = set(re.findall(r"^\| `([a-z-]+)` \| [^|]* \| yes \|",
                          subprocess.run([PROGRAM, "config", "table"], capture_output=True,
                                         text=True).stdout, re.M))


class Limited:
    """A server whose options can be changed, with two keys."""

    def __init__(self, env=None, rates=("", ""), keys=True, **options):
        made = [new_key(name, "generate,read,admin") for name in "ab"]
        self.keys = dict(zip("ab", (key for key, _ in made)))
        self.lines = [line for _, line in made]
        self.path = keys_file(*(line + " " + rate for line, rate in zip(self.lines, rates)))
        self.with_keys = keys
        self.write(**options)
        self.server = Server("--config", self.path + ".conf", env=env)

    def write(self, **options):
        with open(self.path + ".conf", "w") as f:
            if self.with_keys:
                f.write(f"keys-file = {self.path}\n")
            for name, value in options.items():
                f.write(f"{name.replace('_', '-')} = {value}\n")

    def reload(self, **options):
        """Other options in place of all; what the log says of it."""
        self.write(**options)
        said = len(self.server.log)
        self.server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "config: reloaded" in self.server.log[said:], what="a reload")
        return self.server.log[said:]

    def ask(self, method, path, body=None, key="a", **headers):
        return self.server.request(method, path, body, {**bearer(self.keys[key]), **headers})

    def post(self, key="a", **fields):
        return self.ask("POST", "/v1/jobs", {"prompt": "a", "size": 64, **fields}, key)

    def done(self, key="a", **fields):
        return self.server.wait_job(self.post(key, **fields).json["id"], **bearer(self.keys[key]))

    def over(self, **fields):
        """The id of a job that has been done, and may be gone already."""
        job = self.post("a", **fields).json["id"]
        eventually(lambda: (a := self.ask("GET", "/v1/jobs/" + job)).status == 404 or a.json["status"] == "done",
                   what="the end of a job")
        return job

    def jobs(self, key="a"):
        return [j["id"] for j in self.ask("GET", "/v1/jobs?limit=100", key=key).json["data"]]

    def load(self):
        return self.ask("GET", "/v1/capabilities").json

    def close(self):
        shutil.rmtree(os.path.dirname(self.path))
        return self.server.close()


def test_options_that_need_a_restart_say_so():
    t = Limited()
    try:
        for name in OPTIONS:
            said = t.reload(**{name.replace("-", "_"): 1024 if name.startswith("max-") else 3})
            assert (f"changes to these options need a restart: {name}\n" in said) == (name not in RELOADED), (name, said)
    finally:
        t.close()


# ---- the queue --------------------------------------------------------------------------------

def waits(t, count):
    """A replica tells the others within a second what waits in it."""
    eventually(lambda: t.load()["queued"] == count, what=f"{count} that wait")


def fill(t, key, count):
    for n in [16] * (count // 16) + [count % 16] * (count % 16 > 0):
        assert t.post(key, n=n).status == 202, (key, n)


def refused(a, words):
    assert a.status == 429 and a.json["error"]["code"] == "queue_full", a.body
    assert a.json["error"]["type"] == "rate_limit_error" and int(a.headers["retry-after"]) >= 1
    assert words in a.json["error"]["message"], a.body


def clear(t):
    for key in "ab":
        for job in t.jobs(key):
            assert t.ask("DELETE", "/v1/jobs/" + job, key=key).status < 300


def test_queue_limit():
    t = Limited(env={"FAKE_SLOTS": "1"}, queue_limit=5)
    s = t.server
    try:
        for limit in (5, 2, 7):
            if limit != 5:
                t.reload(queue_limit=limit)
            assert t.load()["limits"]["queue"] == limit
            with s.held():
                t.post()
                eventually(lambda: t.load()["running"] == 1)
                a = t.post(n=limit + 1)
                assert a.status == 400 and a.json["error"]["param"] == "n", a.body
                fill(t, "a", limit - 1)
                assert t.post("b", n=2).status == 429, "two where one has room"
                fill(t, "b", 1)
                for key in "ab":
                    refused(t.post(key), "the queue is full")
                a = t.ask("POST", "/v1/images/generations", {"prompt": "a"})
                refused(a, "the queue is full")
                a = t.ask("POST", "/sdapi/v1/txt2img", {"prompt": "a"})
                assert a.status == 429 and int(a.headers["retry-after"]) >= 1 and a.json["detail"], a.body
                assert t.load()["queued"] == limit
                # A place that is free again is taken again.
                job = t.jobs("b")[0]
                assert t.ask("DELETE", "/v1/jobs/" + job, key="b").json["status"] == "cancelled"
                fill(t, "a", 1)
                refused(t.post(), "the queue is full")
                # Fewer than wait are not thrown away.
                t.reload(queue_limit=1)
                assert t.load()["queued"] == limit and t.post().status == 429
                t.reload(queue_limit=limit)
                clear(t)
            eventually(lambda: t.load()["running"] == 0)
    finally:
        t.close()


def test_queue_limit_per_key():
    t = Limited(env={"FAKE_SLOTS": "1"}, queue_limit_per_key=3)
    s = t.server
    try:
        for limit in (3, 1, 5):
            if limit != 3:
                t.reload(queue_limit_per_key=limit)
            assert t.load()["limits"]["queue_per_key"] == limit
            with s.held():
                t.post()
                eventually(lambda: t.load()["running"] == 1)
                assert t.post(n=limit + 1).status == 400
                fill(t, "a", limit)
                refused(t.post(), "this API key has too many")
                # Another key has room of its own.
                fill(t, "b", limit)
                refused(t.post("b"), "this API key has too many")
                clear(t)
            eventually(lambda: t.load()["running"] == 0)
    finally:
        t.close()
    # Without keys all requests are one owner's.
    t = Limited(env={"FAKE_SLOTS": "1"}, keys=False, queue_limit_per_key=2)
    try:
        with t.server.held():
            t.post()
            eventually(lambda: t.load()["running"] == 1)
            fill(t, "a", 2)
            refused(t.post("b"), "this API key has too many")
    finally:
        t.close()


def test_running_limit_per_key():
    t = Limited(env={"FAKE_SLOTS": "8"}, running_limit_per_key=2)
    s = t.server

    def states(key):
        j = t.ask("GET", "/v1/jobs", key=key).json["data"][0]
        return [i["status"] for i in j["images"]].count("running")
    try:
        with s.held():
            t.post(n=6)
            eventually(lambda: t.load()["running"] == 2)
            t.post("b", n=6)
            eventually(lambda: t.load()["running"] == 4)
            time.sleep(0.3)
            assert (states("a"), states("b")) == (2, 2)
            waits(t, 8)
            # More may run at once; fewer only when what runs has ended.
            t.reload(running_limit_per_key=3)
            eventually(lambda: (states("a"), states("b")) == (3, 3))
            t.reload(running_limit_per_key=1)
            time.sleep(0.3)
            assert t.load()["running"] == 6
            waits(t, 6)
            job = t.jobs("b")[0]
            t.ask("DELETE", "/v1/jobs/" + job, key="b")
            eventually(lambda: t.load()["running"] == 3)
            t.post("b", n=2)
            eventually(lambda: t.load()["running"] == 4)
            time.sleep(0.3)
            assert (states("a"), states("b")) == (3, 1)
            # 0 is no limit.
            t.reload(running_limit_per_key=0)
            eventually(lambda: t.load()["running"] == 8)
        for key in "ab":
            for job in t.jobs(key):
                assert s.wait_job(job, **bearer(t.keys[key]))["status"] in ("done", "cancelled")
    finally:
        t.close()


# ---- the store --------------------------------------------------------------------------------

def kept_folders(s, count):
    """Whether images are there of so many jobs only. Other stores have no folders."""
    return STORE != "sqlite" or len(os.listdir(os.path.join(s.folder, "data", "images"))) == count


def test_keep_seconds():
    t = Limited(keep_seconds=600)
    try:
        long = t.done()
        assert abs(long["expires"] - long["finished"] - 600) < 0.002, long
        t.reload(keep_seconds=2)
        assert t.load()["limits"]["keep_seconds"] == 2
        short = t.done()
        assert abs(short["expires"] - short["finished"] - 2) < 0.002, short
        href = short["images"][0]["href"]
        while time.time() < short["finished"] + 1.5:
            assert t.ask("GET", href).status == 200 or time.time() >= short["expires"]
            time.sleep(0.1)
        eventually(lambda: t.ask("GET", href).status == 404)
        assert time.time() >= short["expires"]
        assert t.jobs() == [long["id"]]
        assert kept_folders(t.server, 1)
    finally:
        t.close()


def settles(t, count):
    """The jobs that are kept, when as many are left and stay."""
    eventually(lambda: len(t.jobs()) == count, what=f"{count} jobs")
    time.sleep(0.5)
    return t.jobs()


def test_keep_jobs():
    t = Limited(keep_jobs=3)
    s = t.server
    try:
        made = [t.done()["id"] for _ in range(3)]
        assert settles(t, 3) == made[::-1]
        made += [t.done()["id"] for _ in range(2)]
        assert settles(t, 3) == made[:1:-1], "the oldest go first"
        with s.held():  # what has not ended does not count
            waiting = t.post().json["id"]
            assert settles(t, 4) == [waiting, *made[:1:-1]]
        s.wait_job(waiting, **bearer(t.keys["a"]))
        made.append(waiting)
        assert settles(t, 3) == made[:2:-1]
        t.reload(keep_jobs=1)
        assert settles(t, 1) == made[:-2:-1]
        t.reload(keep_jobs=4)
        made += [t.done()["id"] for _ in range(4)]
        assert settles(t, 4) == made[:-5:-1]
        assert kept_folders(s, 4)
    finally:
        t.close()


def test_keep_bytes():
    t = Limited()
    s = t.server
    try:
        size = t.done(seed=1)["images"][0]["bytes"]
        assert t.done(seed=1)["images"][0]["bytes"] == size
        for limit, count in ((3 * size, 3), (3 * size - 1, 2), (size, 1), (size - 1, 0), (4 * size, 4)):
            t.reload(keep_bytes=limit)
            made = [t.over(seed=1) for _ in range(4)]
            assert settles(t, count) == made[::-1][:count], (limit, count)
            text = t.ask("GET", "/metrics").body.decode()
            assert f"imagend_kept_bytes {count * size}\n" in text and f"imagend_jobs {count}\n" in text
            assert kept_folders(s, count)
        t.reload()
        if STORE == "memory":
            return
        # And the sum is right again after a restart, of several images, and with one removed.
        two = sum(i["bytes"] for i in t.done(seed=1, n=2)["images"])
        assert s.stop() == 0
        s.start()
        eventually(lambda: f"imagend_kept_bytes {4 * size + two}\n" in t.ask("GET", "/metrics").body.decode())
        t.ask("DELETE", "/v1/jobs/" + t.jobs()[0])
        assert f"imagend_kept_bytes {4 * size}\n" in t.ask("GET", "/metrics").body.decode()
    finally:
        t.close()


# ---- connections ------------------------------------------------------------------------------

def test_max_connections():
    """As many as allowed are served, and one beyond only when one of them has left."""
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    t = Limited(keys=False, max_connections=20)
    s = t.server
    try:
        for i in range(2):
            crowd = [s.raw(request, read=False) for _ in range(20)]
            for c in crowd:
                assert c.recv(17) == b"HTTP/1.1 200 OK\r\n"
            assert b"imagend_http_connections 20\n" in crowd[19].recv(1 << 20)
            beyond = s.raw(request, read=False, timeout=1)
            try:
                raise AssertionError(f"served beyond the limit: {beyond.recv(100)}")
            except TimeoutError:
                pass
            crowd.pop().close()
            beyond.settimeout(PATIENCE)
            assert beyond.recv(17) == b"HTTP/1.1 200 OK\r\n"
            for c in (*crowd, beyond):
                c.close()
            if i == 0:
                assert "changes to these options need a restart: max-connections" in t.reload(max_connections=30)
    finally:
        t.close()
    # Those that never say what they want make room, too.
    s = Server("--max-connections", "20", "--receive-timeout", "1")
    try:
        crowd = [s.raw(b"GET ", read=False) for _ in range(40)]

        def serves():
            try:
                return s.get("/healthz").status == 200
            except ConnectionError:
                return False  # held up, and closed as well
        eventually(serves, what="room again")
        for c in crowd:
            c.close()
    finally:
        s.close()


def closes_after(c):
    """Seconds until the other side closes."""
    start = time.monotonic()
    try:
        while c.recv(65536):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - start


def test_receive_timeout():
    t = Limited(keys=False, receive_timeout=2, idle_timeout=600)
    s = t.server
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    try:
        assert "changes to these options need a restart: idle-timeout, receive-timeout" not in t.reload(
            receive_timeout=2, idle_timeout=600)
        assert "changes to these options need a restart: receive-timeout" in t.reload(receive_timeout=600,
                                                                         idle_timeout=600)
        # In time, in pieces; the next request has its own time.
        c = s.raw(b"", read=False)
        for _ in range(3):
            for part in (request[:10], request[10:20], request[20:]):
                c.sendall(part)
                time.sleep(0.3)
            assert c.recv(1000).startswith(b"HTTP/1.1 200"), "closed in time"
        # Not in time: a head, a body, a trickle.
        slow = [s.raw(data, read=False) for data in (
            request[:10], b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
            b"\r\nContent-Length: 100\r\n\r\n{")]
        c.sendall(request[:5])
        for one in (*slow, c):
            assert closes_after(one) < 20
    finally:
        t.close()


def test_idle_timeout():
    t = Limited(keys=False, receive_timeout=600, idle_timeout=2)
    s = t.server
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    try:
        assert "changes to these options need a restart: idle-timeout" in t.reload(receive_timeout=600, idle_timeout=600)
        used, fresh, busy = (s.raw(data, read=False) for data in (request, b"", request))
        for c in (used, busy):
            assert c.recv(1000).startswith(b"HTTP/1.1 200")
        start = time.monotonic()
        for _ in range(6):
            time.sleep(0.5)
            busy.sendall(request)
            assert busy.recv(1000).startswith(b"HTTP/1.1 200"), "it was not idle"
        for c in (used, fresh, busy):
            closes_after(c)
        assert 4 < time.monotonic() - start < 25, "after its last request"
        # A stream without news is not idle, and a request that waits for its image neither.
        with s.held():
            job = t.post().json["id"]
            stream = s.raw(f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
                           read=False)
            assert stream.recv(100).startswith(b"HTTP/1.1 200")
            answers = []
            thread = threading.Thread(target=lambda: answers.append(s.draw()))
            thread.start()
            time.sleep(3.5)
        got = b""
        while b"event: done" not in got:
            part = stream.recv(65536)
            assert part, "the stream was closed"
            got += part
        thread.join(PATIENCE)
        assert answers[0].status == 200
    finally:
        t.close()


def test_send_timeout():
    t = Limited(keys=False, send_timeout=2)
    s = t.server
    body = json.dumps({"prompt": "a", "n": 10}).encode()
    request = (b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
               b"application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    def begin():
        c = socket.socket()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        c.settimeout(PATIENCE)
        c.connect(("127.0.0.1", s.port))
        c.sendall(request)
        return c

    def finish(c):
        """How many responses come, with that of one more request."""
        got = b""
        try:
            c.sendall(last)
            while part := c.recv(1 << 20):
                got += part
        except ConnectionError:
            pass
        return got.count(b"HTTP/1.1 200 OK")

    def connections(count):
        return f"http_connections {count}\n" in s.get("/metrics").body.decode()
    try:
        assert "changes to these options need a restart: send-timeout" in t.reload(send_timeout=600)
        reader, sleeper = begin(), begin()
        assert reader.recv(1) == b"H"
        # Slow, but never silent for so long; longer in all than is allowed for silence.
        for _ in range(8):
            assert len(reader.recv(1 << 14)) > 1000
            time.sleep(0.5)
        assert finish(reader) == 1, "the first response has begun already"
        eventually(lambda: connections(1), what="the end of who does not read")
        assert finish(sleeper) <= 1
    finally:
        t.close()


# ---- the engine and the end -------------------------------------------------------------------

def test_slots():
    t = Limited(keys=False, slots=3)
    try:
        for i in range(2):
            assert t.load()["slots"] == 3
            with t.server.held():
                job = t.post(n=4).json["id"]
                eventually(lambda: t.load()["running"] == 3)
                time.sleep(0.2)
                assert t.load()["running"] == 3
                waits(t, 1)
            assert t.server.wait_job(job)["status"] == "done"
            if i == 0:
                assert "changes to these options need a restart: slots" in t.reload(slots=5)
    finally:
        t.close()


def check_bytes_of_the_engine(option):
    field = option.replace("-", "_")
    with tempfile.TemporaryDirectory() as folder:
        seen = os.path.join(folder, "seen")
        for text, want in (("5G", 5 << 30), ("0", 0), ("1234567", 1234567)):
            t = Limited(keys=False, env={"FAKE_SEEN": seen}, **{field: text})
            try:
                with open(seen) as f:
                    assert json.loads(f.readlines()[-1])[field] == want
                assert f"changes to these options need a restart: {option}" in t.reload(**{field: "7G"})
            finally:
                t.close()


def test_memory_limit():
    """The engine's to keep: test_ops of the engine; here, that it is told, in bytes."""
    check_bytes_of_the_engine("memory-limit")


def test_text_cache():
    """The engine's to keep: test_text_disk; here, that it is told."""
    check_bytes_of_the_engine("text-cache")


def test_drain_delay():
    for delay in (0, 1.5):
        t = Limited(keys=False, drain_delay=delay, drain_timeout=5)
        s = t.server
        assert "changes to these options need a restart: drain-delay" in t.reload(drain_delay=600, drain_timeout=5)
        c = s.connect()
        start = time.monotonic()
        s.process.send_signal(signal.SIGTERM)
        while delay and time.monotonic() - start < delay - 0.7:
            c.request("GET", "/v1/models")
            r = c.getresponse()
            r.read()
            assert r.status == 200, "it still serves"
        assert s.process.wait(PATIENCE) == 0
        assert delay <= time.monotonic() - start < delay + 15
        t.close()


def test_drain_timeout():
    """What ends in time is answered, what does not is given up; nothing new begins meanwhile."""
    needs_store("sqlite")  # in a fleet, others draw what waits: test_fleet.py
    for timeout, given in ((300, 200), (1, 503)):
        t = Limited(keys=False, env={"FAKE_SLOTS": "1"}, drain_timeout=timeout)
        s = t.server
        assert "changes to these options need a restart: drain-timeout" in t.reload(drain_timeout=timeout + 1)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(s.draw(steps=30)))
        with s.held():
            thread.start()
            eventually(lambda: t.load()["running"] == 1)
            queued = t.post().json["id"]
            later = threading.Thread(target=lambda: answers.append(s.draw("later")))
            later.start()
            eventually(lambda: t.load()["queued"] == 2)
            open_one, probes = s.connect(), [s.connect() for _ in range(3)]
            for c in (open_one, *probes):
                c.request("GET", "/healthz")
                c.getresponse().read()
            start = time.monotonic()
            s.process.send_signal(signal.SIGTERM)
            eventually(lambda: "draining" in s.log)
            # A connection that is open already is told that nothing is begun any more.
            def refuses():
                try:
                    open_one.request("POST", "/v1/jobs", json.dumps({"prompt": "a"}),
                                     {"Content-Type": "application/json"})
                    r = open_one.getresponse()
                    return r.status, r.getheader("connection"), r.getheader("retry-after"), r.read()
                except OSError:
                    return None
            told = refuses()
            if told and told[0] == 202:  # before the first tick of draining
                s.process.kill()
            assert told and told[0] == 503 and told[1] == "close" and int(told[2]) == 5, told
            for c, path, status in zip(probes, ("/healthz", "/readyz", "/metrics"), (200, 503, 200)):
                c.request("GET", path)
                r = c.getresponse()
                said = r.read()
                assert r.status == status and r.getheader("connection") == "close", (path, r.status)
                assert path != "/readyz" or b'"reason":"draining"' in said, said
                assert path != "/metrics" or b"imagend_ready 0\n" in said
            if timeout == 1:
                assert s.process.wait(PATIENCE) == 0
                assert 1 <= time.monotonic() - start < 20
        thread.join(PATIENCE)
        later.join(PATIENCE)
        assert s.process.wait(PATIENCE) == 0
        assert [a.status for a in answers] == [given] * 2, [a.body[:200] for a in answers]
        restart = time.time()
        s.start()
        try:
            j = s.wait_job(queued)
            assert j["status"] == "done" and j["started"] >= restart - 0.01, (j, restart)
        finally:
            t.close()


# ---- keys -------------------------------------------------------------------------------------

def test_rates_before_and_after_a_reload():
    """A reload changes a key's rate, and fills no bucket."""
    t = Limited(rates=("0.01/5", ""))
    s = t.server
    try:
        def spend():
            got = []
            while not got or got[-1].status == 200:
                got.append(t.ask("GET", "/v1/models"))
            a = got[-1]
            assert a.status == 429 and a.json["error"]["code"] == "rate_limit_exceeded", a.body
            return len(got) - 1, int(a.headers["retry-after"])
        assert spend() == (5, 60)
        assert t.ask("GET", "/v1/models", key="b").status == 200
        # What is limited is the key: every route that needs one.
        for method, path in (("POST", "/v1/jobs"), ("GET", "/metrics"), ("POST", "/sdapi/v1/interrupt")):
            assert t.ask(method, path, {} if method == "POST" else None).status == 429, path
        assert s.get("/healthz").status == 200
        for _ in range(2):
            t.reload()
            assert spend()[0] == 0
        with open(t.path, "w") as f:
            f.write(f"{t.lines[0]} 0.2/9\n{t.lines[1]} 0.01/2\n")
        t.reload()
        assert spend() == (0, 5)
        assert [t.ask("GET", "/v1/models", key="b").status for _ in range(3)] == [200, 200, 429]
        with open(t.path, "w") as f:
            f.write("\n".join(t.lines) + "\n")
        t.reload()
        for key in "ab":
            assert [t.ask("GET", "/v1/models", key=key).status for _ in range(9)] == [200] * 9
    finally:
        t.close()


if __name__ == "__main__":
    main(globals())
