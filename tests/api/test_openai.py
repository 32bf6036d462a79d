"""POST /v1/images/generations and /v1/models, field by field."""
import base64
import json
import struct
import urllib.parse

from harness import Server, b64, is_png, main


def test_plain_request_answers_with_base64(s):
    a = s.draw("a red sphere")
    assert a.status == 200 and a.headers["content-type"] == "application/json"
    assert is_png(b64(a), 64)
    assert isinstance(a.json["created"], int)
    assert a.json["background"] == "opaque" and a.json["size"] == "64x64"
    assert a.json["output_format"] == "png" and a.json["quality"] == "medium"
    u = a.json["usage"]
    assert u["total_tokens"] == u["input_tokens"] + u["output_tokens"]
    assert set(u["input_tokens_details"]) == {"text_tokens", "image_tokens"}


def test_every_image_of_several(s):
    """Its pixels are those of its own number, in the response, the stream, the job and the file."""
    alone = [b64(s.draw("x", seed=5, picture=i)) for i in range(3)]
    assert len(set(alone)) == 3
    a = s.draw("x", seed=5, n=3)
    assert [b64(a, i) for i in range(3)] == alone
    frames = list(s.events("POST", "/v1/images/generations",
                           {"prompt": "x", "seed": 5, "n": 3, "size": "64x64", "stream": True}))
    assert sorted(f[2]["image_index"] for f in frames) == [0, 1, 2]
    for _, _, data in frames:
        assert base64.b64decode(data["b64_json"]) == alone[data["image_index"]], data["image_index"]
        assert data["usage"]["output_tokens"] == 3 * 16, data["usage"]
    job = s.wait_job(s.post("/v1/jobs", {"prompt": "x", "seed": 5, "n": 3, "size": 64}).json["id"])
    urls = s.draw("x", seed=5, n=3, response_format="url").json["data"]
    for i in range(3):
        assert s.get(job["images"][i]["href"]).body == alone[i], i
        for url in (job["images"][i]["url"], urls[i]["url"]):
            assert s.get(url[url.index("/v1/"):]).body == alone[i], (i, url)
        assert job["images"][i]["index"] == i


def test_usage_counts_what_the_tokenizer_counted(s):
    """The fake engine's tokens are words, and one for the end of each text."""
    for fields, tokens in (({}, 4), ({"negative_prompt": "very blurry"}, 7), ({"n": 3}, 4),
                           ({"negative_prompt": ""}, 5)):
        u = s.draw("a red sphere", **fields).json["usage"]
        pictures = 16 * fields.get("n", 1)
        assert u == {"input_tokens": tokens, "output_tokens": pictures,
                     "total_tokens": tokens + pictures,
                     "input_tokens_details": {"text_tokens": tokens, "image_tokens": 0},
                     "output_tokens_details": {"text_tokens": 0, "image_tokens": pictures}}, u


def test_default_size_is_the_largest(s):
    a = s.post("/v1/images/generations", {"prompt": "a"})
    assert is_png(b64(a), 1024)


def test_same_seed_same_picture_and_n(s):
    a, b = (s.draw("x", seed=5, n=2) for _ in range(2))
    assert b64(a) == b64(b) and b64(a, 1) == b64(b, 1) and b64(a) != b64(a, 1)
    assert a.json["seed"] == 5
    assert b64(s.draw("x", seed=6)) != b64(a)
    assert b64(s.draw("x")) != b64(s.draw("x"))


def jpeg_parts(data):
    """Height, width and the first quantisation table, from the markers of a JPEG file."""
    assert data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9"
    at, size, table = 2, None, None
    while data[at + 1] != 0xda:
        assert data[at] == 0xff
        n = struct.unpack(">H", data[at + 2:at + 4])[0]
        if data[at + 1] in (0xc0, 0xc2):
            size = struct.unpack(">HH", data[at + 5:at + 9])
        if data[at + 1] == 0xdb and table is None:
            table = list(data[at + 5:at + 69])
        at += 2 + n
    return size, table


