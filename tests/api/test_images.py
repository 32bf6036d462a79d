"""POST /v1/images/edits and /v1/images/variations, field by field."""
import base64
import json
import zlib

from harness import Server, b64, eventually, is_png, main, make_png, read_png
from test_inputs import CLEAR, IMAGE, LIGHT, is_kept, noise, png_of, post_form, text, url

EDITS, VARIATIONS = "/v1/images/edits", "/v1/images/variations"


def edit(s, *parts, **headers):
    return post_form(s, EDITS, [("prompt", "a red ball"), ("image", IMAGE), *parts], **headers)


def edit_json(s, **fields):
    return s.post(EDITS, {"prompt": "a red ball", "images": [{"image_url": url(IMAGE)}], **fields})


def job_of(s, answer):
    """The job behind an answer that is kept, as the answer gives URLs."""
    return s.get("/v1/jobs/" + answer.headers["x-imagend-job"]).json


def test_an_edit_answers_with_base64(s):
    for a in (edit(s), edit_json(s), s.post(EDITS, {"prompt": "a", "image": text(IMAGE)}),
              s.post(EDITS, {"prompt": "a", "image": [url(IMAGE)]})):
        assert a.status == 200, a.body
        assert read_png(b64(a))[:2] == (80, 60) and a.json["size"] == "80x60"
        assert isinstance(a.json["created"], int) and len(a.json["data"]) == 1
        assert a.json["background"] == "opaque" and a.json["output_format"] == "png"
    a = edit(s, ("n", "2"), ("size", "64x64"), ("output_format", "webp"), ("output_compression", "80"),
             ("quality", "low"), ("user", "me"), ("moderation", "low"), ("seed", "5"), ("background", "auto"))
    assert a.status == 200 and a.json["quality"] == "low" and a.json["size"] == "64x64", a.body[:300]
    files = [b64(a, i) for i in range(2)]
    assert files[0] != files[1] and all(f[8:12] == b"WEBP" for f in files) and a.json["seed"] == 5


def test_usage_counts_the_image_that_was_sent(s):
    """One token per 16x16 pixels, of what goes in and of what comes out."""
    for a, taken, made in ((edit(s), 19, 19), (edit(s, ("size", "64x64"), ("n", "3")), 16, 48)):
        assert a.json["usage"] == {
            "input_tokens": 4 + taken, "output_tokens": made, "total_tokens": 4 + taken + made,
            "input_tokens_details": {"text_tokens": 4, "image_tokens": taken},
            "output_tokens_details": {"text_tokens": 0, "image_tokens": made}}, a.json["usage"]


def test_a_mask_says_by_its_alpha_what_is_edited(s):
    for a in (edit(s, ("mask", CLEAR)), edit_json(s, mask={"image_url": url(CLEAR)}),
              edit(s, ("mask", CLEAR), ("input_fidelity", "high"))):
        assert a.status == 200, a.body
        assert is_kept(read_png(b64(a))[2])
    # Without a mask, the image's own transparent pixels.
    a = post_form(s, EDITS, [("prompt", "a"), ("image", CLEAR)])
    rows = read_png(b64(a))[2]
    assert all(r[:120] == bytes([9] * 120) for r in rows) and any(r[160:] != bytes([9] * 80) for r in rows)
    a = edit(s, ("mask", LIGHT))
    assert a.status == 400 and a.json["error"]["param"] == "mask", a.body
    assert "transparent" in a.json["error"]["message"]


def test_fidelity_is_strength(s):
    """What is kept of a kept answer tells it: high is 0.4, low the model's own, a mask repaints fully."""
    for parts, want in (((), 0.7), ((("input_fidelity", "low"),), 0.7), ((("input_fidelity", "high"),), 0.4),
                        ((("input_fidelity", ""),), 0.7), ((("strength", "0.5"),), 0.5),
                        ((("strength", "0.5"), ("input_fidelity", "high")), 0.5),
                        ((("input_fidelity", "high"), ("mask", CLEAR)), 1)):
        a = edit(s, ("response_format", "url"), *parts)
        r = job_of(s, a)["request"]
        assert r["strength"][0] == want and r["task"] == "edit", (parts, r)
    a = edit(s, ("input_fidelity", "full"))
    assert a.status == 400 and a.json["error"]["param"] == "input_fidelity", a.body


def test_quality_of_an_edit(s):
    """It does not change the steps of stages that a small image does not use."""
    for quality, steps in (("high", [16]), ("medium", [8]), ("auto", [8])):
        small = make_png(60, 40, lambda x, y: (x, y, 0))
        a = post_form(s, EDITS, [("prompt", "a"), ("image", small), ("quality", quality),
                                 ("response_format", "url")])
        assert a.status == 200 and job_of(s, a)["request"]["steps"] == steps, (quality, a.body)


