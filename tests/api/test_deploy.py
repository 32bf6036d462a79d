"""The files in deploy/: the program that reads each file checks it, and everything that they state about
imagend (options, addresses, metrics, times) is compared with the program."""
import os
import re
import shlex
import shutil
import subprocess
import tempfile

from harness import PROGRAM, Server, main, require

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
DEPLOY = os.path.join(ROOT, "deploy")
require("haproxy", "promtool", "systemd-analyze", "systemd-sysusers", yaml="python3-yaml")
import yaml


def read(name):
    with open(os.path.join(ROOT, name)) as f:
        return f.read()


def load(name):
    return yaml.safe_load(read("deploy/" + name))


def manifests():
    return {(m["kind"], m["metadata"]["name"]): m
            for m in yaml.safe_load_all(read("deploy/kubernetes.yaml"))}


def run(*command, **env):
    r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       timeout=60, env={**os.environ, **env})
    assert r.returncode == 0, (command, r.stdout)
    return r.stdout


def check_options(flags, env, **more):
    """The program takes them; returns all options as they are then."""
    env = {**{k: str(v) for k, v in env.items() if k.startswith("IMAGEND_")}, **more}
    run(PROGRAM, "config", "check", *flags, **env)
    shown = run(PROGRAM, "config", "show", *flags, **env)
    return dict(line.split(" = ", 1) for line in shown.splitlines() if " = " in line)


def drain_seconds(options):
    return float(options["drain-delay"]) + float(options["drain-timeout"])


def test_haproxy_takes_its_file():
    run("haproxy", "-c", "-q", "-f", os.path.join(DEPLOY, "haproxy.cfg"),
        REPLICA_1="127.0.0.1:1", REPLICA_2="127.0.0.1:2")


def test_proxies_close_idle_connections_first():
    """Else a request may meet a connection that the server is about to close."""
    idle = float(check_options([], {})["idle-timeout"])
    found = {"Caddyfile": re.search(r"keepalive (\d+)s", read("deploy/Caddyfile"))[1],
             "traefik.yml": load("traefik.yml")["http"]["serversTransports"]["imagend"][
                 "forwardingTimeouts"]["idleConnTimeout"].rstrip("s"),
             "nginx.conf": "60"}  # nginx's default, and the file changes nothing
    assert "keepalive_timeout" not in read("deploy/nginx.conf")
    for name, seconds in found.items():
        assert float(seconds) < idle, name


def test_traefik():
    """Debian has no Traefik to try it with: what it refers to is there, and is ours."""
    http = load("traefik.yml")["http"]
    for name, router in http["routers"].items():
        assert router["service"] in http["services"] and "/metrics" in router["rule"], name
        for middleware in router.get("middlewares", ()):
            for prefix in http["middlewares"][middleware]["stripPrefix"]["prefixes"]:
                assert f"PathPrefix(`{prefix}/`)" in router["rule"]
    balancer = http["services"]["imagend"]["loadBalancer"]
    assert balancer["serversTransport"] in http["serversTransports"]
    assert [s["url"] for s in balancer["servers"]] == ["http://imagend:8080"]
    text = read("deploy/traefik.yml")
    options = dict(re.findall(r"^#     ([\w-]+) = (\S+)", text, re.M))
    check_options([f"--{name}={value}" for name, value in options.items()], {})
    server = Server()
    assert server.get(balancer["healthCheck"]["path"]).status == 200
    assert server.close() == 0


def test_prometheus_takes_its_files():
    run("promtool", "check", "config", os.path.join(DEPLOY, "prometheus.yml"))
    used = set(re.findall(r"\bimagend_\w+", read("deploy/alerts.yml")))
    table = run(PROGRAM, "config", "table")
    known = set(re.findall(r"`(imagend_\w+)`", table))
    assert len(used) >= 4
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in used} <= known


def test_systemd_takes_the_unit_and_finds_it_contained():
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "imagend"))
        shutil.copy(os.path.join(ROOT, "config", "imagend.conf"), os.path.join(folder, "imagend"))
        os.symlink(os.path.abspath(PROGRAM), os.path.join(folder, "bin"))
        unit = read("deploy/imagend.service").replace("@sysconfdir@", folder).replace(
            "@bindir@/imagend", os.path.join(folder, "bin"))
        command = shlex.split(re.search("^ExecStart=(.*)", unit, re.M)[1])
        env = dict(word.split("=", 1) for line in re.findall("^Environment=(.*)", unit, re.M)
                   for word in shlex.split(line))
        assert env == {"XDG_CACHE_HOME": "%C", "XDG_STATE_HOME": "%S"}
        options = check_options(command[2:], {}, XDG_STATE_HOME="/var/lib")
        assert command[1] == "serve" and options["listen"] == "127.0.0.1:8080"
        # What systemd makes writable is where the service writes.
        assert re.search("^StateDirectory=imagend$", unit, re.M)
        assert re.search("^CacheDirectory=imagend$", unit, re.M)
        assert options["data-dir"] == "/var/lib/imagend" and options["cache-dir"] == ""
        assert int(re.search(r"^TimeoutStopSec=(\d+)", unit, re.M)[1]) > drain_seconds(options)
        assert int(re.search(r"^LimitNOFILE=(\d+)", unit, re.M)[1]) > int(options["max-connections"])
        path = os.path.join(folder, "imagend.service")
        with open(path, "w") as f:
            f.write(unit)
        said = run("systemd-analyze", "verify", "--man=no", path)
        assert not said, said
        run("systemd-analyze", "security", "--offline=yes", "--threshold=20", path)


