"""Webhooks: off by default, allowed hosts only, signed, tried again."""
import hashlib
import hmac
import http.server
import json
import os
import tempfile
import threading

from harness import Server, eventually, main

SECRET = "a-secret-of-some-length"


class Receiver:
    """Answers with the statuses given, then 200; remembers what came."""

    def __init__(self, *statuses):
        got, statuses = [], list(statuses)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                got.append((dict(self.headers), body))
                self.send_response(statuses.pop(0) if statuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.got = got
        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def serve(allow):
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "secret")
    with open(path, "w") as f:
        f.write(SECRET + "\n")
    return Server("--webhook-allow", allow, "--webhook-secret-file", path)


def job(s, url):
    return s.post("/v1/jobs", {"prompt": "a", "size": 64, "webhook_url": url})


def test_signed_and_tried_again():
    r = Receiver(500)
    s = serve("127.0.0.1")
    try:
        a = job(s, f"http://127.0.0.1:{r.port}/hook")
        assert a.status == 202
        eventually(lambda: len(r.got) == 2, what="second try")
        headers, body = r.got[1]
        data = json.loads(body)
        assert data["id"] == a.json["id"] and data["status"] == "done" and len(data["images"]) == 1
        stamp, mac = (part.split("=")[1] for part in headers["X-Imagend-Signature"].split(","))
        want = hmac.new(SECRET.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        assert mac == want
        eventually(lambda: "delivered" in s.log)
        assert len(r.got) == 2
    finally:
        assert s.close() == 0


def test_failures_and_cancels_are_told():
    r = Receiver()
    s = serve("127.0.0.1")
    try:
        s.post("/v1/jobs", {"prompt": "[fail]", "size": 64,
                            "webhook_url": f"http://127.0.0.1:{r.port}/"})
        eventually(lambda: len(r.got) == 1)
        data = json.loads(r.got[0][1])
        assert data["status"] == "failed" and data["error"]["code"] == "not_finite"
    finally:
        assert s.close() == 0


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
