"""Request bodies: refused while still arriving, compressed, and in other encodings."""
import gzip
import http.client
import os
import socket
import ssl
import subprocess
import tempfile
import time
import zlib

from harness import PATIENCE, Server, main, needs
from test_ops import bearer, keys_file, new_key
from test_reload import certificate

MEGABYTE = 1 << 20
SIZES = (0, 1000, 500_000, 5 * MEGABYTE, 40 * MEGABYTE)  # of max-body 1M: fits, is dropped, is refused
KEPT = 8 * MEGABYTE


def head(method, path, size, **fields):
    fields = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": size, **fields}
    lines = [f"{k.replace('_', '-')}: {v}" for k, v in fields.items() if v is not None]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


def read_response(c):
    r = http.client.HTTPResponse(c)
    r.begin()
    return r.status, r.read(), (r.getheader("Connection") or "").lower()


def refusals(key):
    """(status, method, path, headers) of what is refused whatever the body says."""
    return (
        (401, "POST", "/v1/images/generations", {}),
        (401, "POST", "/sdapi/v1/txt2img", {"Authorization": "Bearer wrong"}),
        (404, "POST", "/v1/image", bearer(key)),
        (404, "POST", "/nothing/at/all", {}),
        (405, "PUT", "/v1/jobs", bearer(key)),
        (403, "POST", "/v1/jobs", {"Sec-Fetch-Site": "cross-site", **bearer(key)}),
        (415, "POST", "/v1/images/generations", {**bearer(key), "Content-Type": "text/plain"}),
    )


def test_refusals_arrive_while_the_body_is_sent():
    """A client that sends all of its body before it reads anything sees the response; up to a bound
    its connection stays open."""
    key, line = new_key("k", "generate,read")
    s = Server("--keys-file", keys_file(line))
    try:
        for size in SIZES:
            body = b" " * size
            cases = [*refusals(key)]
            if size > MEGABYTE:
                cases = [(413 if status == 415 else status, *rest) for status, *rest in cases]
                cases.append((413, "POST", "/v1/images/generations", bearer(key)))
            for status, method, path, headers in cases:
                what = (status, path, size)
                with socket.create_connection(("127.0.0.1", s.port), PATIENCE) as c:
                    c.sendall(head(method, path, size, **headers))
                    c.sendall(body)
                    got, text, connection = read_response(c)
                    assert got == status and text.startswith(b"{"), (what, got, text)
                    if size > KEPT:
                        assert connection == "close" and c.recv(1) == b"", what
                        continue
                    assert connection != "close", what
                    c.sendall(head("GET", "/healthz", None))
                    assert read_response(c)[0] == 200, what
        assert s.get("/healthz").status == 200
    finally:
        assert s.close() == 0


