"""Durability: accepted jobs survive the process, however it ends."""
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time

from harness import PATIENCE, PROGRAM, Server, eventually, is_png, main, skip

ROUNDS = int(os.environ.get("STORE_ROUNDS", "30"))


def post(s, **fields):
    return s.post("/v1/jobs", {"prompt": "a", "size": 64, **fields})


def test_results_survive_a_restart():
    s = Server()
    j = s.wait_job(post(s, seed=4, n=2).json["id"])
    before = s.get(j["images"][1]["href"]).body
    assert s.stop() == 0
    s.start()
    try:
        again = s.get("/v1/jobs/" + j["id"]).json
        for key in ("status", "created", "finished", "expires", "request", "model"):
            assert again[key] == j[key], key
        assert [(i["stage"], i["step"], i["steps"]) for i in again["images"]] == [(0, 8, 8)] * 2, again["images"]
        assert s.get(again["images"][1]["href"]).body == before and is_png(before)
        assert s.get("/v1/jobs").json["data"][0]["id"] == j["id"]
        events = list(s.events("GET", f"/v1/jobs/{j['id']}/events"))
        assert [e[0] for e in events] == ["status", "done"]
        assert s.delete("/v1/jobs/" + j["id"]).status == 204
        assert os.listdir(os.path.join(s.folder, "data", "images")) == []
    finally:
        assert s.close() == 0


def test_a_job_that_is_deleted_while_its_images_are_encoded():
    """Files that are written after the job has gone do not stay."""
    s = Server(env={"FAKE_SLOTS": "16", "FAKE_STEP_MS": "5"})
    try:
        for _ in range(2):
            job = post(s, size=1024, n=16).json["id"]
            eventually(lambda: s.get("/v1/capabilities").json["running"])
            eventually(lambda: not s.get("/v1/capabilities").json["running"], what="images that are encoded")
            assert s.delete("/v1/jobs/" + job).json["status"] == "cancelled"
            assert s.delete("/v1/jobs/" + job).status == 204
        assert s.stop() == 0
        assert os.listdir(os.path.join(s.folder, "data", "images")) == []
    finally:
        s.close()


def test_other_ends_survive_a_restart():
    """A job that failed or was cancelled is not drawn again."""
    s = Server(env={"FAKE_SLOTS": "1"})
    failed = s.wait_job(post(s, prompt="[fail]").json["id"])
    with s.held():
        jobs = [post(s, steps=20).json["id"] for _ in range(2)]
        eventually(lambda: s.get("/v1/jobs/" + jobs[0]).json["status"] == "running")
        for job in jobs:  # one that runs, one that waits
            assert s.delete("/v1/jobs/" + job).json["status"] == "cancelled"
    before = [s.get("/v1/jobs/" + job).json for job in (failed["id"], *jobs)]
    assert [j["status"] for j in before] == ["failed", "cancelled", "cancelled"], before
    assert s.stop() == 0
    s.start()
    try:
        for j in before:
            again = s.get("/v1/jobs/" + j["id"]).json
            for key in ("status", "finished", "expires", "error"):
                assert again.get(key) == j.get(key), (key, again, j)
    finally:
        assert s.close() == 0


def test_a_repeated_request_has_the_same_answer_after_a_restart():
    s = Server()
    h = {"Idempotency-Key": "k"}
    first = s.draw("a red sphere", seed=1, headers=h).json
    assert first["usage"]["input_tokens"] == 4
    s.stop()
    s.start()
    try:
        assert s.draw("a red sphere", seed=1, headers=h).json == first
    finally:
        assert s.close() == 0


def test_idempotency_survives_a_restart():
    s = Server()
    h = {"Idempotency-Key": "k"}
    first = s.request("POST", "/v1/jobs", {"prompt": "a", "size": 64}, h).json["id"]
    s.wait_job(first)
    s.stop()
    s.start()
    try:
        assert s.request("POST", "/v1/jobs", {"prompt": "a", "size": 64}, h).json["id"] == first
        assert s.request("POST", "/v1/jobs", {"prompt": "b", "size": 64}, h).status == 409
    finally:
        assert s.close() == 0


