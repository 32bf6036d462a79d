"""The subset of A1111's API, spoken as Open WebUI and SillyTavern speak it."""
import base64
import json
import threading

from harness import PATIENCE, Server, eventually, is_png, main


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


def test_errors_have_its_shape(s):
    a = s.post("/sdapi/v1/txt2img", {"prompt": "x", "sampler_name": "nope"})
    assert a.status == 404 and a.json["detail"] == "Sampler not found"
    a = s.post("/sdapi/v1/txt2img", {"prompt": "x", "steps": "many"})
    assert a.status == 422 and set(a.json) == {"error", "detail", "body", "errors"}
    assert s.post("/sdapi/v1/txt2img", {"prompt": "x", "width": 64, "height": 256}).status == 422
    assert s.post("/sdapi/v1/txt2img", {"prompt": "x", "width": 65, "height": 65}).status == 422
    assert s.post("/sdapi/v1/img2img", {"prompt": "x", "init_images": []}).status == 501
    assert s.post("/sdapi/v1/options", {"sd_model_checkpoint": "other"}).status == 404


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


main(globals())
