#!/usr/bin/env python3
"""What this machine's Vulkan device computes and how fast, in at most nine minutes.

    gpu.py [--small] [--out FOLDER] [--minutes M] [--only PART,PART]

Writes report.json and report.md after every part. PyTorch, where a Python has it, gives the ceilings and the
comparisons. --small measures small networks; it is the default where the device is a CPU. Standard library only.
"""
import argparse
import glob
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time

from parts import Late, Report, Skip, stop

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
STAGES = (64, 256, 1024)
PROMPT = "a red sphere on a wooden table"
GB = 1e9
# NVIDIA's driver, where no loader looks for it by itself.
NVIDIA = ("/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json", "/usr/share/nvidia/vulkan/nvidia_icd.json")


class Kit:
    """The bundle, this machine, and what the parts hand on to each other."""

    def __init__(self, args, work):
        self.args, self.work = args, work
        self.env, self.python, self.small = {}, None, args.small
        self.software, self.half = False, True
        self.makers, self.logs = {}, 0
        self.ops = []  # what bench_ops has printed

    def log(self):
        self.logs += 1
        return f"{self.work}/log{self.logs}"

    def run(self, part, *command, limit=None, **env):
        """A program of the bundle, by name, in the bundle's folder."""
        path = [f"{ROOT}/bin/{command[0]}", *command[1:]]
        return part.run(path, self.log(), ROOT, {**self.env, **env}, limit)

    def torch(self, part, *args, limit=None):
        if not self.python:
            raise Skip("no Python here has PyTorch")
        return part.run([self.python, "-B", f"{HERE}/torch_side.py", *map(str, args)], self.log(), HERE, None, limit)

    def dtype(self):
        """The storage that is compared with PyTorch's."""
        return "f32" if self.software else "f16"


def need(result, what):
    """Raises unless the command went well."""
    if result.late:
        raise Late(f"{what} did not finish; it had printed: {result.tail(2) or 'nothing'}")
    if result.status:
        raise RuntimeError(f"{what}: exit status {result.status}: {result.tail()}")
    return result


# ---- the device -----------------------------------------------------------------------------------------------------

def first_lines(command):
    try:
        r = subprocess.run(command, capture_output=True, text=True, timeout=20)
        return r.stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"({e})"


def is_hardware(line):
    return ", software," not in line


def find_devices(kit, part):
    """The devices, trying more places for a driver until one is hardware."""
    tries = [{}]
    if os.path.exists("/proc/driver/nvidia") or shutil.which("nvidia-smi") or any(map(os.path.exists, NVIDIA)):
        tries.append({"IMAGEND_OWN_LOADER": "1"})
        tries += [{"IMAGEND_OWN_LOADER": own, "VK_DRIVER_FILES": p, "VK_ICD_FILENAMES": p}
                  for p in NVIDIA if os.path.exists(p) for own in ("", "1")]
    best = None
    for env in tries:
        kit.env = {k: v for k, v in env.items() if v}
        r = kit.run(part, "imagend", "devices", limit=20)
        lines = [line for line in r.text.splitlines() if line[:1].isdigit()]
        if lines and (best is None or is_hardware(lines[0])):
            best = lines, kit.env, r
        if lines and is_hardware(lines[0]):
            break
        part.note(f"with {env or 'nothing set'}: {r.tail(2)}")
    if not best:
        raise RuntimeError("no Vulkan device was found")
    lines, kit.env, r = best
    kit.software = not is_hardware(lines[0])
    kit.small = kit.small or kit.software
    return r.text.strip()


def find_python(kit, part):
    for python in (os.environ.get("PYTHON"), shutil.which("python3"), "/usr/bin/python3", "/opt/torch/.venv/bin/python3",
                   "/opt/conda/bin/python3"):
        if not python or not os.path.exists(python):
            continue
        r = part.run([python, "-B", f"{HERE}/torch_side.py", "facts"], kit.log(), HERE, None, 60)
        if r.status == 0 and r.objects:
            kit.python = python
            return {"python": python, **r.objects[0]}
    part.note("no Python here has PyTorch; the comparisons are skipped")
    return {}


def device(kit, part):
    with open(f"{ROOT}/bundle.json") as f:
        bundle = json.load(f)
    part.data = {"bundle": bundle, "kernel": " ".join(os.uname()), "cpus": len(os.sched_getaffinity(0))}
    part.data["devices"] = find_devices(kit, part)
    part.data["settings"] = kit.env
    part.data["python"] = find_python(kit, part)
    part.data["nvidia_smi"] = first_lines(["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm",
                                           "--format=csv,noheader"])
    part.data["memory"] = first_lines(["head", "-n", "3", "/proc/meminfo"])
    part.data["small"] = kit.small
    part.table(["fact", "value"], [[k, str(v).replace("\n", "<br>")] for k, v in part.data.items()])


