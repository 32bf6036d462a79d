"""The PostgreSQL store: a real database, and what happens while it is away."""
import os
import signal
import subprocess
import threading
import time

import postgres
from fleet import Fleet, cluster
from harness import PATIENCE, PROGRAM, Server, eventually, is_png, main, needs


def replica(database, *flags, env=None, **more):
    return Server("--store", "postgres", "--database", cluster().connection(database), *flags,
                  env={"FAKE_STEP_MS": "1", **(env or {})}, **more)


def post(s, key=None, **fields):
    return s.request("POST", "/v1/jobs", {"prompt": "a", "size": 64, **fields},
                     {"Idempotency-Key": key} if key else {})


def test_results_survive_a_restart():
    s = replica(cluster().create_database())
    try:
        j = s.wait_job(post(s, seed=4, n=2).json["id"])
        assert j["status"] == "done", j
        before = s.get(j["images"][1]["href"]).body
        assert is_png(before, 64)
        assert s.stop() == 0
        s.start()
        again = s.get("/v1/jobs/" + j["id"]).json
        for key in ("status", "created", "finished", "expires", "request", "model"):
            assert again[key] == j[key], key
        assert [(i["stage"], i["step"], i["steps"]) for i in again["images"]] == [(0, 8, 8)] * 2, again["images"]
        assert s.get(again["images"][1]["href"]).body == before
        assert s.get("/v1/jobs").json["data"][0]["id"] == j["id"]
        assert s.delete("/v1/jobs/" + j["id"]).status == 204
        assert s.get("/v1/jobs/" + j["id"]).status == 404
        assert s.get(again["images"][1]["href"]).status == 404
    finally:
        assert s.close() == 0


def refused(*flags, env=None):
    r = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir", "/nonexistent/imagend", *flags],
                       capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **(env or {})})
    assert r.returncode in (1, 2), r
    assert len(r.stderr.splitlines()) == 1, r.stderr
    assert "hunter2" not in r.stderr + r.stdout, "a password was shown"
    return r.stderr


def test_options_are_checked():
    store = "--store", "postgres"
    assert "requires database" in refused(*store)
    assert "store is not postgres" in refused("--database", "host=db")
    for text in ("host=db password=hunter2", "postgres://u:hunter2@db/x", "postgres://db/x?password=hunter2"):
        assert "must not contain a password" in refused(*store, "--database", text)
        r = subprocess.run([PROGRAM, "config", "show", *store, "--database", text], capture_output=True, text=True)
        assert r.returncode == 2 and "hunter2" not in r.stdout + r.stderr
    for text in ("hunter2", "host='db hunter2", "service=hunter2"):
        refused(*store, "--database", text)
    assert "replica-name" in refused(*store, "--database", "host=db", "--replica-name", "a b")
    refused(*store, "--database", "host=db", "--database-password-file", "/nonexistent/hunter")

def test_any_replica_answers():
    with Fleet(3) as f:
        jobs = [post(f.next(), prompt=str(i)).json["id"] for i in range(9)]
        for job in jobs:
            bodies = set()
            for s in f.replicas:
                j = s.wait_job(job)
                assert j["status"] == "done", j
                bodies.add(s.get(j["images"][0]["href"]).body)
            assert len(bodies) == 1 and is_png(bodies.pop(), 64)
        for s in f.replicas:
            assert {j["id"] for j in s.get("/v1/jobs").json["data"]} == set(jobs)
        assert f.replicas[0].delete("/v1/jobs/" + jobs[0]).status == 204
        assert f.replicas[1].get("/v1/jobs/" + jobs[0]).status == 404
        assert f.sql("SELECT sum(queued) + sum(running) FROM imagend.load") == "0"


