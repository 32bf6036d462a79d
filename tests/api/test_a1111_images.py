"""A1111's routes that take images: img2img, extra-single-image, extra-batch-images and png-info."""
import base64
import json
import os
import tempfile
import threading
import zlib

from harness import PATIENCE, Server, eventually, is_png, main, make_png, png_texts, read_png
from test_inputs import CLEAR, IMAGE, LIGHT, bomb, chunk, is_kept, png_of, text, url

SMALL = make_png(8, 6, lambda x, y: (30 * x, 40 * y, 77))
DARK = make_png(80, 60, lambda x, y: (255 * (x < 40),) * 3)


def img2img(s, **fields):
    return s.post("/sdapi/v1/img2img", {"prompt": "x", "init_images": [text(IMAGE)], "seed": 1, "steps": 4,
                                        **fields})


def image_of(answer, i=0):
    assert answer.status == 200, answer.body[:400]
    return base64.b64decode(answer.json["images"][i])


def info_of(answer):
    assert answer.status == 200, answer.body[:400]
    return json.loads(answer.json["info"])


class Seen:
    """A server whose engine says what it was asked."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "seen")
        self.server = Server(env={"FAKE_SEEN": self.path})
        return self

    def __exit__(self, *_):
        assert self.server.close() == 0
        self.folder.cleanup()

    def last(self):
        with open(self.path, encoding="utf-8") as f:
            return json.loads(f.read().splitlines()[-1])


# ---- img2img ------------------------------------------------------------------------------------

def test_as_clients_send_it(s):
    """Requests as front ends write them: with data URLs, without sizes, with fields of other models."""
    for body in (
            {"init_images": [text(IMAGE)], "denoising_strength": 0.45, "batch_size": 2, "seed": -1,
             "steps": 10, "width": 80, "height": 60, "sampler_name": "DPM++ 2M Karras", "save_images": True,
             "override_settings": {"sd_model_checkpoint": "fake"}},
            {"prompt": "p", "init_images": [url(IMAGE)], "mask": text(LIGHT), "denoising_strength": 0.75,
             "steps": 4, "cfg_scale": 1.0, "width": 80, "height": 60, "batch_size": 1},
            {"prompt": "p", "init_images": [text(IMAGE)], "resize_mode": 1, "image_cfg_scale": 1.5,
             "mask": None, "mask_blur": 4, "inpainting_fill": 0, "inpaint_full_res": True,
             "inpaint_full_res_padding": 0, "inpainting_mask_invert": 0, "initial_noise_multiplier": 1,
             "styles": [], "subseed": -1, "subseed_strength": 0, "seed_resize_from_h": -1, "n_iter": 1,
             "restore_faces": False, "tiling": False, "eta": 0, "s_churn": 0, "script_args": [],
             "sampler_index": "Euler", "include_init_images": False, "alwayson_scripts": {}},
            {"init_images": [text(IMAGE)], "mask": "", "width": "80", "height": 60.0, "resize_mode": "0",
             "denoising_strength": "0.5", "inpaint_full_res": 1, "inpainting_mask_invert": False}):
        a = s.post("/sdapi/v1/img2img", body)
        assert a.status == 200, (body, a.body)
        assert set(a.json) == {"images", "parameters", "info"}
        assert len(a.json["images"]) == body.get("batch_size", 1)
        width, height, _ = read_png(image_of(a))
        assert (width, height) == (80, 60), (body, width, height)
        assert a.json["parameters"]["init_images"] is None and a.json["parameters"]["mask"] is None
        assert "Denoising strength: " in info_of(a)["infotexts"][0]
    # Only the client that asks for it gets its images back.
    a = img2img(s, mask=text(LIGHT), include_init_images=True)
    assert a.json["parameters"]["init_images"] == [text(IMAGE)] and a.json["parameters"]["mask"] == text(LIGHT)
    a = img2img(s, include_init_images=True, send_images=False)
    assert a.json["parameters"]["init_images"] == [text(IMAGE)] and a.json["parameters"]["mask"] is None
    assert a.json["images"] == []


# Field, value, what the engine gets (strength, steps); 8 steps are the fake model's own.
STRENGTHS = (({}, 0.75, 4), ({"denoising_strength": None}, 0.75, 4), ({"denoising_strength": 1}, 1, 4),
             ({"denoising_strength": 0.5}, 0.5, 4), ({"denoising_strength": 0}, 0.25, 4),
             ({"denoising_strength": 0.035, "steps": 24}, 0.041667, 24),
             ({"denoising_strength": 0.01, "steps": 27}, 0.037038, 27),
             ({"denoising_strength": 0, "steps": None}, 0.125, 0),
             ({"denoising_strength": 0, "steps": None, "preset": "fast"}, 0.333334, 0))


def test_denoising_strength():
    with Seen() as seen:
        for fields, strength, steps in STRENGTHS:
            info = info_of(img2img(seen.server, **fields))
            request = seen.last()
            assert abs(request["edit"]["strength"][0] - strength) < 1e-6, (fields, request)
            assert request["edit"]["strength"][1:] == [0, 0]
            # The engine reads it as a decimal of six digits and drops fractions of steps.
            own = 3 if "preset" in fields else 8
            assert int(float("%.6g" % request["edit"]["strength"][0]) * (steps or own)) >= 1, (fields, request)
            assert request["stages"][0][0] == steps, (fields, request)
            asked = 0.75 if fields.get("denoising_strength") is None else fields["denoising_strength"]
            raised = asked < strength - 1e-6
            assert ("one step was run" in info["comments"]) == raised, (fields, info["comments"])
            assert abs(info["denoising_strength"] - strength) < 1e-5, info


def test_sizes_and_resize_modes(s):
    """The image's own size by default; another shape is stretched, cropped or padded."""
    for fields, size in (({}, (80, 60)), ({"width": 64}, (64, 64)), ({"height": 64}, (64, 64)),
                         ({"width": 40, "height": 60}, (40, 60)),
                         ({"width": 200, "height": 100}, (200, 100))):
        a = img2img(s, **fields)
        assert read_png(image_of(a))[:2] == size, fields
        assert (info_of(a)["width"], info_of(a)["height"]) == size
    # With a mask whose white pixels are at the right, what is kept shows what became of the image.
    columns = make_png(80, 40, lambda x, y: (3 * x, 5 * y, 0))
    mask = make_png(80, 40, lambda x, y: (255 * (x > 72),) * 3)
    cropped = make_png(80, 40, lambda x, y: (255 * (x > 55),) * 3)
    left = {}
    for mode in (0, 1, 2, 3):
        a = img2img(s, init_images=[text(columns)], mask=text(cropped if mode == 1 else mask), width=40,
                    height=40, resize_mode=mode, inpaint_full_res=False)
        width, height, rows = read_png(image_of(a))
        assert (width, height) == (40, 40)
        left[mode] = rows
        assert ("mode 0" in info_of(a)["comments"]) == (mode == 3)
    assert abs(left[0][20][3 * 10] - 3 * 20.5) < 3 and left[0] == left[3]  # twice as far from the left
    assert abs(left[1][20][3 * 10] - 3 * 30) < 3  # 20 are cut off
    assert left[2][0][:60] == left[2][9][:60] != left[2][15][:60]  # repeated above
    assert abs(left[2][20][3 * 10] - 3 * 20.5) < 3


