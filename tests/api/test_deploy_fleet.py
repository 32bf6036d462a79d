"""The files in deploy/fleet/: the programs that read them check them, and everything that they state about imagend
(options, addresses, metrics, times) is compared with the program. test_rehearsal.py runs them."""
import json
import os
import re
import socket
import subprocess
import tempfile
import threading

import postgres
from harness import PROGRAM, Server, eventually, main, require, skip

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FLEET = os.path.join(ROOT, "deploy", "fleet")
require("haproxy", "promtool", yaml="python3-yaml")
import yaml
HAND_BACK_S = 5  # after drain-timeout: jobs are handed back to the database


def read(name):
    with open(os.path.join(FLEET, name)) as f:
        return f.read()


def load(name):
    return yaml.safe_load(read(name))


def run(*command, **env):
    r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
                       env={**os.environ, **env})
    assert r.returncode == 0, (command, r.stdout)
    return r.stdout


def image():
    """What the container image sets, and its flags."""
    with open(os.path.join(ROOT, "Dockerfile")) as f:
        text = f.read()
    env = dict(word.split("=", 1) for line in re.findall("^ENV (.*)", text, re.M) for word in line.split())
    return env, yaml.safe_load(re.search(r"^CMD (.*)", text, re.M)[1])[1:]


def options(flags, env):
    """The program takes them; returns all options as they are then."""
    env = {k: str(v) for k, v in env.items() if k.startswith("IMAGEND_")}
    with tempfile.NamedTemporaryFile("w") as password:
        env["IMAGEND_DATABASE_PASSWORD_FILE"] = password.name
        run(PROGRAM, "config", "check", *flags, **env)
        shown = run(PROGRAM, "config", "show", *flags, **env)
    return dict(line.split(" = ", 1) for line in shown.splitlines() if " = " in line)


def shutdown_seconds(found):
    return float(found["drain-delay"]) + float(found["drain-timeout"]) + HAND_BACK_S


def replicas():
    return {name: s for name, s in load("compose.yaml")["services"].items() if name.startswith("replica")}


def metrics_of(text):
    return {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"\bimagend_\w+", text)}


def known_metrics():
    return set(re.findall(r"`(imagend_\w+)`", run(PROGRAM, "config", "table")))


def check_with_promtool(series, expressions, alerts=(), rules=()):
    """promtool evaluates expressions, and the alerts that fire, 30 minutes after the series began."""
    test = {"interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [{"expr": e, "eval_time": "30m",
                                  "exp_samples": [] if v is None else [{"labels": "{}", "value": v}]}
                                 for e, v in expressions],
            "alert_rule_test": [{"eval_time": "30m", "alertname": name, "exp_alerts": found}
                                for name, found in alerts]}
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as f:
        yaml.safe_dump({"rule_files": list(rules), "evaluation_interval": "1m", "tests": [test]}, f)
        f.flush()
        run("promtool", "test", "rules", f.name)


# ---- compose ----------------------------------------------------------------------------------------------------------

