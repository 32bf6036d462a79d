#!/usr/bin/env python3
"""Load time of a model folder of about 5 GB, relative to reading the same files with dd.

usage: bench_load.py BENCH_UNET [RUNS [DTYPE [FOLDER]]]

Writes DeepFloyd IF's smallest base model with nine layers of T5-XXL and random weights into FOLDER (default: a new
one in /var/tmp, which is removed), then loads and reads it RUNS times (default 3) in turns: with the files in the
page cache, and after the kernel was asked to drop them. Processor time is that of the process; it tells more than the
clock on a busy machine. DTYPE is the device's storage, f16 (the default, as in the
files) or f32. Standard library only.
"""
import glob
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MAKE = os.path.join(HERE, "..", "full", "make_if.py")
BYTES = 5.5e9


def drop(files):
    """Asks the kernel to forget the files; pages that another process maps stay."""
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def processor():
    """Processor time of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read(files):
    """Seconds and processor time."""
    began, busy = time.perf_counter(), processor()
    for path in files:
        subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=8M", "status=none"], check=True)
    return time.perf_counter() - began, processor() - busy


def load(program, folder, dtype):
    """Seconds without the start of the device, and processor time with it."""
    env = {**os.environ, "BENCH_DTYPE": dtype, "BENCH_VARIANT": "fp16"}
    busy = processor()
    r = subprocess.run([program, folder], env=env, capture_output=True, text=True)
    if r.returncode:
        sys.exit(f"bench_load: {r.stderr.strip()}")
    parts = [json.loads(line) for line in r.stdout.splitlines()]
    return sum(p["seconds"] for p in parts), processor() - busy


def median(values):
    return sorted(values)[len(values) // 2]


def measure(program, folder, runs, dtype):
    files = sorted(glob.glob(f"{folder}/*/*.safetensors"))
    size = sum(map(os.path.getsize, files))
    print(f"{size / 1e9:.2f} GB in {len(files)} files, stored as {dtype}; medians of {runs}")
    print(f"{'page cache':12} {'load, s':>9} {'cpu, s':>7} {'GB/s':>6} {'dd, s':>9} {'cpu, s':>7} {'GB/s':>6} "
          f"{'load/dd':>8}")
    for cache in ("warm", "cold"):
        loads, reads = [], []
        if cache == "warm":
            read(files)
        for _ in range(runs):
            for results, function, args in ((reads, read, [files]), (loads, load, [program, folder, dtype])):
                if cache == "cold":
                    drop(files)
                results.append(function(*args))
        (a, busy_a), (b, busy_b) = ([median(column) for column in zip(*results)] for results in (loads, reads))
        print(f"{cache:12} {a:9.2f} {busy_a:7.2f} {size / a / 1e9:6.2f} {b:9.2f} {busy_b:7.2f} {size / b / 1e9:6.2f} "
              f"{a / b:8.2f}", flush=True)


def main():
    program, runs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    dtype = sys.argv[3] if len(sys.argv) > 3 else "f16"
    if runs < 1 or dtype not in ("f16", "f32") or len(sys.argv) > 5:
        sys.exit("usage: bench_load.py BENCH_UNET [RUNS, at least 1 [f16|f32 [FOLDER]]]")
    parent = tempfile.mkdtemp(prefix="imagend-load-", dir="/var/tmp") if len(sys.argv) < 5 else None
    folder = sys.argv[4] if not parent else f"{parent}/model"
    try:
        if not os.path.exists(folder):
            if shutil.disk_usage(os.path.dirname(os.path.abspath(folder)) or ".").free < BYTES:
                sys.exit(f"bench_load: {folder} needs {BYTES / 1e9} GB of disk space")
            subprocess.run([sys.executable, MAKE, "IF-I-M", folder, "--t5-layers", "9"], check=True)
        measure(program, folder, runs, dtype)
    finally:
        if parent:
            shutil.rmtree(parent)


if __name__ == "__main__":
    main()
