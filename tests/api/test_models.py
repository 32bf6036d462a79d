"""Several models in one process: the file that names them, how each API selects one, what is loaded and released
under one memory limit, and what a model that cannot be loaded costs the others."""
import json
import os
import re
import subprocess
import tempfile
import threading
import time

from harness import PATIENCE, PROGRAM, Server, b64, eventually, main, needs_store, png_texts

FILES = """
# comments and empty lines

[photo]
model = fake/300m
lora = fox.safetensors:0.5
lora-choices = dog.safetensors
[draft]
model=fake/small-300m
[tiny-1.0]
  model = fake/fragile-100m
weights = q8
"""


def server(text=FILES, *flags, memory="500M", **args):
    path = os.path.join(tempfile.mkdtemp(), "models")
    with open(path, "w") as f:
        f.write(text)
    return Server("--models-file", path, "--memory-limit", memory, *flags, **args)


def states(s):
    """Of the models by name; /v1/models, /v1/capabilities and /readyz agree."""
    want = {m["id"]: m["state"] for m in s.get("/v1/models").json["data"] if m["id"] == m["root"]}
    answers = [s.get("/v1/capabilities?model=" + name) for name in want]
    got = next({m["name"]: m["state"] for m in a.json["models"]} for a in answers if a.status == 200)
    ready = s.get("/readyz").json.get("models")
    return want if want == got and ready == (want if len(want) > 1 else None) else None


def wait_states(s, **want):
    eventually(lambda: states(s) == want, what=str(want))


def submit(s, model=None, prompt="a", **fields):
    body = {"prompt": prompt, "size": "64x64", **({"model": model} if model else {}), **fields}
    return s.post("/v1/jobs", body)


def start(s, model):
    """A job that has a slot."""
    job = submit(s, model).json["id"]
    eventually(lambda: s.get("/v1/jobs/" + job).json["status"] == "running")
    return job


def metric(s, name, **labels):
    want = ",".join(f'{k}="{v}"' for k, v in labels.items())
    found = re.search(rf"^{name}{{{re.escape(want)}}} (\S+)$", s.get("/metrics").body.decode(), re.M)
    return float(found[1]) if found else None


def test_every_api_selects():
    """The first section is the default; the image says which model generated it."""
    s = server()
    for model, want in ((None, "photo"), ("", "photo"), ("photo", "photo"), ("draft", "draft"),
                        ("openai/draft", "draft"), ("dall-e-2", "photo"), ("gpt-image-1", "photo")):
        answer = s.draw(response_format="b64_json", **({} if model is None else {"model": model}))
        assert answer.status == 200, answer.body
        assert answer.json["model"] == want, (model, answer.json["model"])
        assert f"Model: {want}" in png_texts(b64(answer))["parameters"], png_texts(b64(answer))
    job = s.wait_job(submit(s, "draft").json["id"])
    assert (job["status"], job["model"]) == ("done", "draft"), job
    assert s.wait_job(submit(s).json["id"])["model"] == "photo"
    image = s.draw().json["data"][0]["b64_json"]
    for path in ("edits", "variations"):
        answer = s.post("/v1/images/" + path, {"prompt": "a", "image": image, "model": "draft"})
        assert answer.json.get("model") == "draft", (path, answer.body)
    s.close()


