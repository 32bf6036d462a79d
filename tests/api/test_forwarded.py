"""How clients see the server: public-url, and the headers of trusted proxies."""
import json

from harness import Server, eventually, main
from test_ops import run

BODY = {"prompt": "a", "size": "64x64", "response_format": "url"}
PROTO, HOST, PREFIX = "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Prefix"
PORT = "X-Forwarded-Port"


def base(s, headers=None):
    """What the server puts before the path of a result URL."""
    a = s.request("POST", "/v1/images/generations", BODY, headers)
    assert a.status == 200, a.body
    url, path = a.json["data"][0]["url"].split("/v1/files/")
    assert path
    return url


def test_public_url_is_normalised():
    cases = (
        ("https://img.test", "https://img.test"), ("https://img.test/", "https://img.test"),
        ("https://img.test///", "https://img.test"), ("HTTPS://IMG.test", "https://img.test"),
        ("https://img.test:443", "https://img.test"), ("http://img.test:80/", "http://img.test"),
        ("https://img.test:8443/a/b/", "https://img.test:8443/a/b"), ("img.test", "https://img.test"),
        ("img.test/", "https://img.test"), ("img.test:8443/x/", "https://img.test:8443/x"),
        ("localhost:8080", "http://localhost:8080"), ("127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"), ("http://img.test./", "http://img.test"),
        ("https://example.org/~me/img-1.2", "https://example.org/~me/img-1.2"),
    )
    for url, expected in cases:
        s = Server("--public-url", url, "--store", "memory")
        try:
            # Nobody else's word counts, nor the request's own.
            assert base(s, {PROTO: "http", HOST: "other.test", PREFIX: "/p"}) == expected, url
            assert (f"public-url was normalized to {expected}" in s.log) == (url != expected), url
        finally:
            assert s.close() == 0


def test_schemes_are_whole_words():
    s = Server()
    try:
        for said, scheme in (("https", "https"), ("HTTPS", "https"), ("http", "http"), ("httpsx", "http"),
                             ("https:", "http"), ("xhttps", "http"), ("wss", "http"), ("", "http")):
            a = s.draw(response_format="url", headers={"X-Forwarded-Proto": said})
            assert a.json["data"][0]["url"].startswith(scheme + "://"), (said, a.body)
    finally:
        s.close()


def test_options_that_are_wrong():
    cases = (
        ("public-url", ("ftp://img.test", "https://", "https:///x", "https://a b", "https://img.test?x",
                        "https://img.test/#x", "https://user@img.test", "https://img.test:0",
                        "https://img.test:99999", "//img.test", "/images", "https://img.test/a//b",
                        "https://img.test/../x", "https://img.test/a b", 'https://img.test/"',
                        "https://" + "a" * 300, "javascript://img.test")),
        ("trusted-proxies", ("10.0.0.0/33", "10.0.0/8", "::1/129", "proxy.test", "10.0.0.1/", "/8",
                             "10.0.0.1/x", "10.0.0.1/-1", "all", ", ".join(["10.0.0.1"] * 65))),
        ("cors-origins", ("https://app.test/", "app.test", "https://App.test", "https://app.test:443",
                          "https://app.test/x", "*.test", "https://", "https://*.app.test")),
        ("host-names", ("https://a.test", "a.test:80", "a.test/", "a b/c", "*.a.test", "[::1")),
    )
    for option, values in cases:
        for value in values:
            r = run("config", "check", f"--{option}={value}")
            assert r.returncode == 2 and r.stderr.startswith("imagend: " + option), (option, value, r)
            assert r.stderr.count("\n") == 1, r.stderr
    for flags in ("--public-url=", "--trusted-proxies=", "--trusted-proxies=loopback, private",
                  "--trusted-proxies=10.1.2.3/8,2001:db8::/32, 192.0.2.1, 0.0.0.0/0,::/0",
                  "--cors-origins=*", "--cors-origins=null, https://a.test:8443,http://[::1]:3000",
                  "--cors-origins=chrome-extension://abcdef, capacitor://localhost",
                  "--host-names=a.test, B.test, 10.0.0.1"):
        r = run("config", "check", flags)
        assert r.returncode == 0, (flags, r)