def test_kill_at_random_moments_loses_nothing():
    """Several clients submit while the server is killed again and again."""
    s = Server(env={"FAKE_STEP_MS": "1", "FAKE_SLOTS": "4"})
    accepted, done, stop = {}, {}, threading.Event()
    lock = threading.Lock()

    def client(number):
        count = 0
        while not stop.is_set():
            key = f"{number}-{count}"
            try:
                a = s.request("POST", "/v1/jobs", {"prompt": key, "size": 64, "seed": 1},
                              {"Idempotency-Key": key})
            except Exception:
                time.sleep(0.02)
                continue
            if a.status == 202:
                with lock:
                    # A repeated request after a crash must find the same job, or none was made.
                    assert accepted.setdefault(key, a.json["id"]) == a.json["id"]
                count += 1
                time.sleep(0.02)
            else:
                time.sleep(0.05)

    def reader():
        while not stop.is_set():
            with lock:
                items = list(accepted.items())
            for key, job in items[-20:]:
                try:
                    j = s.get("/v1/jobs/" + job).json
                    if j["status"] == "done":
                        image = s.get(j["images"][0]["href"])
                        if image.status == 200:
                            with lock:
                                done.setdefault(key, (j["finished"], image.body))
                except Exception:
                    pass
            time.sleep(0.02)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(3)]
    threads.append(threading.Thread(target=reader))
    for t in threads:
        t.start()
    rng = random.Random(7)
    try:
        for killed in range(ROUNDS):
            time.sleep(rng.uniform(0.02, 0.25))
            # On a slow machine a round may end before a job was accepted.
            eventually(lambda: len(accepted) > killed, what="a job for each kill")
            s.process.send_signal(signal.SIGKILL)
            s.process.wait()
            s.start()
        eventually(lambda: len(accepted) > ROUNDS, what="a job after the last kill")
        time.sleep(0.2)
    finally:
        stop.set()
        for t in threads:
            t.join(PATIENCE)
    assert len(accepted) > ROUNDS
    try:
        assert len(set(accepted.values())) == len(accepted)
        for key, job in accepted.items():
            j = s.wait_job(job)
            assert j["status"] == "done", (key, j)
            image = s.get(j["images"][0]["href"])
            assert image.status == 200 and is_png(image.body, 64), key
            if key in done:
                # Finished once, and never again: the same time, the same bytes.
                assert done[key] == (j["finished"], image.body), key
    finally:
        assert s.close() == 0


def test_two_servers_do_not_share_a_folder():
    s = Server()
    try:
        r = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir",
                            os.path.join(s.folder, "data")], capture_output=True, text=True,
                           timeout=PATIENCE)
        assert r.returncode == 1 and "in use by another process" in r.stderr, r
        assert s.wait_job(post(s).json["id"])["status"] == "done"
    finally:
        assert s.close() == 0


def test_a_locked_store_is_refused_and_an_open_one_is_locked():
    s = Server()
    path = os.path.join(s.folder, "data", "jobs.sqlite")
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        for statement in ("BEGIN EXCLUSIVE", "SELECT count(*) FROM job", "DELETE FROM job"):
            try:
                other.execute(statement)
                raise AssertionError(statement + " was let in")
            except sqlite3.OperationalError as error:
                assert "locked" in str(error), error
        assert s.wait_job(post(s).json["id"])["status"] == "done"
        assert s.stop() == 0
        other.execute("BEGIN EXCLUSIVE")
        r = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir",
                            os.path.dirname(path)], capture_output=True, text=True, timeout=PATIENCE)
        assert r.returncode == 1 and "is in use by another process" in r.stderr, r
        other.close()
        s.start()
        assert len(s.get("/v1/jobs").json["data"]) == 1
    finally:
        other.close()
        assert s.close() == 0


