"""Webhooks: off by default, allowed hosts only, signed, retried."""
import hashlib
import hmac
import http.server
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time

from harness import PATIENCE, PROGRAM, Server, eventually, main, needs_store

SECRET = "a-secret-of-some-length"


class Receiver:
    """Answers with the statuses given, then 200; remembers what came, and when."""

    def __init__(self, *statuses, port=0):
        got, statuses = [], list(statuses)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                got.append((dict(self.headers), body, time.monotonic()))
                status = statuses.pop(0) if statuses else 200
                self.send_response(status)
                if status // 100 == 3:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *args):
                pass

        self.got = got
        self.server = http.server.HTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hook"

    def told(self):
        """What came, as (id, status)."""
        return [(data["id"], data["status"]) for data in (json.loads(body) for _, body, _ in self.got)]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def serve(allow, secret=SECRET + "\n", **more):
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "secret")
    with open(path, "w") as f:
        f.write(secret)
    return Server("--webhook-allow", allow, "--webhook-secret-file", path, **more)


def job(s, url, **fields):
    return s.post("/v1/jobs", {"prompt": "a", "size": 64, "webhook_url": url, **fields})


def signed(got, secret):
    """The time at which a delivery was signed with this secret."""
    headers, body, _ = got
    stamp, mac = (part.split("=")[1] for part in headers["X-Imagend-Signature"].split(","))
    assert mac == hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return int(stamp)


def test_the_secret_rotates():
    r = Receiver()
    folder = tempfile.mkdtemp()
    path, conf, other = (os.path.join(folder, name) for name in ("secret", "conf", "other"))

    def write(name, text):
        with open(name, "w") as f:
            f.write(text)

    def reload(expected):
        said = len(s.log)
        s.process.send_signal(signal.SIGHUP)
        eventually(lambda: expected in s.log[said:], what=expected)

    def deliver(secret):
        before = len(r.got)
        assert job(s, r.url).status == 202
        eventually(lambda: len(r.got) > before, what="delivery")
        signed(r.got[-1], secret)

    write(path, SECRET)
    write(other, "the-secret-of-another-file")
    write(conf, f"webhook-allow = 127.0.0.1\nwebhook-secret-file = {path}\n")
    s = Server("--config", conf)
    try:
        deliver(SECRET)
        write(path, "a-new-secret-of-some-length\n")
        deliver(SECRET)
        reload("config: reloaded")
        deliver("a-new-secret-of-some-length")
        write(path, "short")
        reload("at least 16 bytes long")
        os.unlink(path)
        reload("not reloaded")
        deliver("a-new-secret-of-some-length")
        write(conf, f"webhook-allow = 127.0.0.1\nwebhook-secret-file = {other}\n")
        reload("config: reloaded")
        deliver("the-secret-of-another-file")
        assert "secret-of" not in s.log
    finally:
        assert s.close() == 0
        r.close()


def test_signed_and_tried_again():
    r = Receiver(500)
    s = serve("127.0.0.1")
    try:
        a = job(s, r.url, n=2)
        assert a.status == 202
        eventually(lambda: len(r.got) == 2, what="second try")
        assert r.got[1][2] - r.got[0][2] >= 1, "it was tried again at once"
        headers, body, _ = r.got[1]
        data = json.loads(body)
        assert data["id"] == a.json["id"] and data["status"] == "done" and data["error"] is None
        assert data["object"] == "job" and data["created"] <= data["finished"]
        done = s.get("/v1/jobs/" + a.json["id"]).json
        assert data["images"] == [{k: i[k] for k in ("index", "width", "height", "href")}
                                  for i in done["images"]], data
        assert headers["Content-Type"] == "application/json"
        assert abs(signed(r.got[1], SECRET) - time.time()) < PATIENCE
        eventually(lambda: "delivered" in s.log)
        assert len(r.got) == 2
        assert SECRET not in s.log
    finally:
        assert s.close() == 0


