"""Replicas that share one PostgreSQL, as tables: bench_fleet.py FAKE LOAD STORE [NAME...].

scale     jobs per second through 1, 2, 4 and 8 replicas whose engines take a fixed time for a step
claims    claims per second and their time with 100 and with 100,000 waiting jobs
accepts   accepted jobs per second and their time, in each store
jobs      processor time of a whole job, from acceptance to the stored image, in each store
traffic   statements, commits and bytes per job
kill      time from kill -9 of a replica to the start and the end of its job in another one
streams   event streams of one job in 4 replicas (BENCH_STREAMS=5000)
single    small requests and jobs on one machine: memory and sqlite, and BENCH_BEFORE, another imagend-fake
overload  ten times more requests than 4 replicas behind HAProxy can handle

Runs all if none is named, in about eight minutes. BENCH_SECONDS is the duration of a measurement. With
TMPDIR=/dev/shm, the files of SQLite and their file system cost no time; the database stays in /tmp. The database, the replicas and the
clients share this machine, so rates are what its cores allow; ratios say more.
"""
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "api"))
FAKE, LOAD, STORE = sys.argv[1:4]
NAMES = sys.argv[4:]
sys.argv[1:] = [FAKE]
import harness  # noqa: E402
import postgres  # noqa: E402

SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
STREAMS = int(os.environ.get("BENCH_STREAMS", "5000"))
BEFORE = os.environ.get("BENCH_BEFORE")
HAPROXY = os.path.join(os.path.dirname(__file__), "..", "..", "deploy", "fleet", "haproxy.cfg")
IMAGES = "/v1/images/generations"
IMAGE = '{"prompt":"a red sphere on a wooden table","size":"64x64","seed":1}'
JOB = '{"prompt":"a red sphere on a wooden table","size":64,"seed":1}'
STEPS = 8  # of an image of the fake engine
WIDE = ["--queue-limit", "1000000", "--queue-limit-per-key", "1000000", "--keep-jobs", "1000000"]
cluster = None


# ---- what is measured with ----------------------------------------------------------------------------------------------

class Fleet:
    def __init__(self, n, *flags, connection=None, **env):
        self.database = cluster.create_database()
        connection = connection or cluster.connection(self.database)
        connection = connection.replace("DATABASE", self.database)
        env = {"FAKE_SLOTS": 1, **env}
        self.replicas = [harness.Server("--store", "postgres", "--database", connection, "--replica-name", f"r{i}",
                                        "--drain-timeout", "1", *flags, env=env) for i in range(n)]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for s in self.replicas:
            s.process.send_signal(signal.SIGTERM)
        for s in self.replicas:
            s.process.wait(60)

    def sql(self, text):
        return cluster.sql(text, self.database)

    def rows(self, text):
        return [line.split("|") for line in self.sql(text).splitlines()]

    def idle(self):
        return self.sql("SELECT coalesce(sum(queued + running), 0) FROM imagend.load") == "0"


def load_start(port, method, path, body="", **options):
    flags = [f"--{k}" if v is True else f"--{k}={v}" for k, v in options.items()]
    return subprocess.Popen([LOAD, f"--port={port}", *flags, method, path, body], stdout=subprocess.PIPE, text=True)


def load(port, method, path, body="", **options):
    process = load_start(port, method, path, body, **{"seconds": SECONDS, **options})
    out = process.communicate()[0]
    assert process.returncode == 0, "load failed"
    return json.loads(out)


def store(kind, where, mode, replicas, lanes, seconds=SECONDS):
    out = subprocess.run([STORE, kind, where, mode, str(replicas), str(lanes), str(seconds)], check=True,
                         stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(out)
    assert not found["failed"], out
    return found


def process_seconds(pid, children=False):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15 if children else 13])) / os.sysconf("SC_CLK_TCK")


def database_seconds():
    """Processor time of PostgreSQL, sessions that have ended included."""
    total = 0
    for pid in cluster.children():
        try:
            total += process_seconds(pid, pid == cluster.process.pid)
        except OSError:
            pass
    return total


