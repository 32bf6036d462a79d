"""Every response has a schema in the API description, and what the service really responds matches it: a route
without a schema or without a response below fails, and so does a field without a description or one that no
response has."""
import base64
import collections
import os
import subprocess
import tempfile

from harness import PROGRAM, Server, eventually, main, make_png

IMAGE = base64.b64encode(make_png(64, 64, lambda x, y: (x, y, 0))).decode()
KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list,
         "null": type(None)}
KNOWN = {"type", "description", "properties", "required", "additionalProperties", "items", "enum", "const", "minimum",
         "maximum", "oneOf", "$ref"}


class Mismatch(Exception):
    pass


class Schemas:
    """Compares values with schemas; a field that the schema of an object does not name is a mismatch, too."""

    def __init__(self, named):
        self.named, self.seen = named, set()

    def resolve(self, schema):
        while "$ref" in schema:
            schema = self.named[schema["$ref"].removeprefix("#/components/schemas/")]
        return schema

    def compare(self, value, schema, at=""):
        """The fields, (id of a schema, name), that the value has."""
        schema = self.resolve(schema)
        assert set(schema) <= KNOWN, set(schema) - KNOWN
        if "oneOf" in schema:
            return self.choose(value, schema["oneOf"], at)
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(isinstance(value, KINDS[k]) and (k in ("boolean", "object") or not isinstance(value, bool))
                   for k in kinds):
            raise Mismatch(f"{at}: {value!r} is not {kinds}")
        if value not in schema.get("enum", [schema.get("const", value)]):
            raise Mismatch(f"{at}: {value!r}")
        number = value if isinstance(value, (int, float)) else 0
        if not schema.get("minimum", number) <= number <= schema.get("maximum", number):
            raise Mismatch(f"{at}: {value!r} is out of range")
        found = set()
        for i, item in enumerate(value if isinstance(value, list) and "items" in schema else ()):
            found |= self.compare(item, schema["items"], f"{at}[{i}]")
        return found | (self.fields(value, schema, at) if isinstance(value, dict) else set())

    def fields(self, value, schema, at):
        found, known, others = set(), schema.get("properties"), schema.get("additionalProperties")
        missing = set(schema.get("required", ())) - set(value)
        if missing:
            raise Mismatch(f"{at}: {missing} is missing")
        for name, field in value.items():
            if known and name in known:
                found |= {(id(schema), name)} | self.compare(field, known[name], f"{at}.{name}")
            elif others:
                found |= self.compare(field, others, f"{at}.{name}")
            elif known is not None or others is False:
                raise Mismatch(f"{at}.{name} is not described")
        return found

    def choose(self, value, choices, at):
        fit, why = [], []
        for choice in choices:
            try:
                fit.append(self.compare(value, choice, at))
            except Mismatch as e:
                why.append(str(e))
        if len(fit) != 1:
            raise Mismatch(f"{at}: {len(fit)} choices fit; {why}")
        return fit[0]

    def check(self, value, schema, what):
        try:
            self.seen |= self.compare(value, schema)
        except Mismatch as e:
            raise AssertionError(f"{what}: {e}") from e

    def unseen(self, schema, at):
        """The fields of a schema that no value had."""
        for name, field in schema.get("properties", {}).items():
            if (id(schema), name) not in self.seen:
                yield f"{at}.{name}"
            yield from self.unseen(field, f"{at}.{name}")
        if "items" in schema:
            yield from self.unseen(schema["items"], at + "[]")


