"""The script `run` itself, with stand-ins for apt-get, meson and ninja that only record their arguments: the
packages it installs, the build options, and how it counts results."""
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

from harness import main

RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "run")

# A package is installed once it has been asked for; a build folder has a log with the given results.
FAKES = {
    "apt-get": """case $* in *install*)
    for a; do case $a in -*|install) ;; *) echo "$a" >>"$FAKE/installed"; : >"$FAKE/$a.deb" ;; esac; done
esac""",
    "apt-cache": "echo 'Candidate: 1'",
    "dpkg-query": """for p; do :; done; [ -e "$FAKE/$p.deb" ] && printf installed""",
    "meson": """
case $1 in
setup)
    previous=; last=
    for a; do previous=$last; last=$a; done
    mkdir -p "$previous"; : >"$previous/build.ninja" ;;
test)
    [ "${3##*/}" != "$BROKEN" ] || exit 1
    mkdir -p "$3/meson-logs"
    for word in $RESULTS; do
        printf '{"name": "imagend:unit / t", "result": "%s", "stdout": "skipped: why"}\\n' "$word"
    done >"$3/meson-logs/run-quick.json"
    for setup in slow asan tsan validation; do
        cp "$3/meson-logs/run-quick.json" "$3/meson-logs/run-$setup.json"
    done ;;
introspect)
    echo '[{"name": "t", "suite": ["imagend:unit"]}, {"name": "s", "suite": ["imagend:unit", "imagend:slow"]}'
    [ -z "$ODD" ] || echo ', {"name": "'"$ODD"'", "suite": ["imagend:odd"]}'
    echo ']' ;;
esac""",
    "ninja": """[ "${2##*/}" != "$BROKEN" ]""",
    "npm": "",
    "sudo": """exec "$@" """,
    "setarch": "",
}


def is_debian():
    try:
        with open("/etc/os-release") as f:
            return "debian" in " ".join(re.findall(r"^ID(?:_LIKE)?=(.*)$", f.read(), re.M))
    except OSError:
        return False


class Tree:
    """A copy of `run` in a folder of its own, and everything that it called, in order."""

    def __init__(self, folder):
        self.folder, self.fake = os.path.join(folder, "tree"), os.path.join(folder, "fake")
        os.makedirs(os.path.join(self.folder, "tests", "clients"))
        os.makedirs(self.fake)
        shutil.copy(RUN, self.folder)
        for name in ("installed", "calls"):
            open(os.path.join(self.fake, name), "w").close()
        for name, body in FAKES.items():
            path = os.path.join(self.fake, name)
            with open(path, "w") as f:
                f.write(f"#!/bin/sh\necho {name} \"$@\" >>\"$FAKE/calls\"\n{body}\n")
            os.chmod(path, 0o755)

    def run(self, *args, results="OK", broken="", odd=""):
        """odd: a test of a suite that no run has."""
        env = {"PATH": self.fake + ":/usr/bin:/bin", "FAKE": self.fake, "HOME": self.fake,
               "RESULTS": results, "BROKEN": broken, "ODD": odd}
        return subprocess.run([os.path.join(self.folder, "run"), *args], capture_output=True,
                              text=True, timeout=60, env=env, stdin=subprocess.DEVNULL)

    def calls(self, start=""):
        with open(os.path.join(self.fake, "calls")) as f:
            return [line for line in f.read().splitlines() if line.startswith(start)]

    def installed(self):
        with open(os.path.join(self.fake, "installed")) as f:
            return f.read().split()


@contextlib.contextmanager
def tree():
    with tempfile.TemporaryDirectory(prefix="imagend-run-") as folder:
        yield Tree(folder)


COMMANDS = (("build",), ("test",), ("test", "--slow"), ("dist",), ("image",), ("deb",), ("bench", "ops"),
            ("golden", "."), ("format",))


