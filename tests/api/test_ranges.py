"""Every range, of options, of requests and of their fields: its ends, and one beyond each. A numeric option
without a test of its name here or in test_limits fails, and so does a field whose range is not enforced."""
import base64
import gzip
import json
import re
import subprocess

import test_limits as limits
from harness import PATIENCE, PROGRAM, Server, main, make_png, needs_store
from test_limits import OPTIONS, RELOADED, Limited


# ---- options ----------------------------------------------------------------------------------

def test_every_option_has_a_test():
    assert len(OPTIONS) > 10 and len(RELOADED) > 10
    tests = {**vars(limits), **globals()}
    for name in OPTIONS:
        assert "test_" + name.replace("-", "_") in tests, f"no test of the limit {name}"


def test_every_option_has_its_range():
    """The smallest and the largest value are taken, what is beyond is refused with both."""
    def check(name, value):
        return subprocess.run([PROGRAM, "config", "check", f"--{name}={value}"], capture_output=True,
                              text=True, timeout=PATIENCE)
    for name, kind in OPTIONS.items():
        low, high = re.search(r"must be from (\S+) to (\S+), not", check(name, "1e30").stderr).groups()
        for value in (low, high):
            assert check(name, value).returncode == 0, (name, value)
        # server_conf has what is no number at all.
        beyond = [str(float(low) - 0.01), str(float(high) * 1.01)]
        if kind == "N":
            beyond = [str(int(low) - 1), str(int(high) + 1), "1.5"]
        for value in beyond:
            r = check(name, value)
            assert r.returncode == 2 and r.stderr.startswith("imagend: " + name), (name, value, r)


# ---- what a request may be --------------------------------------------------------------------

def padded(size):
    head = b'{"prompt":"a","size":"64x64","seed":1'
    return head + b" " * (size - len(head) - 1) + b"}"


def test_max_body():
    t = Limited(max_body=4096)
    s = t.server

    def send(data, coding=None, chunked=False):
        head = (f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Connection: close\r\nAuthorization: Bearer {t.keys['a']}\r\n"
                + (f"Content-Encoding: {coding}\r\n" if coding else ""))
        if chunked:
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (data[:1000], data[1000:]))
            raw = s.raw((head + "Transfer-Encoding: chunked\r\n\r\n").encode() + body + b"0\r\n\r\n")
        else:
            raw = s.raw(head.encode() + b"Content-Length: %d\r\n\r\n" % len(data) + data)
        return int(raw.split(b" ", 2)[1]), raw
    try:
        for limit in (4096, 4096):
            for chunked in (False, True):
                for size, status in ((limit - 1, 200), (limit, 200), (limit + 1, 413), (3 * limit, 413)):
                    got, raw = send(padded(size), chunked=chunked)
                    assert got == status, (size, chunked, raw)
                    assert status == 200 or b"max-body" in raw and str(limit).encode() in raw, raw
            for size, status in ((limit, 200), (limit + 1, 413)):
                got, raw = send(gzip.compress(padded(size)), "gzip")
                assert got == status, (size, raw)
            assert "changes to these options need a restart: max-body" in t.reload(max_body=100000)
            assert t.server.get("/healthz").status == 200
    finally:
        t.close()


def test_max_header():
    t = Limited(keys=False, max_header=2048)
    try:
        for _ in range(2):
            for path in ("/healthz", "/v1/jobs?limit=5"):
                lines = {"Host": "localhost", "Connection": "close"}
                used = sum(len(k) + len(v) + 4 for k, v in lines.items()) + len("X-Pad") + 4
                bare, _, query = path.partition("?")
                used += len(bare) + (len(query.replace("=", "")) + 4 if query else 0)
                for size, status in ((2048, 200), (2049, 431), (4000, 431)):
                    head = "".join(f"{k}: {v}\r\n" for k, v in lines.items())
                    raw = t.server.raw(f"GET {path} HTTP/1.1\r\n{head}X-Pad: {'x' * (size - used)}"
                                       "\r\n\r\n".encode())
                    assert raw.startswith(b"HTTP/1.1 %d " % status), (path, size, raw[:300])
            assert "changes to these options need a restart: max-header" in t.reload(max_header=4096)
    finally:
        t.close()