def test_unknown_models_are_refused():
    s = server()
    image = s.draw().json["data"][0]["b64_json"]
    for path, body in (("/v1/images/generations", {"prompt": "a"}), ("/v1/jobs", {"prompt": "a"}),
                       ("/v1/images/edits", {"prompt": "a", "image": image}),
                       ("/v1/images/variations", {"image": image})):
        for model in ("nobody", "phot", "Photo", "photo "):
            answer = s.post(path, {**body, "model": model})
            assert answer.status == 404, (path, model, answer.body)
            error = answer.json["error"]
            assert (error["code"], error["param"]) == ("model_not_found", "model"), error
            assert error["message"] == f'the model "{model}" does not exist; available: "photo", "draft", "tiny-1.0"', error
    for path in ("/v1/models/nobody", "/v1/capabilities?model=nobody"):
        answer = s.get(path)
        assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found"), answer.body
    answer = s.post("/sdapi/v1/txt2img", {"override_settings": {"sd_model_checkpoint": "nobody"}})
    want = 'the model "nobody" does not exist; available: "photo", "draft", "tiny-1.0"'
    assert (answer.status, answer.json["detail"]) == (404, want), answer.body
    answer = s.post("/sdapi/v1/options", {"sd_model_checkpoint": "nobody"})
    assert (answer.status, answer.json["detail"]) == (404, want), answer.body
    s.close()


def test_a1111_selects():
    """By override_settings for one request, by the options for all of one key."""
    keys = os.path.join(tempfile.mkdtemp(), "keys")
    s = server(start=False)
    lines, sent = [], {}
    for name in ("alice", "bob"):
        text = subprocess.run([PROGRAM, "config", "key", name], capture_output=True, text=True).stdout
        sent[name] = {"Authorization": "Bearer " + re.search(r"shown once\): (\S+)", text)[1]}
        lines.append(re.search(r"keys-file: (.+)", text)[1])
    with open(keys, "w") as f:
        f.write("\n".join(lines) + "\n")
    s.flags += ["--keys-file", keys]
    s.start()

    def drawn(who, **body):
        answer = s.post("/sdapi/v1/txt2img", {"prompt": "a", "width": 64, **body}, **sent[who])
        assert answer.status == 200, answer.body
        return re.search(r"Model: ([\w.-]+)", answer.json["info"])[1]

    titles = [m["title"] for m in s.get("/sdapi/v1/sd-models", **sent["bob"]).json]
    assert titles == ["photo", "draft", "tiny-1.0"], titles
    assert drawn("alice") == "photo"
    assert drawn("alice", override_settings={"sd_model_checkpoint": "draft"}) == "draft"
    assert drawn("alice") == "photo", "for one request only"
    assert s.post("/sdapi/v1/options", {"sd_model_checkpoint": "tiny-1.0"}, **sent["alice"]).status == 200
    assert drawn("alice") == "tiny-1.0"
    assert drawn("bob") == "photo", "another key's selection"
    for who, want in (("alice", "tiny-1.0"), ("bob", "photo")):
        got = s.get("/sdapi/v1/options", **sent[who]).json["sd_model_checkpoint"]
        assert got == want, (who, got)
    s.close()


def test_what_each_model_can_do():
    """Capabilities, sizes and presets are those of the model, loaded or not."""
    s = server()
    wait_states(s, photo="loaded", draft="unloaded", **{"tiny-1.0": "unloaded"})
    for model, sizes, presets, scales in (("photo", [64, 256, 1024], ["fast"], [4, 16]),
                                          ("draft", [64, 256], [], [4])):
        answer = s.get("/v1/capabilities?model=" + model).json
        got = (answer["model"], answer["sizes"], [p["name"] for p in answer["presets"]], answer["scales"])
        assert got == (model, sizes, presets, scales), got
    assert s.get("/v1/capabilities").json["model"] == "photo"
    assert submit(s, "photo", preset="fast").status == 202
    for fields, param in (({"preset": "fast"}, "preset"), ({"size": "1024x1024"}, "size")):
        answer = submit(s, "draft", **fields)
        assert (answer.status, answer.json["error"]["param"]) == (400, param), answer.body
    # Half the steps for low quality, because this model has no preset "fast".
    low = s.draw(quality="low", model="draft", response_format="url")
    job = s.get("/v1/jobs/" + low.headers["x-imagend-job"]).json
    assert job["request"]["steps"][0] == 4, job
    s.close()


