"""The service under load, as tables: bench_serve.py IMAGEND FAKE LOAD ALONE MODEL [PART...].

requests  small requests, with the server on one core and the fake engine
jobs      jobs from acceptance to the stored image, in each store, with the fake engine
streams   event streams that stay open, and how long other clients wait meanwhile
overload  ten times more requests than the engine can handle, with a short queue; both engines
engine    images per minute, compared with the engine alone in the same run

Runs all parts if none is named; those with the real engine only if MODEL exists. BENCH_SECONDS is the
duration of a measurement; BENCH_CLIENTS selects the rows of the last table.
"""
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "api"))
IMAGEND, FAKE, LOAD, ALONE, MODEL = sys.argv[1:6]
PARTS = sys.argv[6:] or ["requests", "jobs", "streams", "overload", "engine"]
sys.argv[1:] = [FAKE]
import harness  # noqa: E402

SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
CLIENTS = [int(n) for n in os.environ.get("BENCH_CLIENTS", "1 4 16 64").split()]
IMAGES = "/v1/images/generations"
BODY = '{"prompt":"a red sphere on a wooden table","size":"64x64","seed":1}'


def load_start(server, method, path, body="", **options):
    flags = [f"--{k}" if v is True else f"--{k}={v}" for k, v in options.items()]
    return subprocess.Popen([LOAD, f"--port={server.port}", *flags, method, path, body],
                            stdout=subprocess.PIPE, text=True)


def load(server, method, path, body="", **options):
    process = load_start(server, method, path, body, **{"seconds": SECONDS, **options})
    out = process.communicate()[0]
    assert process.returncode == 0, "load failed"
    return json.loads(out)


def real_server(*flags):
    harness.PROGRAM = IMAGEND
    try:
        s = harness.Server("--store", "memory", "--model", MODEL, *flags, start=False)
        s.start(ready=False)
        s.wait_ready(300)
        assert s.post(IMAGES, BODY).status == 200
        return s
    finally:
        harness.PROGRAM = FAKE


