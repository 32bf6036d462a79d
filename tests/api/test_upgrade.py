"""A rolling upgrade: a program of schema version 1 and this one on one database, in which the older one came first. Its
statements are repeated here as it made them, on the schema that it creates (tests/data/store/postgres-1.sql)."""
import json
import os
import time

import postgres
from fleet import cluster
from harness import Server, eventually, is_png, main

SCHEMA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "store", "postgres-1.sql")
LEASE_MS = 15000


def quote(value):
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


class Sample:
    """A job that has been drawn: the columns whose text both versions write alike, and its image."""

    def __init__(self):
        name = cluster().create_database()
        s = Server("--store", "postgres", "--database", cluster().connection(name), env={"FAKE_STEP_MS": "1"})
        try:
            job = s.post("/v1/jobs", {"prompt": "a", "size": 64, "seed": 1}).json["id"]
            self.image = s.get(s.wait_job(job)["images"][0]["href"]).body
            self.spec, self.used, self.images = (
                cluster().sql(f"SELECT {column} FROM imagend.job", name) for column in ("spec", "used", "images"))
            with s.held():
                s.post("/v1/jobs", {"prompt": "a", "size": 64, "seed": 1})
                self.no_images = cluster().sql("SELECT images FROM imagend.job WHERE state <> 'done'", name)
        finally:
            s.close()


class Older:
    """What a program of version 1 does, in one transaction for each call."""

    def __init__(self, database, sample, name="older/00000001"):
        self.database, self.sample, self.name = database, sample, name
        self.made = 0

    def call(self, *statements):
        return cluster().sql("BEGIN; " + "; ".join(statements) + "; COMMIT", self.database)

    def connect(self):
        with open(SCHEMA) as f:
            self.call(f.read(), "SELECT imagend.tend(60000)")

    def supported(self):
        return int(self.call("SELECT max(oldest) FROM imagend.migration")) <= 1

    def accept(self, room, spec=None):
        """(id, lease)"""
        self.made += 1
        job = f"job_{self.made:032x}"
        values = (job, f"{self.made:032x}", spec or self.sample.spec, self.sample.used, self.sample.no_images, 1000 + self.made,
                  "", None, 0, 0, None, None, 1)
        row = self.call(
            f"SELECT imagend.check_room('{job}', '', NULL, 1, 100, 100)",
            "INSERT INTO imagend.job (id, token, state, spec, used, images, created, started,"
            " finished, expires, fault, message, webhook_tries, webhook_next, owner,"
            " idempotency_key, priority, deadline, input_image, input_mask, waiting, brief, span)"
            " SELECT {}, {}, 'queued', {}, {}, {}, {}, 0, 0, 0, 0, '', 0, 0, {}, {}, {}, {}, {}, {}, {}, false,"
            " max(span) FROM imagend.span ON CONFLICT DO NOTHING".format(*map(quote, values)),
            f"SELECT imagend.start('{job}', '{self.name}', {room}, 0, {LEASE_MS})",
            f"SELECT id, lease FROM imagend.job WHERE id = '{job}'").split("\n")[-1]
        return job, int(row.split("|")[1])

    def claim(self, room):
        rows = self.call(f"SELECT id, lease FROM imagend.claim('{self.name}', {room}, 0, false, {LEASE_MS}, 3)")
        return [(row.split("|")[0], int(row.split("|")[1])) for row in rows.splitlines() if row]

    def beat(self, job, lease):
        """Whether it still has the job."""
        return self.call(
            f"UPDATE imagend.job j SET lease_until = clock_timestamp() + {LEASE_MS} * interval '1 ms',"
            " state = CASE WHEN j.state = 'queued' THEN 'running' ELSE j.state END,"
            " progress = coalesce(b.progress, j.progress)"
            f""" FROM json_to_recordset('[{{"id": "{job}", "token": {lease}, "progress": null}}]'::json)"""
            " AS b (id text, token bigint, progress text)"
            " WHERE j.id = b.id AND j.lease = b.token"
            " AND (j.lease_until IS NOT NULL OR j.state = 'queued')"
            " RETURNING j.id, j.cancel, coalesce(j.previews_until > clock_timestamp(), false)") != ""

    def drawn(self, job, lease):
        now = int(cluster().sql("SELECT imagend.now_ms()", self.database))
        self.call(
            "WITH changed AS (UPDATE imagend.job j SET state = 'done',"
            f" used = {quote(self.sample.used)}, images = {quote(self.sample.images)}, started = {now}, finished = {now},"
            f" expires = {now + 3600000}, fault = 0, message = '', webhook_tries = 0, webhook_next = 0, waiting = 0,"
            f" bytes = {len(self.sample.image)}, lease_until = NULL, progress = ''"
            f" WHERE j.id = '{job}' AND j.lease = {lease} RETURNING span, id)"
            " INSERT INTO imagend.image (span, job, picture, bytes)"
            f" SELECT span, id, 0, decode('{self.sample.image.hex()}', 'hex') FROM changed"
            " ON CONFLICT (span, job, picture) DO UPDATE SET bytes = EXCLUDED.bytes")