def test_replicas_share_what_compose_says():
    compose = load("compose.yaml")
    services = compose["services"]
    database = services["postgres"]["environment"]
    env, flags = image()
    assert len(replicas()) == 3
    targets = load("prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == [name + ":8080" for name in replicas()]
    for name, s in replicas().items():
        found = options(flags, {**env, **s["environment"]})
        assert found["store"] == "postgres" and found["replica-name"] == name
        assert found["database"].split() == ["host=postgres", "dbname=" + database["POSTGRES_DB"],
                                             "user=" + database["POSTGRES_USER"]]
        assert float(s["stop_grace_period"].rstrip("s")) > shutdown_seconds(found)
        assert {v.split(":")[1] for v in s["volumes"]} == {env["XDG_CACHE_HOME"]}, "the database has all else"
        assert name + ":8080" in read("haproxy.cfg")
        secret, = s["secrets"]
        assert s["environment"]["IMAGEND_DATABASE_PASSWORD_FILE"] == "/run/secrets/" + secret
        assert database["POSTGRES_PASSWORD_FILE"] == "/run/secrets/" + secret
        assert secret in services["postgres"]["secrets"] and secret in compose["secrets"]
    for s in services.values():
        assert s["read_only"] and s["cap_drop"] == ["ALL"]
        assert all(p.startswith("127.0.0.1:") for p in s.get("ports", ()))
        for volume in s.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or os.path.exists(os.path.join(FLEET, source)), source


def test_the_password_stays_here():
    path = load("compose.yaml")["secrets"]["database-password"]["file"]
    path = os.path.relpath(os.path.join(FLEET, path), ROOT)
    for name, line in ((".gitignore", "/" + path), (".dockerignore", path)):
        with open(os.path.join(ROOT, name)) as f:
            assert line in f.read().splitlines(), f"{path} is not in {name}"
    assert path in read("compose.yaml"), "the instructions write this file"


def test_postgresql_takes_its_settings():
    if not postgres.programs():
        skip("the package postgresql is not installed")
    command = load("compose.yaml")["services"]["postgres"]["command"]
    settings = dict(command[i + 1].split("=", 1) for i in range(1, len(command), 2))
    assert command[0] == "postgres" and set(command[1::2]) == {"-c"}
    cluster = postgres.Cluster(**settings)
    for name, value in settings.items():
        assert cluster.sql(f"SHOW {name}") == value
    # One connection for each replica while it is replaced by a new one, and some to look at it.
    assert int(settings["max_connections"]) >= 2 * len(replicas()) + 10
    cluster.stop()


# ---- HAProxy ----------------------------------------------------------------------------------------------------------

class Proxy:
    """HAProxy with deploy/fleet/haproxy.cfg in front of some ports."""

    def __init__(self, *ports):
        self.port = postgres.free_port()
        env = {"LISTEN": f"127.0.0.1:{self.port}", **{f"REPLICA_{i + 1}": f"127.0.0.1:{p}" for i, p in enumerate(ports)}}
        run("haproxy", "-c", "-q", "-f", os.path.join(FLEET, "haproxy.cfg"), **env)
        self.process = subprocess.Popen(["haproxy", "-db", "-f", os.path.join(FLEET, "haproxy.cfg")],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **env})
        self.front = Server(start=False)
        self.front.port = self.port
        eventually(self.answers, seconds=20, what="haproxy listens")

    def answers(self):
        try:
            return self.front.get("/readyz")
        except OSError:
            return False

    def close(self):
        self.process.terminate()
        self.process.wait()


def test_without_a_replica_haproxy_says_when_to_come_back():
    proxy = Proxy(*(postgres.free_port() for _ in range(3)))
    replica = Server("--drain-delay", "30")
    try:
        a = eventually(lambda: next((a for a in (proxy.front.post("/v1/jobs", {"prompt": "a"}),) if a.status == 503), None))
        assert 1 <= int(a.headers["retry-after"]) <= 60
        assert a.headers["content-type"] == "application/json"
        # In the form of imagend's own errors.
        theirs = replica.post("/v1/jobs", "{").json["error"]
        assert set(a.json["error"]) == set(theirs) and "try again" in a.json["error"]["message"]
    finally:
        proxy.close()
        replica.stop(9)


def test_stickiness_is_gone_and_metrics_stay_inside():
    text = re.sub("#.*", "", read("haproxy.cfg"))
    assert "cookie" not in text and text.count("use_backend") == 0
    assert len(re.findall(r"^\s+server ", text, re.M)) == len(replicas())
    most = int(re.search(r"maxconn (\d+)", text)[1])
    assert load("compose.yaml")["services"]["haproxy"]["ulimits"]["nofile"] > 2 * most + 100
    replica = Server()
    proxy = Proxy(*[replica.port] * 3)
    try:
        eventually(lambda: proxy.answers().status == 200)
        assert proxy.front.get("/metrics").status == 404
        assert "set-cookie" not in proxy.front.get("/healthz").headers
    finally:
        proxy.close()
        replica.close()


