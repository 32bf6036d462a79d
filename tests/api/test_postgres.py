"""The PostgreSQL store: a real database, and what happens while it is away."""
import os
import signal
import subprocess
import sys
import threading
import time

import postgres
from harness import PATIENCE, PROGRAM, Server, eventually, is_png, main

_cluster = None


def cluster():
    global _cluster
    _cluster = _cluster or postgres.Cluster()
    return _cluster


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


if __name__ == "__main__" and not postgres.programs():
    print("skipped: the package postgresql is not installed")
    sys.exit(77)
if __name__ == "__main__":
    main(globals())
