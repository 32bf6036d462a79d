"""LoRAs that requests choose by name: in every API, in lists and in metadata; what is refused, and why."""
import base64
import json
import os
import tempfile

from harness import PATIENCE, Server, b64, main, make_png, needs_store, png_texts

# The fake engine gives them to the stages 1, 2 and 3.
FLAGS = ("--lora", "a/fox.safetensors:0.5", "--lora-choices", "dog.safetensors,b/cat.safetensors:2")
IMAGE = base64.b64encode(make_png(64, 64, lambda x, y: (x, y, 0))).decode()
BOUNDARY = "a-boundary"


class Seen:
    """A server whose engine says what it was asked."""

    def __init__(self, *flags):
        self.path = os.path.join(tempfile.mkdtemp(), "seen")
        self.server = Server(*flags, env={"FAKE_SEEN": self.path})

    def last(self):
        with open(self.path, encoding="utf-8") as f:
            return json.loads(f.read().splitlines()[-1])


def job_of(s, loras, size=1024, **fields):
    """The settings of a job that was drawn with these LoRAs; ...: none are named."""
    body = {"prompt": "a", "size": size, "seed": 1, "steps": 1, **fields, **({} if loras is ... else {"loras": loras})}
    a = s.post("/v1/jobs", body)
    assert a.status == 202, (loras, a.body)
    job = s.wait_job(a.json["id"])
    assert job["status"] == "done", job
    return job["request"]["loras"], s.get(job["images"][0]["href"]).body


# What a request has, what the engine gets, what is applied to an image of three stages.
GOOD = ((..., None, "fox:0.5"), (None, None, "fox:0.5"), ([], [], None),
        ([{"name": "dog"}], [{"name": "dog"}], "dog:1"),
        ([{"name": "dog", "scale": 0.25}, {"name": "fox"}], [{"name": "dog", "scale": 0.25}, {"name": "fox"}],
         "dog:0.25, fox:0.5"),
        (["cat:-3", "dog"], [{"name": "cat", "scale": -3}, {"name": "dog"}], "cat:-3, dog:1"),
        ([{"name": "cat", "scale": None}, "fox:0"], [{"name": "cat"}, {"name": "fox", "scale": 0}], "cat:2, fox:0"),
        (" fox:1e-3 , dog ", [{"name": "fox", "scale": 0.001}, {"name": "dog"}], "fox:0.001, dog:1"),
        ([{"name": "fox", "scale": 100}, {"name": "dog", "scale": -100}],
         [{"name": "fox", "scale": 100}, {"name": "dog", "scale": -100}], "fox:100, dog:-100"),
        ([{"name": "fox", "scale": 0.1234567890123456}], [{"name": "fox", "scale": 0.1234567890123456}],
         "fox:0.1234567890123456"))


def test_requests_choose():
    seen = Seen(*FLAGS)
    s = seen.server
    for named, engine, applied in GOOD:
        got, png = job_of(s, named)
        texts = png_texts(png)
        assert got == applied and texts.get("loras") == applied, (named, got, texts)
        assert (f'Loras: "{applied}"' in texts["parameters"]) == bool(applied), texts
        assert seen.last().get("loras") == engine, (named, seen.last())
        # What the file says draws it again.
        assert job_of(s, applied or [])[1] == png, named
    # A stage that does not run leaves nothing behind.
    assert job_of(s, ["cat", "dog", "fox:2"], size=256)[0] == "dog:1, fox:2"
    assert job_of(s, ["cat", "dog"], size=64)[0] is None
    a = s.draw(size="1024x1024", seed=1, loras=[{"name": "dog", "scale": 0.25}], steps=1)
    assert png_texts(b64(a))["loras"] == "dog:0.25", png_texts(b64(a))
    assert png_texts(b64(s.draw(size="256x256", loras="")))["loras"] == "fox:0.5", "empty fields of forms are unset"
    s.close()


