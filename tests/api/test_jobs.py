"""The native API: jobs, events, cancellation, retention, lists."""
import base64
import json
import math
import re
import signal
import threading
import time

from harness import PATIENCE, UNTOLD, Server, eventually, is_png, main, needs_store
from test_ops import bearer, keys_file, new_key

ENV = {"FAKE_STEP_MS": "2"}


def post(s, **fields):
    return s.post("/v1/jobs", {"prompt": "a", "size": 64, **fields})


def test_accepts_and_draws(s):
    a = post(s, seed=7, steps=3, guidance_scale=2.5)
    assert a.status == 202 and a.headers["location"] == "/v1/jobs/" + a.json["id"]
    j = s.wait_job(a.json["id"])
    assert j["status"] == "done" and j["progress"] == 1 and j["error"] is None
    assert j["request"]["seed"] == 7 and j["request"]["steps"] == [3]
    assert j["request"]["guidance_scale"] == [2.5]
    image = s.get(j["images"][0]["href"])
    assert is_png(image.body, 64) and len(image.body) == j["images"][0]["bytes"]
    assert image.headers["cache-control"] == "private, max-age=3600, immutable"
    by_url = s.get(j["images"][0]["url"].split(str(s.port))[1])
    assert by_url.body == image.body
    assert s.get(j["images"][0]["href"].replace("images/0", "images/1")).status == 404
    assert s.get("/v1/files/" + j["id"] + "/" + "0" * 32 + "-0.png").status == 404


def test_a_cancelled_request_is_told_so(s):
    """A request that waits for a job that somebody cancels, in each API that waits."""
    for path, body in (("/v1/images/generations", {}), ("/v1/images/generations", {"stream": True}),
                       ("/sdapi/v1/txt2img", {})):
        answers = []
        with s.held():
            thread = threading.Thread(target=lambda: answers.append(s.post(path, {"prompt": "a", **body})))
            thread.start()
            job = eventually(lambda: s.get("/v1/jobs?status=running").json["data"])[0]["id"]
            assert s.delete("/v1/jobs/" + job).status in (200, 204)
            thread.join(PATIENCE)
        a = answers[0]
        if body:
            assert a.status == 200 and b"event: error" in a.body and b'"job_cancelled"' in a.body, a.body
        elif path.startswith("/v1"):
            assert a.status == 410 and a.json["error"]["code"] == "job_cancelled", a.body
        else:
            assert a.status == 410 and a.json["detail"], a.body
        eventually(lambda: s.get("/v1/jobs/" + job).status == 404, what="its end, as nobody keeps it")


def test_unknown_fields_are_refused(s):
    a = post(s, colour="red")
    assert a.status == 400 and a.json["error"]["param"] == "colour"
    for field, value in (("size", 1025), ("n", 0), ("n", 17), ("previews", 33), ("priority", 10),
                         ("deadline", "tomorrow"), ("deadline", 5), ("format", "bmp"),
                         ("timesteps", 5), ("noise_level", 1000), ("seed", "x"),
                         ("webhook_url", "http://127.0.0.1/x")):
        a = post(s, **{field: value})
        assert a.status == 400 and a.json["error"]["param"] == field, (field, a.body)


def test_no_values_for_stages_that_the_image_does_not_use(s):
    for fields, param, says in (
            ({"size": 64, "steps": [2, 2]}, "steps", "stage 2, but an image of this size uses only 1 stage"),
            ({"size": "48x64", "steps": [None, 2]}, "steps", "uses only 1 stage"),
            ({"size": 256, "steps": [2, 2, 2]}, "steps", "stage 3, but an image of this size uses only 2 stages"),
            ({"size": 64, "guidance_scale": [2, 0]}, "guidance_scale", "uses only 1 stage"),
            ({"size": 64, "noise_level": [-1, 10]}, "noise_level", "uses only the base stage"),
            ({"size": 256, "noise_level": 10}, "noise_level", "use a list such as [-1, 10]")):
        for path in ("/v1/jobs", "/v1/images/generations"):
            if path != "/v1/jobs":
                fields = {**fields, "size": str(fields["size"])}
            a = s.post(path, {"prompt": "a", **fields})
            error = a.json["error"]
            assert a.status == 400 and error["param"] == param and says in error["message"], (fields, a.body)
    for fields in ({"size": 64, "steps": [2, None, None]}, {"size": 64, "noise_level": [-1, -1]},
                   {"size": 256, "steps": [2, 2], "guidance_scale": [0, 2], "noise_level": [-1, 10]}):
        assert post(s, **fields).status == 202, fields


