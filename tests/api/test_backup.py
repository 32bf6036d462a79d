"""A backup of the shared database as docs/postgresql.md describes it: what a restored one has."""

import postgres
from harness import Server, eventually, is_png, main

_cluster = None


def cluster():
    global _cluster
    _cluster = _cluster or postgres.Cluster()
    return _cluster


def replica(database, **env):
    return Server("--store", "postgres", "--database", cluster().connection(database),
                  env={"FAKE_SLOTS": "1", "FAKE_STEP_MS": "1", **env})


def copy(database, *flags):
    """Dumps a database while its replicas work, and restores it into a new one."""
    where = "-h", cluster().folder, "-p", str(cluster().port), "-U", "imagend"
    dump, name = f"{cluster().folder}/imagend.dump", cluster().create_database()
    cluster().run("pg_dump", *where, "--schema=imagend", "--format=custom", "--file=" + dump, *flags, database)
    cluster().run("pg_restore", *where, "--exit-on-error", "--dbname=" + name, dump)
    return name


def job(s, prompt="a", **fields):
    a = s.post("/v1/jobs", {"prompt": prompt, "size": 64, **fields})
    assert a.status == 202, a.body
    return a.json["id"]


def test_a_restored_database_has_everything():
    first = replica(cluster().create_database())
    second = None
    try:
        done = first.wait_job(job(first, seed=7))
        runs, waits = job(first, "[slow]", steps=60), job(first, seed=8)
        eventually(lambda: first.get("/v1/jobs/" + runs).json["status"] == "running")
        image = first.get(done["images"][0]["href"]).body
        second = replica(copy(first.flags[-1].rsplit("dbname=", 1)[1]))
        again = second.get("/v1/jobs/" + done["id"]).json
        for key in ("created", "finished", "expires", "request"):
            assert again[key] == done[key], key
        assert again["images"][0]["href"] == done["images"][0]["href"]
        assert second.get(again["images"][0]["href"]).body == image and is_png(image, 64)
        # What waited is generated at once; what ran in the first fleet when its lease has ended.
        assert second.wait_job(waits)["status"] == "done"
        assert second.get("/v1/jobs/" + runs).json["status"] == "running"
        assert second.wait_job(job(second))["status"] == "done", "new jobs have numbers and a partition"
        assert first.get("/v1/jobs/" + waits).json["status"] == "queued", "the databases are two"
        assert first.delete("/v1/jobs/" + runs).status == 200
    finally:
        first.close()
        if second:
            second.close()


def test_a_backup_without_results():
    first = replica(cluster().create_database())
    second = None
    try:
        done = first.wait_job(job(first))
        second = replica(copy(first.flags[-1].rsplit("dbname=", 1)[1], "--exclude-table-data=imagend.image*"))
        assert second.get("/v1/jobs/" + done["id"]).json["status"] == "done"
        a = second.get(done["images"][0]["href"])
        assert a.status == 404 and "missing" in a.json["error"]["message"], (a.status, a.body)
        assert second.wait_job(job(second))["status"] == "done"
    finally:
        first.close()
        if second:
            second.close()


if __name__ == "__main__":
    postgres.require()
    main(globals())
