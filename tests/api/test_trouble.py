"""Engine errors: each of them, in each place; and the parameters that reach the engine."""
import base64
import json
import os
import subprocess
import tempfile
import time

from harness import PATIENCE, PROGRAM, STORE, Server, b64, eventually, main, png_texts

# Each code of err.h that an engine may fail with: what OpenAI's clients get, and A1111's.
CODES = {
    "invalid": (400, 422), "not_found": (404, 404), "busy": (503, 503), "no_memory": (500, 500),
    "no_device_memory": (500, 500), "device_lost": (503, 503), "no_device": (503, 503),
    "unsupported": (400, 422), "io": (507, 507), "format": (500, 500), "timeout": (504, 504),
    "internal": (500, 500), "not_finite": (500, 500),
}
TYPES = {400: "invalid_request_error", 404: "invalid_request_error"}


def post(s, **fields):
    return s.post("/v1/jobs", {"prompt": "a", "size": 64, **fields})


def metric(s, line):
    return line + "\n" in s.get("/metrics").body.decode()


def running(s):
    return s.get("/v1/capabilities").json["running"]


def test_every_error_of_a_picture():
    """Told by its code in every API, counted by it, and without consequence for what follows."""
    s = Server(env={"FAKE_SLOTS": "2"})
    try:
        for word in ("fail", "refuse"):
            for i, (code, (status, a1111)) in enumerate(CODES.items()):
                prompt, what = f"[{word} {code}]", (word, code)
                j = s.wait_job(post(s, prompt=prompt, n=2).json["id"])
                assert j["status"] == "failed" and j["error"]["code"] == code, (what, j)
                assert j["error"]["message"] and "done" not in [x["status"] for x in j["images"]], j
                a = s.draw(prompt)
                assert a.status == status, (what, a.status, a.body)
                error = a.json["error"]
                assert error["type"] == TYPES.get(status, "server_error"), (what, error)
                assert ("retry-after" in a.headers) == (status == 503), what
                if code == "not_finite":
                    assert error["code"] == code
                a = s.post("/sdapi/v1/txt2img", {"prompt": prompt, "width": 64, "height": 64})
                assert a.status == a1111 and set(a.json) == {"error", "detail", "body", "errors"}, what
                frames = list(s.events("POST", "/v1/images/generations",
                                       {"prompt": prompt, "size": "64x64", "stream": True}))
                assert len(frames) == 1 and frames[0][0] == "error", (what, frames)
                assert frames[0][2]["error"]["code"] == code, (what, frames)
                count = 5 if word == "fail" else 10
                text = s.get("/metrics").body.decode()
                line = next(x for x in text.splitlines() if f'failed_total{{code="{code}"}}' in x)
                # Of a job's two, the second may be cancelled before it fails: once for each word.
                assert count - 1 - (word == "refuse") <= int(line.split()[1]) <= count, (what, line)
                assert s.draw().status == 200, what
        assert metric(s, f'imagend_jobs_total{{state="done"}} {2 * len(CODES)}')
        assert metric(s, f'imagend_jobs_total{{state="failed"}} {8 * len(CODES)}')
        assert "imagend_engine_lost_total" not in s.get("/metrics").body.decode()
        eventually(lambda: running(s) == 0)
    finally:
        s.close()


