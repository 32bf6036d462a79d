#!/usr/bin/env python3
"""Prints what each GGUF format costs: the error of the text states, and of the images that are drawn with them.

    formats.py BUILD [MODEL]

Without MODEL, a random one of make_if.py that every format fits, and the default cascade, whose rows only fit the
formats in blocks of 32. Text states: the largest and the mean difference, in units of their root mean square. Images:
largest and mean difference of a byte, and PSNR, of the images of four prompts at the base stage's size.
"""
import math
import os
import re
import subprocess
import sys
import tempfile
import zlib

import ggml

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PROMPTS = ["a red sphere on a wooden table", "a blue cube in the snow", "three trees at sunset", "two purple hearts"]
FORMATS = ["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "Q3_K", "Q2_K"]


def pixels(path):
    """The rows of a PNG, unfiltered."""
    with open(path, "rb") as f:
        data = f.read()
    at, body, width = 8, b"", 0
    while at < len(data):
        n, kind = int.from_bytes(data[at:at + 4], "big"), data[at + 4:at + 8]
        if kind == b"IHDR":
            width = int.from_bytes(data[at + 8:at + 12], "big")
        if kind == b"IDAT":
            body += data[at + 8:at + 8 + n]
        at += 12 + n
    raw, stride, out, above = zlib.decompress(body), 3 * width, b"", bytes(3 * width)
    for start in range(0, len(raw), stride + 1):
        kind, row = raw[start], bytearray(raw[start + 1:start + 1 + stride])
        for i in range(stride):
            a, b, c = (row[i - 3] if i > 2 else 0), above[i], (above[i - 3] if i > 2 else 0)
            near = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            row[i] = row[i] + (0, a, b, (a + b) // 2, near)[kind] & 255
        above = bytes(row)
        out += above
    return out


def draw(build, model, folder, file):
    flags = ["--text-encoder", file] if file else []
    images = []
    for i, prompt in enumerate(PROMPTS):
        out = os.path.join(folder, "out.png")
        subprocess.run([os.path.join(build, "imagend"), "generate", prompt, "--model", model, "--seed", str(i), "--size",
                        "64", "--steps", "20", "--quiet", "-o", out, *flags], check=True)
        images.append(pixels(out))
    return b"".join(images)


def row(build, model, encoder, folder, kind, original):
    path = os.path.join(folder, "encoder.gguf")
    file = ggml.convert(encoder, kind)
    file.write(path)
    used = sorted({t[2] for t in file.tensors if len(t[1]) == 2 and t[2] != "F32"})
    out = subprocess.run([os.path.join(build, "tests/gguf/gguf_states"), model, path, *PROMPTS], check=True,
                         capture_output=True, text=True).stdout
    size, most, mean, memory = map(float, out.split())
    drawn = draw(build, model, folder, path)
    off = [abs(a - b) for a, b in zip(original, drawn)]
    square = sum(d * d for d in off) / len(off)
    print("| %-5s | %6.2f | %6.2f | %.5f | %.5f | %3d | %6.3f | %s |%s" % (
        kind, os.path.getsize(path) / 1e6, memory / 1e6, most / size, mean / size, max(off), sum(off) / len(off),
        "%.1f dB" % (10 * math.log10(255 ** 2 / square)) if square else "equal",
        "" if used in ([], [kind]) else "  with " + ", ".join(u for u in used if u != kind)), flush=True)


def table(build, name, model, encoder, formats):
    print("\n%s\n\n| format | file, MB | on the device, MB | states, max | mean | image, max | mean | PSNR |" % name)
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="imagend-formats-") as folder:
        original = draw(build, model, folder, None)
        for kind in formats:
            row(build, model, encoder, folder, kind, original)


def main():
    build = sys.argv[1]
    if len(sys.argv) > 2:
        return table(build, sys.argv[2], sys.argv[2], sys.argv[2], FORMATS)
    with tempfile.TemporaryDirectory(prefix="imagend-formats-") as folder:
        model = os.path.join(folder, "m")
        subprocess.run([sys.executable, os.path.join(ROOT, "tests/full/make_if.py"), "IF-I-mini", model, "--variant",
                        "plain"], check=True, stdout=subprocess.DEVNULL)
        table(build, "random weights, width 256", model, model, FORMATS)
    default = os.path.join(ROOT, "models/default")
    table(build, "the default cascade, width 128", default, os.path.join(default, "base"),
          [f for f in FORMATS if not re.search("_K", f)])


if __name__ == "__main__":
    main()
