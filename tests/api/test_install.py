"""`meson install`: the installed files, and that the installed program works from any folder, after being moved
and through a link."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

from harness import PATIENCE, is_png, main, skip

BUILD, PREFIX = sys.argv.pop(2), sys.argv.pop(2)
MESON = shutil.which("meson")
if not MESON:
    print("skipped: meson is not in the path")
    sys.exit(77)
FIRST_IMAGE = 4 * PATIENCE  # s: nothing is compiled yet
ENV = {k: v for k, v in os.environ.items() if not k.startswith("IMAGEND_")}


def install(folder):
    r = subprocess.run([MESON, "install", "-C", BUILD, "--no-rebuild", "--destdir", folder],
                       capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    return folder + PREFIX


def output(program, *args, cwd="/", **env):
    r = subprocess.run([program, *args], cwd=cwd, env={**ENV, **env}, capture_output=True, text=True,
                       timeout=FIRST_IMAGE)
    assert r.returncode == 0, (args, r)
    return r.stdout


def default_model(program, **more):
    shown = output(program, "config", "show", **more)
    return next(line.split(" = ", 1)[1] for line in shown.splitlines() if line.startswith("model = "))


def wait_ready(server, log):
    """The address of a server that has begun to draw."""
    deadline = time.monotonic() + FIRST_IMAGE
    while server.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        with open(log) as f:
            found = [line.split("listening on ")[1].strip() for line in f if "listening on " in line]
        try:
            if found and urllib.request.urlopen(found[0] + "/readyz", timeout=PATIENCE).status == 200:
                return found[0]
        except OSError:
            pass
    with open(log) as f:
        raise AssertionError("the service did not become ready: " + f.read())


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def test_brings_everything_and_keeps_a_configuration():
    with tempfile.TemporaryDirectory() as folder:
        prefix = install(folder)
        for path in ("bin/imagend", "share/man/man1/imagend.1", "share/man/man5/imagend.conf.5",
                     "share/bash-completion/completions/imagend", "share/zsh/site-functions/_imagend",
                     "share/fish/vendor_completions.d/imagend.fish", "lib/sysusers.d/imagend.conf",
                     "lib/systemd/system/imagend.service", "share/imagend/models/default/cascade.json"):
            assert os.path.getsize(os.path.join(prefix, path)) > 0, path
        program = prefix + "/bin/imagend"
        with open(prefix + "/share/man/man1/imagend.1") as f:
            assert f.read() == output(program, "manual", "imagend.1")
        with open(prefix + "/lib/systemd/system/imagend.service") as f:
            unit = f.read()
        assert "@" not in unit.replace("@system-service", ""), "a placeholder was not replaced"
        assert f"ExecStart={PREFIX}/bin/imagend serve" in unit
        conf = unit.split("--config ")[1].split()[0]
        assert os.path.exists(folder + conf), conf
        output(program, "config", "check", "--config", folder + conf)
        write(folder + conf, "keep-jobs = 7\n")
        install(folder)
        with open(folder + conf) as f:
            assert f.read() == "keep-jobs = 7\n"
        for parent, _, names in os.walk(folder):
            assert not [name for name in names if name.endswith(".jpg")], parent


def test_finds_its_model_from_any_folder():
    with tempfile.TemporaryDirectory() as folder:
        prefix = install(folder)
        program, model = prefix + "/bin/imagend", prefix + "/share/imagend/models/default"
        os.makedirs(folder + "/elsewhere/models/default")
        for cwd in ("/", folder + "/elsewhere", model):
            assert default_model(program, cwd=cwd) == model, cwd
        os.symlink(program, folder + "/link")
        assert default_model(folder + "/link") == model
        assert "complete" in output(program, "inspect").lower()
        assert default_model(program, IMAGEND_MODEL="/else/where") == "/else/where"
        assert default_model(program, IMAGEND_MODEL="") == model
        # The whole tree elsewhere.
        os.rename(prefix, folder + "/moved")
        assert default_model(folder + "/moved/bin/imagend") == folder + "/moved/share/imagend/models/default"
        # The program alone: where it was configured for, unless the current folder has a model.
        os.makedirs(folder + "/alone/bin")
        shutil.copy(folder + "/moved/bin/imagend", folder + "/alone/bin")
        installed = PREFIX + "/share/imagend/models/default"
        assert default_model(folder + "/alone/bin/imagend") == installed
        write(folder + "/elsewhere/models/default/cascade.json", "{}")
        found = default_model(folder + "/alone/bin/imagend", cwd=folder + "/elsewhere")
        assert found == (installed if os.path.exists(installed) else "models/default")


def test_uninstalled_program_finds_the_model_beside_its_build_folder():
    source = os.path.dirname(os.path.abspath(BUILD))
    if not os.path.exists(source + "/models/default/cascade.json"):
        skip("the build folder is not inside the source tree")
    assert default_model(BUILD + "/imagend") == source + "/models/default"


def test_draws_and_serves_from_another_folder():
    with tempfile.TemporaryDirectory() as folder:
        program = install(folder) + "/bin/imagend"
        os.mkdir(folder + "/cwd")
        home = {"HOME": folder + "/home", "XDG_CACHE_HOME": "", "XDG_STATE_HOME": ""}
        output(program, "generate", "a red sphere", "--size", "64", "--steps", "1", "-o", "a.png",
               cwd=folder + "/cwd", **home)
        with open(folder + "/cwd/a.png", "rb") as f:
            assert is_png(f.read(), 64)
        os.unlink(folder + "/cwd/a.png")
        log = open(folder + "/log", "w")
        server = subprocess.Popen([program, "serve", "--listen", "127.0.0.1:0"], cwd=folder + "/cwd",
                                  env={**ENV, **home}, stderr=log)
        log.close()
        try:
            url = wait_ready(server, folder + "/log")
            body = json.dumps({"prompt": "a red sphere", "size": "64x64", "steps": [1]}).encode()
            request = urllib.request.Request(url + "/v1/images/generations", body, {
                "Content-Type": "application/json", "Accept": "image/png"})
            with urllib.request.urlopen(request, timeout=FIRST_IMAGE) as response:
                assert is_png(response.read(), 64)
        finally:
            server.terminate()
            assert server.wait(PATIENCE) == 0
        assert os.listdir(folder + "/cwd") == [], "the working directory stays empty"
        assert os.path.exists(folder + "/home/.local/state/imagend")
        assert os.path.exists(folder + "/home/.cache/imagend")


main(globals())
