"""In every API: an image's size, truncated prompts, and reproducing one image of several."""
import base64
import json
import os
import subprocess
import tempfile
from fractions import Fraction

from harness import PATIENCE, PROGRAM, STORE, Server, b64, main, png_texts, read_png

EDGES = (64, 256, 1024)


def expected(rows, width, height):
    """The middle of a square in the shape width:height, each pixel the mean over its area; rows as of read_png."""
    edge, most = len(rows), max(width, height)
    scale = Fraction(edge, most)

    def pieces(i, size):
        begin = Fraction(edge) / 2 - size * scale / 2 + i * scale
        end, out = begin + scale, []
        for k in range(int(begin), edge):
            part = min(end, k + 1) - max(begin, k)
            if part <= 0:
                break
            out.append((k, part))
        return out

    columns = [pieces(x, width) for x in range(width)]
    out = []
    for y in range(height):
        line = bytearray()
        for x in range(width):
            sums = [Fraction(0)] * 3
            for row, high in pieces(y, height):
                for column, wide in columns[x]:
                    for c in range(3):
                        sums[c] += high * wide * rows[row][3 * column + c]
            line += bytes(int(s / scale / scale + Fraction(1, 2)) for s in sums)
        out.append(bytes(line))
    return out


def drawn_edge(width, height):
    return min(e for e in EDGES if e >= max(width, height))


def openai(s, size, **fields):
    a = s.draw(size=size, seed=3, **fields)
    assert a.status == 200, a.body
    return b64(a), a.json["size"]


def native(s, size, **fields):
    a = s.post("/v1/jobs", {"prompt": "a", "size": size, "seed": 3, **fields})
    assert a.status == 202, a.body
    j = s.wait_job(a.json["id"])
    i = j["images"][0]
    return s.get(i["href"]).body, f"{i['width']}x{i['height']}"


def a1111(s, size, **fields):
    width, height = map(int, size.split("x"))
    a = s.post("/sdapi/v1/txt2img", {"prompt": "a", "width": width, "height": height, "seed": 3,
                                     **fields})
    assert a.status == 200, a.body
    info = json.loads(a.json["info"])
    return base64.b64decode(a.json["images"][0]), f"{info['width']}x{info['height']}"


def command(size, *more):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.png")
        r = subprocess.run([PROGRAM, "generate", "a", "--seed", "3", "--size", size, "-o", path,
                            *more], capture_output=True, text=True, timeout=PATIENCE)
        assert r.returncode == 0, r.stderr
        return open(path, "rb").read(), r.stdout.split()[1]


def test_an_image_has_exactly_the_size_asked_for(s):
    """Every API gives the same pixels, which are those of the next larger stage, cut and averaged."""
    whole = {e: read_png(openai(s, f"{e}x{e}")[0])[2] for e in EDGES[:2]}
    for size in ("64x64", "48x32", "32x48", "33x17", "63x63", "1x1", "64x1", "1x64", "32x32",
                 "65x65", "128x96", "90x200"):
        width, height = map(int, size.split("x"))
        edge = drawn_edge(width, height)
        data, said = openai(s, size)
        w, h, rows = read_png(data)
        texts = png_texts(data)
        assert (w, h) == (width, height) and said == size, (size, w, h, said)
        assert rows == expected(whole[edge], width, height), size
        assert texts["size"] == size and texts["drawn"] == f"{edge}x{edge}", texts
        assert f"Size: {size}," in texts["parameters"], texts
        assert (f"Drawn size: {edge}x{edge}" in texts["parameters"]) == (size != f"{edge}x{edge}")
        for other in (native(s, size), a1111(s, size), command(size)):
            assert other[1] == size and read_png(other[0])[2] == rows, (size, other[1])


def test_sizes_of_clients(s):
    """What front ends ask for by default, drawn at 1024."""
    for size in ("512x512", "512x768", "768x512", "1024x1024", "768x1024", "832x704"):
        data, said = openai(s, size)
        assert read_png(data)[:2] == tuple(map(int, size.split("x"))), size
        assert said == size
    for size, want in ((64, "64x64"), ("64", "64x64"), ("48x64", "48x64"), ("auto", "1024x1024"),
                       (None, "1024x1024"), (100, "100x100")):
        assert native(s, size)[1] == want, size
        assert openai(s, size)[1] == want, size
    j = s.post("/v1/jobs", {"prompt": "a", "size": "48x64", "n": 2}).json
    assert j["request"]["size"] == "48x64" and j["request"]["drawn"] == 64, j
    assert s.post("/v1/jobs", {"prompt": "a", "size": 48}).json["request"]["size"] == 48
    a = s.post("/sdapi/v1/txt2img", {"prompt": "a", "width": 50})
    assert json.loads(a.json["info"])["height"] == 50
    u = s.draw(size="48x32").json["usage"]
    assert u["output_tokens"] == 48 * 32 // 256


