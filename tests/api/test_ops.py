"""Operations: options, keys, reload, drain, metrics, logs, TLS, CORS."""
import json
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request

from harness import PATIENCE, PROGRAM, STORE, Server, eventually, main, needs


def run(*args, **env):
    return subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=PATIENCE,
                          env={**os.environ, **env})


def new_key(name, *more):
    """more: scopes, and a rate."""
    out = run("config", "key", name, *more).stdout.splitlines()
    return out[0].split(": ")[1], out[1].split(": ")[1]


def keys_file(*lines):
    path = os.path.join(tempfile.mkdtemp(), "keys")
    with open(path, "w") as f:
        f.write("# keys\n\n" + "\n".join(lines) + "\n")
    return path


def bearer(key):
    return {"Authorization": "Bearer " + key}


def test_config_check_names_what_is_wrong():
    assert run("config", "check").returncode == 0
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as f:
        f.write("queue-limit = 7\n# comment\n\nlog-format=json\n")
        f.flush()
        shown = run("config", "show", "--config", f.name, "--keep-jobs", "5",
                    IMAGEND_LOG_LEVEL="debug", IMAGEND_KEEP_JOBS="9").stdout
        for line in ("queue-limit = 7", "log-format = json", "log-level = debug", "keep-jobs = 5"):
            assert line + "\n" in shown, line
        for bad in ("colour = red", "queue-limit = many", "queue-limit = 0", "log-level = loud",
                    "queue-limit", "queue-limit = 1\nqueue-limit = 2", "allow-open = maybe",
                    "max-body = 5X", "config = x"):
            f.seek(0)
            f.truncate()
            f.write(bad + "\n")
            f.flush()
            r = run("config", "check", "--config", f.name)
            assert r.returncode == 2 and "line " in r.stderr and r.stderr.count("\n") == 1, (bad, r)
    for args in (("--colour", "red"), ("--queue-limit",), ("--listen", "here"), ("x",),
                 ("--config", "/nowhere"), ("--keys-file", "/nowhere")):
        r = run("config", "check", *args)
        assert r.returncode == 2 and r.stderr.startswith("imagend: "), (args, r)
    assert run("config", "check", IMAGEND_SLOTS="x").returncode == 2
    r = run("config", "check", IMAGEND_QUEUE_LIMT="3")
    assert r.returncode == 2 and "IMAGEND_QUEUE_LIMT" in r.stderr, r
    assert run("config", "show", IMAGEND_QUEUE_LIMT="3").returncode == 0
    assert "--queue-limit N" in run("serve", "--help").stdout
    table = run("config", "table").stdout
    assert "| `queue-limit` | `256` | yes |" in table and "imagend_pictures_total" in table


def test_refuses_to_be_open_to_the_world():
    r = run("serve", "--listen", "0.0.0.0:0", "--store", "memory")
    assert r.returncode == 1 and "keys-file" in r.stderr


def test_errors_at_start_are_one_sentence():
    taken = socket.create_server(("127.0.0.1", 0))
    address = "127.0.0.1:%d" % taken.getsockname()[1]
    for args in (("--listen", address), ("--listen", "no.such.host.invalid:80"),
                 ("--data-dir", "/proc/nope"), ("--tls-cert", "x"), ("--webhook-allow", "x"),
                 ("--model", "missing")):
        args = args if "--data-dir" in args else (*args, "--store", "memory")
        r = run("serve", *args)
        assert r.returncode == 1 and "imagend: " in r.stderr, (args, r)
    taken.close()


