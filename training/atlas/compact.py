"""An atlas as one small file, to take to another machine: drawings in their own colours, each pixel as the
difference from the one before, compressed; the levels are made again there. Needs nothing but torch and numpy.
With --webp a sprite is a lossless WebP image instead: half the size, where there is Pillow to read it.

    python3 -m atlas.compact pack out/atlas atlas.zip [--side 192] [--webp]
    python3 -m atlas.compact unpack atlas.zip out/atlas

Sprites come back as they were to within rounding. --side is that of the largest sprites: 192 is enough for the
base, 256 for super-resolution to 256 px, 512 for that to 1024.
"""

import argparse
import io
import json
import pathlib
import zipfile

import numpy
import torch

from . import LARGE, SIDES, sprites
from .recolour import recolour

KEPT = ("index", "rows", "info", "code", "recolour", "glow_96", "glow_256")


def _load(folder, name):
    return numpy.load(folder / (name + ".npy"), mmap_mode="r")


def _written(planes, webp):
    """(name's ending, bytes) of a sprite."""
    if not webp:
        steps = numpy.diff(planes, axis=2, prepend=numpy.uint8(0))        # wraps around, and back again
        return ".raw", steps.tobytes()
    from PIL import Image
    out = io.BytesIO()
    Image.fromarray(numpy.ascontiguousarray(planes.transpose(1, 2, 0)), "RGBA").save(
        out, "WEBP", lossless=True, quality=30, method=3, exact=True)
    return ".webp", out.getvalue()


def pack(folder, path, side=sprites.WORKING, webp=False):
    folder = pathlib.Path(folder)
    large = _load(folder, "large_%d" % min(s for s in LARGE if s >= side))
    with zipfile.ZipFile(path, "w") as out:
        out.write(folder / "atlas.json", "atlas.json", zipfile.ZIP_DEFLATED)
        out.write(folder / "basis.npz", "basis.npz", zipfile.ZIP_DEFLATED)
        out.writestr("side", str(side))
        for name in KEPT:
            out.write(folder / (name + ".npy"), name + ".npy", zipfile.ZIP_DEFLATED)
        for number, planes in enumerate(large):
            if side != planes.shape[1]:
                smaller = sprites.resized(torch.from_numpy(planes.copy()).float() / 255, side, side)
                planes = sprites.to_bytes(smaller).numpy()
            ending, data = _written(planes, webp)
            out.writestr("%d%s" % (number, ending), data, zipfile.ZIP_STORED if webp else zipfile.ZIP_LZMA)


def _planes(archive, number, side):
    if "%d.webp" % number in archive.NameToInfo:
        from PIL import Image
        with Image.open(io.BytesIO(archive.read("%d.webp" % number))) as image:
            return torch.from_numpy(numpy.array(image.convert("RGBA")).transpose(2, 0, 1).copy())
    steps = numpy.frombuffer(archive.read("%d.raw" % number), numpy.uint8).reshape(4, side, side)
    return torch.from_numpy(numpy.cumsum(steps, axis=2, dtype=numpy.uint8))


def unpack(path, folder, processes=1):
    """Makes the folder of an atlas; the processes share the drawings among themselves."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path) as archive:
        side, about = int(archive.read("side")), json.loads(archive.read("atlas.json"))
        for name in ["atlas.json", "basis.npz"] + [k + ".npy" for k in KEPT]:
            (folder / name).write_bytes(archive.read(name))
    rows = len(numpy.load(folder / "rows.npy"))
    shapes = {"level_%d" % s: (rows, s) for s in SIDES}
    shapes.update({"large_%d" % s: (len(about["drawings"]), s) for s in LARGE if s <= side})
    for name, (count, size) in shapes.items():
        numpy.lib.format.open_memmap(folder / (name + ".npy"), "w+", numpy.uint8, (count, 4, size, size)).flush()
    if processes == 1:
        _fill(0, path, folder, len(about["drawings"]), 1)
    else:
        torch.multiprocessing.spawn(_fill, (path, folder, len(about["drawings"]), processes), processes)


def _fill(rank, path, folder, drawings, processes):
    """Writes the sprites of every so manieth drawing into the files that unpack() has made."""
    torch.set_num_threads(1)

    def store(name):
        return numpy.lib.format.open_memmap(folder / (name + ".npy"), "r+")
    rows = torch.from_numpy(numpy.load(folder / "rows.npy")).long()
    measured = torch.from_numpy(numpy.load(folder / "recolour.npy"))
    levels = {s: store("level_%d" % s) for s in SIDES}
    larges = {s: store("large_%d" % s) for s in LARGE if (folder / ("large_%d.npy" % s)).exists()}
    with zipfile.ZipFile(path) as archive:
        side = int(archive.read("side"))
        for number in range(rank, drawings, processes):
            planes = _planes(archive, number, side).float() / 255
            for s, kept in larges.items():
                kept[number] = sprites.to_bytes(sprites.resized(planes, s, s)).numpy()
            mine = (rows[:, 0] == number).nonzero()[:, 0]
            square = sprites.resized(planes, sprites.WORKING, sprites.WORKING)[None].expand(len(mine), -1, -1, -1)
            coloured = recolour(square.clone(), measured[number:number + 1].expand(len(mine), -1), rows[mine, 1])
            for row, sprite in zip(mine.tolist(), coloured):
                for s, small in sprites.sized(sprite).items():
                    levels[s][row] = sprites.to_bytes(small).numpy()


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("what", choices=("pack", "unpack"))
    args.add_argument("source", type=pathlib.Path)
    args.add_argument("target", type=pathlib.Path)
    args.add_argument("--side", type=int, default=sprites.WORKING, choices=(sprites.WORKING,) + LARGE)
    args.add_argument("--webp", action="store_true", help="smaller; to be read where there is Pillow")
    opt = args.parse_args()
    if opt.what == "pack":
        pack(opt.source, opt.target, opt.side, opt.webp)
    else:
        unpack(opt.source, opt.target)


if __name__ == "__main__":
    main()
