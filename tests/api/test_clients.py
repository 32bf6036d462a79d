"""The requests that widespread clients send with their default settings, as in their sources, and
the parts of the response that they read."""
import base64
import json
import struct

from harness import Server, main


def png_size(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:20]
    return struct.unpack(">II", data[16:24])


def read_b64(s, a):
    return [base64.b64decode(x["b64_json"]) for x in a.json["data"]]


def read_url(s, a, **headers):
    """By a client that downloads each url, some with the headers of their request."""
    found = []
    for item in a.json["data"]:
        path = item["url"][item["url"].index("/", 8):]
        file = s.request("GET", path, headers=headers)
        assert file.status == 200 and file.headers["content-type"].split("/")[0] == "image"
        found.append(file.body)
    return found


def read_a1111(s, a):
    assert isinstance(a.json["info"], str) and isinstance(a.json["parameters"], dict)
    info = json.loads(a.json["info"])
    assert len(info["infotexts"]) == len(info["all_seeds"]) == len(a.json["images"])
    return [base64.b64decode(x) for x in a.json["images"]]


GENERATE, TXT2IMG = "/v1/images/generations", "/sdapi/v1/txt2img"
PROMPT = "a painting of a cat"
# Client: path, headers, body, how it reads the images, how many and of what size.
REQUESTS = {
    "Open WebUI, OpenAI": (
        GENERATE, {"Authorization": "Bearer "},
        {"model": "dall-e-2", "prompt": PROMPT, "n": 1, "size": "512x512",
         "response_format": "b64_json"}, read_b64, 1, (512, 512)),
    "Open WebUI, OpenAI, gpt-image": (
        GENERATE, {"Authorization": "Bearer "},
        {"model": "gpt-image-1", "prompt": PROMPT, "n": 1, "size": "auto"}, read_b64, 1, (1024, 1024)),
    "Open WebUI, Azure's version": (
        GENERATE + "?api-version=2024-02-01", {"Authorization": "Bearer "},
        {"model": "dall-e-3", "prompt": PROMPT, "n": 1, "size": "512x512"}, read_url, 1, (512, 512)),
    "Open WebUI, A1111": (
        TXT2IMG, {"Authorization": ""},
        {"prompt": PROMPT, "batch_size": 1, "width": 512, "height": 512, "steps": 50},
        read_a1111, 1, (512, 512)),
    "Open WebUI, A1111 with parameters": (
        TXT2IMG, {"Authorization": "Basic dTpw"},
        {"prompt": PROMPT, "batch_size": 2, "width": 512, "height": 768, "steps": 20,
         "negative_prompt": "blurry", "cfg_scale": 7.5, "sampler_name": "DPM++ 2M Karras",
         "scheduler": "Karras"}, read_a1111, 2, (512, 768)),
    "SillyTavern": (
        TXT2IMG, {"Authorization": "Basic "},
        {"url": "http://localhost:7860", "auth": "", "prompt": PROMPT, "negative_prompt": "lowres",
         "sampler_name": "DDIM", "scheduler": "normal", "steps": 20, "cfg_scale": 7, "width": 512,
         "height": 512, "restore_faces": False, "enable_hr": False, "hr_upscaler": "Latent",
         "hr_scale": 1, "hr_additional_modules": [], "denoising_strength": 0.7,
         "hr_second_pass_steps": 0, "override_settings": {"CLIP_stop_at_last_layers": 1},
         "override_settings_restore_afterwards": True, "clip_skip": 1, "save_images": True,
         "send_images": True, "do_not_save_grid": False, "do_not_save_samples": False},
        read_a1111, 1, (512, 512)),
    "LibreChat, Stable Diffusion": (
        TXT2IMG, {},
        {"prompt": PROMPT, "negative_prompt": "blurry", "sampler_index": "DPM++ 2M Karras",
         "cfg_scale": 4.5, "steps": 22, "width": 1024, "height": 1024}, read_a1111, 1, (1024, 1024)),
    "webuiapi": (
        TXT2IMG, {},
        {"enable_hr": False, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": 0,
         "hr_resize_x": 0, "hr_resize_y": 0, "denoising_strength": 0.7, "firstphase_width": 0,
         "firstphase_height": 0, "prompt": PROMPT, "styles": [], "seed": -1, "subseed": -1,
         "subseed_strength": 0.0, "seed_resize_from_h": 0, "seed_resize_from_w": 0, "batch_size": 1,
         "n_iter": 1, "steps": 20, "cfg_scale": 7.0, "width": 512, "height": 512,
         "restore_faces": False, "tiling": False, "do_not_save_samples": False,
         "do_not_save_grid": False, "negative_prompt": "", "eta": 1.0, "s_churn": 0, "s_tmax": 0,
         "s_tmin": 0, "s_noise": 1, "override_settings": {},
         "override_settings_restore_afterwards": True, "sampler_name": "Euler a",
         "sampler_index": "Euler a", "script_name": None, "script_args": [], "send_images": True,
         "save_images": False, "alwayson_scripts": {}}, read_a1111, 1, (512, 512)),
    "Nextcloud": (
        GENERATE, {}, {"prompt": PROMPT, "size": "512x512", "n": 1, "model": "dall-e-2"},
        read_url, 1, (512, 512)),
    "LangChain for Python": (
        GENERATE, {"Authorization": "Bearer none"},
        {"prompt": PROMPT, "model": "dall-e-2", "n": 1, "size": "1024x1024", "quality": "standard"},
        read_url, 1, (1024, 1024)),
    "LiteLLM": (
        GENERATE, {"Authorization": "Bearer none"},
        {"model": "openai/dall-e-3", "prompt": PROMPT, "n": 1, "quality": "hd", "size": "1024x1024",
         "style": "vivid", "user": "u", "response_format": "b64_json"}, read_b64, 1, (1024, 1024)),
    "Home Assistant": (
        GENERATE, {"Authorization": "Bearer none"},
        {"model": "dall-e-3", "prompt": PROMPT, "size": "1024x1024", "quality": "standard",
         "style": "vivid", "response_format": "url", "n": 1}, read_url, 1, (1024, 1024)),
    "LibreChat, DALL-E 3": (
        GENERATE, {"Authorization": "Bearer none"},
        {"model": "dall-e-3", "quality": "standard", "style": "vivid", "size": "1024x1024",
         "prompt": PROMPT, "n": 1}, read_url, 1, (1024, 1024)),
    "LibreChat, gpt-image": (
        GENERATE, {"Authorization": "Bearer none"},
        {"model": "gpt-image-1", "prompt": PROMPT, "n": 2, "background": "auto", "quality": "auto",
         "size": "1024x1024", "output_format": "png", "output_compression": 100}, read_b64, 2,
        (1024, 1024)),
}