def test_least_recently_used_goes():
    """Two of 300 MB do not fit in 500 MB; one of 100 MB fits beside either."""
    s = server()
    wait_states(s, photo="loaded", draft="unloaded", **{"tiny-1.0": "unloaded"})
    for model, photo, draft, tiny in (
            ("tiny-1.0", "loaded", "unloaded", "loaded"),
            ("photo", "loaded", "unloaded", "loaded"),
            ("draft", "unloaded", "loaded", "unloaded"),  # tiny-1.0 was used least recently, and it is not enough
            ("tiny-1.0", "unloaded", "loaded", "loaded"),
            ("photo", "loaded", "unloaded", "loaded"),  # draft was used least recently, and it is enough
            ("tiny-1.0", "loaded", "unloaded", "loaded"),
            ("draft", "unloaded", "loaded", "loaded")):
        assert s.draw(model=model).status == 200
        wait_states(s, photo=photo, draft=draft, **{"tiny-1.0": tiny})
    assert metric(s, "imagend_model_loaded", model="draft") == 1
    assert metric(s, "imagend_model_loaded", model="photo") == 0
    assert metric(s, "imagend_model_loads_total", model="photo", result="ok") == 2
    assert metric(s, "imagend_model_pictures_total", model="tiny-1.0") == 3
    s.close()


def test_models_work_side_by_side():
    """Where they fit, images of several models are in progress at once, at most `slots` together."""
    s = server(FILES, "--slots", "2", memory="1G")
    for model in ("photo", "draft", "tiny-1.0"):
        assert s.draw(model=model).status == 200
    with s.held(2):
        jobs = [submit(s, model).json["id"] for model in ("photo", "draft", "tiny-1.0")]
        def statuses():
            return [s.get("/v1/jobs/" + j).json["status"] for j in jobs]
        eventually(lambda: statuses()[:2] == ["running", "running"])
        time.sleep(0.3)  # for a third that would begin a moment later
        assert statuses() == ["running", "running", "queued"]
        assert s.get("/v1/capabilities").json["slots"] == 2
    assert [s.wait_job(j)["status"] for j in jobs] == ["done"] * 3
    wait_states(s, photo="loaded", draft="loaded", **{"tiny-1.0": "loaded"})
    s.close()


def test_a_busy_model_is_not_released():
    """A job waits until the other model is idle; none overtakes it, so that it does not wait forever."""
    s = server()
    with s.held(2):
        first = start(s, "photo")
        other = submit(s, "draft").json["id"]
        again = submit(s, "photo").json["id"]
        gone = submit(s, "draft").json["id"]
        wait_states(s, photo="loaded", draft="loading", **{"tiny-1.0": "unloaded"})
        assert [s.get("/v1/jobs/" + j).json["status"] for j in (other, again)] == ["queued"] * 2
        assert s.delete("/v1/jobs/" + gone).json["status"] == "cancelled"
    jobs = [s.wait_job(j) for j in (first, other, again)]
    assert [j["status"] for j in jobs] == ["done"] * 3, jobs
    assert jobs[1]["started"] <= jobs[2]["started"], jobs
    s.close()


def test_a_waiting_job_can_be_cancelled():
    s = server()
    with s.held(2):
        first = start(s, "photo")
        other = submit(s, "draft").json["id"]
        wait_states(s, photo="loaded", draft="loading", **{"tiny-1.0": "unloaded"})
        assert s.delete("/v1/jobs/" + other).json["status"] == "cancelled"
        wait_states(s, photo="loaded", draft="unloaded", **{"tiny-1.0": "unloaded"})
    assert s.wait_job(first)["status"] == "done"
    assert s.draw(model="draft").status == 200
    s.close()


