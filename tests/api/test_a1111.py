"""The subset of A1111's API, used as Open WebUI and SillyTavern use it."""
import base64
import json
import threading

from harness import PATIENCE, Server, eventually, is_png, main
from test_ops import bearer, keys_file, new_key


def test_as_open_webui(s):
    options = s.get("/sdapi/v1/options").json
    models = s.get("/sdapi/v1/sd-models").json
    assert options["sd_model_checkpoint"] == models[0]["title"] == models[0]["model_name"]
    assert s.post("/sdapi/v1/options", options).status == 200
    a = s.post("/sdapi/v1/txt2img", {"prompt": "a cat", "batch_size": 2, "width": 64, "height": 64,
                                     "steps": 4, "negative_prompt": "dog", "cfg_scale": 5.0,
                                     "scheduler": "Automatic"})
    assert a.status == 200
    assert len(a.json["images"]) == 2 and is_png(base64.b64decode(a.json["images"][0]), 64)
    info = json.loads(a.json["info"])
    assert info["prompt"] == "a cat" and info["steps"] == 4 and info["cfg_scale"] == 5
    assert len(info["infotexts"]) == 2 and info["width"] == 64
    assert a.json["parameters"]["batch_size"] == 2


def test_as_sillytavern(s):
    for path in ("options", "upscalers", "latent-upscale-modes", "sd-vae", "samplers", "schedulers",
                 "sd-models"):
        a = s.get("/sdapi/v1/" + path)
        assert a.status == 200, path
    assert s.post("/sdapi/v1/options", {"sd_model_checkpoint": "fake"}).status == 200
    p = s.get("/sdapi/v1/progress").json
    assert p["progress"] == 0 and p["state"]["job_count"] == 0
    sampler = s.get("/sdapi/v1/samplers").json[0]["name"]
    a = s.post("/sdapi/v1/txt2img", {
        "prompt": "x", "negative_prompt": "", "sampler_name": sampler, "scheduler": "automatic",
        "steps": 2, "cfg_scale": 7, "width": 64, "height": 64, "seed": -1, "restore_faces": False,
        "enable_hr": False, "hr_upscaler": "None", "hr_scale": 2, "denoising_strength": 0.7,
        "hr_second_pass_steps": 0, "override_settings": {"CLIP_stop_at_last_layers": 1,
                                                         "sd_vae": "None"},
        "override_settings_restore_afterwards": True, "clip_skip": 1, "save_images": True,
        "send_images": True, "do_not_save_grid": False, "do_not_save_samples": False})
    assert a.status == 200 and is_png(base64.b64decode(a.json["images"][0]))


def test_lists_that_front_ends_ask_for(s):
    for path, keys in (("upscalers", None), ("latent-upscale-modes", None), ("sd-vae", None),
                       ("sd-modules", None), ("loras", None), ("hypernetworks", None),
                       ("face-restorers", None), ("realesrgan-models", None), ("script-info", None),
                       ("prompt-styles", None), ("extensions", None), ("cmd-flags", set()),
                       ("embeddings", {"loaded", "skipped"}), ("scripts", {"txt2img", "img2img"}),
                       ("memory", {"ram", "cuda"})):
        a = s.get("/sdapi/v1/" + path)
        assert a.status == 200, path
        assert isinstance(a.json, list) if keys is None else set(a.json) == keys, (path, a.json)
        assert s.post("/sdapi/v1/" + path, {}).status == 405, path
    for path in ("refresh-checkpoints", "refresh-loras", "refresh-vae"):
        assert s.post("/sdapi/v1/" + path).json is None, path
    for path in ("", "lora", "upscalers/x", "img2text"):
        assert s.get("/sdapi/v1/" + path).status == 404, path


# The keys of Processed.js() of A1111 1.10.
INFO_KEYS = set("""prompt all_prompts negative_prompt all_negative_prompts seed all_seeds subseed
    all_subseeds subseed_strength width height sampler_name cfg_scale steps batch_size restore_faces
    face_restoration_model sd_model_name sd_model_hash sd_vae_name sd_vae_hash seed_resize_from_w
    seed_resize_from_h denoising_strength extra_generation_params index_of_first_image infotexts styles
    job_timestamp clip_skip is_using_inpainting_conditioning""".split())