def test_keys_scopes_and_owners():
    (alice, a_line), (bob, b_line), (reader, r_line), (admin, m_line) = (
        new_key("alice", "generate,read"), new_key("bob", "generate,read"),
        new_key("reader", "read"), new_key("root", "admin"))
    s = Server("--keys-file", keys_file(a_line, b_line, r_line, m_line))
    try:
        assert s.get("/healthz").status == 200 and s.get("/readyz").status == 200
        for headers in ({}, bearer("wrong"), bearer(alice[:-1]), {"Authorization": "Digest x"}):
            a = s.request("GET", "/v1/models", headers=headers)
            assert a.status == 401 and a.headers["www-authenticate"] == "Bearer"
            assert a.json["error"]["code"] == "invalid_api_key"
        body = {"prompt": "a", "size": 64}
        a = s.request("POST", "/v1/jobs", body, bearer(alice))
        assert a.status == 202
        job = a.json["id"]
        assert s.request("GET", "/v1/jobs/" + job, headers=bearer(alice)).status == 200
        assert s.request("GET", "/v1/jobs/" + job, headers=bearer(bob)).status == 404
        assert s.request("DELETE", "/v1/jobs/" + job, headers=bearer(bob)).status == 404
        assert s.request("GET", f"/v1/jobs/{job}/events", headers=bearer(bob)).status == 404
        assert s.request("GET", "/v1/jobs", headers=bearer(bob)).json["data"] == []
        assert s.request("POST", "/v1/jobs", body, bearer(reader)).status == 403
        assert s.request("GET", "/metrics", headers=bearer(alice)).status == 403
        assert s.request("GET", "/metrics", headers=bearer(admin)).status == 200
        basic = {"Authorization": "Basic YWxpY2U6" + __import__("base64").b64encode(
            b"x").decode()}
        assert s.request("GET", "/v1/models", headers=basic).status == 401
        token = __import__("base64").b64encode(b"user:" + alice.encode()).decode()
        assert s.request("GET", "/v1/models",
                         headers={"Authorization": "Basic " + token}).status == 200
        for secret in (alice, bob, reader, admin, a_line.split()[1]):
            assert secret not in s.log
    finally:
        assert s.close() == 0


def test_rate_limit():
    for rate in ("", "x", "0", "-1", "5/", "5/0", "5/20/3", "inf", "nan", "0x5", " 5", "5\n", "1e3"):
        out = run("config", "key", "fast", "generate,read", rate)
        assert out.returncode == 2 and "expected requests per second and burst" in out.stderr, (rate, out)
    key, line = new_key("fast", "generate,read", "0.5/3")
    s = Server("--keys-file", keys_file(line))

    def ask():
        return s.request("GET", "/v1/models", headers=bearer(key))
    try:
        start = time.monotonic()
        answers = [ask()]
        while answers[-1].status == 200 and len(answers) < 100:
            answers.append(ask())
        statuses = [a.status for a in answers]
        assert statuses[:3] == [200] * 3 and statuses[-1] == 429, statuses
        # The bucket fills again meanwhile, at its rate and no faster.
        assert len(statuses) - 1 <= 3 + 0.5 * (time.monotonic() - start), statuses
        assert int(answers[-1].headers["retry-after"]) >= 1
        eventually(lambda: ask().status == 200)
    finally:
        assert s.close() == 0


def test_reload_changes_keys_limits_and_log_level():
    one, line1 = new_key("one", "generate,read")
    two, line2 = new_key("two", "generate,read")
    path = keys_file(line1)
    conf = path + ".conf"
    with open(conf, "w") as f:
        f.write("log-level = info\nqueue-limit = 5\n")
    s = Server("--keys-file", path, "--config", conf)

    def limit(key):
        return s.request("GET", "/v1/capabilities", headers=bearer(key)).json["limits"]["queue"]
    try:
        assert s.request("GET", "/v1/models", headers=bearer(two)).status == 401
        assert limit(one) == 5
        # What a request logs at info comes and goes with the level.
        eventually(lambda: s.log.count("path=/v1/capabilities") == 1, what="the request in the log")
        with open(path, "w") as f:
            f.write(line2 + "\n")
        with open(conf, "w") as f:
            f.write("log-level = warn\nqueue-limit = 7\n")
        s.process.send_signal(signal.SIGHUP)
        eventually(lambda: s.request("GET", "/v1/models", headers=bearer(two)).status == 200)
        assert s.request("GET", "/v1/models", headers=bearer(one)).status == 401
        assert limit(two) == 7
        assert s.get("/healthz").status == 200  # what the request before it logs is there by now
        assert s.log.count("path=/v1/capabilities") == 1
        with open(conf, "w") as f:
            f.write("log-level = info\n")
        s.process.send_signal(signal.SIGHUP)
        eventually(lambda: limit(two) == 256, what="the default limit")
        eventually(lambda: s.log.count("path=/v1/capabilities") > 1, what="requests in the log")
        with open(path, "w") as f:
            f.write("broken\n")
        s.process.send_signal(signal.SIGHUP)
        eventually(lambda: "not reloaded" in s.log)
        assert s.request("GET", "/v1/models", headers=bearer(two)).status == 200
        with open(path, "w") as f:
            f.write(line2 + "\n")
        with open(conf, "w") as f:
            f.write("slots = 3\n")
        s.process.send_signal(signal.SIGHUP)
        eventually(lambda: "changes to these options need a restart: slots" in s.log)
    finally:
        assert s.close() == 0


