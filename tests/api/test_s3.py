"""Results in an S3-compatible store: a real bucket whose signatures are checked, and what happens while it is away."""
import os
import re
import signal
import ssl
import subprocess
import time

import postgres
import s3
from harness import Server, eventually, is_png, main, needs
from test_postgres import cluster, cpu_seconds, post, refused


class Fleet:
    """Replicas on one database and one bucket."""

    def __init__(self, count=1, *flags, env=None, prefix="drawn"):
        self.bucket = s3.Bucket()
        self.database = cluster().create_database()
        self.env = {"FAKE_STEP_MS": "1", **(env or {})}
        self.flags = ["--store", "postgres", "--database", cluster().connection(self.database),
                      *self.bucket.flags(prefix), *flags]
        self.replicas = [self.replica() for _ in range(count)]

    def replica(self, *flags, **more):
        return Server(*self.flags, *flags, env=self.env, **more)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for s in self.replicas:
            if error[0]:
                s.process.kill()
            else:
                assert s.stop() == 0
                assert "hunter2" not in s.log, "the secret was logged"
                s.close()
        self.bucket.close()

    def sql(self, text):
        return cluster().sql(text, self.database)


def test_images_are_objects():
    with Fleet(2) as f:
        a, b = f.replicas
        j = a.wait_job(post(a, n=2).json["id"])
        assert j["status"] == "done", j
        found = f.bucket.objects()
        day = time.strftime("%Y-%m-%d", time.gmtime(j["created"]))
        assert len(found) == 2 and all(re.fullmatch(rf"drawn/{day}/{j['id']}-[01]-\d+\.png", k) for k in found), found
        assert f.sql("SELECT count(*) FROM imagend.image") == "0"
        for image in j["images"]:
            bodies = {s.get(image["href"]).body for s in f.replicas}
            assert len(bodies) == 1 and is_png(next(iter(bodies)), 64)
            assert bodies.pop() in found.values()
        href, whole = j["images"][1]["href"], b.get(j["images"][1]["href"])
        assert whole.headers["content-type"] == "image/png"
        head = b.request("HEAD", href)
        assert head.status == 200 and head.headers["content-length"] == str(len(whole.body))
        jpeg = a.wait_job(post(a, format="jpeg").json["id"])
        assert any(k.endswith(".jpeg") for k in f.bucket.objects())
        assert b.get(jpeg["images"][0]["href"]).headers["content-type"] == "image/jpeg"
        for job in (j, jpeg):
            assert b.delete("/v1/jobs/" + job["id"]).status == 204
            assert a.get(job["images"][0]["href"]).status == 404
        eventually(lambda: not f.bucket.objects(), what="an empty bucket")


def test_expired_jobs_leave_no_object():
    with Fleet(1, "--keep-seconds", "1", prefix="") as f:
        s = f.replicas[0]
        for i in range(5):
            assert s.wait_job(post(s, prompt=str(i)).json["id"])["status"] == "done"
        eventually(lambda: not f.bucket.objects(), what="an empty bucket")
        assert sum(method == "PUT" for method, _ in f.bucket.requests) == 5
        assert s.get("/metrics").status == 200


def test_the_result_store_is_away():
    """What is drawn waits in memory and is stored later; images get 503 with Retry-After; nothing spins."""
    with Fleet() as f:
        s = f.replicas[0]
        old = s.wait_job(post(s).json["id"])
        with s.held():
            job = post(s, n=2).json["id"]
            eventually(lambda: s.get("/v1/jobs/" + job).json["status"] == "running")
            f.bucket.away()
        eventually(lambda: s.get("/readyz").status == 503, what="a failing /readyz")
        assert "result store" in s.get("/readyz").body.decode()
        later = post(s)
        assert later.status == 202, later.body
        before, begin = cpu_seconds(s), time.monotonic()
        while time.monotonic() - begin < 4:
            a = s.get(old["images"][0]["href"])
            assert a.status == 503 and int(a.headers["retry-after"]) >= 1, (a.status, a.body)
            assert str(f.bucket.port).encode() not in a.body
            assert s.get("/healthz").status == 200
            assert s.get("/v1/jobs/" + job).json["status"] == "running"
            time.sleep(0.2)
        used = cpu_seconds(s) - before
        assert used < 0.2 * (time.monotonic() - begin), f"{used} s of processor time while it waits"
        f.bucket.open()
        eventually(lambda: s.get("/readyz").status == 200, what="a replica that is ready again")
        for j in (s.wait_job(job), s.wait_job(later.json["id"]), old):
            assert j["status"] == "done", j
            assert is_png(s.get(j["images"][-1]["href"]).body, 64)


