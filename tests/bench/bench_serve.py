"""The service under load, as tables: bench_serve.py IMAGEND FAKE LOAD [MODEL].

First with the engine of pictures that cost nothing: what HTTP, queue and store cost. Then, if MODEL
is there, with the real engine: pictures per minute against the engine alone.
"""
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "api"))
IMAGEND, FAKE, LOAD = sys.argv[1:4]
MODEL = sys.argv[4] if len(sys.argv) > 4 else None
sys.argv[1:] = [FAKE]
import harness  # noqa: E402

SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))


def load(server, connections, seconds, *request):
    out = subprocess.run([LOAD, str(server.port), str(connections), str(seconds), *request],
                         capture_output=True, text=True, check=True).stdout
    return json.loads(out)


def cpu_seconds(server):
    with open(f"/proc/{server.process.pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(server):
    with open(f"/proc/{server.process.pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def small_requests():
    print(f"{'request':34} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'cpu us/req':>11} {'failed':>7}")
    s = harness.Server("--store", "memory")
    job = s.post("/v1/jobs", {"prompt": "a", "size": 64}).json["id"]
    s.wait_job(job)
    cases = [("GET /healthz", "GET", "/healthz"), ("GET /v1/jobs/{id}", "GET", "/v1/jobs/" + job),
             ("POST /v1/jobs, refused (400)", "POST", "/v1/jobs", '{"prompt":"a","size":65}'),
             ("POST images, one 64 px picture", "POST", "/v1/images/generations",
              '{"prompt":"a","size":"64x64","seed":1}')]
    for name, *request in cases:
        before = cpu_seconds(s)
        r = load(s, 32, SECONDS, *request)
        used = (cpu_seconds(s) - before) / max(1, r["answers"]) * 1e6
        print(f"{name:34} {r['per_second']:8.0f} {r['p50_ms']:8.2f} {r['p99_ms']:8.2f} {used:11.0f} "
              f"{r['failed']:7}")
    s.close()


def streams(count=9800):
    s = harness.Server("--store", "memory", "--drain-timeout", "1", env={"FAKE_STEP_MS": "1000"})
    job = s.post("/v1/jobs", {"prompt": "a", "size": 64, "steps": 900}).json["id"]
    held = subprocess.Popen([LOAD, str(s.port), str(count), str(SECONDS + 25), "HOLD",
                             f"/v1/jobs/{job}/events"], stdout=subprocess.PIPE, text=True)
    time.sleep(20)
    r = load(s, 1, SECONDS, "GET", "/healthz")
    memory = resident_mb(s)
    opened = json.loads(held.communicate()[0])["opened"]
    print(f"{opened} of {count} event streams open, each with an event per second: /healthz p50 "
          f"{r['p50_ms']:.2f} ms, p99 {r['p99_ms']:.2f} ms; {memory:.0f} MB resident")
    s.close()


def overload():
    s = harness.Server("--store", "memory", "--queue-limit", "16",
                       env={"FAKE_STEP_MS": "5", "FAKE_SLOTS": "4"})
    body = '{"prompt":"a","size":"64x64","seed":1}'
    alone = load(s, 8, SECONDS, "POST", "/v1/images/generations", body)
    ten = load(s, 200, SECONDS, "POST", "/v1/images/generations", body)
    print(f"8 clients: {alone['good'] / SECONDS:.1f} pictures/s; 200 clients against a queue of 16: "
          f"{ten['good'] / SECONDS:.1f} pictures/s ({ten['good'] / alone['good']:.0%}), "
          f"{ten['busy']} refused in p50 {ten['busy_p50_ms']:.1f} ms, p99 {ten['busy_p99_ms']:.1f} ms")
    s.close()


def real():
    harness.PROGRAM = IMAGEND
    s = harness.Server("--store", "memory", "--model", MODEL, start=False)
    s.start(ready=False)
    s.wait_ready(300)
    size = s.get("/v1/capabilities").json["sizes"][0]
    began = time.monotonic()
    request = {"prompt": "a red sphere on a wooden table", "size": f"{size}x{size}", "seed": 1}
    s.post("/v1/images/generations", request)
    print(f"{'clients':>8} {'pictures/min':>13} {'p50 s':>7} {'p99 s':>7}   ({size} px)")
    for clients in (1, 4, 16, 64):
        times, end = [], time.monotonic() + SECONDS * 4

        def client():
            connection = s.connect(timeout=1800)
            while time.monotonic() < end:
                begin = time.monotonic()
                connection.request("POST", "/v1/images/generations", json.dumps(request),
                                   {"Content-Type": "application/json"})
                answer = harness.Answer(connection.getresponse())
                assert answer.status == 200, answer.body
                times.append(time.monotonic() - begin)
        start = time.monotonic()
        threads = [threading.Thread(target=client) for _ in range(clients)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        times.sort()
        minutes = (time.monotonic() - start) / 60
        print(f"{clients:8} {len(times) / minutes:13.1f} {times[len(times) // 2]:7.2f} "
              f"{times[int(len(times) * 0.99)]:7.2f}")
    metrics = dict(line.rsplit(" ", 1) for line in s.get("/metrics").body.decode().splitlines()
                   if line.startswith("imagend_"))
    steps = sum(float(v) for k, v in metrics.items()
                if k.startswith("imagend_step_seconds_sum"))
    print(f"the engine stepped {steps:.1f} s of {time.monotonic() - began:.1f} s: what is left is "
          f"everything else, waiting included")
    s.close()


if __name__ == "__main__":
    small_requests()
    streams()
    overload()
    if MODEL:
        real()
