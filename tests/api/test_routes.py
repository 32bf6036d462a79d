"""Spellings of paths, suggestions for unknown paths, and CORS."""
import http.client
import json
import re

from harness import PATIENCE, Server, eventually, main

BODY = {"prompt": "a", "size": "64x64"}


def test_spellings_of_a_path():
    s = Server()
    try:
        job = s.post("/v1/jobs", {"prompt": "a", "size": 64}).json["id"]
        url = "/" + s.wait_job(job)["images"][0]["url"].split("/", 3)[3]
        cases = (
            ("GET", ("/v1/models", "/v1/models/", "//v1/models", "/v1//models", "/v1/models//",
                     "///v1///models///", "/models", "/models/", "//models", "/v1/v1/models"), None),
            ("GET", ("/v1/models/fake", "/models/fake/", "/v1//models/fake"), None),
            ("POST", ("/v1/images/generations", "/v1/images/generations/", "//v1/images/generations",
                      "/images/generations", "/images//generations/", "/v1/v1/images/generations"), BODY),
            ("POST", ("/sdapi/v1/txt2img", "/sdapi/v1/txt2img/", "//sdapi/v1/txt2img"),
             {"prompt": "a", "width": 64, "height": 64}),
            ("GET", ("/healthz", "/healthz/", "//healthz"), None),
            ("GET", (f"/v1/jobs/{job}", f"/jobs/{job}/", f"//v1/jobs//{job}"), None),
            ("GET", (url, "/" + url, url[3:], url + "/"), None),
        )
        for method, paths, body in cases:
            for path in paths:
                a = s.request(method, path, body)
                assert a.status == 200, (method, path, a.status, a.body)
        # Proxies hide this one by its path, so it has no other.
        assert s.get("/metrics").status == 200
        for path in ("/metrics/", "//metrics", "/v1/metrics", "/v1/v1/metrics"):
            assert s.get(path).status == 404, path
        assert s.get("/p/metrics", X_Forwarded_Prefix="/p").status == 404
        # The log has one spelling, and none that opens a result.
        name = url.rsplit("/", 1)[1]
        assert name not in s.log and "path=/v1/files/{id}/{name}" in s.log
        s.get("/files//no/such/" + name, X_Request_Id="no-route")
        eventually(lambda: "request_id=no-route" in s.log, what="the request in the log")
        assert name not in s.log
        assert 'route="/v1/models"' in s.get("/metrics").body.decode()
    finally:
        assert s.close() == 0


def test_what_does_not_exist_has_a_suggestion():
    cases = (
        ("POST", "/v1/image/generations", "POST /v1/images/generations"),
        ("POST", "/v1/images/generation", "POST /v1/images/generations"),
        ("POST", "/v1/images", "POST /v1/images/generations"),
        ("POST", "/v1/image", "POST /v1/images/generations"),
        ("POST", "/openai/v1/images/generations", "POST /v1/images/generations"),
        ("GET", "/v1/model", "GET /v1/models"),
        ("GET", "/v1", "GET /v1/models"),
        ("GET", "/v1/jbos", "GET /v1/jobs"),
        ("POST", "/v1/job", "POST /v1/jobs"),
        ("GET", "/v1/jobs/x/event", "GET /v1/jobs/{id}/events"),
        ("POST", "/txt2img", "POST /sdapi/v1/txt2img"),
        ("POST", "/sdapi/txt2img", "POST /sdapi/v1/txt2img"),
        ("GET", "/health", "GET /healthz"),
        ("GET", "/ready", "GET /readyz"),
        ("GET", "/metric", "GET /metrics"),
        ("GET", "/nothing", None),
        ("POST", "/v1/chat/completions", None),
        ("GET", "/a/b/c/d/e/f/g/h/i/j/k", None),
        ("GET", "/" + "x" * 1000, None),
        ("GET", "/favicon.ico", None),
    )
    s = Server()
    try:
        for method, path, near in cases:
            a = s.request(method, path, {} if method == "POST" else None)
            assert a.status == 404, (path, a.status)
            said = a.json["detail"] if path.startswith("/sdapi/") else a.json["error"]["message"]
            assert f"{method} {path[:150]}" in said, said
            found = re.search(r"did you mean (\S+ \S+)\?$", said)
            assert (found and found[1]) == near, (path, said)
            if not near:
                assert said.endswith("; /docs lists the endpoints"), said
        assert "json" in s.get("/sdapi/v1/nothing/at/all").headers["content-type"]
        a = s.request("PUT", "/models/", {})
        assert a.status == 405 and a.headers["allow"] == "GET" and "use GET" in a.json["error"]["message"]
    finally:
        assert s.close() == 0


