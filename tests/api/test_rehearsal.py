"""A rehearsal of deploy/fleet without containers: PostgreSQL, three replicas with the options of compose.yaml and
HAProxy with its file there. Under a steady load one replica is upgraded, one is killed and the database restarts.
Clients see nothing but success, and 503 with Retry-After while the database is away; no accepted job is lost."""
import collections
import itertools
import os
import signal
import subprocess
import threading
import time

import postgres
from harness import PATIENCE, Server, eventually, is_png, b64, main, require

FLEET = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy", "fleet")
postgres.require()
require("haproxy", yaml="python3-yaml")
import yaml
ENDS = "done", "failed", "cancelled"


class Fleet:
    """What compose.yaml starts, with addresses on loopback."""

    def __init__(self):
        with open(os.path.join(FLEET, "compose.yaml")) as f:
            services = yaml.safe_load(f)["services"]
        self.start_database(services["postgres"])
        replicas = [s for name, s in services.items() if name.startswith("replica-")]
        self.replicas = [Server("--listen", f"127.0.0.1:{postgres.free_port()}", start=False,
                                env={**self.options(s), "FAKE_STEP_MS": "20", "FAKE_SLOTS": "2"}) for s in replicas]
        for s in self.replicas:
            s.start()
        self.front = Server(start=False)
        self.front.port = postgres.free_port()
        self.proxy = subprocess.Popen(
            ["haproxy", "-db", "-f", os.path.join(FLEET, "haproxy.cfg")], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LISTEN": f"127.0.0.1:{self.front.port}",
                 **{f"REPLICA_{i + 1}": f"127.0.0.1:{s.port}" for i, s in enumerate(self.replicas)}})
        eventually(lambda: ready(self.front), what="the fleet is ready")

    def start_database(self, service):
        """As the image postgres does it: a role with a password and a database."""
        command = service["command"]
        self.database = postgres.Cluster(**dict(command[i + 1].split("=", 1) for i in range(1, len(command), 2)))
        self.password = os.path.join(self.database.folder, "password")
        with open(self.password, "w") as f:
            f.write("a password of the rehearsal\n")
        environment = service["environment"]
        self.database.sql(f"ALTER ROLE {environment['POSTGRES_USER']} PASSWORD 'a password of the rehearsal'")
        self.database.sql(f"CREATE DATABASE {environment['POSTGRES_DB']}")
        with open(os.path.join(self.database.data, "pg_hba.conf"), "r+") as f:
            rest = f.read()
            f.seek(0)
            f.write("host all all 127.0.0.1/32 scram-sha-256\n" + rest)
        self.database.sql("SELECT pg_reload_conf()")

    def options(self, service):
        env = dict(service["environment"])
        assert "host=postgres " in env["IMAGEND_DATABASE"]
        env["IMAGEND_DATABASE"] = env["IMAGEND_DATABASE"].replace(
            "host=postgres ", f"host=127.0.0.1 port={self.database.port} ")
        env["IMAGEND_DATABASE_PASSWORD_FILE"] = self.password
        return env

    def sql(self, text):
        return self.database.sql(text, "imagend")

    def close(self):
        self.proxy.terminate()
        self.proxy.wait(PATIENCE)
        for s in self.replicas:
            if s.process and s.process.poll() is None:
                s.process.kill()
                s.process.wait()
        self.database.stop()


def ready(s):
    try:
        return s.get("/readyz").status == 200
    except OSError:
        return False