def test_a_lost_engine_is_opened_again():
    """What was under way is drawn again, once, with the same image; a loss counts wherever it shows."""
    for word in ("[lose]", "[lose no_device_memory]", "[lose internal]", "[lose preview]"):
        with tempfile.TemporaryDirectory() as folder:
            seen = os.path.join(folder, "seen")
            s = Server(env={"FAKE_SLOTS": "3", "FAKE_SEEN": seen})
            try:
                alone = s.get(s.wait_job(post(s, seed=1, steps=9).json["id"])["images"][0]["href"]).body
                with s.held():
                    jobs = [post(s, seed=1, steps=9).json["id"] for _ in range(2)]
                    cause = post(s, prompt=word, steps=9, previews=8).json["id"]
                    events = s.events("GET", f"/v1/jobs/{cause}/events")
                    next(events)
                    eventually(lambda: running(s) == 3)
                names = [e[0] for e in events]
                assert names[-1] == "done", names
                for job in (*jobs, cause):
                    assert s.wait_job(job)["status"] == "done", word
                assert [s.get(f"/v1/jobs/{j}/images/0").body == alone for j in jobs] == [True, True]
                opens = [x for x in map(json.loads, open(seen)) if "model" in x]
                assert len(opens) == 2 and opens[0] == opens[1], (word, opens)
                assert metric(s, "imagend_engine_lost_total 1"), word
                assert metric(s, "imagend_pictures_total 4"), word
            finally:
                s.close()


def test_while_no_engine_works():
    s = Server(env={"FAKE_SLOTS": "1"})
    try:
        with s.held(2):  # what is opened again has to wait
            job = post(s, prompt="[lose]").json["id"]
            a = eventually(lambda: (lambda a: a if a.status == 503 else None)(s.get("/readyz")))
            assert a.json == {"status": "unready", "reason": "the device was lost"}, a.body
            assert s.get("/healthz").status == 200
            a = post(s)
            assert a.status == 503 and "no device is available: the device was lost" in a.body.decode(), a.body
            assert "queue_full" not in a.body.decode() and int(a.headers["retry-after"]) >= 1
            # A replica tells the others of it within a second.
            eventually(lambda: [s.get("/v1/capabilities").json[k] for k in ("slots", "running", "queued")] == [0, 0, 1])
            assert s.get("/v1/models").json["data"], "the model is still known"
            assert metric(s, "imagend_ready 0") and metric(s, "imagend_slots 0")
        assert s.wait_job(job)["status"] == "done"
        s.wait_ready()
        assert metric(s, "imagend_ready 1") and metric(s, "imagend_slots 1")
    finally:
        s.close()


def test_an_engine_that_cannot_be_opened():
    """What will not mend itself ends the program with one sentence; the rest is tried again."""
    for code in ("not_found", "format", "unsupported", "invalid"):
        r = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--store", "memory"],
                           capture_output=True, text=True, timeout=PATIENCE,
                           env={**os.environ, "FAKE_OPEN_FAILS": "1", "FAKE_OPEN_ERROR": code,
                                "FAKE_FAULT": "the model is bad"})
        assert r.returncode == 1 and r.stderr.count("imagend: the model is bad\n") == 1, (code, r)
    r = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--store", "memory", "--model", "fake/300m",
                        "--memory-limit", "200M"], capture_output=True, text=True, timeout=PATIENCE)
    assert r.returncode == 1 and r.stderr.count("imagend: the memory limit of 200 MB is too small\n") == 1, r
    for code in ("no_device", "no_device_memory", "io", "busy", "device_lost"):
        s = Server(env={"FAKE_OPEN_FAILS": "1", "FAKE_OPEN_ERROR": code, "FAKE_FAULT": "try again"},
                   start=False)
        with s.held():
            s.start(ready=False)
            a = eventually(lambda: (lambda a: a if "try again" in a.body.decode() else None)(
                s.get("/readyz")), what=code)
            assert a.status == 503 and a.json == {"status": "unready", "reason": "try again"}, a.body
            assert metric(s, "imagend_ready 0")
            for path in ("/v1/capabilities", "/sdapi/v1/sd-models"):
                assert s.get(path).status in (200, 503), path
            a = post(s)
            assert a.status == 503 and int(a.headers["retry-after"]) >= 1, (code, a.body)
            assert "no device is available" in a.json["error"]["message"], a.body
        try:
            s.wait_ready()
            assert metric(s, "imagend_ready 1") and s.draw().status == 200, code
            assert metric(s, "imagend_engine_lost_total 1")
        finally:
            s.close()