class Dying:
    """Replicas that are ready, take a job, and die before they respond; the third attempt is answered."""

    def __init__(self):
        self.keys, self.sockets, self.ports = [], [], []
        for _ in range(3):
            s = socket.create_server(("127.0.0.1", 0))
            self.sockets.append(s)
            self.ports.append(s.getsockname()[1])
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        while True:
            try:
                c, _ = s.accept()
            except OSError:
                return
            threading.Thread(target=self.one, args=(c,), daemon=True).start()

    def one(self, c):
        with c:
            head = b""
            while b"\r\n\r\n" not in head:
                more = c.recv(4096)
                if not more:
                    return
                head += more
            body = b"{}"
            if head.startswith(b"POST"):
                self.keys += re.findall(rb"(?im)^idempotency-key: (.*?)\r$", head)
                if len(self.keys) % 3:
                    return
            c.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n" + body)

    def close(self):
        for s in self.sockets:
            s.close()


def test_a_retried_job_has_one_key():
    """Else a replica that dies between accepting and responding leaves a second job."""
    dying = Dying()
    proxy = Proxy(*dying.ports)
    try:
        eventually(lambda: proxy.answers().status == 200)
        for path in ("/v1/jobs", "/imagend/v1/jobs"):
            a = proxy.front.post(path, {"prompt": "a"})
            assert a.status == 200, (a.status, a.headers, a.body, dying.keys)
        assert proxy.front.request("POST", "/v1/jobs", "{}", {"Idempotency-Key": "mine"}).status == 200
        assert len(dying.keys) == 9, dying.keys
        tries = [set(dying.keys[i:i + 3]) for i in range(0, 9, 3)]
        assert [len(keys) for keys in tries] == [1, 1, 1] and tries[2] == {b"mine"}
        assert len(set(dying.keys)) == 3, "another request has another key"
    finally:
        proxy.close()
        dying.close()


# ---- Prometheus and Grafana -------------------------------------------------------------------------------------------

def test_prometheus_takes_its_files():
    said = run("promtool", "check", "config", os.path.join(FLEET, "prometheus.yml"))
    assert "2 rule files found" in said
    used = metrics_of(read("alerts.yml"))
    assert len(used) >= 4 and used <= known_metrics(), used - known_metrics()
    # The container has the files in the same places relative to each other.
    prometheus = load("compose.yaml")["services"]["prometheus"]
    mounts = dict(v.split(":")[:2] for v in prometheus["volumes"])
    config = re.search("--config.file=(.*)", "\n".join(prometheus["command"]))[1]
    assert mounts["./prometheus.yml"] == config
    for rules in load("prometheus.yml")["rule_files"]:
        source = os.path.relpath(os.path.join(FLEET, rules), FLEET)
        inside = mounts[source if source.startswith("..") else "./" + source]
        assert inside == os.path.normpath(os.path.join(os.path.dirname(config), rules))