def test_info_has_every_key_of_a1111(s):
    for n in (1, 3):
        info = json.loads(txt2img(s, batch_size=n, negative_prompt="dog").json["info"])
        assert INFO_KEYS <= set(info), INFO_KEYS - set(info)
        for key in INFO_KEYS:
            if key.startswith("all_") or key == "infotexts":
                assert len(info[key]) == n, key
        assert info["all_negative_prompts"][0] == info["negative_prompt"] == "dog"


def test_errors_have_its_shape(s):
    a = s.post("/sdapi/v1/txt2img", {"prompt": "x", "sampler_name": "nope"})
    assert a.status == 404 and a.json["detail"] == "Sampler not found"
    a = s.post("/sdapi/v1/txt2img", {"prompt": "x", "steps": "many"})
    assert a.status == 422 and set(a.json) == {"error", "detail", "body", "errors"}
    assert s.post("/sdapi/v1/txt2img", {"prompt": "x", "width": 64, "height": 1025}).status == 422
    assert s.post("/sdapi/v1/txt2img", {"prompt": "x", "width": 0, "height": 64}).status == 422
    assert s.post("/sdapi/v1/options", {"sd_model_checkpoint": "other"}).status == 404


def txt2img(s, **fields):
    return s.post("/sdapi/v1/txt2img", {"prompt": "x", "width": 64, "height": 64, "steps": 2,
                                        "seed": 1, **fields})


# sampler, scheduler: what draws (label, schedule, engine's name), what could not be had.
SAMPLERS = (
    (None, None, "DDPM", None, None),
    ("", "", "DDPM", None, None),
    ("Automatic", "Automatic", "DDPM", None, None),
    ("ddpm", None, "DDPM", None, None),
    ("DDIM", None, "DDIM", None, None),
    ("ddim", "automatic", "DDIM", None, None),
    (" D D I M ", None, "DDIM", None, None),
    ("DPM++ 2M", None, "DPM++ 2M", None, None),
    ("dpm++ 2m", "uniform", "DPM++ 2M", None, None),
    ("k_dpmpp_2m", None, "DPM++ 2M", None, None),
    ("DPM++ 2M Karras", None, "DPM++ 2M", "Karras", None),
    ("DPM++ 2M Karras", "Automatic", "DPM++ 2M", "Karras", None),
    ("dpm++2mkarras", None, "DPM++ 2M", "Karras", None),
    ("k_dpmpp_2m_ka", None, "DPM++ 2M", "Karras", None),
    ("dpm++2m-karras", None, "DPM++ 2M", "Karras", None),
    ("DPM++ 2M", "Karras", "DPM++ 2M", "Karras", None),
    ("dpm++2m", "karras", "DPM++ 2M", "Karras", None),
    ("DPM++ 3M", "KARRAS", "DPM++ 3M", "Karras", None),
    ("DPM++ 2M SDE", None, "DPM++ 2M SDE", None, None),
    ("DPM++ 2M SDE Karras", None, "DPM++ 2M SDE", "Karras", None),
    ("dpm++sde", None, "DPM++ 2M SDE", None, None),
    # Samplers and schedulers that A1111 has and the engine lacks.
    ("Euler a", None, "DDPM", None, ("sampler", "Euler a")),
    ("euler A", "Karras", "DDPM", None, ("sampler", "Euler a")),
    ("k_euler", None, "DDPM", None, ("sampler", "Euler")),
    ("DPM++ SDE", None, "DDPM", None, ("sampler", "DPM++ SDE")),
    ("DPM++ SDE Karras", None, "DDPM", None, ("sampler", "DPM++ SDE")),
    ("DPM++ 3M SDE Exponential", None, "DDPM", None, ("sampler", "DPM++ 3M SDE")),
    ("UniPC", None, "DDPM", None, ("sampler", "UniPC")),
    ("LCM", "sgm_uniform", "DDPM", None, ("sampler", "LCM")),
    ("DPM++ 2M", "SGM Uniform", "DPM++ 2M", None, ("schedule type", "SGM Uniform")),
    ("DPM++ 2M Exponential", None, "DPM++ 2M", None, ("schedule type", "Exponential")),
    ("DPM++ 2M", "my own, \"x\"", "DPM++ 2M", None, ("schedule type", "my own, \"x\"")),
    ("DDIM", "Karras", "DDIM", None, ("schedule type", "Karras")),
    (None, "Karras", "DDPM", None, ("schedule type", "Karras")),
    (None, "normal", "DDPM", None, ("schedule type", "Normal")),
)


