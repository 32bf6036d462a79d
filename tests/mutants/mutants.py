#!/usr/bin/env python3
"""Mutation testing: puts one small fault at a time into a copy of the tree and runs the test that must notice it.

usage: mutants.py [--jobs N] [--list] [--check] [NAME...]

A mutant is an entry of a *.mutants file in this folder:

    == name-of-the-fault
    file: engine/base/rng.c
    test: rng                       (a meson test; api-jobs:test_x runs one function of it, settings:test_rows:seed
                                     one row of a function, golden:t5-tiny the fixtures with this in their names;
                                     NAME=VALUE before it sets the environment)
    -    the lines as they are, which must occur exactly once in the file
    +    the lines with the fault

A mutant is killed when its test fails, crashes or runs out of time ("out of time" in the list); a mutant that does not
compile, or whose text is no longer in the file, is an error of the mutant. Faults that no test can notice are not
listed: those that only cost speed, that a later check catches too, or that only a GPU would show. NAME selects mutants
whose file or name contains it. --check only verifies that every entry applies. The exit status is 0 when every mutant
was killed.

Each job has a copy of the tree and takes one file after the other, with all of its mutants, the longest first: what a
restored file would compile to is built only once. Tests end at their first failure (TEST_STOPS_AT_FAILURE). A test that
starts the engine takes seconds each time, so name the function, the row or the fixtures that notice the fault; those
of a C test must be called with RUN of tests/test.h. What is named must pass without the fault, and is tried so first.
What should happen at some time is waited for PATIENCE seconds.
"""
import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import queue
import resource
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LONGEST, LEAST = 300, 10    # seconds for one test, and for one that is quick; a mutant that hangs is killed
SLOW = 10                   # seconds from which a test is listed as slow
PATIENCE = 20               # seconds that tests wait for what a fault may prevent, instead of 30 or 60
KILLED = "killed", "out of time"
RUNNING = set()  # process groups


def stop(signum, frame):
    """Leaves no build and no test behind."""
    for group in list(RUNNING):
        os.killpg(group, signal.SIGKILL)
    os._exit(1)


class Mutant:
    def __init__(self, source, name):
        self.source, self.name = source, name
        self.file = self.test = None
        self.old, self.new = [], []

    def check(self):
        """Why the entry cannot be used, or None."""
        if not (self.file and self.test and self.old):
            return "needs file:, test: and at least one line with -"
        path = ROOT / self.file
        if not path.is_file():
            return f"there is no {self.file}"
        count = path.read_text().count(self.text(self.old))
        if count != 1:
            return f"its text occurs {count} times in {self.file}, not once"
        if self.old == self.new:
            return "changes nothing"
        return None

    @staticmethod
    def text(lines):
        return "".join(line + "\n" for line in lines)


def parse(path):
    mutants = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        where = f"{path.name}:{number}"
        if line.startswith("== "):
            mutants.append(Mutant(path.stem, line[3:].strip()))
        elif not line.strip() or line.startswith("#"):
            continue
        elif not mutants:
            sys.exit(f"{where}: expected == NAME first")
        elif line.startswith(("-", "+")):
            (mutants[-1].old if line[0] == "-" else mutants[-1].new).append(line[1:])
        elif line.startswith(("file: ", "test: ")):
            setattr(mutants[-1], line[:4], line[6:].strip())
        else:
            sys.exit(f"{where}: not a line of a mutant: {line}")
    return mutants


def load(wanted):
    mutants = [m for path in sorted(HERE.glob("*.mutants")) for m in parse(path)]
    seen, bad = set(), []
    for m in mutants:
        why = "the name is used twice" if m.name in seen else m.check()
        seen.add(m.name)
        if why:
            bad.append(f"{m.source}: {m.name}: {why}")
    if bad:
        sys.exit("\n".join(bad))
    return [m for m in mutants if not wanted or any(w in m.name or w in m.source for w in wanted)]


