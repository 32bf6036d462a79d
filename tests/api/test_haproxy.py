"""HAProxy with the configuration of deploy/ in front of two replicas, one drained under load."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from harness import Server, eventually, is_png, b64, main

CONFIG = os.path.join(os.path.dirname(__file__), "..", "..", "deploy", "haproxy.cfg")

if not shutil.which("haproxy"):
    print("skipped: haproxy is not installed")
    sys.exit(77)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_drain_one_of_two_without_a_failed_request():
    env = {"FAKE_STEP_MS": "4", "FAKE_SLOTS": "4"}
    replicas = [Server("--drain-delay", "2", env=env) for _ in range(2)]
    port = free_port()
    proxy = subprocess.Popen(
        ["haproxy", "-db", "-f", CONFIG], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "LISTEN": f"127.0.0.1:{port}",
             **{f"REPLICA_{i + 1}": f"127.0.0.1:{r.port}" for i, r in enumerate(replicas)}})
    front = Server(start=False)
    front.port = port
    try:
        def up():
            try:
                return front.get("/readyz").status == 200
            except OSError:
                return False
        eventually(up)
        answers, stop = [], threading.Event()

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
        time.sleep(1)
        replicas[0].process.send_signal(signal.SIGTERM)
        assert replicas[0].process.wait(20) == 0
        before = len(answers)
        time.sleep(1)
        assert len(answers) > before, "the other replica went on"
        stop.set()
        for t in threads:
            t.join(10)
        bad = [a for a in answers if a != 200]
        assert not bad and len(answers) > 50, (len(answers), bad[:5])
        served = [r.log.count("/v1/images/generations status=200") for r in replicas]
        assert min(served) > 10, served
        print(f"{len(answers)} requests, {served} per replica, none failed")
        # The cookie keeps a client on the replica that has its job.
        a = front.post("/v1/jobs", {"prompt": "a", "size": 64})
        assert a.status == 202 and a.headers["set-cookie"].startswith("replica=two")
        assert front.get("/metrics").status == 404
    finally:
        proxy.terminate()
        proxy.wait(10)
        for r in replicas:
            r.close()


main(globals())
