#!/usr/bin/env python3
"""Images within a memory limit: what `inspect` predicts is what is used, and no limit changes an image.

    check_memory.py IMAGEND GOLDEN [NAME...]

Without names: the tiny golden models, and a small random folder of make_if.py. With names: such folders of these
names ("IF-I-midi,IF-II-midi" for two stages). Standard library only.
"""
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
IMAGEND, GOLDEN = sys.argv[1:3]
WITHIN = 0.05


def run(*args):
    r = subprocess.run(args, capture_output=True, text=True, timeout=900)
    return r.returncode, r.stdout + r.stderr


def inspect(model, limit, slots, size):
    """The predicted peak and the least one in bytes, and the names of the parts that are kept."""
    status, text = run(IMAGEND, "inspect", model, "--memory-limit", str(limit), "--slots", str(slots), *size)
    m = re.search(r"^    peak\s+([\d.]+) MB, at least ([\d.]+) MB", text, re.M)
    assert m, text
    return status, float(m[1]) * 1e6, float(m[2]) * 1e6, re.findall(r"^    (\S.*?)\s+is kept", text, re.M), text


def generate(model, folder, limit, slots, images, steps, size):
    """Returns the bytes of the images and the measured peak."""
    out = os.path.join(folder, "out.png")
    flags = size + (["--memory-limit", str(limit)] if limit else [])
    status, text = run(IMAGEND, "generate", "a red fox", "--model", model, "--steps", steps, "--seed", "3", "--slots",
                       str(slots), "--n", str(images), "-o", out, *flags)
    if status:
        return status, text, 0
    names = [out] if images == 1 else [out.replace(".png", "-%d.png" % (i + 1)) for i in range(images)]
    data = []
    for name in names:
        with open(name, "rb") as f:
            data.append(f.read())
    return 0, data, float(re.search(r"device memory\s+([\d.]+) MB peak", text)[1]) * 1e6


def check(model, folder, slots, images, steps, size=[]):
    status, everything, least, kept, text = inspect(model, 1 << 40, slots, size)
    assert status == 0 and "text encoder" in kept and "stage 1" in kept and least < everything, text
    status, plain, peak = generate(model, folder, 0, slots, images, steps, size)
    assert status == 0, plain
    print("%s: all kept: predicted %.1f MB, measured %.1f MB" % (model, everything / 1e6, peak / 1e6), flush=True)
    assert abs(peak - everything) <= WITHIN * peak
    room = 16 / 15 + 1e-3  # a limit has some for parts of slabs
    # Everything fits; a little less; half of the way; the least that works.
    for limit in (everything * room, everything * room * 0.999, (everything + least) / 2 * room, least * room + 1e5):
        limit = int(limit)
        status, predicted, _, kept, text = inspect(model, limit, slots, size)
        assert status == 0 and predicted <= limit, text
        status, drawn, peak = generate(model, folder, limit, slots, images, steps, size)
        assert status == 0, (limit, drawn)
        print("limit %.1f MB: keeps %s: predicted %.1f MB, measured %.1f MB" % (
            limit / 1e6, ", ".join(kept) or "nothing", predicted / 1e6, peak / 1e6), flush=True)
        assert peak <= limit and abs(peak - predicted) <= WITHIN * peak
        assert drawn == plain, "the images differ"
    assert not kept, kept
    # Too little is refused before anything is loaded, with what works.
    limit = int(least * 0.9)
    status, _, _, _, text = inspect(model, limit, slots, size)
    assert status == 1 and "is too small: this model needs at least" in text, text
    status, text, _ = generate(model, folder, limit, slots, images, steps, size)
    assert status == 1 and "raise memory-limit" in text, text
    enough = int(re.search(r"at least (\d+) MB; raise", text)[1]) * 1000000
    assert inspect(model, enough, slots, size)[0] == 0, text


def main():
    status, text = run(IMAGEND, "devices")
    if status:
        print("skipped: " + text)
        return 77
    with tempfile.TemporaryDirectory(prefix="imagend-memory-") as folder:
        names = sys.argv[3:]
        if not names:
            tiny = ",".join(os.path.join(GOLDEN, n) for n in ("if-tiny-I", "if-tiny-II"))
            check(tiny, folder, 2, 3, "3,2")
            check(tiny, folder, 2, 3, "3,2", ["--size", "64x128"])
        for name in names or ["IF-I-mini"]:
            parts = []
            for part in name.split(","):
                parts.append(os.path.join(folder, part))
                status, text = run(sys.executable, os.path.join(HERE, "make_if.py"), part, parts[-1], "--variant",
                                   "plain")
                assert status == 0, text
            check(",".join(parts), folder, 1, 1, ",".join("1" for _ in parts))
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
