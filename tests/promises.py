#!/usr/bin/env python3
"""Every promise has a test: checks promises.md against the program, its headers and the tests.

usage: promises.py BUILD_FOLDER IMAGEND FAKE_IMAGEND [--list]

The list of promises is extracted from the program: options and metrics from `imagend config table`, routes from
`imagend config routes`, fields from the OpenAPI document that the program serves, functions from the headers, topics
from the headings of README.md and docs. Each needs a row in promises.md. A row may name only promises and tests that
exist: `name` is a meson test, `name:function` a function of it. --list prints promises without a row.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
HEADERS = ("engine/engine.h", "server/jobs/jobs.h", "server/jobs/store.h")
# What the schema of a field says when the field does nothing.
IGNORED = "ignored"


# ---- what is promised -----------------------------------------------------------------------------------------------

def config(program, what):
    return subprocess.run([program, "config", what], check=True, stdout=subprocess.PIPE, text=True).stdout


def options_and_metrics(program):
    table = config(program, "table")
    names = re.findall(r"^\| `([^`]+)` \|", table, re.M)
    return ({f"option {n}" for n in names if not n.startswith("imagend_")} |
            {f"metric {n}" for n in names if n.startswith("imagend_")})


def served(program):
    """The OpenAPI description of a server of our own."""
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/log", "w+") as log:
            server = subprocess.Popen([program, "serve", "--listen", "127.0.0.1:0", "--store", "memory"],
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                port = None
                for _ in range(600):
                    log.seek(0)
                    found = re.search(r"listening on http://127.0.0.1:(\d+)(?:.*\n)*.*ready:", log.read())
                    if found:
                        port = int(found.group(1))
                        break
                    if server.poll() is not None:
                        break
                    try:
                        server.wait(0.1)
                    except subprocess.TimeoutExpired:
                        pass
                if port is None:
                    log.seek(0)
                    sys.exit(f"{program} does not serve: {log.read()}")
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=60) as answer:
                    return json.load(answer)
            finally:
                server.terminate()
                server.wait()


def routes(program):
    found = map(json.loads, config(program, "routes").splitlines())
    return {f"route {r['method']} {r['path']}" for r in found}


def fields(program):
    schemas = served(program)["components"]["schemas"]
    return {f"field {schema}.{name}" for schema, body in schemas.items() if schema.endswith("Request")
            for name, about in body["properties"].items() if IGNORED not in json.dumps(about)}


def functions():
    """Prototypes, and the members of tables of functions."""
    found = set()
    for header in HEADERS:
        text = re.sub(r"//.*", "", (ROOT / header).read_text())
        name = pathlib.Path(header).name
        found |= {f"function {name} {f}" for f in re.findall(r"^[a-z][\w \*]*?\b(\w+)\([^;{]*\);", text, re.M)}
        found |= {f"function {name} {f}" for f in re.findall(r"^    [a-z][\w \*]*\(\*(\w+)\)\([^;{]*\);", text, re.M)
                  if name == "store.h"}
    return found


def topics():
    found = set()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        fenced = False
        for line in path.read_text().splitlines():
            fenced ^= line.startswith("```")
            if not fenced and re.match(r"#{1,3} ", line):
                found.add(f"topic {path.relative_to(ROOT)}: {line.lstrip('# ')}")
    return found


# ---- what is claimed ------------------------------------------------------------------------------------------------

class Tests:
    """The tests of a build folder, and the text of each one's sources."""

    def __init__(self, build):
        info = pathlib.Path(build) / "meson-info"
        targets = {t["id"]: t for t in json.loads((info / "intro-targets.json").read_text())}
        self.build, self.sources = pathlib.Path(build), {}
        for test in json.loads((info / "intro-tests.json").read_text()):
            files = [pathlib.Path(build, word) for word in test["cmd"] if word.endswith((".py", ".sh", ".mjs"))]
            for target in test["depends"]:
                files += [pathlib.Path(f) for source in targets[target]["target_sources"]
                          for f in source.get("sources", [])]
            self.sources[test["name"]] = files

    def trouble(self, name):
        test, _, function = name.partition(":")
        if test not in self.sources:
            return f"there is no test {test}"
        if not function:
            return None
        text = "".join(f.read_text() for f in self.sources[test] if f.is_file() and "tests" in f.parts)
        pattern = rf"^(def|static \w+( \*)?|int|static) ?\**{re.escape(function)}\b"
        return None if re.search(pattern, text, re.M) else f"{test} has no function {function}"


def rows():
    """(line, keys, tests) of each table row; the section's heading tells the kind of its keys."""
    kind = None
    for number, line in enumerate((HERE / "promises.md").read_text().splitlines(), 1):
        if line.startswith("## "):
            kind = line.split("(")[-1].rstrip(")") if "(" in line else None
        elif kind and line.startswith("| `"):
            cells = [c.strip() for c in line.strip("|").split(" | ")]
            if len(cells) != 3 or not cells[1]:
                sys.exit(f"promises.md:{number}: a row has what it is about, the promise and its tests")
            yield (number, [f"{kind} {k}" for k in re.findall(r"`([^`]+)`", cells[0])],
                   re.findall(r"`([^`]+)`", cells[2]))


def main():
    build, program, fake = sys.argv[1:4]
    promised = options_and_metrics(program) | routes(program) | fields(fake) | functions() | topics()
    tests, claimed, bad = Tests(build), set(), []
    for number, keys, named in rows():
        bad += [f"promises.md:{number}: there is no {k} any more" for k in keys if k not in promised]
        bad += [f"promises.md:{number}: {t}" for t in map(tests.trouble, named) if t]
        if not named:
            bad.append(f"promises.md:{number}: names no test")
        claimed |= set(keys)
    without = sorted(promised - claimed)
    if "--list" in sys.argv:
        print("\n".join(without))
        return
    bad += [f"promises.md: no row for {p}" for p in without]
    print("\n".join(bad) if bad else f"{len(claimed)} promises, each with a test")
    sys.exit(1 if bad else 0)


main()