# ---- right results --------------------------------------------------------------------------------------------------

def read_ppm(path):
    with open(path, "rb") as f:
        data = f.read()
    head, size, most, pixels = data.split(b"\n", 3)
    return tuple(map(int, size.split())), pixels


def compare(got, want):
    """Bytes that differ, the largest difference, and PSNR in dB."""
    square = most = count = 0
    for a, b in zip(got, want):
        if a != b:
            d = abs(a - b)
            square, most, count = square + d * d, max(most, d), count + 1
    return count, most, 10 * math.log10(255 ** 2 * len(want) / square) if square else math.inf


def pixels(kit, part):
    folders = [f"{ROOT}/tests/reference/{size}" for size in (STAGES[:1] if kit.small else STAGES)]
    if not all(map(os.path.exists, folders)):
        raise Skip("the bundle was built without lavapipe, so it has no reference images")
    rows = []
    # A CPU's halves say nothing about a GPU's, and its first image waits for the compilation of all programs.
    dtypes = ("f32",) if kit.small else ("f32", "f16")
    for dtype in dtypes:
        for folder in folders:
            size = os.path.basename(folder)
            seeds = [os.path.basename(p)[:-4] for p in sorted(glob.glob(f"{folder}/*.ppm"))]
            out = f"{kit.work}/{dtype}-{size}"
            os.makedirs(out)
            r = kit.run(part, "draw", "share/imagend/models/default", size, out, PROMPT, *seeds, DRAW_STEPS="0",
                        DRAW_DTYPE=dtype, limit=part.left() * (1 if kit.small else .6))
            if r.status or r.late:
                rows.append([size, dtype, "-", "out of time" if r.late else r.tail(2), "", ""])
                continue
            for seed in seeds:
                a, b = read_ppm(f"{out}/{seed}.ppm"), read_ppm(f"{folder}/{seed}.ppm")
                count, most, psnr = compare(a[1], b[1])
                rows.append([size, dtype, seed, count, most, "equal" if psnr == math.inf else round(psnr, 1)])
            part.data["rows"] = rows
    part.table(["size", "storage", "seed", "bytes that differ from lavapipe's in f32", "by at most", "PSNR, dB"], rows)
    if any(row[2] == "-" for row in rows):
        raise RuntimeError("some images were not drawn")
    worst = min((row[5] for row in rows if row[1] == "f32" and row[5] != "equal"), default=99)
    if worst < 40:
        raise RuntimeError(f"an image in f32 is {worst} dB from lavapipe's")


def coverage(kit, part, suites):
    """How many builds of each row of the kernel table ran in each suite."""
    ran = {}
    for suite in suites:
        if os.path.exists(f"{kit.work}/kernels.{suite}"):
            with open(f"{kit.work}/kernels.{suite}") as f:
                for line in set(f):
                    row = line.split()[0]
                    ran[row, suite] = ran.get((row, suite), 0) + 1
    r = kit.run(part, "kernels", limit=20)
    rows = []
    for line in r.text.splitlines():
        name, builds, can = line.split(" ", 2)
        rows.append([name, builds, *([ran.get((name, s), 0) for s in suites] if can == "yes" else ["", "", can])])
    part.data["coverage"] = rows
    part.table(["kernel row", "builds", *suites], rows)


