#!/usr/bin/env python3
"""Images within a memory limit: what `inspect` predicts is what is used, and no limit changes an image or the states of
a prompt.

    check_memory.py IMAGEND GOLDEN [NAME...]

Without names: the tiny golden models, and a small random folder of make_if.py whose text encoder is the largest part.
With names: such folders of these names ("IF-I-midi,IF-II-midi" for two stages; "tiny" for the tiny models at a larger
size; "x4" for the golden models up to 1024 pixels). With names, and with TEST_CASES=all in the environment, each limit that
leads to another prediction draws; otherwise, one for each set of parts that are kept and streamed. Standard library only.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
IMAGEND, GOLDEN = sys.argv[1:3]
WITHIN = 0.05
LIMITS = 4
ALL = len(sys.argv) > 3 or os.environ.get("TEST_CASES") == "all"


def run(*args, **env):
    compiled = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "imagend", "mesa")
    env = {"MESA_SHADER_CACHE_DIR": compiled, **os.environ, **env}
    r = subprocess.run(args, capture_output=True, text=True, timeout=900, env=env)
    return r.returncode, r.stdout + r.stderr


def inspect(model, limit, slots, size):
    """The predicted peak and the least one in bytes, and the names of the parts that are kept and streamed."""
    status, text = run(IMAGEND, "inspect", model, "--memory-limit", str(limit), "--slots", str(slots), *size)
    m = re.search(r"^    peak\s+([\d.]+) MB, at least ([\d.]+) MB", text, re.M)
    assert m, text
    parts = [re.findall(r"^    (\S.*?)\s+is %s" % how, text, re.M) for how in ("kept", "streamed")]
    return status, float(m[1]) * 1e6, float(m[2]) * 1e6, *parts, text


def generate(model, folder, limit, slots, images, steps, size, **env):
    """Returns the bytes of the images and of the prompts' states, and the measured peak."""
    out, cache = os.path.join(folder, "out.png"), os.path.join(folder, "cache")
    states = os.path.join(cache, "imagend", "text")
    shutil.rmtree(states, ignore_errors=True)
    flags = size + (["--memory-limit", str(limit)] if limit else []) + ["--text-cache", "64M"]
    status, text = run(IMAGEND, "generate", "a red fox", "--model", model, "--steps", steps, "--seed", "3", "--slots",
                       str(slots), "--n", str(images), "-o", out, *flags, XDG_CACHE_HOME=cache, **env)
    if status:
        return status, text, 0
    names = sorted(os.path.join(states, name) for name in os.listdir(states))
    assert len(names) >= 2, names  # the prompt and the empty one
    names += [out] if images == 1 else [out.replace(".png", "-%d.png" % (i + 1)) for i in range(images)]
    data = {}
    for name in names:
        with open(name, "rb") as f:
            data[name] = f.read()
    return 0, data, float(re.search(r"device memory\s+([\d.]+) MB peak", text)[1]) * 1e6