def webp_parts(data):
    """Height and width of a WebP file, and whether it is lossless."""
    assert data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
    at = 12     # with metadata, an extended header comes before the image
    while data[at:at + 4] not in (b"VP8L", b"VP8 "):
        size = struct.unpack("<I", data[at + 4:at + 8])[0]
        assert at + 8 + size <= len(data), data[at:at + 4]
        at += 8 + size + size % 2
    kind, body = data[at:at + 4], data[at + 8:]
    if kind == b"VP8L":
        bits = struct.unpack("<I", body[1:5])[0]
        return (((bits >> 14) & 0x3fff) + 1, (bits & 0x3fff) + 1), True
    assert kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a", kind
    width, height = struct.unpack("<HH", body[6:10])
    return (height & 0x3fff, width & 0x3fff), False


# The first entries of the luminance table of JPEG's Annex K, in zigzag order.
ANNEX_K = (16, 11, 12, 14, 12, 10, 16, 14, 13)


def test_formats(s):
    """The file's own format, size and quality, however it is asked for and delivered."""
    for size in ("64x64", "48x20"):
        width, height = map(int, size.split("x"))
        for quality in (0, 30, 80, 100):
            for name in ("png", "jpeg", "webp"):
                what = (name, quality, size)
                a = s.draw(output_format=name, output_compression=quality, size=size, seed=2)
                assert a.json["output_format"] == name, what
                raw = s.draw(output_compression=quality, size=size, seed=2,
                             headers={"Accept": "image/" + name})
                assert raw.headers["content-type"] == "image/" + name and raw.body == b64(a), what
                assert raw.headers["x-imagend-seed"] == "2"
                url = s.draw(output_format=name, output_compression=quality, size=size, seed=2,
                             response_format="url").json["data"][0]["url"]
                file = s.get(url[url.index("/v1/"):])
                assert file.body == raw.body and file.headers["content-type"] == "image/" + name, what
                j = s.wait_job(s.post("/v1/jobs", {"prompt": "a", "format": name, "quality": quality,
                                                   "size": size, "seed": 2}).json["id"])
                image = s.get(j["images"][0]["href"])
                assert image.body == raw.body and image.headers["content-type"] == "image/" + name
                if name == "png":
                    assert struct.unpack(">II", raw.body[16:24]) == (width, height), what
                elif name == "webp":
                    assert webp_parts(raw.body) == ((height, width), quality == 100), what
                else:
                    shape, table = jpeg_parts(raw.body)
                    # The scale of the Independent JPEG Group's library.
                    scale = 5000 // max(quality, 1) if quality < 50 else 200 - 2 * quality
                    want = [min(max((k * scale + 50) // 100, 1), 255) for k in ANNEX_K]
                    assert shape == (height, width) and table[:9] == want, (what, table[:9], want)


def test_jpg_is_jpeg(s):
    for accept in ("image/jpg", "image/jpeg", "IMAGE/JPG, */*"):
        raw = s.draw(headers={"Accept": accept}, seed=2)
        assert raw.headers["content-type"] == "image/jpeg", accept
        jpeg_parts(raw.body)
    a = s.draw(output_format="jpg", seed=2)
    assert a.json["output_format"] == "jpeg" and b64(a) == b64(s.draw(output_format="jpeg", seed=2))
    url = s.draw(output_format="jpg", response_format="url").json["data"][0]["url"]
    assert url.endswith(".jpeg"), url
    j = s.wait_job(s.post("/v1/jobs", {"prompt": "a", "size": 64, "format": "jpg",
                                       "preview_format": "jpg"}).json["id"])
    assert j["request"]["format"] == "jpeg", j
    jpeg_parts(s.get(j["images"][0]["href"]).body)


def test_fields_that_others_have(s):
    """An alias is honoured, an unknown field is ignored as OpenAI-compatible servers do."""
    def steps(**fields):
        a = s.draw(size="256x256", response_format="url", seed=1, **fields)
        return s.get("/v1/jobs/" + a.headers["x-imagend-job"]).json["request"]["steps"]
    assert steps(num_inference_steps=5) == [5, 4]
    assert steps(num_inference_steps=[5, 2]) == [5, 2]
    assert steps(num_inference_steps=None, steps=3) == [3, 4]
    assert steps(lora=["x"], width=5) == [8, 4]
    for fields, says in (({"num_inference_steps": 0}, '"num_inference_steps" must be'),
                         ({"num_inference_steps": 5, "steps": 5}, "send only one")):
        error = s.post("/v1/images/generations", {"prompt": "a", **fields}).json["error"]
        assert error["param"] == "num_inference_steps" and says in error["message"], error


def test_every_null_is_the_default(s):
    fields = ("model n quality response_format output_format output_compression stream "
              "partial_images background style moderation user negative_prompt seed steps "
              "guidance_scale sampler").split()
    a = s.draw(**{f: None for f in fields})
    assert a.status == 200, a.body


def test_every_empty_text_is_the_default(s):
    """Forms send "" for what was left empty."""
    fields = ("model size quality response_format output_format background style moderation user "
              "negative_prompt sampler").split()
    for given in ([f] for f in fields):
        a = s.post("/v1/images/generations", {"prompt": "a", "seed": 1, **{f: "" for f in given}})
        assert a.status == 200 and is_png(b64(a), 1024), (given, a.body[:300])
    a = s.post("/v1/images/generations", {"prompt": "a", **{f: "" for f in fields}})
    assert a.status == 200 and is_png(b64(a), 1024)
    assert "url" in s.draw(model="dall-e-2", response_format="").json["data"][0]
    for field in ("prompt", "n", "seed", "steps", "guidance_scale", "output_compression", "stream"):
        a = s.draw(**{"prompt": "a", field: ""})
        assert a.status == 400 and a.json["error"]["param"] == field, (field, a.body)
    for field in ("sampler", "preset", "format", "timesteps"):  # the native API takes null, not ""
        a = s.post("/v1/jobs", {"prompt": "a", field: ""})
        assert a.status == 400 and a.json["error"]["param"] == field, (field, a.body)


def test_unknown_and_ignored_fields_are_ignored(s):
    assert s.draw(style="vivid", moderation="low", user="u", something=[1]).status == 200


# What requests may call the model, and whether OpenAI answers with URLs by default.
NAMES = (
    (None, False), ("", False), ("fake", False), ("openai/fake", False),
    ("gpt-image-1", False), ("gpt-image-1-mini", False), ("gpt-image-1.5", False),
    ("gpt-image-2", False), ("gpt-image-2-2026-04-21", False), ("gpt-image-1-2025-04-23", False),
    ("chatgpt-image-latest", False), ("openai/gpt-image-2-2026-04-21", False),
    ("openai/chatgpt-image-latest", False), ("gpt-image-2.5-sunburst", False),
    ("gpt-image-2.6-flare", False), ("gpt-image-3-mini-2028-01-31", False),
    ("dall-e-2", True), ("dall-e-3", True), ("openai/dall-e-3", True), ("dall-e-3-2024-01-31", True),
)
UNKNOWN = ("other", "Fake", "openai/", "openai/other", "openai/openai/fake", "azure/dall-e-3",
           "gpt-image", "gpt-image-", "openai/gpt-image-", "gpt-image-2 ", "gpt-image-2/x",
           "GPT-image-2", "gpt-image-\u00e9", "chatgpt-image-", "dall-e-3-2024-01-3", "dall-e-4",
           "dall-e-3-2024-01-311", "dall-e-3-latest",
           "fake-2026-04-21", "-2026-04-21", "2026-04-21", "gpt-4o", "sdxl", "fake ", "x" * 200)


def test_model_names(s):
    models = s.get("/v1/models").json
    assert models["object"] == "list" and [m["id"] for m in models["data"]] == ["fake"]
    for name, urls in NAMES:
        a = s.draw(model=name)
        assert a.status == 200, (name, a.body)
        kinds = {"url", "b64_json"} & set(a.json["data"][0])
        assert kinds == {"url" if urls else "b64_json"}, (name, a.body[:100])
        assert a.json["model"] == "fake"
        if name:
            for path in (name, urllib.parse.quote(name, safe="")):
                m = s.get("/v1/models/" + path).json
                assert m["object"] == "model" and m["id"] == name and m["root"] == "fake", (path, m)
    for name in UNKNOWN:
        a = s.draw(model=name)
        assert a.status == 404 and a.json["error"]["param"] == "model", (name, a.body)
        assert a.json["error"]["code"] == "model_not_found", a.body
        assert s.get("/v1/models/" + urllib.parse.quote(name, safe="")).status == 404, name


def test_response_format_defaults_to_the_models(s):
    for model in ("dall-e-2", "dall-e-3"):
        url = s.draw(model=model, response_format=None, seed=31).json["data"][0]["url"]
        assert is_png(s.get(url[url.index("/v1/"):]).body, 64)
        # What has no address is not kept.
        assert is_png(b64(s.draw(model=model, response_format="b64_json", seed=32)), 64)
        assert is_png(s.draw(model=model, seed=32, headers={"Accept": "image/png"}).body, 64)
        frames = list(s.events("POST", "/v1/images/generations", {
            "prompt": "a", "size": "64x64", "model": model, "stream": True, "seed": 32}))
        assert is_png(base64.b64decode(frames[-1][2]["b64_json"])), frames
    kept = [j["request"]["seed"] for j in s.get("/v1/jobs?limit=100").json["data"]]
    assert kept.count(31) == 2 and 32 not in kept, kept
    assert "url" in s.draw(model="gpt-image-1", response_format="url").json["data"][0]


def test_model_aliases():
    s = Server("--model-aliases", "sdxl, my/own,stable-diffusion-3")
    try:
        ids = [m["id"] for m in s.get("/v1/models").json["data"]]
        assert ids == ["fake", "sdxl", "my/own", "stable-diffusion-3"], ids
        for name in ("sdxl", "my/own", "stable-diffusion-3", "openai/sdxl", "fake", "dall-e-2"):
            assert s.draw(model=name).status == 200, name
            assert s.get("/v1/models/" + name).json["root"] == "fake", name
        for name in ("my", "own", "my/", "sdxl,", "sdxl-2026-04-21", ",", "stable"):
            assert s.draw(model=name).status == 404, name
    finally:
        assert s.close() == 0


def test_what_cannot_be_served_is_named(s):
    for field, value in (("prompt", ""), ("prompt", "x" * 32001), ("prompt", None), ("prompt", 5),
                         ("n", 0), ("n", 11), ("n", 1.5), ("n", "1"), ("size", "1025x64"),
                         ("size", "64x"), ("size", "big"), ("size", 0), ("quality", "best"),
                         ("response_format", "png"), ("output_format", "gif"),
                         ("output_compression", 101), ("stream", "yes"), ("partial_images", 4),
                         ("background", "transparent"), ("seed", -2), ("seed", 1.5),
                         ("steps", 0), ("steps", 1001), ("steps", [1, 2, 3, 4]), ("steps", []),
                         ("guidance_scale", "high"), ("guidance_scale", 1e30),
                         ("sampler", "none"), ("partial_images", 2)):
        a = s.draw(**{"prompt": "a", field: value})
        assert a.status == 400, (field, value, a.body)
        error = a.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["param"] == field and error["type"] == "invalid_request_error", error
        assert error["message"]


def test_quality_and_steps(s):
    def steps(**fields):
        frames = list(s.events("POST", "/v1/images/generations",
                               {"prompt": "a", "size": "64x64", "stream": True, **fields}))
        return frames[-1][2]
    assert steps(quality="low")["quality"] == "low"
    assert steps(quality="hd")["quality"] == "high"

    def asked(server, **fields):
        a = server.draw(size="256x256", response_format="url", **fields)
        return server.get("/v1/jobs/" + a.headers["x-imagend-job"]).json["request"]
    for quality in ("auto", "medium", "standard", None):
        r = asked(s, quality=quality)
        assert r["preset"] is None and r["steps"] == [8, 4], (quality, r)
    for quality in ("high", "hd", "xhigh", "max"):
        r = asked(s, quality=quality)
        assert r["preset"] is None and r["steps"] == [16, 8], (quality, r)
    a = s.draw(size="64x64", response_format="url", quality="high")
    assert a.status == 200, a.body
    assert s.get("/v1/jobs/" + a.headers["x-imagend-job"]).json["request"]["steps"] == [16]
    r = asked(s, quality="low")
    assert r["preset"] == "fast" and r["steps"] == [3, 2] and r["sampler"] == "ddim", r
    assert r["guidance_scale"] == [1, 1], r
    r = asked(s, quality="low", steps=[5], guidance_scale=2.5, sampler="ddpm")
    assert r["preset"] == "fast" and r["steps"] == [5, 2] and r["sampler"] == "ddpm", r
    assert r["guidance_scale"] == [2.5, 1], r


def test_low_quality_without_presets():
    s = Server(env={"FAKE_PRESETS": "0"})
    try:
        a = s.draw(size="256x256", response_format="url", quality="low")
        r = s.get("/v1/jobs/" + a.headers["x-imagend-job"]).json["request"]
        assert r["preset"] is None and r["steps"] == [4, 2], r
    finally:
        assert s.close() == 0


def test_stream_has_every_field(s):
    frames = list(s.events("POST", "/v1/images/generations",
                           {"prompt": "a", "size": "256x256", "stream": True,
                            "partial_images": 3}))
    names = [f[0] for f in frames]
    assert names == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    for i, (name, _, data) in enumerate(frames):
        assert data["type"] == name
        for key in ("b64_json", "created_at", "size", "quality", "background", "output_format"):
            assert key in data, key
        assert is_png(base64.b64decode(data["b64_json"]))
        if i < 3:
            assert data["partial_image_index"] == i
        else:
            assert data["usage"]["total_tokens"] > 0


def test_stream_error(s):
    frames = list(s.events("POST", "/v1/images/generations",
                           {"prompt": "[fail]", "size": "64x64", "stream": True}))
    assert frames[-1][0] == "error" and frames[-1][2]["error"]["message"]


def test_engine_failure_is_a_500(s):
    a = s.draw("[fail]")
    assert a.status == 500 and a.json["error"]["type"] == "server_error"
    assert a.json["error"]["code"] == "not_finite"
    assert 'imagend_pictures_failed_total{code="not_finite"} ' in s.get("/metrics").body.decode()


def test_idempotency_key(s):
    h = {"Idempotency-Key": "key-1"}
    a, b = s.draw("same", headers=h), s.draw("same", headers=h)
    assert a.status == 200 and a.json == b.json and len(a.json["data"]) == 1
    assert a.headers["x-imagend-job"] == b.headers["x-imagend-job"]
    c = s.draw("other", headers=h)
    assert c.status == 409 and c.headers["x-should-retry"] == "false"


def test_idempotency_key_of_a_stream(s):
    """Repeated, it gets the images at once, whole; or the same failure."""
    for prompt in ("x", "[fail]"):
        body, headers = {"prompt": prompt, "size": "64x64", "n": 2, "stream": True}, {
            "Idempotency-Key": "stream " + prompt}
        first, again = (sorted(e[2].get("b64_json", e[0]) for e in s.events(
            "POST", "/v1/images/generations", body, headers)) for _ in range(2))
        assert first == again and len(first) == (2 if prompt == "x" else 1), (prompt, len(again))


def test_what_raw_images_cannot_be(s):
    for fields in ({"n": 2}, {"stream": True}):
        a = s.draw(headers={"Accept": "image/png"}, **fields)
        assert a.status == 400 and a.json["error"]["param"] == "n", (fields, a.body)


def test_json_is_strict(s):
    for body, param in (('{"prompt":"a"', None), ('{"prompt":"a","prompt":"b"}', None),
                        ("[]", None), ("1", None), ("", None), ('{"prompt":"\xff"}', None),
                        ("[" * 200 + "]" * 200, None), ('{"prompt":"a"} x', None),
                        ('{"prompt":"\\ud800"}', None), ('{"prompt":"a\\u0000b"}', None)):
        a = s.request("POST", "/v1/images/generations", body.encode("latin-1"),
                      {"Content-Type": "application/json"})
        assert a.status == 400, (body, a.status, a.body)
        json.loads(a.body)


if __name__ == "__main__":
    main(globals())
