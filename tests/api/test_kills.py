"""Replicas and the database are killed under load, at random moments: no accepted job is lost, none ends twice, and no
result changes. FLEET_KILLS replicas, then FLEET_CRASHES times postgres, and replicas beside it."""
import concurrent.futures
import contextlib
import hashlib
import http.client
import itertools
import os
import random
import shutil
import subprocess
import threading
import time

import postgres
from fleet import Fleet
from harness import PATIENCE, Server, eventually, is_png, main

KILLS = int(os.environ.get("FLEET_KILLS", "10"))
CRASHES = int(os.environ.get("FLEET_CRASHES", "2"))
CLIENTS = 4
STATES = "done", "failed", "cancelled"
# What the database saw: each end of a job, and each change of one that had ended.
WATCH = """
CREATE TABLE told (job text NOT NULL, what text NOT NULL);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN
    IF OLD.state NOT IN ('done', 'failed', 'cancelled') THEN INSERT INTO told VALUES (NEW.id, NEW.state);
    ELSIF (NEW.state, NEW.finished, NEW.images) IS DISTINCT FROM (OLD.state, OLD.finished, OLD.images)
        THEN INSERT INTO told VALUES (NEW.id, 'changed'); END IF;
    RETURN NULL; END $f$;
CREATE TRIGGER tell AFTER UPDATE ON imagend.job FOR EACH ROW WHEN (NEW.state IN ('done', 'failed', 'cancelled'))
    EXECUTE FUNCTION tell();
"""
PROXY = """
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    option redispatch
    retries 3
    option httpchk GET /readyz
listen images
    bind 127.0.0.1:{port}
    balance roundrobin
"""