def test_names_of_samplers_and_schedulers(s):
    for sampler, scheduler, label, schedule, missing in SAMPLERS:
        what = (sampler, scheduler)
        for field in ("sampler_name", "sampler_index"):
            a = txt2img(s, **{field: sampler, "scheduler": scheduler})
            assert a.status == 200, (what, a.body)
            info = json.loads(a.json["info"])
            assert info["sampler_name"] == label, (what, info)
            text = info["infotexts"][0]
            assert f"Sampler: {label}, " in text, (what, text)
            assert ("Schedule type: Karras" in text) == (schedule == "Karras"), (what, text)
            if not missing:
                assert info["extra_generation_params"] == {} and info["comments"] == "", (what, info)
                assert "Requested" not in text, (what, text)
                continue
            kind, name = missing
            assert info["extra_generation_params"] == {"Requested " + kind: name}, (what, info)
            assert "not available" in info["comments"] and name in info["comments"], (what, info)
            assert f"Requested {kind}: " in text, (what, text)
    for name in ("nope", "Karras", "DPM++ 2M nope", "Euler b", "++", "-", "x" * 64, "\u00e9"):
        a = txt2img(s, sampler_name=name)
        assert a.status == 404 and a.json["detail"] == "Sampler not found", (name, a.body)


def test_a_named_sampler_reaches_the_engine(s):
    """Another sampler draws another image, and one that is lacking draws the model's own."""
    names = ("DDPM", "DDIM", "DPM++ 2M", "DPM++ 2M Karras", "DPM++ 2M SDE", "Euler a", None)
    images = [txt2img(s, sampler_name=name).json["images"][0] for name in names]
    assert len(set(images)) == 5 and images[0] == images[5] == images[6]


def test_lists_hold_what_can_be_drawn(s):
    samplers = s.get("/sdapi/v1/samplers").json
    assert [x["name"] for x in samplers] == ["DDPM", "DDIM", "DPM++ 2M", "DPM++ 3M", "DPM++ 2M SDE"]
    assert samplers[2] == {"name": "DPM++ 2M", "options": {},
                           "aliases": ["k_dpmpp_2m", "dpm++2m", "dpm++2m-karras"]}
    for name in [x["name"] for x in samplers] + [a for x in samplers for a in x["aliases"]]:
        assert json.loads(txt2img(s, sampler_name=name).json["info"])["comments"] == "", name
    schedulers = s.get("/sdapi/v1/schedulers").json
    assert [x["name"] for x in schedulers] == ["automatic", "uniform", "karras"]
    for x in schedulers:
        assert set(x) == {"name", "label", "aliases", "default_rho", "need_inner_model"}
        for name in (x["name"], x["label"]):
            a = txt2img(s, sampler_name="DPM++ 2M", scheduler=name)
            assert json.loads(a.json["info"])["comments"] == "", name