class Clients:
    """A steady load; what came back is counted by what happened at that time."""

    def __init__(self, front):
        self.front, self.phase, self.stopping = front, "steady", False
        self.counts = collections.Counter()
        self.wrong, self.jobs, self.ends = [], set(), collections.Counter()
        self.lock, self.number = threading.Lock(), itertools.count()
        kinds = [self.images] * 3 + [self.follow_jobs] * 2 + [self.poll_jobs] * 3
        self.threads = [threading.Thread(target=self.run, args=(kind,), daemon=True) for kind in kinds]
        for t in self.threads:
            t.start()

    def run(self, kind):
        while not self.stopping:
            try:
                kind()
            except Exception as error:
                self.note("error", f"{kind.__name__}: {error!r}")

    def note(self, what, wrong=None):
        with self.lock:
            self.counts[self.phase, what] += 1
            if wrong:
                self.wrong.append((self.phase, wrong))

    def ask(self, *request):
        """The response of a request that is repeated as long as the service says so."""
        while True:
            a = self.front.request(*request)
            if a.status != 503:
                self.note("2xx" if a.status // 100 == 2 else "error",
                          None if a.status // 100 == 2 else f"{request[:2]}: {a.status} {a.body[:200]}")
                return a
            again = a.headers.get("retry-after", "")
            self.note("503", None if again.isdigit() else f"{request[:2]}: 503 without Retry-After: {a.body[:200]}")
            time.sleep(min(int(again or 1), 1))

    def images(self):
        a = self.ask("POST", "/v1/images/generations", {"prompt": f"a {next(self.number)}", "size": "64x64"})
        if a.status == 200 and not is_png(b64(a), 64):
            self.note("error", "a damaged image")

    def submit(self):
        """With a key of its own, because a response of 503 may hide that the job was accepted."""
        n = next(self.number)
        a = self.ask("POST", "/v1/jobs", {"prompt": f"a {n}", "size": 64, "n": 2}, {"Idempotency-Key": f"key {n}"})
        if a.status == 202:
            with self.lock:
                self.jobs.add(a.json["id"])
        return a.json["id"]

    def check(self, job):
        if job["status"] != "done":
            self.note("error", f"{job}")
        for image in job["images"]:
            if not is_png(self.ask("GET", image["href"]).body, 64):
                self.note("error", "a damaged image of a job")

    def poll_jobs(self):
        job = self.submit()
        while True:
            a = self.ask("GET", "/v1/jobs/" + job)
            if a.status != 200:
                return
            if a.json["status"] in ENDS:
                return self.check(a.json)
            time.sleep(0.1)

    def follow_jobs(self):
        """As browsers follow events: whoever loses the connection comes back with the last number."""
        job, last = self.submit(), None
        while True:
            try:
                for event, number, _ in self.front.events("GET", f"/v1/jobs/{job}/events",
                                                          headers={"Last-Event-ID": last} if last else {}):
                    last = number or last
                    if event in ENDS:
                        self.ends[job] += 1
                        return self.check(self.ask("GET", "/v1/jobs/" + job).json)
            except AssertionError as error:  # another status
                status = error.args[0][0] if error.args else None
                self.note("503" if status == 503 else "error", None if status == 503 else f"events: {error}")
            except OSError:
                pass
            self.note("reconnects")
            time.sleep(0.2)

    def during(self, phase):
        with self.lock:
            self.phase = phase

    def more(self, n, what="2xx"):
        """Waits for n more responses."""
        seen = sum(v for (_, w), v in self.counts.items() if w == what)
        eventually(lambda: sum(v for (_, w), v in self.counts.items() if w == what) >= seen + n,
                   what=f"{n} more responses")

    def stop(self):
        self.stopping = True
        for t in self.threads:
            t.join(PATIENCE)
        assert not any(t.is_alive() for t in self.threads), "a client still waits"


def upgrade(fleet, clients):
    s = fleet.replicas[0]
    clients.during("upgrade")
    s.process.send_signal(signal.SIGTERM)
    assert s.process.wait(PATIENCE) == 0
    clients.more(30)
    s.start()
    clients.more(60)


def kill(fleet, clients):
    s = fleet.replicas[1]
    clients.during("kill -9")
    leases = f"SELECT count(*) FROM imagend.job WHERE state = 'running' AND replica LIKE '{s.env['IMAGEND_REPLICA_NAME']}/%'"
    eventually(lambda: int(fleet.sql(leases)) > 0, what="it draws")
    s.process.kill()
    s.process.wait()
    begin = time.monotonic()
    # What it had is drawn again, when its leases have ended.
    eventually(lambda: int(fleet.sql(leases)) == 0)
    took = time.monotonic() - begin
    assert took < 20, took
    clients.more(60)
    s.start()
    clients.more(60)
    return took


def restart_database(fleet, clients):
    clients.during("database")
    fleet.database.stop()
    clients.more(10, "503")
    assert [s.get("/healthz").status for s in fleet.replicas] == [200] * 3
    fleet.database.start()
    eventually(lambda: all(ready(s) for s in fleet.replicas))
    clients.more(60)


def show(clients):
    columns = "2xx", "503", "reconnects", "error"
    print(f"{'':10}" + "".join(f"{c:>12}" for c in columns))
    for phase in dict.fromkeys(p for p, _ in clients.counts):
        print(f"{phase:10}" + "".join(f"{clients.counts[phase, c]:12}" for c in columns))


def test_a_fleet_is_upgraded_killed_and_loses_its_database():
    fleet = Fleet()
    try:
        clients = Clients(fleet.front)
        clients.more(60)
        upgrade(fleet, clients)
        took = kill(fleet, clients)
        restart_database(fleet, clients)
        clients.during("afterwards")
        clients.more(60)
        clients.stop()
        show(clients)
        states = dict(line.split("|") for line in fleet.sql(
            "SELECT state, count(*) FROM imagend.job WHERE idempotency_key IS NOT NULL GROUP BY state").splitlines())
        print(f"{len(clients.jobs)} jobs accepted, in the database {states}; {took:.1f} s until the killed replica's "
              "jobs went on")
        assert not clients.wrong, clients.wrong[:10]
        assert states == {"done": str(len(clients.jobs))}, "a job is lost, or there are two for one key"
        assert set(clients.ends.values()) == {1}, "a job ended twice"
        for phase in ("steady", "upgrade", "kill -9", "afterwards"):
            assert not clients.counts[phase, "503"], (phase, clients.counts)
        assert fleet.replicas[0].stop() == 0
    finally:
        fleet.close()


main(globals())
