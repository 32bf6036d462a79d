"""Replicas that share one PostgreSQL behave as one service."""
import base64
import os
import signal
import threading
import time
import zlib

import postgres
from fleet import Fleet, cluster
from harness import b64, eventually, is_png, main, make_png
from test_webhook import SECRET, Receiver

LEASE_S = 15


def job(s, prompt="a", **fields):
    a = s.post("/v1/jobs", {"prompt": prompt, "size": 64, **fields})
    assert a.status == 202, a.body
    return a.json["id"]


def state(s, job):
    return s.get("/v1/jobs/" + job).json["status"]


def metrics(s):
    return s.get("/metrics").body.decode()


def follow(s, job):
    """The events of a job, in a list that grows."""
    seen = []

    def run():
        for event in s.events("GET", f"/v1/jobs/{job}/events"):
            seen.append(event)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return seen, thread


def test_any_replica_answers_for_any_job():
    with Fleet(3) as (a, b, c):
        busy = job(a, "[hang]")
        eventually(lambda: state(b, busy) == "running")
        j = job(a, "cat [slow]", n=2)  # there is no slot for it in the first replica
        seen, thread = follow(a, j)
        # The second image waits for the slot of the replica that has claimed the job.
        eventually(lambda: 'imagend_fleet_pictures{state="running"} 2' in metrics(c))
        assert 'imagend_fleet_pictures{state="queued"} 1' in metrics(c)
        done = c.wait_job(j)
        assert done["status"] == "done" and len(done["images"]) == 2
        for s in (a, b, c):
            images = s.get("/v1/jobs/" + j).json["images"]
            assert [(i["stage"], i["step"], i["steps"]) for i in images] == [(0, 8, 8)] * 2, images
        bodies = [s.get(done["images"][1]["href"]).body for s in (a, b, c)]
        assert is_png(bodies[0], 64) and bodies[0] == bodies[1] == bodies[2]
        thread.join(10)
        assert sum(e[0] in ("done", "failed", "cancelled") for e in seen) == 1, seen
        assert [e[0] for e in seen][-1] == "done"
        assert [(i["step"], i["steps"]) for i in seen[-1][2]["images"]] == [(8, 8)] * 2, seen[-1]
        assert sum(e[0] == "picture" for e in seen) == 2
        for s in (a, b, c):
            assert {x["id"] for x in s.get("/v1/jobs").json["data"]} == {busy, j}
        assert c.delete("/v1/jobs/" + busy).json["status"] == "cancelled"  # it runs in the first one
        assert state(a, busy) == "cancelled"


def test_every_replica_knows_when_a_job_started():
    with Fleet(2) as (a, b):
        j = job(a, "[hang]")
        seen, _ = follow(b, j)
        start = eventually(lambda: b.get("/v1/jobs/" + j).json["started"])
        look = a.get("/v1/jobs/" + j).json
        assert look["status"] == "running" and look["created"] <= start == look["started"], (start, look)
        eventually(lambda: "started" in [e[0] for e in seen])
        waiting = job(b, "[hang]"), job(b, "a")  # the second one has no slot
        eventually(lambda: a.get("/v1/jobs/" + waiting[0]).json["started"])
        assert [s.get("/v1/jobs/" + waiting[1]).json["started"] for s in (a, b)] == [None, None]
        assert b.delete("/v1/jobs/" + j).json["status"] == "cancelled"
        # The end does not change it.
        assert eventually(lambda: state(b, waiting[1]) == "done") and b.get("/v1/jobs/" + j).json["started"] == start
        assert a.delete("/v1/jobs/" + waiting[0]).json["status"] == "cancelled"


def test_a_synchronous_request_to_a_busy_replica():
    with Fleet(2) as (a, b):
        busy = job(a, "[hang]")
        eventually(lambda: state(b, busy) == "running")
        assert is_png(b64(a.draw()), 64)
        assert b.delete("/v1/jobs/" + busy).status == 200