def test_masks(s):
    for fields in ({"mask": text(LIGHT)}, {"mask": url(LIGHT)}, {"mask": text(DARK), "inpainting_mask_invert": 1},
                   {"mask": text(LIGHT), "inpaint_full_res": False}, {"mask": text(LIGHT), "mask_blur": 0},
                   {"mask": text(LIGHT), "inpaint_full_res": False, "width": 80, "height": 60}):
        for fill in range(4):
            rows = read_png(image_of(img2img(s, inpainting_fill=fill, **fields)))[2]
            assert is_kept(rows), (list(fields), fill)
    # With inpaint_full_res the result has the image's size, whatever is asked for.
    assert read_png(image_of(img2img(s, mask=text(LIGHT), width=64, height=64)))[:2] == (80, 60)
    assert read_png(image_of(img2img(s, mask=text(LIGHT), width=64, height=64,
                                     inpaint_full_res=False)))[:2] == (64, 64)
    # An image's own transparency is no mask here: it is put on white.
    rows = read_png(image_of(img2img(s, init_images=[text(CLEAR)])))[2]
    assert not all(r[:120] == bytes([9] * 120) for r in rows)


def test_what_reaches_the_engine():
    spot = make_png(80, 60, lambda x, y: (255 * (20 <= x < 24 and 30 <= y < 36),) * 3)
    with Seen() as seen:
        for fields, edit in (
                ({}, {"drawn": 24, "feather": 4, "fill": 1, "zoom": [70, 0, -5]}),
                ({"inpaint_full_res_padding": 0}, {"zoom": [6, 19, 30]}),
                ({"inpaint_full_res_padding": 100, "inpainting_fill": 1}, {}),
                ({"inpaint_full_res": False, "inpainting_fill": 2}, {"fill": 2, "zoom": [0, 0, 0]}),
                ({"inpaint_full_res": False, "inpainting_fill": 3}, {"fill": 3, "zoom": [0, 0, 0]}),
                ({"inpaint_full_res": False, "inpainting_fill": 1}, {"drawn": 24}),
                ({"mask_blur": 9}, {"feather": 9}), ({"mask_blur": 0, "mask_blur_x": 7}, {"feather": 0}),
                ({"mask_blur_x": 7, "mask_blur_y": 3}, {"feather": 7}), ({"mask_blur_y": 8}, {"feather": 8}),
                ({"inpainting_mask_invert": 1}, {"drawn": 80 * 60 - 24})):
            a = img2img(seen.server, mask=text(spot), **fields)
            got = seen.last()["edit"]
            assert a.status == 200 and got["size"] == [80, 60] and got["scale"] == 0
            for key, value in edit.items():
                assert got[key] == value, (fields, key, got)
            assert edit or "zoom" not in got, got
        # Without a mask none of that matters.
        img2img(seen.server)
        assert seen.last()["edit"]["drawn"] == -1 and seen.last()["edit"]["zoom"] == [0, 0, 0]