# Field and value as clients send them; what the response's info says, or None: refused.
COERCED = (
    ("steps", "7", ("steps", 7)), ("steps", 7.0, ("steps", 7)), ("steps", " 7 ", ("steps", 7)),
    ("steps", "7.0", ("steps", 7)), ("steps", True, ("steps", 1)), ("steps", None, ("steps", 8)),
    ("steps", 7.5, None), ("steps", "7.5", None), ("steps", "", None), ("steps", " ", None),
    ("steps", "many", None), ("steps", "0x7", None), ("steps", "inf", None), ("steps", [7], None),
    ("steps", {}, None), ("steps", 0, None), ("steps", "0", None), ("steps", False, None),
    ("steps", "1e2", ("steps", 100)), ("steps", "99999999999999999999", None),
    ("steps", 1e300, None), ("steps", "7\0", None), ("steps", "7" * 70, None),
    ("width", "64", ("width", 64)), ("width", 64.0, ("width", 64)), ("height", "64.0", ("height", 64)),
    ("seed", "5", ("seed", 5)), ("seed", 5.0, ("seed", 5)), ("seed", "5.0", ("seed", 5)),
    ("seed", 9223372036854775807, ("seed", 9223372036854775807)),
    ("seed", "9223372036854775807", ("seed", 9223372036854775807)),
    ("seed", "9007199254740993", ("seed", 9007199254740993)),
    ("seed", 1e30, None), ("seed", "9223372036854775808", None), ("seed", -2, None),
    ("seed", 0.5, None), ("seed", "x", None),
    ("cfg_scale", "7", ("cfg_scale", 7)), ("cfg_scale", "7.5", ("cfg_scale", 7.5)),
    ("cfg_scale", 0, ("cfg_scale", 1)), ("cfg_scale", 0.0, ("cfg_scale", 1)),
    ("cfg_scale", "0", ("cfg_scale", 1)), ("cfg_scale", 0.5, ("cfg_scale", 1)),
    ("cfg_scale", 1, ("cfg_scale", 1)), ("cfg_scale", None, ("cfg_scale", 7)),
    ("cfg_scale", -1, None), ("cfg_scale", 101, None), ("cfg_scale", "nan", None),
    ("cfg_scale", "inf", None), ("cfg_scale", "high", None), ("cfg_scale", "7,5", None),
    ("batch_size", "2", ("batch_size", 2)), ("n_iter", 2.0, ("batch_size", 2)),
    ("batch_size", 0, None), ("send_images", "yes", ("batch_size", 1)),
    ("send_images", 1, ("batch_size", 1)), ("send_images", 2, None), ("send_images", "maybe", None),
)


def test_numbers_are_coerced_as_pydantic_does(s):
    for field, value, want in COERCED:
        a = txt2img(s, **{field: value})
        what = (field, value, a.body[:300])
        if want is None:
            assert a.status == 422 and f'"{field}"' in a.json["detail"], what
            continue
        assert a.status == 200, what
        assert json.loads(a.json["info"])[want[0]] == want[1], what
        assert a.json["parameters"][field] == value, what
    for value in (-1, -1.0, "-1", "-1.0", None):
        seeds = {json.loads(txt2img(s, seed=value).json["info"])["seed"] for _ in range(2)}
        assert len(seeds) == 2 and min(seeds) >= 0, (value, seeds)
    for value in (False, "False", "no", 0, "0", 0.0, "off", "N"):
        assert txt2img(s, send_images=value).json["images"] == [], value
    for value, status in (("False", 200), ("false", 200), ("True", 200), ("0", 200), ("1", 200),
                          ("no", 200), ("on", 200), ("", 422), ("2", 422), ("perhaps", 422)):
        a = s.get("/sdapi/v1/progress?skip_current_image=" + value)
        assert a.status == status, (value, a.body)


def test_other_apis_stay_strict(s):
    for field, value in (("n", "1"), ("n", 1.0), ("steps", "4"), ("seed", "1"), ("stream", "no")):
        assert s.draw(**{field: value}).status == 400, (field, value)