def test_input_bytes():
    """Of the images of all jobs: the next one waits for room. One that never fits is refused, as is the body
    that would hold it."""
    needs_store("sqlite", "memory")  # a shared store holds the images of jobs; this limits what is received
    image = make_png(300, 100, lambda x, y: (x & 255, y, x * y & 255))
    others = [make_png(300, 100, lambda x, y: (x & 255, y, (x * y + i) & 255)) for i in (1, 2)]
    size = max(len(i) for i in (image, *others))
    t = Limited(keys=False, max_body=1024, input_bytes=2 * size)
    try:
        def put(image):
            return t.ask("POST", "/v1/jobs", {"prompt": "a", "size": 64,
                                              "image": base64.b64encode(image).decode()})
        with t.server.held():
            jobs = [put(i) for i in (image, others[0])]
            assert [a.status for a in jobs] == [202, 202], [a.body for a in jobs]
            a = put(others[1])
            assert a.status == 429 and int(a.headers["retry-after"]) >= 1, a.body
        for a in jobs:
            t.server.wait_job(a.json["id"])
            assert t.ask("DELETE", "/v1/jobs/" + a.json["id"]).status == 204
        assert put(others[1]).status == 202
        t.reload(max_body=1024, input_bytes=size)
        a = put(make_png(300, 200, lambda x, y: (x & 255, y, x * y & 255)))
        assert a.status == 413 and "input-bytes" in a.json["error"]["message"], a.body
        t.reload(max_body=1024, input_bytes=10)
        a = put(make_png(4, 4, lambda x, y: (0, 0, 0)))
        assert a.status == 400 and a.json["error"]["param"] == "image", a.body
        t.reload(max_body=1024, input_bytes="10M")
        assert put(image).status == 202
    finally:
        t.close()


# ---- fields -----------------------------------------------------------------------------------

SMALL = base64.b64encode(make_png(8, 8, lambda x, y: (x, y, 0))).decode()
TARGET = {"upscaling_resize_w": 64, "upscaling_resize_h": 64}
ROUTES = {"CreateImageEditRequest": ("/v1/images/edits", {"prompt": "a", "image": SMALL, "size": "64x64", "strength": 1}, 400),
          "CreateImageVariationRequest": ("/v1/images/variations", {"image": SMALL, "size": "64x64", "strength": 1},
                                          400),
          "CreateImageRequest": ("/v1/images/generations", {"prompt": "a", "size": "64x64"}, 400),
          "CreateJobRequest": ("/v1/jobs", {"prompt": "a", "size": 64}, 400),
          "TextToImageRequest": ("/sdapi/v1/txt2img", {"prompt": "a", "width": 64, "height": 64}, 422),
          "ImageToImageRequest": ("/sdapi/v1/img2img", {"prompt": "a", "init_images": [SMALL], "width": 64,
                                                        "height": 64}, 422),
          "ExtrasSingleImageRequest": ("/sdapi/v1/extra-single-image", {"image": SMALL, **TARGET}, 422),
          "ExtrasBatchImagesRequest": ("/sdapi/v1/extra-batch-images", {"imageList": [{"data": SMALL}], **TARGET}, 422),
          "PNGInfoRequest": ("/sdapi/v1/png-info", {"image": SMALL}, 422)}
# What has a meaning only beside an input image, and is refused without one: its words.
OF_IMAGES = {"strength": b"task edit only", "scale": b"task upscale only", "feather": b"task edit only"}
# What a field needs beside it.
WITH = {"partial_images": {"stream": True}}


