"""HAProxy with the configuration of deploy/ in front of two replicas: one drained under load; none there."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading

from harness import PATIENCE, Server, eventually, is_png, b64, main

CONFIG = os.path.join(os.path.dirname(__file__), "..", "..", "deploy", "haproxy.cfg")

if not shutil.which("haproxy"):
    print("skipped: haproxy is not installed")
    sys.exit(77)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def find_replica(front):
    return front.get("/healthz").headers["set-cookie"].split(";")[0]


def patient_config():
    """The configuration, with more time for a check's answer: on a slow machine both replicas may be
    silent for longer than the pause between two checks, and then nobody is there to be asked."""
    with open(CONFIG) as f:
        text = f.read()
    for wait in ("timeout connect 2s\n", "timeout check 5s\n"):
        assert text.count(wait) == 1
        text = text.replace(wait, f"{wait.rsplit(' ', 1)[0]} {PATIENCE}s\n")
    copy = tempfile.NamedTemporaryFile("w", suffix=".cfg")
    copy.write(text)
    copy.flush()
    return copy


def start_proxy(config, *ports):
    """HAProxy in front of two replicas, and a client's view of it."""
    front = Server(start=False)
    front.port = free_port()
    env = {"LISTEN": f"127.0.0.1:{front.port}", **{f"REPLICA_{i + 1}": f"127.0.0.1:{p}" for i, p in enumerate(ports)}}
    return front, subprocess.Popen(["haproxy", "-db", "-f", config], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, env={**os.environ, **env})


def test_drain_one_of_two_without_a_failed_request():
    env = {"FAKE_STEP_MS": "4", "FAKE_SLOTS": "4"}
    replicas = [Server("--drain-delay", "4", env=env) for _ in range(2)]
    config = patient_config()
    front, proxy = start_proxy(config.name, *(r.port for r in replicas))
    answers, stop = [], threading.Event()

    def served():
        return [r.log.count("/v1/images/generations status=200") for r in replicas]
    try:
        def up():
            try:
                return front.get("/readyz").status == 200
            except OSError:
                return False
        eventually(up)

        def client(number):
            count = 0
            while not stop.is_set():
                count += 1
                try:
                    a = front.draw(f"{number} {count}", seed=count)
                    answers.append(a.status if a.status != 200 or is_png(b64(a), 64) else "damaged")
                except Exception as error:
                    answers.append(repr(error))

        threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
        for t in threads:
            t.start()
        eventually(lambda: min(served()) > 10, what="both replicas at work")
        replicas[0].process.send_signal(signal.SIGTERM)
        assert replicas[0].process.wait(PATIENCE) == 0
        before = len(answers)
        eventually(lambda: len(answers) > before + 50, what="the other replica goes on")
        stop.set()
        for t in threads:
            t.join(PATIENCE)
        bad = [a for a in answers if a != 200]
        assert not bad and len(answers) > 50, (len(answers), bad[:5])
        assert min(served()) > 10, served()
        print(f"{len(answers)} requests, {served()} per replica, none failed")
        # The replica comes back, and its jobs are found by clients without the cookie, too.
        replicas[0].flags += ["--listen", f"127.0.0.1:{replicas[0].port}"]
        replicas[0].start()
        eventually(lambda: len({find_replica(front) for _ in range(8)}) == 2)
        jobs = [front.post("/v1/jobs", {"prompt": "a", "size": 64}) for _ in range(8)]
        assert {a.status for a in jobs} == {202}
        assert len({a.headers["set-cookie"] for a in jobs}) == 2
        for a in jobs * 3:
            job = front.wait_job(a.json["id"])
            path = "/" + job["images"][0]["url"].split("/", 3)[3]
            assert is_png(front.get(path).body, 64)
        kept = jobs[0].headers["set-cookie"].split(";")[0]
        a = front.get("/v1/jobs/" + jobs[0].json["id"], Cookie=kept)
        assert a.status == 200 and "set-cookie" not in a.headers
        assert front.get("/v1/jobs/job_0").status == 404
        assert front.get("/metrics").status == 404
    finally:
        stop.set()
        proxy.terminate()
        proxy.wait(PATIENCE)
        for r in replicas:
            r.close()


def test_without_a_replica_haproxy_says_when_to_come_back():
    front, proxy = start_proxy(CONFIG, free_port(), free_port())
    replica = Server("--drain-delay", "30")
    try:
        def refused(method, path, body=None):
            try:
                a = front.request(method, path, body)
            except OSError:  # HAProxy does not listen yet
                return None
            return a if a.status == 503 else None
        # In the form of imagend's own errors, whichever backend has no replica.
        theirs = replica.post("/v1/jobs", "{").json["error"]
        for asked in (("POST", "/v1/images/generations", '{"prompt":"a"}'), ("GET", "/v1/jobs/job_0")):
            a = eventually(lambda: refused(*asked))
            assert 1 <= int(a.headers["retry-after"]) <= 60
            assert a.headers["content-type"] == "application/json"
            assert set(a.json["error"]) == set(theirs) and "try again" in a.json["error"]["message"]
    finally:
        proxy.terminate()
        proxy.wait(PATIENCE)
        replica.stop(9)


if __name__ == "__main__":
    main(globals())
