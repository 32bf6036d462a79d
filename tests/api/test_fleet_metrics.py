"""Metrics of replicas that share one PostgreSQL: the whole fleet's images, claims, and the database's latency."""
import re
import threading
import time

import postgres
from harness import Server, eventually, main

_cluster = None


def cluster():
    global _cluster
    _cluster = _cluster or postgres.Cluster()
    return _cluster


def replica(database, name):
    return Server("--store", "postgres", "--database", cluster().connection(database), "--replica-name", name,
                  env={"FAKE_SLOTS": "1", "FAKE_STEP_MS": "1"})


def read(s):
    """{name with labels: value} of the samples."""
    lines = s.get("/metrics").body.decode().splitlines()
    return {name: float(value) for name, _, value in
            (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def job(s, prompt="a", **fields):
    a = s.post("/v1/jobs", {"prompt": prompt, "size": 64, **fields})
    assert a.status == 202, a.body
    return a.json["id"]


def fleet(s):
    now = read(s)
    return tuple(now.get(f'imagend_fleet_pictures{{state="{state}"}}') for state in ("queued", "running"))


def test_the_fleet_is_counted_everywhere():
    database = cluster().create_database()
    replicas = [replica(database, name) for name in ("a", "b", "c")]
    try:
        a, b, c = replicas
        # Each replica starts the first one itself; the other images wait for a slot anywhere.
        first = [job(s, "[hang]") for s in replicas]
        waiting = [job(a, n=2), job(b)]
        for s in replicas:
            eventually(lambda: fleet(s) == (3, 3), what="3 waiting, 3 running")
            assert read(s)["imagend_running_pictures"] == 1
            assert read(s)["imagend_queue_pictures"] == 3
            assert "imagend_claims_total" not in read(s)
        for j in first:
            assert c.delete("/v1/jobs/" + j).json["status"] == "cancelled"
        for j in waiting:
            assert b.wait_job(j)["status"] == "done"
        for s in replicas:
            eventually(lambda: fleet(s) == (0, 0), what="nothing left")
        assert sum(read(s).get("imagend_claims_total", 0) for s in replicas) == len(waiting)
    finally:
        for s in replicas:
            s.close()


def test_jobs_are_counted_once_for_the_fleet():
    """However many replicas and jobs there are: once per second, and for at most a hundredth of the time."""
    ended, database = 2000, cluster().create_database()

    def sql(text):
        return cluster().sql(text, database)

    def counts():
        return int(sql("SELECT number FROM imagend.stats"))
    replicas = [replica(database, name) for name in ("a", "b", "c")]
    try:
        done = replicas[0].wait_job(job(replicas[0]))
        sql("INSERT INTO imagend.job (id, token, state, spec, used, images, created, started, finished, expires, fault,"
            " message, webhook_tries, webhook_next, owner, priority, deadline, brief, waiting, bytes, span)"
            " SELECT 'job_' || lpad(i::text, 32, 'f'), j.token, j.state, j.spec, j.used, j.images, j.created, j.started,"
            " j.finished, j.expires, 0, '', 0, 0, '', 0, 0, false, 0, 7, j.span"
            f" FROM imagend.job j, generate_series(2, {ended}) AS i WHERE j.id = '{done['id']}'")
        sql("VACUUM ANALYZE imagend.job")
        for s in replicas:
            eventually(lambda: read(s)["imagend_jobs"] == ended, what="every replica knows the number")
        begin, first = time.monotonic(), counts()
        time.sleep(4)
        found, seconds = counts() - first, time.monotonic() - begin
        assert found <= seconds / 0.9 + 1, (found, seconds)
        # As if counting took a while: nobody counts again before that is a hundredth of the time.
        sql("CREATE OR REPLACE FUNCTION imagend.slow() RETURNS boolean LANGUAGE sql VOLATILE AS"
            " $$ SELECT pg_sleep(0.3) IS NOT NULL $$")
        took = float(sql("BEGIN; ALTER TABLE imagend.job RENAME TO job_then; CREATE VIEW imagend.job AS SELECT * FROM"
                         " imagend.job_then WHERE id <> 'job_' || lpad('2', 32, 'f') OR imagend.slow();"
                         " SELECT imagend.stats(true); SELECT extract(epoch FROM due - clock_timestamp()) FROM"
                         " imagend.stats; ROLLBACK").splitlines()[-1])
        assert 20 < took <= 301, took
        job(replicas[1])
        for s in replicas:
            eventually(lambda: read(s)["imagend_jobs"] == ended + 1)
    finally:
        for s in replicas:
            s.close()


def test_latency_of_the_database():
    """A call that the database delays is seen as long as the loop waited, and others are not."""
    database = cluster().create_database()
    s = replica(database, "a")
    try:
        s.wait_job(job(s))
        before = read(s)
        assert before['imagend_store_seconds_count{call="accept"}'] == 1
        assert before['imagend_store_seconds_count{call="drawn"}'] == 1
        assert before['imagend_store_seconds_sum{call="accept"}'] < 1
        for call in ("claim", "expire"):
            eventually(lambda: read(s).get(f'imagend_store_seconds_count{{call="{call}"}}', 0) >= 2)
        # Somebody holds the table for a second; what waits behind it in the pipeline waits, too.
        lock = threading.Thread(target=cluster().sql, args=(
            "BEGIN; LOCK TABLE imagend.job; SELECT pg_sleep(1.5); COMMIT", database))
        lock.start()
        eventually(lambda: cluster().sql("SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock'"
                                         " AND relation = 'imagend.job'::regclass", database) == "1")
        begin = time.monotonic()
        job(s)
        took = time.monotonic() - begin
        lock.join()
        after = read(s)
        assert after['imagend_store_seconds_count{call="accept"}'] == 2
        more = after['imagend_store_seconds_sum{call="accept"}'] - before['imagend_store_seconds_sum{call="accept"}']
        assert 0.5 < more <= took, (more, took)
        assert after['imagend_store_seconds_bucket{call="accept",le="0.25"}'] == before[
            'imagend_store_seconds_bucket{call="accept",le="0.25"}']
        assert not [name for name in after if "store_failures" in name]
    finally:
        s.close()


def test_failures_of_the_database():
    database = cluster().create_database()
    s = replica(database, "a")
    try:
        s.wait_job(job(s))
        assert not [name for name in read(s) if "store_failures" in name]
        found = read(s)['imagend_store_seconds_count{call="find"}']
        cluster().stop()
        eventually(lambda: s.get("/readyz").status == 503)
        assert s.get("/v1/jobs/job_0").status == 503
        after = read(s)
        assert after['imagend_store_failures_total{call="find"}'] == 1
        assert after['imagend_store_seconds_count{call="find"}'] == found, "a failure has no latency"
        assert after["imagend_ready"] == 0
        cluster().start()
        eventually(lambda: s.get("/readyz").status == 200)
        assert s.get("/v1/jobs/job_0").status == 404
        assert read(s)['imagend_store_failures_total{call="find"}'] == 1
        kinds = {"accept", "beat", "claim", "drawn", "expire", "find"}
        hangs = job(s, "[hang]")
        eventually(lambda: kinds <= {re.search('call="(.*?)"', n)[1] for n in read(s) if "store_seconds_count" in n})
        s.delete("/v1/jobs/" + hangs)
    finally:
        s.close()


if __name__ == "__main__":
    postgres.require()
    main(globals())
