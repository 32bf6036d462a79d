"""Replicas that share one PostgreSQL and have different models: each draws the jobs of its own."""
import contextlib
import os
import re
import tempfile
import time

import postgres
from fleet import Fleet
from harness import eventually, main


def models(*names):
    """Flags of a replica with these models."""
    path = os.path.join(tempfile.mkdtemp(), "models")
    with open(path, "w") as f:
        f.write("".join(f"[{name}]\nmodel = fake/100m\n" for name in names))
    return "--models-file", path, "--memory-limit", "1G"


def post(s, model=None, **fields):
    a = s.post("/v1/jobs", {"prompt": "a", "size": 64, **({"model": model} if model else {}), **fields})
    assert a.status == 202, a.body
    return a.json["id"]


def state(s, job):
    return s.get("/v1/jobs/" + job).json["status"]


def start(s):
    """A job that has the only slot."""
    job = post(s)
    eventually(lambda: state(s, job) == "running")
    return job


def row(f, job, columns):
    return f.sql(f"SELECT {columns} FROM imagend.job WHERE id = '{job}'")


HAS = [["photo", "draft"], ["draft", "tiny"], ["tiny"]]


def test_each_replica_lists_and_accepts_its_own():
    with Fleet(3, each=[models(*names) for names in HAS]) as f:
        for s, names in zip(f, HAS):
            assert [m["id"] for m in s.get("/v1/models").json["data"]] == names
            for model in ("photo", "draft", "tiny"):
                answer = s.post("/v1/jobs", {"prompt": "a", "size": 64, "model": model})
                assert answer.status == (202 if model in names else 404), (names, model, answer.body)
                assert answer.status == 202 or answer.json["error"]["code"] == "model_not_found", answer.body


def test_each_replica_draws_the_jobs_of_its_own():
    """One is free, the others are busy and accept jobs for each of their models: it draws those that it has. A job
    without a model is for the default of the replica that accepted it, wherever it is drawn."""
    with Fleet(3, each=[models(*names) for names in HAS]) as f:
        for free, names in enumerate(HAS):
            with contextlib.ExitStack() as stack:
                busy = [i for i in range(3) if i != free]
                for i in busy:
                    stack.enter_context(f[i].held())
                running = [start(f[i]) for i in busy]
                jobs = [(post(f[i], model), model or HAS[i][0]) for i in busy for model in [None, *HAS[i]]]
                for job, model in jobs:
                    if model in names:
                        done = f[free].wait_job(job)
                        assert (done["status"], done["model"]) == ("done", model), (free, model, done)
                        assert row(f, job, "replica").startswith(f"r{free}/"), (free, model)
                time.sleep(1.5)  # longer than the time between two claims
                for job, model in jobs:
                    if model not in names:
                        assert row(f, job, "state, claims") == "queued|0", (free, model)
            for job, model in [*jobs, *((job, HAS[i][0]) for job, i in zip(running, busy))]:
                done = f[0].wait_job(job)
                assert (done["status"], done["model"]) == ("done", model), (model, done)


def test_synchronous_requests_without_a_model():
    """A replica that is busy waits for another one, which uses the default of the first."""
    with Fleet(2, each=(models("photo", "draft"), models("draft", "tiny"))) as (a, b):
        for path, body in (("/v1/images/generations", {"prompt": "a", "size": "64x64"}),
                           ("/v1/images/generations", {"prompt": "a", "size": "64x64", "model": "dall-e-3"}),
                           ("/sdapi/v1/txt2img", {"prompt": "a", "width": 64, "height": 64})):
            with b.held():
                running = start(b)
                answer = b.post(path, body)
            assert answer.status == 200, (path, answer.body)
            shown = answer.json.get("model") or re.search(r"Model: ([\w.-]+)", answer.json["info"])[1]
            assert shown == "draft", (path, shown)
            assert b.wait_job(running)["status"] == "done"


def test_a_model_that_no_replica_has():
    """Its jobs wait: until one has it, a client cancels them, or their deadline. Others are not delayed by them."""
    with Fleet(2, "--drain-timeout", "0", each=(models("photo"), models("draft"))) as f:
        a, b = f
        with a.held():
            first, waits, unwanted = start(a), post(a), post(a)
            late = post(a, deadline=int(time.time()) + 4)
            assert a.stop() == 0
        for _ in range(2):
            job = post(b)
            assert row(f, job, "lease > 0") == "t", "it waits for a claim"
            assert b.wait_job(job)["status"] == "done"
        assert b.delete("/v1/jobs/" + unwanted).json["status"] == "cancelled"
        done = b.wait_job(late)
        assert done["status"] == "failed" and "deadline" in done["error"]["message"], done
        for job in (first, waits):
            assert row(f, job, "state, claims") == "queued|0", job
        eventually(lambda: 'imagend_fleet_pictures{state="queued"} 2\n' in b.get("/metrics").body.decode())
        a.start()
        for job in (first, waits):
            done = b.wait_job(job)
            assert (done["status"], done["model"]) == ("done", "photo"), done


def test_a_replica_without_a_models_file():
    """Its jobs are for whatever model a replica has by default; it draws those of its own name, too."""
    with Fleet(2, each=(models("photo", "fake"), ())) as (a, b):
        with b.held():
            running = start(b)
            job = post(b)
            done = a.wait_job(job)
            assert (done["status"], done["model"]) == ("done", "photo"), done
        assert b.wait_job(running)["model"] == "fake"
        with a.held():
            running = start(a)
            mine, other = post(a, "fake"), post(a, "photo")
            assert b.wait_job(mine)["status"] == "done"
            assert state(b, other) == "queued"
        for job in (running, other):
            assert b.wait_job(job)["model"] == "photo"


if __name__ == "__main__":
    postgres.require()
    main(globals())