def test_the_unit_has_its_user():
    user = re.search("^User=(.*)", read("deploy/imagend.service"), re.M)[1]
    with tempfile.TemporaryDirectory() as root:
        os.mkdir(os.path.join(root, "etc"))
        run("systemd-sysusers", "--root=" + root, os.path.join(DEPLOY, "imagend.sysusers"))
        with open(os.path.join(root, "etc", "passwd")) as f:
            entry = next(line for line in f if line.startswith(user + ":")).strip().split(":")
        assert entry[5] == "/var/lib/imagend" and entry[6].endswith("/nologin"), entry
        with open(os.path.join(root, "etc", "group")) as f:
            groups = {line.split(":")[0]: line.strip().split(":")[3] for line in f}
        assert groups["video"] == groups["render"] == user and groups[user] == "", groups


def test_debian_package_builds_with_what_run_installs():
    control = read("deploy/debian/control")
    depends = re.search(r"^Build-Depends:(.*?)^\S", control, re.M | re.S)[1]
    depends = {re.sub(r" \(.*\)", "", word).strip() for word in depends.split(",")} - {""}
    packages = set(re.search(r"^packages='(.*?)'", read("run"), re.M | re.S)[1].split())
    # build-essential, to fetch and to draw; and the other way round.
    assert packages - depends == {"gcc", "g++", "curl", "mesa-vulkan-drivers"}
    assert depends - packages == {"debhelper-compat"}


def test_compose():
    compose = load("compose.yaml")
    services = compose["services"]
    for name in ("replica-1", "replica-2"):
        s = services[name]
        options = check_options(image_flags(), {**image_env(), **s["environment"]})
        assert float(s["stop_grace_period"].rstrip("s")) > drain_seconds(options)
        assert s["read_only"] and s["cap_drop"] == ["ALL"]
        folders = {v.split(":")[1] for v in s["volumes"]}
        assert folders == {image_env()["XDG_CACHE_HOME"], image_env()["IMAGEND_DATA_DIR"]}
        assert name + ":8080" in read("deploy/haproxy.cfg")
        assert name + ":8080" in load("prometheus.yml")["scrape_configs"][0]["static_configs"][0][
            "targets"]
    for s in services.values():
        for volume in s["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or os.path.exists(os.path.join(DEPLOY, source))
        assert all(p.startswith("127.0.0.1:") for p in s.get("ports", ()))


def image_env():
    env = {}
    for line in re.findall("^ENV (.*)", read("Dockerfile"), re.M):
        env.update(word.split("=", 1) for word in shlex.split(line))
    return env


def image_flags():
    words = yaml.safe_load(re.search(r"^CMD (.*)", read("Dockerfile"), re.M)[1])
    assert words[0] == "serve"
    return words[1:]


def test_kubernetes():
    found = manifests()
    stateful = found["StatefulSet", "imagend"]["spec"]
    pod = stateful["template"]["spec"]
    container = pod["containers"][0]
    flags = container["args"][1:]
    at = flags.index("--keys-file") + 1
    assert os.path.dirname(flags[at]) in [m["mountPath"] for m in container["volumeMounts"]]
    with tempfile.NamedTemporaryFile("w") as keys:
        keys.write(run(PROGRAM, "config", "key", "someone").splitlines()[1].split(": ")[1] + "\n")
        keys.flush()
        options = check_options([*flags[:at], keys.name, *flags[at + 1:]], image_env())
    assert pod["terminationGracePeriodSeconds"] > drain_seconds(options)
    assert float(options["drain-delay"]) > 2 * container["readinessProbe"]["periodSeconds"]
    labels = stateful["template"]["metadata"]["labels"]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert ports == {"http": int(options["listen"].rsplit(":", 1)[1])}
    for (kind, name), m in found.items():
        selector = m["spec"]["selector"]
        assert selector.get("matchLabels", selector) == labels, (kind, name)
        for port in m["spec"].get("ports", ()):
            assert port.get("targetPort", port["name"]) in ports
    assert ("Service", stateful["serviceName"]) in found
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    volumes = [v["name"] for v in pod["volumes"]] + [
        v["metadata"]["name"] for v in stateful["volumeClaimTemplates"]]
    assert sorted(mounts) == sorted(volumes)
    assert mounts["data"] == image_env()["IMAGEND_DATA_DIR"]
    assert mounts["cache"] == image_env()["XDG_CACHE_HOME"]
    gpu = load("kubernetes-gpu.yaml")["spec"]["template"]["spec"]["containers"]
    assert [c["name"] for c in gpu] == [container["name"]]


def test_what_is_asked_is_answered():
    server = Server()
    container = manifests()["StatefulSet", "imagend"]["spec"]["template"]["spec"]["containers"][0]
    paths = {container[p]["httpGet"]["path"] for p in
             ("startupProbe", "readinessProbe", "livenessProbe")}
    paths |= {re.search(r"httpchk GET (\S+)", read("deploy/haproxy.cfg"))[1], "/metrics"}
    paths.add("/" + re.search(r'HEALTHCHECK.*?:8080/(\w+)"', read("Dockerfile"), re.S)[1])
    assert len(paths) == 3
    for path in paths:
        assert server.get(path).status == 200, path
    assert server.close() == 0


main(globals())