def test_urls_and_raw_images(s):
    a = edit(s, ("response_format", "url"), ("seed", "4"))
    link = a.json["data"][0]["url"]
    file = s.get(link[link.index("/v1/"):])
    assert read_png(file.body)[:2] == (80, 60)
    raw = edit(s, ("seed", "4"), Accept="image/png")
    assert raw.headers["content-type"] == "image/png" and raw.body == file.body
    assert raw.headers["x-imagend-seed"] == "4"
    a = edit(s, ("model", "dall-e-2"))
    assert "url" in a.json["data"][0]
    a = edit(s, ("model", "sdxl"))
    assert a.status == 404 and a.json["error"]["code"] == "model_not_found"
    for parts, param in (([("background", "transparent")], "background"), ([("n", "11")], "n"),
                         ([("partial_images", "2")], "partial_images"), ([("stream", "maybe")], "stream"),
                         ([("size", "2000x2000")], "size")):
        a = edit(s, *parts)
        assert a.status == 400 and a.json["error"]["param"] == param, (parts, a.body)


def frames_of(body):
    for block in body.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line[1:])
        if "event" in lines:
            yield lines["event"], json.loads(lines["data"])


def test_stream_has_every_field(s):
    for a in (edit(s, ("stream", "true"), ("partial_images", "3"), ("size", "256x256")),
              edit_json(s, stream=True, partial_images=3, size="256x256")):
        assert a.status == 200 and a.headers["content-type"].startswith("text/event-stream"), a.body
        frames = list(frames_of(a.body))
        assert [f[0] for f in frames] == ["image_edit.partial_image"] * 3 + ["image_edit.completed"]
        for i, (name, data) in enumerate(frames):
            assert data["type"] == name and is_png(base64.b64decode(data["b64_json"]))
            for key in ("created_at", "size", "quality", "background", "output_format"):
                assert key in data, key
            assert data.get("partial_image_index", 3) == i
        assert frames[-1][1]["usage"]["input_tokens_details"]["image_tokens"] == 256
    a = post_form(s, EDITS, [("prompt", "[fail]"), ("image", IMAGE), ("stream", "true")])
    assert list(frames_of(a.body))[-1][0] == "error"
    # What is wrong with the image is an answer, not a stream.
    a = post_form(s, EDITS, [("prompt", "a"), ("image", IMAGE[:50]), ("stream", "true")])
    assert a.status == 400 and a.json["error"]["param"] == "image"


def test_an_event_may_be_larger_than_any_other(s):
    """The result of a masked edit has the size of what was sent, however large."""
    edge = 2600
    image = noise(edge)
    clear = b"\0" + bytes(4) * 40 + b"\0\0\0\xff" * (edge - 40)
    mask = png_of(edge, edge, zlib.compress(clear * edge), 6)
    a = post_form(s, EDITS, [("prompt", "a"), ("image", image), ("mask", mask), ("stream", "true")])
    assert a.status == 200, a.body[:300]
    name, data = list(frames_of(a.body))[-1]
    assert name == "image_edit.completed" and len(data["b64_json"]) > 20_000_000
    result = base64.b64decode(data["b64_json"])
    assert is_png(result, edge)


def test_what_images_json_takes(s):
    for images, words in (([], "0 images"), ([{"file_id": "file-1"}], "file_id"),
                          ([{"image_url": "https://example.com/a.png"}], "does not fetch"),
                          ([{"image_url": url(IMAGE)}] * 2, "2 images"),
                          ([{"image_url": url(IMAGE)}] * 17, "17")):
        a = s.post(EDITS, {"prompt": "a", "images": images})
        assert a.status == 400 and a.json["error"]["param"] == "images", (images, a.body)
        assert words in a.json["error"]["message"], a.body
    for body, param in (({"prompt": "a"}, "image"), ({"image": text(IMAGE)}, "prompt"),
                        ({"prompt": "a", "mask": {"image_url": url(CLEAR)}}, "image"),
                        ({"prompt": "a", "image": text(IMAGE), "images": [{"image_url": url(IMAGE)}]}, "images"),
                        ({"prompt": "", "image": text(IMAGE)}, "prompt"),
                        ({"prompt": "x" * 32001, "image": text(IMAGE)}, "prompt")):
        a = s.post(EDITS, body)
        assert a.status == 400 and a.json["error"]["param"] == param, (list(body), a.body)
    for count in (2, 16, 17):
        a = post_form(s, EDITS, [("prompt", "a"), *[("image[]", IMAGE)] * count])
        assert a.status == 400 and a.json["error"]["param"] == "image", a.body
        assert f"{count} images" in a.json["error"]["message"], a.body