def test_a_package_is_named_once():
    for command in COMMANDS:
        with tree() as t:
            t.run(*command)
            names = t.installed()
            assert names and sorted(set(names)) == sorted(names), (command, sorted(names))
            before = t.calls("apt-get")
            t.run(*command)
            assert t.calls("apt-get") == before, command  # the second time nothing is missing
    with tree() as t:
        t.run("test", "--slow")
        assert {"debootstrap", "systemd-container", "chromium"} <= set(t.installed())


def test_warnings_are_errors_in_tests_alone():
    """The folder that a user's program comes from never has them, whatever was run before."""
    with tree() as t:
        for command in (("build",), ("test",), ("build",), ("test", "--slow"), ("golden", ".")):
            assert t.run(*command).returncode == 0 or command[0] == "golden", command
        strict = [c for c in t.calls("meson") if "werror" in c]
        assert strict and all("-Dwerror=true" in c for c in strict)
        folders = {word for c in strict for word in c.split() if word.startswith(t.folder + "/build")}
        assert folders == {t.folder + "/build-test"}, folders
        tested = [(c.split()[3].rpartition("/")[2], c.split()[c.split().index("--setup") + 1]) for c in t.calls("meson test")]
        validation, asan, tsan = ("build-test", "validation"), ("build-asan", "asan"), ("build-tsan", "tsan")
        assert tested == [("build-test", "quick"), validation, asan, tsan,
                          ("build-test", "slow"), validation, asan, asan, tsan, tsan], tested
        assert "build" in [c.split()[2].rpartition("/")[2] for c in t.calls("ninja -C")]


def test_how_results_are_counted():
    for results, said, code in (("OK OK EXPECTEDFAIL", "12 passed, 0 failed, 0 skipped", 0),
                                ("OK SKIP", "4 passed, 0 failed, 4 skipped", 0),
                                ("SKIP", "0 passed, 0 failed, 4 skipped", 1),
                                ("OK FAIL", "4 passed, 4 failed, 0 skipped", 1),
                                ("OK TIMEOUT ERROR", "4 passed, 8 failed, 0 skipped", 1),
                                ("INTERRUPT UNEXPECTEDPASS", "0 passed, 8 failed, 0 skipped", 1)):
        with tree() as t:
            r = t.run("test", results=results)
            assert r.stdout.splitlines()[-1] == said, (results, r.stdout, r.stderr)
            assert r.returncode == code, (results, r.returncode)
            assert r.stdout.count("imagend:unit / t: skipped: why") == 4 * results.count("SKIP"), r.stdout


def test_a_test_that_no_run_has():
    with tree() as t:
        r = t.run("test", odd="lonely")
        assert (r.stdout.splitlines()[-1], r.returncode) == ("4 passed, 1 failed, 0 skipped", 1), r.stdout
        assert "in none of the runs: lonely\n" in r.stderr, r.stderr


def test_a_folder_that_does_not_build():
    """It counts as one failure; the others are tested all the same."""
    for broken, said in (("build-asan", "3 passed, 1 failed, 0 skipped"),
                         ("build-test", "2 passed, 2 failed, 0 skipped")):
        with tree() as t:
            r = t.run("test", broken=broken)
            assert r.stdout.splitlines()[-1] == said and r.returncode == 1, r.stdout


def test_clean():
    with tree() as t:
        for name in ("build", "build-test", "build-asan", "build-tsan", "build-image", "build-deb",
                     "build-dist", "mine", "builder"):
            os.mkdir(os.path.join(t.folder, name))
        assert t.run("clean").returncode == 0
        assert sorted(os.listdir(t.folder)) == ["builder", "mine", "run", "tests"]


def test_unknown_words():
    with tree() as t:
        for words in (("nonsense",), ("test", "--fast"), ("bench", "nothing")):
            r = t.run(*words)
            assert r.returncode == 1 and words[-1] in r.stderr, (words, r)


if not is_debian():
    print("skipped: `run` installs nothing here; this is neither Debian nor a derivative")
    sys.exit(77)
if __name__ == "__main__":
    main(globals())