def test_a_picture_that_never_ends():
    """It is left by whoever cancels it: a client, a deadline, the end; and it keeps nobody else waiting."""
    s = Server("--drain-timeout", "0.2", env={"FAKE_SLOTS": "2"})
    try:
        hung = post(s, prompt="[hang]").json["id"]
        eventually(lambda: running(s) == 1)
        assert s.draw().status == 200  # in the other slot
        assert s.delete("/v1/jobs/" + hung).json["status"] == "cancelled"
        eventually(lambda: running(s) == 0, what="a free slot")
        late = eventually(lambda: post(s, prompt="[hang]", n=2, deadline=int(time.time()) + 2)
                          .json.get("id"))
        waiting = post(s).json["id"]
        j = s.wait_job(late)
        assert j["status"] == "failed" and j["error"]["code"] == "timeout", j
        assert [x["status"] for x in j["images"]] == ["failed"] * 2, j
        assert s.wait_job(waiting)["status"] == "done"
        if STORE == "memory":
            return
        last = post(s, prompt="[hang]").json["id"]
        eventually(lambda: running(s) == 1)
        start = time.monotonic()
        assert s.stop() == 0 and time.monotonic() - start < 25
        # It was accepted, so it waits for the restart.
        s.start()
        assert s.get("/v1/jobs/" + last).json["status"] in ("queued", "running")
        assert s.delete("/v1/jobs/" + last).json["status"] == "cancelled"
    finally:
        s.close()


def test_a_deadline_counts_from_the_queue_to_the_last_step():
    s = Server(env={"FAKE_SLOTS": "1"})
    try:
        hung = post(s, prompt="[hang]").json["id"]
        eventually(lambda: running(s) == 1)
        at = time.time() + 2
        queued = eventually(lambda: post(s, deadline=int(time.time()) + 2).json.get("id"))
        j = s.wait_job(queued)
        assert j["status"] == "failed" and j["error"]["code"] == "timeout" and j["started"] is None, j
        assert at - 1.1 <= j["finished"] < at + 20, (at, j["finished"])
        assert s.get("/v1/capabilities").json["queued"] == 0
        assert s.delete("/v1/jobs/" + hung).status == 200
        # One whose time is long enough is drawn, and what is over is refused.
        assert s.wait_job(post(s, deadline=int(time.time()) + 600).json["id"])["status"] == "done"
        for past in (int(time.time()) - 1, "2001-01-01T00:00:00Z"):
            a = post(s, deadline=past)
            assert a.status == 400 and a.json["error"]["param"] == "deadline", a.body
    finally:
        s.close()


def test_devices_share_the_queue():
    with tempfile.TemporaryDirectory() as folder:
        seen = os.path.join(folder, "seen")
        s = Server("--device", "first,second", "--slots", "2", "--dtype", "f16", "--variant", "v",
                   "--memory-limit", "3G", "--cache-dir", folder, "--model", "m", "--text-encoder", "t5.gguf",
                   "--lora", "fox.safetensors:0.5", "--lora-choices", "dog.safetensors", "--text-cache", "5M",
                   env={"FAKE_SEEN": seen})
        try:
            eventually(lambda: s.get("/v1/capabilities").json["slots"] == 4)
            opens = sorted(map(json.loads, open(seen)), key=lambda x: x["device"])
            assert opens == [{"model": "m", "variant": "v", "device": d, "dtype": "f16", "slots": 2,
                              "memory_limit": 3 << 30, "cache_dir": folder,
                              "text_encoder": "t5.gguf", "lora": "fox.safetensors:0.5",
                              "lora_choices": "dog.safetensors",
                              "text_cache": 5 << 20} for d in ("first", "second")]
            with s.held():
                job = post(s, n=6).json["id"]
                eventually(lambda: running(s) == 4, what="pictures on both devices")
                assert s.get("/v1/capabilities").json["queued"] == 2
            assert s.wait_job(job)["status"] == "done"
            assert metric(s, "imagend_slots 4")
            # One that is lost takes nothing of the other's with it.
            with s.held():
                job = post(s, n=3).json["id"]
                eventually(lambda: running(s) == 3)
                lost = post(s, prompt="[lose]").json["id"]
                eventually(lambda: running(s) == 4)
            assert [s.wait_job(j)["status"] for j in (job, lost)] == ["done", "done"]
            assert metric(s, "imagend_engine_lost_total 1")
            eventually(lambda: s.get("/v1/capabilities").json["slots"] == 4)
        finally:
            s.close()