def test_pages_with_links_have_one_address():
    """Relative links are right at one spelling only; the others lead there, below any prefix."""
    s = Server("--public-url", "https://example.org/images/")
    try:
        for path, to in (("/docs/", "../docs"), ("/docs//", "../../docs"), ("/images", "images/"),
                         ("/images/docs/", "../docs")):
            a = s.get(path)
            assert a.status == 308 and a.headers["location"] == to, (path, a.status, a.headers)
        for path in ("/", "//", "/docs", "//docs", "/images/", "/images/docs"):
            a = s.get(path)
            assert a.status == 200 and b"<!doctype html" in a.body[:100].lower(), (path, a.status)
        # A proxy may leave the prefix of public-url before our paths.
        for path in ("/images/v1/models", "/images/models/", "/images/page/page.css", "/images//healthz"):
            assert s.get(path).status == 200, path
        assert s.get("/imagesv1/models").status == 404
    finally:
        assert s.close() == 0


# ---- CORS -------------------------------------------------------------------------------------

APP = "https://app.test"
STAINLESS = ("authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,"
             "x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,"
             "x-stainless-runtime-version,x-stainless-timeout")


def preflight(c, path, origin=APP, method="POST", headers=STAINLESS, **more):
    fields = {"Origin": origin, "Access-Control-Request-Method": method,
              "Access-Control-Request-Headers": headers, **more}
    c.request("OPTIONS", path, headers={k: v for k, v in fields.items() if v is not None})
    r = c.getresponse()
    return r.status, {k.lower(): v for k, v in r.getheaders()}, r.read()


def test_cors():
    s = Server("--cors-origins", f"{APP}, http://localhost:3000")
    try:
        h = s.get("/v1/models", Origin=APP).headers
        assert h["access-control-allow-origin"] == APP and h["vary"] == "Origin"
        assert h["access-control-expose-headers"] == "*"
        h = s.get("/v1/models", Origin="https://x.test").headers
        assert "access-control-allow-origin" not in h and h["vary"] == "Origin"
        for near in (APP + ".evil", APP + "/", APP[:-1], APP + ":443", "http://app.test", "https://xapp.test",
                     "https://app.test.evil.test", "app.test", "null", "*", APP + ", " + APP, "", APP.upper(),
                     "http://localhost:30000", "http://localhost", "http://localhost:300"):
            assert "access-control-allow-origin" not in s.get("/v1/models", Origin=near).headers, near
            a = s.request("POST", "/v1/jobs", {"prompt": "a", "size": 64}, {"Origin": near})
            assert a.status == 403, (near, a.status)
        # All on one connection, as browsers do it.
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=PATIENCE)
        c.connect()
        kept = c.sock
        for path in ("/v1/images/generations", "/v1/jobs", "/images/generations/", "/v1/nothing"):
            status, h, body = preflight(c, path)
            assert status == 204 and not body, (path, status, body)
            assert h["access-control-allow-origin"] == APP
            assert h["access-control-allow-headers"] == STAINLESS
            assert "POST" in h["access-control-allow-methods"]
            assert int(h["access-control-max-age"]) >= 600
            assert "access-control-allow-private-network" not in h
            c.request("POST", path, json.dumps(BODY), {"Origin": APP, "Content-Type": "text/plain"})
            r = c.getresponse()
            r.read()
            # The page is told what is wrong, not only that something is.
            assert r.status == (404 if "nothing" in path else 415)
            assert r.getheader("access-control-allow-origin") == APP
        status, h, _ = preflight(c, "/v1/jobs", **{"Access-Control-Request-Private-Network": "true"})
        assert h["access-control-allow-private-network"] == "true"
        status, h, body = preflight(c, "/v1/jobs", origin="https://evil.test")
        assert status == 403 and json.loads(body)["error"]["code"] == "cross_origin"
        assert not [k for k in h if k.startswith("access-control-")], h
        for headers in ("x-a\x7f", "a" * 2000, "x<y", "", None):
            status, h, _ = preflight(c, "/v1/jobs", headers=headers)
            assert status == 204 and "access-control-allow-headers" not in h, headers
        status, h, _ = preflight(c, "/v1/jobs", origin=None, method=None, headers=None)
        assert status == 204 and "POST" in h["allow"]
        assert c.sock is kept, "the connection was not kept"
        c.close()
    finally:
        assert s.close() == 0


if __name__ == "__main__":
    main(globals())
