"""Access control: every route of the program's route table, called by the owner of a job, by other keys
with each scope, with a wrong key and without one. A route without a row here fails the test."""
import base64
import json
import subprocess
import threading

from harness import PATIENCE, PROGRAM, Server, eventually, is_png, main, make_png, needs_store
from test_ops import bearer, keys_file, new_key

IMAGE = base64.b64encode(make_png(8, 6, lambda x, y: (x, y, 0))).decode()
# What a route needs, apart from what the program's own table says; and what it is about:
# "common" the same for every key, "mine" one job of the caller's, "list" the caller's jobs,
# "draw" makes a job of the caller's, "open" is for whoever knows the address.
ROUTES = {
    "POST /v1/images/generations": ("generate", "draw"),
    "POST /v1/images/edits": ("generate", "draw"),
    "POST /v1/images/variations": ("generate", "draw"),
    "GET /v1/models": ("read", "common"),
    "GET /v1/models/{id}": ("read", "common"),
    "GET /v1/models/{owner}/{id}": ("read", "common"),
    "POST /v1/jobs": ("generate", "draw"),
    "GET /v1/jobs": ("read", "list"),
    "GET /v1/jobs/{id}": ("read", "mine"),
    "DELETE /v1/jobs/{id}": ("generate", "mine"),
    "GET /v1/jobs/{id}/events": ("read", "mine"),
    "GET /v1/jobs/{id}/images/{index}": ("read", "mine"),
    "GET /v1/files/{id}/{name}": ("none", "open"),
    "GET /v1/capabilities": ("read", "common"),
    "POST /sdapi/v1/txt2img": ("generate", "draw"),
    "POST /sdapi/v1/img2img": ("generate", "draw"),
    "POST /sdapi/v1/extra-single-image": ("generate", "draw"),
    "POST /sdapi/v1/extra-batch-images": ("generate", "draw"),
    "POST /sdapi/v1/png-info": ("read", "common"),
    "GET /sdapi/v1/progress": ("read", "list"),
    "POST /sdapi/v1/interrupt": ("generate", "list"),
    "POST /sdapi/v1/skip": ("generate", "list"),
    "GET /sdapi/v1/options": ("read", "common"),
    "POST /sdapi/v1/options": ("generate", "common"),
    **{f"GET /sdapi/v1/{name}": ("read", "common") for name in (
        "samplers", "schedulers", "sd-models", "upscalers", "latent-upscale-modes", "sd-vae",
        "sd-modules", "loras", "hypernetworks", "embeddings", "face-restorers", "realesrgan-models",
        "prompt-styles", "scripts", "script-info", "extensions", "cmd-flags", "memory")},
    **{f"POST /sdapi/v1/{name}": ("generate", "common") for name in (
        "refresh-checkpoints", "refresh-loras", "refresh-vae")},
    "GET /openapi.json": ("none", "common"),
    "GET /healthz": ("none", "common"),
    "GET /readyz": ("none", "common"),
    "GET /metrics": ("admin", "common"),
    "GET /": ("none", "common"),
    "GET /page/{file}": ("none", "common"),
    "GET /docs": ("none", "common"),
}
INPUT = base64.b64encode(make_png(8, 8, lambda x, y: (x, y, 0))).decode()
BODIES = {
    "POST /v1/images/generations": {"prompt": "a", "size": "64x64", "response_format": "url"},
    "POST /v1/images/edits": {"prompt": "a", "image": INPUT, "response_format": "url"},
    "POST /v1/images/variations": {"image": INPUT},
    "POST /v1/jobs": {"prompt": "a", "size": 64},
    "POST /sdapi/v1/txt2img": {"prompt": "a", "width": 64, "height": 64},
    "POST /sdapi/v1/img2img": {"prompt": "a", "init_images": [IMAGE]},
    "POST /sdapi/v1/extra-single-image": {"image": IMAGE},
    "POST /sdapi/v1/extra-batch-images": {"imageList": [{"data": IMAGE, "name": "a.png"}]},
    "POST /sdapi/v1/png-info": {"image": IMAGE},
    "POST /sdapi/v1/options": {"sd_model_checkpoint": "fake"},
}
STATUSES = {"POST /v1/jobs": 202}
# Each key's scopes. "owner" is the one whose jobs the others want.
KEYS = {"owner": "generate,read", "other": "generate,read", "all": "admin,generate,read",
        "reader": "read", "maker": "generate", "root": "admin"}


