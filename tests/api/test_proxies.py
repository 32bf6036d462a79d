"""nginx, Caddy and HAProxy with the configurations of deploy/ in front of the server: at the root of
a host and below a path prefix, with TLS and without, by name. Some tests take each proxy and each
address once, and every pair of them only with TEST_CASES=all in the environment."""
import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from harness import PATIENCE, UNTOLD, Server, eventually, is_png, main, needs, skip
from test_haproxy import free_port
from test_reload import certificate

HERE = os.path.dirname(os.path.abspath(__file__))
DEPLOY = os.path.join(HERE, "..", "..", "deploy")
CLIENT = "127.0.0.5"  # where requests come from, to be told from the proxy
ALL = os.environ.get("TEST_CASES") == "all"
FOUND = [name for name in ("nginx", "caddy", "haproxy") if shutil.which(name)]

if not FOUND or not shutil.which("openssl"):
    print("skipped: nginx, caddy, haproxy or openssl is not installed")
    sys.exit(77)


def example(name, changes):
    """A file of deploy/ with other addresses; each text must be there."""
    with open(os.path.join(DEPLOY, name)) as f:
        text = f.read()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


class Proxy:
    """One proxy process in a folder of its own. port: HTTPS, plain: HTTP, both on loopback."""

    def __init__(self, kind, server_port, changes=()):
        self.changes = changes
        self.folder = tempfile.mkdtemp(prefix="imagend-proxy-")
        self.port, self.plain = free_port(), free_port()
        cert, key = certificate(self.folder, "*.test")
        for name, text in (("cert", cert), ("key", key), ("both.pem", cert + key)):
            self.write(name, text)
        command = getattr(self, kind)(server_port)
        self.log = open(self.path("log"), "wb")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=self.folder,
                                        env={**os.environ, "HOME": self.folder,
                                             "XDG_DATA_HOME": self.folder,
                                             "XDG_CONFIG_HOME": self.folder})
        for port in (self.port, self.plain):
            eventually(lambda: self.answers(port), what=f"{kind} on port {port}")

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)

    def answers(self, port):
        assert self.process.poll() is None, open(self.path("log"), errors="replace").read()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False

    def nginx(self, server_port):
        site = example("nginx.conf", (
            ("server 127.0.0.1:8080", f"server 127.0.0.1:{server_port}"),
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl; listen 127.0.0.1:{self.plain};"),
            ("/etc/ssl/images.example.org.pem", self.path("cert")),
            ("/etc/ssl/images.example.org.key", self.path("key")),
            ("/etc/ssl/example.org.pem", self.path("cert")),
            ("/etc/ssl/example.org.key", self.path("key")),
            ("server_name images.example.org", "server_name images.test"),
            ("server_name example.org", "server_name example.test"), *self.changes))
        self.write("site.conf", site)
        temp = " ".join(f"{kind}_temp_path {self.path(kind)};" for kind in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.getuid() == 0 else ""
        self.write("conf", f"{user} daemon off; pid {self.path('pid')}; events {{}} error_log stderr;\n"
                   f"http {{ access_log off; {temp} include {self.path('site.conf')}; }}\n")
        return ["nginx", "-e", "stderr", "-p", self.folder, "-c", self.path("conf")]

    def caddy(self, server_port):
        def site(name):
            return f"\nhttps://{name}:{self.port}, http://{name}:{self.plain} {{"
        text = example("Caddyfile", (
            ("127.0.0.1:8080", f"127.0.0.1:{server_port}"),
            ("\nimages.example.org {", site("images.test")),
            ("\nexample.org {", site("example.test"))))
        options = ("admin off", "auto_https disable_redirects", "local_certs", "skip_install_trust",
                   "default_bind 127.0.0.1")
        self.write("Caddyfile", "{\n\t" + "\n\t".join(options) + "\n}\n" + text)
        return ["caddy", "run", "--config", self.path("Caddyfile"), "--adapter", "caddyfile"]

    def haproxy(self, server_port):
        text = example("haproxy.cfg", (
            ('bind "${LISTEN-:8080}"', f"bind 127.0.0.1:{self.plain}\n"
             f"    bind 127.0.0.1:{self.port} ssl crt {self.path('both.pem')}"),
            ("    server two", "    # server two"),
            ("timeout connect 2s\n", f"timeout connect {PATIENCE}s\n"),
            ("timeout check 5s\n", f"timeout check {PATIENCE}s\n"),
            ("${REPLICA_1-replica-1:8080}", f"127.0.0.1:{server_port}")))
        self.write("conf", text)
        return ["haproxy", "-db", "-f", self.path("conf")]

    def close(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def addresses(self):
        """All ways that the configuration offers."""
        return [f"{scheme}://{name}:{port}{path}" for scheme, port in
                (("https", self.port), ("http", self.plain))
                for name, path in (("images.test", "/"), ("example.test", "/imagend/"))]


class At:
    """Requests to a base address from CLIENT, whatever its name resolves to."""

    def __init__(self, base):
        self.base = base
        self.scheme, rest = base.split("://")
        self.host, self.path = rest.split("/", 1)

    def connect(self):
        port = int(self.host.rsplit(":", 1)[1])
        c = http.client.HTTPConnection("127.0.0.1", port, PATIENCE, source_address=(CLIENT, 0))
        if self.scheme == "https":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            c.connect()
            c.sock = context.wrap_socket(c.sock, server_hostname=self.host.split(":")[0])
        return c

    def ask(self, method, path, body=None, **more):
        """The connection's response; path is relative to the base, or from the root."""
        c = self.connect()
        path = path if path.startswith("/") else "/" + self.path + path
        headers = {"Host": self.host, **{k.replace("_", "-"): v for k, v in more.items()}}
        if isinstance(body, dict):
            body = json.dumps(body)
            headers["Content-Type"] = "application/json"
        c.request(method, path, body, headers)
        r = c.getresponse()
        r.connection = c
        return r

    def read(self, method, path, body=None, **more):
        r = self.ask(method, path, body, **more)
        r.text = r.read()
        r.connection.close()
        return r


@contextlib.contextmanager
def behind(kind, *flags, changes=(), **env):
    server = Server(*flags, env=env)
    proxy = Proxy(kind, server.port, changes)
    try:
        yield server, proxy
    except Exception:
        with open(proxy.path("log"), errors="replace") as f:
            asked = [line for line in server.log.splitlines() if "path=/v1/capabilities" not in line]
            print(f"{kind}:", f.read()[-3000:], "imagend:", *asked[-20:], sep="\n")
        raise
    finally:
        proxy.close()
        assert server.close() == 0


def check_page(at):
    for path, kind, text in (("", "text/html", b"imagend"), ("page/page.css", "text/css", b"{"),
                             ("page/api.js", "text/javascript", b"fetch"), ("docs", "text/html", b"<h2>"),
                             ("openapi.json", "application/json", b"/v1/jobs")):
        r = at.read("GET", path)
        assert r.status == 200 and text in r.text, (at.base, path, r.status, r.text)
        assert r.getheader("content-type").startswith(kind), (at.base, path)
    for path in ("metrics", "metrics/", "/" + at.path + "/metrics", "%6detrics", "v1/metrics"):
        assert at.read("GET", path).status in (404, 301, 308), (at.base, path)


def check_result(at, server):
    """A page's own request, the job's address, the result's, and who asked."""
    own = f"{at.scheme}://{at.host}"
    r = at.read("POST", "v1/jobs", {"prompt": "a", "size": 64}, Origin=own)
    assert r.status == 202, (at.base, r.status, r.text)
    job = json.loads(r.text)["id"]
    where = r.getheader("Location")
    assert where == f"/{at.path}v1/jobs/{job}", (at.base, where)
    done = eventually(lambda: [j for j in [json.loads(at.read("GET", where).text)]
                               if j["status"] == "done"])[0]
    url = done["images"][0]["url"]
    assert url.startswith(at.base + "v1/files/"), (at.base, url)
    r = at.read("GET", url[len(own):])
    assert r.status == 200 and is_png(r.text, 64), (at.base, url, r.status)
    eventually(lambda: f"path=/v1/jobs status=202" in server.log)
    assert f"client={CLIENT}" in [x for x in server.log.splitlines() if "status=202" in x][-1]
    assert at.read("POST", "v1/jobs", {"prompt": "a"}, Origin="https://evil.test").status == 403


def read_until(r, text, seen):
    while text not in seen:
        line = r.readline()
        assert line, seen
        seen += line
    return seen


def check_stream(at, server):
    """Events come when they happen: the job stands still meanwhile, so nothing fills a buffer."""
    with server.held(2):
        job = json.loads(at.read("POST", "v1/jobs", {"prompt": "a", "size": 64}).text)["id"]
        r = at.ask("GET", f"v1/jobs/{job}/events")
        assert r.status == 200 and r.getheader("content-type").startswith("text/event-stream")
        seen = read_until(r, b"\n\n", b"")
        with open(server.hold_path, "w") as f:
            f.write("5")  # so far it goes on, and stands still again
        seen = read_until(r, b"event: step", seen)
    read_until(r, b"event: done", seen)
    r.read()
    r.connection.close()


def check_leaving(at, server):
    """A client that leaves stops its image, through the proxy as well."""
    with server.held():
        r = at.ask("POST", "v1/images/generations", {"prompt": "a", "size": "64x64", "stream": True,
                                                     "steps": 900})
        assert r.status == 200, (at.base, r.status, r.read())
        eventually(lambda: server.get("/v1/capabilities").json["running"] == 1)
        r.close()
        r.connection.close()
        eventually(lambda: server.get("/v1/capabilities").json["running"] == 0, UNTOLD, "free slot")


def check_refusal(at):
    r = at.read("POST", "v1/images/generations", b" " * (5 << 20), Content_Type="application/json")
    assert r.status == 413 and b"max-body" in r.text, (at.base, r.status, r.text)
    r = at.read("POST", "v1/image/generations", {"prompt": "a"})
    assert r.status == 404 and b"did you mean" in r.text, (at.base, r.text)


def check_all(kind, *flags, changes=()):
    with behind(kind, *flags, changes=changes, FAKE_STEP_MS="5") as (server, proxy):
        for base in proxy.addresses():
            at = At(base)
            check_page(at)
            check_result(at, server)
            check_stream(at, server)
            check_leaving(at, server)
            check_refusal(at)
        with open(proxy.path("log"), errors="replace") as f:
            assert "[warn]" not in f.read().lower()


def some(addresses, index):
    """Of the four addresses of a proxy, those to try with the proxy of this index."""
    return [a for i, a in enumerate(addresses) if ALL or i % 4 == index % 4]


def test_nginx():
    if "nginx" in FOUND:
        check_all("nginx", "--host-names", "images.test, example.test")


REWRITTEN = (("proxy_set_header Host $http_host;", "proxy_set_header Host localhost;"),)


def test_a_host_that_the_proxy_rewrites():
    """As nginx does where nobody tells it not to: nothing is configured, the headers say it."""
    if "nginx" in FOUND:
        check_all("nginx", changes=REWRITTEN)


def test_caddy():
    if "caddy" in FOUND:
        check_all("caddy", "--host-names", "images.test, example.test")


def test_haproxy():
    if "haproxy" in FOUND:
        check_all("haproxy", "--host-names", "images.test, example.test")


def test_public_url_alone():
    """What the examples say that imagend needs."""
    for number, kind in enumerate(FOUND if ALL else [*FOUND, FOUND[0]]):
        for index in some(range(4), number):
            server = Server("--trusted-proxies", "", start=False)
            proxy = None
            try:
                server.start()
                proxy = Proxy(kind, server.port)
                base = proxy.addresses()[index]
                assert server.stop() == 0
                server.flags += ["--listen", f"127.0.0.1:{server.port}", "--public-url", base]
                server.start()
                at = At(base)
                eventually(lambda: at.read("GET", "readyz").status == 200)
                r = at.read("POST", "v1/images/generations",
                            {"prompt": "a", "size": "64x64", "response_format": "url"},
                            Origin=f"{at.scheme}://{at.host}")
                assert r.status == 200, (base, r.text)
                url = json.loads(r.text)["data"][0]["url"]
                assert url.startswith(base + "v1/files/"), (base, url)
                assert is_png(at.read("GET", url.split(at.host)[1]).text, 64)
            finally:
                if proxy:
                    proxy.close()
                server.close()


def test_each_of_them_is_here():
    """The tests above are of those that were found."""
    needs("nginx", "caddy", "haproxy")


def test_browser():
    """The page itself, in Chromium, at every address."""
    needs("node")
    client = os.path.join(HERE, "..", "clients", "behind.mjs")
    names = ("--host-names", "images.test, example.test")
    kinds = [(kind, names, ()) for kind in FOUND] + [("nginx", (), REWRITTEN)]
    for number, (kind, flags, changes) in enumerate(kinds):
        if kind not in FOUND:
            continue
        with behind(kind, *flags, changes=changes) as (_, proxy):
            r = subprocess.run(["node", client, *some(proxy.addresses(), number)], capture_output=True, text=True,
                               timeout=4 * PATIENCE)
            if r.returncode == 77:
                skip(r.stdout.strip())
            assert r.returncode == 0, (kind, r.stdout, r.stderr[-2000:])


if __name__ == "__main__":
    main(globals())