def test_info_says_what_was_done(s):
    extra = info_of(img2img(s, mask=text(LIGHT)))["extra_generation_params"]
    assert extra == {"Mask blur": "4", "Masked content": "fill", "Inpaint area": "Only masked",
                     "Masked area padding": "32"}, extra
    a = info_of(img2img(s, mask=text(LIGHT), mask_blur=2, inpainting_fill=1, inpaint_full_res=False,
                        inpainting_mask_invert=1))
    assert a["extra_generation_params"] == {"Mask blur": "2", "Mask mode": "Inpaint not masked"}, a
    assert ", Mask blur: 2, Mask mode: Inpaint not masked" in a["infotexts"][0] and a["comments"] == "", a
    names = {2: "latent noise", 3: "latent nothing"}
    for fill, name in names.items():
        a = info_of(img2img(s, mask=text(LIGHT), inpainting_fill=fill))
        assert a["extra_generation_params"]["Masked content"] == name
    a = info_of(img2img(s, mask=text(LIGHT), mask_blur_x=2, sampler_name="Euler a", resize_mode=3))
    assert list(a["extra_generation_params"])[0] == "Requested sampler", a
    for words in ("Euler a is not available", "mask_blur is 4", "mode 3 is not available"):
        assert words in a["comments"], a["comments"]
    a = info_of(img2img(s))
    assert a["extra_generation_params"] == {} and a["comments"] == "" and a["denoising_strength"] == 0.75
    assert info_of(s.post("/sdapi/v1/txt2img", {"prompt": "a", "width": 64}))["denoising_strength"] == 0


def test_batches_and_seeds(s):
    a = img2img(s, batch_size=2, n_iter=2)
    info = info_of(a)
    assert len(set(a.json["images"])) == 4 and info["all_pictures"] == [0, 1, 2, 3]
    again = img2img(s, picture=2)
    assert again.json["images"][0] == a.json["images"][2]
    assert img2img(s, seed=2).json["images"][0] != a.json["images"][0]
    assert img2img(s, batch_size=5, n_iter=4).status == 422