def job_answers(s, add):
    """Jobs in all states, and their events. s: a server with one slot."""
    with s.held():
        first = add("POST /v1/jobs", s.post("/v1/jobs", {"prompt": "a", "size": 64, "previews": 1}))["id"]
        eventually(lambda: s.get("/v1/jobs/" + first).json["status"] == "running")
        second = add("POST /v1/jobs", s.post("/v1/jobs", {"prompt": "[fail]", "size": "64x32", "n": 2}))["id"]
        third, fourth = (s.post("/v1/jobs", {"prompt": "a", "size": 64}).json["id"] for _ in range(2))
        add("GET /v1/jobs/{id}", s.get("/v1/jobs/" + second))
        streams = {i: s.events("GET", f"/v1/jobs/{i}/events") for i in (first, second, third, fourth)}
        started = {i: next(stream) for i, stream in streams.items()}
        add("DELETE /v1/jobs/{id}", s.delete("/v1/jobs/" + third))
        queued = next(event for event in streams[fourth] if event[0] == "queued")
    names = set()
    for i, stream in streams.items():
        for name, _, data in [started[i], queued, *stream]:
            names.add(name)
            add("GET /v1/jobs/{id}/events", data)
    assert {"status", "queued", "started", "step", "preview", "stage", "picture", "done", "failed", "cancelled"} \
        <= names, names
    for body in ({"image": IMAGE, "size": 256, "loras": ["fox"], "preset": "fast", "negative_prompt": "b"},
                 {"image": IMAGE, "task": "upscale"}, {"prompt": "a", "size": 64, "timesteps": "fast27"},
                 {"prompt": "word " * 99, "size": 1024}):
        i = s.post("/v1/jobs", body).json["id"]
        s.wait_job(i)
        job = add("GET /v1/jobs/{id}", s.get("/v1/jobs/" + i))
    add("GET /v1/jobs", s.get("/v1/jobs"))
    add("GET /v1/jobs/{id}/images/{index}", s.get(job["images"][0]["href"]))
    add("GET /v1/files/{id}/{name}", s.get("/v1/files/" + job["images"][0]["url"].split("/v1/files/")[1]))
    add("DELETE /v1/jobs/{id}", s.delete("/v1/jobs/" + i))


def openai_answers(s, add):
    request = {"prompt": "a", "size": "64x64"}
    for path, more in (("generations", {}), ("edits", {"image": IMAGE}), ("variations", {"image": IMAGE})):
        route, body = "POST /v1/images/" + path, {**request, **more}
        if path == "variations":
            del body["prompt"]
        add(route, s.post(route[5:], body))
        add(route, s.post(route[5:], {**body, "response_format": "url", "n": 2}))
        add(route, s.post(route[5:], body, Accept="image/png"))
        if path != "variations":
            for prompt in ("a", "[fail]"):
                body.update({"prompt": prompt, "stream": True, "partial_images": 1})
                for _, _, data in s.events("POST", route[5:], body):
                    add(route, data)
    add("GET /v1/models", s.get("/v1/models"))
    add("GET /v1/models/{id}", s.get("/v1/models/fake"))
    add("GET /v1/models/{owner}/{id}", s.get("/v1/models/openai/dall-e-3"))


def a1111_answers(s, add, paths):
    path = "/sdapi/v1/"
    small = {"prompt": "a", "width": 64, "height": 64}
    png = add(f"POST {path}txt2img", s.post(path + "txt2img", small))["images"][0]
    add(f"POST {path}img2img", s.post(path + "img2img", {**small, "init_images": [IMAGE]}))
    add(f"POST {path}extra-single-image", s.post(path + "extra-single-image", {"image": IMAGE, "upscaling_resize": 4}))
    add(f"POST {path}extra-batch-images", s.post(path + "extra-batch-images", {
        "upscaling_resize": 4, "imageList": [{"name": "a", "data": IMAGE}]}))
    add(f"POST {path}png-info", s.post(path + "png-info", {"image": png}))
    for name in ("interrupt", "skip", "refresh-checkpoints", "refresh-loras", "refresh-vae", "options"):
        add(f"POST {path}{name}", s.post(path + name, {}))
    for name in paths:
        if name.startswith(path) and f"GET {name}" not in add.told and "get" in paths[name]:
            add(f"GET {name}", s.get(name))