class Front:
    """Where clients go: HAProxy, or without its package the replicas in turn."""

    def __init__(self, fleet):
        self.fleet, self.proxy, self.turns = fleet, None, itertools.cycle(fleet)
        if not shutil.which("haproxy"):
            return
        self.server = Server(start=False)
        self.server.port = postgres.free_port()
        path = os.path.join(self.server.folder, "haproxy.cfg")
        with open(path, "w") as f:
            f.write(PROXY.format(port=self.server.port))
            for i, s in enumerate(fleet):
                f.write(f"    server r{i} 127.0.0.1:{s.port} check inter 100ms fall 1 rise 1\n")
        self.proxy = subprocess.Popen(["haproxy", "-db", "-f", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, method, path, body=None, headers=None):
        """The answer, or None if it was lost or is not the service's own."""
        try:
            a = (self.server if self.proxy else next(self.turns)).request(method, path, body, headers)
            return a if a.status < 500 else None
        except (OSError, http.client.HTTPException):
            return None

    def close(self):
        if self.proxy:
            self.proxy.terminate()
            self.proxy.wait(PATIENCE)


class Client(threading.Thread):
    """Submits jobs one after the other, repeats what was lost with the same key, and remembers what it was told."""

    def __init__(self, front, number, stop):
        super().__init__(daemon=True)
        self.front, self.number, self.stop = front, number, stop
        self.accepted, self.results, self.wrong = {}, {}, []

    def run(self):
        for count in itertools.count():
            key = f"{self.number}-{count}"
            a = None
            while not self.stop.is_set() and not (a and a.status == 202):
                a = self.front.ask("POST", "/v1/jobs", {"prompt": key, "size": 64, "seed": count, "steps": 20, "n": 1 + count % 2},
                                   {"Idempotency-Key": key})
                if a and a.status not in (202, 429):
                    self.wrong.append((key, a.status, a.body))
                time.sleep(0.02)
            if self.stop.is_set():
                return
            self.accepted[key] = a.json["id"]
            if count % 3 == 0:
                self.follow(key)

    def follow(self, key):
        """Waits a while for the end, which must be the last word."""
        end = time.monotonic() + 5
        while time.monotonic() < end and not self.stop.is_set():
            result = look(self.front, self.accepted[key])
            if result:
                self.results[key] = result
                return
            time.sleep(0.05)


def look(front, job):
    """What a client may keep of a job that has ended; None: it has not, or that was not heard."""
    a = front.ask("GET", "/v1/jobs/" + job)
    if not a or a.status != 200 or a.json["status"] not in STATES:
        return None
    j, images = a.json, []
    for image in j["images"] if j["status"] == "done" else []:
        b = front.ask("GET", image["href"])
        if not b or b.status != 200 or not is_png(b.body, 64):
            return None
        images.append(hashlib.sha256(b.body).hexdigest())
    return j["status"], j["finished"], j["request"]["prompt"], images


def kill(s):
    s.process.kill()
    s.process.wait()
    os.truncate(s.log_path, 0)
    s.start(ready=False)


@contextlib.contextmanager
def load(fleet, front):
    stop = threading.Event()
    clients = [Client(front, i, stop) for i in range(CLIENTS)]
    for c in clients:
        c.start()
    try:
        yield clients
    finally:
        stop.set()
        for c in clients:
            c.join(PATIENCE)


def test_kills():
    own = postgres.Cluster()
    with Fleet(3, "--keep-jobs", "1000000", "--keep-bytes", "100G", of=own,
               env={"FAKE_SLOTS": "2", "FAKE_STEP_MS": "2"}) as fleet:
        for s in fleet:
            s.flags += ["--listen", f"127.0.0.1:{s.port}"]
        fleet.sql(WATCH)
        front = Front(fleet)
        try:
            check(fleet, front, own)
        finally:
            front.close()


def check(fleet, front, own):
    rng = random.Random(KILLS)
    begin = time.monotonic()
    with load(fleet, front) as clients:
        for _ in range(KILLS):
            time.sleep(rng.random())
            kill(rng.choice(fleet.replicas))
        for _ in range(CRASHES):
            time.sleep(2 * rng.random())
            own.crash()
            if rng.random() < 0.3:
                kill(rng.choice(fleet.replicas))
            time.sleep(rng.random())
            own.start()
            eventually(lambda: front.ask("GET", "/v1/capabilities"), what="an answer")
        before = sum(len(c.accepted) for c in clients)
        eventually(lambda: sum(len(c.accepted) for c in clients) > before + 5, what="jobs afterwards")
    accepted = {key: job for c in clients for key, job in c.accepted.items()}
    told = {key: result for c in clients for key, result in c.results.items()}
    assert not [x for c in clients for x in c.wrong], clients[0].wrong
    assert len(set(accepted.values())) == len(accepted) > KILLS, "one job for each key"
    eventually(lambda: fleet.sql("SELECT count(*) FROM imagend.job WHERE state IN ('queued', 'running')") == "0")
    # A job that has lost its replica three times fails, as documented: few do.
    given_up = set(fleet.sql("SELECT id FROM imagend.job WHERE state = 'failed' AND claims = 4").splitlines())
    assert len(given_up) <= 1 + len(accepted) // 1000, given_up

    def lost(item):
        key, job = item
        result = eventually(lambda: look(front, job), what=f"the result of {job}")
        same = result[2] == key and told.get(key, result) == result
        return None if same and result[0] == ("failed" if job in given_up else "done") else (key, job, result, told.get(key))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        wrong = [x for x in pool.map(lost, accepted.items()) if x]
    assert not wrong, wrong
    # One end of each, also of those whose acceptance no client heard of.
    assert fleet.sql("SELECT job, string_agg(what, ' ') FROM told GROUP BY job HAVING count(*) <> 1") == ""
    assert fleet.sql("SELECT sum(queued) + sum(running) + sum(backlog) FROM imagend.load") == "0"
    again = int(fleet.sql("SELECT count(*) FROM imagend.job WHERE claims > 1"))
    print(f"{KILLS} replicas and {CRASHES} databases killed in {time.monotonic() - begin:.0f} s: {len(accepted)} jobs "
          f"accepted, {again} begun more than once, {len(given_up)} given up after three, {len(told)} seen early, none lost", flush=True)


if __name__ == "__main__":
    postgres.require()
    main(globals())