class Tenants:
    def __init__(self, *flags, **more):
        made = {name: new_key(name, scopes) for name, scopes in KEYS.items()}
        self.keys = {name: key for name, (key, _) in made.items()}
        self.server = Server("--keys-file", keys_file(*(line for _, line in made.values())), *flags, **more)

    def headers(self, who):
        return {} if who is None else bearer(self.keys.get(who, who))

    def ask(self, who, method, path, body=None, **headers):
        return self.server.request(method, path, body, {**self.headers(who), **headers})

    def done(self, who, **fields):
        a = self.ask(who, "POST", "/v1/jobs", {"prompt": "a", "size": 64, **fields})
        assert a.status == 202, a.body
        return self.server.wait_job(a.json["id"], **self.headers(who))


def table():
    out = subprocess.run([PROGRAM, "config", "routes"], capture_output=True, text=True, check=True).stdout
    return {f"{r['method']} {r['path']}": r["scope"] for r in map(json.loads, out.splitlines())}


def test_every_route_has_a_row():
    assert table() == {route: scope for route, (scope, _) in ROUTES.items()}


def test_the_api_description_tells_the_scopes():
    s = Server()
    try:
        paths = s.get("/openapi.json").json["paths"]
        for route, (scope, _) in ROUTES.items():
            method, path = route.split(" ")
            operation = paths.get(path, {}).get(method.lower())
            if operation is None:
                assert scope == "none", route
                continue
            assert operation["security"] == ([] if scope == "none" else [{"key": [scope]}]), route
    finally:
        s.close()


def filled(route, job):
    """A method and a path with the arguments that are right for this job."""
    method, path = route.split(" ")
    if path == "/v1/models/{id}":
        path = "/v1/models/fake"
    elif path == "/page/{file}":
        path = "/page/page.js"
    elif path == "/v1/models/{owner}/{id}":
        path = "/v1/models/openai/fake"
    elif path == "/v1/files/{id}/{name}":
        url = job["images"][0]["url"]
        path = url[url.index("/v1/"):]
    return method, path.replace("{id}", job["id"]).replace("{index}", "0")


def test_every_route_and_every_key():
    t = Tenants()
    s = t.server
    try:
        # The one another key must not see, and that it cannot tell from one that is not there.
        theirs = t.done("owner")
        nobodys = {**theirs, "id": "job_" + "0" * 32}
        for route, (scope, about) in ROUTES.items():
            want = STATUSES.get(route, 200)
            for who in (None, "wrong", *KEYS):
                what = (route, who)
                before = s.get("/v1/jobs", **t.headers("owner")).json["data"]
                method, path = filled(route, theirs)
                a = t.ask(who, method, path, BODIES.get(route))
                if scope == "none":
                    assert a.status == 200, (what, a.body)
                elif who not in KEYS:
                    assert a.status == 401 and a.headers["www-authenticate"] == "Bearer", (what, a.body)
                    # Only who sent none is told how to send one.
                    assert (b"Authorization: Bearer" in a.body) == (who is None), (what, a.body)
                elif scope not in KEYS[who].split(","):
                    assert a.status == 403, (what, a.body)
                elif about == "mine" and who != "owner":
                    none = t.ask(who, *filled(route, nobodys))
                    assert a.status == none.status == 404 and a.body == none.body, (what, a.body)
                elif method == "DELETE":
                    assert a.status == 204, (what, a.body)
                    theirs = t.done("owner")
                    continue
                else:
                    assert a.status == want, (what, a.status, a.body)
                # Nobody but its owner has changed what the owner has.
                after = s.get("/v1/jobs", **t.headers("owner")).json["data"]
                if who != "owner":
                    assert [j["id"] for j in after] == [j["id"] for j in before], what
                if method == "GET" and scope != "none" and who not in KEYS:
                    # Other spellings of the path are no way around it, nor is HEAD.
                    for other in (path + "/", "/" + path, path.removeprefix("/v1"), "/v1" + path):
                        assert t.ask(who, method, other).status in (401, 404), (what, other)
                    assert t.ask(who, "HEAD", path).status == 401, what
    finally:
        assert s.close() == 0


def test_a_job_in_every_state_is_its_owners():
    """Queued, running and ended: other keys can neither see it, nor follow it, nor stop it."""
    t = Tenants(env={"FAKE_SLOTS": "1"})
    s = t.server
    try:
        ended = t.done("owner", previews=4)["id"]
        with s.held():
            running, queued = (t.ask("owner", "POST", "/v1/jobs", {"prompt": "a", "size": 64}).json["id"]
                               for _ in range(2))
            eventually(lambda: t.ask("owner", "GET", "/v1/jobs/" + running).json["status"] == "running")
            for job, state in ((ended, "done"), (running, "running"), (queued, "queued")):
                for who in ("other", "all"):
                    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events"),
                                         ("GET", "/images/0")):
                        a = t.ask(who, method, f"/v1/jobs/{job}{path}")
                        assert a.status == 404, (state, who, path, a.body)
                        assert a.json["error"]["code"] == "job_not_found", a.body
                for who in ("reader", None, "wrong"):
                    a = t.ask(who, "DELETE", "/v1/jobs/" + job)
                    assert a.status == (403 if who == "reader" else 401), (state, who, a.status)
                assert t.ask("owner", "GET", "/v1/jobs/" + job).json["status"] == state
            # Its owner can, and that is told to nobody else.
            for job in (queued, running):
                assert t.ask("owner", "DELETE", "/v1/jobs/" + job).json["status"] == "cancelled"
        assert t.ask("owner", "GET", f"/v1/jobs/{ended}/images/0").status == 200
    finally:
        assert s.close() == 0