def test_an_image_that_needs_more():
    """One that needs more memory than its model had asked for gets that of idle models."""
    s = server(FILES + "[more]\nmodel = fake/100m\n")
    rest = {"draft": "unloaded", "more": "unloaded"}
    assert s.draw(model="tiny-1.0").status == 200
    wait_states(s, photo="loaded", **{"tiny-1.0": "loaded"}, **rest)
    assert s.draw("[grow]", model="tiny-1.0").status == 200  # 200 MB beside 300 fit
    wait_states(s, photo="loaded", **{"tiny-1.0": "loaded"}, **rest)
    assert s.draw(model="more").status == 200  # nothing is left beside both
    wait_states(s, photo="unloaded", draft="unloaded", more="loaded", **{"tiny-1.0": "loaded"})
    s.close()
    s = server()
    assert s.draw("[grow]", model="tiny-1.0").status == 200
    assert s.draw(model="draft").status == 200
    assert s.draw(model="tiny-1.0").status == 200
    wait_states(s, photo="unloaded", draft="loaded", **{"tiny-1.0": "loaded"})
    answer = s.draw("[grow]", model="draft")  # 600 MB are too much even alone
    assert answer.status == 400 and answer.json["error"]["param"] == "size", answer.body
    wait_states(s, photo="unloaded", draft="loaded", **{"tiny-1.0": "unloaded"})
    assert s.draw(model="draft").status == 200
    s.close()


def test_a_broken_model_costs_its_jobs_only():
    """Its jobs fail with the reason; all others, and the service, go on. It is tried again with the next job."""
    broken = os.path.join(tempfile.mkdtemp(), "broken")
    open(broken, "w").close()
    s = server(env={"FAKE_BROKEN": broken})
    answer = s.draw(model="tiny-1.0")
    message = 'the model "tiny-1.0" cannot be loaded: the weights are damaged'
    assert (answer.status, answer.json["error"]["message"]) == (500, message), answer.body
    job = s.wait_job(submit(s, "tiny-1.0").json["id"])
    assert (job["status"], job["error"]["message"]) == ("failed", message), job
    wait_states(s, photo="loaded", draft="unloaded", **{"tiny-1.0": "failed"})
    listed = {m["id"]: m for m in s.get("/v1/models").json["data"]}
    assert listed["tiny-1.0"]["error"] == "the weights are damaged", listed
    assert metric(s, "imagend_model_loads_total", model="tiny-1.0", result="failed") == 2
    assert s.get("/readyz").status == 200 and s.draw().status == 200
    os.unlink(broken)
    assert s.draw(model="tiny-1.0").status == 200
    wait_states(s, photo="loaded", draft="unloaded", **{"tiny-1.0": "loaded"})
    s.close()


def test_a_broken_default():
    """Ends the program as a single model would; of the others, each concerns its own requests."""
    for model, limit, message in (("missing", "500M", "there is no model in missing"),
                                  ("fake/900m", "500M", "the memory limit of 500 MB is too small")):
        with tempfile.NamedTemporaryFile("w") as f:
            f.write(f"[first]\nmodel = {model}\n[second]\nmodel = fake\n")
            f.flush()
            r = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--store", "memory", "--models-file", f.name,
                                "--memory-limit", limit], capture_output=True, text=True, timeout=PATIENCE)
        assert r.returncode == 1 and r.stderr.count(
            f'imagend: the model "first" cannot be loaded: {message}\n') == 1, r
    s = server("[first]\nmodel = fake\n[second]\nmodel = missing\n[large]\nmodel = fake/900m\n")
    wait_states(s, first="loaded", second="failed", large="unloaded")
    for answer in (s.draw(model="second"), submit(s, "second")):
        assert answer.status == 503 and "there is no model in missing" in answer.json["error"]["message"], answer.body
    assert s.get("/v1/capabilities?model=second").status == 503
    answer = s.draw(model="large")
    assert answer.status == 500 and "memory limit of 500 MB" in answer.json["error"]["message"], answer.body
    assert s.draw().status == 200
    s.close()


