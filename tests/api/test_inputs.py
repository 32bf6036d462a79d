"""Input images over HTTP: how they come in, what is refused and why, and what they may cost."""
import base64
import gzip
import http.client
import json
import os
import threading
import time
import zlib

from harness import PATIENCE, Server, b64, eventually, is_png, main, make_png, read_png
from test_ops import bearer, keys_file, new_key

BOUNDARY = "a-boundary"
IMAGE = make_png(80, 60, lambda x, y: (3 * x, 4 * y, 77))
# The right half is repainted.
LIGHT = make_png(80, 60, lambda x, y: (255 * (x >= 40),) * 3)
CLEAR = make_png(80, 60, lambda x, y: (9, 9, 9, 0 if x >= 40 else 255))


def text(data):
    return base64.b64encode(data).decode()


def url(data, kind="image/png"):
    return f"data:{kind};base64,{text(data)}"


def form(parts):
    """parts: (name, text), or (name, bytes) of a file."""
    out = b""
    for name, value in parts:
        file = isinstance(value, bytes)
        out += (f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"' +
                ('; filename="x.png"\r\nContent-Type: image/png' if file else "") + "\r\n\r\n").encode()
        out += (value if file else str(value).encode()) + b"\r\n"
    return out + f"--{BOUNDARY}--\r\n".encode()


def post_form(s, path, parts, **headers):
    return s.request("POST", path, form(parts),
                     {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **headers})


def rows_of(s, job, i=0):
    return read_png(s.get(f"/v1/jobs/{job['id']}/images/{i}").body)


def is_kept(rows):
    """The left half is the input's own, the right half is not."""
    source = read_png(IMAGE)[2]
    return (all(a[:120] == b[:120] for a, b in zip(rows, source)) and
            any(a[160:] != b[160:] for a, b in zip(rows, source)))


def accepted(s, answer):
    assert answer.status == 202, answer.body
    job = s.wait_job(answer.json["id"])
    assert job["status"] == "done", job
    return job


# ---- every way in -------------------------------------------------------------------------------

def test_every_way_to_send_an_image(s):
    """One job's image, however it was sent: the same bytes, the same result."""
    fields = {"prompt": "a", "seed": 7, "mask": text(LIGHT)}
    first = accepted(s, s.post("/v1/jobs", {**fields, "image": text(IMAGE)}))
    assert first["request"]["task"] == "edit" and first["request"]["input_size"] == "80x60"
    image = s.get(f"/v1/jobs/{first['id']}/images/0").body
    assert is_kept(read_png(image)[2])
    wrapped = "\n".join(text(IMAGE)[i:i + 76] for i in range(0, 10**6, 76)).strip()
    plain = text(IMAGE).rstrip("=")
    for value in (url(IMAGE), url(IMAGE, "application/octet-stream"), plain, wrapped,
                  {"image_url": url(IMAGE)}):
        job = accepted(s, s.post("/v1/jobs", {**fields, "image": value}))
        assert s.get(f"/v1/jobs/{job['id']}/images/0").body == image, str(value)[:50]
    parts = list(fields.items())
    for value in (IMAGE, text(IMAGE), url(IMAGE), json.dumps({"image_url": url(IMAGE)})):
        for name in ("image", "image[]"):
            job = accepted(s, post_form(s, "/v1/jobs", [*parts, (name, value)]))
            assert s.get(f"/v1/jobs/{job['id']}/images/0").body == image, (name, value[:50])
    # An earlier result.
    made = accepted(s, s.post("/v1/jobs", {"prompt": "b", "size": "80x60", "n": 2}))
    for i in (0, 1):
        source = rows_of(s, made, i)[2]
        reference = {"job": made["id"], "index": i}
        for a in (s.post("/v1/jobs", {**fields, "image": reference}),
                  post_form(s, "/v1/jobs", [*parts, ("image", json.dumps(reference))])):
            rows = rows_of(s, accepted(s, a))[2]
            assert all(a[:120] == b[:120] for a, b in zip(rows, source)), i