def check_automatic(model, folder, slots, images, steps, size, plain, limit):
    """Without a limit, the device's free memory is one, of which a sixteenth is left to others."""
    free = int(limit * 16 / 15) + 1
    status, drawn, peak = generate(model, folder, 0, slots, images, steps, size, IMAGEND_DEVICE_MEMORY=str(free))
    assert status == 0, drawn
    assert drawn == plain and peak <= limit, (peak, limit)
    print("%.1f MB free: measured %.1f MB" % (free / 1e6, peak / 1e6), flush=True)
    if size:
        return
    status, text, _ = generate(model, folder, 0, slots, images, steps, size, IMAGEND_DEVICE_MEMORY=str(free * 7 // 8))
    assert status == 1 and re.search(r"the \d+ MB that .* has free are too few: this model needs at least \d+ MB; free",
                                     text), text


def check(model, folder, slots, images, steps, size=[], limits=LIMITS, again=ALL):
    """Returns the names of the parts that some limit streamed. again: also draws with a limit that keeps everything, and
    with the device's free memory as the limit."""
    status, everything, least, kept, streamed, text = inspect(model, 1 << 40, slots, size)
    assert status == 0 and "text encoder" in kept and "stage 1" in kept and least < everything, text
    assert not streamed, text
    status, plain, peak = generate(model, folder, 0, slots, images, steps, size)
    assert status == 0, plain
    print("%s: all kept: predicted %.1f MB, measured %.1f MB" % (model, everything / 1e6, peak / 1e6), flush=True)
    assert abs(peak - everything) <= WITHIN * peak
    room = 16 / 15 + 1e-3  # a limit has some for parts of slabs
    # Everything fits; a little less; and down to the least that works. Limits that lead to the same plan differ in
    # how much room it leaves, so only the smallest of them draws.
    tried = [least + (everything * 0.999 - least) * k / limits for k in range(limits + 1)] + [everything]
    plans, seen = {}, set()
    for limit in reversed(tried):
        limit = int(limit * room + 1e5)
        status, predicted, _, kept, streamed, text = inspect(model, limit, slots, size)
        assert status == 0 and predicted <= limit, text
        if again or predicted < everything:
            plan = (*kept, "streams", *streamed, *([predicted] if ALL else []))
            plans[plan] = limit, predicted, kept, streamed
    for limit, predicted, kept, streamed in plans.values():
        status, drawn, peak = generate(model, folder, limit, slots, images, steps, size)
        assert status == 0, (limit, drawn)
        print("limit %.1f MB: keeps %s, streams %s: predicted %.1f MB, measured %.1f MB" % (
            limit / 1e6, ", ".join(kept) or "nothing", ", ".join(streamed) or "nothing", predicted / 1e6, peak / 1e6),
              flush=True)
        assert peak <= limit and abs(peak - predicted) <= WITHIN * peak
        assert drawn == plain, "the images differ"
        seen.update(streamed)
    assert len(plans) > (1 if again else 0), plans
    assert not kept, kept
    if again:
        check_automatic(model, folder, slots, images, steps, size, plain, least * room + 1e5)
    # Too little is refused before anything is loaded, with what works.
    limit = int(least * 0.9)
    status, _, _, _, _, text = inspect(model, limit, slots, size)
    assert status == 1 and "is too small: this model needs at least" in text, text
    status, text, _ = generate(model, folder, limit, slots, images, steps, size)
    assert status == 1 and "raise memory-limit" in text, text
    enough = int(re.search(r"at least (\d+) MB; raise", text)[1]) * 1000000
    assert inspect(model, enough, slots, size)[0] == 0, text
    return seen


def main():
    status, text = run(IMAGEND, "devices")
    if status:
        print("skipped: " + text)
        return 77
    with tempfile.TemporaryDirectory(prefix="imagend-memory-") as folder:
        names = sys.argv[3:]
        tiny = ",".join(os.path.join(GOLDEN, n) for n in ("if-tiny-I", "if-tiny-II"))
        x4 = os.path.join(GOLDEN, "x4-tiny")
        if not names:
            for size, limits in (([], LIMITS), (["--size", "64x128"], 1)):
                seen = check(tiny, folder, 2, 3, "3,2", size, limits, again=ALL or not size)
                assert {"stage 1", "stage 2"} <= seen, seen
            # With a decoder and two text encoders.
            assert "stage 3" in check(tiny + "," + x4, folder, 1, 1, "1,1,1", limits=2)
        for name in names or ["IF-I-mini"]:
            if name == "tiny":
                check(tiny, folder, 2, 3, "3,2", ["--size", "64x128"])
                check(tiny + "," + x4, folder, 1, 1, "1,1,1")
                continue
            if name == "x4":  # 1024 pixels, decoded in bands
                parts = ["if-tiny-I", "if-tiny-II-256", "x4-tiny"]
                check(",".join(os.path.join(GOLDEN, n) for n in parts), folder, 1, 1, "1,1,1", limits=1)
                continue
            parts = []
            for part in name.split(","):
                parts.append(os.path.join(folder, part))
                status, text = run(sys.executable, os.path.join(HERE, "make_if.py"), part, parts[-1], "--variant",
                                   "plain", *([] if names else ["--t5-layers", "24"]))
                assert status == 0, text
            seen = check(",".join(parts), folder, 1, 1, ",".join("1" for _ in parts))
            assert names or "text encoder" in seen, seen
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
