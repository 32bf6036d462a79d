"""Every metric counts exactly what its row in the table says."""
import base64
import contextlib
import re
import socket
import subprocess

from harness import PROGRAM, STORE, Server, eventually, main, make_png

MIB = 1 << 20


def read(s):
    """{name with labels: value} of the samples."""
    lines = s.get("/metrics").body.decode().splitlines()
    return {name: float(value) for name, _, value in
            (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def test_every_metric():
    s = Server(env={"FAKE_SLOTS": "2", "FAKE_STEP_MS": "2"})
    seen = set()

    def check(name, value, labels=""):
        seen.add(re.sub(r"_(count|sum|bucket)$", "", name))
        wanted = f"imagend_{name}{{{labels}}}" if labels else f"imagend_{name}"
        try:
            eventually(lambda: read(s).get(wanted) == value, what=wanted)
        except AssertionError as e:
            raise AssertionError(f"{wanted} is {read(s).get(wanted)}, not {value}") from e

    try:
        # Drawn: 3 images of 8 steps, one of them with 4 steps of the next stage.
        first = s.draw()
        second = s.draw(n=2, size="64x64")
        large = s.draw(size="256x256")
        assert (first.status, second.status, large.status) == (200, 200, 200)
        check("pictures_total", 4)
        check("step_pictures_sum", 4 * 8, 'stage="1"')
        check("step_pictures_sum", 4, 'stage="2"')
        # The second of two images may join some steps after the first.
        at_most = [read(s)[f'imagend_step_pictures_bucket{{stage="1",le="{n}"}}'] for n in (1, 2, 4)]
        shared = at_most[1] - at_most[0]
        assert at_most == [4 * 8 - 2 * shared, 4 * 8 - shared, 4 * 8 - shared], at_most
        assert 1 <= shared <= 8, at_most
        check("step_seconds_count", 4 * 8 - shared, 'stage="1"')
        check("step_seconds_count", 4, 'stage="2"')
        assert read(s)['imagend_step_seconds_sum{stage="2"}'] >= 4 * 0.002
        check("stage_seconds_count", 4, 'stage="1"')
        check("stage_seconds_count", 1, 'stage="2"')
        assert read(s)['imagend_stage_seconds_sum{stage="2"}'] >= 4 * 0.002
        check("jobs_total", 3, 'state="done"')
        check("job_seconds_count", 3)
        assert read(s)["imagend_job_seconds_sum"] >= 28 * 0.002
        check("queue_wait_seconds_count", 3)
        check("text_cache_misses_total", 1)  # the prompt is the same each time
        check("text_cache_hits_total", 3)
        check("device_memory_bytes", MIB)
        check("device_memory_peak_bytes", MIB)
        check("model_info", 1, 'model="fake",device="no device",dtype="f32"')
        check("model_loaded", 1, 'model="fake"')
        check("model_loads_total", 1, 'model="fake",result="ok"')
        check("model_pictures_total", 4, 'model="fake"')
        check("ready", 1)
        check("slots", 2)

        # Failed, and lost twice: once it is drawn again.
        assert s.draw("[fail]").status == 500
        assert s.draw("[lose always]").status >= 500
        check("pictures_failed_total", 1, 'code="not_finite"')
        check("pictures_failed_total", 1, 'code="device_lost"')
        check("engine_lost_total", 2)
        check("jobs_total", 2, 'state="failed"')
        check("pictures_total", 4)
        s.wait_ready()

        # Waiting, running and cancelled.
        with s.held():
            jobs = [s.post("/v1/jobs", {"prompt": "a", "size": 64}).json["id"] for _ in range(5)]
            check("running_pictures", 2)
            check("queue_pictures", 3)
            for job in jobs:
                s.delete("/v1/jobs/" + job)
            check("running_pictures", 0)
            check("queue_pictures", 0)
        check("jobs_total", 5, 'state="cancelled"')
        check("job_seconds_count", 10)

        # Kept: what the list of jobs says.
        kept = [s.get("/v1/jobs/" + j["id"]).json for j in s.get("/v1/jobs?limit=100").json["data"]]
        check("jobs", len(kept))
        made = s.wait_job(s.post("/v1/jobs", {"prompt": "a", "size": 64, "n": 2}).json["id"])
        check("jobs", len(kept) + 1)
        check("kept_bytes", sum(i["bytes"] for j in [*kept, made] for i in j["images"] if "bytes" in i))
        s.delete("/v1/jobs/" + made["id"])
        check("jobs", len(kept))
        check("kept_bytes", sum(i["bytes"] for j in kept for i in j["images"] if "bytes" in i))
        # Input images, each once however many jobs have it.
        image = make_png(8, 8, lambda x, y: (x, y, 0))
        body = {"prompt": "a", "size": 64, "image": base64.b64encode(image).decode()}
        edits = [s.wait_job(s.post("/v1/jobs", body).json["id"])["id"] for _ in range(2)]
        # In a shared store, input images belong to nobody's memory.
        check("input_bytes", 0 if STORE == "postgres" else len(image))
        for job in edits:
            s.delete("/v1/jobs/" + job)
        check("input_bytes", 0)

        # The store: what is durable is accepted, drawn and removed there; so are synchronous requests, if others share it.
        check("store_seconds_count", 13 if STORE == "postgres" else 8, 'call="accept"')
        check("store_seconds_count", 8 if STORE == "postgres" else 4, 'call="drawn"')
        check("store_seconds_count", 3, 'call="remove"')
        assert read(s)['imagend_store_seconds_sum{call="accept"}'] > 0

        # Requests, by route and status; a path that is none of ours makes no series of its own.
        route = 'method="GET",route="/v1/models/{id}",status="%d"'
        for path, status in (("fake", 200), ("fake", 200), ("none", 404)):
            assert s.get("/v1/models/" + path).status == status
        check("http_requests_total", 2, route % 200)
        check("http_requests_total", 1, route % 404)
        check("http_request_seconds_count", 3, 'route="/v1/models/{id}"')
        check("http_request_seconds_count", 5, 'route="/v1/images/generations"')
        assert read(s)['imagend_http_request_seconds_sum{route="/v1/images/generations"}'] >= 28 * .002
        for path in ("/nowhere", "/nowhere/else"):
            assert s.get(path).status == 404
        check("http_requests_total", 2, 'method="",route="",status="404"')
        with contextlib.ExitStack() as open_ones:
            check("http_connections", 1)  # the one that asks
            for _ in range(3):
                open_ones.enter_context(socket.create_connection(("127.0.0.1", s.port)))
            check("http_connections", 4)
        check("http_connections", 1)

        table = subprocess.run([PROGRAM, "config", "table"], capture_output=True, text=True).stdout
        # Of a shared store, and of one that fails: see test_fleet.py and test_fleet_metrics.py.
        shared = {"fleet_pictures", "claims_total", "leases_lost_total", "store_failures_total"}
        assert set(re.findall(r"^\| `imagend_(\w+)` ", table, re.M)) == seen | shared and not seen & shared
    finally:
        assert s.close() == 0


main(globals())