def test_ready_while_loading():
    s = Server(start=False)
    try:
        with s.held():
            s.start(ready=False)
            assert s.get("/healthz").status == 200
            a = eventually(lambda: (lambda a: a if a.json.get("reason") == "loading" else None)(s.get("/readyz")))
            assert a.status == 503
            a = s.draw()
            assert a.status == 503 and int(a.headers["retry-after"]) >= 1
            assert a.json["error"]["message"] == "the model is still loading", a.body
        s.wait_ready()
        assert s.draw().status == 200
    finally:
        assert s.close() == 0
    # Of several models, too: none is used before the default.
    models = keys_file("[photo]", "model = fake", "[draft]", "model = fake/small")
    s = Server("--models-file", models, start=False)
    try:
        with s.held():
            s.start(ready=False)
            for model in ("photo", "draft"):
                a = s.draw(model=model)
                assert a.status == 503 and int(a.headers["retry-after"]) >= 1
                assert a.json["error"]["message"] == "the model is still loading", a.body
        s.wait_ready()
        assert s.draw(model="draft").status == 200
    finally:
        assert s.close() == 0
    s = Server(env={"FAKE_OPEN_FAILS": "2"}, start=False)
    try:
        with s.held():
            s.start(ready=False)
            eventually(lambda: "no usable" in s.get("/readyz").json.get("reason", ""))
        s.wait_ready()
    finally:
        assert s.close() == 0


def test_drain_finishes_what_runs():
    s = Server("--drain-timeout", "300", env={"FAKE_SLOTS": "1"})
    answers = []
    thread = threading.Thread(target=lambda: answers.append(s.draw(steps=60)))
    with s.held():
        thread.start()
        eventually(lambda: s.get("/v1/capabilities").json["running"] == 1)
        queued = s.post("/v1/jobs", {"prompt": "later", "size": 64}).json["id"]
        watcher = s.events("GET", f"/v1/jobs/{queued}/events")
        seen = [next(watcher)]
        s.process.send_signal(signal.SIGTERM)
        seen.extend(watcher)
        assert seen[-1][0] == "shutdown", seen
    thread.join(PATIENCE)
    assert answers and answers[0].status == 200, answers
    assert s.process.wait(PATIENCE) == 0
    if STORE == "memory":
        return
    s.start()
    try:
        assert s.wait_job(queued)["status"] == "done"
    finally:
        assert s.close() == 0


def test_drain_has_a_deadline_and_a_second_signal_ends_it():
    s = Server("--drain-timeout", "0.3", env={"FAKE_STEP_MS": "20"})
    answers = []
    thread = threading.Thread(target=lambda: answers.append(s.draw(steps=900)))
    with s.held():
        thread.start()
        eventually(lambda: s.get("/v1/capabilities").json["running"] == 1)
        start = time.monotonic()
        s.process.send_signal(signal.SIGTERM)
        # Without the option it would be 30 s.
        assert s.process.wait(PATIENCE) == 0 and time.monotonic() - start < 25
        thread.join(PATIENCE)
    assert answers[0].status == 503, answers[0].body
    s = Server("--drain-timeout", "600", env={"FAKE_STEP_MS": "20"})
    with s.held():
        s.post("/v1/jobs", {"prompt": "a", "size": 64, "steps": 900})
        eventually(lambda: s.get("/v1/capabilities").json["running"] == 1)
        s.process.send_signal(signal.SIGTERM)
        eventually(lambda: "draining" in s.log)
        s.process.send_signal(signal.SIGTERM)
        assert s.process.wait(PATIENCE) == 1
    s.close(status=1)


def test_drain_delay_keeps_serving_while_not_ready():
    s = Server("--drain-delay", "600")
    s.process.send_signal(signal.SIGTERM)
    eventually(lambda: s.get("/readyz").status == 503)
    assert s.get("/readyz").json["reason"] == "draining"
    assert "imagend_ready 0\n" in s.get("/metrics").body.decode()
    assert s.draw().status == 200
    s.process.send_signal(signal.SIGTERM)
    assert s.process.wait(PATIENCE) == 1
    s.close(status=1)
    s = Server("--drain-delay", "1")
    start = time.monotonic()
    s.process.send_signal(signal.SIGTERM)
    assert s.process.wait(PATIENCE) == 0 and time.monotonic() - start >= 1
    s.close()