def parts(fields):
    lines = []
    for name, value in fields.items():
        lines += [b"--" + BOUNDARY.encode(), b'Content-Disposition: form-data; name="%s"' % name.encode(), b"",
                  value if isinstance(value, bytes) else value.encode()]
    return b"\r\n".join([*lines, b"--" + BOUNDARY.encode() + b"--", b""])


def test_forms():
    s = Server(*FLAGS)
    for value, applied in (("dog:0.25,fox", "dog:0.25, fox:0.5"), ('[{"name": "dog", "scale": 3}]', "dog:3"),
                           ('["cat"]', None), ("[]", None)):
        form = parts({"prompt": "a", "image": "data:image/png;base64," + IMAGE, "size": "256x256", "loras": value})
        kind = {"Content-Type": "multipart/form-data; boundary=" + BOUNDARY}
        a = s.request("POST", "/v1/jobs", form, kind)
        assert a.status == 202, (value, a.body)
        assert s.wait_job(a.json["id"])["request"]["loras"] == applied, value
        a = s.request("POST", "/v1/images/edits", form, kind)
        assert a.status == 200 and png_texts(b64(a)).get("loras") == applied, (value, a.body[:300])
    s.close()


NINE = ["n%d" % i for i in range(9)]
BAD = ((["wolf"], 'unknown LoRA "wolf"; this model has fox, dog, cat'), ("wolf:1", 'unknown LoRA "wolf"'),
       (["Dog"], 'unknown LoRA "Dog"'), ([{"name": "dog", "scale": 100.5}], "from -100 to 100, not 100.5"),
       (["dog:-101"], "from -100 to 100"), ("dog:nan", 'not "nan"'), ("dog:inf", 'not "inf"'), ("dog:0x1", 'not "0x1"'),
       ("dog:", 'not ""'), ("dog:1:2", 'not "1:2"'), ("dog:" + "0" * 60, "must be a number"), ("dog: 1", 'not " 1"'),
       ("dog,dog:2", 'has "dog" twice'), (["dog", {"name": "dog"}], 'has "dog" twice'), (NINE, "more than 8 names"),
       (",".join(NINE), "more than 8 names"), ("dog,", 'unlike ""'), (",", 'unlike ""'), ([""], 'unlike ""'),
       ([{"name": ""}], 'unlike ""'), ([{"name": "a b"}], 'unlike "a b"'), ([{"name": "dog:1"}], 'unlike "dog:1"'),
       ([{"name": "x" * 40}], "1 to 39 letters"), (["x" * 40], "1 to 39 letters"), ([{"name": "dog\0"}], "1 to 39 letters"),
       ("dog\0", "must be a list such as"), (["dog,fox"], "must be a list such as"), ([{"scale": 1}], "must be a list"),
       ([{"name": "dog", "weight": 1}], "must be a list"), ([{"name": 1}], "must be a list"),
       ([{"name": "dog", "scale": "1"}], "must be a list"), ([{"name": "dog", "scale": True}], "must be a list"),
       ([1], "must be a list"), ([None], "must be a list"), ([[]], "must be a list"), (7, "must be a list"),
       (True, "must be a list"), ({"name": "dog"}, "must be a list"))