def test_previews_have_the_shape_of_the_image(s):
    with s.held(2):
        job = s.post("/v1/jobs", {"prompt": "a", "size": "128x256", "previews": 32,
                                  "preview_format": "png"}).json["id"]
        stream = s.events("GET", f"/v1/jobs/{job}/events")
        for name, _, data in stream:
            if name == "preview":
                break
    first = (data["width"], data["height"])
    assert first == (32, 64) and read_png(base64.b64decode(data["b64_json"]))[:2] == first
    last = [d for n, _, d in stream if n == "preview"][-1]
    assert (last["width"], last["height"]) == (128, 256)


def test_what_cannot_be_a_size_is_refused(s):
    for size in ("1536x1024", "1024x1536", "1025x1", 1025, 65536):
        a = s.draw(size=size)
        assert a.status == 400 and a.json["error"]["param"] == "size", (size, a.body)
        assert "1024x1024" in a.json["error"]["message"], a.body
        assert s.post("/v1/jobs", {"prompt": "a", "size": size}).json == a.json
    assert s.post("/v1/jobs", {"prompt": "a", "size": ""}).json["error"]["param"] == "size"
    for size in ("x", "64x", "x64", "64x64x64", "64 x 64", "+64", "-64", "0", "0x64", "64x0", 0,
                 -1, 64.5, "big", "64X64", "1e2", "99999999999", "64x99999999999", [64, 64], True,
                 {}, "65537", "64\0"):
        for path in ("/v1/images/generations", "/v1/jobs"):
            a = s.post(path, {"prompt": "a", "size": size})
            assert a.status == 400 and a.json["error"]["param"] == "size", (size, a.body)
    for size in ((1025, 64), (64, 1025)):
        a = s.post("/sdapi/v1/txt2img", {"prompt": "a", "width": size[0], "height": size[1]})
        assert 400 <= a.status < 500 and "1024x1024" in a.body.decode(), a.body
    for size in ("x", "0", "64x", "big", "2000", "64x2000"):
        r = subprocess.run([PROGRAM, "generate", "a", "--size", size], capture_output=True, text=True,
                           timeout=PATIENCE)
        assert r.returncode == 2 and "size" in r.stderr, (size, r)
        assert "1024x1024" in r.stderr if "2000" in size else "such as 64" in r.stderr, (size, r)


def test_a_long_prompt_is_said_to_be_cut():
    """The fake engine reads 77 tokens: a word is one, and the end of a text."""
    s = Server()
    long, short = "word " * 99, "a red ball"
    cut = ("the {} has 100 tokens, but the text encoder reads only the first 77; the other 23 were "
           "cut off")
    for prompt, negative, tokens, warnings in (
            (short, None, 4, []), ("word " * 76, None, 77, []), (long, None, 77, ["prompt"]),
            (long, short, 81, ["prompt"]), (short, long, 81, ["negative prompt"]),
            (long, long, 154, ["prompt", "negative prompt"])):
        want = [cut.format(w) for w in warnings]
        fields = {"prompt": prompt, "negative_prompt": negative}
        a = s.draw(**fields)
        assert a.json["warnings"] == want and a.json["usage"]["input_tokens"] == tokens, a.json
        assert s.log.count(a.headers["x-imagend-job"] + ": the ") == len(warnings)
        texts = png_texts(b64(a))
        assert texts["tokens"] == ("77" if "prompt" in warnings or "76" in prompt or tokens == 77
                                   else "4"), texts
        assert texts.get("tokens_cut") == ("23" if "prompt" in warnings else None), texts
        assert texts.get("negative_tokens_cut") == ("23" if "negative prompt" in warnings else None)
        raw = s.draw(**fields, headers={"Accept": "image/png"})
        assert raw.headers.get("x-imagend-warning") == (want[-1] if want else None)
        last = list(s.events("POST", "/v1/images/generations",
                             {**fields, "size": "64x64", "stream": True}))[-1]
        assert last[0] == "image_generation.completed" and last[2]["warnings"] == want, last
        j = s.wait_job(s.post("/v1/jobs", {**fields, "size": 64}).json["id"])
        assert j["warnings"] == want and j["request"]["tokens"] == int(texts["tokens"]), j
        a = s.post("/sdapi/v1/txt2img", {**fields, "width": 64, "height": 64})
        comments = json.loads(a.json["info"])["comments"].lower()
        assert [w for w in want if w in comments] == want and bool(comments) == bool(want), comments
    with tempfile.TemporaryDirectory() as folder:
        r = subprocess.run([PROGRAM, "generate", long, "--size", "64", "-o", folder + "/x.png"],
                           capture_output=True, text=True, timeout=PATIENCE)
        assert r.returncode == 0 and "notice: " + cut.format("prompt") in r.stderr, r
    # It is known again after a restart.
    stored = s.wait_job(s.post("/v1/jobs", {"prompt": long, "size": 64}).json["id"])
    if STORE != "memory":
        assert s.stop() == 0
        s.start()
    assert s.get("/v1/jobs/" + stored["id"]).json["warnings"] == [cut.format("prompt")]
    assert s.close() == 0