# ---- what reaches the engine ------------------------------------------------------------------

PLAIN = {"prompt": "a", "negative_prompt": None, "preset": None, "sampler": None, "timesteps": None,
         "seed": 7, "picture": 0, "size": [256, 256], "stages": [[0, 0, -1]] * 3}


def stages(*rows):
    return [list(r) for r in rows] + [[0, 0, -1]] * (3 - len(rows))


# A field of the native API, and what the engine gets instead of PLAIN.
FIELDS = (
    ({}, {}),
    ({"prompt": "b \u20ac"}, {"prompt": "b \u20ac"}),
    ({"negative_prompt": "c"}, {"negative_prompt": "c"}),
    ({"preset": "fast"}, {"preset": "fast"}),
    ({"sampler": "ddim"}, {"sampler": "ddim"}),
    ({"timesteps": "smart50"}, {"timesteps": "smart50"}),
    ({"seed": 9223372036854775807}, {"seed": 9223372036854775807}),
    ({"seed": 0}, {"seed": 0}),
    ({"picture": 3}, {"picture": 3}),
    ({"size": "100x200"}, {"size": [100, 200]}),
    ({"steps": 5}, {"stages": stages((5, 0, -1))}),
    ({"steps": [5, 6]}, {"stages": stages((5, 0, -1), (6, 0, -1))}),
    ({"guidance_scale": 2.5}, {"stages": stages((0, 2.5, -1))}),
    ({"guidance_scale": [2.5, 3]}, {"stages": stages((0, 2.5, -1), (0, 3, -1))}),
    ({"guidance_scale": 0}, {"stages": stages((0, 1, -1))}),
    ({"noise_level": [-1, 7]}, {"stages": stages((0, 0, -1), (0, 0, 7))}),
)
A1111 = {"steps": "steps", "negative_prompt": "negative_prompt", "seed": "seed", "picture": "picture",
         "prompt": "prompt"}