def test_a_lost_device_costs_its_model_only():
    s = server(memory="1G")
    assert s.draw(model="draft").status == 200
    with s.held(2):
        other = submit(s, "draft").json["id"]
        eventually(lambda: s.get("/v1/jobs/" + other).json["status"] == "running")
    assert s.draw("[lose]").status == 200, "drawn by the engine that was opened again"
    assert s.wait_job(other)["status"] == "done"
    wait_states(s, photo="loaded", draft="loaded", **{"tiny-1.0": "unloaded"})
    s.close()


def test_jobs_keep_their_model():
    """Across a restart, also if the default has changed; a model that is gone fails its jobs. In a fleet, they wait
    (test_fleet_models.py)."""
    needs_store("sqlite")
    s = server()
    with s.held(2):
        first = submit(s, "photo", "[hang]").json["id"]
        eventually(lambda: s.get("/v1/jobs/" + first).json["status"] == "running")
        jobs = [submit(s, model).json["id"] for model in ("tiny-1.0", None, "draft")]
        s.stop(9)
    with open(s.flags[s.flags.index("--models-file") + 1], "w") as f:
        f.write("[tiny-1.0]\nmodel = fake/small\n[photo]\nmodel = fake/2m\n")
    s.start()
    assert s.delete("/v1/jobs/" + first).json["status"] == "cancelled"
    got = [s.wait_job(j) for j in jobs]
    assert [(j["status"], j["model"]) for j in got[:2]] == [("done", "tiny-1.0"), ("done", "photo")], got
    assert got[2]["status"] == "failed" and '"draft"' in got[2]["error"]["message"], got[2]
    s.close()


def test_settings_of_each_model():
    """Its own and, where it has none, those of the service."""
    seen = os.path.join(tempfile.mkdtemp(), "seen")
    s = server(FILES, "--dtype", "f16", "--weights", "q4", env={"FAKE_SEEN": seen})
    assert s.draw(model="tiny-1.0").status == 200
    opened = [json.loads(line) for line in open(seen) if "model_name" not in line]
    drawn = [json.loads(line) for line in open(seen) if "model_name" in line]
    by_name = {o["name"]: o for o in opened}
    photo, tiny = by_name["photo"], by_name["tiny-1.0"]
    assert (photo["lora"], photo["weights"], photo["dtype"]) == ("fox.safetensors:0.5", "q4", "f16"), photo
    assert (tiny["lora"], tiny["weights"], tiny["dtype"]) == (None, "q8", "f16"), tiny
    assert (photo["lora_choices"], tiny["lora_choices"]) == ("dog.safetensors", None), (photo, tiny)
    assert (photo["memory_limit"], tiny["memory_limit"]) == (500 << 20, 200 << 20), (photo, tiny)
    assert [d["model_name"] for d in drawn] == ["tiny-1.0"], drawn
    s.close()


def test_aliases_are_of_the_default():
    s = server(FILES, "--model-aliases", "sdxl, draft")
    listed = [(m["id"], m["root"]) for m in s.get("/v1/models").json["data"]]
    assert listed[3:] == [("sdxl", "photo"), ("draft", "photo")], listed
    assert s.draw(model="sdxl").json["model"] == "photo"
    assert s.draw(model="draft").json["model"] == "draft", "a model's own name comes first"
    s.close()