# What happened to a row: SQL for the job ?1. Each costs that job only.
DAMAGED_ROWS = {
    "state": "UPDATE job SET state = 'dreaming' WHERE id = ?1",
    "no state": "UPDATE job SET state = '' WHERE id = ?1",
    "spec cut": "UPDATE job SET spec = substr(spec, 1, 40) WHERE id = ?1",
    "no spec": "UPDATE job SET spec = '' WHERE id = ?1",
    "spec of zeros": "UPDATE job SET spec = zeroblob(200) WHERE id = ?1",
    "spec of bytes": "UPDATE job SET spec = CAST(x'ff00fe' AS TEXT) WHERE id = ?1",
    "spec without prompt": "UPDATE job SET spec = '{}' WHERE id = ?1",
    "spec of another type": "UPDATE job SET spec = '[1]' WHERE id = ?1",
    "n": "UPDATE job SET spec = replace(spec, '\"n\":1', '\"n\":99') WHERE id = ?1",
    "format": "UPDATE job SET spec = replace(spec, '\"png\"', '\"gif\"') WHERE id = ?1",
    "stages": "UPDATE job SET used = replace(used, '\"stages\":1', '\"stages\":7') WHERE id = ?1",
    "steps": "UPDATE job SET used = replace(used, '\"steps\":[', '\"steps\":[\"x\",') WHERE id = ?1",
    "no settings": "UPDATE job SET used = '{}' WHERE id = ?1",
    "settings cut": "UPDATE job SET used = substr(used, 1, 30) WHERE id = ?1",
    "images": "UPDATE job SET images = '' WHERE id = ?1",
    "no image": "UPDATE job SET images = '[]' WHERE id = ?1",
    "huge image": "UPDATE job SET images = '[[99999999999,64,64]]' WHERE id = ?1",
    "image of words": "UPDATE job SET images = '[[100,64,\"x\"]]' WHERE id = ?1",
    "token": "UPDATE job SET token = '' WHERE id = ?1",
    "token cut": "UPDATE job SET token = substr(token, 1, 31) WHERE id = ?1",
}
DAMAGED_IDS = ("", "job_", "../../etc/passwd", "job_" + "g" * 32, "job_\x1b[31m", "job_" + "0" * 300)


def stop_and_open(s):
    assert s.stop() == 0
    return sqlite3.connect(os.path.join(s.folder, "data", "jobs.sqlite"), isolation_level=None)


def test_a_damaged_row_costs_its_job_only():
    s = Server()
    h = {"Idempotency-Key": "k"}
    names = ["good", *DAMAGED_ROWS, *(f"id {i}" for i in range(len(DAMAGED_IDS))), "also good"]
    ids = {name: post(s, seed=1).json["id"] for name in names}
    kept = s.request("POST", "/v1/jobs", {"prompt": "a", "size": 64}, h).json["id"]
    for job in (*ids.values(), kept):
        assert s.wait_job(job)["status"] == "done"
    images = {job: s.get(f"/v1/jobs/{job}/images/0").body for job in (ids["good"], kept)}
    db = stop_and_open(s)
    for name, sql in DAMAGED_ROWS.items():
        assert db.execute(sql, (ids[name],)).rowcount == 1, name
    for i, damaged in enumerate(DAMAGED_IDS):
        db.execute("UPDATE job SET id = ? WHERE id = ?", (damaged, ids[f"id {i}"]))
    rows = db.execute("SELECT count(*) FROM job").fetchone()[0]
    db.close()
    s.start()
    try:
        log = s.log[s.log.rindex("stopped"):]
        for name in DAMAGED_ROWS:
            line = [x for x in log.splitlines() if ids[name] in x and "skipped" in x]
            assert len(line) == 1 and "error" in line[0], (name, line)
            assert s.get("/v1/jobs/" + ids[name]).status == 404, name
        assert log.count("skipped the damaged job") == len(DAMAGED_ROWS) + len(DAMAGED_IDS), log
        assert '"../../etc/passwd"' in log and "\x1b" not in log and "\\u001b" in log, log
        for job, image in images.items():
            assert s.get(f"/v1/jobs/{job}/images/0").body == image
        assert s.wait_job(ids["also good"])["status"] == "done"
        assert s.request("POST", "/v1/jobs", {"prompt": "a", "size": 64}, h).json["id"] == kept
        assert s.wait_job(post(s).json["id"])["status"] == "done"
        db = stop_and_open(s)  # nothing was thrown away
        assert db.execute("SELECT count(*) FROM job").fetchone()[0] == rows + 1
        db.close()
    finally:
        s.close()