class Tree:
    """A copy of the sources with a build folder of its own."""

    def __init__(self, folder):
        self.source, self.build = folder / "tree", folder / "build"
        self.log = folder / "log"
        self.shaders = folder.parent / "mesa"  # that the driver has compiled
        folder.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], check=True, stdout=subprocess.PIPE).stdout
        names = {name for name in tracked.decode().split("\0") if name and (ROOT / name).is_file()}
        for path in self.source.rglob("*"):
            if path.is_file() and str(path.relative_to(self.source)) not in names:
                path.unlink()
        for name in names:
            target = self.source / name
            if target.is_file() and target.read_bytes() == (ROOT / name).read_bytes():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
            os.utime(target)
        clients = self.source / "tests/clients/node_modules"  # of tests that need Node
        if not clients.is_symlink():
            clients.symlink_to(ROOT / "tests/clients/node_modules")
        if not (self.build / "build.ninja").exists():
            linker = {"CC_LD": "gold", "CXX_LD": "gold"} if shutil.which("ld.gold") else {}  # takes half the time
            self.run(["meson", "setup", "--buildtype=debugoptimized", "-Ddebug=false", "-Doptimization=1",
                      "-Dwerror=false", self.build, self.source], 600, env={**os.environ, **linker})
        if self.run(["ninja", "-C", self.build], 1800) != 0:
            sys.exit(f"the unchanged tree does not build; see {self.log}")
        self.describe()

    def run(self, command, seconds, **more):
        """The exit status, or None when the time is up."""
        with open(self.log, "ab") as log:
            process = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                       start_new_session=True, **more)
            RUNNING.add(process.pid)
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return None
            finally:
                RUNNING.discard(process.pid)

    def describe(self):
        """The tests that the build folder knows, and the file of each target."""
        info = self.build / "meson-info"
        files = {t["id"]: t["filename"] for t in json.loads((info / "intro-targets.json").read_text())}
        self.tests = {t["name"]: t for t in json.loads((info / "intro-tests.json").read_text())}
        for t in self.tests.values():
            t["files"] = [os.path.relpath(f, self.build) for d in t["depends"] for f in files[d]]

    def find(self, test):
        """What a test is to meson, the function that is meant or None, and its environment."""
        env = {"MESA_SHADER_CACHE_DIR": str(self.shaders), **os.environ, "TEST_STOPS_AT_FAILURE": "1",
               "TEST_PATIENCE": str(PATIENCE)}
        while "=" in test.partition(" ")[0]:
            setting, _, test = test.partition(" ")
            env.update([setting.split("=", 1)])
        name, _, function = test.partition(":")
        t = self.tests.get(name)
        return t, function, t and {**env, **t["env"]}

    def builds(self, test):
        """Rebuilds what a test runs, and nothing else."""
        files = self.find(test)[0]["files"]
        return not files or self.run(["ninja", "-C", self.build, *files], 900) == 0

    def passes(self, test, seconds):
        """Whether a test passes, as meson would run it; None: it ran out of time. Skipped (77) is not passed."""
        t, function, env = self.find(test)
        command = list(t["cmd"])
        if function and any(c.endswith(".py") for c in command):
            command.append(function)
        elif function:
            env["TEST_ONLY"] = function
        rc = self.run(command, seconds, cwd=t["workdir"] or self.build, env=env)
        return None if rc is None else rc == 0

    def seconds(self, test):
        """How long a test takes that passes; None: it does not."""
        start = time.monotonic()
        return time.monotonic() - start if self.passes(test, LONGEST) else None

    def try_mutant(self, m, taken):
        """What became of it, and how many seconds its build and its test took."""
        path, start = self.source / m.file, time.monotonic()
        original = path.read_text()
        if taken is None:
            return "fails anyway", 0, 0
        try:
            path.write_text(original.replace(Mutant.text(m.old), Mutant.text(m.new)))
            if not self.builds(m.test):
                return "does not build", time.monotonic() - start, 0
            built = time.monotonic()
            passed = self.passes(m.test, min(LONGEST, LEAST + 6 * taken))
            result = {True: "survived", False: "killed", None: "out of time"}[passed]
            return result, built - start, time.monotonic() - built
        finally:
            path.write_text(original)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("names", nargs="*")
    args.add_argument("--jobs", type=int, default=2)
    args.add_argument("--list", action="store_true")
    args.add_argument("--check", action="store_true")
    args.add_argument("--folder", type=pathlib.Path, default=ROOT / "build-mutants")
    opt = args.parse_args()
    mutants = load(opt.names)
    if opt.check or opt.list:
        for m in mutants if opt.list else []:
            print(f"{m.source}: {m.name} ({m.test})")
        print(f"{len(mutants)} mutants")
        return
    if not mutants:
        sys.exit("no mutant has such a name")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    start = time.monotonic()
    results = run_all(mutants, opt)
    alive = [m for m in mutants if results[m.name] not in KILLED]
    killed = len(mutants) - len(alive)
    minutes = (time.monotonic() - start) / 60
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"\nscore {killed / len(mutants):.3f}: {killed} of {len(mutants)} mutants killed in {minutes:.1f} minutes "
          f"({(used.ru_utime + used.ru_stime) / 60:.1f} of processor time)")
    for m in alive:
        print(f"  {results[m.name]}: {m.source}: {m.name}, {m.file}")
    print(f"{killed} passed, {len(alive)} failed")
    sys.exit(1 if alive else 0)


def run_all(mutants, opt):
    """What became of each mutant, by its name."""
    trees = queue.Queue()
    for i in range(opt.jobs):
        some = Tree(opt.folder / str(i))
        trees.put(some)
    tests = sorted({m.test for m in mutants})
    unknown = [t for t in tests if not some.find(t)[0]]
    if unknown:
        sys.exit("there are no such tests: " + ", ".join(unknown))

    def attempt(work, *args):
        tree = trees.get()
        try:
            return work(tree, *args)
        finally:
            trees.put(tree)

    results, spent = {}, collections.Counter()

    def try_file(tree, group):
        for m in group:
            result, building, testing = tree.try_mutant(m, taken[m.test])
            results[m.name] = result
            spent.update(building=building, testing=testing)
            print(f"{result:>14} {building:5.1f} + {testing:5.1f} s  {m.source}: {m.name} ({m.test})", flush=True)

    with concurrent.futures.ThreadPoolExecutor(opt.jobs) as pool:
        # Without a fault first; what takes much longer than this has hung.
        taken = dict(zip(tests, pool.map(lambda t: attempt(Tree.seconds, t), tests)))
        for t in sorted(tests, key=lambda t: -(taken[t] or 0)):
            if taken[t] is None or taken[t] > SLOW:
                what = "fails anyway" if taken[t] is None else f"{taken[t]:.1f} s"
                print(f"{what:>14}  without a fault: {t}", flush=True)
        files = collections.defaultdict(list)
        for m in mutants:
            files[m.file].append(m)
        groups = sorted(files.values(), key=lambda group: -sum(1 + (taken[m.test] or 0) for m in group))
        list(pool.map(lambda group: attempt(try_file, group), groups))
    print(f"tests without a fault {sum(t or 0 for t in taken.values()) / 60:.1f} minutes of all jobs, building "
          f"{spent['building'] / 60:.1f}, tests {spent['testing'] / 60:.1f}")
    return results


if __name__ == "__main__":
    main()