def test_metrics():
    s = Server()
    try:
        for _ in range(3):
            assert s.draw().status == 200
        s.draw("[fail]")
        # The answer may come before the last step is counted.
        for line in ("imagend_pictures_total 3", 'imagend_jobs_total{state="done"} 3',
                     'imagend_jobs_total{state="failed"} 1', "imagend_ready 1",
                     'imagend_step_pictures_count{stage="1"} 26',
                     'imagend_model_info{model="fake",device="no device",dtype="f32"} 1'):
            eventually(lambda: line + "\n" in s.get("/metrics").body.decode(), what=line)
        a = s.get("/metrics")
        assert a.headers["content-type"].startswith("text/plain; version=0.0.4")
    finally:
        assert s.close() == 0


def test_metrics_are_as_prometheus_wants_them():
    needs("promtool")
    s = Server()
    try:
        s.draw("[fail]")
        s.draw()
        r = subprocess.run(["promtool", "check", "metrics"], input=s.get("/metrics").body,
                           capture_output=True)
        assert r.returncode == 0 and not r.stderr, r.stderr
    finally:
        assert s.close() == 0


def test_probes_are_not_logged():
    """They come every few seconds; at debug they are."""
    for level, count in (("info", 0), ("debug", 1)):
        s = Server("--log-level", level)
        try:
            s.get("/healthz", X_Request_Id="probe")
            s.get("/v1/models")
            eventually(lambda: "path=/v1/models" in s.log)
            assert s.log.count("request_id=probe") == count, s.log
        finally:
            s.close()


def test_json_log_without_prompts():
    s = Server("--log-format", "json")
    try:
        s.draw("a very secret prompt", headers={"X-Request-Id": "abc"})
        eventually(lambda: '"request_id":"abc"' in s.log)
        for line in s.log.splitlines():
            record = json.loads(line)
            assert {"time", "level", "part", "msg"} <= set(record)
        assert "secret" not in s.log
    finally:
        assert s.close() == 0


HOME = ("127.0.0.1", "localhost", "LocalHost.", "localhost:9", "[::1]", "[::1]:80", "127.8.8.8:1",
        "192.168.1.7")
AWAY = ("evil.test", "evil.test:8080", "127.0.0.1.evil.test", "localhost.evil.test", "[::1].evil.test",
        "127.1", "0x7f000001", "2130706433", "[evil.test]", "[", "", "x" * 300)


def statuses(s, hosts, path="/healthz"):
    return {h: s.get(path, Host=h).status for h in hosts}