def test_lists_hold_the_callers_jobs_only():
    t = Tenants()
    s = t.server
    try:
        made = {who: [] for who in ("owner", "other", "all")}
        for i in range(3):
            for who, ids in made.items():
                ids.insert(0, t.done(who)["id"])
        # Those of the other APIs are the caller's, too, where they are kept.
        for who, ids in made.items():
            a = t.ask(who, "POST", "/v1/images/generations", BODIES["POST /v1/images/generations"])
            ids.insert(0, a.headers["x-imagend-job"])
        for who, ids in made.items():
            page = t.ask(who, "GET", "/v1/jobs").json
            assert [j["id"] for j in page["data"]] == ids and not page["has_more"], who
            page = t.ask(who, "GET", "/v1/jobs?status=done&limit=4").json
            assert [j["id"] for j in page["data"]] == ids and not page["has_more"], who
            page = t.ask(who, "GET", f"/v1/jobs?limit=2&after={ids[0]}").json
            assert [j["id"] for j in page["data"]] == ids[1:3] and page["has_more"], who
            for other, theirs in made.items():
                a = t.ask(who, "GET", "/v1/jobs?after=" + theirs[1])
                assert a.status == (200 if other == who else 400), (who, other, a.body)
        assert t.ask("reader", "GET", "/v1/jobs").json["data"] == []
    finally:
        assert s.close() == 0


def test_addresses_of_results():
    """They work for whoever has one, and only whole; the log does not tell them."""
    t = Tenants()
    s = t.server
    try:
        first, second = (t.done("owner", n=2, format=f) for f in ("png", "jpeg"))
        urls = [i["url"][i["url"].index("/v1/"):] for j in (first, second) for i in j["images"]]
        assert len(set(urls)) == 4
        for url in urls:
            for who in (None, "wrong", "other", "owner"):
                a = t.ask(who, "GET", url)
                assert a.status == 200 and a.headers["content-security-policy"], (who, url)
        tokens = [u.rsplit("/", 1)[1].split("-")[0] for u in urls]
        assert tokens[0] == tokens[1] != tokens[2] and all(len(x) == 32 for x in tokens)
        for url, token in zip(urls, tokens):
            folder, name = url.rsplit("/", 1)
            wrong = [f"{token[:-1]}{'0' if token[-1] != '0' else '1'}{name[32:]}", name[1:], "x" + name,
                     name[:31] + name[32:], name[32:], token, "-0.png", "", name + "x",
                     name.replace("-0.", "-2.").replace("-1.", "-2."), name.replace("-", "--"),
                     name.replace(".png", ".webp").replace(".jpeg", ".png"),
                     tokens[2 if token == tokens[0] else 0] + name[32:]]
            for other in wrong:
                assert t.ask("owner", "GET", f"{folder}/{other}").status == 404, other
            for i in range(32):
                digit = "0" if token[i] != "0" else "1"
                assert t.ask(None, "GET", f"{folder}/{token[:i]}{digit}{name[i + 1:]}").status == 404, i
            assert t.ask(None, "GET", url.replace(folder.rsplit("/", 1)[1], "job_" + "0" * 32)).status == 404
        # Every request above is in the log, none with a token.
        eventually(lambda: s.log.count("path=/v1/files/") >= 4 * 40, what="requests in the log")
        for token in tokens:
            assert token not in s.log and token[:16] not in s.log and token[16:] not in s.log
        assert t.ask("owner", "DELETE", "/v1/jobs/" + first["id"]).status == 204
        assert t.ask("owner", "GET", urls[0]).status == 404
        assert t.ask("owner", "GET", urls[2]).status == 200
    finally:
        assert s.close() == 0


