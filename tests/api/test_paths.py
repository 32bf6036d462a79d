"""No response contains a path on the server's disk; the log does."""
import json
import os
import shutil
import tempfile

from harness import Server, eventually, main
from test_webhook import Receiver

SECRET = "/srv/top secret/models/if"
FAULT = f"{SECRET}/unet/model.safetensors: too short for a safetensors file"
SHOWN = "model.safetensors: too short for a safetensors file"
BODY = {"prompt": "a", "size": 64}


def text_of(answer):
    return repr(answer.headers) + answer.body.decode("latin-1")


def check(answer, status, *secrets):
    assert answer.status == status, (answer.status, answer.body)
    for secret in (SECRET, "/srv", "top secret", "/tmp", *secrets):
        assert secret not in text_of(answer), (secret, answer.body)
    return answer


def test_files_that_are_gone():
    """What the store lost, by every way that an image can be asked for."""
    s = Server()
    try:
        job = s.wait_job(s.post("/v1/jobs", BODY).json["id"])
        path = "/" + job["images"][0]["url"].split("/", 3)[3]
        images = os.path.join(s.folder, "data", "images")
        for name in os.listdir(images):
            os.unlink(os.path.join(images, name))
        for asked in (job["images"][0]["href"], path):
            a = check(s.get(asked), 404, s.folder)
            assert "missing from the store" in a.body.decode() and a.json["error"]["param"] is None
        assert images in s.log
        os.mkdir(os.path.join(images, f"{job['id']}-0.png"))  # neither gone nor a file
        for asked in (job["images"][0]["href"], path):
            check(s.get(asked), 507, s.folder)
        # And where nothing can be written.
        shutil.rmtree(images)
        with open(images, "w"):
            pass
        for answer in (s.draw(response_format="url"), s.draw(n=2, response_format="url")):
            check(answer, 507, s.folder)
        job = s.wait_job(s.post("/v1/jobs", BODY).json["id"])
        assert job["status"] == "failed" and s.folder not in json.dumps(job), job
    finally:
        assert s.close() == 0


def test_an_engine_that_does_not_open():
    s = Server(env={"FAKE_OPEN_FAILS": "1000", "FAKE_FAULT": FAULT}, start=False)
    s.start(ready=False)
    try:
        eventually(lambda: SHOWN in text_of(s.get("/readyz")))
        check(s.get("/readyz"), 503)
        for method, path, body in (
                ("POST", "/v1/jobs", BODY), ("POST", "/v1/images/generations", {"prompt": "a"}),
                ("POST", "/sdapi/v1/txt2img", {"prompt": "a"}), ("GET", "/v1/models", None),
                ("GET", "/v1/capabilities", None), ("GET", "/sdapi/v1/sd-models", None),
                ("GET", "/sdapi/v1/options", None), ("GET", "/metrics", None)):
            a = s.request(method, path, body)
            check(a, a.status)
            assert a.status in (200, 503), (path, a.status)
        assert FAULT in s.log
    finally:
        assert s.close() == 0


def test_images_that_fail():
    hook = Receiver()
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write("0123456789abcdef\n")
        secret.flush()
        s = Server("--webhook-allow", "127.0.0.1", "--webhook-secret-file", secret.name,
                   env={"FAKE_FAULT": FAULT})
        try:
            prompt = "[fail]"
            for path, body in (("/v1/images/generations", {"prompt": prompt, "size": "64x64"}),
                               ("/sdapi/v1/txt2img", {"prompt": prompt, "width": 64, "height": 64})):
                assert SHOWN in check(s.post(path, body), 500).body.decode()
            a = check(s.draw(prompt, stream=True), 200)
            assert SHOWN in a.body.decode() and "event: error" in a.body.decode()
            job = s.post("/v1/jobs", {**BODY, "prompt": prompt,
                                      "webhook_url": f"http://127.0.0.1:{hook.port}/"}).json["id"]
            s.wait_job(job)
            eventually(lambda: hook.got)
            assert SHOWN in hook.got[0][1].decode() and SECRET not in hook.got[0][1].decode()
            asked = ("/v1/jobs/" + job, "/v1/jobs", f"/v1/jobs/{job}/events")
            for path in asked:
                assert SHOWN in check(s.get(path), 200).body.decode(), path
            check(s.get(f"/v1/jobs/{job}/images/0"), 404)
            assert f"{job}: {FAULT}" in s.log
            # The store keeps what clients may read.
            assert s.stop() == 0
            s.start()
            for path in asked:
                assert SHOWN in check(s.get(path), 200).body.decode(), path
        finally:
            assert s.close() == 0


def test_a_request_is_quoted_as_it_was_sent():
    s = Server()
    try:
        a = s.post("/v1/jobs", {**BODY, "sampler": "/my/own/sampler"})
        assert a.status == 400 and "/my/own/sampler" in a.json["error"]["message"], a.body
    finally:
        assert s.close() == 0


if __name__ == "__main__":
    main(globals())