def test_errors_of_the_file():
    """One sentence with the line, before anything is started."""
    path = os.path.join(tempfile.mkdtemp(), "models")
    many = "".join(f"[m{i}]\nmodel = x\n" for i in range(33))
    for text, error in (("", "there is no section"), ("model = x\n", "line 1: model is set before the first section"),
                        ("[a]\n", "line 2: the section [a] before it does not set model"),
                        ("[a]\n[b]\nmodel = x\n", "line 2: the section [a]"),
                        ("[a]\nmodel = x\n[a]\nmodel = y\n", "line 3: there are two sections [a]"),
                        ("[a b]\nmodel = x\n", 'line 1: "a b" is not a model name'),
                        ("[]\nmodel = x\n", 'line 1: "" is not a model name'),
                        ("[" + "a" * 64 + "]\nmodel = x\n", "is not a model name"),
                        ("[a\nmodel = x\n", 'line 1: expected "[name]"'),
                        ("[a] x\nmodel = x\n", 'line 1: expected "[name]"'),
                        ("[a]\nmodel\n", 'line 2: expected "[name]" or "key = value"'),
                        ("[a]\nmodels = x\n", 'line 2: unknown key "models"; did you mean "model"?'),
                        ("[a]\nlisten = x\n", 'line 2: unknown key "listen"'),
                        ("[a]\nmodel = x\nmodel = y\n", "line 3: model is set twice in [a]"),
                        ("[a]\nmodel =\n", "line 2: model is empty in [a]"),
                        (many, "line 65: more than 32 models"), ("[a]\nmodel = x\0\n", "it is not text")):
        with open(path, "w") as f:
            f.write(text)
        run = subprocess.run([PROGRAM, "config", "check", "--models-file", path], capture_output=True, text=True)
        assert run.returncode == 2 and run.stderr.count("\n") == 1, (text, run)
        assert error in run.stderr and path[:100] in run.stderr, (text, run.stderr)
    with open(path, "w") as f:
        f.write("[a]\nmodel = x\n")
    for option in ("model", "lora", "lora-choices", "text-encoder"):
        run = subprocess.run([PROGRAM, "config", "check", "--models-file", path, f"--{option}", "x"],
                             capture_output=True, text=True)
        assert run.returncode == 2 and f"{option} cannot be set together with models-file" in run.stderr, run
    run = subprocess.run([PROGRAM, "config", "check", "--models-file", path + "x"], capture_output=True, text=True)
    assert run.returncode == 2, run
    run = subprocess.run([PROGRAM, "config", "check", "--models-file", path], capture_output=True, text=True)
    assert run.returncode == 0, run


def test_config_check_reads_the_models():
    """The only one, or each section; in the words with which the service would refuse it."""
    path = os.path.join(tempfile.mkdtemp(), "models")
    for text, names in (("[a]\nmodel = missing/1\n", ("[a]", "missing/1")),
                        ("[a]\nmodel = fake\n[b]\nmodel = missing/2\n[c]\nmodel = missing/3\n", ("[b]", "missing/2"))):
        with open(path, "w") as f:
            f.write(text)
        run = subprocess.run([PROGRAM, "config", "check", "--models-file", path], capture_output=True, text=True)
        want = f"imagend: models-file {path[:100]}: {names[0]}: there is no model in {names[1]}\n"
        assert (run.returncode, run.stderr, run.stdout) == (2, want, ""), run
        run = subprocess.run([PROGRAM, "config", "show", "--models-file", path], capture_output=True, text=True)
        assert run.returncode == 0, run
    run = subprocess.run([PROGRAM, "config", "check", "--model", "missing/4"], capture_output=True, text=True)
    assert (run.returncode, run.stderr, run.stdout) == (2, "imagend: there is no model in missing/4\n", ""), run


def test_one_model(s):
    """Without the file, the API has the same fields for the only model."""
    assert states(s) == {"fake": "loaded"}
    assert submit(s, "fake").status == 202
    answer = submit(s, "other")
    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found"), answer.body
    answer = s.post("/sdapi/v1/txt2img", {"prompt": "a", "width": 64,
                                          "override_settings": {"sd_model_checkpoint": "other"}})
    assert answer.status == 200, answer.body


def test_many_clients():
    """All models at once, in a memory that has room for one large one: nothing is lost or mixed up."""
    s = server()
    got = []

    def client(k):
        for i in range(6):
            model = ("photo", "draft", "tiny-1.0")[(i + k) % 3]
            got.append((model, s.draw(f"{k} {i}", model=model).json.get("model")))

    threads = [threading.Thread(target=client, args=[k]) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(got) == 36 and all(a == b for a, b in got), got
    s.close()


main(globals())