def test_every_field_has_its_range():
    """The smallest and the largest value that /openapi.json tells are taken, the next ones refused by name."""
    s = Server()
    try:
        api = s.get("/openapi.json").json
        schemas = api["components"]["schemas"]
        bodies = [operation.get("requestBody") for path in api["paths"].values() for operation in path.values()]
        assert set(re.findall(r"#/components/schemas/(\w+)", json.dumps(bodies))) == set(ROUTES)
        tried = 0
        for name, (path, body, status) in ROUTES.items():
            for field, schema in schemas[name]["properties"].items():
                kinds = [schema, *schema.get("oneOf", [])]
                ranges = next((k for k in kinds if "minimum" in k), None)
                if ranges:
                    low, high = ranges["minimum"], ranges["maximum"]
                    step = 1 if "integer" in str(ranges["type"]) else 0.01
                    good, bad = [low, high], [low - step, high + step]
                    if field in ("size", "width", "height"):
                        good, bad = [low, 1024], [low - 1, 1025, high + 1]
                    elif field == "noise_level":
                        good = [low]  # the first stage takes none
                    elif field == "upscaling_resize":
                        good = [0.01, 16]  # the model's largest; 0 is for other resize modes
                elif "maxLength" in schema and "enum" not in schema:
                    high = schema["maxLength"]
                    good, bad = [], ["x" * (high + 1)]
                    if field in ("prompt", "negative_prompt"):
                        good = ["x" * high, "x" * schema["minLength"]]
                        bad += [""] if schema["minLength"] else []
                    if field in ("prompt", "negative_prompt") and name in ("TextToImageRequest", "ImageToImageRequest"):
                        bad = ["x" * (high + 1)]
                else:
                    continue
                for value in good:
                    a = s.post(path, {**body, **WITH.get(field, {}), field: value})
                    known = field in OF_IMAGES and (OF_IMAGES[field] in a.body or
                                                    b"leaves no step" in a.body)
                    assert known or a.status in (200, 202), (name, field, str(value)[:40], a.body[:300])
                    tried += 1
                for value in bad:
                    a = s.post(path, {**body, **WITH.get(field, {}), field: value})
                    known = a.status == status or (field == "model" and a.status == 400)
                    assert known, (name, field, str(value)[:40], a.status, a.body[:300])
                    said = a.json["error"]["param"] if status == 400 else a.json["detail"]
                    # A1111's width and height are the model's "size".
                    names = (field, "size") if field in ("width", "height") else (field,)
                    # An integer of more than 64 bits is not even JSON to us.
                    known = value == 1 << 63 and b"too big integer" in a.body
                    assert known or any(n in str(said) for n in names), (name, field, a.body[:300])
                    tried += 1
        assert tried > 60, tried
        for job in s.get("/v1/jobs?limit=100").json["data"]:
            s.delete("/v1/jobs/" + job["id"])
    finally:
        s.close()


def test_limits_that_are_no_single_field():
    s = Server()
    try:
        for size, status in ((1, 202), (255, 202), (256, 400)):
            a = s.request("POST", "/v1/jobs", {"prompt": "a", "size": 64}, {"Idempotency-Key": "k" * size})
            assert a.status == status, (size, a.body)
        a = s.request("POST", "/v1/jobs", {"prompt": "a", "size": 64}, {"Idempotency-Key": ""})
        assert a.status == 400 and a.json["error"]["param"] == "Idempotency-Key", a.body
        body = {"prompt": "a", "width": 64, "height": 64}
        for batch, count, status in ((4, 4, 200), (16, 1, 200), (1, 16, 200), (17, 1, 422), (6, 3, 422)):
            a = s.post("/sdapi/v1/txt2img", {**body, "batch_size": batch, "n_iter": count})
            assert a.status == status, (batch, count, a.body[:200])
            assert status != 200 or len(a.json["images"]) == batch * count
        for limit, status in ((0, 400), (1, 200), (100, 200), (101, 400)):
            assert s.get(f"/v1/jobs?limit={limit}").status == status, limit
        assert len(s.get("/v1/jobs?limit=1").json["data"]) == 1
        for _ in range(25):
            s.wait_job(s.post("/v1/jobs", {"prompt": "a", "size": 64}).json["id"])
        page = s.get("/v1/jobs").json
        assert len(page["data"]) == 20 and page["has_more"]
        c = s.get("/v1/capabilities").json["limits"]
        assert c == {"n": 16, "prompt_bytes": 32000, "steps": 1000, "loras": 8, "previews": 32,
                     "priority": 9, "queue": 256, "queue_per_key": 128, "keep_seconds": 3600}, c
        a = s.draw(n=10)
        assert a.status == 200 and len(a.json["data"]) == 10
    finally:
        s.close()


if __name__ == "__main__":
    main(globals())