def test_one_key_is_one_job_on_all_replicas():
    with Fleet(2) as f:
        ids, lock = set(), threading.Lock()

        def client(i):
            a = post(f.replicas[i % 2], key="k")
            assert a.status == 202, a.body
            with lock:
                ids.add(a.json["id"])

        threads = [threading.Thread(target=client, args=(i,)) for i in range(50)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(ids) == 1
        assert post(f.replicas[0], key="k", seed=1).status == 409


def test_a_dead_replica_loses_nothing():
    """Its jobs are drawn by another one once their leases have ended: 15 s, and a claim."""
    with Fleet(2, env={"FAKE_STEP_MS": "20"}) as f:
        dead, alive = f.replicas
        with dead.held():
            job = post(dead, n=2).json["id"]
            eventually(lambda: dead.get("/v1/jobs/" + job).json["status"] == "running")
            dead.process.kill()
            dead.process.wait()
        begin = time.monotonic()
        assert alive.wait_job(job)["status"] == "done"
        assert time.monotonic() - begin < 20
        assert f.sql(f"SELECT claims FROM imagend.job WHERE id = '{job}'") == "2"
        dead.start()


def test_a_stopped_replica_does_not_write_later():
    """SIGSTOP beyond the lease: another replica has drawn the job; the late writer changes nothing."""
    with Fleet(2) as f:
        late, other = f.replicas
        with late.held():
            job = post(late, seed=3).json["id"]
            eventually(lambda: late.get("/v1/jobs/" + job).json["status"] == "running")
            late.process.send_signal(signal.SIGSTOP)
        done = other.wait_job(job)
        image = other.get(done["images"][0]["href"]).body
        late.process.send_signal(signal.SIGCONT)
        time.sleep(1)
        assert late.wait_job(job)["finished"] == done["finished"]
        assert other.get("/v1/jobs/" + job).json == done
        assert late.get(done["images"][0]["href"]).body == image
        assert f.sql("SELECT sum(queued) + sum(running) FROM imagend.load") == "0"


def cpu_seconds(s):
    fields = open(f"/proc/{s.process.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_database_away():
    """What runs is drawn and stored later; what is new gets 503 with Retry-After; nothing spins."""
    own = postgres.Cluster()
    s = Server("--store", "postgres", "--database", own.connection(own.create_database(), tcp=True),
               env={"FAKE_STEP_MS": "1"})
    try:
        with s.held():
            job = post(s, key="kept").json["id"]
            eventually(lambda: s.get("/v1/jobs/" + job).json["status"] == "running")
            own.stop()
            eventually(lambda: s.get("/readyz").status == 503)
        before, begin = cpu_seconds(s), time.monotonic()
        while time.monotonic() - begin < 8:
            a = post(s)
            assert a.status == 503 and int(a.headers["retry-after"]) >= 1, (a.status, a.body)
            assert b"host" not in a.body and own.folder.encode() not in a.body
            assert s.get("/healthz").status == 200
            time.sleep(0.5)
        used = cpu_seconds(s) - before
        assert used < 0.2 * (time.monotonic() - begin), f"{used} s of processor time while it waits"
        own.start()
        eventually(lambda: s.get("/readyz").status == 200)
        j = s.wait_job(job)
        assert j["status"] == "done", j
        assert is_png(s.get(j["images"][0]["href"]).body, 64)
        assert post(s, key="kept").json["id"] == job
        assert s.wait_job(post(s).json["id"])["status"] == "done"
    finally:
        own.stop()
        s.close()


def test_a_replica_that_ends_while_the_database_is_away():
    """Its finished image cannot be stored: it ends, and the next replica generates the image again."""
    own = postgres.Cluster()
    flags = ("--store", "postgres", "--database", own.connection(own.create_database(), tcp=True), "--drain-timeout", "0")
    s, other = Server(*flags, env={"FAKE_STEP_MS": "1"}), None
    try:
        with s.held():
            job = post(s).json["id"]
            eventually(lambda: s.get("/v1/jobs/" + job).json["status"] == "running")
            own.stop()
            eventually(lambda: s.get("/readyz").status == 503)
        eventually(lambda: b"imagend_pictures_total 1\n" in s.get("/metrics").body, what="a finished image")
        time.sleep(1)  # it is encoded
        begin = time.monotonic()
        assert s.stop() == 0
        assert time.monotonic() - begin < 30
        assert job + ": the lease ended" in s.log, "it has not let go of the job"
        s.close()
        own.start()
        other = Server(*flags, env={"FAKE_STEP_MS": "1"})
        j = other.wait_job(job)
        assert j["status"] == "done", j
        assert is_png(other.get(j["images"][0]["href"]).body, 64)
        assert other.close() == 0
    finally:
        own.stop()


CRASHES = int(os.environ.get("POSTGRES_CRASHES", "5"))


def test_crashes_of_the_database_lose_nothing():
    """Clients submit while postgres is killed: a job that was answered with 202 is there and ends, once."""
    own = postgres.Cluster()
    s = Server("--store", "postgres", "--database", own.connection(own.create_database()),
               env={"FAKE_STEP_MS": "1"})
    accepted, stop, lock = {}, threading.Event(), threading.Lock()

    def client(number):
        count = 0
        while not stop.is_set():
            key = f"{number}-{count}"
            try:
                a = post(s, key=key, prompt=key)
            except OSError:
                continue
            if a.status == 202:
                with lock:
                    assert accepted.setdefault(key, a.json["id"]) == a.json["id"]
                count += 1
            else:
                assert a.status == 503 and "retry-after" in a.headers, (a.status, a.body)
            time.sleep(0.03)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(3)]
    try:
        for t in threads:
            t.start()
        for crash in range(CRASHES):
            eventually(lambda: len(accepted) > 5 * crash, what="accepted jobs")
            own.crash()
            time.sleep(0.1 * crash)
            own.start()
        eventually(lambda: len(accepted) > 5 * CRASHES, what="accepted jobs")
    finally:
        stop.set()
        for t in threads:
            t.join(PATIENCE)
    try:
        assert len(set(accepted.values())) == len(accepted)
        for key, job in accepted.items():
            j = s.wait_job(job)
            assert j["status"] == "done" and j["request"]["prompt"] == key, j
            assert is_png(s.get(j["images"][0]["href"]).body, 64)
        assert s.log.count("responding") == 0
    finally:
        own.stop()
        s.close()


def test_a_password_is_used_and_not_shown():
    own = postgres.Cluster()
    name = own.create_database()
    own.sql("ALTER ROLE imagend PASSWORD 'hunter2'")
    with open(os.path.join(own.data, "pg_hba.conf"), "w") as hba:
        hba.write("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    own.sql("SELECT pg_reload_conf()")
    secret = os.path.join(own.folder, "secret")
    flags = ("--store", "postgres", "--database", own.connection(name, tcp=True), "--log-level", "debug",
             "--database-password-file", secret)
    with open(secret, "w") as f:
        f.write("wrong\n")
    s = Server(*flags, start=False)
    s.start(ready=False)
    try:
        eventually(lambda: "password authentication failed" in s.log)
        assert s.get("/readyz").status == 503
        assert s.get("/healthz").status == 200
        with open(secret, "w") as f:
            f.write("hunter2\n")
        s.wait_ready()
        assert s.wait_job(post(s).json["id"])["status"] == "done"
        assert "hunter2" not in s.log
        command = open(f"/proc/{s.process.pid}/cmdline").read()
        assert "hunter2" not in command
    finally:
        own.stop()
        s.close()


def test_a_pooler_in_transaction_mode():
    """pgbouncer gives each transaction another session, two for both replicas here."""
    needs("pgbouncer")
    c = cluster()
    name, port = c.create_database(), postgres.free_port()
    settings = os.path.join(c.folder, "pgbouncer.ini")
    with open(settings, "w") as f:
        f.write(f"[databases]\n{name} = host={c.folder} port={c.port} user=imagend\n[pgbouncer]\n"
                f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
                "pool_mode = transaction\ndefault_pool_size = 2\n")
    with open(os.path.join(c.folder, "pgbouncer.log"), "wb") as log:
        pooler = subprocess.Popen(["pgbouncer", settings], stdout=log, stderr=log, cwd="/", **c.user)
    replicas = []
    try:
        for _ in range(2):
            replicas.append(Server("--store", "postgres", "--database",
                                   f"host=127.0.0.1 port={port} user=imagend dbname={name}",
                                   env={"FAKE_STEP_MS": "1"}))
        jobs = [post(replicas[i % 2]).json["id"] for i in range(20)]
        for i, job in enumerate(jobs):
            j = replicas[(i + 1) % 2].wait_job(job)
            assert j["status"] == "done", j
            assert is_png(replicas[i % 2].get(j["images"][0]["href"]).body, 64)
    finally:
        for s in replicas:
            s.close()
        pooler.terminate()
        pooler.wait(PATIENCE)


def test_a_newer_schema_is_refused_only_if_it_says_so():
    """During an upgrade, programs of two versions use one database."""
    with Fleet(1) as f:
        s = f.replicas[0]
        f.sql("INSERT INTO imagend.migration (version, oldest) VALUES (1000, 1)")
        f.sql("ALTER TABLE imagend.job ADD COLUMN next_version text NOT NULL DEFAULT ''")
        s.stop()
        s.start()
        assert s.wait_job(post(s).json["id"])["status"] == "done"
        f.sql("UPDATE imagend.migration SET oldest = 1000 WHERE version = 1000")
        s.stop()
        s.start(ready=False)
        eventually(lambda: "requires a program of schema version 1000" in s.log)
        assert s.get("/readyz").status == 503
        f.sql("DELETE FROM imagend.migration WHERE version = 1000")
        s.wait_ready()


def test_expiry_leaves_the_disk_flat():
    """The images of expired jobs go with their partition, so that nothing waits to be vacuumed."""
    partitions = "FROM pg_inherits WHERE inhparent = 'imagend.image'::regclass"
    with Fleet(1, "--keep-seconds", "1") as f:
        s, sizes = f.replicas[0], []
        for _ in range(8):
            for job in [post(s, n=8).json["id"] for _ in range(4)]:
                eventually(lambda: s.get("/v1/jobs/" + job).status == 404 or s.wait_job(job))
            sizes.append(int(f.sql(f"SELECT sum(pg_total_relation_size(inhrelid)) {partitions}")))
            eventually(lambda: f.sql("SELECT count(*) FROM imagend.job") == "0", what="expiry")
            f.sql("UPDATE imagend.span SET began = began - 100000")  # a partition is one minute wide here
            for _ in range(3):
                f.sql("SELECT imagend.tend(60000)")
            assert f.sql(f"SELECT count(*) {partitions}") == "2"
        assert sizes[0] > 32 * 1000, sizes
        assert max(sizes[4:]) <= 1.2 * max(sizes[1:4]), sizes


if __name__ == "__main__":
    postgres.require()
    main(globals())