def test_presets(s):
    j = s.wait_job(post(s, preset="fast", size=256).json["id"])
    r = j["request"]
    assert j["status"] == "done" and r["preset"] == "fast" and r["sampler"] == "ddim", j
    assert r["steps"] == [3, 2] and r["guidance_scale"] == [1, 1], r
    r = s.wait_job(post(s, preset="fast", steps=[4], guidance_scale=3, size=256,
                        sampler="ddpm").json["id"])["request"]
    assert r["steps"] == [4, 2] and r["guidance_scale"] == [3, 1], r
    assert r["sampler"] == "ddpm", r
    assert post(s, preset=None).json["request"]["preset"] is None
    for value in ("slow", "", 5, "f" * 32):
        a = post(s, preset=value)
        assert a.status == 400 and a.json["error"]["param"] == "preset", (value, a.body)


def watch(s, job):
    """A stream of the job's events that is open already."""
    events = s.events("GET", f"/v1/jobs/{job}/events")
    first = next(events)

    def rest():
        yield first
        yield from events
    return rest()


def test_events_tell_the_whole_story(s):
    with s.held():
        events = watch(s, post(s, n=2, previews=3, size=256).json["id"])
    events = list(events)
    names = [e[0] for e in events]
    assert names[0] == "status" and names[-1] == "done"
    assert names.count("picture") == 2 and names.count("preview") == 6, names
    assert names.count("step") > 10
    progress = [e[2]["progress"] for e in events]
    assert progress == sorted(progress) and progress[-1] == 1
    preview = next(e[2] for e in events if e[0] == "preview")
    assert preview["format"] == "jpeg"
    assert base64.b64decode(preview["b64_json"]).startswith(b"\xff\xd8")
    ids = [int(e[1]) for e in events if e[1]]
    assert ids == sorted(ids)


def test_last_event_id_resumes(s):
    with s.held():
        job = post(s, steps=30, size=64).json["id"]
        events = watch(s, job)
    with s.held(20):
        seen = []
        for event in events:
            seen.append(event)
            if len([e for e in seen if e[0] == "step"]) == 5:
                break
        events.close()
        last = int(seen[-1][1])
        # Whether the second hold came in time for it or not, more has happened by now.
        eventually(lambda: s.get("/v1/jobs/" + job).json["images"][0]["step"] >= 20)
        rest = s.events("GET", f"/v1/jobs/{job}/events", headers={"Last-Event-ID": str(last)})
        missed = [next(rest) for _ in range(5)]
        assert [int(e[1]) for e in missed] == list(range(last + 1, last + 6)), (last, missed)
        assert missed[0][0] != "status"
    rest = [*missed, *rest]
    ids = [int(e[1]) for e in rest]
    assert ids == list(range(last + 1, last + 1 + len(ids))) and rest[-1][0] == "done", ids
    steps = [e[2]["step"] for e in seen + rest if e[0] == "step"]
    assert steps == list(range(steps[0], 31)) and steps[0] < 20, steps
    again = list(s.events("GET", f"/v1/jobs/{job}/events"))
    assert [e[0] for e in again] == ["status", "done"]