def chunked(size):
    return b"".join(b"%x\r\n%s\r\n" % (n, b" " * n)
                    for n in [65536] * (size // 65536) + [size % 65536] if n) + b"0\r\n\r\n"


def test_refusals_of_chunked_bodies():
    key, line = new_key("k", "generate,read")
    s = Server("--keys-file", keys_file(line))
    try:
        for size, headers, status in ((1000, {}, 401), (5 * MEGABYTE, {}, 401),
                                      (5 * MEGABYTE, bearer(key), 413)):
            with socket.create_connection(("127.0.0.1", s.port), PATIENCE) as c:
                c.sendall(head("POST", "/v1/images/generations", None, Transfer_Encoding="chunked", **headers))
                c.sendall(chunked(size))
                assert read_response(c)[0] == status, (size, headers)
                c.sendall(head("GET", "/healthz", None))
                assert read_response(c)[0] == 200, (size, headers)
    finally:
        assert s.close() == 0


def test_a_client_that_asks_first_is_answered_at_once():
    key, line = new_key("k", "generate,read")
    s = Server("--keys-file", keys_file(line))
    try:
        for status, size, headers in ((401, 1000, {}), (413, 5 * MEGABYTE, bearer(key)),
                                      (100, 24, bearer(key))):
            with socket.create_connection(("127.0.0.1", s.port), PATIENCE) as c:
                start = time.monotonic()
                c.sendall(head("POST", "/v1/images/generations", size, Expect="100-continue", **headers))
                assert c.recv(12) == b"HTTP/1.1 %d" % status, (status, size)
                assert time.monotonic() - start < 20  # a request that is waited for gets 30 s
    finally:
        assert s.close() == 0


def curl(*args):
    r = subprocess.run(["curl", "-sS", "-k", "-o", "/dev/null", "-w", "%{http_code}", *args],
                       capture_output=True, text=True, timeout=PATIENCE)
    return r.stdout if r.returncode == 0 else r.stderr


def test_refusals_reach_curl():
    needs("curl", "openssl")
    key, line = new_key("k", "generate,read")
    with tempfile.TemporaryDirectory() as folder:
        tls = []
        for name, text in zip(("cert", "key"), certificate(folder, "a.test")):
            tls += ["--tls-" + name, os.path.join(folder, name)]
            with open(tls[-1], "w") as f:
                f.write(text)
        for flags in ([], tls):
            s = Server("--keys-file", keys_file(line), *flags, start=False)
            s.start(ready=False)
            url = f"{'https' if flags else 'http'}://127.0.0.1:{s.port}"
            try:
                for size in (1000, 5 * MEGABYTE, 60 * MEGABYTE):
                    path = os.path.join(folder, "body")
                    with open(path, "wb") as f:
                        f.truncate(size)
                    for expect in ([], ["-H", "Expect:"], ["-0"]):
                        for status, to, more in (
                                (401, "/v1/jobs", []), (404, "/nothing", []),
                                (413 if size > MEGABYTE else 400, "/v1/images/generations",
                                 ["-H", "Authorization: Bearer " + key])):
                            got = curl(*expect, *more, "-H", "Content-Type: application/json",
                                       "--data-binary", "@" + path, url + to)
                            assert got == str(status), (flags, size, expect, status, got)
            finally:
                assert s.close() == 0


def test_what_is_dropped_has_a_bound():
    """An endless body is not read for ever, and those who send one hold up nobody."""
    s = Server("--receive-timeout", "2")
    try:
        crowd = []
        for i in range(100):
            c = s.raw(head("POST", "/nothing", 1 << 40), read=False)
            assert read_response(c)[0] == 404
            crowd.append(c)
        start = time.monotonic()
        while crowd and time.monotonic() - start < PATIENCE:
            for c in list(crowd):
                try:
                    c.sendall(b" " * 1000)
                except OSError:
                    crowd.remove(c)
            time.sleep(0.05)
        assert not crowd, len(crowd)
        assert s.get("/healthz").status == 200
    finally:
        assert s.close() == 0


def test_ends_while_clients_still_send():
    s = Server()
    c = s.raw(head("POST", "/nothing", 1 << 40), read=False)
    assert read_response(c)[0] == 404
    c.sendall(b" " * 100000)
    assert s.close() == 0
    c.close()


# ---- compressed -------------------------------------------------------------------------------

JOB = b'{"prompt":"a","size":64}'


def post(s, body, encoding=None, kind="application/json", path="/v1/jobs"):
    headers = {"Content-Type": kind, **({"Content-Encoding": encoding} if encoding else {})}
    return s.request("POST", path, body, headers)


def bomb(size):
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(b" " * size) + packer.flush()


def test_gzip_bodies():
    whole = gzip.compress(JOB)
    named = whole[:3] + b"\x08" + whole[4:10] + b"body.json\x00" + whole[10:]
    padded = JOB[:-1] + b" " * (MEGABYTE - len(JOB)) + b"}"  # exactly max-body
    good = (("gzip", whole), ("x-gzip", whole), ("GZIP", whole), (" gzip ", whole), ("gzip", named),
            ("gzip", gzip.compress(JOB[:5]) + gzip.compress(JOB[5:])), ("gzip", gzip.compress(padded)),
            ("identity", JOB), (None, JOB))
    bad = (
        (400, "is truncated", whole[:-1]), (400, "is truncated", whole[:15]),
        (400, "not valid gzip", JOB), (400, "not valid gzip", zlib.compress(JOB)),
        (400, "not valid gzip", whole + b"more"), (400, "not valid gzip", whole[:-5] + b"xxxxx"),
        (413, "decompressed", gzip.compress(padded + b" ")), (413, "decompressed", bomb(1 << 29)),
        (413, "decompressed", gzip.compress(padded) * 2), (400, "request body", gzip.compress(b"")),
        (400, "request body", gzip.compress(b"[1")),
    )
    s = Server()
    try:
        for encoding, body in good:
            a = post(s, body, encoding)
            assert a.status == 202 and a.json["request"]["prompt"] == "a", (encoding, a.body)
        for status, words, body in bad:
            a = post(s, body, "gzip")
            assert a.status == status and words in a.json["error"]["message"], (a.body, words)
        for encoding in ("br", "deflate", "zstd", "gzip, gzip", "x"):
            a = post(s, JOB, encoding)
            assert a.status == 415 and encoding in a.json["error"]["message"], a.body
            assert a.headers["accept-encoding"] == "gzip" and a.json["error"]["param"]
        # The same request by another coding is the same request.
        key = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        ids = {s.request("POST", "/v1/jobs", body, {**key, **more}).json["id"] for body, more in (
            (JOB, {}), (whole, {"Content-Encoding": "gzip"}))}
        assert len(ids) == 1
        a = post(s, gzip.compress(b'{"prompt":"a","width":64,"height":64}'), "gzip",
                 path="/sdapi/v1/txt2img")
        assert a.status == 200, a.body
        # The bomb would have been 512 MB.
        with open(f"/proc/{s.process.pid}/status") as f:
            peak = next(int(line.split()[1]) for line in f if line.startswith("VmHWM:"))
        assert peak < 300_000, peak
    finally:
        assert s.close() == 0


# ---- other encodings --------------------------------------------------------------------------

def test_encodings():
    text = '{"prompt":"für Élise","size":64}'
    s = Server()
    try:
        for kind in ("application/json", "application/json; charset=utf-8",
                     'application/json;charset="UTF-8"', "application/json; charset=utf8"):
            for body in (text.encode(), b"\xef\xbb\xbf" + text.encode()):
                a = post(s, body, kind=kind)
                assert a.status == 202 and a.json["request"]["prompt"] == "für Élise", (kind, a.body)
        a = post(s, gzip.compress(b"\xef\xbb\xbf" + text.encode()), "gzip")
        assert a.status == 202, a.body
        for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"):
            for body in (text.encode(name), ("\ufeff" + text).encode(name)):
                a = post(s, body)
                assert a.status == 400 and name[:6].upper() in a.json["error"]["message"], (name, a.body)
                assert "UTF-8" in a.json["error"]["message"]
        a = post(s, text.encode("latin-1"))
        assert a.status == 400 and "0xFC at offset 12" in a.json["error"]["message"], a.body
        a = post(s, gzip.compress(text.encode()))
        assert a.status == 400 and "Content-Encoding: gzip" in a.json["error"]["message"], a.body
        for charset in ("utf-16", "iso-8859-1", "windows-1252", "shift_jis", ""):
            a = post(s, text.encode(), kind="application/json; x=1; charset=" + charset)
            assert a.status == 415 and f'"{charset}"' in a.json["error"]["message"], (charset, a.body)
        for body in (b"\xef\xbb\xbf", b"\xef\xbb", b"\xff\xfe", b"", b"\x00", b"{\x00"):
            assert post(s, body).status == 400, body
    finally:
        assert s.close() == 0


if __name__ == "__main__":
    main(globals())