def resident_mb(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def table(title, columns):
    print(f"{title:30}" + "".join(f"{c:>14}" for c in columns), flush=True)


def row(title, *values):
    print(f"{title:30}" + "".join(f"{v if isinstance(v, str) else format(v, '.2f'):>14}" for v in values), flush=True)


# ---- measurements -------------------------------------------------------------------------------------------------------

def ends_alone(step_ms, jobs):
    """The same engine without a database."""
    s = one_server("memory", FAKE_SLOTS=1, FAKE_STEP_MS=step_ms)
    ids = [s.post("/v1/jobs", JOB).json["id"] for _ in range(jobs)]
    ends = sorted(s.wait_job(j, 300)["finished"] for j in ids)
    s.close()
    return {"alone": ends}


def ends_of(fleet, jobs):
    for i in range(jobs):
        s = fleet.replicas[i % len(fleet.replicas)]
        assert s.post("/v1/jobs", JOB).status == 202
    harness.eventually(lambda: time.sleep(0.1) or fleet.idle(), seconds=300)
    ends = {}
    for name, finished in fleet.rows("SELECT replica, finished FROM imagend.job ORDER BY finished"):
        ends.setdefault(name, []).append(int(finished) / 1e3)
    assert len(ends) == len(fleet.replicas)
    return ends


def rate_of(ends):
    """Of each replica, between the ends of its first and its last job, so that start and end of the run do not
    count."""
    return sum((len(t) - 1) / (t[-1] - t[0]) for t in ends.values())


def scale(step_ms=100):
    jobs = int(SECONDS * 2.4)
    alone = rate_of(ends_alone(step_ms, jobs))
    one = None
    table(f"images of {STEPS * step_ms} ms, 1 slot", ["jobs/s", "of memory", "of replicas x1", "cpu share"])
    row("memory, 1 server", alone, 1.0)
    for n in (1, 2, 4, 8):
        with Fleet(n, *WIDE, FAKE_STEP_MS=step_ms) as fleet:
            begin, cpu = time.monotonic(), database_seconds()
            rate = rate_of(ends_of(fleet, n * jobs))
            one = one or rate
            used = database_seconds() - cpu + sum(process_seconds(s.process.pid) for s in fleet.replicas)
            used /= (time.monotonic() - begin) * len(os.sched_getaffinity(0))
            row(f"postgres, {n} replicas", rate, f"{rate / (n * alone):.1%}", f"{rate / (n * one):.1%}", f"{used:.0%}")


def fill(database, jobs):
    """Waiting jobs of 100 owners."""
    store("postgres", cluster.connection(database), "accept", 1, 1, 0.1)
    # In small transactions, because each one leaves versions of the owners' counters that only its end lets go.
    cluster.sql(
        f"DO $$ BEGIN PERFORM set_config('synchronous_commit', 'off', false); FOR n IN 0 .. {jobs // 100 - 1} LOOP"
        " INSERT INTO imagend.job (id, token, state, spec, used, images, created, started, finished, expires, fault,"
        " message, webhook_tries, webhook_next, owner, priority, deadline, brief, waiting, span)"
        " SELECT 'job_' || lpad((100 * n + i)::text, 32, 'f'), j.token, 'queued', j.spec, j.used, j.images, j.created,"
        " 0, 0, 0, 0, '', 0, 0, 'o' || i, 0, 0, false, 1, j.span"
        " FROM (SELECT * FROM imagend.job LIMIT 1) j, generate_series(0, 99) AS i; COMMIT; END LOOP; END $$", database)
    cluster.sql("VACUUM ANALYZE", database)


def claims(replicas=4):
    few = None
    table(f"{replicas} connections", ["claims/s", "p50 ms", "p99 ms", "ratio", "p99 ratio", "count p50 ms"])
    for waiting in (100, 100000):
        database = cluster.create_database()
        fill(database, waiting)
        r = store("postgres", cluster.connection(database), "cycle", replicas, 1, 2 * SECONDS)
        count = store("postgres", cluster.connection(database), "expire", 1, 1, 1)["expire"]["p50_ms"]
        c = r["claim"]
        few = few or c
        row(f"{waiting} waiting", c["per_s"], c["p50_ms"], c["p99_ms"], f"{c['per_s'] / few['per_s']:.2f}",
            f"{c['p99_ms'] / few['p99_ms']:.2f}", count)


def stores():
    yield "memory", "", 1
    folder = harness.tempfile.mkdtemp()
    yield "sqlite", folder, 1
    yield "postgres", cluster.connection(cluster.create_database()), 4


def accepts():
    table("calls under way", ["accepts/s", "p50 ms", "p99 ms", "of sqlite"])
    for lanes in (1, 4, 16, 64):
        rates = {}
        for kind, where, replicas in stores():
            replicas = min(replicas, lanes)
            a = store(kind, where, "accept", replicas, lanes // replicas)["accept"]
            rates[kind] = a["per_s"]
            row(f"{kind}, {replicas} replicas, {lanes}", a["per_s"], a["p50_ms"], a["p99_ms"],
                f"{a['per_s'] / rates['sqlite']:.2f}" if "sqlite" in rates else "")


def one_server(kind, *flags, program=None, **env):
    """A single server with a store of this kind."""
    harness.PROGRAM = program or FAKE
    try:
        more = ["--database", cluster.connection(cluster.create_database())] if kind == "postgres" else []
        return harness.Server("--store", kind, *more, *WIDE, *flags, env=env)
    finally:
        harness.PROGRAM = FAKE


def unfinished(s):
    lines = s.get("/metrics").body.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines
               if line.startswith(("imagend_queue_pictures", "imagend_running_pictures")))


def jobs(rounds=2):
    """The stores in turns, so that what else the machine does meets all of them."""
    used, count, kinds = {}, {}, ("memory", "sqlite", "postgres")
    for kind in kinds * rounds:
        s = one_server(kind)
        for clients in (1, 32):
            before, there = process_seconds(s.process.pid), database_seconds()
            r = load(s.port, "POST", "/v1/jobs", JOB, connections=clients)
            while unfinished(s):
                time.sleep(0.05)
            at = kind, clients
            now = used.get(at, (0, 0))
            used[at] = (now[0] + process_seconds(s.process.pid) - before, now[1] + database_seconds() - there)
            count[at] = count.get(at, 0) + r["good"]
        s.close()
    table("processor time per job", ["jobs/s", "imagend us", "database us", "of memory", "of sqlite"])
    for clients in (1, 32):
        for kind in kinds:
            at = kind, clients
            own, there = (v / count[at] * 1e6 for v in used[at])
            other = [sum(used[k, clients]) / count[k, clients] * 1e6 for k in ("memory", "sqlite")]
            row(f"{kind}, {clients} clients", count[at] / rounds / SECONDS, f"{own:.0f}",
                f"{there:.0f}" if kind == "postgres" else "", *((own + there) / o for o in other))


class Relay:
    """Counts the bytes between a replica and the database."""

    def __init__(self):
        self.bytes, self.port = [0, 0], postgres.free_port()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(asyncio.start_server(self.connected, "127.0.0.1", self.port))
        self.loop.run_forever()

    async def copy(self, reader, writer, way):
        while data := await reader.read(1 << 16):
            self.bytes[way] += len(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connected(self, reader, writer):
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", cluster.port)
        await asyncio.gather(self.copy(reader, there_writer, 0), self.copy(there_reader, writer, 1))


def traffic(count=200):
    relay = Relay()
    connection = f"host=127.0.0.1 port={relay.port} user=imagend dbname=DATABASE"
    with Fleet(1, *WIDE, connection=connection, FAKE_STEP_MS=0) as fleet:
        fleet.sql("CREATE EXTENSION pg_stat_statements")

        def now():
            calls = fleet.sql("SELECT sum(calls) FROM pg_stat_statements WHERE dbid ="
                              " (SELECT oid FROM pg_database WHERE datname = current_database())")
            commits, wal = fleet.rows("SELECT xact_commit, pg_current_wal_insert_lsn() - '0/0' FROM pg_stat_database"
                                      " WHERE datname = current_database()")[0]
            return [float(calls), float(commits), *map(float, relay.bytes), float(wal)]

        def during(what):
            begin, before = time.monotonic(), now()
            what()
            time.sleep(1.2)  # statistics of sessions arrive late
            return time.monotonic() - begin, [b - a for a, b in zip(before, now())]

        def draw():
            s = fleet.replicas[0]
            r = load(s.port, "POST", "/v1/jobs", JOB, connections=1, count=count, seconds=600)
            assert r["good"] == count
            harness.eventually(fleet.idle)
        idle_seconds, idle = during(lambda: time.sleep(2 * SECONDS))
        seconds, busy = during(draw)
        size = float(fleet.sql("SELECT avg(bytes) FROM imagend.job"))
        table(f"image of {size:.0f} bytes", ["statements", "commits", "bytes to", "bytes from", "bytes of WAL"])
        row("per job", *((b - i * seconds / idle_seconds) / count for b, i in zip(busy, idle)))
        row("per second, idle", *(i / idle_seconds for i in idle))


def kill_once(out):
    with Fleet(2) as fleet:
        a, b = fleet.replicas
        j = a.post("/v1/jobs", {"prompt": "[slow]", "size": 64, "n": 2, "steps": 20}).json["id"]  # two seconds each
        harness.eventually(lambda: b.get("/v1/jobs/" + j).json["images"][0]["status"] == "done")
        first = fleet.sql("SELECT lease FROM imagend.job")
        a.process.kill()
        begin = time.monotonic()
        a.process.wait()
        harness.eventually(lambda: time.sleep(0.05) or fleet.sql("SELECT lease FROM imagend.job") != first)
        claimed = time.monotonic() - begin
        assert b.wait_job(j)["status"] == "done"
        out.append((claimed, time.monotonic() - begin))


def kill(rounds=4):
    out = []
    threads = [threading.Thread(target=kill_once, args=(out,)) for _ in range(rounds)]
    for t in threads:
        t.start()
        time.sleep(0.3)
    for t in threads:
        t.join()
    assert len(out) == rounds
    table(f"{rounds} kills, seconds", ["least", "mean", "most"])
    for i, name in enumerate(("until claimed", "until done")):
        found = [o[i] for o in out]
        row(name, min(found), sum(found) / rounds, max(found))


def follow(s, job, seen, until):
    for event, _, data in s.events("GET", f"/v1/jobs/{job}/events"):
        if event == "step":
            seen[data["step"]] = time.monotonic()
        if time.monotonic() > until:
            return


def streams(replicas=4, opening=10):
    with Fleet(replicas, FAKE_STEP_MS=1000) as fleet:
        owner = fleet.replicas[0]
        job = owner.post("/v1/jobs", {"prompt": "a", "size": 64, "steps": 900}).json["id"]
        seconds = opening + 2 * SECONDS + 5
        held = [load_start(s.port, "GET", f"/v1/jobs/{job}/events", connections=STREAMS // replicas,
                           seconds=seconds, hold=True) for s in fleet.replicas]
        time.sleep(opening)
        cpu = [process_seconds(s.process.pid) for s in fleet.replicas]
        begin, seen = time.monotonic(), [{} for _ in fleet.replicas]
        threads = [threading.Thread(target=follow, args=(s, job, seen[i], begin + SECONDS))
                   for i, s in enumerate(fleet.replicas)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        took = time.monotonic() - begin
        cpu = [process_seconds(s.process.pid) - c for s, c in zip(fleet.replicas, cpu)]
        asked = [load(s.port, "GET", "/healthz", seconds=SECONDS / replicas) for s in fleet.replicas]
        memory = [resident_mb(s.process.pid) for s in fleet.replicas]
        opened = [json.loads(h.communicate()[0])["opened"] for h in held]
        table("an event per second each", ["streams", "lag p50 ms", "lag max ms", "/healthz p99", "cpu", "MB"])
        for i in range(replicas):
            lags = sorted((seen[i][e] - seen[0][e]) * 1e3 for e in seen[i] if e in seen[0])
            row("drawn here" if not i else f"replica {i + 1}", f"{opened[i]}", lags[len(lags) // 2] if i else "",
                lags[-1] if i else "", asked[i]["good_p99_ms"], f"{cpu[i] / took:.1%}", f"{memory[i]:.0f}")


def small_requests(s, clients=16):
    job = s.post("/v1/jobs", JOB).json["id"]
    s.wait_job(job)
    for name, *request in (("GET /healthz", "GET", "/healthz"), ("GET /v1/jobs/{id}", "GET", "/v1/jobs/" + job),
                           ("POST images", "POST", IMAGES, IMAGE), ("POST /v1/jobs", "POST", "/v1/jobs", JOB)):
        before, began = process_seconds(s.process.pid), time.monotonic()
        r = load(s.port, *request, connections=clients, seconds=SECONDS / 2)
        while unfinished(s):
            time.sleep(0.05)
        done = r["good"] / (time.monotonic() - began)
        yield name, r["good"], r["good"] / r["seconds"], done, process_seconds(s.process.pid) - before


def single(rounds=3):
    """Programs and stores in turns."""
    kinds = [("memory", None), ("sqlite", None)] + [("sqlite", BEFORE)] * bool(BEFORE)
    rate, ended, cpu, count = {}, {}, {}, {}
    for kind in kinds * rounds:
        s = one_server(kind[0], program=kind[1], FAKE_SLOTS=8)
        for name, n, per_second, done, seconds in small_requests(s):
            rate.setdefault((kind, name), []).append(per_second)
            ended.setdefault((kind, name), []).append(done)
            cpu[kind, name] = cpu.get((kind, name), 0) + seconds
            count[kind, name] = count.get((kind, name), 0) + n
        s.close()
    table("one machine, 16 clients", ["requests/s", "done/s", "cpu us", "cpu of memory"] + ["cpu of before"] * bool(BEFORE))
    for kind, name in rate:
        us = {k: cpu[k, name] / count[k, name] * 1e6 for k in kinds}
        title = f"{kind[0]}{' before' if kind[1] else ''}, {name}"
        row(title, *(f"{sorted(r[kind, name])[rounds // 2]:.0f}" for r in (rate, ended)), f"{us[kind]:.0f}", us[kind] / us[kinds[0]],
            *([us[kind] / us[kinds[2]]] if BEFORE else []))


def overload(step_ms=200, slots=4, queue=20, rounds=2):
    """Capacity: the queue never empty and nobody refused. Then ten times that, at fixed times. In turns, so that
    what else the machine does meets both. The queue is two seconds long: replicas count it once per second."""
    with Fleet(4, "--queue-limit", str(queue), "--queue-limit-per-key", str(queue), FAKE_STEP_MS=step_ms, FAKE_SLOTS=slots) as fleet:
        port = postgres.free_port()
        env = {"LISTEN": f"127.0.0.1:{port}", "REPLICA_4": f"127.0.0.1:{fleet.replicas[3].port}",
               **{f"REPLICA_{i + 1}": f"127.0.0.1:{s.port}" for i, s in enumerate(fleet.replicas)}}
        with open(HAPROXY) as f, harness.tempfile.NamedTemporaryFile("w", suffix=".cfg") as config:
            third = [line for line in f if "REPLICA_3-" in line][0]
            f.seek(0)
            config.write(f.read().replace(third, third + third.replace("three", "four").replace("_3", "_4")))
            config.flush()
            proxy = subprocess.Popen(["haproxy", "-db", "-f", config.name], env={**os.environ, **env},
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                front = harness.Server(start=False)
                front.port = port
                harness.eventually(lambda: is_up(front))
                calm, ten = [], []
                for _ in range(rounds):
                    calm.append(load(port, "POST", IMAGES, IMAGE, connections=4 * slots + queue // 2,
                                     seconds=2 * SECONDS))
                    offered = 10 * calm[0]["good"] / calm[0]["good_until"]
                    ten.append(load(port, "POST", IMAGES, IMAGE, connections=2000, rate=offered, seconds=2 * SECONDS))
            finally:
                proxy.terminate()
                proxy.wait()

    def rate(runs):
        return sum(r["good"] for r in runs) / sum(r["good_until"] for r in runs)
    table("10 x overload, 4 replicas", ["capacity/s", "offered/s", "goodput/s", "ratio", "refused p50 ms",
                                        "refused p99 ms", "lost"])
    row(f"images of {STEPS * step_ms} ms", rate(calm), offered, rate(ten), f"{rate(ten) / rate(calm):.1%}",
        max(r["busy_p50_ms"] for r in ten), max(r["busy_p99_ms"] for r in ten),
        f"{sum(r['failed'] + r['other'] + r['unsent'] for r in ten)}")


def is_up(s):
    try:
        return s.get("/readyz").status == 200
    except OSError:
        return False


MEASUREMENTS = {"scale": scale, "claims": claims, "accepts": accepts, "jobs": jobs, "traffic": traffic, "kill": kill,
                "streams": streams, "single": single, "overload": overload}


def main():
    global cluster
    unknown = [name for name in NAMES if name not in MEASUREMENTS]
    if unknown:
        sys.exit(f"unknown measurement {unknown[0]}; use {', '.join(MEASUREMENTS)}")
    if not postgres.programs():
        sys.exit("the package postgresql is not installed")
    cluster = postgres.Cluster(shared_preload_libraries="pg_stat_statements", max_connections="100",
                               shared_buffers="128MB")
    print(f"PostgreSQL {cluster.sql('SHOW server_version')}, fsync {cluster.sql('SHOW fsync')}, "
          f"{len(os.sched_getaffinity(0))} cores for database, replicas and clients")
    for name in NAMES or MEASUREMENTS:
        print(f"\n{name}, load average {os.getloadavg()[0]:.1f}", flush=True)
        MEASUREMENTS[name]()


if __name__ == "__main__":
    main()