def test_a_damaged_page_costs_its_rows_only():
    """Pages of the database that hold nothing but zeros, one at a time."""
    s = Server()
    ids = [post(s, prompt="word " * 60).json["id"] for _ in range(60)]
    for job in ids:
        assert s.wait_job(job)["status"] == "done"
    path = os.path.join(s.folder, "data", "jobs.sqlite")
    db = stop_and_open(s)
    size = db.execute("PRAGMA page_size").fetchone()[0]
    roots = {n: page for n, page in db.execute("SELECT name, rootpage FROM sqlite_schema")}
    db.close()
    whole = open(path, "rb").read()

    def restart(*zeroed):
        s.stop()
        for name in os.listdir(os.path.dirname(path)):
            if name.startswith("jobs.sqlite"):
                os.unlink(os.path.join(os.path.dirname(path), name))
        data = bytearray(whole)
        for page in zeroed:
            data[page * size:(page + 1) * size] = bytes(size)
        open(path, "wb").write(data)
        begin = len(s.log)
        s.start()
        found = {j for j in ids if s.get("/v1/jobs/" + j).status == 200}
        kept = [n for n in os.listdir(os.path.dirname(path)) if "damaged" in n and "-wal" not in n]
        return found, s.log[begin:], kept

    try:
        pages = range(1, len(whole) // size)
        holding = {p: {j for j in ids if whole[p * size:(p + 1) * size].count(j.encode()) > 0}
                   for p in pages}
        leaves = [p for p in pages if whole[p * size] == 10 and  # a leaf, of the table or its index
                  b"word word" in whole[p * size:(p + 1) * size]]
        assert len(leaves) > 4, leaves
        for page in leaves[:3]:
            found, log, kept = restart(page)
            assert set(ids) - found <= holding[page] and len(found) > 40, (page, len(found))
            assert "the job store was damaged" in log and len(kept) == 1 and kept[0] in log, log
            assert open(os.path.join(os.path.dirname(path), kept[0]), "rb").read(100) == whole[:100]
            assert s.wait_job(post(s).json["id"])["status"] == "done"
            begin = len(s.log)
            assert s.stop() == 0
            s.start()
            assert "damaged" not in s.log[begin:], s.log[begin:]
            assert {j for j in ids if s.get("/v1/jobs/" + j).status == 200} == found
        found, log, kept = restart(roots["job_created"] - 1)
        assert found == set(ids) and "the job store was damaged" in log, log
        assert s.wait_job(post(s).json["id"])["status"] == "done"
        found, log, kept = restart()
        assert found == set(ids) and "damaged" not in log and not kept
        # Nothing can be read: no start, and nothing is touched.
        s.stop()
        data = bytearray(whole)
        data[size:] = bytes(len(whole) - size)
        open(path, "wb").write(data)
        error = refused(s)
        assert "move it away" in error and path in error, error
        assert open(path, "rb").read() == data
    finally:
        s.close()


def test_odd_values_of_a_row_are_harmless():
    """What is not wrong enough to skip the job must not end the server either."""
    s = Server("--webhook-allow", "")
    ids = [post(s, n=2).json["id"] for _ in range(4)]
    for job in ids:
        s.wait_job(job)
    db = stop_and_open(s)
    db.execute("UPDATE job SET webhook_next = 1, webhook_tries = -5 WHERE id = ?", (ids[0],))
    db.execute("UPDATE job SET state = 'failed', fault = 12345, message = ? WHERE id = ?",
               ("x" * 5000, ids[1]))
    db.execute("UPDATE job SET created = -1, finished = -1, used = replace(used, 'fake', ?) "
               "WHERE id = ?", ("m" * 60, ids[2]))
    db.execute("UPDATE job SET state = 'queued', expires = 0 WHERE id = ?", (ids[3],))
    db.close()
    s.start()
    try:
        assert "skipped" not in s.log
        assert s.get("/v1/jobs/" + ids[0]).json["status"] == "done"
        failed = s.get("/v1/jobs/" + ids[1]).json
        assert failed["status"] == "failed" and failed["error"]["message"].startswith("xxx")
        assert s.get("/v1/jobs/" + ids[2]).json["model"].startswith("mmm")
        assert s.wait_job(ids[3])["status"] == "done"
    finally:
        assert s.close() == 0


def test_a_damaged_image_costs_itself_only():
    s = Server()
    h = {"Idempotency-Key": "k"}
    damages = {
        "removed": os.unlink,
        "cut": lambda p: os.truncate(p, 20),
        "empty": lambda p: os.truncate(p, 0),
        "longer": lambda p: open(p, "ab").write(b"x"),
        "zeros": lambda p: open(p, "r+b").write(b"\0" * 16),
        "folder": lambda p: (os.unlink(p), os.mkdir(p)),
        "dangling": lambda p: (os.unlink(p), os.symlink("/nowhere", p)),
    }
    ids, formats = {}, ("png", "jpeg", "webp")
    for i, name in enumerate(damages):
        ids[name] = s.wait_job(post(s, n=2, format=formats[i % 3]).json["id"])
    shared = s.draw(headers=h)
    assert shared.status == 200
    folder = os.path.join(s.folder, "data", "images")
    assert s.stop() == 0
    for i, (name, damage) in enumerate(damages.items()):
        damage(os.path.join(folder, f"{ids[name]['id']}-1.{formats[i % 3]}"))
    os.unlink(os.path.join(folder, shared.headers["x-imagend-job"] + "-0.png"))
    s.start()
    try:
        log = s.log[s.log.rindex("stopped"):]
        assert log.count("skipped the damaged image") == len(damages) + 1, log
        for name, j in ids.items():
            assert log.count(j["id"] + "-1.") == 1 and j["id"] + "-0." not in log, (name, log)
            again = s.get("/v1/jobs/" + j["id"]).json
            assert again["status"] == "done", name
            assert [x["status"] for x in again["images"]] == ["done", "failed"], (name, again)
            for key in ("href", "bytes", "width", "height"):
                assert again["images"][0][key] == j["images"][0][key], name
            assert len(s.get(j["images"][0]["href"]).body) == j["images"][0]["bytes"], name
            for lost in (s.get(j["images"][1]["href"]),
                         s.get(j["images"][1]["url"][j["images"][1]["url"].index("/v1/"):])):
                assert lost.status == 404 and "no longer available" in lost.json["error"]["message"], (name, lost.body)
                assert s.folder not in lost.body.decode() and "data/" not in lost.body.decode()
        assert s.draw(headers=h).status == 404
        assert s.wait_job(post(s).json["id"])["status"] == "done"
        # One that goes while the server runs.
        j = s.wait_job(post(s).json["id"])
        os.unlink(os.path.join(folder, j["id"] + "-0.png"))
        lost = s.get(j["images"][0]["href"])
        assert lost.status == 404 and s.folder not in lost.body.decode(), lost.body
        assert os.path.join(folder, j["id"] + "-0.png") in s.log
        assert s.delete("/v1/jobs/" + j["id"]).status == 204
    finally:
        assert s.close() == 0


def test_jobs_of_version_1_are_taken_over():
    s = Server(start=False)
    os.makedirs(os.path.join(s.folder, "data", "images"))
    path = os.path.join(s.folder, "data", "jobs.sqlite")
    db = sqlite3.connect(path, isolation_level=None)
    with open(os.path.join(os.path.dirname(__file__), "..", "data", "store", "version-1.sql"),
              encoding="utf-8") as f:
        db.executescript(f.read())
    db.close()
    for name, head, size in (("job_f9c987feeb360565678313533b16cd0c-0.webp", b"RIFF0000WEBP", 1214),
                             ("job_f9c987feeb360565678313533b16cd0c-1.webp", b"RIFF0000WEBP", 1380),
                             ("job_d667659fa08724d4cbdee6a63d43cb1e-0.png", b"\x89PNG\r\n\x1a\n", 198)):
        with open(os.path.join(s.folder, "data", "images", name), "wb") as f:
            f.write(head.ljust(size, b"."))
    s.start()
    for _ in range(2):  # as it was taken over, and as it was written again
        j = s.get("/v1/jobs/job_f9c987feeb360565678313533b16cd0c").json
        r = j["request"]
        assert j["status"] == "done" and j["model"] == "fake", j
        assert (r["prompt"], r["negative_prompt"]) == ('a "red" ball \u20ac', "blue"), r
        assert (r["n"], r["size"], r["seed"]) == (2, 256, 9223372036854775807), r
        assert r["steps"] == [5, 3] and r["guidance_scale"] == [2.5, 1.25], r
        assert r["noise_level"] == [-1, 40] and r["sampler"] == "ddim", r
        assert (j["created"], j["started"], j["finished"], j["expires"], r["tokens"]) == (
            1795676662.159, 1795676662.161, 1795676662.171, 4102444800, 7), j
        assert (r["format"], r["quality"], r["previews"], r["priority"]) == ("webp", 77, 3, 4), r
        assert [(i["bytes"], i["width"], i["height"]) for i in j["images"]] == [(1214, 256, 256),
                                                                               (1380, 256, 256)]
        assert len(s.get(j["images"][1]["href"]).body) == 1380
        j = s.get("/v1/jobs/job_d667659fa08724d4cbdee6a63d43cb1e").json
        assert j["request"]["preset"] == "fast" and j["images"][0]["url"].endswith(
            "/b359ddd137a111c0ab25c509867f60f0-0.png"), j
        j = s.get("/v1/jobs/job_9bc1fc5fbb6e6e8e57c3ee0bea7212d9").json
        assert j["status"] == "failed" and j["error"]["message"].startswith("the picture became"), j
        # The one that waited is drawn.
        j = s.wait_job("job_3353e11754f6a1c0ca0f394d35207fd0")
        assert j["status"] == "done" and j["request"]["seed"] == 8, j
        assert is_png(s.get(j["images"][0]["href"]).body, 64)
        assert s.get("/v1/jobs/job_0000000000000000000000000000000d").status == 404
        db = stop_and_open(s)
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
        assert db.execute("SELECT id FROM job_1").fetchall() == \
            [("job_0000000000000000000000000000000d",)]
        db.close()
        s.start()
    assert s.log.count("converted 4 jobs") == 1
    assert s.log.count("job_0000000000000000000000000000000d stays in the table job_1") == 1, s.log
    assert s.close() == 0


def test_jobs_of_version_2_are_taken_over():
    s = Server(start=False)
    os.makedirs(os.path.join(s.folder, "data", "images"))
    db = sqlite3.connect(os.path.join(s.folder, "data", "jobs.sqlite"), isolation_level=None)
    with open(os.path.join(os.path.dirname(__file__), "..", "data", "store", "version-2.sql"),
              encoding="utf-8") as f:
        db.executescript(f.read())
    db.close()
    one, two, three, older = ("job_" + digit * 32 for digit in "1234")
    for job, size in ((one + "-0", 569), (two + "-0", 569), (two + "-1", 580), (older + "-0", 569)):
        with open(os.path.join(s.folder, "data", "images", job + ".png"), "wb") as f:
            f.write(b"\x89PNG\r\n\x1a\n".ljust(size, b"."))
    s.start()
    try:
        assert s.wait_job(three)["request"]["seed"] == 3  # it waited
        for status in (None, "done"):
            page = s.get("/v1/jobs" + (f"?status={status}" if status else "")).json["data"]
            assert [j["id"] for j in page] == [three, two, one, older], page
        assert [i["bytes"] for i in s.get("/v1/jobs/" + two).json["images"]] == [569, 580]
        h = {"Idempotency-Key": "k1"}
        again = s.request("POST", "/v1/jobs", {"prompt": "one", "size": 64, "seed": 1}, h)
        assert again.json["id"] == one, again.body
        assert s.wait_job(post(s).json["id"])["status"] == "done"
    finally:
        assert s.close() == 0


def refused(s):
    r = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir",
                        os.path.join(s.folder, "data")], capture_output=True, text=True,
                       timeout=PATIENCE)
    assert r.returncode == 1, r
    return r.stderr