def test_a_silent_receiver_delays_nobody():
    """One that never answers has ten seconds; the others are told meanwhile, and the service can end."""
    r, s = Receiver(), serve("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert job(s, f"http://127.0.0.1:{silent.getsockname()[1]}/").status == 202
        silent.settimeout(PATIENCE)
        connection, _ = silent.accept()
        begin = time.monotonic()
        with connection:
            assert job(s, r.url).status == 202
            eventually(lambda: r.got, seconds=8, what="a delivery before the silent receiver's time is up")
            assert s.close() == 0
            assert time.monotonic() - begin < 9.5
    r.close()


def test_failures_and_cancels_are_told():
    """Whatever ends a job is told: it fails, it is cancelled while queued or drawn, its time is over."""
    r = Receiver()
    s = serve("127.0.0.1", env={"FAKE_SLOTS": "1"})
    try:
        failed = job(s, r.url, prompt="[fail]").json["id"]
        eventually(lambda: len(r.got) == 1)
        data = json.loads(r.got[0][1])
        assert (data["id"], data["status"]) == (failed, "failed") and data["images"] == []
        assert data["error"] == s.get("/v1/jobs/" + failed).json["error"], data
        assert data["error"]["code"] == "not_finite"
        with s.held():
            running = job(s, r.url).json["id"]
            eventually(lambda: s.get("/v1/jobs/" + running).json["status"] == "running")
            queued = job(s, r.url).json["id"]
            late = eventually(lambda: job(s, r.url, deadline=int(time.time()) + 2).json.get("id"))
            silent = job(s, None).json["id"]
            for gone in (queued, running, silent):
                assert s.delete("/v1/jobs/" + gone).json["status"] == "cancelled"
            eventually(lambda: len(r.got) == 4, what="three more calls")
        told = dict(r.told())
        assert told == {failed: "failed", queued: "cancelled", running: "cancelled", late: "failed"}, told
        for _, body, _ in r.got[1:]:
            data = json.loads(body)
            assert data["images"] == [] and (data["error"] is None) == (data["id"] != late), data
            assert data["error"] is None or data["error"]["code"] == "timeout"
    finally:
        assert s.close() == 0


def test_only_2xx_is_delivered():
    s = serve("127.0.0.1")
    calls = {}
    try:
        for status in (200, 201, 204, 299, 300, 301, 302, 307, 308, 400, 404, 410, 429, 503):
            r = Receiver(status)
            calls[status] = r, job(s, r.url).json["id"]
        for status, (r, made) in calls.items():
            tries = 1 if status < 300 else 2
            eventually(lambda: made + ": delivered" in s.log, what=f"delivery after {status}")
            # A redirection is not followed: the second call is the first one again.
            assert r.told() == [(made, "done")] * tries, (status, r.told())
            assert (f"{made}: the receiver responded with status {status}" in s.log) == (tries > 1), s.log
    finally:
        s.close()
        for r, _ in calls.values():
            r.close()


def test_results_stay_until_they_were_told():
    """Neither time nor room takes a job away whose webhook was not called yet."""
    r = Receiver(500)
    s = serve("127.0.0.1")
    s.flags += ["--keep-seconds", "1", "--keep-jobs", "1"]
    assert s.stop() == 0
    s.start()
    try:
        made = job(s, r.url).json["id"]
        s.wait_job(made)
        others = [job(s, None).json["id"] for _ in range(2)]  # they may be gone at once
        eventually(lambda: len(r.got) == 2, what="the second try")
        eventually(lambda: made + ": delivered" in s.log)
        for gone in (made, *others):
            eventually(lambda: s.get("/v1/jobs/" + gone).status == 404, what="an end of keeping")
    finally:
        s.close()
    # Without webhooks there is nobody to wait for.
    r = Receiver(*[500] * 20)
    s = serve("127.0.0.1")
    made = job(s, r.url).json["id"]
    s.wait_job(made)
    eventually(lambda: r.got)
    assert s.stop() == 0
    s.flags = [*s.store_flags, "--keep-bytes", "1"]
    s.start()
    try:
        eventually(lambda: s.get("/v1/jobs/" + made).status == 404)
    finally:
        s.close()


def rows(s):
    """(tries, next, finished) of each job of a stopped server, by id."""
    return {row[0]: row[1:] for row in s.sql("SELECT id, webhook_tries, webhook_next, finished FROM job")}


def test_pending_calls_survive_a_restart():
    """Those that failed, and those that were never made, since the server ended with the job."""
    needs_store("sqlite", "postgres")
    closed = socket.create_server(("127.0.0.1", 0))  # nobody answers here until later
    port = closed.getsockname()[1]
    closed.close()
    for sig in (signal.SIGTERM, signal.SIGKILL):
        s = serve("127.0.0.1")
        try:
            made = job(s, f"http://127.0.0.1:{port}/x").json["id"]
            s.wait_job(made)
            eventually(lambda: made + ": " in s.log, what="a call that fails")
            s.process.send_signal(sig)
            s.process.wait()
            tries, due, finished = rows(s)[made]
            assert tries <= 1 and due >= finished > 0, (tries, due, finished)
            r = Receiver(port=port)
            s.start()
            eventually(lambda: r.told() == [(made, "done")], what="delivery after the restart")
            eventually(lambda: "delivered" in s.log)
            assert s.stop() == 0
            # And it is not told again.
            assert rows(s)[made][1] == 0, rows(s)
            s.start()
            job(s, r.url)
            eventually(lambda: len(r.got) == 2)
            assert r.told()[1][0] != made
        finally:
            s.close()
            r.close()


def test_when_it_is_tried_again_and_given_up():
    """Six tries: after 1, 4, 16, 64 and 256 s. The store tells what would take too long to wait for."""
    needs_store("sqlite", "postgres")
    r = Receiver(*[500] * 12)
    s = serve("127.0.0.1", start=False)
    s.start()
    try:
        made = [job(s, f"{r.url}{i}").json["id"] for i in range(6)]
        for i in made:
            s.wait_job(i)
        eventually(lambda: len(r.got) >= 6)
        assert s.stop() == 0
        for tries, i in enumerate(made):
            s.sql(f"UPDATE job SET webhook_tries = {tries}, webhook_next = 1 WHERE id = '{i}'")
        del r.got[:]
        start = time.time()
        s.start()
        eventually(lambda: "giving up" in s.log, what="the end of the sixth try")
        eventually(lambda: len({i for i, _ in r.told()}) == 6, what="all jobs")
        assert s.stop() == 0
        end = time.time()
        assert s.log.count("giving up") == 1 and made[5] + ": delivery failed, giving up" in s.log
        for tries, i in enumerate(made):
            done, due, _ = rows(s)[i]
            if tries == 5:
                assert (done, due) == (6, 0)
            elif tries == 0 and done > 1:
                pass  # a machine that was slow enough for another try
            else:
                assert done == tries + 1, (tries, done)
                assert start + 4 ** tries <= due / 1000 <= end + 4 ** tries, (tries, due / 1000 - start)
    finally:
        s.close()


def test_a_secret_is_needed():
    for secret, works in (("x" * 15, False), ("x" * 15 + "\n", False), ("x" * 16, True), ("", False)):
        try:
            s = serve("127.0.0.1", secret=secret)
        except RuntimeError as error:
            assert not works and "16 bytes" in str(error), error
            continue
        assert s.close() == 0 and works, secret
    r = subprocess.run([PROGRAM, "serve", "--webhook-allow", "a.test", "--store", "memory", "--listen",
                        "127.0.0.1:0"], capture_output=True, text=True, timeout=PATIENCE)
    assert r.returncode == 1 and "webhook-secret-file" in r.stderr, r


def test_only_allowed_hosts():
    s = serve("hooks.example.com, *.example.org, *.localhost")
    try:
        for url in ("http://127.0.0.1/x", "http://evil.com/", "http://example.org/",
                    "ftp://hooks.example.com/", "http://hooks.example.com.evil.com/",
                    "http://x@evil.com/", "http://evilexample.org/", "not a url"):
            a = job(s, url)
            assert a.status == 400 and a.json["error"]["param"] == "webhook_url", (url, a.body)
        # A name that a pattern allows, but that points at a private address.
        r = Receiver()
        assert job(s, f"http://a.localhost:{r.port}/").status == 202
        eventually(lambda: s.log.count("webhook: job_") >= 1, what="refusal in the log")
        assert not r.got
    finally:
        assert s.close() == 0


def test_off_by_default():
    s = Server()
    try:
        assert job(s, "http://hooks.example.com/").status == 400
    finally:
        assert s.close() == 0


if __name__ == "__main__":
    main(globals())
