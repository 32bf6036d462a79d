"""How jobs run: quality and formats of the results, deadlines, fairness between owners, estimates, progress."""
import base64
import math
import os
import subprocess
import tempfile
import time

from harness import PROGRAM, Server, b64, eventually, main, make_png

ENV = {"FAKE_STEP_MS": "2"}


def post(s, **fields):
    return s.post("/v1/jobs", {"prompt": "a", "size": 64, **fields})


def image(s, job, i=0):
    j = s.wait_job(job)
    assert j["status"] == "done", j
    return s.get(j["images"][i]["href"]).body


# ---- files -----------------------------------------------------------------------------------------------------------

def test_quality_reaches_the_file(s):
    """The same image at two qualities, through each API that has one; a PNG does not change."""
    for name in ("jpeg", "webp", "png"):
        native = [image(s, post(s, seed=3, format=name, quality=q).json["id"]) for q in (20, 95, 95)]
        openai = [b64(s.draw(seed=3, output_format=name, output_compression=q)) for q in (20, 95)]
        assert native[1] == native[2] == openai[1] and native[0] == openai[0], name
        if name == "png":
            assert native[0] == native[1]
        else:
            assert 2 * len(native[0]) < 3 * len(native[1]), (name, len(native[0]), len(native[1]))
    lossless = image(s, post(s, seed=3, format="webp", quality=100).json["id"])
    assert b"VP8L" in lossless[:40]


def test_previews_have_their_own_format(s):
    for preview, final, magic in (("png", "jpeg", b"\x89PNG"), ("webp", "png", b"RIFF"), (None, "png", b"\xff\xd8")):
        fields = {"preview_format": preview} if preview else {}
        with s.held():
            job = post(s, previews=2, format=final, **fields).json["id"]
            events = s.events("GET", f"/v1/jobs/{job}/events")
            next(events)
        seen = [e[2] for e in events if e[0] == "preview"]
        assert len(seen) == 2, seen
        for e in seen:
            assert base64.b64decode(e["b64_json"]).startswith(magic) and e["format"] == (preview or "jpeg"), e
        assert s.get(f"/v1/jobs/{job}").json["request"]["format"] == final


def test_send_images(s):
    body = {"prompt": "a", "width": 64, "height": 64, "seed": 1}
    shown = s.post("/sdapi/v1/txt2img", body).json
    assert len(shown["images"]) == 1 and shown["images"][0]
    hidden = s.post("/sdapi/v1/txt2img", {**body, "send_images": False}).json
    assert hidden["images"] == [] and "Seed: 1" in hidden["info"], hidden


def test_every_image_of_a_job(s):
    """Each of several has its own entry, its own bytes and its own seed and number in them."""
    job = post(s, n=3, seed=9).json["id"]
    files = [image(s, job, i) for i in range(3)]
    j = s.get(f"/v1/jobs/{job}").json
    assert len(set(files)) == 3
    for i, (entry, data) in enumerate(zip(j["images"], files)):
        assert (entry["index"], entry["status"], entry["bytes"]) == (i, "done", len(data)), entry
        assert (entry["width"], entry["height"]) == (64, 64), entry
        assert (b"picture\0%d" % i in data) == (i > 0 or b"picture\0" in data), i
        assert b"Seed: 9," in data and (b"Picture: %d" % i in data) == (i > 0), i


# ---- progress --------------------------------------------------------------------------------------------------------

def test_steps_of_each_image_and_stage(s):
    with s.held():
        job = post(s, n=2, size=256, steps=[5, 3]).json["id"]
        events = s.events("GET", f"/v1/jobs/{job}/events")
        first = next(events)
        assert first[0] == "status"
    seen = list(events)
    for picture in (0, 1):
        steps = [(e[2]["stage"], e[2]["step"], e[2]["steps"]) for e in seen
                 if e[0] == "step" and e[2]["picture"] == picture]
        wanted = [(0, k, 5) for k in range(1, 6)] + [(1, k, 3) for k in range(1, 4)]
        assert steps == wanted, steps
        assert [e[2]["stage"] for e in seen if e[0] == "stage" and e[2]["picture"] == picture] == [0, 1]
        assert len([e for e in seen if e[0] == "picture" and e[2]["picture"] == picture]) == 1
    # The share of all 16 steps, of both stages, that are done.
    progress = [e[2]["progress"] for e in seen if e[0] == "step"]
    assert [round(p * 16, 6) for p in progress] == list(range(1, 17)), progress
    ids = [int(e[1]) for e in seen if e[1]]
    assert ids == list(range(ids[0], ids[0] + len(ids))), ids