def test_what_is_refused():
    """By every API, before anything is queued, with the field's name."""
    s = Server(*FLAGS)
    for value, says in BAD:
        for path in ("/v1/jobs", "/v1/images/generations"):
            a = s.post(path, {"prompt": "a", "size": "64x64", "loras": value})
            error = a.json["error"]
            assert a.status == 400 and error["param"] == "loras", (path, value, a.body)
            assert says in error["message"] and '"loras"' in error["message"], (path, value, error)
        a = s.post("/sdapi/v1/txt2img", {"prompt": "a", "width": 64, "loras": value})
        assert a.status == 422 and says in a.json["detail"], (value, a.body)
    s.close()
    s = Server()
    a = s.post("/v1/jobs", {"prompt": "a", "loras": ["dog"]})
    assert a.status == 400 and 'unknown LoRA "dog"; this model has none' in a.json["error"]["message"], a.body
    assert s.get("/v1/capabilities").json["loras"] == [] == s.get("/sdapi/v1/loras").json
    s.close()
    # Two files with the same name are applied, as ever, but a request cannot mean one of them.
    s = Server("--lora", "a/fox.safetensors:0.5,b/fox.safetensors")
    assert job_of(s, ...)[0] == "fox:0.5, fox:1" and job_of(s, [])[0] is None
    a = s.post("/v1/jobs", {"prompt": "a", "loras": ["fox"]})
    assert a.status == 400 and "two files of this model have the name" in a.json["error"]["message"], a.body
    s.close()


def test_lists():
    s = Server(*FLAGS)
    assert s.get("/v1/capabilities").json["loras"] == [
        {"name": "fox", "scale": 0.5, "stage": 1, "default": True},
        {"name": "dog", "scale": 1, "stage": 2, "default": False},
        {"name": "cat", "scale": 2, "stage": 3, "default": False}]
    assert s.get("/sdapi/v1/loras").json == [{"name": n, "alias": n, "path": "", "metadata": {}}
                                             for n in ("fox", "dog", "cat")]
    schemas = s.get("/openapi.json").json["components"]["schemas"]
    for name in ("CreateJobRequest", "CreateImageRequest", "CreateImageEditRequest", "TextToImageRequest"):
        field = schemas[name]["properties"]["loras"]
        assert field["examples"] == ["fox", "dog", "cat"], field
        assert field["oneOf"][0]["maxItems"] == 8, field
    s.close()


# A prompt of A1111, what remains of it, what is applied.
TAGS = (("a <lora:dog:0.25> b", "a b", "dog:0.25"), ("<lora:dog>", "", "dog:1"), ("a<lora:dog:1>b", "ab", "dog:1"),
        ("<lora:dog:0.5> <lora:fox:2>,  x  <lyco:cat:-1> ", ",  x", "dog:0.5, fox:2, cat:-1"),
        ("a <lora:dog:0.5:0.25>", "a", "dog:0.25"), ("a <lora:dog:unet=3:te=1>", "a", "dog:3"),
        ("a <lora:cat:te=1.5>", "a", "cat:1.5"), ("a <lora:cat:9:te=1.5>", "a", "cat:1.5"),
        ("a <hypernet:x:1> <lora:> <lora:dog", "a <hypernet:x:1> <lora:> <lora:dog", "fox:0.5"),
        ("  a < 3", "  a < 3", "fox:0.5"), ("\u20ac<lora:dog:1>\u20ac", "\u20ac\u20ac", "dog:1"))
BAD_TAGS = (("<lora:wolf:1>", 'unknown LoRA "wolf"'), ("a <lora:dog:x>", "<lora:dog:x> has a scale that is not a number"),
            ("<lora:dog:>", "is not a number"), ("<lora:dog:nan>", "is not a number"), ("<lora:dog:1e3>", "from -100 to 100"),
            ("<lora:dog:1:1:1>", "a setting that is not supported"), ("<lora:dog:1:1:1:1>", "not supported"),
            ("<lora:dog:dyn=2>", "not supported"), ("<lora:dog:1> <lora:dog:2>", 'has "dog" twice'),
            ("<lora:a b:1>", 'unlike "a b"'), ("<lora::1>", "has no valid name"), ("<lora:te=1>", "has no valid name"),
            ("<lora:" + "x" * 40 + ":1>", "has no valid name"), ("<lora:" + "x" * 300 + ">", "is too long"),
            ("".join("<lora:%s:1>" % n for n in NINE), "more than 8 names"))