def test_what_is_asked_for_reaches_the_engine():
    """Each setting as it was sent, from each API, and nothing else; in the file, too."""
    with tempfile.TemporaryDirectory() as folder:
        seen = os.path.join(folder, "seen")
        s = Server(env={"FAKE_SEEN": seen})

        def taken(count=1):
            """The requests since the last call, without the engine's opening."""
            with open(seen) as f:
                rows = [x for x in map(json.loads, f) if "model" not in x]
            os.unlink(seen)
            assert len(rows) == count, rows
            return rows if count > 1 else rows[0]

        def in_file(png, want):
            texts = png_texts(png)
            assert texts["seed"] == str(want["seed"]), (texts, want)
            assert texts["prompt"] == want["prompt"] and texts["picture"] == str(want["picture"]), texts
            assert texts.get("negative_prompt", "") == (want["negative_prompt"] or ""), texts
            for name in ("sampler", "preset", "timesteps"):
                assert not want[name] or texts[name] == want[name], (name, texts)
            for i, name in enumerate(("steps", "guidance")):
                for k, row in enumerate(want["stages"]):
                    if row[i]:
                        assert float(texts[name].split(",")[k].strip(" []")) == row[i], (name, texts)
        try:
            s.draw()
            os.unlink(seen)
            for fields, differs in FIELDS:
                want = {**PLAIN, **differs}
                j = s.wait_job(post(s, **{"size": 256, "seed": 7, **fields}).json["id"])
                assert j["status"] == "done", (fields, j)
                assert taken() == want, fields
                in_file(s.get(j["images"][0]["href"]).body, want)
                body = {"prompt": "a", "size": "256x256", "seed": 7, **fields}
                if "noise_level" not in fields:
                    a = s.post("/v1/images/generations", body)
                    assert taken() == want, fields
                    in_file(b64(a), want)
                if len(fields) == 1 and set(fields) <= set(A1111) and not isinstance(
                        fields.get("steps"), list):
                    a = s.post("/sdapi/v1/txt2img", {
                        "prompt": "a", "width": 256, "height": 256, "seed": 7,
                        **{A1111[k]: v for k, v in fields.items()}})
                    assert taken() == want, fields
                    in_file(base64.b64decode(a.json["images"][0]), want)
            for fields, want in (({"cfg_scale": 3}, {"stages": stages((0, 3, -1))}),
                                 ({"cfg_scale": 0}, {"stages": stages((0, 1, -1))}),
                                 ({"sampler_name": "DPM++ 2M", "scheduler": "karras"},
                                  {"sampler": "dpm++2m-karras"}),
                                 ({"width": 64, "height": 30}, {"size": [64, 30]})):
                s.post("/sdapi/v1/txt2img", {"prompt": "a", "width": 256, "height": 256, "seed": 7,
                                             **fields})
                got = taken()
                assert {k: got[k] for k in want} == want, (fields, got)
            # Several: each its own number, the seed the same.
            s.wait_job(post(s, n=4, seed=2, picture=5).json["id"])
            assert sorted((r["seed"], r["picture"]) for r in taken(4)) == [(2, i) for i in range(5, 9)]
            s.draw(n=3, seed=2)
            assert sorted((r["seed"], r["picture"]) for r in taken(3)) == [(2, i) for i in range(3)]
            s.post("/sdapi/v1/txt2img", {"prompt": "a", "width": 64, "height": 64, "seed": 2,
                                         "batch_size": 2, "n_iter": 2})
            assert sorted((r["seed"], r["picture"]) for r in taken(4)) == [(2, i) for i in range(4)]
            # A seed that was left open is one that can be sent again.
            seeds = []
            for _ in range(8):
                a = s.draw()
                seeds.append(taken()["seed"])
                assert a.json["seed"] == seeds[-1]
            assert len(set(seeds)) == 8 and all(0 <= x < 2 ** 32 for x in seeds), seeds
            if STORE == "memory":
                return
            # And what was stored is what is drawn after a restart.
            with s.held():
                job = post(s, seed=3, negative_prompt="n", steps=[4], size=64, sampler="ddim",
                           timesteps=None, picture=2, n=2).json["id"]
                s.process.kill()
                s.process.wait()
            s.start()
            assert s.wait_job(job)["status"] == "done"
            with open(seen) as f:
                rows = [x for x in map(json.loads, f) if "model" not in x][-2:]
            assert sorted(r["picture"] for r in rows) == [2, 3], rows
            for r in rows:
                assert {**r, "picture": 2} == {**PLAIN, "seed": 3, "negative_prompt": "n", "picture": 2,
                                               "size": [64, 64], "sampler": "ddim",
                                               "stages": stages((4, 0, -1))}, r
        finally:
            s.close()


def test_the_text_cache_is_counted():
    s = Server()
    try:
        for prompt in ("a", "a", "b", "a", "a"):
            s.draw(prompt)
        eventually(lambda: metric(s, "imagend_text_cache_hits_total 2"))
        assert metric(s, "imagend_text_cache_misses_total 3")
        assert metric(s, "imagend_device_memory_bytes 1048576")
    finally:
        s.close()


if __name__ == "__main__":
    main(globals())