def operator_answers(s, add):
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/capabilities"):
        add("GET " + path, s.get(path))
    # Several models, of which one is broken and one has a vocabulary; a server that loads; parts that are not applied.
    folder = tempfile.mkdtemp(prefix="wordy")
    file = os.path.join(folder, "models")
    with open(file, "w") as f:
        f.write("[photo]\nmodel = %s\n[missing]\nmodel = missing\n" % folder)
    with open(os.path.join(folder, "vocabulary.json"), "w") as f:
        f.write('{"format": 1, "nouns": [{"name": "cat", "category": "animals", "words": ["cat"], "languages": '
                '{"de": ["katze"]}, "example": "a cat"}], "shapes": [{"name": "cube"}]}')
    other = Server("--models-file", file, start=False, env={"FAKE_PARTS": "1"})
    with other.held():
        other.start(ready=False)
        add("GET /readyz", other.get("/readyz"))
    other.wait_ready()
    other.post("/v1/images/generations", {"prompt": "a", "size": "64x64", "model": "missing"})
    for path in ("/readyz", "/v1/models", "/v1/capabilities"):
        add("GET " + path, other.get(path))
    other.close()


class Told:
    """Collects responses by route, status and media type, and compares them with their schemas."""

    def __init__(self, api):
        self.paths, self.told = api["paths"], collections.defaultdict(set)
        self.schemas = Schemas(api["components"]["schemas"])

    def __call__(self, route, answer):
        method, path = route.split()
        if hasattr(answer, "status"):
            status, media = answer.status, answer.headers.get("content-type", "").split(";")[0]
        else:
            status, media = 200, "text/event-stream"
        known = self.paths[path][method.lower()]["responses"]
        assert str(status) in known, (route, answer.body)
        self.told[route].add((str(status), media))
        if status == 204:
            return None
        value = answer if media == "text/event-stream" else \
            answer.json if "json" in media else answer.body.decode("latin-1")
        self.schemas.check(value, {k: v for k, v in known[str(status)]["content"][media]["schema"].items()
                                   if k != "contentMediaType"}, route)
        return value


def test_responses_match_their_schemas():
    s = Server("--lora", "fox.safetensors:0.5", env={"FAKE_SLOTS": "1"})
    api = s.get("/openapi.json").json
    add = Told(api)
    job_answers(s, add)
    openai_answers(s, add)
    operator_answers(s, add)
    a1111_answers(s, add, api["paths"])
    s.close()
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            route = f"{method.upper()} {path}"
            for status, answer in operation["responses"].items():
                for media, content in answer["content"].items():
                    assert content["schema"], (route, status, media)
                    named = "$ref" in content["schema"]
                    assert named == (media in ("application/json", "text/event-stream")), (route, status, media)
                    assert status == "default" or (status, media) in add.told[route], \
                        f"{route}: no response with {status} {media} is compared"
    requests = {m["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
                for p in api["paths"].values() for m in p.values() if "requestBody" in m}
    unseen = [field for name, schema in api["components"]["schemas"].items()
              if name not in requests and not name.endswith("Error") for field in add.schemas.unseen(schema, name)]
    assert unseen == [], unseen


def test_errors_match_their_schemas():
    """Of every route that requires a key, and of the others that can fail."""
    key = subprocess.run([PROGRAM, "config", "key", "a"], capture_output=True, text=True).stdout.splitlines()[1]
    file = os.path.join(tempfile.mkdtemp(), "keys")
    with open(file, "w") as f:
        f.write(key.split(": ")[1] + "\n")
    s = Server("--keys-file", file)
    api = s.get("/openapi.json").json
    schemas = Schemas(api["components"]["schemas"])
    compared = 0
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            if not operation["security"] and "{" not in path:
                continue
            a = s.request(method.upper(), path.replace("{", "").replace("}", ""), {} if method == "post" else None)
            assert a.status == (401 if operation["security"] else 404), (path, a.status)
            schemas.check(a.json, operation["responses"]["default"]["content"]["application/json"]["schema"], path)
            compared += 1
    assert compared > 40, compared
    s.close()


main(globals())
