"""The bundle in miniature: a program with a library of its own, packed by deploy/bundle.py's functions and started by
deploy/start.sh; and bench/gpu.py's report, whatever its parts do. The whole bundle: tests/bundle/bundle.sh (slow)."""
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

from harness import main, skip

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.dont_write_bytecode = True
sys.path.insert(0, ROOT + "/tests/bench/gpu")
import gpu  # noqa: E402
import parts  # noqa: E402

RPATH = "-Wl,--disable-new-dtags,-rpath,$ORIGIN/../lib"
LIBRARY = 'const char *greeting(void) { return "hello"; }'
PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
const char *greeting(void);
static const char *or_none(const char *s) { return s ? s : ""; }
int main(int argc, char **argv) {
    printf("%s|%s|%s|%s\\n", greeting(), argc > 1 ? argv[1] : "", or_none(getenv("LD_PRELOAD")),
           or_none(getenv("LD_LIBRARY_PATH")));
    return 0;
}
"""


def load_bundle():
    spec = importlib.util.spec_from_file_location("bundle", ROOT + "/deploy/bundle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bundle = load_bundle()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)


def compile_c(source, path, *flags):
    if not shutil.which("cc"):
        skip("no C compiler")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write(path + ".c", source)
    subprocess.run(["cc", path + ".c", "-o", path, *flags], check=True)
    os.unlink(path + ".c")


def make(folder, cxx=10 ** 6, rpath=RPATH):
    """A bundle with one program and one library; cxx: the number of its C++ library."""
    root = folder + "/bundle"
    compile_c(LIBRARY, root + "/lib/libgreeting.so", "-shared", "-fPIC")
    compile_c(PROGRAM, root + "/libexec/hello", "-L" + root + "/lib", "-lgreeting", rpath)
    os.makedirs(root + "/bin")
    with open(ROOT + "/deploy/start.sh") as f:
        write(root + "/bin/start", f.read().replace("@STDCXX@", str(cxx)))
    os.chmod(root + "/bin/start", 0o755)
    os.symlink("start", root + "/bin/hello")
    return root


def output(program, *args, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LD_", "IMAGEND_"))}
    r = subprocess.run([program, *args], cwd="/", env={**clean, **env}, capture_output=True, text=True)
    assert r.returncode == 0, r
    return r.stdout.strip().split("|")


# ---- the folder -----------------------------------------------------------------------------------------------------

def test_runs_from_any_folder():
    with tempfile.TemporaryDirectory() as folder:
        root = make(folder)
        bundle.check_outside([root + "/libexec/hello"], root)
        assert output(root + "/bin/hello", "a b")[:2] == ["hello", "a b"]
        moved = folder + "/moved to a name with spaces"
        os.rename(root, moved)
        os.symlink(moved + "/bin/hello", folder + "/hello")
        for program in (moved + "/bin/hello", folder + "/hello"):
            assert output(program, "x")[:2] == ["hello", "x"], program
        bundle.check_outside([moved + "/libexec/hello"], moved)


def refused(function, *args):
    try:
        function(*args)
    except SystemExit as e:
        return str(e)
    raise AssertionError("not refused")


def test_a_library_from_outside_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        root = make(folder)
        os.makedirs(folder + "/outside")
        os.rename(root + "/lib/libgreeting.so", folder + "/outside/libgreeting.so")
        assert "libgreeting.so" in refused(bundle.check_outside, [root + "/libexec/hello"], root)
        os.environ["LD_LIBRARY_PATH"] = folder + "/outside"
        try:
            assert folder + "/outside" in refused(bundle.check_outside, [root + "/libexec/hello"], root)
        finally:
            del os.environ["LD_LIBRARY_PATH"]


def test_a_path_of_the_build_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        root = make(folder)
        bundle.check_paths("/no/such/tree", root)
        write(root + "/share/file", "built in /no/such/tree/build\n")
        assert root + "/share/file" in refused(bundle.check_paths, "/no/such/tree", root)


def test_programs_are_carried_and_scripts_are_not():
    def made(name, suite, *cmd):
        return {"name": name, "suite": ["imagend:" + suite], "cmd": list(cmd), "timeout": 9}
    listed = [made("ops a", "ops", "/t/build/tests/ops/test_ops_a"),
              made("golden", "golden", "/t/build/tests/parity/golden", "/t/tests/golden", "--quiet"),
              made("exported", "golden", "/t/build/tests/parity/exported", "/t/models/default", "/t/tests/data/default"),
              made("script", "engine", "/usr/bin/python3", "/t/tests/engine/x.py"),
              made("api-jobs", "api", "/t/build/tests/api/x")]
    own, bundle.output = bundle.output, lambda *args: json.dumps(listed)
    try:
        found = bundle.tests_of("/t", "/t/build")
    finally:
        bundle.output = own
    assert [(t["name"], t["suite"], t["command"]) for t in found] == [
        ("ops a", "ops", ["bin/test_ops_a"]), ("golden", "golden", ["bin/golden", "tests/golden", "--quiet"]),
        ("exported", "golden", ["bin/exported", "share/imagend/models/default", "tests/data/default"])], found


def test_the_newest_libc_that_is_needed():
    version = bundle.libc_version([sys.executable])
    assert tuple(map(int, version.split("."))) >= (2, 2), version
    with tempfile.TemporaryDirectory() as folder:
        root = make(folder)
        ours = bundle.libc_version([root + "/libexec/hello"])
        assert tuple(map(int, ours.split("."))) <= tuple(map(int, os.confstr("CS_GNU_LIBC_VERSION").split()[1].split(".")))


def test_the_newer_cxx_library_is_used():
    system = next((p for p in ("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", "/usr/lib64/libstdc++.so.6")
                   if os.path.exists(p)), None)
    if not system:
        skip("no C++ library in the usual folders")
    with tempfile.TemporaryDirectory() as folder:
        assert output(make(folder, cxx=10 ** 6) + "/bin/hello")[2] == ""
    with tempfile.TemporaryDirectory() as folder:
        preload = output(make(folder, cxx=1) + "/bin/hello")[2].split(":")
        assert preload[0] == os.path.realpath(system), preload


def test_the_own_loader():
    with tempfile.TemporaryDirectory() as folder:
        root = make(folder)
        assert output(root + "/bin/hello", IMAGEND_OWN_LOADER="1")[3] == root + "/lib/loader"
        assert output(root + "/bin/hello", IMAGEND_OWN_LOADER="1", LD_LIBRARY_PATH="/x")[3] == "/x:" + root + "/lib/loader"
        if os.path.exists("/usr/lib/x86_64-linux-gnu/libvulkan.so.1"):
            assert output(root + "/bin/hello")[3] == ""


# ---- bench/gpu.py ---------------------------------------------------------------------------------------------------

def reported(folder):
    with open(folder + "/report.json") as f:
        found = json.load(f)
    with open(folder + "/report.md") as f:
        return {p["name"]: p for p in found["parts"]}, f.read()


def test_a_part_loses_only_its_own_results():
    def hangs(part):
        part.data["before"] = 1
        r = part.run(["sh", "-c", 'echo \'{"a": 1}\'; echo \'{"b": \'; sleep 60 & sleep 60'], folder + "/log")
        part.data["seen"] = r.objects
        gpu.need(r, "the command")

    def breaks(part):
        part.table(["x"], [[1]])
        raise KeyError("missing")

    def skips(part):
        raise parts.Skip("no such thing here")

    def fine(part):
        r = part.run(["echo", "{\"c\": 3}"], folder + "/log")
        part.data["seen"] = gpu.need(r, "echo").objects

    with tempfile.TemporaryDirectory() as folder:
        report = parts.Report(folder, "a title", 60)
        began = time.monotonic()
        report.part("hangs", 3, hangs)
        assert time.monotonic() - began < 20
        assert list(reported(folder)[0]) == ["hangs"], "complete after every part"
        for name, function in (("breaks", breaks), ("skips", skips), ("fine", fine)):
            report.part(name, 20, function)
        report.deadline = time.monotonic() + 1
        report.part("late", 20, fine)
        found, text = reported(folder)
        assert {n: p["status"] for n, p in found.items()} == {
            "hangs": "out of time", "breaks": "failed", "skips": "skipped", "fine": "ok", "late": "not run"}, found
        assert found["hangs"]["data"] == {"before": 1, "seen": [{"a": 1}]}
        assert "missing" in found["breaks"]["why"] and found["breaks"]["tables"], found["breaks"]
        assert found["fine"]["data"]["seen"] == [{"c": 3}]
        for word in ("# a title", "no such thing here", "no time was left", "KeyError"):
            assert word in text, text


def test_differences_of_images():
    assert gpu.compare(b"\0\1\2\3", b"\0\1\2\3") == (0, 0, float("inf"))
    count, most, psnr = gpu.compare(bytes([0, 10, 255, 4]), bytes([0, 13, 254, 4]))
    assert (count, most) == (2, 3) and abs(psnr - 44.151) < 0.01, psnr
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/a.ppm", "wb") as f:
            f.write(b"P6\n2 1\n255\n\n\n\n\n\n\n")
        assert gpu.read_ppm(folder + "/a.ppm") == ((2, 1), b"\n" * 6)


def test_the_parts_fit_into_nine_minutes():
    class Nobody:
        pass
    named = gpu.parts(Nobody())
    assert sum(seconds for _, seconds, _ in named) <= 8.8 * 60
    assert len({name for name, _, _ in named}) == len(named) and named[0][0] == "device"


main(globals())