def test_forwarded_headers():
    own = "http://localhost"
    cases = (
        ({}, own),
        ({PROTO: "https"}, "https://localhost"), ({PROTO: "https,http"}, "https://localhost"),
        ({PROTO: " HTTPS , http"}, "https://localhost"), ({PROTO: "http,https"}, own),
        ({PROTO: "wss"}, own), ({PROTO: "javascript"}, own), ({PROTO: ""}, own), ({PROTO: ","}, own),
        ({HOST: "img.test"}, "http://img.test"), ({HOST: "img.test:8443, inner"}, "http://img.test:8443"),
        ({HOST: "IMG.test"}, "http://img.test"), ({HOST: "[2001:db8::1]:80"}, "http://[2001:db8::1]:80"),
        ({HOST: "a b"}, own), ({HOST: "a/b"}, own), ({HOST: "a@b"}, own), ({HOST: '"x"<y>'}, own),
        ({HOST: "a:b"}, own), ({HOST: "x" * 300}, own), ({HOST: ""}, own),
        ({PREFIX: "/images"}, own + "/images"), ({PREFIX: "/images/"}, own + "/images"),
        ({PREFIX: "/a/b, /c"}, own + "/a/b"), ({PREFIX: "/"}, own), ({PREFIX: "images"}, own),
        ({PREFIX: "//evil.test"}, own), ({PREFIX: "/../x"}, own), ({PREFIX: "/a b"}, own),
        ({PREFIX: "/a?b"}, own), ({PREFIX: "/" + "x" * 300}, own),
        ({PROTO: "https", HOST: "img.test", PREFIX: "/a"}, "https://img.test/a"),
        ({PORT: "8443"}, own + ":8443"), ({PORT: " 8443 , 80"}, own + ":8443"), ({PORT: "80"}, own),
        ({PORT: "443"}, own), ({PORT: "0"}, own), ({PORT: "65536"}, own), ({PORT: "000080"}, own),
        ({PORT: "-1"}, own), ({PORT: "8443x"}, own), ({PORT: ""}, own), ({PORT: "99999999999"}, own),
        ({PROTO: "https", PORT: "443"}, "https://localhost"),
        ({PROTO: "https", PORT: "80"}, "https://localhost"),
        ({PROTO: "https", PORT: "8443"}, "https://localhost:8443"),
        ({HOST: "img.test", PORT: "8443"}, "http://img.test:8443"),
        ({HOST: "img.test:81", PORT: "8443"}, "http://img.test:81"),
        ({HOST: "[2001:db8::1]", PORT: "8443"}, "http://[2001:db8::1]:8443"),
        ({"Host": "localhost:81", PORT: "8443"}, own + ":81"),
        ({HOST: "img.test", PORT: "8443", PREFIX: "/a", PROTO: "https"}, "https://img.test:8443/a"),
        ({"Forwarded": "proto=https;host=img.test", PORT: "8443"}, "https://img.test:8443"),
        ({"Forwarded": "for=192.0.2.1;proto=https;host=img.test"}, "https://img.test"),
        ({"Forwarded": 'For="[2001:db8::1]:1"; Proto="HTTPS"; Host="img.test:81", for=10.0.0.1;host=x'},
         "https://img.test:81"),
        ({"Forwarded": "for=192.0.2.1, proto=https"}, own),
        ({"Forwarded": 'host="a,b;c=d";proto=https'}, "https://localhost"),
        ({"Forwarded": 'proto="https'}, "https://localhost"), ({"Forwarded": "=;,;=,proto"}, own),
        ({"Forwarded": "proto=https;host=f.test", HOST: "img.test"}, "http://img.test"),
    )
    s = Server()
    try:
        for headers, expected in cases:
            got = base(s, {"Host": "localhost", **headers})
            assert got == expected, (headers, got)
        a = s.request("POST", "/v1/jobs", {"prompt": "a", "size": 64}, {PREFIX: "/images/"})
        assert a.headers["location"] == "/images/v1/jobs/" + a.json["id"]
        assert s.get("/images/v1/models", **{PREFIX: "/images"}).status == 200
        raw = s.raw(b"POST /v1/images/generations HTTP/1.0\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(json.dumps(BODY)), json.dumps(BODY).encode()))
        assert b'"url":"/v1/files/' in raw, "no Host: a path"
    finally:
        assert s.close() == 0


def test_only_trusted_proxies_are_believed():
    said = {"Host": "localhost", PROTO: "https", HOST: "img.test", PREFIX: "/p",
            "X-Forwarded-For": "192.0.2.1",
            PORT: "8443"}
    for trusted, believed in (("loopback", True), ("127.0.0.0/8", True), ("127.0.0.1", True),
                              ("0.0.0.0/0", True), ("10.0.0.0/8, 127.0.0.1/32", True),
                              ("126.0.0.0/7", True), ("private", False), ("127.0.0.2", False),
                              ("128.0.0.0/1", False), ("::1", False), ("", False)):
        s = Server("--trusted-proxies", trusted, "--store", "memory")
        try:
            assert base(s, said) == ("https://img.test:8443/p" if believed else "http://localhost"), trusted
            eventually(lambda: "/v1/images/generations status" in s.log)
            assert ("client=192.0.2.1" in s.log) == believed, trusted
        finally:
            assert s.close() == 0


def test_the_client_is_the_last_one_that_no_proxy_is():
    cases = (
        ("192.0.2.1", "192.0.2.1"), ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1, 10.0.0.7", "192.0.2.1"), ("10.0.0.8, 10.0.0.7", "10.0.0.8"),
        ("192.0.2.1:1234", "192.0.2.1"), ("2001:db8::1", "2001:db8::1"),
        ("[2001:DB8::0:1]:99", "2001:db8::1"), ("unknown", "127.0.0.1"), ("", "127.0.0.1"),
        ("192.0.2.1, unknown", "127.0.0.1"), ("192.0.2.1, x, 10.0.0.7", "10.0.0.7"),
        ("::ffff:192.0.2.1", "192.0.2.1"), ("1.2.3.4\x00", None), ("a" * 500, "127.0.0.1"),
    )
    s = Server("--trusted-proxies", "loopback, 10.0.0.0/8")

    def client(*headers):
        request_id = "id-%d" % len(s.log)
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers)
        s.raw(f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{lines}X-Request-Id: {request_id}\r\n"
              "Connection: close\r\n\r\n".encode())
        line = eventually(lambda: [x for x in s.log.splitlines() if request_id in x])[0]
        return line.split("client=")[1].split()[0]
    try:
        for text, expected in cases:
            if expected:
                assert client(("X-Forwarded-For", text)) == expected, text
        # HAProxy adds a line of its own after those that it was sent.
        assert client(("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "192.0.2.1")) == "192.0.2.1"
        assert client(("Forwarded", "for=6.6.6.6"), ("Forwarded", 'for="[2001:db8::2]:8"')) == "2001:db8::2"
        assert client(("Forwarded", "for=_hidden")) == "127.0.0.1"
    finally:
        assert s.close() == 0


def test_own_origins():
    """A page may draw from whatever address the server has for its client; browsers send
    Sec-Fetch-Site on HTTPS and to localhost only."""
    public = ("--public-url", "https://img.test/x")
    cases = (
        ((), {"Host": "127.0.0.1:9", "Origin": "http://127.0.0.1:9"}, 202),
        ((), {"Host": "localhost", "Origin": "http://localhost"}, 202),
        ((), {"Host": "localhost:80", "Origin": "http://localhost"}, 202),
        ((), {"Host": "localhost:443", "Origin": "https://localhost"}, 202),
        ((), {"Host": "LOCALHOST", "Origin": "http://localhost"}, 202),
        ((), {"Host": "localhost:443", "Origin": "http://localhost"}, 403),
        # The proxy changed Host: it has to say what it was, or public-url has to.
        ((), {"Host": "127.0.0.1:8080", "Origin": "http://img.test"}, 403),
        ((), {"Host": "127.0.0.1:8080", "Origin": "http://img.test", HOST: "img.test"}, 202),
        ((), {"Host": "127.0.0.1:8080", "Origin": "https://img.test:8443", HOST: "img.test:8443"}, 202),
        ((), {"Host": "127.0.0.1:8080", "Origin": "https://img.test:8443", HOST: "img.test", PORT: "8443"}, 202),
        ((), {"Host": "127.0.0.1:8080", "Origin": "https://img.test:8443", HOST: "img.test"}, 403),
        ((), {"Host": "127.0.0.1:8080", "Origin": "http://img.test", HOST: "other.test"}, 403),
        ((), {"Host": "127.0.0.1:8080", "Origin": "http://img.test", HOST: "img.test:81"}, 403),
        ((), {"Host": "127.0.0.1", "Origin": "http://img.test", "Forwarded": "host=img.test"}, 202),
        (("--trusted-proxies", ""), {"Host": "127.0.0.1", "Origin": "http://img.test", HOST: "img.test"},
         403),
        (public, {"Host": "127.0.0.1:8080", "Origin": "https://img.test"}, 202),
        (public, {"Host": "img.test", "Origin": "https://img.test"}, 202),
        (public, {"Host": "127.0.0.1:8080", "Origin": "http://img.test"}, 403),
        (public, {"Host": "127.0.0.1:8080", "Origin": "https://evil.test"}, 403),
        (public, {"Host": "127.0.0.1:8080", "Origin": "null"}, 403),
        # A browser that says that it comes from elsewhere is believed whatever else is there.
        (public, {"Host": "localhost", "Origin": "https://img.test", "Sec-Fetch-Site": "cross-site"}, 403),
        # No header helps a name that a page made to point here.
        ((), {"Host": "evil.test", "Origin": "http://evil.test", HOST: "localhost"}, 421),
        ((), {"Host": "evil.test", "Origin": "http://evil.test", HOST: "evil.test"}, 421),
        (public, {"Host": "evil.test", HOST: "img.test"}, 421),
    )
    servers = {}
    try:
        for flags, headers, status in cases:
            s = servers.setdefault(flags, None) or Server(*flags, "--store", "memory")
            servers[flags] = s
            a = s.request("POST", "/v1/jobs", {"prompt": "a", "size": 64}, headers)
            assert a.status == status, (flags, headers, a.status, a.body)
            if status == 403:
                assert "public-url" in a.json["error"]["message"], a.body
    finally:
        for s in servers.values():
            assert s.close() == 0


if __name__ == "__main__":
    main(globals())