def test_a1111_tags():
    seen = Seen(*FLAGS)
    s = seen.server

    def draw(path="txt2img", **fields):
        return s.post("/sdapi/v1/" + path, {"width": 1024, "steps": 1, "seed": 1, **fields})

    for prompt, rest, applied in TAGS:
        a = draw(prompt=prompt, negative_prompt="<lora:dog:1>")
        assert a.status == 200, (prompt, a.body[:300])
        png = base64.b64decode(a.json["images"][0])
        info = json.loads(a.json["info"])
        assert seen.last()["prompt"] == rest and png_texts(png)["loras"] == applied, (prompt, seen.last())
        assert seen.last()["negative_prompt"] == "<lora:dog:1>", seen.last()
        assert a.json["parameters"]["prompt"] == prompt and info["prompt"] == rest, (prompt, info)
        assert f'Loras: "{applied}"' in info["infotexts"][0], info
        # As the native API draws it.
        assert png == job_of(s, applied, prompt=rest, negative_prompt="<lora:dog:1>")[1] if rest else True, prompt
    a = draw(prompt="a <lora:dog:1>", loras=["fox"])
    assert png_texts(base64.b64decode(a.json["images"][0]))["loras"] == "fox:0.5, dog:1", a.body[:300]
    a = draw("img2img", prompt="a <lora:fox:2>", init_images=[IMAGE])
    assert a.status == 200 and seen.last()["prompt"] == "a", a.body[:300]
    assert png_texts(base64.b64decode(a.json["images"][0]))["loras"] == "fox:2", a.body[:300]
    for prompt, says in BAD_TAGS:
        for path, fields in (("txt2img", {}), ("img2img", {"init_images": [IMAGE]})):
            a = draw(path, prompt=prompt, **fields)
            assert a.status == 422 and says in a.json["detail"], (path, prompt, a.body)
    s.close()


def test_a_job_keeps_its_loras():
    """Also across a restart, and whatever the service applies by then."""
    needs_store("sqlite", "postgres")
    s = Server(*FLAGS)
    with s.held():
        job = s.post("/v1/jobs", {"prompt": "a", "size": 1024, "loras": [{"name": "dog", "scale": 0.1}]}).json["id"]
        own = s.post("/v1/jobs", {"prompt": "a", "size": 1024}).json["id"]
        s.stop(9)
    s.flags[s.flags.index("--lora") + 1] = "a/fox.safetensors:0.75"
    s.start()
    assert s.wait_job(job, PATIENCE)["request"]["loras"] == "dog:0.1"
    assert s.wait_job(own, PATIENCE)["request"]["loras"] == "fox:0.75"
    s.close()


def test_each_model_has_its_own():
    path = os.path.join(tempfile.mkdtemp(), "models")
    with open(path, "w") as f:
        f.write("[photo]\nmodel = fake/1m\nlora = fox.safetensors:0.5\nlora-choices = dog.safetensors:3\n"
                "[draft]\nmodel = fake/2m\nlora-choices = cat.safetensors\n")
    s = Server("--models-file", path)
    rows = (("photo", [], None), ("photo", ["dog"], None), ("photo", ["fox:2"], "fox:2"), ("photo", ..., "fox:0.5"),
            ("draft", ["cat:0.5"], "cat:0.5"), ("draft", ..., None))
    for model, named, applied in rows:
        assert job_of(s, named, size=64, model=model)[0] == applied, (model, named)
    for model, name in (("photo", "cat"), ("draft", "dog"), ("draft", "fox")):
        a = s.post("/v1/jobs", {"prompt": "a", "model": model, "loras": [name]})
        assert a.status == 400 and f'unknown LoRA "{name}"' in a.json["error"]["message"], a.body
    names = {m: [l["name"] for l in s.get("/v1/capabilities?model=" + m).json["loras"]] for m in ("photo", "draft")}
    assert names == {"photo": ["fox", "dog"], "draft": ["cat"]}, names
    s.close()


if __name__ == "__main__":
    main(globals())