def test_an_input_image_reaches_the_replica_that_draws():
    image = "data:image/png;base64," + base64.b64encode(make_png(64, 64, lambda x, y: (3 * x, 4 * y, 77))).decode()
    with Fleet(2) as (a, b):
        busy = job(a, "[hang]")
        eventually(lambda: state(b, busy) == "running")
        for s in (a, b):  # a new one, and one that is known
            done = b.wait_job(job(a, image=image, strength=0.5))
            assert done["status"] == "done", done
            assert is_png(s.get(done["images"][0]["href"]).body, 64)
        assert b.delete("/v1/jobs/" + busy).status == 200


def noise(edge):
    """A PNG that cannot be compressed."""
    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    rows = b"".join(b"\0" + os.urandom(3 * edge) for _ in range(edge))
    header = 2 * edge.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b""))


def test_an_input_image_that_is_not_at_hand_is_fetched():
    """A replica keeps 64 MB of input images at hand; a response with the first one needs it after many others."""
    image = base64.b64encode(make_png(64, 64, lambda x, y: (3 * x, 4 * y, 77))).decode()
    with Fleet(1) as (a,):
        answers = []
        with a.held():
            busy = job(a)
            eventually(lambda: state(a, busy) == "running")
            thread = threading.Thread(target=lambda: answers.append(a.post(
                "/sdapi/v1/img2img", {"prompt": "a", "init_images": [image], "include_init_images": True})))
            thread.start()
            eventually(lambda: len(a.get("/v1/jobs").json["data"]) == 2)
            for _ in range(6):
                large = job(a, image=base64.b64encode(noise(2000)).decode(), strength=0.5)
                assert a.delete("/v1/jobs/" + large).status == 200
        thread.join()
        assert answers[0].status == 200, answers[0].body
        assert answers[0].json["parameters"]["init_images"] == [image]


def test_another_replica_calls_the_webhook_of_a_lost_one():
    receiver = Receiver(500, 500)
    secret = os.path.join(cluster().folder, "secret")
    with open(secret, "w") as f:
        f.write(SECRET)
    try:
        with Fleet(2, "--webhook-allow", "127.0.0.1", "--webhook-secret-file", secret) as (a, b):
            j = job(a, webhook_url=receiver.url)
            eventually(lambda: len(receiver.got) >= 1)
            a.process.kill()  # it would have tried again
            a.process.wait()
            eventually(lambda: len(receiver.got) >= 3, seconds=60)
            assert set(receiver.told()) == {(j, "done")}
            eventually(lambda: "delivered" in b.log)
    finally:
        receiver.close()


def test_a_synchronous_request_is_waited_for():
    """For longer than a lease, in a slot and in the queue."""
    with Fleet(2) as (a, b):
        answers = []
        with a.held(), b.held():
            threads = [threading.Thread(target=lambda: answers.append(a.draw().status)) for _ in range(3)]
            for t in threads:
                t.start()
            eventually(lambda: [len(a.get("/v1/jobs?status=" + x).json["data"]) for x in ("running", "queued")] == [2, 1])
            time.sleep(LEASE_S + 3)
        for t in threads:
            t.join()
        assert answers == [200] * 3