def test_a_newer_or_foreign_database_is_refused_and_left_alone():
    s = Server()
    job = s.wait_job(post(s).json["id"])
    path = os.path.join(s.folder, "data", "jobs.sqlite")
    db = stop_and_open(s)
    db.execute("PRAGMA user_version = 99")
    db.close()
    error = refused(s)
    assert "version 99" in error and "supports version 3" in error and "data-dir" in error, error
    assert os.path.join(s.folder, "data") in error
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA user_version = 3")
    db.close()
    s.start()
    assert s.get("/v1/jobs/" + job["id"]).json["status"] == "done"
    db = stop_and_open(s)
    db.execute("DROP TABLE job")
    db.execute("CREATE TABLE job (id TEXT, boss TEXT)")
    db.execute("INSERT INTO job VALUES ('1', 'me')")
    db.execute("PRAGMA user_version = 0")
    db.close()
    assert "job store" in refused(s)
    db = sqlite3.connect(path)
    assert db.execute("SELECT * FROM job").fetchall() == [("1", "me")]
    db.close()
    with open(path, "wb") as f:
        f.write(b"this is no database" * 100)
    assert "job store" in refused(s)
    assert open(path, "rb").read() == b"this is no database" * 100
    shutil.rmtree(s.folder)


@contextlib.contextmanager
def small_disk():
    """A server whose data is on a file system of 400 KB."""
    folder = tempfile.mkdtemp()
    # The server alone sees this mount; whoever is not root becomes it in a namespace of its own.
    small = ["unshare", "--mount", *(["--user", "--map-root-user"] if os.getuid() else []), "sh", "-c",
             'mount -t tmpfs -o size=400k none "$0" && exec "$@"', folder]
    try:
        if subprocess.run([*small, "true"], capture_output=True).returncode:
            skip("no right to mount a small file system")
        s = Server("--data-dir", folder, wrap=small)
        try:
            yield s
        finally:
            s.close()
    finally:
        os.rmdir(folder)