def test_masks(s):
    body = {"prompt": "a", "seed": 7, "image": text(IMAGE)}
    dark = make_png(80, 60, lambda x, y: (255 * (x < 40),) * 3)
    for more in ({"mask": text(LIGHT)}, {"mask": url(LIGHT), "mask_kind": "light"},
                 {"mask": text(CLEAR), "mask_kind": "transparent"},
                 {"mask": text(dark), "mask_invert": True}, {"mask": text(LIGHT), "feather": 0}):
        job = accepted(s, s.post("/v1/jobs", {**body, **more}))
        assert job["request"]["masked"] and job["request"]["strength"][0] == 1
        assert is_kept(rows_of(s, job)[2]), list(more)
        parts = [("prompt", "a"), ("image", IMAGE), *((k, v if k != "mask_invert" else "true")
                                                      for k, v in more.items())]
        assert is_kept(rows_of(s, accepted(s, post_form(s, "/v1/jobs", parts)))[2]), list(more)
    # An image's own transparent pixels are a mask, too.
    job = accepted(s, s.post("/v1/jobs", {"prompt": "a", "image": text(CLEAR)}))
    assert job["request"]["masked"]
    mask = accepted(s, s.post("/v1/jobs", {**body, "image": text(LIGHT), "strength": 0.3}))
    job = accepted(s, s.post("/v1/jobs", {**body, "mask": {"job": mask["id"], "index": 0}}))
    assert job["request"]["masked"]


def test_tasks(s):
    """What is done follows from what is sent, or from the task."""
    image = {"image": text(IMAGE)}
    for body, task in (({"prompt": "a"}, "generate"), ({"prompt": "a", **image}, "edit"), (image, "edit"),
                       ({"prompt": "a", "task": "generate"}, "generate"),
                       ({"task": "edit", **image}, "edit"), ({"task": None, **image}, "edit"),
                       ({"task": "upscale", **image}, "upscale")):
        job = accepted(s, s.post("/v1/jobs", {"seed": 1, **body}))
        assert job["request"]["task"] == task, (list(body), job)
        width = {"generate": 1024, "edit": 80, "upscale": 320}[task]
        assert job["images"][0]["width"] == width, job["images"]
    job = accepted(s, s.post("/v1/jobs", {"task": "upscale", "scale": 16, **image}))
    assert job["images"][0]["width"] == 1280 and job["request"]["scale"] == 16
    # What did not run is not reported, and what is reported may be requested again.
    for scale, first in ((4, 1), (16, 1)):
        r = accepted(s, s.post("/v1/jobs", {"task": "upscale", "prompt": "a", "scale": scale, **image}))["request"]
        assert r["sampler"] is None and r["steps"][:first] == r["guidance_scale"][:first] == [None] * first, r
        assert all(r["steps"][first:]) and r["noise_level"][:first] == [-1] * first, r
        names = ("sampler", "steps", "guidance_scale", "noise_level", "scale", "seed", "prompt", "preset", "task")
        again = accepted(s, s.post("/v1/jobs", {**{name: r[name] for name in names}, **image}))
        assert all(again["request"][name] == r[name] for name in names), (again, r)
    job = accepted(s, s.post("/v1/jobs", {"prompt": "a", "strength": 0.5, "size": "40x40", **image}))
    assert job["request"]["strength"][0] == 0.5 and job["images"][0]["width"] == 40
    c = s.get("/v1/capabilities").json
    assert c["tasks"] == ["generate", "edit", "upscale"] and c["scales"] == [4, 16]
    assert c["output"] == {"edge": 16384, "pixels": 64 << 20}
    assert c["input"] == {"formats": ["png", "jpeg", "webp"], "bytes": 50 << 20, "edge": 8192, "pixels": 64 << 20,
                          "mask_kinds": ["light", "transparent"]}
    assert all(c["features"][name] is True for name in ("edit", "inpaint", "upscale"))


