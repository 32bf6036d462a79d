"""The service with the real engine and a tiny model: the same responses, real images."""
import base64
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile

from harness import PROGRAM, Server, b64, eventually, is_png, main

MODEL = sys.argv[2]
del sys.argv[2]


def serve(*flags, model=MODEL, env=None):
    s = Server("--model", model, *flags, env=env, start=False)
    s.start(ready=False)
    try:
        s.wait_ready(240)
    except RuntimeError:
        s.stop()
        raise
    return s


def test_draws_streams_cancels_and_repeats():
    s = serve()
    try:
        labels, _ = info(s)
        assert labels["dtype"] == ("f32" if re.search("llvmpipe|SwiftShader", labels["device"]) else "f16"), labels
        size = s.get("/v1/capabilities").json["sizes"][0]
        body = {"prompt": "a red sphere", "size": f"{size}x{size}", "seed": 1, "steps": 3}
        first = s.post("/v1/images/generations", body)
        assert first.status == 200 and is_png(b64(first), size), first.body[:300]
        assert b"a red sphere" in b64(first), "the prompt is in the file"
        tokens = [s.post("/v1/images/generations", {**body, "prompt": p}).json["usage"][
            "input_tokens"] for p in ("a", "a red sphere", "a red sphere " * 100)]
        assert 2 <= tokens[0] < tokens[1] < tokens[2] == 77, tokens
        # Alone and in company, the same bits.
        jobs = [s.post("/v1/jobs", {"prompt": "a red sphere", "size": size, "seed": 1, "steps": 3,
                                    "n": n}).json["id"] for n in (1, 3, 2)]
        for job in jobs:
            j = s.wait_job(job, 120)
            assert j["status"] == "done", j
            assert s.get(j["images"][0]["href"]).body == b64(first)
        # One of several is drawn again by what its entry says.
        several = s.post("/v1/images/generations", {**body, "n": 4})
        entry = several.json["data"][2]
        again = s.post("/v1/images/generations",
                       {**body, "seed": entry["seed"], "picture": entry["picture"]})
        assert b64(again) == b64(several, 2) and b64(again) != b64(first)
        small = s.post("/v1/images/generations", {**body, "size": f"{size - 3}x{size // 2}"})
        assert struct.unpack(">II", b64(small)[16:24]) == (size - 3, size // 2)
        long = s.post("/v1/images/generations", {**body, "prompt": "a red sphere " * 100}).json
        assert "reads only the first 77;" in long["warnings"][0], long["warnings"]
        frames = list(s.events("POST", "/v1/images/generations",
                               {**body, "steps": 8, "stream": True, "partial_images": 2}))
        names = [f[0].split(".")[-1] for f in frames]
        assert names == ["partial_image"] * 2 + ["completed"], names
        assert is_png(base64.b64decode(frames[0][2]["b64_json"]))
        # Long enough to be still running at the next line, however late that comes.
        job = s.post("/v1/jobs", {"prompt": "long", "size": size, "steps": 1000, "n": 16}).json["id"]
        eventually(lambda: s.get("/v1/jobs/" + job).json["status"] == "running", 120)
        assert s.delete("/v1/jobs/" + job).json["status"] == "cancelled"
        eventually(lambda: s.get("/v1/capabilities").json["running"] == 0, 120, "a free slot")
        a = s.post("/v1/images/generations", {**body, "sampler": "none"})
        assert a.status == 400 and a.json["error"]["param"] == "sampler", a.body
        a = s.post("/v1/images/generations", {**body, "size": "65x65"})
        assert a.status == 400 and a.json["error"]["param"] == "size", a.body
        assert "imagend_device_memory_bytes " in s.get("/metrics").body.decode()
    finally:
        code = s.stop()
        assert code == 0, (code, s.log[-2000:])


def pixels(png):
    """The image data of a base64 PNG, compressed, without what is written about it."""
    data, at, found = base64.b64decode(png), 8, b""
    while at < len(data):
        size, kind = int.from_bytes(data[at:at + 4], "big"), data[at + 4:at + 8]
        found += data[at + 8:at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    return found


def test_a1111_names_choose_the_sampler():
    s = serve()
    try:
        size = s.get("/v1/capabilities").json["sizes"][0]
        body = {"prompt": "a red sphere", "width": size, "height": size, "seed": 1, "steps": 12}

        def draw(**fields):
            a = s.post("/sdapi/v1/txt2img", {**body, **fields})
            assert a.status == 200, (fields, a.body[:300])
            return pixels(a.json["images"][0]), json.loads(a.json["info"])
        own, info = draw()
        names = [x["name"] for x in s.get("/sdapi/v1/samplers").json]
        assert info["sampler_name"] in names and {"DDPM", "DDIM", "DPM++ 2M"} <= set(names), names
        drawn = {}
        for name in names:
            image, info = draw(sampler_name=name)
            assert info["sampler_name"] == name and info["comments"] == "", info
            drawn[image] = name
        assert sorted(drawn.values()) == sorted(names)
        karras, info = draw(sampler_name="DPM++ 2M Karras")
        assert karras not in drawn and "Schedule type: Karras" in info["infotexts"][0]
        assert draw(sampler_name="dpm++ 2m", scheduler="karras")[0] == karras
        assert draw(sampler_name="DPM++ 2M")[0] == draw(sampler_name="dpm++2m")[0] != karras
        image, info = draw(sampler_name="Euler a")
        assert image == own and "Euler a is not available" in info["comments"], info
        # Without guidance the negative prompt changes nothing.
        one = draw(cfg_scale=1)[0]
        for scale in (0, 0.5, "0", 1.0):
            assert draw(cfg_scale=scale, negative_prompt="blue")[0] == one != own, scale
        assert draw(cfg_scale=2)[0] != draw(cfg_scale=2, negative_prompt="blue")[0]
    finally:
        assert s.stop() == 0


def test_presets_are_in_the_file():
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(MODEL, os.path.join(folder, "base"))
        with open(os.path.join(folder, "cascade.json"), "w") as f:
            json.dump({"stages": [{"path": "base", "steps": 4}],
                       "presets": {"fast": {"stages": [{"sampler": "ddim", "steps": 2}]}}}, f)
        s = serve(model=folder)
        try:
            a = s.post("/v1/images/generations", {"prompt": "a", "seed": 1, "quality": "low"})
            png = b64(a)
            for chunk in (b"preset\0fast", b"sampler\0ddim", b"steps\x002", b"Preset: fast"):
                assert chunk in png, chunk
            a = s.post("/v1/images/generations", {"prompt": "a", "seed": 1})
            assert b"preset\0" not in b64(a) and b"steps\x004" in b64(a) and b64(a) != png
            a = s.post("/v1/jobs", {"prompt": "a", "preset": "slow"})
            assert a.status == 400 and a.json["error"]["param"] == "preset", a.body
        finally:
            assert s.stop() == 0


def write_lora(path, seed):
    """Of rank 2, for one layer of the model."""
    with open(os.path.join(MODEL, "unet/diffusion_pytorch_model.safetensors"), "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    layer = "mid_block.attentions.0.to_q"
    rows, columns = header[layer + ".weight"]["shape"]
    random_ = random.Random(seed)
    data = struct.pack("<%df" % (2 * (rows + columns)), *(random_.gauss(0, 1) for _ in range(2 * (rows + columns))))
    text = json.dumps({f"unet.{layer}.lora_A.weight": {"dtype": "F32", "shape": [2, columns], "data_offsets": [0, 8 * columns]},
                       f"unet.{layer}.lora_B.weight": {"dtype": "F32", "shape": [rows, 2],
                                                       "data_offsets": [8 * columns, len(data)]}}).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def test_requests_choose_loras():
    """Images that name LoRAs are those of a service that applies these, also when they arrive together."""
    with tempfile.TemporaryDirectory() as folder:
        fox, dog = (os.path.join(folder, name + ".safetensors") for name in ("fox", "dog"))
        write_lora(fox, 1)
        write_lora(dog, 2)
        body = {"prompt": "a red sphere", "seed": 5, "steps": 3}
        rows = ((None, ("--lora", fox + ":0.5")), ([], ()), ([{"name": "dog", "scale": 0.7}], ("--lora", dog + ":0.7")),
                (["dog", "fox:-1"], ("--lora", dog + "," + fox + ":-1")))
        want = []
        for _, flags in rows:
            s = serve(*flags)
            want.append(pixels(s.draw(size="auto", **body).json["data"][0]["b64_json"]))
            s.close()
        assert len(set(want)) == len(rows)
        s = serve("--lora", fox + ":0.5", "--lora-choices", dog)
        jobs = [(i, s.post("/v1/jobs", {**body, "loras": rows[i][0]}).json["id"]) for i in (0, 1, 2, 3, 2, 1, 0, 3, 1)]
        for i, job in jobs:
            j = s.wait_job(job, 240)
            assert j["status"] == "done", j
            assert pixels(base64.b64encode(s.get(j["images"][0]["href"]).body)) == want[i], rows[i]
        a = s.post("/sdapi/v1/txt2img", {**body, "prompt": "a <lora:dog:0.7> red sphere"})
        assert pixels(a.json["images"][0]) == want[2], a.body[:300]
        # A file that has gone is said to be missing, without its folder.
        os.unlink(dog)
        a = s.draw(size="auto", loras=["dog:0.1"], **body)
        message = a.json["error"]["message"]
        assert a.status == 500 and "dog.safetensors" in message and folder not in message, a.body
        assert pixels(s.draw(size="auto", **body).json["data"][0]["b64_json"]) == want[0]
        s.close()


def test_weights_that_are_not_finite():
    with tempfile.TemporaryDirectory() as folder:
        bad = os.path.join(folder, "bad")
        shutil.copytree(MODEL, bad, ignore=shutil.ignore_patterns("reference*"))
        os.symlink(MODEL, os.path.join(folder, "base"))
        path = os.path.join(bad, "unet/diffusion_pytorch_model.safetensors")
        with open(path, "r+b") as f:
            head = 8 + struct.unpack("<Q", f.read(8))[0]
            begin, end = json.loads(f.read(head - 8))["conv_in.bias"]["data_offsets"]
            f.seek(head + begin)
            f.write(struct.pack("<e", float("nan")) * ((end - begin) // 2))
        with open(os.path.join(folder, "cascade.json"), "w") as f:
            json.dump({"stages": [{"path": "base", "steps": 3}],
                       "presets": {"fast": {"stages": [{"path": "bad"}]}}}, f)
        s = serve(model=folder)
        try:
            job = {"prompt": "a", "seed": 1, "n": 2}
            alone = s.wait_job(s.post("/v1/jobs", job).json["id"], 120)
            # Beside pictures that fail, the same bits.
            failing = s.post("/v1/jobs", {**job, "preset": "fast"}).json["id"]
            beside = s.wait_job(s.post("/v1/jobs", job).json["id"], 120)
            for i in range(2):
                assert s.get(beside["images"][i]["href"]).body == s.get(
                    alone["images"][i]["href"]).body
            j = s.wait_job(failing, 120)
            assert j["status"] == "failed" and j["error"]["code"] == "not_finite", j
            assert "stage 1 (bad) computed NaN or infinity in step 1 of 3" in j["error"]["message"], j
            a = s.post("/v1/images/generations", {"prompt": "a", "quality": "low"})
            assert a.status == 500 and a.json["error"]["code"] == "not_finite", a.body
            metrics = s.get("/metrics").body.decode()
            assert 'imagend_pictures_failed_total{code="not_finite"} ' in metrics, metrics
        finally:
            assert s.stop() == 0


def info(s):
    """The labels of the loaded model, and the number of slots."""
    text = s.get("/metrics").body.decode()
    labels = dict(re.findall(r'(\w+)="([^"]*)"', re.search("imagend_model_info{(.*)} 1", text).group(1)))
    return labels, int(re.search(r"^imagend_slots (\d+)$", text, re.M).group(1))


def test_trace():
    """--trace: uploads, stages, steps and forward passes, each inside what it is a part of."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.json")
        done = subprocess.run([PROGRAM, "generate", "a cat", "--model", MODEL, "--steps", "3", "-o",
                               os.path.join(folder, "a.png"), "--trace", path],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with open(path) as f:
            spans = json.load(f)["traceEvents"]
        by = {name: [s for s in spans if s["name"] == name] for name in ("upload", "stage", "step", "forward")}
        assert sum(map(len, by.values())) == len(spans)
        assert len(by["upload"]) == 2 and len(by["stage"]) == 1 and len(by["step"]) == 3, by
        text = [s for s in by["forward"] if s["args"]["of"] == "text encoder"]
        assert text and len(by["forward"]) == 3 + len(text), by["forward"]

        def inside(a, b):
            return b["ts"] <= a["ts"] + 1 and a["ts"] + a["dur"] <= b["ts"] + b["dur"] + 1
        for forward in by["forward"]:
            assert forward in text or any(inside(forward, s) for s in by["step"]), forward
        assert all(inside(s, by["stage"][0]) for s in by["step"])
        bad = subprocess.run([PROGRAM, "generate", "a cat", "--model", MODEL, "--trace", folder],
                             capture_output=True, text=True)
        assert bad.returncode == 1 and "cannot write the trace" in bad.stderr, bad


def test_trace_of_the_service():
    """The option trace: a request contains the wait of its job and the image's stage, and the file is complete after
    SIGTERM."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.json")
        s = serve("--trace", path)
        drawn = s.post("/v1/images/generations", {"prompt": "a cat", "steps": 3, "n": 2}, X_Request_Id="traced")
        assert drawn.status == 200, drawn.body[:300]
        s.close()
        with open(path) as f:
            events = json.load(f)["traceEvents"]
        names = {e["name"] for e in events}
        assert names == {"upload", "request", "queue", "stage", "step", "forward"}, names
        ends = {}
        for e in events:
            if e["ph"] in "be":
                ends.setdefault((e["cat"], e["id"]), []).append(e)
        assert all([b["ph"], e["ph"]] == ["b", "e"] and b["ts"] <= e["ts"] for b, e in ends.values()), ends
        request = next(v for v in ends.values() if "POST /v1/images/generations, 200, traced" in str(v))
        waits = [v for (cat, _), v in ends.items() if cat == "queue"]
        stages = [e for e in events if e["name"] == "stage"]
        assert len(waits) == 1 and len(stages) == 2, (waits, stages)
        assert request[0]["ts"] - 2000 <= waits[0][0]["ts"] <= waits[0][1]["ts"] <= request[1]["ts"], (request, waits)
        assert all(request[0]["ts"] < e["ts"] and e["ts"] + e["dur"] < request[1]["ts"] for e in stages)
        bad = subprocess.run([PROGRAM, "serve", "--model", MODEL, "--trace", folder, "--store", "memory"],
                             capture_output=True, text=True)
        assert bad.returncode == 1 and "cannot write the trace" in bad.stderr, bad


def test_options_reach_the_engine():
    """Each option of the engine, by what can be seen of it from outside."""
    with tempfile.TemporaryDirectory() as folder:
        model, cache = os.path.join(folder, "tiny"), os.path.join(folder, "cache")
        shutil.copytree(MODEL, model, ignore=shutil.ignore_patterns("reference*"))
        weights = os.path.join(model, "unet/diffusion_pytorch_model")
        os.rename(weights + ".safetensors", weights + ".fp16.safetensors")
        with open(weights + ".safetensors", "wb") as f:
            f.write(b"these are not the weights")
        # Shaders that this machine has compiled before need not be compiled again.
        user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        env = {"MESA_SHADER_CACHE_DIR": os.path.join(user, "imagend", "mesa")}
        # Two workers on one device have twice the slots.
        s = serve("--variant", "fp16", "--device", "0,0", "--dtype", "f16", "--slots", "3",
                  "--weights", "q8", "--tune", "on", "--cache-dir", cache, model=model, env=env)
        try:
            eventually(lambda: info(s)[1] == 6, 120, "two workers of three slots")
            labels, _ = info(s)
            assert (labels["model"], labels["dtype"]) == ("tiny", "f16"), labels
            devices = subprocess.run([PROGRAM, "devices"], capture_output=True, text=True).stdout
            assert devices.startswith("0") and labels["device"] in devices.splitlines()[0], devices
            assert "no fp16 weights in the text encoder" in s.log, s.log
            assert s.post("/v1/images/generations", {"prompt": "a", "steps": 1}).status == 200
        finally:
            assert s.stop() == 0
        saved = [n for n in os.listdir(cache) if n.startswith("pipelines-") and n.endswith(".bin")]
        assert len(saved) == 1 and os.path.getsize(os.path.join(cache, saved[0])), os.listdir(cache)
        assert [n for n in os.listdir(cache) if n.startswith("kernels-")], os.listdir(cache)
    # What can never work ends the program; a device may come back.
    for flags, says, leaves in (
            (("--device", "no such device"), 'no Vulkan device matches "no such device"', False),
            (("--memory-limit", "64K"), "raise memory-limit", True),
            (("--weights", "q5"), '"q5" is not f32, f16, bf16, q8 or q4', True),
            (("--tune", "often"), '"often" is not auto, on or off', True),
            (("--dtype", "f64"), "f64", True)):
        s = Server("--model", MODEL, *flags, start=False)
        try:
            s.start(ready=False)
        except RuntimeError as e:  # it left before its port was read
            assert leaves and says in str(e), e
            continue
        try:
            eventually(lambda: says in s.log, 120, says)
            if leaves:
                assert s.process.wait(60) == 1
            else:
                assert s.get("/readyz").status == 503
        finally:
            s.stop()


def test_two_models_in_the_memory_of_one():
    """The least recently used one is released, and images are those of a process that has the model alone."""
    both = MODEL + "," + MODEL + "I"
    flags = {"base": ["--model", MODEL], "large": ["--model", both],
             "packed": ["--model", MODEL, "--weights", "q8"]}
    limit = 38 << 20  # large alone needs 34 MB, base 11, packed 8
    body = {"prompt": "a red sphere", "seed": 3, "steps": 2, "size": "auto"}
    alone = {}
    for name, own in flags.items():
        s = serve(*own[2:], model=own[1])
        alone[name] = pixels(s.draw(**body).json["data"][0]["b64_json"])
        s.close()
    assert len(set(alone.values())) == 3
    path = os.path.join(tempfile.mkdtemp(), "models")
    with open(path, "w") as f:
        f.write(f"[base]\nmodel = {MODEL}\n[large]\nmodel = {both}\n[packed]\nmodel = {MODEL}\nweights = q8\n")
    s = Server("--models-file", path, "--memory-limit", str(limit), start=False)
    s.start(ready=False)
    s.wait_ready(240)
    for name, loaded in (("base", "base"), ("packed", "base packed"), ("large", "large"), ("base", "base"),
                         ("packed", "base packed")):
        answer = s.draw(model=name, **body)
        assert answer.status == 200 and answer.json["model"] == name, answer.body[:300]
        image = answer.json["data"][0]["b64_json"]
        assert pixels(image) == alone[name], name
        assert f"Model: {name},".encode() in base64.b64decode(image)
        states = {m["id"]: m["state"] for m in s.get("/v1/models").json["data"]}
        assert [m for m in states if states[m] == "loaded"] == loaded.split(), (name, states)
        text = s.get("/metrics").body.decode()
        peak = float(re.search(r"^imagend_device_memory_peak_bytes (\S+)$", text, re.M)[1])
        assert 8 << 20 < peak <= limit, peak
    # A shape that needs more than squares, beside another model.
    wide = {**body, "size": "24x16"}
    assert s.draw(model="base", **wide).status == 200
    s.close()


def test_a_model_that_is_not_there():
    r = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--store", "memory", "--model",
                        "/nowhere"], capture_output=True, text=True, timeout=120)
    assert r.returncode == 1 and "\nimagend: model folder \"/nowhere\" does not exist" in r.stderr, r


main(globals())
