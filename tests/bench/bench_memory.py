#!/usr/bin/env python3
"""Models of full size with random weights under memory limits: what `inspect` predicts, what is used, and how long
loading, streaming and each stage take. An image must be the same whatever the limit.

    bench_memory.py IMAGEND FOLDER [--models NAME,NAME...] [--limits 24G,12G,8G] [--weights f16]
                    [OPTIONS OF generate]

Writes the models into FOLDER unless they are there: by default IF-I-XL with its T5-XXL, IF-II-L and the x4 upscaler
("x4"), 24 GB. NAME is one of make_if.py's or x4; IF-I-mini,x4 takes a minute. One step per stage, without guidance, in
fp16, unless options say otherwise. FOLDER stays. Standard library only.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time

FULL = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "full")
PROMPT = "a red fox"


def make(folder, name):
    """The model's folder, written if it is not there."""
    path = os.path.join(folder, name)
    if os.path.exists(os.path.join(path, "done")):
        return path
    shutil.rmtree(path, ignore_errors=True)
    command = ["make_x4.py", path] if name == "x4" else ["make_if.py", name, path]
    subprocess.run([sys.executable, "-B", os.path.join(FULL, command[0]), *command[1:]], check=True)
    with open(os.path.join(path, "done"), "w"):
        return path


def gigabytes(n):
    return "%.2f GB" % (n / 1e9)


def predict(imagend, model, limit, weights):
    """Prints the plan of `inspect`; returns the predicted peak in bytes, None if the limit is too small."""
    r = subprocess.run([imagend, "inspect", model, "--variant", "fp16", "--dtype", "f16", "--memory-limit", limit,
                        "--slots", "1", "--weights", weights], capture_output=True, text=True)
    at = r.stdout.find("\nmemory  ")
    print(r.stdout[at + 1:].rstrip() if at >= 0 else r.stdout + r.stderr, flush=True)
    print(r.stderr, end="", flush=True)
    peak = re.search(r"^    peak\s+([\d.]+) MB", r.stdout, re.M)
    return float(peak[1]) * 1e6 if r.returncode == 0 and peak else None


def uploads(path):
    """Seconds of loading before something is computed, and of reading meanwhile; bytes of the latter; seconds of each
    pass of a text encoder."""
    with open(path) as f:
        events = json.load(f)["traceEvents"]
    loading = reading = size = 0
    passes = [e["dur"] / 1e6 for e in events if e["name"] == "forward" and e["args"]["of"].startswith("text encoder")]
    for e in events:
        if e["name"] == "upload":
            part = re.match(r"part .*, ([\d.]+) MB", e["args"]["of"])
            loading += 0 if part else e["dur"] / 1e6
            reading += e["dur"] / 1e6 if part else 0
            size += float(part[1]) * 1e6 if part else 0
    return loading, reading, size, passes


def states(cache):
    folder = os.path.join(cache, "imagend", "text")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    out = {}
    for name in names:
        with open(os.path.join(folder, name), "rb") as f:
            out[name] = f.read()
    return out


def draw(imagend, folder, model, limit, options):
    """Returns the image's bytes and the states of the prompts; None if it failed."""
    out, trace, cache = (os.path.join(folder, n) for n in ("out.png", "trace.json", "cache"))
    shutil.rmtree(os.path.join(cache, "imagend", "text"), ignore_errors=True)
    stages = model.count(",") + 1
    began = time.time()
    child = subprocess.Popen([imagend, "generate", PROMPT, "--model", model, "--variant", "fp16", "--dtype", "f16", "--steps",
                        ",".join("1" * stages), "--guidance", ",".join("1" * stages), "--seed", "3", "--slots", "1",
                        "--text-cache", "256M", "--memory-limit", limit, "-o", out, "--trace", trace, *options],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             env={**os.environ, "XDG_CACHE_HOME": cache})
    text = child.stdout.read()
    child.returncode, used = os.wait4(child.pid, 0)[1:]
    wall = time.time() - began
    if child.returncode:
        print("    failed: " + text.strip().splitlines()[-1], flush=True)
        return None
    loading, reading, size, passes = uploads(trace)
    peak = re.search(r"^device memory\s+([\d.]+) MB", text, re.M)
    print("    measured     %s of device memory, %s resident" % (
        gigabytes(float(peak[1]) * 1e6), gigabytes(used.ru_maxrss * 1024)))
    for name, size_of, seconds in re.findall(r"^(\S+)\s+(\d+) px\s+([\d.]+) s$", text, re.M):
        print("    %-12s %s px, %s s" % (name, size_of, seconds))
    print("    prompts      %s s" % ", ".join("%.1f" % s for s in passes))
    print("    in all       %.0f s, %.0f s of the processor; loading %.0f s, then reading %s in %.0f s (%.0f %%)" % (
        wall, used.ru_utime + used.ru_stime, loading, gigabytes(size), reading,
        100 * reading / wall), flush=True)
    with open(out, "rb") as f:
        return f.read(), states(cache)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("imagend")
    p.add_argument("folder")
    p.add_argument("--models", default="IF-I-XL,IF-II-L,x4")
    p.add_argument("--limits", default="24G,12G,8G")
    p.add_argument("--weights", default="f16")
    a, options = p.parse_known_args()
    options += ["--weights", a.weights]
    a.folder = os.path.abspath(a.folder)
    os.makedirs(a.folder, exist_ok=True)
    model = ",".join(make(a.folder, name) for name in a.models.split(","))
    results = []
    for limit in a.limits.split(","):
        if predict(a.imagend, model, limit, a.weights) is not None:
            drawn = draw(a.imagend, a.folder, model, limit, options)
            results += [drawn] if drawn else []
    if len(results) > 1:
        same = all(r == results[0] for r in results)
        print("the images and states are %s" % ("equal bit for bit" if same else "NOT equal"))
        return 0 if same else 1
    return 0 if results else 1


if __name__ == "__main__":
    sys.exit(main())