def test_fields_of_forms(s):
    """Values come as text; what is not a value of the field is refused by its name."""
    parts = [("prompt", "a b"), ("n", "2"), ("seed", "5"), ("size", "64x64"), ("steps", "3"),
             ("guidance_scale", "2.5"), ("deadline", str(int(time.time()) + 600)), ("mask_invert", "false")]
    parts.remove(("mask_invert", "false"))
    job = accepted(s, post_form(s, "/v1/jobs", parts))
    r = job["request"]
    assert (r["prompt"], r["n"], r["seed"], r["steps"], r["guidance_scale"]) == ("a b", 2, 5, [3], [2.5]), r
    job = accepted(s, post_form(s, "/v1/jobs", [("prompt", "a"), ("size", "256"), ("steps", "3,2")]))
    assert job["request"]["steps"] == [3, 2]
    for value, steps in (("[3,2]", [3, 2]), ("[3, null]", [3]), ("[3]", [3]), ("3", [3])):
        job = accepted(s, post_form(s, "/v1/jobs", [("prompt", "a"), ("size", "256"), ("steps", value)]))
        assert job["request"]["steps"][0] == 3 and job["request"]["steps"][:len(steps)] == steps, (value, job)
    job = accepted(s, post_form(s, "/v1/jobs", [("prompt", "a"), ("image", IMAGE), ("strength", "[0.5,0.8]")]))
    assert job["request"]["strength"][:2] == [0.5, 0.8], job
    for parts, param in (([("n", "two")], "n"), ([("n", "2.5")], "n"), ([("steps", "a")], "steps"),
                         ([("steps", "1,2,3,4")], "steps"), ([("steps", "[1,2,3,4]")], "steps"),
                         ([("steps", "[1,2")], "steps"), ([("steps", "[]")], "steps"), ([("steps", "[[1]]")], "steps"),
                         ([("deadline", "soon")], "deadline"),
                         ([("deadline", "9" * 30)], "deadline"), ([("size", "big")], "size"),
                         ([("nothing", "1")], "nothing"), ([("n", "1"), ("n", "1")], "n"),
                         ([("prompt", "b")], "prompt"), ([("format", b"\xff\xfe")], "format")):
        a = post_form(s, "/v1/jobs", [("prompt", "a"), *parts])
        assert a.status == 400 and a.json["error"]["param"] == param, (parts, a.body)
    a = s.request("POST", "/v1/jobs", b"x", {"Content-Type": "multipart/form-data"})
    assert a.status == 400 and a.json["error"]["param"] == "Content-Type", a.body
    cut = form([("prompt", "a")])[:-30]
    a = s.request("POST", "/v1/jobs", cut, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
    assert a.status == 400 and "truncated" in a.json["error"]["message"], a.body
    # Routes without images take no forms.
    a = post_form(s, "/v1/images/generations", [("prompt", "a")])
    assert a.status == 415, a.body


# ---- what is refused ----------------------------------------------------------------------------

def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png_of(width, height, data, colour=2):
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, colour, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bomb():
    """800 MB of zeros in less than a megabyte: 256 times the same block, and the Adler-32 of so many zeros."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    rows = bytes(16384 * 3 + 1) * 64
    block = packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH)
    sums = 256 * len(rows) % 65521 << 16 | 1
    return png_of(16384, 16384, b"\x78\xda" + block * 256 + b"\x03\x00" + sums.to_bytes(4, "big"))


BAD = {  # name: (image, mask, what names it, words of the message)
    "truncated": (IMAGE[:len(IMAGE) // 2], None, "image", "truncated"),
    "header only": (IMAGE[:33], None, "image", "truncated"),
    "zero bytes": (b"", None, "image", "empty"),
    "text named .png": (b"this is not an image\n" * 5, None, "image", "PNG, JPEG or WebP"),
    "20,000 px": (png_of(20000, 20000, zlib.compress(bytes(60001))), None, "image", "20000"),
    "20,000 px on one side": (png_of(20000, 1, zlib.compress(bytes(60001))), None, "image", "20000"),
    "a bomb": (bomb(), None, "image", "pixels"),
    "mask of another size": (IMAGE, make_png(79, 60, lambda x, y: (255,) * 3), "mask", "79x60"),
    "mask of the image on its side": (IMAGE, make_png(60, 80, lambda x, y: (255,) * 3), "mask", "EXIF orientation"),
    "mask that is no image": (IMAGE, b"text", "mask", "PNG, JPEG or WebP"),
    "mask cut off": (IMAGE, LIGHT[:60], "mask", "truncated"),
    "mask of zero bytes": (IMAGE, b"", "mask", "empty"),
    "mask with nothing to draw": (IMAGE, make_png(80, 60, lambda x, y: (0, 0, 0, 255)), "mask", "pixel"),
}
# How each route takes an image and a mask: (path, fields, of JSON or a form, names, status).
ROUTES = {
    "jobs, JSON": ("/v1/jobs", {"prompt": "a"}, "json", ("image", "mask"), 400),
    "A1111's img2img": ("/sdapi/v1/img2img", {"prompt": "a"}, "json", ("init_images[]", "mask"), 422),
    "A1111's extras": ("/sdapi/v1/extra-single-image", {}, "json", ("image", None), 422),
    "jobs, form": ("/v1/jobs", {"prompt": "a"}, "form", ("image", "mask"), 400),
    "edits, JSON": ("/v1/images/edits", {"prompt": "a"}, "references", ("images[]", "mask"), 400),
    "edits, form": ("/v1/images/edits", {"prompt": "a"}, "form", ("image", "mask"), 400),
    "variations, JSON": ("/v1/images/variations", {}, "json", ("image", None), 400),
    "variations, form": ("/v1/images/variations", {}, "form", ("image", None), 400),
}


def send(s, route, image, mask=None, **headers):
    path, fields, how, names, _ = ROUTES[route]
    if how == "form":
        parts = [*fields.items(), (names[0], image), *([(names[1], mask)] if mask is not None else [])]
        return post_form(s, path, parts, **headers)
    body = {**fields}
    for name, value in zip(names, (image, mask)):
        if value is None:
            continue
        value = text(value) if isinstance(value, bytes) else value
        if how == "references" and isinstance(value, str):
            value = {"image_url": value if "://" in value else "data:image/png;base64," + value}
        body[name.split("[")[0]] = [value] if name.endswith("[]") else value
    return s.request("POST", path, body, headers)


def refused(route, answer, param, words, what):
    status = ROUTES[route][4]
    assert answer.status == status, (route, what, answer.status, answer.body[:300])
    error = answer.json.get("error")
    said = error["message"] if isinstance(error, dict) else answer.json["detail"]
    assert words in said, (route, what, said)
    if isinstance(error, dict):
        assert error["param"] == param and error["type"] == "invalid_request_error", (route, what, error)
    else:
        assert param in said, (route, what, said)


def test_bad_images(s):
    """Each is refused at once, by every route, with the parameter that it came in."""
    for route, (path, _, _, names, _) in ROUTES.items():
        for what, (image, mask, param, words) in BAD.items():
            if mask is not None and names[1] is None:
                continue
            if mask == b"" and path == "/sdapi/v1/img2img":  # which means none to A1111
                continue
            start = time.monotonic()
            answer = send(s, route, image, mask)
            named = names[param == "mask"].removesuffix("[]")
            # What the file itself is like is told of the image, whatever its field is called.
            refused(route, answer, named if words in ("empty",) else param, words, what)
            assert time.monotonic() - start < 10, (route, what)
    assert s.get("/healthz").status == 200


def test_bad_sources(s):
    """URLs, files elsewhere, jobs and indexes that are not there."""
    job = accepted(s, s.post("/v1/jobs", {"prompt": "a", "size": 64, "n": 2}))["id"]
    sources = (
        ("http://example.com/a.png", "does not fetch"), ("HTTPS://example.com/a.png", "does not fetch"),
        ("ftp://example.com/a.png", "does not fetch"), ("file:///etc/passwd", "does not fetch"),
        ("data:image/png,abc", "data URL in base64"), ("data:image/png;base64", "data URL in base64"),
        ("data:image/png;base64,", "empty"), ("", "empty"), ("????", "not valid base64"),
        ("abc\0def", "not valid base64"), ({"file_id": "file-1"}, "file_id is not supported"),
        ({"image_url": "https://example.com/a.png"}, "does not fetch"), ({"image_url": 5}, "image_url"),
        ({"image_url": url(IMAGE), "detail": "high"}, "detail"), ({}, "must be base64"),
        ({"job": job, "index": 2}, "2 images"), ({"job": job, "index": -1}, "index"),
        ({"job": job, "index": 99}, "index"), ({"job": job, "index": "0"}, "index"),
        ({"job": "job_" + "0" * 32, "index": 0}, "no such job"), ({"job": job + "0" * 99}, "no such job"),
        ({"job": ""}, "must be base64"), ({"job": job, "picture": 0}, "picture"), (5, "string or an object"),
        ([], "string or an object"), ([text(IMAGE)], "string or an object"),
    )
    for value, words in sources:
        for name, body in (("image", {}), ("mask", {"image": text(IMAGE)})):
            a = s.post("/v1/jobs", {"prompt": "a", **body, name: value})
            assert a.status == 400 and a.json["error"]["param"] == name, (value, a.status, a.body)
            assert words in a.json["error"]["message"], (value, a.body)
    a = post_form(s, "/v1/jobs", [("prompt", "a"), *[("image[]", IMAGE)] * 17])
    assert a.status == 400 and "17 images" in a.json["error"]["message"], a.body
    a = post_form(s, "/v1/jobs", [("prompt", "a"), ("image", IMAGE), ("image", IMAGE)])
    assert a.status == 400 and "2 images" in a.json["error"]["message"], a.body
    for name in ("image", "images"):
        a = s.post("/v1/images/edits", {"prompt": "a", name: []})
        assert a.status == 400 and a.json["error"]["param"] == name, a.body
        assert "0 images; this server takes one image per request" in a.json["error"]["message"], a.body
        a = s.post("/v1/images/edits", {"prompt": "a", name: [{"job": "job_" + "0" * 32, "index": 0}]})
        assert a.status == 400 and a.json["error"]["param"] == name, a.body
    # What curl sends without the @ before the name of a file.
    for value in ("p64.png", "./photo.jpg", "C:\\x"):
        a = post_form(s, "/v1/jobs", [("prompt", "a"), ("image", value)])
        assert a.status == 400 and ("write @" in a.json["error"]["message"]) == (":" not in value), a.body
    a = post_form(s, "/v1/jobs", [("prompt", "a"), ("image", "{")])
    assert a.status == 400 and a.json["error"]["param"] == "image", a.body


def test_images_of_jobs_that_have_none_yet():
    """The message says what has become of the job."""
    s = Server(env={"FAKE_SLOTS": "1", "FAKE_STEP_MS": "10"})
    try:
        def said(job):
            a = s.post("/v1/jobs", {"prompt": "a", "image": {"job": job}})
            assert a.status == 400 and a.json["error"]["param"] == "image", a.body
            return a.json["error"]["message"]
        with s.held():
            jobs = [s.post("/v1/jobs", {"prompt": "a", "size": 64}).json["id"] for _ in range(2)]
            eventually(lambda: s.get("/v1/jobs/" + jobs[0]).json["status"] == "running", what="a running job")
            for job, state in zip(jobs, ("running", "queued")):
                assert said(job).endswith(f"image 0 of this job is not available: the job is {state}; "
                                          "wait until it is done"), said(job)
            assert s.delete("/v1/jobs/" + jobs[1]).status == 200
            assert said(jobs[1]).endswith("the job is cancelled"), said(jobs[1])
        s.wait_job(jobs[0])
        # The index of the image defaults to 0.
        accepted(s, s.post("/v1/jobs", {"prompt": "a", "image": {"job": jobs[0]}}))
    finally:
        assert s.close() == 0


def test_fields_that_do_not_go_together(s):
    image = {"image": text(IMAGE)}
    for body, param in (({}, "prompt"), ({"prompt": ""}, "prompt"), ({"prompt": "a", "task": "edit"}, "image"),
                        ({"task": "upscale"}, "image"), ({"prompt": "a", "task": "generate", **image}, "image"),
                        ({"prompt": "a", "mask": text(LIGHT)}, "mask"),
                        ({"prompt": "a", "strength": 0.5}, "strength"), ({"prompt": "a", "scale": 4}, "scale"),
                        ({"scale": 4, **image}, "scale"), ({"task": "upscale", "scale": 3, **image}, "scale"),
                        ({"task": "upscale", "size": 64, **image}, "size"),
                        ({"task": "upscale", "strength": 0.5, **image}, "strength"),
                        ({"task": "upscale", "mask": text(LIGHT), **image}, "mask"),
                        ({"mask_kind": "light", **image}, "mask_kind"),
                        ({"prompt": "a", "mask_kind": "light"}, "mask_kind"),
                        ({"task": "upscale", "mask_invert": True, **image}, "mask_invert"),
                        ({"task": "upscale", "feather": 3, **image}, "feather"),
                        ({"prompt": "a", "feather": 3}, "feather"), ({"prompt": "a", "mask_invert": True}, "mask_invert"),
                        ({"prompt": "a", "strength": 0, **image}, "strength"),
                        ({"prompt": "a", "strength": 0.01, **image}, "strength"),
                        ({"task": "paint", **image}, "task")):
        a = s.post("/v1/jobs", body)
        assert a.status == 400 and a.json["error"]["param"] == param, (list(body), param, a.status, a.body)


def test_images_of_another_key():
    """They are as absent as those of no job at all."""
    made = {name: new_key(name, "generate,read") for name in ("owner", "other")}
    s = Server("--keys-file", keys_file(*(line for _, line in made.values())))
    try:
        keys = {name: bearer(key) for name, (key, _) in made.items()}
        a = s.request("POST", "/v1/jobs", {"prompt": "a", "size": 64}, keys["owner"])
        job = s.wait_job(a.json["id"], **keys["owner"])["id"]
        for route, (_, _, how, _, status) in ROUTES.items():
            if status != 400:
                continue
            values = [{"job": j, "index": 0} for j in (job, "job_" + "0" * 32)]
            if how == "form":
                values = [json.dumps(v) for v in values]
            theirs, nobodys = (send(s, route, v, **keys["other"]) for v in values)
            assert theirs.status == nobodys.status == 400 and theirs.body == nobodys.body, (route, theirs.body)
            mine = send(s, route, values[0], **keys["owner"])
            assert mine.status in (200, 202), (route, mine.body)
    finally:
        assert s.close() == 0


# ---- sizes and memory ---------------------------------------------------------------------------

def noise(edge):
    """A PNG of three bytes per pixel that nothing can compress."""
    raw = b"".join(b"\0" + os.urandom(3 * edge) for _ in range(edge))
    return png_of(edge, edge, zlib.compress(raw, 0))


def test_the_body_may_be_as_large_as_images_are():
    """Only where images are taken; the other routes keep max-body."""
    s = Server("--max-body", "2000", "--input-bytes", "300000")
    try:
        image = noise(240)
        assert 150_000 < len(image) < 200_000
        job = accepted(s, send(s, "jobs, form", image))
        assert s.delete("/v1/jobs/" + job["id"]).status == 204
        accepted(s, send(s, "jobs, JSON", image))
        big = noise(340)
        assert len(big) > 300_000
        for route in ROUTES:
            a = send(s, route, big)
            assert a.status == 413 and b"input-bytes" in a.body, (route, a.body)
        for path, size, status in (("/v1/jobs", 300_001, 413), ("/v1/images/generations", 2001, 413),
                                   ("/v1/images/edits", 300_000, 400), ("/sdapi/v1/txt2img", 2001, 413),
                                   ("/sdapi/v1/options", 2001, 413)):
            for body in ("x" * size, iter([b"x" * size])):
                a = s.request("POST", path, body)
                assert a.status == status, (path, a.body)
        # A little compressed text cannot become a large body.
        packed = gzip.compress(json.dumps({"prompt": "a", "image": "A" * 100_000}).encode())
        a = s.request("POST", "/v1/jobs", packed, {"Content-Encoding": "gzip"})
        assert a.status == 413 and "max-body" in a.json["error"]["message"], a.body
        # Chunked, so that the size is not known before.
        for job in s.get("/v1/jobs").json["data"]:
            assert s.delete("/v1/jobs/" + job["id"]).status == 204
        data = form([("prompt", "a"), ("image", image)])
        a = s.request("POST", "/v1/jobs", iter([data[i:i + 10000] for i in range(0, len(data), 10000)]),
                      {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
        accepted(s, a)
        s.send_endless_body("/v1/jobs")
    finally:
        assert s.close() == 0


def test_ordinary_requests_do_not_wait_for_uploads():
    s = Server("--input-bytes", "2M", "--max-body", "100K")
    try:
        head = (f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; "
                f"boundary={BOUNDARY}\r\nContent-Length: 1500000\r\n\r\n").encode()
        slow = s.raw(head, read=False)
        slow.sendall(bytes(200_000))
        eventually(lambda: send(s, "jobs, form", noise(600)).status == 503, what="a full house")
        a = send(s, "jobs, form", noise(600))
        assert a.status == 503 and int(a.headers["retry-after"]) >= 1, a.body
        assert "uploaded at the same time" in a.json["error"]["message"], a.body
        accepted(s, send(s, "jobs, form", IMAGE))
        accepted(s, s.post("/v1/jobs", {"prompt": "a", "size": 64}))
        slow.close()
        eventually(lambda: send(s, "jobs, form", noise(600)).status == 202, what="room again")
    finally:
        assert s.close() == 0


def test_large_bodies_may_take_longer():
    """Each 256 KB beyond max-body add a second to receive-timeout; a client that stops is closed."""
    s = Server("--max-body", "100K", "--receive-timeout", "2")
    try:
        body = form([("prompt", "a"), ("size", "64"), ("image", noise(1200))])
        head = (f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; "
                f"boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n").encode()
        parts = [body[i:i + 500_000] for i in range(0, len(body), 500_000)]
        assert len(parts) > 8
        start = time.monotonic()
        with s.raw(head, read=False) as steady, s.raw(head + parts[0], read=False) as stopped:
            for part in parts:
                steady.sendall(part)
                time.sleep(0.5)
            assert time.monotonic() - start > 4
            assert steady.recv(100).startswith(b"HTTP/1.1 202 ")
            assert stopped.recv(100) == b""
            assert time.monotonic() - start < 30
    finally:
        assert s.close() == 0


def test_room_is_free_once_a_job_has_its_image():
    """While edits are drawn and their clients wait, others may upload."""
    s = Server("--input-bytes", "4M", "--max-body", "100K", env={"FAKE_SLOTS": "1"})
    try:
        image = noise(600)
        assert 1_000_000 < len(image) < 1_500_000
        answers = []
        with s.held():
            threads = [threading.Thread(target=lambda: answers.append(post_form(
                s, "/v1/images/edits", [("prompt", "a"), ("size", "64x64"), ("image", image)]))) for _ in range(2)]
            for i, thread in enumerate(threads):
                thread.start()
                eventually(lambda: sum(s.get("/v1/capabilities").json[k] for k in ("running", "queued")) == i + 1)
            a = post_form(s, "/v1/images/edits", [("prompt", "a"), ("image", image), ("mask", image)])
            assert a.status == 400 and a.json["error"]["param"] == "mask", a.body
        for thread in threads:
            thread.join(PATIENCE)
        assert [a.status for a in answers] == [200, 200], [a.body[:200] for a in answers]
    finally:
        assert s.close() == 0


def test_a_client_that_leaves_makes_no_job():
    s = Server()
    try:
        body = form([("prompt", "gone"), ("size", "64"), ("image", noise(2600))])
        head = (f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; "
                f"boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n").encode()
        for part in (body, body[:len(body) // 2]):
            c = s.raw(head + part, read=False)
            c.close()
        accepted(s, send(s, "jobs, form", IMAGE))
        accepted(s, post_form(s, "/v1/jobs", [("prompt", "last"), ("size", "64"), ("image", noise(1500))]))
        made = [j["request"]["prompt"] for j in s.get("/v1/jobs").json["data"]]
        assert made == ["last", "a"], made
    finally:
        assert s.close() == 0


def test_documents_of_many_values_stay_small(s):
    """What is not an image takes many times its size in memory, so that max-body is its limit."""
    image = text(noise(1500))
    for more, status in (({}, 202), ({"n": 1, "prompt": "a" * 32000}, 202), ({"steps": [1] * 700_000}, 413),
                         ({"image": [1] * 700_000}, 413), ({"prompt": "\u00e9" * 1_000_000}, 413),
                         ({"x" * 2_000_000: 1}, 413)):
        a = s.post("/v1/jobs", {"prompt": "a", "size": 64, "image": image, **more})
        assert a.status == status, (list(more)[:1], a.status, a.body[:300])
        assert status != 413 or "max-body" in a.json["error"]["message"], a.body
    # As PHP and Python's MIME encoder write it.
    for escaped in (image.replace("/", "\\/"), "\\r\\n".join(image[i:i + 76] for i in range(0, len(image), 76))):
        a = s.post("/v1/jobs", '{"prompt": "a", "size": 64, "image": "%s"}' % escaped)
        accepted(s, a)


def test_sources_of_every_route(s):
    """What no route can use is refused alike: foreign URLs, jobs and indexes that are not there."""
    job = accepted(s, s.post("/v1/jobs", {"prompt": "a", "size": 64}))["id"]
    for route, (path, fields, how, names, status) in ROUTES.items():
        for value, words in (("https://example.com/a.png", "does not fetch"), ("????", "not valid base64"),
                             ({"job": "job_" + "0" * 32, "index": 0}, "no such job"),
                             ({"job": job, "index": 1}, "1 image"), ({"file_id": "file-1"}, "file_id")):
            if isinstance(value, dict) and status != 400:
                continue  # A1111 knows no jobs
            a = send(s, route, json.dumps(value) if how == "form" and isinstance(value, dict) else value)
            assert a.status == status and words in a.body.decode(), (route, value, a.status, a.body)


def test_repeated_forms():
    """The same request again is the same job, whatever its boundary is."""
    s = Server()
    try:
        parts = [("prompt", "a"), ("size", "64"), ("image", IMAGE)]
        first = post_form(s, "/v1/jobs", parts, **{"Idempotency-Key": "k"})
        accepted(s, first)
        other = form(parts).replace(BOUNDARY.encode(), b"another")
        a = s.request("POST", "/v1/jobs", other, {"Content-Type": "multipart/form-data; boundary=another",
                                                  "Idempotency-Key": "k"})
        assert a.status == 202 and a.json["id"] == first.json["id"], a.body
        a = post_form(s, "/v1/jobs", [*parts[:2], ("image", LIGHT)], **{"Idempotency-Key": "k"})
        assert a.status == 409, a.body
        # At the same time: one of them makes the job, the others are told to wait for it.
        big = [("prompt", "a"), ("size", "64"), ("image", noise(1200))]
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(
            post_form(s, "/v1/jobs", big, **{"Idempotency-Key": "m"}))) for _ in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(PATIENCE)
        assert {a.status for a in answers} <= {202, 503}, [a.status for a in answers]
        assert len({a.json["id"] for a in answers if a.status == 202}) == 1
        assert post_form(s, "/v1/jobs", big, **{"Idempotency-Key": "m"}).status == 202
    finally:
        assert s.close() == 0


if __name__ == "__main__":
    main(globals())