# What is wrong: the field and its value, status, words of the detail.
REFUSED = (
    ("init_images", None, 404, "Init image not found"), ("init_images", "", 404, "Init image not found"),
    ("init_images", [], 404, "Init image not found"),
    ("init_images", [text(IMAGE)] * 17, 422, "17 images"),
    ("init_images", [text(IMAGE)] * 2, 422, "2 images"),
    ("init_images", [5], 422, "init_images"), ("init_images", [[text(IMAGE)]], 422, "init_images"),
    ("init_images", 5, 422, "init_images"), ("init_images", [None], 422, "init_images"),
    ("init_images", [""], 422, "Invalid encoded image"),
    ("init_images", ["???"], 422, "Invalid encoded image"),
    ("init_images", ["data:image/png,abc"], 422, "Invalid encoded image"),
    ("init_images", ["http://example.com/a.png"], 422, "does not fetch images"),
    ("init_images", [text(b"hello, world")], 422, "Invalid encoded image: the image is not a PNG"),
    ("init_images", [text(b"GIF89a..")], 422, "Invalid encoded image: the image is a GIF"),
    ("init_images", [text(IMAGE[:20])], 422, "Invalid encoded image: the image is truncated"),
    ("init_images", [text(IMAGE[:200])], 422, "the image is truncated"),
    ("init_images", [text(png_of(20000, 20000, b""))], 422, "Invalid encoded image: the image has 20000x20000"),
    ("init_images", [{"job": "job_" + "0" * 32, "index": 0}], 422, "no such job"),
    ("mask", text(b"hello"), 422, "Invalid encoded image: the mask is not a PNG"),
    ("mask", "???", 422, "Invalid encoded image"), ("mask", 5, 422, "mask"),
    ("mask", text(make_png(8, 6, lambda x, y: (255,) * 3)), 422, "the mask has 8x6 pixels"),
    ("mask", text(make_png(80, 60, lambda x, y: (0,) * 3)), 422, "the mask marks no pixel"),
    ("denoising_strength", -0.1, 422, "denoising_strength"), ("denoising_strength", 1.1, 422, "denoising_strength"),
    ("denoising_strength", "much", 422, "denoising_strength"), ("resize_mode", 4, 422, "resize_mode"),
    ("resize_mode", -1, 422, "resize_mode"), ("inpainting_fill", 4, 422, "inpainting_fill"),
    ("inpainting_mask_invert", 2, 422, "inpainting_mask_invert"), ("mask_blur", 257, 422, "mask_blur"),
    ("inpaint_full_res", "maybe", 422, "inpaint_full_res"),
    ("inpaint_full_res_padding", 5000, 422, "inpaint_full_res_padding"),
    ("width", 2000, 422, "1024x1024"), ("sampler_name", "nope", 404, "Sampler not found"),
    ("include_init_images", 3, 422, "include_init_images"),
)


def test_bad_input_of_img2img(s):
    for field, value, status, words in REFUSED:
        a = img2img(s, **{field: value})
        what = (field, str(value)[:60], a.status, a.body[:300])
        assert a.status == status, what
        assert set(a.json) == {"error", "detail", "body", "errors"} and words in a.json["detail"], what
        assert a.json["error"] == ("HTTPException" if status == 404 else "RequestValidationError"), what
    a = s.post("/sdapi/v1/img2img", {"prompt": "x"})
    assert a.status == 404 and a.json["detail"] == "Init image not found"
    # The server is none the worse for it.
    assert s.get("/sdapi/v1/progress").json["state"]["job_count"] == 0
    assert img2img(s).status == 200


# ---- progress and interruption ------------------------------------------------------------------

def test_progress_and_interrupt_reach_edits():
    s = Server(env={"FAKE_STEP_MS": "10"})
    try:
        for route, body in (("img2img", {"prompt": "x", "init_images": [text(IMAGE)], "steps": 500}),
                            ("extra-single-image", {"image": text(IMAGE), "upscaling_resize": 4}),
                            ("extra-batch-images", {"imageList": [{"data": text(IMAGE), "name": "a"}] * 3})):
            answers = []
            thread = threading.Thread(target=lambda r=route, b=body: answers.append(s.post("/sdapi/v1/" + r, b)))
            with s.held():
                thread.start()
                p = eventually(lambda: (lambda p: p if p["state"]["job_count"] else None)(
                    s.get("/sdapi/v1/progress?skip_current_image=true").json), what="a job")
                assert 0 <= p["progress"] < 1, p
                assert s.post("/sdapi/v1/interrupt").json == {}
                thread.join(PATIENCE)
            assert answers and answers[0].status == 410, (route, answers)
            # Of several, none is left.
            eventually(lambda: not s.get("/sdapi/v1/progress").json["state"]["job_count"], what="an end")
    finally:
        assert s.close() == 0