def test_last_event_id_beyond_what_is_kept(s):
    """Who missed more than is kept is told the state instead, and everything from then on."""
    with s.held(150):
        job = post(s, steps=160).json["id"]
        eventually(lambda: s.get("/v1/jobs/" + job).json["images"][0]["step"] == 150)
        events = {}
        first = int(next(s.events("GET", f"/v1/jobs/{job}/events"))[1]) - 150
        for last in (str(first), "5", "9" * 18, "x", ""):
            events[last] = s.events("GET", f"/v1/jobs/{job}/events", headers={"Last-Event-ID": last})
            name, number, data = next(events[last])
            assert name == "status" and data["images"][0]["step"] == 150, (last, name, data)
            assert int(number) >= first + 150, (last, number)
    for last, rest in events.items():
        rest = list(rest)
        assert [e[2]["step"] for e in rest if e[0] == "step"] == list(range(151, 161)), (last, rest)
        assert rest[-1][0] == "done"


def test_lists_tell_how_far_running_jobs_are(s):
    with s.held(5):
        job = post(s, steps=20, size=64).json["id"]
        eventually(lambda: s.get("/v1/jobs/" + job).json["images"][0]["step"] == 5)
        for path in ("/v1/jobs", "/v1/jobs?status=running", "/v1/jobs?limit=1"):
            listed = s.get(path).json["data"][0]
            assert (listed["id"], listed["status"]) == (job, "running"), (path, listed)
            assert listed["images"][0]["step"] == 5, (path, listed)
        assert job not in [j["id"] for j in s.get("/v1/jobs?status=queued").json["data"]]
    s.wait_job(job)


def test_an_unfinished_image_is_not_there(s):
    with s.held(5):
        job = post(s, steps=20, size=64, n=2).json["id"]
        eventually(lambda: s.get("/v1/jobs/" + job).json["images"][0]["step"] == 5)
        for n in (0, 1):
            a = s.get(f"/v1/jobs/{job}/images/{n}")
            assert a.status == 404 and "not finished" in a.json["error"]["message"], (n, a.body)
    s.wait_job(job)
    assert s.get(f"/v1/jobs/{job}/images/0").status == 200


def test_last_event_id_of_another_process():
    """After a restart the same numbers would mean other events: the state is sent instead, and ids go on."""
    needs_store("sqlite", "postgres")
    s = Server(env={"FAKE_STEP_MS": "30"})
    try:
        with s.held(10):
            job = post(s, steps=60, size=64).json["id"]
            eventually(lambda: s.get("/v1/jobs/" + job).json["images"][0]["step"] == 10)
            last = next(s.events("GET", f"/v1/jobs/{job}/events"))[1]
            s.stop(signal.SIGKILL)
        s.start()
        with s.held(50):
            eventually(lambda: s.get("/v1/jobs/" + job).json["images"][0]["step"] >= 30)
            rest = s.events("GET", f"/v1/jobs/{job}/events", headers={"Last-Event-ID": last})
            name, number, data = next(rest)
            assert name == "status" and data["images"][0]["step"] >= 30, (last, name, number)
            assert int(number) > int(last)
        rest = list(rest)
        assert rest[-1][0] == "done" and int(rest[-1][1]) > int(number), rest[-1]
        again = list(s.events("GET", f"/v1/jobs/{job}/events", headers={"Last-Event-ID": rest[-1][1]}))
        assert again[-1][0] == "done" and int(again[-1][1]) > int(rest[-1][1]), again
    finally:
        s.close()