def cpu_seconds(server):
    with open(f"/proc/{server.process.pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def loop_seconds(server):
    """Processor time of the thread that speaks HTTP and follows the jobs."""
    with open(f"/proc/{server.process.pid}/task/{server.process.pid}/schedstat") as f:
        return int(f.read().split()[0]) * 1e-9


def resident_mb(server):
    with open(f"/proc/{server.process.pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def keep_to_one_core(server):
    """The server's threads on the first core, what this program starts on the others."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return
    for thread in os.listdir(f"/proc/{server.process.pid}/task"):
        os.sched_setaffinity(int(thread), cores[:1])
    os.sched_setaffinity(0, cores[1:])


def small_requests():
    cores = os.sched_getaffinity(0)
    s = harness.Server("--store", "memory")
    job = s.post("/v1/jobs", {"prompt": "a", "size": 64}).json["id"]
    s.wait_job(job)
    keep_to_one_core(s)
    print(f"{'on one core':34} {'clients':>8} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8} "
          f"{'cpu us/req':>11} {'failed':>7}")
    for name, clients, *request in (
            ("GET /healthz", 32, "GET", "/healthz"),
            ("GET /v1/jobs/{id}", 32, "GET", "/v1/jobs/" + job),
            ("POST /v1/jobs, refused (400)", 32, "POST", "/v1/jobs", '{"prompt":"a","size":65}'),
            ("POST images, one 64 px picture", 32, "POST", IMAGES, BODY),
            ("POST images, one 64 px picture", 1, "POST", IMAGES, BODY)):
        before = cpu_seconds(s)
        r = load(s, *request, connections=clients)
        kind = "good" if r["good"] else "other"
        used = (cpu_seconds(s) - before) / max(1, r[kind]) * 1e6
        print(f"{name:34} {clients:8} {r[kind] / r['seconds']:8.0f} {r[kind + '_p50_ms']:8.2f} "
              f"{r[kind + '_p99_ms']:8.2f} {used:11.0f} {r['failed']:7}")
    os.sched_setaffinity(0, cores)
    s.close()


def waiting(server):
    text = server.get("/metrics").body.decode()
    return (metric_sum(text, "imagend_queue_pictures")
            + metric_sum(text, "imagend_running_pictures"))


def jobs(rounds=3):
    """Processor time of a whole job, whatever else the machine does: the stores in turns."""
    used, count = {}, {}
    for store in ("memory", "sqlite") * rounds:
        s = harness.Server("--store", store, "--queue-limit", "100000", "--queue-limit-per-key",
                           "100000", "--keep-jobs", "100000")
        for clients in (1, 32):
            before = cpu_seconds(s)
            r = load(s, "POST", "/v1/jobs", '{"prompt":"a","size":64,"seed":1}', connections=clients)
            while waiting(s):
                time.sleep(0.05)
            row = store, clients
            used[row] = used.get(row, 0) + cpu_seconds(s) - before
            count[row] = count.get(row, 0) + r["good"]
        s.close()
    print(f"{'store':>8} {'clients':>8} {'jobs':>8} {'cpu us/job':>11} {'of memory':>10}")
    for store, clients in used:
        us = used[store, clients] / count[store, clients] * 1e6
        memory = used["memory", clients] / count["memory", clients] * 1e6
        print(f"{store:>8} {clients:8} {count[store, clients]:8} {us:11.0f} {us / memory:10.2f}")


def streams(count=10000, opening=15):
    s = harness.Server("--store", "memory", "--drain-timeout", "1", env={"FAKE_STEP_MS": "1000"})
    job = s.post("/v1/jobs", {"prompt": "a", "size": 64, "steps": 900}).json["id"]
    held = load_start(s, "GET", f"/v1/jobs/{job}/events", connections=count,
                      seconds=SECONDS + opening + 5, hold=True)
    time.sleep(opening)
    r = load(s, "GET", "/healthz")
    memory = resident_mb(s)
    opened = json.loads(held.communicate()[0])["opened"]
    print(f"{'streams':>10} {'open':>8} {'/healthz p50 ms':>16} {'p99 ms':>8} {'resident MB':>12}"
          "   (an event per second each)")
    print(f"{count:10} {opened:8} {r['good_p50_ms']:16.2f} {r['good_p99_ms']:8.2f} {memory:12.0f}")
    s.close()


def overload_row(name, s, slots, seconds, rounds=3):
    """Capacity: the queue never empty and nobody refused. Then ten times that, at fixed times. In
    turns, so that what else the machine does meets both."""
    offered, calm, ten = None, [], []

    def rate(runs):  # to the end of a batch each, not to somewhere within one
        return sum(r["good"] for r in runs) / sum(r["good_until"] for r in runs)

    def worst(name):
        return max(r[name] for r in ten)
    for _ in range(rounds):
        calm.append(load(s, "POST", IMAGES, BODY, connections=slots + 8, seconds=seconds))
        offered = offered or 10 * rate(calm)
        ten.append(load(s, "POST", IMAGES, BODY, connections=2000, rate=offered, seconds=seconds))
    print(f"{name:16} {rate(calm):11.2f} {offered:11.1f} {rate(ten):11.2f} "
          f"{rate(ten) / rate(calm):6.1%} {sum(r['busy'] for r in ten):8} "
          f"{worst('busy_p50_ms'):8.2f} {worst('busy_p99_ms'):8.2f} "
          f"{worst('good_p99_ms') / 1e3:12.2f} "
          f"{sum(r['failed'] + r['other'] + r['unsent'] for r in ten):7}", flush=True)


def overload():
    print(f"{'10 x overload':16} {'capacity/s':>11} {'offered/s':>11} {'goodput/s':>11} "
          f"{'ratio':>6} {'refused':>8} {'p50 ms':>8} {'p99 ms':>8} {'drawn p99 s':>12} "
          f"{'lost':>7}")
    s = harness.Server("--store", "memory", "--queue-limit", "16",
                       env={"FAKE_STEP_MS": "5", "FAKE_SLOTS": "4"})
    overload_row("fake, 40 ms", s, 4, SECONDS)
    s.close()
    if os.path.isdir(MODEL):
        s = real_server("--queue-limit", "16")
        slots = s.get("/v1/capabilities").json["slots"]
        overload_row("real, 64 px", s, slots, SECONDS * 5)
        s.close()


def metric_sum(text, name, label=""):
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if line.startswith(name) and label in line)


def outside_engine(s):
    """Seconds from a request's headers to the end of its answer, its stay in queue and stages taken
    off; and how many requests."""
    text = s.get("/metrics").body.decode()
    route = f'route="{IMAGES}"'
    return (metric_sum(text, "imagend_http_request_seconds_sum", route)
            - metric_sum(text, "imagend_queue_wait_seconds_sum")
            - metric_sum(text, "imagend_stage_seconds_sum"),
            metric_sum(text, "imagend_http_request_seconds_count", route))


def alone_seconds(alone, in_flight, pictures):
    alone.stdin.write(f"{in_flight} {pictures}\n")
    alone.stdin.flush()
    return float(alone.stdout.readline())


def engine_row(clients, s, slots, alone):
    """The engine alone draws half its pictures before the service's and half after, so that what
    else the machine does meets both."""
    in_flight = min(clients, slots)
    pictures = max(6, in_flight * 2, clients)
    rounds = max(1, 3 - clients // 16)
    seconds, service, waits = 0.0, 0.0, []
    outside, requests = outside_engine(s)
    cpu = loop_seconds(s)
    for _ in range(rounds):
        seconds += alone_seconds(alone, in_flight, pictures // 2)
        r = load(s, "POST", IMAGES, BODY, connections=clients, count=pictures, seconds=3600)
        assert r["good"] == pictures, r
        service += r["seconds"]
        waits.append((r["good_p50_ms"], r["good_p99_ms"]))
        seconds += alone_seconds(alone, in_flight, pictures - pictures // 2)
    drawn = rounds * pictures
    after, total = outside_engine(s)
    outside = (after - outside) / (total - requests)
    cpu = (loop_seconds(s) - cpu) / drawn
    p50 = sorted(w[0] for w in waits)[rounds // 2] / 1e3
    p99 = max(w[1] for w in waits) / 1e3
    print(f"{clients:8} {drawn / seconds * 60:13.1f} {drawn / service * 60:13.1f} "
          f"{seconds / service:6.1%} {p50:8.2f} {p99:8.2f} {outside * 1e3:10.2f} "
          f"{outside / (service / drawn):8.2%} {cpu * 1e3:11.2f}", flush=True)


def engine():
    s = real_server()
    slots = s.get("/v1/capabilities").json["slots"]
    alone = subprocess.Popen([ALONE, MODEL, "64"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             text=True)
    assert alone.stdout.readline() == "ready\n"
    print(f"64 px, {slots} slots: pictures per minute, and the wait of a client; what a request "
          "spends outside\nqueue and stages (HTTP, PNG, waiting for a core), also as a share of "
          "the time per\npicture; processor time of the loop thread per request, timers and every "
          "step's progress\nincluded")
    print(f"{'clients':>8} {'engine alone':>13} {'service':>13} {'ratio':>6} {'p50 s':>8} "
          f"{'p99 s':>8} {'outside ms':>10} {'share':>8} {'loop cpu ms':>11}")
    for clients in CLIENTS:
        engine_row(clients, s, slots, alone)
    alone.communicate()
    s.close()


if __name__ == "__main__":
    for part in PARTS:
        if part == "engine" and not os.path.isdir(MODEL):
            continue
        {"requests": small_requests, "jobs": jobs, "streams": streams, "overload": overload,
         "engine": engine}[part]()
        print(flush=True)