def delete_all(s):
    for job in s.get("/v1/jobs?limit=100").json["data"]:
        s.delete("/v1/jobs/" + job["id"])


def test_full_disk_fails_jobs_and_not_the_server():
    with small_disk() as s:
        statuses = set()
        for i in range(60):
            a = post(s, size=1024, n=4) if i % 2 else post(s)  # these fill the disk with images, not with rows
            if a.status != 202:
                statuses.add(a.status)
                assert a.status == 507 and a.json["error"]["message"]
                continue
            j = s.wait_job(a.json["id"])
            statuses.add(j["status"])
            if j["status"] == "failed":
                assert j["error"]["code"] == "io"
            for image in j["images"]:
                if image["status"] == "done":  # whole
                    assert s.get(image["href"]).body.endswith(b"IEND\xaeB`\x82"), j
        assert "done" in statuses and ("failed" in statuses or 507 in statuses), statuses
        assert s.get("/healthz").status == 200
        # Synchronous requests need no disk.
        assert s.draw().status == 200
        delete_all(s)
        eventually(lambda: post(s).status == 202, what="room again")


def test_a_disk_full_of_rows_has_room_again():
    """Deleting needs room itself, as every change does."""
    def fill():
        for done in range(200):
            a = post(s)
            if a.status != 202 or s.wait_job(a.json["id"])["status"] != "done":
                return done
        raise AssertionError("the disk is not full")

    with small_disk() as s:
        first = fill()
        assert first > 5, first
        for _ in range(5):
            delete_all(s)
        assert s.get("/v1/jobs").json["data"] == []
        assert fill() >= first / 2


if __name__ == "__main__":
    main(globals())