def suites(kit, part):
    """Every test program, several at a time: most of their time goes into the reference in plain C."""
    with open(f"{ROOT}/tests/tests.json") as f:
        waiting = json.load(f)
    at_once = max(1, min(8, len(os.sched_getaffinity(0)) // 2))
    order = {"golden": 0, "engine": 1, "ops": 2}
    waiting.sort(key=lambda t: order[t["suite"]])
    env = {**kit.env, "IMAGEND_TEST_WAY": "own"} if kit.small else kit.env
    running, rows = [], []
    try:
        while waiting or running:
            while waiting and len(running) < at_once and part.left() > 5:
                t = waiting.pop(0)
                p = part.start([f"{ROOT}/{t['command'][0]}", *t["command"][1:]], kit.log(), ROOT,
                               {**env, "IMAGEND_KERNEL_LOG": f"{kit.work}/kernels.{t['suite']}"})
                running.append((t, p, time.monotonic()))
            for one in list(running):
                t, p, began = one
                if p.poll() is None and part.left() > 1:
                    continue
                running.remove(one)
                late = p.poll() is None
                stop(p)
                with open(p.log, errors="replace") as f:
                    text = f.read().strip().splitlines()
                word = "out of time" if late else {0: "ok", 77: "skipped"}.get(p.returncode, "FAILED")
                rows.append([t["suite"], t["name"], word, round(time.monotonic() - began), " / ".join(text[-3:])[:200]])
                if word == "FAILED":
                    part.note(f"{t['name']}: " + "\n    ".join(text[-25:]))
            if part.left() <= 5 and waiting:
                rows += [[t["suite"], t["name"], "not run", 0, "no time was left"] for t in waiting]
                waiting = []
            time.sleep(0.05)
    finally:
        for _, p, _ in running:
            stop(p)
        part.data = {"tests": rows}
        part.table(["suite", "test", "result", "seconds", "last lines"], rows)
        coverage(kit, part, sorted(order, reverse=True))
    failed = [r[1] for r in rows if r[2] == "FAILED"]
    if failed:
        raise RuntimeError(f"failed: {', '.join(failed)}")
    late = [r[1] for r in rows if r[2] in ("out of time", "not run")]
    if late:
        raise Late(", ".join(late))


# ---- speed ----------------------------------------------------------------------------------------------------------

def digits(value):
    """Three significant digits, without an exponent; nothing for None."""
    if value is None:
        return ""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def ceilings(kit, part):
    r = kit.torch(part, "ceilings", 4 if kit.small else 10)
    part.data["rows"] = r.objects
    part.table(["ceiling", "GB/s", "TFLOP/s"], [[o["ceiling"], digits(o.get("gb_s")), digits(o.get("tflop_s"))]
                                                for o in r.objects])
    need(r, "PyTorch")


def operators(kit, part):
    only = ["base 16", "sr256 32", "t5 small"] if kit.small else []  # a CPU takes seconds for each of the others
    env = {} if kit.software else {"BENCH_ROWS": "1"}  # which take a CPU minutes
    r = kit.run(part, "bench_ops", *only, limit=part.left() * .65, BENCH_JSON="1", BENCH_DTYPE=kit.dtype(),
                BENCH_SECONDS="0.05", **env)
    ours = [o for o in r.objects if "kind" in o]
    part.data["ours"] = ours
    theirs, t = {}, None
    path = f"{kit.work}/shapes.json"
    with open(path, "w") as f:
        json.dump(ours, f)
    try:
        t = kit.torch(part, "ops", path, 4 if kit.small else 10)
        theirs = {o["shape"]: o for o in t.objects}
        part.data["torch"] = t.objects
    except Skip as e:
        part.note(str(e))
    rows = []
    for i, o in enumerate(ours):
        rate = o["gflop"] / o["back_to_back"] / 1e3
        row = [o["kind"], o["net"], f"{o['n']} x {o['h']}x{o['w']}, {o['in']} -> {o['out'] or o['heads']}",
               digits(o["seconds"] * 1e3), digits(o["back_to_back"] * 1e3), digits(rate)]
        other = theirs.get(i)
        rows.append(row + ([digits(other["seconds"] * 1e3), digits(other["back_to_back"] * 1e3),
                            digits(other["back_to_back"] / o["back_to_back"])] if other else ["", "", ""]))
    part.table(["operator", "network", "shape", "ms", "in a row, ms", "TFLOP/s", "PyTorch, ms", "in a row, ms",
                "ratio of speeds"], rows)
    part.note(f"imagend in {kit.dtype()}; \"ms\" with a wait after each run, \"in a row\" and what follows from it without")
    names = sorted({name for o in ours for name in o["rows"]})
    if names:
        part.note("milliseconds in a row with each row of the kernel table:")
        part.table(["operator", "network", "shape", *names],
                   [row[:3] + [digits(o["rows"][name] * 1e3) if name in o["rows"] else "" for name in names]
                    for o, row in zip(ours, rows)])
    need(r, "bench_ops")
    if t:
        need(t, "PyTorch")


NETWORKS = {  # name: edge, batch; small: network, edge, batch
    "IF-I-XL": (64, 2, "IF-I-M", 16, 1),
    "IF-II-L": (256, 1, "IF-II-M", 32, 1),
}


def weights(kit, part):
    """Starts writing the folders with random weights; network() waits for them."""
    for name in NETWORKS:
        try:
            start_network(kit, part, which(kit, name)[0])
        except Skip as e:
            part.note(str(e))


def start_network(kit, part, name):
    folder = f"{kit.work}/{name}"
    need_bytes = {"IF-I-XL": 9e9, "IF-II-L": 2.6e9}.get(name, 1.5e9)
    free = shutil.disk_usage(kit.work).free
    if free < need_bytes + 1e9:
        raise Skip(f"{name} needs {need_bytes / GB:.0f} GB in {kit.work}, which has {free / GB:.0f} GB")
    variant = "plain" if kit.dtype() == "f32" else "fp16"
    kit.makers[name] = part.start([sys.executable, "-B", f"{ROOT}/tests/full/make_if.py", name, folder, "--t5-layers",
                                   "0", "--variant", variant], kit.log())


def which(kit, name):
    """The network that stands for this one, its edge and its batch."""
    edge, batch, small, small_edge, small_batch = NETWORKS[name]
    return (small, small_edge, small_batch) if kit.small else (name, edge, batch)


def read_files(folder):
    """Bytes and seconds of reading a folder's weights, as `dd` does."""
    total, began, block = 0, time.perf_counter(), bytearray(8 << 20)
    for path in glob.glob(f"{folder}/*.safetensors"):
        with open(path, "rb", buffering=0) as f:
            while n := f.readinto(block):
                total += n
    return total, time.perf_counter() - began


def network(kit, part, name):
    name, edge, batch = which(kit, name)
    if name not in kit.makers:
        raise Skip("its weights were not written")
    made = part.finish(kit.makers[name])
    need(made, "make_if.py")
    bytes_, reading = read_files(f"{kit.work}/{name}/unet")
    env = {"BENCH_DTYPE": kit.dtype(), "BENCH_SECONDS": "2" if kit.small else "4"}
    if kit.dtype() == "f16":
        env["BENCH_VARIANT"] = "fp16"
    r = kit.run(part, "bench_unet", f"{kit.work}/{name}", str(edge), str(batch), limit=part.left() * .5, **env)
    part.data = {"network": name, "edge": edge, "batch": batch, "read_bytes": bytes_, "read_seconds": reading,
                 "ours": r.objects}
    rows = []
    for o in r.objects:
        if "load" in o:
            part.table(["weights", "bytes", "load, s", "GB/s", "reading the file, s", "ratio"],
                       [[name, o["file_bytes"], f"{o['seconds']:.2f}", f"{o['file_bytes'] / o['seconds'] / GB:.2f}",
                         f"{reading:.2f}", f"{o['seconds'] / reading:.2f}"]])
        if "forward" in o:
            rows.append(["imagend", o["dtype"], digits(o["seconds"] * 1e3), digits(o["gflop"] / o["seconds"] / 1e3),
                         digits(o["first"]), "1"])
    profile(kit, part, name, edge, batch, env)
    ours = next((o for o in r.objects if "forward" in o), None)
    weights_of = next((o["parameters"] for o in r.objects if "load" in o), None)
    try:
        for mode in ("eager", "compiled"):
            t = kit.torch(part, "unet", f"{kit.work}/{name}/unet/config.json", edge, batch, env["BENCH_SECONDS"], mode,
                          limit=part.left() * (.5 if mode == "eager" else 1))
            last = t.objects[-1] if t.objects else {}
            part.data[mode] = t.objects
            if last.get("parameters", weights_of) != weights_of:
                part.note(f"PyTorch's network has {last['parameters']} parameters, not {weights_of}")
            if "seconds" in last:
                rate = digits(ours["gflop"] / last["seconds"] / 1e3) if ours else ""
                rows.append([f"PyTorch {mode}", last["dtype"], digits(last["seconds"] * 1e3), rate,
                             digits(last["first"]), digits(last["seconds"] / ours["seconds"]) if ours else ""])
            else:
                rows.append([f"PyTorch {mode}", "", last.get("skipped") or ("out of time" if t.late else t.tail(2)),
                             "", "", ""])
    except Skip as e:
        part.note(str(e))
    part.table([f"{name}, {edge}x{edge}, batch {batch}", "storage", "ms per forward pass", "TFLOP/s",
                "first pass, s", "speed of imagend relative to it"], rows)
    part.note("PyTorch's pass includes the projections of the text, which imagend computes once per image.")
    shutil.rmtree(f"{kit.work}/{name}")
    need(r, "bench_unet")


def profile(kit, part, name, edge, batch, env):
    """Where the forward pass spends its time. A timestamp on either side separates the dispatches."""
    r = kit.run(part, "bench_unet", f"{kit.work}/{name}", str(edge), str(batch), BENCH_PROFILE="1",
                **{**env, "BENCH_SECONDS": "0.5"})
    operators = sorted((o for o in r.objects if "operator" in o), key=lambda o: -o["seconds"])
    total = sum(o["seconds"] for o in operators)
    part.data["profile"] = operators
    if not operators:
        part.note(f"no profile: {'out of time' if r.late else r.tail(2)}")
        return
    part.table(["kernel", "dispatches", "ms per forward pass", "share", "TFLOP/s"],
               [[o["operator"], o["calls"], digits(o["seconds"] * 1e3), f"{o['seconds'] / total:.1%}",
                 digits(o["gflop"] / o["seconds"] / 1e3) if o["gflop"] else ""] for o in operators])


def throughput(kit, part):
    rows, sizes = [], STAGES[:1] if kit.small else STAGES
    for i, size in enumerate(sizes):
        wanted = [1, 2] if kit.small else [1, 2, 4, 8, 16]
        lines = "".join(f"{n} {max(n, 2 if kit.small else 8)}\n" for n in wanted)
        path = f"{kit.work}/lines"
        with open(path, "w") as f:
            f.write(lines)
        r = part.run(["sh", "-c", f'exec "{ROOT}/bin/bench_alone" share/imagend/models/default {size} <"{path}"'],
                     kit.log(), ROOT, kit.env, part.left() / (len(sizes) - i))
        took = [float(x) for x in r.text.split() if x[:1].isdigit() and "." in x]
        for n, seconds in zip(wanted, took):
            count = max(n, 2 if kit.small else 8)
            rows.append([size, n, f"{count / seconds:.2f}"])
        part.data["rows"] = rows
        if r.late or r.status:
            rows.append([size, "-", "out of time" if r.late else r.tail(2)])
    part.table(["size", "images at once", "images/s"], rows)
    if any(row[1] == "-" for row in rows):
        raise Late("some sizes are missing")


# ---- all of it ------------------------------------------------------------------------------------------------------

def parts(kit):
    """Name, seconds, function, in the order of what one would miss most. The seconds add up to the whole."""
    return [
        ("device", 30, device),
        ("weights", 5, weights),
        ("pixels", 60, pixels),
        ("ceilings", 25, ceilings),
        ("operators", 80, operators),
        ("IF-I-XL", 125, lambda k, p: network(k, p, "IF-I-XL")),
        ("IF-II-L", 80, lambda k, p: network(k, p, "IF-II-L")),
        ("throughput", 20, throughput),
        ("suites", 103, suites),
    ]


def link_data():
    """A bundle without data inside a source tree (deploy/bundle.py --programs) uses the tree's."""
    tree = os.path.dirname(ROOT)
    while not os.path.exists(f"{ROOT}/share") and tree != "/":
        if os.path.exists(f"{tree}/models/default/cascade.json"):
            os.makedirs(f"{ROOT}/share/imagend/models")
            os.symlink(f"{tree}/models/default", f"{ROOT}/share/imagend/models/default")
            for name in ("golden", "data", "full"):
                os.symlink(f"{tree}/tests/{name}", f"{ROOT}/tests/{name}")
        tree = os.path.dirname(tree)
    if not os.path.exists(f"{ROOT}/share"):
        sys.exit("gpu.py: this bundle has no data; unpack it inside a source tree")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--small", action="store_true", help="small networks only")
    p.add_argument("--out", default=".", metavar="FOLDER", help="where the report goes (default: here)")
    p.add_argument("--minutes", type=float, default=8.8, help="limit of the whole (default: 8.8)")
    p.add_argument("--only", default="", metavar="PARTS", help="only these parts, separated by commas, and the device")
    args = p.parse_args()
    link_data()
    os.makedirs(args.out, exist_ok=True)
    work = tempfile.mkdtemp(prefix="imagend-gpu-")
    kit = Kit(args, work)
    os.environ.setdefault("XDG_CACHE_HOME", f"{work}/cache")
    report = Report(args.out, "imagend on this machine's Vulkan device", args.minutes * 60)
    only = set(filter(None, args.only.split(",")))
    known = [name for name, _, _ in parts(kit)]
    if only - set(known):
        sys.exit(f"gpu.py: unknown part {sorted(only - set(known))[0]}; the parts are {', '.join(known)}")
    try:
        for name, seconds, function in parts(kit):
            if not only or name in only or name == "device":
                report.part(name, seconds * args.minutes / 8.8, lambda part: function(kit, part))
    finally:
        for maker in kit.makers.values():
            if maker.poll() is None:
                stop(maker)
        shutil.rmtree(work, ignore_errors=True)
    print(f"{args.out}/report.json and report.md are written")


if __name__ == "__main__":
    main()