def test_a_finished_image_has_done_all_its_steps(s):
    """The last stage of each image with all its steps, told by its events and, later, looked up from the store."""
    image = {"image": base64.b64encode(make_png(40, 40, lambda x, y: (x, y, 9))).decode()}
    edit, upscale = {**image, "size": "64x64"}, {**image, "task": "upscale"}
    for fields, want in (({}, (2, 2)), ({"size": 64}, (0, 8)), ({"size": 256, "steps": [5, 3]}, (1, 3)),
                         ({"preset": "fast"}, (2, 1)), ({"preset": "fast", "size": 64, "n": 2}, (0, 3)),
                         ({**edit, "strength": 0.5}, (0, 4)), ({**edit, "strength": 1, "steps": 3}, (0, 3)),
                         ({**upscale, "scale": 4}, (1, 4)), ({**upscale, "scale": 16}, (2, 2))):
        with s.held():
            a = s.post("/v1/jobs", {"prompt": "a", **fields})
            assert a.status == 202, (fields, a.body)
            events = s.events("GET", f"/v1/jobs/{a.json['id']}/events")
            next(events)
        last = [e[2] for e in events if e[0] == "step"][-1]
        assert (last["stage"], last["step"], last["steps"]) == (want[0], want[1], want[1]), (fields, last)
        listed = next(j for j in s.get("/v1/jobs").json["data"] if j["id"] == a.json["id"])
        for job in (s.get(f"/v1/jobs/{a.json['id']}").json, listed):
            got = {(i["status"], i["stage"], i["step"], i["steps"]) for i in job["images"]}
            assert got == {("done", want[0], want[1], want[1])}, (fields, job["images"])


# ---- deadlines -------------------------------------------------------------------------------------------------------

def test_deadlines_of_waiting_and_running_jobs():
    s = Server(env={"FAKE_STEP_MS": "2", "FAKE_SLOTS": "1"})
    try:
        with s.held():
            soon, late = int(time.time()) + 3, int(time.time()) + 3600
            running = post(s, deadline=soon).json["id"]
            eventually(lambda: s.get("/v1/jobs/" + running).json["status"] == "running")
            # This one gets the place, so that the next one goes on waiting.
            patient, waiting = (post(s, deadline=d).json["id"] for d in (late, soon))
            for job in (running, waiting):
                j = s.wait_job(job)
                assert j["status"] == "failed" and j["error"]["code"] == "timeout", j
                assert time.time() >= soon
            assert j["started"] is None, j
            assert s.get("/v1/jobs/" + patient).json["status"] in ("queued", "running")
        # The one whose time was not up is drawn, and nothing of the others is left in its way.
        assert s.wait_job(patient)["status"] == "done"
    finally:
        assert s.close() == 0


def test_the_oldest_results_go_first():
    s = Server("--keep-jobs", "3")
    try:
        made = [post(s).json["id"] for _ in range(7)]
        for job in made[4:]:
            s.wait_job(job)
        eventually(lambda: [j["id"] for j in s.get("/v1/jobs").json["data"]] == made[:3:-1],
                   what="the three newest")
    finally:
        assert s.close() == 0


# ---- turns -----------------------------------------------------------------------------------------------------------

def keys(*owners):
    """A file of keys, and the headers of each owner."""
    folder = tempfile.mkdtemp()
    headers, lines = [], []
    for owner in owners:
        out = subprocess.run([PROGRAM, "config", "key", owner, "generate,read"], capture_output=True,
                             text=True).stdout.splitlines()
        headers.append({"Authorization": "Bearer " + out[0].split(": ")[1]})
        lines.append(out[1].split(": ")[1])
    path = os.path.join(folder, "keys")
    with open(path, "w") as f:
        f.write("\n".join(lines) + "\n")
    return path, headers