def test_default_requests(s):
    for client, (path, headers, body, read, count, size) in REQUESTS.items():
        a = s.request("POST", path, body, headers)
        assert a.status == 200, (client, a.body[:300])
        images = read(s, a)
        assert len(images) == count, client
        assert [png_size(x) for x in images] == [size] * count, (client, png_size(images[0]))
        if path == TXT2IMG:
            info = json.loads(a.json["info"])
            assert (info["width"], info["height"]) == size, client
            assert a.json["parameters"] == body, client


def test_open_webui_sets_up_a1111(s):
    """Its admin page: verifies the address, lists the models, and sends all options back."""
    h = {"Authorization": "Basic dTpw"}
    options = s.request("GET", "/sdapi/v1/options", headers=h)
    assert options.status == 200
    models = [m["title"] for m in s.request("GET", "/sdapi/v1/sd-models", headers=h).json]
    assert models == [options.json["sd_model_checkpoint"]]
    assert s.request("POST", "/sdapi/v1/options",
                     {**options.json, "sd_model_checkpoint": models[0]}, h).status == 200


def test_sillytavern_sets_up_a1111(s):
    """Connecting: each of its lists, all of which must be there; a model; then the progress."""
    h = {"Authorization": "Basic "}

    def get(path):
        a = s.request("GET", "/sdapi/v1/" + path, headers=h)
        assert a.status == 200, path
        return a.json
    assert "forge_preset" not in get("options")
    for path, key in (("upscalers", "name"), ("latent-upscale-modes", "name"), ("samplers", "name"),
                      ("schedulers", "name"), ("sd-models", "title")):
        assert get(path) and all(isinstance(x[key], str) for x in get(path)), path
    for path in ("sd-vae", "sd-modules"):
        assert [x["model_name"] for x in get(path)] == []
    assert s.request("POST", "/sdapi/v1/options",
                     {"sd_model_checkpoint": get("sd-models")[0]["title"]}, h).status == 200
    p = get("progress")
    assert p["progress"] == 0.0 and p["state"]["job_count"] == 0
    # What it sends when its own client leaves.
    assert s.request("POST", "/sdapi/v1/interrupt", headers={**h, "Content-Length": "0"}).status == 200
    # Every sampler and scheduler that it can choose from the lists.
    for sampler in get("samplers"):
        for scheduler in get("schedulers"):
            a = s.request("POST", TXT2IMG, {"prompt": PROMPT, "width": 64, "height": 64, "steps": 2,
                                            "sampler_name": sampler["name"],
                                            "scheduler": scheduler["name"]}, h)
            assert a.status == 200, (sampler, scheduler, a.body)


main(globals())
