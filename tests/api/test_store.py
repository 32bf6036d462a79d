"""Durability: what was accepted survives the process, whatever ends it."""
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time

from harness import PATIENCE, PROGRAM, Server, eventually, is_png, main

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
        assert s.get(again["images"][1]["href"]).body == before and is_png(before)
        assert s.get("/v1/jobs").json["data"][0]["id"] == j["id"]
        events = list(s.events("GET", f"/v1/jobs/{j['id']}/events"))
        assert [e[0] for e in events] == ["status", "done"]
        assert s.delete("/v1/jobs/" + j["id"]).status == 204
        assert os.listdir(os.path.join(s.folder, "data", "images")) == []
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
        assert r.returncode == 1 and "another process uses" in r.stderr, r
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
        assert r.returncode == 1 and "another process uses the data folder" in r.stderr, r
        other.close()
        s.start()
        assert len(s.get("/v1/jobs").json["data"]) == 1
    finally:
        other.close()
        assert s.close() == 0


def test_damaged_or_newer_database_is_refused():
    s = Server()
    s.stop()
    path = os.path.join(s.folder, "data", "jobs.sqlite")
    r = subprocess.run(["sqlite3", path, "PRAGMA user_version=99"]) if shutil.which("sqlite3") else None
    if r:
        r = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir",
                            os.path.dirname(path)], capture_output=True, text=True, timeout=PATIENCE)
        assert r.returncode == 1 and "version 99" in r.stderr, r
    with open(path, "wb") as f:
        f.write(b"this is no database" * 100)
    for extra in ("-wal", "-shm"):
        if os.path.exists(path + extra):
            os.unlink(path + extra)
    r = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir",
                        os.path.dirname(path)], capture_output=True, text=True, timeout=PATIENCE)
    assert r.returncode == 1 and "job store" in r.stderr, r
    shutil.rmtree(s.folder)


def test_full_disk_fails_jobs_and_not_the_server():
    folder = tempfile.mkdtemp()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", folder],
                                     capture_output=True).returncode:
        shutil.rmtree(folder)
        print("not run: no right to mount a small file system")
        return
    s = None
    try:
        log = tempfile.mkdtemp()
        s = Server("--data-dir", folder, data=log)
        statuses = set()
        for _ in range(60):
            a = post(s)
            if a.status != 202:
                statuses.add(a.status)
                assert a.status == 507 and a.json["error"]["message"]
                continue
            j = s.wait_job(a.json["id"])
            statuses.add(j["status"])
            if j["status"] == "failed":
                assert j["error"]["code"] == "io"
        assert "done" in statuses and ("failed" in statuses or 507 in statuses), statuses
        assert s.get("/healthz").status == 200
        # Synchronous requests need no disk.
        assert s.draw().status == 200
        for job in s.get("/v1/jobs?limit=100").json["data"]:
            s.delete("/v1/jobs/" + job["id"])
        eventually(lambda: post(s).status == 202, what="room again")
        assert s.close() == 0
        s = None
    finally:
        if s:
            s.close()
        subprocess.run(["umount", folder])
        shutil.rmtree(folder, ignore_errors=True)


main(globals())
