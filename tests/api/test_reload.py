"""SIGHUP: everything is read and checked before anything takes effect; an error changes nothing."""
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time

from harness import PATIENCE, Server, eventually, main, needs
from test_ops import bearer, new_key, run


class Reloaded:
    """A server with a configuration and files of its own, and the keys that it began with."""

    def __init__(self, *flags, conf=""):
        self.folder = tempfile.mkdtemp(prefix="imagend-reload-")
        self.key, self.line = new_key("first", "generate,read,admin")
        self.write("keys", self.line + "\n")
        self.conf = f"keys-file = {self.path('keys')}\n{conf}"
        self.write("conf", self.conf)
        self.server = Server("--config", self.path("conf"), *flags)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)

    def reload(self):
        """Whether it said that it did; waits for the answer."""
        said = len(self.server.log)
        self.server.process.send_signal(signal.SIGHUP)

        def answer():
            new = self.server.log[said:]
            return next((line for line in new.splitlines() if "reloaded" in line), None)
        return "not reloaded" not in eventually(answer, what="an answer to SIGHUP")

    def close(self):
        code = self.server.close()
        shutil.rmtree(self.folder)
        return code


def get(s, path, key=None):
    return s.request("GET", path, headers=bearer(key) if key else {})


def test_no_reload_opens_the_server():
    """Each of these once left every route open to everyone."""
    r = Reloaded("--listen", "0.0.0.0:0")
    s, keys = r.server, r.path("keys")

    def check(what):
        for path in ("/v1/models", "/v1/jobs", "/metrics", "/sdapi/v1/options"):
            assert get(s, path).status == 401, (what, path)
            assert get(s, path, "wrong").status == 401, (what, path)
            assert get(s, path, r.key).status == 200, (what, path)
        assert s.post("/v1/jobs", {"prompt": "a"}).status == 401, what
    cases = (
        ("an empty keys file", "", None),
        ("comments only", "# nobody\n\n   \n# any more\n", None),
        ("a broken line", "first 123 read\n", None),
        ("one good line, one broken", r.line + "\nnonsense\n", None),
        ("a name twice", r.line + "\n" + r.line + "\n", None),
        ("no option", r.line, "log-level = debug\n"),
        ("an empty option", r.line, "keys-file =\n"),
        ("another file, which is empty", r.line, "keys-file = /dev/null\n"),
        ("another file, which is not there", r.line, "keys-file = /nowhere/keys\n"),
        ("allow-open, which needs a restart", r.line, "allow-open = true\n"),
        ("listen, which needs a restart", r.line, "listen = 127.0.0.1:0\n"),
        ("a mistake elsewhere", "", "queue-limit = many\n"),
    )
    try:
        check("the start")
        for what, text, conf in cases:
            r.write("keys", text)
            r.write("conf", r.conf if conf is None else conf)
            assert not r.reload(), what
            check(what)
        os.unlink(keys)
        r.write("conf", r.conf)
        assert not r.reload()
        check("no keys file")
        # And it still follows what is right.
        second, line = new_key("second", "read")
        r.write("keys", line + "\n")
        assert r.reload()
        assert get(s, "/v1/models", second).status == 200 and get(s, "/v1/models", r.key).status == 401
    finally:
        assert r.close() == 0


def test_keys_may_go_where_only_this_machine_reaches():
    """As at the start: without keys it is allowed on loopback, and then names are checked."""
    r = Reloaded()
    try:
        assert get(r.server, "/v1/models").status == 401
        r.write("conf", "")
        assert r.reload()
        assert "authentication is disabled" in r.server.log
        assert get(r.server, "/v1/models").status == 200
        assert r.server.get("/healthz", Host="evil.test").status == 421
    finally:
        assert r.close() == 0


def test_a_mistake_changes_nothing_else():
    """Every option that SIGHUP reads, changed beside one mistake; then without it."""
    r = Reloaded(conf="log-format = text\n")
    s = r.server
    changed = ("host-names = b.test\ncors-origins = https://b.test\npublic-url = https://b.test\n"
               "log-format = json\nqueue-limit = 1\n")

    def state():
        a = s.request("GET", "/v1/models", headers={"Origin": "https://b.test", **bearer(r.key)})
        full = s.request("POST", "/v1/jobs", {"prompt": "a", "size": 64, "n": 2}, bearer(r.key))
        return ("access-control-allow-origin" in a.headers,
                s.get("/healthz", Host="c.test").status == 421,
                '{"time"' in s.log.splitlines()[-1], full.status == 400)
    mistakes = (
        "keys-file = /nowhere", "keep-jobs = -1", "colour = red", "log-level = loud",
        "tls-cert = x", "tls-key = x", "tls-cert = /nowhere\ntls-key = /nowhere",
        "cors-origins = " + ", ".join(f"https://a{i}.test" for i in range(65)),
        "host-names = " + ", ".join(f"a{i}.test" for i in range(65)),
    )
    try:
        assert state() == (False,) * 4
        for mistake in mistakes:
            name = mistake.split(" ")[0]
            kept = "".join(line + "\n" for line in (r.conf.splitlines()[0] + "\n" + changed).splitlines()
                           if not line.startswith(name + " "))
            r.write("conf", kept + mistake + "\n")
            assert not r.reload(), mistake
            assert state() == (False,) * 4, mistake
            check = run("config", "check", "--config", r.path("conf"))
            assert check.returncode == 2 or name.startswith("tls"), (mistake, check)
        r.write("conf", r.conf.splitlines()[0] + "\n" + changed)
        assert r.reload()
        assert state() == (True,) * 4, state()
    finally:
        assert r.close() == 0