def test_errors_of_the_result_store():
    """An overloaded store is asked again, one that refuses an image is not."""
    with Fleet() as f:
        s = f.replicas[0]
        f.bucket.answer = 503, "SlowDown"
        job = post(s).json["id"]
        eventually(lambda: s.get("/readyz").status == 503, what="a failing /readyz")
        assert "SlowDown" in s.log
        f.bucket.answer = None
        assert s.wait_job(job)["status"] == "done"
        f.bucket.answer = 400, "EntityTooLarge"
        j = s.wait_job(post(s).json["id"])
        assert j["status"] == "failed" and "result store" in j["error"]["message"], j
        f.bucket.answer = None
        assert s.wait_job(post(s).json["id"])["status"] == "done"
        f.bucket.answer = 404, "NoSuchKey"
        kept = s.get("/v1/jobs").json["data"][0]
        a = s.get(kept["images"][0]["href"])
        assert a.status == 404, (a.status, a.body)


def test_a_new_key_needs_no_restart():
    with Fleet(0) as f:
        f.bucket.key_file("hunter2 of another bucket")
        s = f.replica(start=False)
        f.replicas.append(s)
        s.start(ready=False)
        eventually(lambda: "SignatureDoesNotMatch" in s.log, what="the reason in the log")
        assert s.get("/readyz").status == 503
        f.bucket.key_file()
        s.wait_ready()
        assert s.wait_job(post(s).json["id"])["status"] == "done"