def test_owners_are_served_in_turn():
    path, (alice, bob, carol) = keys("alice", "bob", "carol")
    s = Server("--keys-file", path, env={"FAKE_STEP_MS": "2", "FAKE_SLOTS": "1"})

    def ask(owner, **fields):
        a = s.request("POST", "/v1/jobs", {"prompt": "a", "size": 64, "steps": 1, **fields}, owner)
        assert a.status == 202, a.body
        return a.json["id"]

    def get(owner, job):
        return s.request("GET", "/v1/jobs/" + job, headers=owner).json

    try:
        with s.held():
            blocker = ask(alice)
            eventually(lambda: get(alice, blocker)["status"] == "running")
            many = [ask(alice) for _ in range(4)]
            hurry = ask(alice, priority=5)
            others = [ask(bob), ask(carol), ask(bob)]
            # One after the other in a round; within an owner by priority, then as they came. Alice has
            # just been served, but was the only one who waited then.
            wanted = [(alice, hurry), (bob, others[0]), (carol, others[1]), (alice, many[0]), (bob, others[2]),
                      (alice, many[1]), (alice, many[2]), (alice, many[3])]
            for place, (owner, job) in enumerate(wanted):
                eventually(lambda: get(owner, job)["position"] == place, what=f"place {place}")
            # A place that is given up moves the others.
            s.request("DELETE", "/v1/jobs/" + others[1], headers=carol)
            eventually(lambda: get(alice, many[0])["position"] == 2, what="moved up")
        ends = {job: s.wait_job(job, **{"Authorization": owner["Authorization"]})
                for owner, job in wanted if job != others[1]}
        order = sorted(ends, key=lambda job: ends[job]["started"])
        assert order == [job for _, job in wanted if job != others[1]], order
    finally:
        assert s.close() == 0


def test_a_waiting_job_is_told_its_place():
    """The place of a job is its first image's, and each change of it is an event."""
    s = Server(env={"FAKE_STEP_MS": "2", "FAKE_SLOTS": "1"})
    try:
        with s.held():
            running = post(s, steps=1).json["id"]
            eventually(lambda: s.get("/v1/jobs/" + running).json["status"] == "running")
            before = [post(s, steps=1).json["id"] for _ in range(2)]
            several = post(s, n=3).json["id"]
            events = s.events("GET", f"/v1/jobs/{several}/events")
            first = next(events)[2]
            eventually(lambda: s.get("/v1/jobs/" + several).json["position"] == 2, what="place 2")
            s.delete("/v1/jobs/" + before[0])
            eventually(lambda: s.get("/v1/jobs/" + several).json["position"] == 1, what="place 1")
            s.delete("/v1/jobs/" + before[1])
            eventually(lambda: s.get("/v1/jobs/" + several).json["position"] == 0, what="place 0")
        told = [first["position"], *(e[2]["position"] for e in events if e[0] == "queued")]
        assert told[-3:] == [2, 1, 0], told
    finally:
        assert s.close() == 0


# ---- estimates -------------------------------------------------------------------------------------------------------

def test_the_estimate_is_the_time_it_takes():
    """Retry-After follows from what waits and from the time that images take."""
    s = Server("--queue-limit", "60", env={"FAKE_STEP_MS": "100", "FAKE_SLOTS": "1"})
    try:
        for _ in range(2):
            assert s.draw(steps=5).status == 200
        seconds = s.get("/v1/capabilities").json["seconds_per_picture"]
        assert 0.4 <= seconds < 5, seconds
        with s.held():
            running = post(s).json["id"]
            eventually(lambda: s.get("/v1/jobs/" + running).json["status"] == "running")
            assert [post(s, n=16).status for _ in range(3)] == [202] * 3
            refused = post(s, n=16)
            told = int(refused.headers["retry-after"])
            # The time until half of what waits and runs is drawn, in whole seconds.
            assert refused.status == 429 and told == math.ceil(49 * seconds / 2), (told, seconds)
    finally:
        s.close()


main(globals())