def certificate(folder, name, kind="rsa:2048"):
    """A new pair as (certificate, key), PEM texts."""
    cert, key = os.path.join(folder, "c.pem"), os.path.join(folder, "k.pem")
    option = ["-newkey", kind] if kind.startswith("rsa") else [
        "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:" + kind]
    subprocess.run(["openssl", "req", "-x509", *option, "-nodes", "-keyout", key, "-out", cert, "-days",
                    "2", "-subj", "/CN=" + name, "-addext", "subjectAltName=DNS:" + name],
                   check=True, capture_output=True)
    with open(cert) as c, open(key) as k:
        return c.read(), k.read()


def test_certificates_rotate():
    needs("openssl")
    r = Reloaded.__new__(Reloaded)
    r.folder = tempfile.mkdtemp(prefix="imagend-reload-")
    first, second, third = (certificate(r.folder, *a) for a in (
        ("one.test",), ("two.test", "P-256"), ("three.test",)))
    r.write("cert", first[0])
    r.write("key", first[1])
    r.conf = f"tls-cert = {r.path('cert')}\ntls-key = {r.path('key')}\n"
    r.write("conf", r.conf)
    r.server = s = Server("--config", r.path("conf"), start=False)
    s.start(ready=False)

    def name():
        """What `openssl s_client` is shown: a new connection each time. "subject=CN = one.test", or
        without spaces since OpenSSL 3.2."""
        out = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{s.port}"], input="",
                             capture_output=True, text=True, timeout=PATIENCE).stdout
        return next(line for line in out.splitlines() if line.startswith("subject=")).split("=")[-1].strip()

    def connect():
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(socket.create_connection(("127.0.0.1", s.port), PATIENCE))

    def ask(c):
        c.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got = b""
        while not got.endswith(b"}") and not got.endswith(b"}\n"):
            got += c.recv(1000)
        return got.startswith(b"HTTP/1.1 200")
    try:
        assert name() == "one.test"
        old = connect()
        assert ask(old)
        for what, cert, key in (
                ("another certificate", second[0], first[1]),
                ("another key", first[0], second[1]),
                ("no certificate", "", first[1]),
                ("half a certificate", second[0][:400], second[1]),
                ("no key", second[0], ""),
                ("half a key", second[0], second[1][:100]),
                ("the two exchanged", second[1], second[0])):
            r.write("cert", cert)
            r.write("key", key)
            assert not r.reload(), what
            assert name() == "one.test", what
            check = run("config", "check", "--config", r.path("conf"))
            assert check.returncode == 2 and "tls-" in check.stderr, (what, check)
        os.unlink(r.path("key"))
        assert not r.reload()
        assert name() == "one.test"
        for which, subject in ((second, "two.test"), (third, "three.test"), (third, "three.test")):
            waiting = socket.create_connection(("127.0.0.1", s.port), PATIENCE)  # no handshake yet
            r.write("cert", which[0])
            r.write("key", which[1])
            assert r.reload()
            assert name() == subject
            assert ask(old), "an open connection goes on"
            waiting.close()
        # Another place is fine, another protocol needs a restart.
        shutil.move(r.path("cert"), r.path("cert2"))
        r.write("conf", r.conf.replace("/cert", "/cert2"))
        assert r.reload() and name() == "three.test"
        r.write("conf", "")
        assert not r.reload() and "needs a restart" in s.log
        assert name() == "three.test" and ask(old)
        old.close()
    finally:
        assert s.close() == 0
        shutil.rmtree(r.folder)


def test_many_reloads_under_load():
    """Handshakes and requests while the certificate changes under them."""
    needs("openssl")
    folder = tempfile.mkdtemp(prefix="imagend-reload-")
    pairs = [certificate(folder, "a.test"), certificate(folder, "b.test", "P-256")]
    paths = [os.path.join(folder, n) for n in ("cert", "key")]

    def put(pair):
        for path, text in zip(paths, pair):
            with open(path + ".new", "w") as f:
                f.write(text)
            os.rename(path + ".new", path)
    put(pairs[0])
    s = Server("--tls-cert", paths[0], "--tls-key", paths[1], start=False)
    s.start(ready=False)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        end = time.monotonic() + 4
        served = 0
        while time.monotonic() < end or served < 20:
            raw = socket.create_connection(("127.0.0.1", s.port), PATIENCE)
            put(pairs[served % 2])
            s.process.send_signal(signal.SIGHUP)
            with context.wrap_socket(raw) as c:
                c.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert c.recv(100).startswith(b"HTTP/1.1 200")
            served += 1
        assert s.log.count(" reloaded") > 1
    finally:
        assert s.close() == 0
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(globals())