def test_one_of_several_is_drawn_again(s):
    """What an entry says of itself draws the same image alone, in every API."""
    several = s.draw("balls", n=4, seed=11)
    entries, images = several.json["data"], [b64(several, i) for i in range(4)]
    assert [(e["seed"], e["picture"]) for e in entries] == [(11, i) for i in range(4)], entries
    assert len(set(images)) == 4
    third = {"seed": entries[2]["seed"], "picture": entries[2]["picture"]}
    alone = s.draw("balls", **third)
    assert b64(alone) == images[2]
    assert (alone.json["data"][0]["seed"], alone.json["data"][0]["picture"]) == (11, 2)
    raw = s.draw("balls", **third, headers={"Accept": "image/png"})
    assert raw.body == images[2] and raw.headers["x-imagend-picture"] == "2"
    # Several that begin in the middle.
    rest = s.draw("balls", n=2, **third)
    assert [b64(rest, i) for i in range(2)] == images[2:]
    url = s.draw("balls", **third, response_format="url").json["data"][0]
    assert (url["seed"], url["picture"]) == (11, 2)
    for event, _, data in s.events("POST", "/v1/images/generations",
                                   {"prompt": "balls", "size": "64x64", "n": 4, "seed": 11,
                                    "stream": True}):
        assert base64.b64decode(data["b64_json"]) == images[data["picture"]], data["picture"]

    j = s.wait_job(s.post("/v1/jobs", {"prompt": "balls", "size": 64, "n": 4, "seed": 11}).json["id"])
    assert [(i["seed"], i["picture"]) for i in j["images"]] == [(11, i) for i in range(4)]
    assert s.get(j["images"][2]["href"]).body == images[2]
    j = s.wait_job(s.post("/v1/jobs", {"prompt": "balls", "size": 64, **third}).json["id"])
    assert s.get(j["images"][0]["href"]).body == images[2]
    assert (j["images"][0]["index"], j["images"][0]["picture"], j["request"]["picture"]) == (0, 2, 2)

    ask = {"prompt": "balls", "width": 64, "height": 64, "seed": 11}
    a = s.post("/sdapi/v1/txt2img", {**ask, "batch_size": 4})
    info = json.loads(a.json["info"])
    assert info["all_seeds"] == [11] * 4 and info["all_pictures"] == [0, 1, 2, 3], info
    assert "Picture: 2" in info["infotexts"][2] and "Picture" not in info["infotexts"][0]
    b = s.post("/sdapi/v1/txt2img", {**ask, "picture": 2})
    assert base64.b64decode(b.json["images"][0]) == images[2]
    assert base64.b64decode(a.json["images"][2]) == images[2]
    assert json.loads(b.json["info"])["infotexts"] == [info["infotexts"][2]]

    with tempfile.TemporaryDirectory() as folder:
        def run(*more):
            r = subprocess.run([PROGRAM, "generate", "balls", "--size", "64", "--seed", "11",
                                "-o", folder + "/x.png", *more], capture_output=True, text=True,
                               timeout=PATIENCE)
            assert r.returncode == 0, r.stderr
            return r.stdout
        run("--n", "4")
        assert "seed 11  image 2" in run("--picture", "2")
        with open(folder + "/x.png", "rb") as f:
            data = f.read()
        with open(folder + "/x-3.png", "rb") as f:
            assert read_png(data) == read_png(f.read())
        assert read_png(data)[2] == read_png(images[2])[2]
        texts = png_texts(data)
        assert (texts["seed"], texts["picture"]) == ("11", "2")

    for wrong in (-1, 1.5, "x", 2 ** 31, [2]):
        assert s.draw(picture=wrong).json["error"]["param"] == "picture", wrong
        assert s.post("/v1/jobs", {"prompt": "a", "picture": wrong}).status == 400


def test_no_guidance_is_spelled_0_or_1(s):
    for value in (0, 1, [0, 1]):
        j = s.post("/v1/jobs", {"prompt": "a", "size": 256, "guidance_scale": value}).json
        assert j["request"]["guidance_scale"][0] == 1, j
    j = s.post("/v1/jobs", {"prompt": "a", "size": 256, "steps": [None, 3]}).json
    assert j["request"]["steps"] == [8, 3], j
    assert s.draw(guidance_scale=0.5).status == 400


def test_provenance():
    for flags, says in (((), True), (("--provenance=false",), False)):
        s = Server(*flags)
        try:
            for form in ("png", "jpeg", "webp"):
                a = s.post("/v1/images/generations",
                           {"prompt": "a", "size": "64x64", "output_format": form})
                assert a.status == 200, a.body
                assert (b"digitalsourcetype/trainedAlgorithmicMedia" in b64(a)) == says, (form, flags)
        finally:
            s.stop()


if __name__ == "__main__":
    main(globals())