def test_a_client_that_leaves():
    """Its jobs are cancelled, in each phase of their way."""
    s = Server(env={"FAKE_STEP_MS": "10"})
    try:
        bodies = {"img2img": {"prompt": "x", "init_images": [text(IMAGE)], "steps": 500},
                  "extra-batch-images": {"imageList": [{"data": text(IMAGE)}] * 4}}
        for route, body in bodies.items():
            for waits in (False, True):
                data = json.dumps(body).encode()
                head = (f"POST /sdapi/v1/{route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                        f"Content-Length: {len(data)}\r\n\r\n").encode()
                with s.held():
                    c = s.raw(head + data, read=False)
                    if waits:
                        eventually(lambda: s.get("/sdapi/v1/progress").json["state"]["job_count"], what="a job")
                    c.close()
                    eventually(lambda: not s.get("/sdapi/v1/progress").json["state"]["job_count"], what="an end")
        assert s.get("/healthz").status == 200
    finally:
        assert s.close() == 0


# ---- extras -------------------------------------------------------------------------------------

def extras(s, **fields):
    return s.post("/sdapi/v1/extra-single-image", {"image": text(SMALL), **fields})


# Fields, size of the result of an image of 8 x 6.
SIZES = (({}, (16, 12)), ({"upscaling_resize": 4}, (32, 24)), ({"upscaling_resize": 2.5}, (20, 15)),
         ({"upscaling_resize": 16}, (128, 96)), ({"upscaling_resize": 7}, (56, 42)),
         ({"upscaling_resize": 1}, (8, 6)), ({"upscaling_resize": 0.5}, (4, 3)),
         ({"upscaling_resize": "3"}, (24, 18)), ({"upscaling_resize": 0.01}, (1, 1)),
         ({"resize_mode": 1, "upscaling_resize_w": 20, "upscaling_resize_h": 20}, (20, 20)),
         ({"resize_mode": 1, "upscaling_resize_w": 20, "upscaling_resize_h": 20, "upscaling_crop": False}, (27, 20)),
         ({"resize_mode": 1, "upscaling_resize_w": 100, "upscaling_resize_h": 10}, (100, 10)),
         ({"resize_mode": 0, "upscaling_resize_w": 100, "upscaling_resize_h": 10}, (16, 12)))


def test_extra_single_image(s):
    for fields, size in SIZES:
        a = extras(s, **fields)
        assert a.status == 200 and set(a.json) == {"html_info", "image"}, (fields, a.body[:300])
        data = base64.b64decode(a.json["image"])
        assert read_png(data)[:2] == size, (fields, read_png(data)[:2])
        assert "Postprocess upscaler: Super-resolution" in a.json["html_info"]
        assert "not available" not in a.json["html_info"]
        factor = png_texts(data)["scale"]
        asked = max(size[0] / 8, size[1] / 6)
        assert factor == ("16" if asked > 4 else "4"), (fields, factor)
        assert f", Upscale by: {asked:.4g}, " in png_texts(data)["parameters"], png_texts(data)


def test_upscalers(s):
    """Those that A1111 has are replaced, and the response says so."""
    listed = s.get("/sdapi/v1/upscalers").json
    assert [u["name"] for u in listed] == ["None", "Super-resolution"] and listed[1]["scale"] == 4
    for u in listed:
        assert set(u) == {"name", "model_name", "model_path", "model_url", "scale"}
    for name in (None, "", "Super-resolution", "super-resolution"):
        assert "not available" not in extras(s, upscaler_1=name).json["html_info"], name
    for name in ("R-ESRGAN 4x+", "r-esrgan 4x+", "ESRGAN_4x", "Lanczos", "4x-UltraSharp"):
        said = extras(s, upscaler_1=name, upscaler_2="None").json["html_info"]
        assert f"The upscaler {name} is not available" in said, said
    said = extras(s, extras_upscaler_2_visibility=0.5, gfpgan_visibility=1, codeformer_visibility=0.5).json["html_info"]
    assert "second upscaler is not available" in said and "Face restoration is not available" in said


def test_extra_batch_images(s):
    images = [{"data": text(SMALL), "name": "a.png"}, {"data": url(IMAGE), "name": "b.png"}]
    a = s.post("/sdapi/v1/extra-batch-images", {"imageList": images, "upscaling_resize": 2})
    assert a.status == 200 and set(a.json) == {"html_info", "images"}, a.body[:300]
    assert [read_png(base64.b64decode(i))[:2] for i in a.json["images"]] == [(16, 12), (160, 120)]
    one = extras(s, upscaling_resize=2)
    a = s.post("/sdapi/v1/extra-batch-images", {"imageList": images[:1] * 16})
    assert len(a.json["images"]) == 16 and one.status == 200
    for value, words in ((None, "not null"), ([], "1 to 16 images, not 0"), (images * 9, "1 to 16 images, not 18"),
                         ([{}], "image 0 of \"imageList\": \"data\" is missing"), (text(SMALL), "must be a list"), ([text(SMALL)], "\"data\" is missing"),
                         ([images[0], {"data": text(b"x")}], "Invalid encoded image: the image is not"),
                         ([images[0], {"data": text(IMAGE[:200])}, images[1]], "truncated"),
                         # Whether it is seen at once or when it is decoded, the message says which image it is.
                         ([images[0], {"data": "??", "name": "c.png"}],
                          'image 1 of "imageList" (c.png): Invalid encoded image'),
                         ([images[0], images[1], {"data": text(IMAGE[:200])}], 'image 2 of "imageList": '),
                         ([{"data": text(IMAGE[:200]), "name": "d.png"}], 'image 0 of "imageList" (d.png): '),
                         ([{"data": {"job": "x"}}], "base64")):
        a = s.post("/sdapi/v1/extra-batch-images", {"imageList": value})
        assert a.status == 422 and words in a.json["detail"], (str(value)[:50], a.status, a.body)
        assert set(a.json) == {"error", "detail", "body", "errors"}
    assert s.get("/sdapi/v1/progress").json["state"]["job_count"] == 0


REFUSED_EXTRAS = (
    ("image", None, 422, "required"), ("image", "", 422, "Invalid encoded image"), ("image", 5, 422, "image"),
    ("image", "???", 422, "Invalid encoded image"), ("image", text(b""), 422, "Invalid encoded image"),
    ("image", text(b"text"), 422, "Invalid encoded image: the image is not a PNG"),
    ("image", text(SMALL[:40]), 422, "truncated"), ("image", text(bomb()), 422, "Invalid encoded image"),
    ("image", text(png_of(20000, 1, b"")), 422, "Invalid encoded image: the image has 20000x1"),
    ("image", {"job": "job_" + "0" * 32, "index": 0}, 422, "must be base64"),
    ("upscaler_1", "nope", 404, "could not find upscaler named nope"),
    ("upscaler_1", "None", 422, "would not enlarge"),
    *(("upscaling_resize", v, 422, f"a number from 0.01 to 16, this model's largest factor, not {v}")
      for v in (0, 0.001, 17, 65)), ("upscaling_resize", -1, 422, "upscaling_resize"),
    ("upscaling_resize", "big", 422, "upscaling_resize"), ("resize_mode", 2, 422, "resize_mode"),
    ("upscaling_resize_w", 0, 422, "upscaling_resize_w"), ("upscaling_crop", "no way", 422, "upscaling_crop"),
    ("gfpgan_visibility", 2, 422, "gfpgan_visibility"),
)


def test_bad_input_of_extras(s):
    for field, value, status, words in REFUSED_EXTRAS:
        a = extras(s, **{field: value})
        what = (field, str(value)[:60], a.status, a.body[:300])
        assert a.status == status and words in a.json["detail"], what
        assert set(a.json) == {"error", "detail", "body", "errors"}, what
    a = extras(s, resize_mode=1, upscaling_resize_w=1000)
    assert a.status == 422 and "upscaling_resize_w" in a.json["detail"], a.body


# ---- png-info -----------------------------------------------------------------------------------

def png_with(*chunks):
    return IMAGE[:33] + b"".join(chunk(kind, data) for kind, data in chunks) + IMAGE[33:]


A1111_TEXT = ("a cat, (fluffy:1.2)\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, "
              "Size: 512x768, Model hash: 45dee52b, Lora hashes: \"a: b, c: d\"")


def jpeg_with_comment(value):
    """A JPEG as piexif writes it: EXIF with a user comment in UTF-16, the larger byte first."""
    comment = b"UNICODE\0" + value.encode("utf-16-be")
    exif = (b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x1a\0\0\0\0\0\x01\x92\x86\0\x07" +
            len(comment).to_bytes(4, "big") + b"\0\0\0\x2c\0\0\0\0" + comment)
    return b"\xff\xd8\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + b"\xff\xda\0\x02\xff\xd9"


def png_info(s, data):
    return s.post("/sdapi/v1/png-info", {"image": text(data) if isinstance(data, bytes) else data})


def test_png_info_of_own_images(s):
    for kind in ("png", "jpeg", "webp"):
        made = s.post("/v1/images/generations", {"prompt": "a \u20ac \U0001f408", "negative_prompt": "dog", "seed": 5,
                                                 "size": "64x64", "output_format": kind})
        a = png_info(s, made.json["data"][0]["b64_json"])
        assert a.status == 200 and set(a.json) == {"info", "items", "parameters"}, a.body
        p = a.json["parameters"]
        assert p["Prompt"] == "a \u20ac \U0001f408" and p["Negative prompt"] == "dog", p
        assert (p["Seed"], p["Size-1"], p["Size-2"], p["Steps"]) == ("5", "64", "64", "8"), p
        assert a.json["info"].startswith("a \u20ac \U0001f408\nNegative prompt: dog\nSteps: 8, Sampler: ")
        assert ("prompt" in a.json["items"]) == (kind == "png") and "parameters" not in a.json["items"]
    # What txt2img and img2img return, as clients send it back.
    for a in (s.post("/sdapi/v1/txt2img", {"prompt": "b", "width": 64}), img2img(s, prompt="b")):
        info = png_info(s, "data:image/png;base64," + a.json["images"][0]).json
        assert info["parameters"]["Prompt"] == "b" and "Steps" in info["parameters"]


def test_png_info_of_others(s):
    fields = {"Prompt": "a cat, (fluffy:1.2)", "Negative prompt": "dog", "Steps": "20", "Sampler": "Euler a",
              "CFG scale": "7", "Seed": "965400086", "Size-1": "512", "Size-2": "768", "Model hash": "45dee52b",
              "Lora hashes": "a: b, c: d"}
    words = A1111_TEXT.encode()
    files = (png_with((b"tEXt", b"parameters\0" + words)),
             png_with((b"zTXt", b"parameters\0\0" + zlib.compress(words))),
             png_with((b"iTXt", b"parameters\0\0\0\0\0" + words)),
             png_with((b"tEXt", b"Software\0x"), (b"iTXt", b"parameters\0\1\0en\0p\0" + zlib.compress(words))),
             jpeg_with_comment(A1111_TEXT))
    for data in files:
        a = png_info(s, data)
        assert a.status == 200 and a.json["info"] == A1111_TEXT, a.body
        assert a.json["parameters"] == fields, a.json
    assert png_info(s, files[3]).json["items"] == {"Software": "x"}
    # Without settings.
    assert png_info(s, IMAGE).json == {"info": "", "items": {},
                                       "parameters": {"Prompt": "", "Negative prompt": ""}}
    # The size of an image does not matter, since its pixels are not looked at.
    assert png_info(s, png_of(20000, 20000, b"")).status == 200


def test_bad_input_of_png_info(s):
    bomb_of_text = zlib.compress(b"x" * (10 << 20))
    for value, words in ((None, "required"), ("", "Invalid encoded image"), (5, "image"), ("???", "Invalid encoded"),
                         ([text(IMAGE)], "image"), (text(b""), "Invalid encoded image"),
                         (text(b"text"), "is not a PNG, JPEG or WebP"), (text(IMAGE[:-8]), "truncated"),
                         (text(IMAGE[:20]), "truncated"), (text(b"GIF89a"), "is a GIF"),
                         (text(png_with((b"zTXt", b"a\0\0" + bomb_of_text))), "1024 kB"),
                         (text(png_with(*[(b"tEXt", b"a\0b")] * 33)), "32 texts"),
                         ({"job": "job_" + "0" * 32, "index": 0}, "must be base64"),
                         ("http://example.com/a.png", "does not fetch")):
        a = png_info(s, value)
        assert a.status == 422 and words in a.json["detail"], (str(value)[:50], a.status, a.body)
        assert set(a.json) == {"error", "detail", "body", "errors"}
    assert s.post("/sdapi/v1/png-info", {}).status == 422


if __name__ == "__main__":
    main(globals())
