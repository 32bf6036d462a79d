#!/usr/bin/env python3
"""The program on a folder with DeepFloyd IF's layout and widths: IF-I-M with a T5-XXL of two layers.

    check_if.py IMAGEND COMPARE_PATHS

Exits with 77 if disk or memory is too small. Standard library only.
"""
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
NEED_DISK, NEED_MEMORY = 3e9, 6e9
failures = 0


def check(ok, what):
    global failures
    print("%s  %s" % ("ok    " if ok else "FAILED", what), flush=True)
    failures += not ok


def available_memory():
    with open("/proc/meminfo") as f:
        return int(re.search(r"MemAvailable:\s+(\d+)", f.read()).group(1)) * 1024


def run(*args):
    print("$ " + " ".join(args), flush=True)
    r = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(r.stdout, end="", flush=True)
    return r.returncode, r.stdout


def pixels(path):
    """Width, height and the raw rows of a PNG."""
    with open(path, "rb") as f:
        data = f.read()
    at, rows, size = 8, b"", (0, 0)
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IHDR":
            size = struct.unpack(">II", data[at + 8:at + 16])
        if kind == b"IDAT":
            rows += data[at + 8:at + 8 + length]
        at += 12 + length
    return size, zlib.decompress(rows)


def check_inspect(imagend, model):
    for variant in ([], ["--variant", "fp16"]):
        status, text = run(imagend, "inspect", model, *variant)
        check(status == 0 and "complete" in text and "INCOMPLETE" not in text, "nothing is missing")
        check("775 tensors, 371.61 M parameters" in text, "the U-Net's tensors and parameters")
        check("21 tensors, 517.49 M parameters, 335.5 MB F32 867.2 MB F16" in text,
              "the encoder's tensors, its wo matrices in F32")
    status, text = run(imagend, "inspect", model, "--variant", "none")
    check(status != 0 and "none.safetensors" in text, "a variant that is not there")


def check_limit(imagend, model, out):
    status, text = run(imagend, "generate", "x", "--model", model, "--dtype", "f16", "-o", out,
                       "--memory-limit", "1G")
    check(status == 1 and "raise memory-limit" in text, "a memory limit is kept and explained")


def check_generate(imagend, model, out):
    status, text = run(imagend, "generate", "a red fox", "--model", model, "--dtype", "f16",
                       "--size", "64", "--steps", "1", "--seed", "1", "-o", out)
    check(status == 0, "one step of the base stage")
    if status == 0:
        size, rows = pixels(out)
        check(size == (64, 64) and len(set(rows)) > 100, "a picture of noise")
    device = re.search(r"device memory\s+([\d.]+) MB", text)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    # The largest tensor, T5-XXL's table, as floats while it is converted, and the program itself.
    room = 2 * 4 * 32128 * 4096 + 200e6
    check(device and most < float(device.group(1)) * 1e6 + room,
          "%.0f MB of memory: the device's and one tensor" % (most / 1e6))


def main():
    imagend, compare = sys.argv[1:3]
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < NEED_DISK or available_memory() < NEED_MEMORY:
        print("skipped: needs %.0f GB of disk in %s and %.0f GB of memory" % (
            NEED_DISK / 1e9, tempfile.gettempdir(), NEED_MEMORY / 1e9))
        return 77
    with tempfile.TemporaryDirectory(prefix="imagend-full-") as folder:
        model, out = os.path.join(folder, "IF-I-M"), os.path.join(folder, "out.png")
        status, _ = run(sys.executable, os.path.join(HERE, "make_if.py"), "IF-I-M", model,
                        "--t5-layers", "2")
        check(status == 0, "the folder is written")
        check_inspect(imagend, model)
        check_limit(imagend, model, out)
        check_generate(imagend, model, out)
        status, _ = run(compare, os.path.join(model, "unet"), "8")
        check(status == 0, "all ways to compute agree")
    print("%d failed" % failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