def test_a_synchronous_job_ends_with_the_replica_that_waits_for_it():
    """Whether it waits or runs elsewhere; not one whose client can come back for the result."""
    with Fleet(2, env={"FAKE_STEP_MS": "200"}) as f:
        a, b = f
        with a.held(), b.held():
            busy = [job(a), job(a)]
            eventually(lambda: all(state(b, j) == "running" for j in busy))

            def ask(prompt, **headers):
                try:
                    a.draw(prompt, steps=1000, headers=headers)
                except OSError:
                    pass
            threads = [threading.Thread(target=ask, args=(prompt,), kwargs=more, daemon=True)
                       for prompt, more in (("first", {}), ("second", {}), ("kept", {"Idempotency-Key": "k"}))]
            for t in threads:
                t.start()
                time.sleep(0.3)
            eventually(lambda: f.sql("SELECT count(*) FROM imagend.job WHERE state = 'queued'") == "3")
            a.process.kill()
            a.process.wait()
        begin = time.monotonic()

        def states():
            rows = f.sql("SELECT spec::json ->> 'prompt', state FROM imagend.job").splitlines()
            return dict(row.split("|") for row in rows)
        # One runs soon; each step takes long enough for it to be cancelled in the middle.
        eventually(lambda: (states()["first"], states()["second"]) == ("cancelled", "cancelled"), seconds=60)
        assert time.monotonic() - begin < LEASE_S + 5 + 3
        eventually(lambda: states()["kept"] == "running")
        kept = f.sql("SELECT id FROM imagend.job WHERE spec::json ->> 'prompt' = 'kept'")
        assert b.delete("/v1/jobs/" + kept).json["status"] == "cancelled"


def test_one_job_for_a_key():
    with Fleet(2) as fleet:
        ids = []

        def post(s):
            a = s.request("POST", "/v1/jobs", {"prompt": "a", "size": 64}, {"Idempotency-Key": "k"})
            ids.append((a.status, a.json["id"]))
        threads = [threading.Thread(target=post, args=(fleet[i % 2],)) for i in range(50)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(ids) == 50 and {i for _, i in ids} == {ids[0][1]}, ids
        assert len(fleet[0].get("/v1/jobs").json["data"]) == 1


def test_a_killed_replica_s_job_is_drawn_again():
    with Fleet(2) as (a, b):
        j = job(a, "cat [slow]", n=3)
        eventually(lambda: sum(i["status"] == "done" for i in b.get("/v1/jobs/" + j).json["images"]) >= 1)
        first = b.get(f"/v1/jobs/{j}/images/0").body
        seen, thread = follow(b, j)
        a.process.kill()
        a.process.wait()
        begin = time.monotonic()
        eventually(lambda: any(e[0] == "done" for e in seen), seconds=60)
        assert time.monotonic() - begin < LEASE_S + 5 + 3
        assert b.get(f"/v1/jobs/{j}/images/0").body == first
        thread.join(10)
        assert sum(e[0] in ("done", "failed", "cancelled") for e in seen) == 1, seen


def test_a_stopped_replica_is_refused_when_it_continues():
    with Fleet(2) as (a, b):
        j = job(a, "cat [slow]", n=2)
        eventually(lambda: state(b, j) == "running")
        seen, thread = follow(b, j)
        a.process.send_signal(signal.SIGSTOP)
        eventually(lambda: any(e[0] == "done" for e in seen), seconds=60)
        done = b.get("/v1/jobs/" + j).json
        a.process.send_signal(signal.SIGCONT)
        eventually(lambda: "the lease ended" in a.log)
        assert "imagend_leases_lost_total 1" in metrics(a) and "imagend_leases_lost_total" not in metrics(b)
        assert "imagend_claims_total 1" in metrics(b)
        assert a.get("/v1/jobs/" + j).json["status"] == "done"
        again = b.get("/v1/jobs/" + j).json
        assert (again["finished"], again["images"]) == (done["finished"], done["images"])
        thread.join(10)
        assert sum(e[0] in ("done", "failed", "cancelled") for e in seen) == 1, seen


def test_a_replica_that_stops_hands_its_jobs_back():
    with Fleet(2, "--drain-timeout", "1") as (a, b):
        j = job(a, "cat [slow]", n=4)
        eventually(lambda: b.get("/v1/jobs/" + j).json["images"][0]["status"] == "done")
        begin = time.monotonic()
        assert a.stop() == 0
        assert b.wait_job(j)["status"] == "done"
        assert time.monotonic() - begin < LEASE_S  # not because the lease ended


if __name__ == "__main__":
    postgres.require()
    main(globals())