def test_variations(s):
    """No prompt, and URLs unless base64 is asked for, as with the only model of OpenAI that has them."""
    a = post_form(s, VARIATIONS, [("image", IMAGE), ("n", "2"), ("size", "64x64")])
    assert a.status == 200, a.body
    assert len(a.json["data"]) == 2 and all("url" in d for d in a.json["data"])
    r = job_of(s, a)["request"]
    assert r["prompt"] == "" and r["task"] == "edit" and r["strength"][0] == 0.7 and r["size"] == 64
    a = post_form(s, VARIATIONS, [("image", IMAGE), ("response_format", "b64_json"), ("strength", "0.3"),
                                  ("seed", "1"), ("model", "dall-e-2"), ("user", "me")])
    assert read_png(b64(a))[:2] == (80, 60)
    a = s.post(VARIATIONS, {"image": url(IMAGE), "response_format": "b64_json"})
    assert a.status == 200 and is_png(b64(a))
    for parts, param in (([], "image"), ([("image", IMAGE), ("image", IMAGE)], "image"),
                         ([("image", IMAGE[:60])], "image"), ([("image", IMAGE), ("n", "0")], "n")):
        a = post_form(s, VARIATIONS, parts)
        assert a.status == 400 and a.json["error"]["param"] == param, (param, a.body)


UNUSED = (  # path, fields of JSON, those that the response warns about
    (VARIATIONS, {"prompt": "a red ball", "mask": url(CLEAR)}, ["prompt", "mask"]),
    (VARIATIONS, {"prompt": "", "negative_prompt": "b", "input_fidelity": "high"}, ["negative_prompt", "input_fidelity"]),
    (VARIATIONS, {}, []),
    ("/v1/images/generations", {"prompt": "a", "strength": 0.5, "mask": None}, ["image", "strength"]),
    ("/v1/images/generations", {"prompt": "a", "image": None, "size": "64x64"}, []),
    (EDITS, {"prompt": "a", "mask": url(CLEAR), "strength": 0.5}, []),
)


def test_fields_without_effect_are_told(s):
    for path, fields, names in UNUSED:
        body = {"image": url(IMAGE), "response_format": "b64_json", **fields}
        answers = [s.post(path, body)]
        if path != "/v1/images/generations":
            parts = [(k, v) for k, v in body.items() if k != "image" and v is not None]
            answers.append(post_form(s, path, [("image", IMAGE), *parts]))
        for a in answers:
            assert a.status == 200, a.body
            want = [f'"{n}" has no effect on {path}; to edit an image with it, use {EDITS}' for n in names]
            assert a.json["warnings"] == want, (path, list(fields), a.json["warnings"])
        raw = s.request("POST", path, body, {"Accept": "image/png"})
        assert raw.status == 200 and ("x-imagend-warning" in raw.headers) == bool(names), raw.headers
    a = post_form(s, VARIATIONS, [("image", IMAGE), ("mask[]", CLEAR), ("response_format", "b64_json")])
    assert a.status == 200 and a.json["warnings"][0].startswith('"mask" has no effect'), a.body[:300]
    a = s.post("/v1/images/generations", {"prompt": "a", "size": "64x64", "strength": 0.5, "stream": True})
    assert '"strength" has no effect' in list(frames_of(a.body))[-1][1]["warnings"][0], a.body[-300:]


def test_as_open_webui_edits(s):
    """Its form: the file as image.png, what the user set, and base64 unless the model is OpenAI's own."""
    for parts in ([("model", "fake"), ("prompt", "make it red"), ("n", "1"), ("size", "64x64"),
                   ("response_format", "b64_json"), ("image", IMAGE)],
                  [("model", "gpt-image-1"), ("prompt", "make it red"), ("n", "2"), ("size", "auto"),
                   ("background", "auto"), ("image[]", IMAGE)]):
        a = post_form(s, EDITS, parts, Authorization="Bearer none")
        assert a.status == 200 and is_png(b64(a)), a.body


def test_repeated_edits():
    s = Server()
    try:
        a, b = (edit(s, **{"Idempotency-Key": "k"}) for _ in range(2))
        assert a.status == 200 and a.json == b.json, (a.body[:200], b.body[:200])
        assert a.headers["x-imagend-job"] == b.headers["x-imagend-job"]
        assert edit(s, ("n", "2"), **{"Idempotency-Key": "k"}).status == 409
        frames = list(frames_of(edit(s, ("stream", "true"), **{"Idempotency-Key": "j"}).body))
        again = list(frames_of(edit(s, ("stream", "true"), **{"Idempotency-Key": "j"}).body))
        assert [f[0] for f in again] == ["image_edit.completed"]
        assert again[0][1]["b64_json"] == frames[-1][1]["b64_json"]
    finally:
        assert s.close() == 0


def test_a_client_that_leaves_stops_its_edit():
    s = Server(env={"FAKE_SLOTS": "1"})
    try:
        body = json.dumps({"prompt": "a", "image": text(IMAGE)}).encode()
        with s.held():
            c = s.raw(b"POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                      b"application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body), read=False)
            eventually(lambda: s.get("/v1/capabilities").json["running"] == 1)
            c.close()
            eventually(lambda: s.get("/v1/capabilities").json["running"] == 0, what="a free slot")
        # Its image is gone, too.
        eventually(lambda: not s.get("/v1/jobs").json["data"])
    finally:
        assert s.close() == 0


if __name__ == "__main__":
    main(globals())