def test_idempotency_keys_are_their_owners():
    t = Tenants()
    s = t.server
    try:
        for route in ("POST /v1/jobs", "POST /v1/images/generations", "POST /v1/images/edits"):
            body, word = BODIES[route], {"Idempotency-Key": route}

            def draw(who, **more):
                a = t.ask(who, *route.split(" "), {**body, **more}, **word)
                return a.status, a.headers.get("x-imagend-job") or a.json.get("id")
            first = {who: draw(who) for who in ("owner", "other", "all")}
            assert len({job for _, job in first.values()}) == 3, first
            assert {status for status, _ in first.values()} == {STATUSES.get(route, 200)}
            for who, (_, job) in first.items():
                assert draw(who)[1] == job, who
                assert draw(who, prompt="b")[0] == 409, who
            # And no key takes another's word.
            assert draw("maker", prompt="c")[0] == STATUSES.get(route, 200)
    finally:
        assert s.close() == 0


def test_progress_and_interrupt_are_the_callers():
    t = Tenants(env={"FAKE_SLOTS": "4"})
    s = t.server
    answers = {}

    def draw(who):
        answers[who] = t.ask(who, "POST", "/sdapi/v1/txt2img", BODIES["POST /sdapi/v1/txt2img"])

    def progress(who):
        return t.ask(who, "GET", "/sdapi/v1/progress").json
    try:
        threads = {who: threading.Thread(target=draw, args=(who,)) for who in ("owner", "other")}
        with s.held(4):
            for i, thread in enumerate(threads.values()):
                thread.start()
                eventually(lambda: f"imagend_running_pictures {i + 1}\n" in
                           t.ask("root", "GET", "/metrics").body.decode())
            seen = {who: eventually(lambda: (lambda p: p if p["current_image"] else None)(progress(who)))
                    for who in threads}
            assert seen["owner"]["state"]["job"] != seen["other"]["state"]["job"]
            for who in ("all", "reader"):
                p = progress(who)
                assert p["progress"] == 0 and p["current_image"] is None, (who, p)
                assert p["state"]["job"] == "" and p["state"]["job_count"] == 0, (who, p)
            for route in ("interrupt", "skip"):
                for who, status in (("all", 200), ("maker", 200), ("reader", 403), (None, 401)):
                    assert t.ask(who, "POST", "/sdapi/v1/" + route).status == status, (route, who)
                for who in threads:
                    assert progress(who)["state"]["job_count"] == 1, (route, who)
            # A job of another API is not what A1111's clients stop.
            native = t.ask("all", "POST", "/v1/jobs", {"prompt": "a", "size": 64}).json["id"]
            eventually(lambda: t.ask("all", "GET", "/v1/jobs/" + native).json["status"] == "running")
            assert progress("all")["state"]["job_count"] == 0
            assert t.ask("all", "POST", "/sdapi/v1/interrupt").status == 200
            assert t.ask("all", "GET", "/v1/jobs/" + native).json["status"] == "running"
            assert t.ask("owner", "POST", "/sdapi/v1/interrupt").json == {}
            threads["owner"].join(PATIENCE)
            assert answers["owner"].status == 410, answers["owner"].body
            assert progress("other")["state"]["job_count"] == 1
        threads["other"].join(PATIENCE)
        assert answers["other"].status == 200
        assert is_png(base64.b64decode(answers["other"].json["images"][0]), 64)
    finally:
        assert s.close() == 0


def test_owners_after_a_restart_and_a_reload():
    """A job belongs to the name of its key: also after a restart, and not to a key that comes later."""
    needs_store("sqlite", "postgres")
    t = Tenants()
    s = t.server
    try:
        job = t.done("owner")["id"]
        assert s.stop() == 0
        s.start()
        assert t.ask("owner", "GET", "/v1/jobs/" + job).status == 200
        for who in ("other", "all"):
            assert t.ask(who, "GET", "/v1/jobs/" + job).status == 404, who
            assert t.ask(who, "GET", "/v1/jobs").json["data"] == []
        assert "key=owner" in s.log and "key=other" in s.log
        for key in t.keys.values():
            assert key not in s.log
    finally:
        assert s.close() == 0


def test_keys_are_sent_in_either_way():
    t = Tenants()
    s = t.server
    try:
        key = t.keys["owner"]

        def basic(text):
            return "Basic " + base64.b64encode(text.encode()).decode()
        for header, status in (("Bearer " + key, 200), ("bearer " + key, 200), (basic("me:" + key), 200),
                               (basic(":" + key), 200), (basic(key), 401), (basic(key + ":"), 401),
                               (basic("me:" + key + "x"), 401), (key, 401), ("Digest " + key, 401),
                               ("Bearer", 401), ("Bearer ", 401), ("Basic ", 401), ("Basic ***", 401),
                               ("Bearer x" + key, 401),
                               ("Bearer " + key[:-1], 401), ("Bearer " + key.upper(), 401),
                               ("Bearer " + "x" * 300, 401)):
            assert s.request("GET", "/v1/models", headers={"Authorization": header}).status == status, header
    finally:
        assert s.close() == 0


if __name__ == "__main__":
    main(globals())