def test_names_that_it_does_not_have():
    """No web page reaches a server without keys by a name that it made to point here."""
    s = Server()
    try:
        assert set(statuses(s, HOME).values()) == {200}, statuses(s, HOME)
        assert set(statuses(s, AWAY).values()) == {421}, statuses(s, AWAY)
        a = s.request("POST", "/v1/jobs", {"prompt": "a"}, {"Host": "evil.test"})
        assert a.status == 421 and a.json["error"]["code"] == "unknown_host", a.body
        assert "host-names" in a.json["error"]["message"]
        a = s.request("POST", "/sdapi/v1/txt2img", {"prompt": "a"}, {"Host": "evil.test"})
        assert a.status == 421 and "host-names" in a.json["detail"], a.body
        assert s.get("/v1/jobs").json["data"] == []
        # Probes of load balancers may have no Host.
        assert s.raw(b"GET /readyz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    finally:
        assert s.close() == 0


def test_names_that_it_was_given():
    key, line = new_key("k", "generate,read")
    with tempfile.TemporaryDirectory() as folder:
        conf = os.path.join(folder, "conf")
        keys = os.path.join(folder, "keys")
        with open(conf, "w") as f:
            f.write("host-names = a.test, b.test\npublic-url = https://img.test:8443/x\n")
        s = Server("--config", conf)
        try:
            for name in ("a.test", "b.test:80", "IMG.test", *HOME):
                assert s.get("/healthz", Host=name).status == 200, name
            near = ("c.test", "a.test.evil.test", "xa.test", "a.tes", "a.testx", "b.test.a", "img.test.x",
                    "ximg.test", "https://a.test", "a.test, evil.test", "a.test@evil.test", *AWAY)
            assert set(statuses(s, near).values()) == {421}, statuses(s, near)
            # Keys guard it instead; names that were given are still the only ones.
            with open(keys, "w") as f:
                f.write(line + "\n")
            with open(conf, "w") as f:
                f.write(f"keys-file = {keys}\n")
            s.process.send_signal(signal.SIGHUP)
            eventually(lambda: s.get("/healthz", Host="c.test").status == 200)
            with open(conf, "w") as f:
                f.write(f"keys-file = {keys}\nhost-names = a.test\n")
            s.process.send_signal(signal.SIGHUP)
            eventually(lambda: s.get("/healthz", Host="c.test").status == 421)
            assert s.request("GET", "/v1/models", headers={"Host": "a.test", **bearer(key)}).status == 200
        finally:
            assert s.close() == 0
    s = Server("--allow-open", "--listen", "0.0.0.0:0")
    try:
        assert s.get("/healthz", Host="replica-1:8080").status == 200
    finally:
        assert s.close() == 0


def test_pages_of_other_origins_start_and_stop_nothing():
    s = Server("--cors-origins", "https://app.test", env={"FAKE_STEP_MS": "20"})
    own = f"http://127.0.0.1:{s.port}"
    body = json.dumps({"prompt": "a", "size": 64})
    foreign = ({"Origin": "https://evil.test"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
               {"Origin": own, "Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
               {"Origin": "http://127.0.0.1:1"}, {"Origin": "http://127.0.0.1"})
    try:
        for headers in foreign:
            # What a browser sends without asking first, and what it would have asked for.
            for kind in ({"Content-Type": "text/plain"}, {}, {"Content-Type": "application/json"}):
                a = s.request("POST", "/v1/jobs", body.encode(), {**headers, **kind})
                assert a.status == 403 and a.json["error"]["code"] == "cross_origin", (headers, kind)
        assert s.request("POST", "/v1/jobs", body, {"Content-Type": "text/plain"}).status == 415
        assert s.raw(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     b"Content-Length: %d\r\n\r\n%s" % (len(body), body.encode())
                     ).startswith(b"HTTP/1.1 415 ")
        assert s.get("/v1/jobs").json["data"] == []
        answers = []
        thread = threading.Thread(target=lambda: answers.append(
            s.post("/sdapi/v1/txt2img", {"prompt": "a", "steps": 30, "width": 64, "height": 64})))
        with s.held():
            thread.start()
            eventually(lambda: s.get("/v1/capabilities").json["running"] == 1)
            for headers in foreign:
                a = s.request("POST", "/sdapi/v1/interrupt", headers=headers)
                assert a.status == 403 and "cors-origins" in a.json["detail"], a.body
        thread.join(PATIENCE)
        assert answers[0].status == 200, answers[0].body
        for headers in ({"Origin": own}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"},
                        {"Origin": own, "Sec-Fetch-Site": "same-origin"}, {},
                        {"Origin": "https://app.test", "Sec-Fetch-Site": "cross-site"}):
            a = s.request("POST", "/v1/jobs", body, headers)
            assert a.status == 202, (headers, a.body)
            assert s.request("DELETE", "/v1/jobs/" + a.json["id"], headers=headers).status < 300
    finally:
        assert s.close() == 0


def test_tls():
    needs("openssl")
    folder = tempfile.mkdtemp()
    cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key,
                    "-out", cert, "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    s = Server("--tls-cert", cert, "--tls-key", key, start=False)
    s.start(ready=False)
    try:
        context = ssl.create_default_context(cafile=cert)
        url = f"https://127.0.0.1:{s.port}"

        def ready():
            try:
                return urllib.request.urlopen(url + "/readyz", context=context).status == 200
            except urllib.error.HTTPError:
                return False
        eventually(ready)
        request = urllib.request.Request(
            url + "/v1/images/generations", headers={"Content-Type": "application/json"},
            data=json.dumps({"prompt": "a", "size": "256x256", "stream": True}).encode())
        body = urllib.request.urlopen(request, context=context).read()
        assert b"image_generation.completed" in body
        assert s.raw(b"GET / HTTP/1.1\r\n\r\n", timeout=1)[:4] != b"HTTP"
    finally:
        assert s.close() == 0


if __name__ == "__main__":
    main(globals())