def test_alerts():
    rules = [os.path.join(FLEET, "alerts.yml")]
    found = {r["alert"]: r for g in load("alerts.yml")["groups"] for r in g["rules"]}

    def fires(name, series, **labels):
        summary = found[name]["annotations"]["summary"].replace("{{ $labels.instance }}", labels.get("instance", ""))
        check_with_promtool(series, (), [(name, [{"exp_labels": {**found[name]["labels"], **labels},
                                                  "exp_annotations": {"summary": summary}}])], rules)

    def silent(name, series):
        check_with_promtool(series, (), [(name, [])], rules)
    failures = 'imagend_store_failures_total{instance="a", call="find"}'
    fires("ImagendDatabaseFails", {failures: "0+60x30"})
    silent("ImagendDatabaseFails", {failures: "7x30"})
    slow, all_calls = ('imagend_store_seconds_bucket{call="accept", le="%s"}' % le for le in ("1", "+Inf"))
    slower = 'imagend_store_seconds_bucket{call="accept", le="5"}'
    fires("ImagendDatabaseSlow", {slow: "0+50x30", slower: "0+60x30", all_calls: "0+60x30"})
    silent("ImagendDatabaseSlow", {slow: "0+60x30", slower: "0+60x30", all_calls: "0+60x30"})
    lost = 'imagend_leases_lost_total{instance="a"}'
    fires("ImagendLeasesLost", {lost: "0x20 1x10"}, instance="a")
    silent("ImagendLeasesLost", {lost: "1x30"})
    ready = {f'imagend_ready{{instance="{i}"}}': "1x30" for i in "ab"}
    silent("ImagendOneReplicaLeft", ready)
    fires("ImagendOneReplicaLeft", {**ready, 'imagend_ready{instance="b"}': "0x30"})
    queued = {f'imagend_fleet_pictures{{instance="{i}", state="queued"}}': "300x30" for i in "ab"}
    slots = {f'imagend_slots{{instance="{i}"}}': "%dx30" for i in "ab"}
    fires("ImagendBacklogGrows", {**queued, **{k: v % 2 for k, v in slots.items()}})
    silent("ImagendBacklogGrows", {**queued, **{k: v % 4 for k, v in slots.items()}})
    assert len(found) == 5