def test_streams_of_two_jobs_at_once(s):
    """What is written once for all watchers of a job is not sent to those of another."""
    with s.held():
        jobs = [post(s, steps=20).json["id"] for _ in range(3)]
        streams = [watch(s, job) for job in jobs for _ in range(2)]
        eventually(lambda: s.get("/v1/capabilities").json["running"] == 3)
    for i, stream in enumerate(streams):
        events = list(stream)
        assert {e[2].get("job", e[2].get("id")) for e in events} == {jobs[i // 2]}, events
        assert [e[2]["step"] for e in events if e[0] == "step"] == list(range(1, 21))


def test_streams_of_jobs_of_one_moment():
    """The events of jobs that were accepted in the same millisecond have the same ids."""
    s = Server(env={"FAKE_SLOTS": "1"})
    body = '{"prompt":"a","size":64}'
    request = ("POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
               f"Content-Length: {len(body)}\r\n\r\n{body}").encode()

    def post_at_once():
        """The ids of 12 jobs whose requests all wait for the server when it goes on."""
        s.process.send_signal(signal.SIGSTOP)
        try:
            clients = [s.raw(request, read=False) for _ in range(12)]
        finally:
            s.process.send_signal(signal.SIGCONT)
        jobs = []
        for client in clients:
            with client, client.makefile() as answer:
                jobs.append(re.search(r"Location: /v1/jobs/(\w+)", answer.read())[1])
        return jobs

    def second_events():
        """The second events of ten jobs: {id: [job...]}."""
        jobs = post_at_once()
        streams = {job: watch(s, job) for job in jobs[2:]}
        events = {}
        for stream in streams.values():
            next(stream)
        for first in jobs[:2]:
            s.delete("/v1/jobs/" + first)  # all others come nearer, which their watchers are told
            latest = {job: next(stream)[1] for job, stream in streams.items()}
        for job, id in latest.items():
            events.setdefault(id, []).append(job)
            streams[job].close()
        return events

    def alike():
        events = second_events()
        shared = [(id, jobs) for id, jobs in events.items() if len(jobs) > 1]
        if not shared:  # the next try must find room in the queue
            for job in sum(events.values(), []):
                s.delete("/v1/jobs/" + job)
        return shared

    try:
        with s.held():
            post(s)
            for id, jobs in eventually(alike):
                for job in jobs:
                    again = s.events("GET", f"/v1/jobs/{job}/events", headers={"Last-Event-ID": str(int(id) - 1)})
                    event = next(again)
                    again.close()
                    assert (event[1], event[2]["job"]) == (id, job), event
    finally:
        s.close()


def test_cancel_running_and_queued():
    s = Server(env={"FAKE_STEP_MS": "50", "FAKE_SLOTS": "1"})
    try:
        with s.held():
            first = post(s, steps=1000, n=3).json["id"]
            second = post(s, steps=1000, n=2).json["id"]
            eventually(lambda: s.get("/v1/jobs/" + first).json["status"] == "running")
            queued = s.get("/v1/jobs/" + second).json
            assert queued["status"] == "queued"
            a = s.delete("/v1/jobs/" + second)
            assert a.status == 200 and a.json["status"] == "cancelled"
            assert s.delete("/v1/jobs/" + first).json["status"] == "cancelled"
        start = time.monotonic()
        third = post(s, steps=1).json["id"]
        assert s.wait_job(third)["status"] == "done"
        assert time.monotonic() - start < 30, "each of the other images would have taken 50 s"
        assert s.delete("/v1/jobs/" + third).status == 204
        assert s.get("/v1/jobs/" + third).status == 404
    finally:
        assert s.close() == 0


def test_disconnect_cancels_synchronous_and_streaming():
    s = Server(env={"FAKE_STEP_MS": "10", "FAKE_SLOTS": "1"})
    try:
        for stream in (False, True):
            connection = s.connect()
            body = '{"prompt":"a","size":"64x64","steps":900,"stream":%s}' % str(stream).lower()
            with s.held():  # it cannot end by itself
                connection.request("POST", "/v1/images/generations", body,
                                   {"Content-Type": "application/json"})
                eventually(lambda: s.get("/v1/capabilities").json["running"] == 1)
                connection.sock.close()
                connection.close()
                eventually(lambda: s.get("/v1/capabilities").json["running"] == 0, UNTOLD,
                           f"free slot (stream={stream})")
        metrics = s.get("/metrics").body.decode()
        assert 'imagend_jobs_total{state="cancelled"} 2\n' in metrics, metrics
        assert "imagend_pictures_total" not in metrics and "imagend_pictures_failed" not in metrics
        assert s.get("/v1/jobs").json["data"] == [], "nobody can ask for them any more"
        # A client that sent an Idempotency-Key comes back for the result.
        for kept in ("/v1/images/generations", "/v1/jobs"):
            body = {"prompt": "a", "size": "64x64", "steps": 20}
            key = {"Idempotency-Key": kept, "Content-Type": "application/json"}
            connection = s.connect()
            with s.held():
                connection.request("POST", kept, json.dumps(body), key)
                eventually(lambda: s.get("/v1/capabilities").json["running"] == 1)
                connection.sock.close()
                connection.close()
                eventually(lambda: "http_connections 1\n" in s.get("/metrics").body.decode())
                job = s.get("/v1/jobs").json["data"][0]
                assert job["status"] == "running", job
            assert s.wait_job(job["id"])["status"] == "done"
            again = s.request("POST", kept, body, key)
            assert again.headers.get("x-imagend-job", again.json.get("id")) == job["id"]
            assert s.delete("/v1/jobs/" + job["id"]).status == 204
        # A watcher that leaves does not cancel a job that was accepted.
        with s.held(10):
            job = post(s, steps=100).json["id"]
            eventually(lambda: s.get("/v1/jobs/" + job).json["images"][0]["step"] == 10)
            events = s.events("GET", f"/v1/jobs/{job}/events")
            assert next(events)[0] == "status"
            events.close()
            eventually(lambda: "http_connections 1\n" in s.get("/metrics").body.decode())
        assert s.wait_job(job)["status"] == "done"
    finally:
        assert s.close() == 0


def test_list_pages_and_filters(s):
    made = [post(s).json["id"] for _ in range(5)]
    for job in made:
        s.wait_job(job)
    page = s.get("/v1/jobs?limit=3").json
    assert [j["id"] for j in page["data"]] == made[:1:-1] and page["has_more"]
    after = s.get(f"/v1/jobs?limit=2&after={made[2]}").json
    assert [j["id"] for j in after["data"]] == [made[1], made[0]]
    assert s.get("/v1/jobs?status=queued").json["data"] == []
    assert s.get("/v1/jobs?limit=0").status == 400
    assert s.get("/v1/jobs?colour=1").status == 400


def test_positions_priority_and_fairness():
    """Two keys take turns, whatever their priorities; within a key, priority and then age decide."""
    keys, lines = zip(*(new_key(name, "generate,read") for name in "ab"))
    s = Server("--keys-file", keys_file(*lines), env={"FAKE_STEP_MS": "2", "FAKE_SLOTS": "1"})

    def ask(key, method, path, body=None):
        return s.request(method, path, body, bearer(keys["ab".index(key)]))

    def submit(key, **fields):
        return key, ask(key, "POST", "/v1/jobs", {"prompt": "a", "size": 64, "steps": 2,
                                                  **fields}).json["id"]

    def look(job):
        return ask(job[0], "GET", "/v1/jobs/" + job[1]).json
    try:
        first = submit("a", steps=30)
        eventually(lambda: look(first)["status"] == "done")
        with s.held():
            blocker = submit("a")
            eventually(lambda: look(blocker)["status"] == "running")
            greedy = [submit("a") for _ in range(3)]
            urgent, later = submit("a", priority=5), submit("a", priority=1)
            other = [submit("b", priority=0), submit("b", priority=9)]
            # "a" has just had a turn, and its lane comes first again as "b" has come later.
            want = [urgent, other[1], later, other[0], *greedy]
            eventually(lambda: [look(j)["position"] for j in want] == list(range(7)),
                       what="positions in turn")
            seconds = ask("a", "GET", "/v1/capabilities").json["seconds_per_picture"]
            for i, job in enumerate(want):
                # What is ahead, what is in the slot, and itself.
                assert abs(look(job)["estimate_seconds"] - (i + 2) * seconds) < 0.01, (i, look(job), seconds)
        for job in want:
            eventually(lambda: look(job)["status"] == "done")
        assert sorted(want, key=lambda j: look(j)["started"]) == want
    finally:
        s.close()


def test_deadline_fails_a_job():
    s = Server(env={"FAKE_STEP_MS": "20", "FAKE_SLOTS": "1"})
    try:
        with s.held():
            # Its time may be over before it arrives: then it is refused.
            job = eventually(lambda: post(s, deadline=int(time.time()) + 2).json.get("id"))
            j = s.wait_job(job)
        assert j["status"] == "failed" and j["error"]["code"] == "timeout"
    finally:
        s.close()


def test_failure_of_the_engine(s):
    j = s.wait_job(post(s, prompt="[fail]", n=3).json["id"])
    assert j["status"] == "failed" and j["error"]["code"] == "not_finite" and j["error"]["message"]


def test_full_queue_answers_429_with_retry_after():
    """When half of what waits will have been drawn, and never less than 1 s or more than 60 s."""
    for limit, ms, retry in ((3, 500, (2, 4)), (9, 500, (5, 7)), (16, 3, (1, 1)), (96, 800, (60, 60))):
        s = Server("--queue-limit", str(limit), env={"FAKE_STEP_MS": str(ms), "FAKE_SLOTS": "1"})

        def load():
            return s.get("/v1/capabilities").json
        try:
            if limit < 16:
                a = post(s, n=limit + 1)
                assert a.status == 400 and a.json["error"]["param"] == "n", a.body
            s.wait_job(post(s, steps=3).json["id"])
            seconds = load()["seconds_per_picture"]
            assert 2e-3 * ms <= seconds, seconds
            with s.held():
                assert post(s).status == 202
                eventually(lambda: load()["running"] == 1)
                for n in [16] * (limit // 16) + [limit % 16] * (limit < 16):
                    assert post(s, n=n).status == 202
                a = post(s)
                assert a.status == 429 and a.json["error"]["type"] == "rate_limit_error", a.body
                assert a.json["error"]["code"] == "queue_full", a.body
                got = int(a.headers["retry-after"])
                assert got == min(max(math.ceil(seconds * (limit + 1) / 2), 1), 60), (got, seconds)
                # On a machine that is not slow; a slow one takes longer.
                assert got >= retry[0] and (got <= retry[1] or seconds > 4e-3 * ms), (got, retry)
                for j in s.get("/v1/jobs?limit=100").json["data"]:
                    assert s.delete("/v1/jobs/" + j["id"]).status < 300
        finally:
            s.close()


def test_device_loss_draws_again_once():
    s = Server(env={"FAKE_STEP_MS": "1"})
    try:
        j = s.wait_job(post(s, prompt="[lose]").json["id"])
        assert j["status"] == "done"
        j = s.wait_job(post(s, prompt="[lose always]").json["id"])
        assert j["status"] == "failed" and j["error"]["code"] == "device_lost"
        s.wait_ready()
        assert s.wait_job(post(s).json["id"])["status"] == "done"
        assert "imagend_engine_lost_total 3" in s.get("/metrics").body.decode()
    finally:
        assert s.close() == 0


def test_neighbours_of_a_failure_are_drawn():
    """Pictures in the same batch: one fails, then one takes the device with it, while all are drawn."""
    s = Server(env={"FAKE_STEP_MS": "5", "FAKE_SLOTS": "4"})

    def picture(job):
        j = s.wait_job(job)
        assert j["status"] == "done", j
        return s.get(j["images"][0]["href"]).body

    try:
        alone = picture(post(s, seed=1, steps=20).json["id"])
        for trouble, status in (("[fail]", "failed"), ("[lose]", "done")):
            with s.held():
                jobs = [post(s, seed=1, steps=20).json["id"] for _ in range(3)]
                cause = post(s, prompt=trouble).json["id"]
                eventually(lambda: all(s.get("/v1/jobs/" + j).json["status"] == "running"
                                       for j in (*jobs, cause)))
            assert s.wait_job(cause)["status"] == status
            assert [picture(j) == alone for j in jobs] == [True] * 3
        assert "imagend_engine_lost_total 1" in s.get("/metrics").body.decode()
    finally:
        assert s.close() == 0


def test_results_expire():
    s = Server("--keep-seconds", "1")
    try:
        # Its stream tells of the end, however soon it is forgotten after that.
        with s.held():
            events = watch(s, post(s).json["id"])
        image = list(events)[-1][2]["images"][0]["href"]
        eventually(lambda: s.get(image).status == 404, what="expiry")
        assert s.get("/v1/jobs").json["data"] == []
    finally:
        s.close()
    s = Server("--keep-jobs", "3")
    try:
        for _ in range(8):
            s.wait_job(post(s).json["id"])
        eventually(lambda: len(s.get("/v1/jobs").json["data"]) == 3, what="only three jobs")
    finally:
        s.close()


def test_capabilities(s):
    c = s.get("/v1/capabilities").json
    assert c["sizes"] == [64, 256, 1024] and c["samplers"] and c["limits"]["n"] == 16
    assert c["presets"] == [{"name": "fast", "sampler": "ddim", "steps": [3, 2, 1],
                             "guidance_scale": [1, 1, 1]}], c["presets"]
    assert c["timesteps"] == ["fast27", "smart50"]
    assert c["native_sizes"] == ["64x64", "256x256", "1024x1024"]
    assert c["loras"] == [] and c["modules"] == []


def test_parts():
    """What changes the networks, and what the folders bring and is not applied, is named."""
    s = Server("--lora", "fox.safetensors:0.5", env={"FAKE_PARTS": "1"})
    try:
        c = s.get("/v1/capabilities").json
        assert c["loras"] == [{"name": "fox", "scale": 0.5, "stage": 1, "default": True}]
        assert c["modules"] == [{"name": "safety_checker", "stage": 1, "applied": False},
                                {"name": "watermarker", "stage": 2, "applied": False},
                                {"name": "watermarker", "stage": 3, "applied": False}]
    finally:
        s.close()


def png_size(data):
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_shapes():
    """A model whose networks take other shapes: listed, drawn as asked, refused with the nearest."""
    s = Server(env={"FAKE_SHAPES": "8"})
    try:
        sizes = s.get("/v1/capabilities").json["native_sizes"]
        assert len(sizes) == 3 * 47 and "1024x1536" in sizes and "72x128" in sizes and "128x128" not in sizes
        for size, stages in (("64x96", 1), ("256x384", 2), ("1536x1024", 3)):
            j = s.wait_job(post(s, size=size).json["id"])
            assert (j["request"]["size"], j["request"]["drawn"], len(j["request"]["steps"])) == (size, size, stages), j
            assert png_size(s.get(j["images"][0]["href"]).body) == tuple(int(n) for n in size.split("x"))
        # A smaller size that no stage makes is cut from a square.
        j = s.wait_job(post(s, size="100x150").json["id"])
        assert (j["request"]["size"], j["request"]["drawn"]) == ("100x150", 256), j
        says = b"the nearest are 1024x1536 and 1024x1408"
        for path, body in (("/v1/jobs", {"size": "1000x1500"}), ("/v1/images/generations", {"size": "1000x1500"}),
                           ("/sdapi/v1/txt2img", {"width": 1000, "height": 1500})):
            r = s.post(path, {"prompt": "a cat", **body})
            assert r.status in (400, 422) and says in r.body, (path, r.body)
        r = s.post("/sdapi/v1/txt2img", {"prompt": "a cat", "width": 96, "height": 64})
        assert png_size(base64.b64decode(r.json["images"][0])) == (96, 64), r.body
        r = s.post("/v1/images/generations", {"prompt": "a cat", "size": "64x96"})
        assert png_size(base64.b64decode(r.json["data"][0]["b64_json"])) == (64, 96), r.body
    finally:
        s.close()


def test_memory_store():
    s = Server("--store", "memory")
    try:
        j = s.wait_job(post(s).json["id"])
        assert is_png(s.get(j["images"][0]["href"]).body, 64)
    finally:
        assert s.close() == 0


if __name__ == "__main__":
    main(globals())