def test_an_older_program_goes_on():
    sample = Sample()
    database = cluster().create_database()
    older = Older(database, sample)
    older.connect()
    waits, none = older.accept(0)
    assert older.claim(0) == [] and none == 0
    (waits, taken), = older.claim(1)
    mine, lease = older.accept(1)
    assert lease > taken > 0
    left, none = older.accept(0)
    assert none == 0

    def sql(text):
        return cluster().sql(text, database)
    assert sql("SELECT max(version) FROM imagend.migration") == "1"
    s = Server("--store", "postgres", "--database", cluster().connection(database), "--replica-name", "newer",
               env={"FAKE_SLOTS": "1", "FAKE_STEP_MS": "1"})
    try:
        assert int(sql("SELECT max(version) FROM imagend.migration")) > 1
        # The newer one draws what waits, and nothing that the older one has.
        assert s.wait_job(left)["status"] == "done"
        for job, token in ((mine, lease), (waits, taken)):
            assert s.get("/v1/jobs/" + job).json["status"] == "running"
            assert older.beat(job, token)
            older.drawn(job, token)
            done = s.wait_job(job)
            assert done["status"] == "done" and s.get(done["images"][0]["href"]).body == sample.image
        # The older one connects again, and takes its share of what the newer one accepts.
        older.connect()
        assert older.supported()
        with s.held():
            busy = s.post("/v1/jobs", {"prompt": "a", "size": 64}).json["id"]
            eventually(lambda: s.get("/v1/jobs/" + busy).json["status"] == "running")
            jobs = [s.post("/v1/jobs", {"prompt": "a", "size": 64}).json["id"] for _ in range(2)]
            assert s.get("/v1/jobs/" + jobs[1]).json["position"] == 1
            (job, token), = older.claim(1)
            assert job == jobs[0]
            assert older.beat(job, token)
            older.drawn(job, token)
            assert s.wait_job(job)["status"] == "done"
            # And the newer one draws what the older one accepts.
            late, none = older.accept(0)
            assert none == 0 and s.get("/v1/jobs/" + late).json["position"] == 1
        for job in (busy, jobs[1], late):
            done = s.wait_job(job)
            assert done["status"] == "done" and is_png(s.get(done["images"][0]["href"]).body, 64)
        assert not older.beat(late, token)
        # The older one names a model, which only the newer one looks for.
        other, none = older.accept(0, json.dumps({**json.loads(sample.spec), "model": "photo"}))
        assert s.wait_job(s.post("/v1/jobs", {"prompt": "a", "size": 64}).json["id"])["status"] == "done"
        time.sleep(1.5)
        assert s.get("/v1/jobs/" + other).json["status"] == "queued"
        (job, token), = older.claim(1)
        assert job == other
        older.drawn(job, token)
        assert s.wait_job(other)["status"] == "done"
        assert sql("SELECT sum(queued) || ' ' || sum(running) || ' ' || sum(backlog) FROM imagend.load") == "0 0 0"
    finally:
        assert s.close() == 0


if __name__ == "__main__":
    postgres.require()
    main(globals())