def test_dashboard():
    board = json.loads(read("grafana/imagend.json"))
    source, = load("grafana/datasource.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in load("compose.yaml")["services"]
    provider, = load("grafana/provider.yml")["providers"]
    grafana = load("compose.yaml")["services"]["grafana"]
    mounts = dict(v.split(":")[:2] for v in grafana["volumes"])
    assert os.path.dirname(mounts["./grafana/imagend.json"]) == provider["options"]["path"]
    assert mounts["./grafana/imagend.json"] == grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert mounts["./grafana/datasource.yml"].startswith("/etc/grafana/provisioning/datasources/")
    assert mounts["./grafana/provider.yml"].startswith("/etc/grafana/provisioning/dashboards/")
    panels = board["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    cells = [(x, y) for p in panels for g in (p["gridPos"],) for x in range(g["x"], g["x"] + g["w"])
             for y in range(g["y"], g["y"] + g["h"])]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24, "panels overlap"
    expressions = []
    for p in panels:
        for t in p.get("targets", ()):
            assert p["datasource"] == {"type": "prometheus", "uid": source["uid"]}
            expressions.append(t["expr"].replace("$__rate_interval", "1m"))
        assert p["type"] == "row" or p["targets"], p["title"]
    used = metrics_of(" ".join(expressions))
    assert used <= known_metrics(), used - known_metrics()
    assert {"imagend_fleet_pictures", "imagend_claims_total", "imagend_leases_lost_total", "imagend_store_seconds",
            "imagend_store_failures_total"} <= used
    check_with_promtool({}, [(e, None) for e in expressions])


def test_labels_of_the_dashboard():
    """What panels and alerts group or select by is a label of that metric."""
    table = {m: {x.strip() for x in labels.split(",")} for m, labels in re.findall(
        r"^\| `(imagend_\w+)` \| \w+ \| (.*?) \|", run(PROGRAM, "config", "table"), re.M)}
    texts = [t["expr"] for p in json.loads(read("grafana/imagend.json"))["panels"] for t in p.get("targets", ())]
    texts += [r["expr"] for g in load("alerts.yml")["groups"] for r in g["rules"]]
    texts.append(load("keda.yaml")["spec"]["triggers"][0]["metadata"]["query"])
    for text in texts:
        for name, selector in re.findall(r"\b(imagend_\w+?)(?:_bucket|_sum|_count)?(?:\{(.*?)\}|(?=\W))", text):
            asked = set(re.findall(r"(\w+)\s*=~?\s*\"", selector)) | {
                x.strip() for by in re.findall(r"by \((.*?)\)", text) for x in by.split(",")}
            assert asked <= table[name] | {"instance", "le"}, (text, name, asked - table[name])


# ---- Kubernetes -------------------------------------------------------------------------------------------------------

def manifests():
    return {m["kind"]: m for m in yaml.safe_load_all(read("kubernetes.yaml"))}


def test_kubernetes():
    found = manifests()
    deployment = found["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    container, = pod["containers"]
    env, _ = image()
    flags = container["args"][1:]
    at = flags.index("--keys-file") + 1
    with tempfile.NamedTemporaryFile("w") as keys:
        keys.write(run(PROGRAM, "config", "key", "someone").splitlines()[1].split(": ")[1] + "\n")
        keys.flush()
        got = options([*flags[:at], keys.name, *flags[at + 1:]],
                      {**env, **found["ConfigMap"]["data"], "IMAGEND_REPLICA_NAME": "imagend-6c5d-x2x4"})
    assert got["store"] == "postgres" and "sslmode=" in got["database"]
    assert container["envFrom"] == [{"configMapRef": {"name": found["ConfigMap"]["metadata"]["name"]}}]
    assert container["env"][0]["name"] == "IMAGEND_REPLICA_NAME"
    assert pod["terminationGracePeriodSeconds"] > shutdown_seconds(got)
    assert float(got["drain-delay"]) > 2 * container["readinessProbe"]["periodSeconds"]
    labels = deployment["template"]["metadata"]["labels"]
    for m in (found["Service"], found["PodDisruptionBudget"], found["Deployment"]):
        selector = m["spec"]["selector"]
        assert selector.get("matchLabels", selector) == labels, m["kind"]
    assert found["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    assert "sessionAffinity" not in found["Service"]["spec"], "any pod answers for any job"
    assert "replicas" not in deployment and "volumeClaimTemplates" not in deployment
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert ports == {"http": int(got["listen"].rsplit(":", 1)[1])}
    assert [p["targetPort"] for p in found["Service"]["spec"]["ports"]] == ["http"]
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert sorted(mounts) == sorted(v["name"] for v in pod["volumes"])
    assert os.path.dirname(found["ConfigMap"]["data"]["IMAGEND_DATABASE_PASSWORD_FILE"]) == mounts["database"]
    assert os.path.dirname(flags[at]) == mounts["keys"] and env["XDG_CACHE_HOME"] == mounts["cache"]
    # While the database is away, pods are not ready, but nothing restarts them.
    assert [container[p]["httpGet"]["path"] for p in ("startupProbe", "livenessProbe", "readinessProbe")] == [
        "/healthz", "/healthz", "/readyz"]


def test_the_scaler_counts_what_runs():
    scaler = load("keda.yaml")["spec"]
    assert scaler["scaleTargetRef"]["name"] == manifests()["Deployment"]["metadata"]["name"]
    assert 2 <= scaler["minReplicaCount"] <= scaler["fallback"]["replicas"] <= scaler["maxReplicaCount"]
    trigger, = scaler["triggers"]
    about = trigger["metadata"]
    assert trigger["type"] == "prometheus" and metrics_of(about["query"]) == {"imagend_fleet_pictures"}
    assert int(about["threshold"]) > 0 and isinstance(about["threshold"], str), "KEDA's metadata are strings"

    def series(queued, running):
        return {f'imagend_fleet_pictures{{instance="{i}", state="{state}"}}': f"{n}x30" for i in "abc"
                for state, n in (("queued", queued), ("running", running))}
    for queued, running in ((0, 0), (0, 12), (7, 12)):
        check_with_promtool(series(queued, running), [(about["query"], queued + running)])
    check_with_promtool({}, [(about["query"], None)])


main(globals())