def test_an_unknown_certificate_is_refused():
    """The key is not shown to a server that is not the one that was meant."""
    needs("openssl")
    with Fleet(0) as f:
        cert, key = (os.path.join(f.bucket.folder, name) for name in ("cert.pem", "key.pem"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days",
                        "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
                       check=True, capture_output=True)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(cert, key)
        f.bucket.away()
        f.bucket.open(tls)
        s = f.replica("--s3-endpoint", f"https://127.0.0.1:{f.bucket.port}", start=False)
        f.replicas.append(s)
        s.start(ready=False)
        eventually(lambda: "certificate" in s.log, what="the reason in the log")
        assert s.get("/readyz").status == 503 and not f.bucket.requests


def test_a_replica_that_ends_while_the_store_is_away():
    """It ends; its job is drawn again by another one, once the store is back."""
    with Fleet(2, "--drain-timeout", "0") as f:
        last, other = f.replicas
        with last.held():
            job = post(last).json["id"]
            eventually(lambda: last.get("/v1/jobs/" + job).json["status"] == "running")
            f.bucket.away()
        eventually(lambda: last.get("/readyz").status == 503, what="a failing /readyz")
        begin = time.monotonic()
        code = last.stop()
        assert code == 0, (code, last.log)
        assert time.monotonic() - begin < 30
        f.bucket.open()
        j = other.wait_job(job)
        assert j["status"] == "done", j
        assert is_png(other.get(j["images"][0]["href"]).body, 64)
        assert len(f.bucket.objects()) == 1


def test_a_late_replica_replaces_nothing():
    """SIGSTOP beyond the lease: another replica has drawn the job. The late one stores an object that no row names."""
    with Fleet(2) as f:
        late, other = f.replicas
        with late.held():
            job = post(late, seed=3).json["id"]
            eventually(lambda: late.get("/v1/jobs/" + job).json["status"] == "running")
            late.process.send_signal(signal.SIGSTOP)
        done = other.wait_job(job)
        before = f.bucket.objects()
        late.process.send_signal(signal.SIGCONT)
        assert late.wait_job(job)["finished"] == done["finished"]
        eventually(lambda: "lease ended" in late.log, what="the end of the lease")
        after = f.bucket.objects()
        assert len(before) == 1 and {k: after[k] for k in before} == before
        # Its own upload may have lost its connection while it stood still, and then the store is away at first.
        href, got = done["images"][0]["href"], []
        eventually(lambda: got.append(late.get(href)) or got[-1].status != 503, what="an answer of the result store")
        assert got[-1].status == 200 and got[-1].body == next(iter(before.values())), got[-1].status


def test_images_of_both_stores():
    """Results that are in the database stay readable when a bucket is configured."""
    with Fleet(0) as f:
        s = Server("--store", "postgres", "--database", cluster().connection(f.database), env=f.env)
        old = s.wait_job(post(s).json["id"])
        before = s.get(old["images"][0]["href"]).body
        assert s.close() == 0
        f.replicas.append(f.replica())
        s = f.replicas[0]
        assert s.get(old["images"][0]["href"]).body == before
        new = s.wait_job(post(s).json["id"])
        assert s.get(new["images"][0]["href"]).status == 200
        assert f.sql("SELECT count(*) FROM imagend.image") == "1" and len(f.bucket.objects()) == 1
        assert s.delete("/v1/jobs/" + old["id"]).status == 204
        assert f.sql("SELECT count(*) FROM imagend.image") == "0" and len(f.bucket.objects()) == 1


def test_objects_without_a_row_are_found():
    """A sweep at the start deletes what is older than every job, and nothing that is not the service's."""
    def orphan(day, number):
        return f"drawn/{day}/job_{number:032x}-0-{number + 1}.png"

    with Fleet() as f:
        j = f.replicas[0].wait_job(post(f.replicas[0]).json["id"])
        kept = {*f.bucket.objects(), orphan("2020-01-02", 1), "drawn/2020-01-01/notes.png", "drawn/notes.txt",
                "drawn/2020-01-01/job_0123-0-1.png", orphan("2020-01-01", 2)[:-3] + "gif",
                orphan("2020-01-01", 3).replace("drawn", "other")}
        lost = {orphan("2019-12-31", i) for i in range(3)} | {orphan("2020-01-01", i) for i in range(110)}
        for key in (kept | lost) - set(f.bucket.objects()):
            f.bucket.put(key)
        # The oldest job is of the second day of 2020.
        f.sql(f"UPDATE imagend.job SET created = 1577923200000 WHERE id = '{j['id']}'")
        f.replicas[0].stop()
        f.replicas[0].start()
        eventually(lambda: not lost & set(f.bucket.objects()), what="a clean bucket")
        assert set(f.bucket.objects()) == kept


def test_options_are_checked():
    folder = os.path.dirname(os.path.abspath(__file__))
    database = "--store", "postgres", "--database", "host=db"
    bucket = *database, "--result-store", "s3://images/a/b"
    key = "--s3-key-file", os.path.join(folder, "s3.py")
    for store in ("s3://", "s3://ab", "s3://Images", "s3://images//a", "s3://images/../a", "s3://images/a b",
                  "gs://images", "S3://images", "bucket", ""):
        assert "result-store" in refused(*database, "--result-store", store, *key), store
    assert "requires store = postgres" in refused("--result-store", "s3://images", *key)
    assert "requires s3-key-file" in refused(*bucket)
    assert "no-such-file" in refused(*bucket, "--s3-key-file", "/nonexistent/no-such-file")
    assert "two lines" in refused(*bucket, "--s3-key-file", "/dev/null")
    assert "s3-region" in refused(*bucket, *key, "--s3-region", "a b")
    for url in ("s3.example.org", "ftp://s3.example.org", "https://s3.example.org/path", "https://u:hunter2@host"):
        assert "s3-endpoint must be" in refused(*bucket, *key, "--s3-endpoint", url), url
    for more in (key, ("--s3-endpoint", "https://s3.example.org")):
        assert "remove " + more[0][2:] in refused(*database, *more)


if __name__ == "__main__":
    postgres.require()
    main(globals())