def test_progress_and_interrupt():
    s = Server(env={"FAKE_STEP_MS": "10"})
    try:
        answers = []
        thread = threading.Thread(target=lambda: answers.append(
            s.post("/sdapi/v1/txt2img", {"prompt": "x", "width": 64, "height": 64, "steps": 500})))
        with s.held(60):  # a little after the first of eight previews
            thread.start()
            p = eventually(lambda: (lambda p: p if p["current_image"] else None)(
                s.get("/sdapi/v1/progress").json), what="a picture in progress")
            assert 0 < p["progress"] < 1 and p["state"]["job_count"] == 1
            assert p["state"]["sampling_steps"] == 500
            assert is_png(base64.b64decode(p["current_image"]))
            skipped = s.get("/sdapi/v1/progress?skip_current_image=true").json
            assert skipped["current_image"] is None
            assert s.post("/sdapi/v1/interrupt").json == {}
            thread.join(PATIENCE)
        assert answers and answers[0].status == 410
        assert s.post("/sdapi/v1/skip", {}).json == {}
    finally:
        assert s.close() == 0


# Who asks to stop: address and key of each. Two drawings run, the first one older; what is stopped
# by the first request and by the second: 0, 1, or None.
HERE, THERE = "127.0.0.1", "127.0.0.2"
INTERRUPTS = (
    # without keys, the address is the client
    ([(HERE, None), (THERE, None)], (HERE, None), 0, None),
    ([(HERE, None), (THERE, None)], (THERE, None), 1, None),
    ([(HERE, None), (HERE, None)], (THERE, None), None, None),
    ([(HERE, None), (HERE, None)], (HERE, None), 0, 1),
    # with keys, the key is, and its address comes first
    ([(HERE, "a"), (HERE, "b")], (HERE, "b"), 1, None),
    ([(HERE, "a"), (HERE, "b")], (HERE, "a"), 0, None),
    ([(HERE, "a"), (THERE, "a")], (THERE, "a"), 1, 0),
    ([(HERE, "a"), (THERE, "a")], (HERE, "a"), 0, 1),
    ([(HERE, "a"), (THERE, "b")], (HERE, "b"), 1, None),
    ([(HERE, "a"), (HERE, "a")], (THERE, "b"), None, None),
)


def server_with_keys():
    made = {name: new_key(name, scopes) for name, scopes in
            (("a", "generate,read"), ("b", "generate,read"), ("admin", "admin"))}
    s = Server("--keys-file", keys_file(*(line for _, line in made.values())))
    return s, {name: key for name, (key, _) in made.items()}


def stop_others(s, keys, owners, caller, wanted, route):
    def call(method, path, who, body=None):
        headers = bearer(keys[who[1]]) if who[1] else {}
        return s.request(method, "/sdapi/v1/" + path, body, headers, who[0])
    answers = [None, None]

    def draw(i):
        answers[i] = call("POST", "txt2img", owners[i], {"prompt": "x", "width": 64, "height": 64,
                                                         "seed": i})
    threads = [threading.Thread(target=draw, args=(i,)) for i in range(2)]

    def running():
        return [int(x.split()[1]) for x in s.get("/metrics", **bearer(keys["admin"]))
                .body.decode().splitlines() if x.startswith("imagend_running_")][0]
    with s.held():
        for i, thread in enumerate(threads):
            thread.start()
            eventually(lambda: running() == i + 1, what="a drawing in a slot")
        stopped = []
        for expected in wanted:
            mine = call("GET", "progress?skip_current_image=true", caller).json
            assert mine["state"]["job_count"] == (expected is not None), (owners, caller, mine)
            assert call("POST", route, caller, {}).json == {}
            if expected is not None:
                stopped.append(expected)
                threads[expected].join(PATIENCE)
                assert answers[expected].status == 410, (owners, caller, answers[expected].body)
    for thread in threads:
        thread.join(PATIENCE)
    for i in range(2):
        assert answers[i].status == (410 if i in stopped else 200), (owners, caller, i)


def test_interrupt_stops_own_drawings_only():
    for with_keys in (False, True):
        s, keys = server_with_keys() if with_keys else (Server(), {"admin": "none"})
        try:
            for i, (owners, caller, *wanted) in enumerate(INTERRUPTS):
                if bool(caller[1]) == with_keys:
                    stop_others(s, keys, owners, caller, wanted, ("interrupt", "skip")[i % 2])
        finally:
            assert s.close() == 0


main(globals())
